//! Asks connection tracking from a process of its own.
//!
//! The kernel answers requests of who has `CAP_NET_ADMIN` while he sends them; events and answers need nothing to be read. So a tap
//! that has given up its capabilities leaves the sending to a helper, forked before it did: it holds the socket for requests and one
//! end of a channel, and knows three requests by heart. Whatever becomes of the tap, the helper can be made to send no others.
//!
//! | channel       | direction     | message                                                         |
//! | ------------- | ------------- | --------------------------------------------------------------- |
//! | ready         | helper to tap | sequence 0, errno: 0, or why it cannot be confined              |
//! | question      | tap to helper | sequence, number of the request                                 |
//! | answer        | helper to tap | sequence, errno: 0 once it is sent; the kernel answers the tap  |
//!
//! The helper ends when the tap's end of the channel is closed, also by a kill.
//!
//! Unsafe invariants:
//! - U1: there is one thread when it forks, so no lock is held by a thread that the helper has not.
//! - U2: the helper closes descriptors that it never uses again, and leaves by `_exit`, without a destructor.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use super::message::{CT_GET, CT_STATS_CPU, dump_request};

/// How long the helper may take for an answer: it makes one system call for it, but may have to wait for its CPU.
const PATIENCE: Duration = Duration::from_secs(5);

/// The requests that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Counters of all CPUs.
    Counters,
    /// All entries of TCP: kernels before 5.8 refuse it.
    Tcp,
    /// All entries.
    All,
}

impl Request {
    const EACH: [Request; 3] = [Request::Counters, Request::Tcp, Request::All];

    pub fn bytes(self, sequence: u32) -> Vec<u8> {
        match self {
            Request::Counters => dump_request(CT_STATS_CPU, sequence, false),
            Request::Tcp => dump_request(CT_GET, sequence, true),
            Request::All => dump_request(CT_GET, sequence, false),
        }
    }
}

/// Where the sequence number is in a request: behind length, kind and flags of `struct nlmsghdr`.
const SEQUENCE: std::ops::Range<usize> = 8..12;

/// The tap's end.
#[derive(Debug)]
pub(super) struct Asker {
    /// `None` once it is closed.
    channel: Option<OwnedFd>,
    child: Pid,
}

fn message(sequence: u32, value: i32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&sequence.to_ne_bytes());
    bytes[4..].copy_from_slice(&value.to_ne_bytes());
    bytes
}

fn read(channel: RawFd) -> io::Result<Option<(u32, i32)>> {
    let mut bytes = [0; 8];
    loop {
        match recv(channel, &mut bytes, MsgFlags::empty()) {
            Ok(8) => {
                let (sequence, value) = bytes.split_at(4);
                let word = |b: &[u8]| [b[0], b[1], b[2], b[3]];
                return Ok(Some((u32::from_ne_bytes(word(sequence)), i32::from_ne_bytes(word(value)))));
            }
            Ok(_) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

impl Asker {
    /// Forks it. `confine` is done in the helper, before it is asked anything. Call it while there is one thread.
    pub fn fork(requests: RawFd, confine: impl FnOnce() -> io::Result<()>) -> io::Result<Asker> {
        let (mine, its) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let patience = TimeVal::milliseconds(PATIENCE.as_millis() as i64);
        setsockopt(&mine, sockopt::ReceiveTimeout, &patience)?;
        // SAFETY: U1.
        let child = match unsafe { fork() }? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let done = serve(its.as_raw_fd(), requests, confine);
                // SAFETY: U2.
                unsafe { libc::_exit(i32::from(done.is_err())) }
            }
        };
        drop(its);
        let asker = Asker { channel: Some(mine), child };
        match asker.answer(0)? {
            0 => Ok(asker),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Has a request sent.
    pub fn ask(&self, request: Request, sequence: u32) -> io::Result<()> {
        let channel = self.channel.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        send(channel, &message(sequence, request as i32), MsgFlags::MSG_NOSIGNAL)?;
        match self.answer(sequence)? {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The answer of this number; what came too late for one before is passed over.
    fn answer(&self, sequence: u32) -> io::Result<i32> {
        let channel = self.channel.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        loop {
            match read(channel)? {
                Some((of, errno)) if of == sequence => return Ok(errno),
                Some(_) => {}
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its helper has ended")),
            }
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // Its end of the channel says that it is over.
        self.channel = None;
        let _ = waitpid(self.child, None);
    }
}

/// The helper's life.
fn serve(channel: RawFd, requests: RawFd, confine: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // A Ctrl-C is for the tap, which still asks while it drains.
    SigSet::all().thread_block()?;
    let _ = nix::sys::prctl::set_name(c"syntap-asker");
    close_all_but(channel.min(requests), channel.max(requests));
    // All that it will ever send: nothing is allocated after this.
    let mut known = Request::EACH.map(|request| request.bytes(0));
    let ready = confine().map_or_else(|e| e.raw_os_error().unwrap_or(libc::EPERM), |()| 0);
    send(channel, &message(0, ready), MsgFlags::MSG_NOSIGNAL)?;
    if ready != 0 {
        return Err(io::Error::from_raw_os_error(ready));
    }
    while let Some((sequence, number)) = read(channel)? {
        let request = usize::try_from(number).ok().and_then(|n| known.get_mut(n));
        let errno = match request {
            None => libc::EINVAL,
            Some(request) => {
                request[SEQUENCE].copy_from_slice(&sequence.to_ne_bytes());
                send(requests, request, MsgFlags::empty()).err().map_or(0, |e| e as i32)
            }
        };
        send(channel, &message(sequence, errno), MsgFlags::MSG_NOSIGNAL)?;
    }
    Ok(())
}

/// Descriptors that were open when it was forked: standard output, a console, records.
fn close_all_but(low: RawFd, high: RawFd) {
    let ranges = [(0, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)];
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: U2.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}
