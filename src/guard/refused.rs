//! Says which system call was refused, and lets it fail.
//!
//! Why not end the process: a C library or a kernel that is newer than this program may have it make a call that nobody thought of,
//! and a tap that dies of it in the night tells nothing of the night. Whoever runs code of his own in this process gains as little
//! either way: the call does not happen. So it fails with ENOSYS, which libraries take as "this kernel has none" and do without, and it
//! is said on standard error, in the summary and in the count that [`refused`] gives.
//!
//! Unsafe invariants:
//! - U1: the handler makes no call but `write`, takes no lock and allocates nothing, and leaves `errno` as it was.
//! - U2: with `SA_SIGINFO` the kernel passes a `siginfo_t` and a `ucontext_t` that live as long as the handler runs.
//! - U3: SIGSYS of code `SYS_SECCOMP` is raised by the thread's own call, so its registers are those at that call.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Said at most so often: somebody who tries all calls would fill the journal.
const SAID: u64 = 16;

/// `si_code` of a call that a filter trapped, from asm-generic/siginfo.h.
const SYS_SECCOMP: libc::c_int = 1;

static REFUSED: AtomicU64 = AtomicU64::new(0);

/// System calls that were refused so far.
pub fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// From now on they are counted, said, and fail.
pub(super) fn report() -> io::Result<()> {
    // SAFETY: all zero is a valid `sigaction`; its handler is set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    action.sa_sigaction = handler as *const () as usize;
    // SAFETY: U1, U2: the handler has the signature that `SA_SIGINFO` asks for.
    let done = unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The part of `siginfo_t` that SIGSYS fills in (asm-generic/siginfo.h).
#[repr(C)]
struct SysInfo {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    _pad: libc::c_int,
    address: *const libc::c_void,
    call: libc::c_int,
    arch: libc::c_uint,
}

extern "C" fn handler(_: libc::c_int, info: *const libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: U1: its own thread's errno.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: U2; the layouts agree, as `SysInfo` says.
    let info = unsafe { &*info.cast::<SysInfo>() };
    if info.code == SYS_SECCOMP {
        // SAFETY: U2, U3.
        let first = unsafe { fail(context.cast()) };
        if REFUSED.fetch_add(1, Ordering::Relaxed) < SAID {
            let line = Line::of(info.call.unsigned_abs().into(), first);
            // SAFETY: U1: a buffer of this function's.
            unsafe { libc::write(2, line.bytes.as_ptr().cast(), line.len) };
        }
    }
    // SAFETY: U1, as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Has the call return `-ENOSYS`; gives back its first argument.
///
/// # Safety
/// `context` is the handler's, of a trapped call.
#[cfg(target_arch = "x86_64")]
unsafe fn fail(context: *mut libc::ucontext_t) -> u64 {
    // SAFETY: U2, U3.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    registers[libc::REG_RAX as usize] = -i64::from(libc::ENOSYS);
    registers[libc::REG_RDI as usize] as u64
}

/// See above.
#[cfg(target_arch = "aarch64")]
unsafe fn fail(context: *mut libc::ucontext_t) -> u64 {
    // SAFETY: U2, U3.
    let registers = unsafe { &mut (*context).uc_mcontext.regs };
    std::mem::replace(&mut registers[0], -i64::from(libc::ENOSYS) as u64)
}

/// Elsewhere there is no filter.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn fail(_: *mut libc::ucontext_t) -> u64 {
    0
}

/// A line that is made without an allocation.
struct Line {
    bytes: [u8; 160],
    len: usize,
}

impl Line {
    fn of(call: u64, first: u64) -> Line {
        let mut line = Line { bytes: [0; 160], len: 0 };
        line.text(b"syntap: refused system call ");
        line.number(call);
        line.text(b" (first argument ");
        line.number(first);
        line.text(b"): it is in no list of calls that a running tap makes; see docs/security.md\n");
        line
    }

    fn text(&mut self, text: &[u8]) {
        for b in text {
            if let Some(to) = self.bytes.get_mut(self.len) {
                *to = *b;
                self.len += 1;
            }
        }
    }

    fn number(&mut self, n: u64) {
        let mut digits = [b'0'; 20];
        let (mut rest, mut at) = (n, digits.len());
        while at == digits.len() || rest > 0 {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.text(&digits[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_number_and_never_outgrows_its_room() {
        let said = |call, first| {
            let line = Line::of(call, first);
            String::from_utf8(line.bytes[..line.len].to_vec()).unwrap()
        };
        assert!(said(41, 0).contains("system call 41 (first argument 0)"));
        let longest = said(u32::MAX.into(), u64::MAX);
        assert!(longest.contains("18446744073709551615") && longest.ends_with("security.md\n"), "{longest}");
    }
}
