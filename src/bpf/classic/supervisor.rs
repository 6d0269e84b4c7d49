//! Takes filters off when the process that made them is gone: a child that outlives it by that much.
//!
//! The child is told of a filter before it is attached, and removes all that it knows of when the other end of its socket
//! closes, which is how it learns of a death. In an orderly end the parent asks for each removal, so that the way that must work
//! after a kill is gone every time; and so that the parent needs no privilege any more.
//!
//! It is forked, not executed, as a library has no program of its own to start; so it calls nothing but system calls, and neither
//! allocates nor unwinds. It is nobody's child (the process between exits at once), so nobody has to wait for it.
//!
//! Unsafe invariants:
//! - U1: descriptors and buffers outlive the calls that they are passed to.
//! - U2: behind the fork only system calls and code on the stack.
//! - U3: a descriptor taken over is owned by nobody else.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use super::netlink::Socket;
use super::{Filter, MOST};

/// What the child is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Ask {
    /// There may be this filter from now on.
    Know = 1,
    /// Remove it now.
    Remove = 2,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Message {
    ask: u32,
    filter: Filter,
}

/// The parent's end; closing it makes the child remove all that is left.
#[derive(Debug)]
pub struct Supervisor(Mutex<OwnedFd>);

impl Supervisor {
    /// Starts the child. It works through `socket`, and keeps `token` open.
    pub fn start(socket: &Socket, token: &impl AsRawFd) -> io::Result<Supervisor> {
        let mut ends = [0; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        // SAFETY: U1.
        if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: U3: fresh from the call.
        let [ours, theirs] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let keep = [theirs.as_raw_fd(), socket.number(), token.as_raw_fd()];
        // SAFETY: U2.
        match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => between(keep),
            pid => {
                let mut status = 0;
                // SAFETY: U1.
                while unsafe { libc::waitpid(pid, &mut status, 0) } < 0
                    && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                {}
                if status != 0 {
                    return Err(io::Error::from_raw_os_error(libc::EAGAIN));
                }
            }
        }
        Ok(Supervisor(Mutex::new(ours)))
    }

    /// To be called before a filter is attached.
    pub fn know(&self, filter: &Filter) -> io::Result<()> {
        self.ask(Ask::Know, filter)
    }

    /// Has it removed.
    pub fn remove(&self, filter: &Filter) -> io::Result<()> {
        self.ask(Ask::Remove, filter)
    }

    fn ask(&self, ask: Ask, filter: &Filter) -> io::Result<()> {
        let message = Message { ask: ask as u32, filter: *filter };
        // One question at a time, so that the answer is to it.
        let end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = end.as_raw_fd();
        let (at, len) = ((&raw const message).cast(), size_of::<Message>());
        // SAFETY: U1.
        if unsafe { libc::send(fd, at, len, libc::MSG_NOSIGNAL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut answer = 0i32;
        loop {
            // SAFETY: U1.
            let n = unsafe { libc::recv(fd, (&raw mut answer).cast(), size_of::<i32>(), 0) };
            match n {
                4 if answer == 0 => return Ok(()),
                4 => return Err(io::Error::from_raw_os_error(answer)),
                0 => return Err(io::Error::from_raw_os_error(libc::EPIPE)),
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(io::Error::last_os_error()),
            }
        }
    }
}

/// The process between: the child that stays is not the parent's.
fn between(keep: [RawFd; 3]) -> ! {
    // SAFETY: U2.
    unsafe {
        // A signal for the whole group, such as Ctrl-C, is the parent's to answer.
        libc::setsid();
        match libc::fork() {
            0 => child(keep),
            pid => libc::_exit((pid < 0).into()),
        }
    }
}

fn child(keep: [RawFd; 3]) -> ! {
    // SAFETY: U2, U3: the descriptors are this process's own copies, and all others are closed.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"syntap-hooks".as_ptr());
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::chdir(c"/".as_ptr());
        // Above the places that they go to, whatever their numbers are.
        let high = keep.map(|fd| libc::fcntl(fd, libc::F_DUPFD, 16));
        for (to, fd) in high.iter().enumerate() {
            if libc::dup2(*fd, to as i32) < 0 {
                // The parent learns of it at the first question.
                libc::_exit(1);
            }
        }
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
        if !keep_net_admin() {
            libc::_exit(1);
        }
        let netlink = Socket::from_raw(1);
        serve(0, &netlink);
        libc::_exit(0)
    }
}

/// Gives up all capabilities but the one that filters are removed by, and the right to gain any; false if the kernel refuses.
fn keep_net_admin() -> bool {
    /// `struct __user_cap_header_struct` and two `__user_cap_data_struct`s of linux/capability.h, version 3.
    const VERSION: u32 = 0x2008_0522;
    const NET_ADMIN: u32 = 1 << 12;
    let header = [VERSION, 0];
    let data = [[NET_ADMIN, NET_ADMIN, 0], [0, 0, 0]];
    // SAFETY: U1, U2.
    unsafe {
        // One that this kernel does not know ends the list.
        let mut capability = 0;
        while libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 {
            capability += 1;
        }
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) == 0
    }
}

fn serve(fd: RawFd, netlink: &Socket) {
    let mut known = [Filter::NONE; MOST];
    loop {
        let mut message = Message { ask: 0, filter: Filter::NONE };
        let len = size_of::<Message>();
        // SAFETY: U1; any bits are a message.
        let n = unsafe { libc::recv(fd, (&raw mut message).cast(), len, 0) };
        if n < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            continue;
        }
        if n != len as isize {
            break;
        }
        let filter = message.filter;
        let answer = if message.ask == Ask::Know as u32 {
            match known.iter_mut().find(|f| **f == Filter::NONE) {
                Some(free) => {
                    *free = filter;
                    0
                }
                None => libc::ENOSPC,
            }
        } else {
            // Of others nobody may ask it to remove anything.
            match known.iter_mut().find(|f| **f == filter && filter != Filter::NONE) {
                Some(known) => {
                    *known = Filter::NONE;
                    netlink.remove(&filter).err().and_then(|e| e.raw_os_error()).unwrap_or(0)
                }
                None => libc::ENOENT,
            }
        };
        // SAFETY: U1.
        unsafe { libc::send(fd, (&raw const answer).cast(), size_of::<i32>(), libc::MSG_NOSIGNAL) };
    }
    for filter in known.iter().filter(|f| **f != Filter::NONE) {
        let _ = netlink.remove(filter);
    }
}
