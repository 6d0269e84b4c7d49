//! Which events the kernel puts into the socket at all: a classic BPF filter on the message.
//!
//! A connection makes some seven events: NEW, DESTROY, and an UPDATE for each step of its state and each bit of its status. The rules
//! read three: NEW, DESTROY, and the UPDATE that says CLOSE (somebody reset it). The filter lets these through if they are TCP's, so
//! that the receive buffer lasts more than twice as long. What it cannot read it lets through: user space looks again.
//!
//! Unsafe invariants:
//! - U1: program and length agree, and both outlive the call; the kernel copies the program.
//! - U2: a value's length is its own size.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{sock_filter, sock_fprog};

use super::message::{CT_DELETE, CT_NEW, CTNETLINK, HEADERS, TcpState, cta};

/// `SKF_AD_OFF + SKF_AD_NLATTR`: from offset A on, the attribute whose number is in X. A becomes its offset, 0 if there is none.
const FIND: u32 = (-0x1000i32 + 12) as u32;
/// The same inside the attribute at A.
const FIND_INSIDE: u32 = (-0x1000i32 + 16) as u32;

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_BYTE_AT_X: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_A: u32 = libc::BPF_LD | libc::BPF_IMM;
const LOAD_X: u32 = libc::BPF_LDX | libc::BPF_IMM;
const X_FROM_A: u32 = libc::BPF_MISC | libc::BPF_TAX;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Where a test leads.
#[derive(Clone, Copy)]
enum To {
    Below,
    Accept,
    Refuse,
}

enum Step {
    Do(u32, u32),
    /// A test, where it leads if it holds, and if not.
    If(u32, u32, To, To),
}

/// A field of a header in this machine's order, as the filter's big-endian load sees it.
const fn host16(value: u16) -> u32 {
    u16::from_be_bytes(value.to_ne_bytes()) as u32
}

/// The attribute `number`, or where to go without it.
fn find(steps: &mut Vec<Step>, how: u32, number: u16, without: To) {
    steps.push(Step::Do(LOAD_X, number.into()));
    steps.push(Step::Do(LOAD_BYTE, how));
    steps.push(Step::If(EQUAL, 0, without, To::Below));
}

/// The byte that is the value of the attribute at A.
fn value(steps: &mut Vec<Step>) {
    steps.push(Step::Do(X_FROM_A, 0));
    steps.push(Step::Do(LOAD_BYTE_AT_X, 4));
}

fn program() -> Vec<sock_filter> {
    use Step::{Do, If};
    let kind = |kind| host16(u16::from_le_bytes([kind, CTNETLINK]));
    let mut steps = vec![Do(LOAD_A, HEADERS as u32)];
    find(&mut steps, FIND, cta::TUPLE_ORIG, To::Accept);
    find(&mut steps, FIND_INSIDE, cta::TUPLE_PROTO, To::Accept);
    find(&mut steps, FIND_INSIDE, cta::PROTO_NUM, To::Accept);
    value(&mut steps);
    steps.extend([
        If(EQUAL, libc::IPPROTO_TCP as u32, To::Below, To::Refuse),
        Do(LOAD_HALF, 4),
        If(EQUAL, kind(CT_DELETE), To::Accept, To::Below),
        If(EQUAL, kind(CT_NEW), To::Below, To::Accept),
        Do(LOAD_HALF, 6),
        If(ANY_BIT, host16(libc::NLM_F_CREATE as u16), To::Accept, To::Below),
        Do(LOAD_A, HEADERS as u32),
    ]);
    // An update without a state is one of a timeout, a mark, a bit of the status.
    find(&mut steps, FIND, cta::PROTOINFO, To::Refuse);
    find(&mut steps, FIND_INSIDE, cta::PROTOINFO_TCP, To::Accept);
    find(&mut steps, FIND_INSIDE, cta::TCP_STATE, To::Accept);
    value(&mut steps);
    steps.push(If(EQUAL, TcpState::Close as u32, To::Accept, To::Refuse));

    let (accept, refuse) = (steps.len(), steps.len() + 1);
    let mut program: Vec<sock_filter> = Vec::with_capacity(steps.len() + 2);
    for (at, step) in steps.iter().enumerate() {
        // A jump counts from the instruction after it, in a byte: the program is far shorter.
        let distance = |to: To| match to {
            To::Below => 0,
            To::Accept => (accept - at - 1) as u8,
            To::Refuse => (refuse - at - 1) as u8,
        };
        program.push(match *step {
            Do(code, k) => sock_filter { code: code as u16, jt: 0, jf: 0, k },
            If(code, k, then, otherwise) => {
                sock_filter { code: code as u16, jt: distance(then), jf: distance(otherwise), k }
            }
        });
    }
    for verdict in [u32::MAX, 0] {
        program.push(sock_filter { code: RETURN as u16, jt: 0, jf: 0, k: verdict });
    }
    program
}

/// Puts the filter on a socket.
pub(super) fn attach(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut program = program();
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: U1.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<sock_fprog>() as u32,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Messages that found no room in a socket since it was opened (`SK_MEMINFO_DROPS`).
pub(super) fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// `SK_MEMINFO_VARS` and the place of the drops in them, from linux/sock_diag.h.
    const VARS: usize = 9;
    const DROPS: usize = 8;
    let mut values = [0u32; VARS];
    let mut length = size_of_val(&values) as u32;
    // SAFETY: U2.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if done == 0 { Ok(values[DROPS]) } else { Err(io::Error::last_os_error()) }
}
