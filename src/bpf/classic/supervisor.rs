//! Takes filters off when the process that made them is gone: a child that outlives it by that much.
//!
//! The child is told of a filter before it is attached, and removes all that it knows of when the other end of its socket
//! closes, which is how it learns of a death. In an orderly end the parent asks for each removal, so that the way that must work
//! after a kill is gone every time; and so that the parent needs no privilege any more.
//!
//! It has a capability that the parent has not, so it does not take the parent's word for what it is to remove: it knows the handle that
//! this tap's filters have, of which a living tap's token says that no other has it, and refuses any other; and before the parent looks
//! at its first packet, the list is closed.
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
    /// There will be no others.
    Seal = 3,
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
    /// Starts the child. It works through `socket`, keeps `token` open, and removes filters of this handle alone.
    pub fn start(socket: &Socket, token: &impl AsRawFd, handle: u32) -> io::Result<Supervisor> {
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
            0 => between(keep, handle),
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

    /// From now on it is told of no other.
    pub fn seal(&self) -> io::Result<()> {
        self.ask(Ask::Seal, &Filter::NONE)
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
fn between(keep: [RawFd; 3], handle: u32) -> ! {
    // SAFETY: U2.
    unsafe {
        // A signal for the whole group, such as Ctrl-C, is the parent's to answer.
        libc::setsid();
        match libc::fork() {
            0 => child(keep, handle),
            pid => libc::_exit((pid < 0).into()),
        }
    }
}

fn child(keep: [RawFd; 3], handle: u32) -> ! {
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
        serve(0, &netlink, handle);
        libc::_exit(0)
    }
}

/// Gives up all capabilities but the one that filters are removed by, the right to gain any, and being traced by its own user; false if the kernel
/// refuses.
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
            && libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) == 0
    }
}

/// What may be removed.
struct Known {
    handle: u32,
    filters: [Filter; MOST],
    sealed: bool,
}

impl Known {
    /// The errno of an answer: 0 is a yes.
    fn answer(&mut self, message: &Message, netlink: &Socket) -> i32 {
        let filter = message.filter;
        let mut places = self.filters.iter_mut();
        if message.ask == Ask::Seal as u32 {
            self.sealed = true;
            0
        } else if message.ask == Ask::Know as u32 {
            if self.sealed || filter.handle != self.handle {
                return libc::EPERM;
            }
            match places.find(|f| **f == Filter::NONE) {
                Some(free) => {
                    *free = filter;
                    0
                }
                None => libc::ENOSPC,
            }
        } else if message.ask == Ask::Remove as u32 {
            // Of others nobody may ask it to remove anything.
            match places.find(|f| **f == filter && filter != Filter::NONE) {
                Some(known) => {
                    *known = Filter::NONE;
                    netlink.remove(&filter).err().and_then(|e| e.raw_os_error()).unwrap_or(0)
                }
                None => libc::ENOENT,
            }
        } else {
            libc::EINVAL
        }
    }
}

fn serve(fd: RawFd, netlink: &Socket, handle: u32) {
    let mut known = Known { handle, filters: [Filter::NONE; MOST], sealed: false };
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
        let answer = known.answer(&message, netlink);
        // SAFETY: U1.
        unsafe { libc::send(fd, (&raw const answer).cast(), size_of::<i32>(), libc::MSG_NOSIGNAL) };
    }
    for filter in known.filters.iter().filter(|f| **f != Filter::NONE) {
        let _ = netlink.remove(filter);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_char;

    use super::super::{Classic, Side, filters};
    use super::*;

    /// The loopback, which every namespace has.
    const LO: u32 = 1;

    /// A program that answers "go on".
    fn program() -> OwnedFd {
        // r0 = -1; exit
        let code: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
        let (name, license): (*const c_char, *const c_char) = (c"go_on".as_ptr(), c"GPL".as_ptr());
        let kind = libbpf_sys::BPF_PROG_TYPE_SCHED_CLS;
        // SAFETY: U1: all of it outlives the call.
        let fd = unsafe {
            libbpf_sys::bpf_prog_load(kind, name, license, code.as_ptr().cast(), 2, std::ptr::null_mut())
        };
        assert!(fd >= 0, "loaded: {}", io::Error::from_raw_os_error(-fd));
        // SAFETY: U3.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    fn errno(answer: io::Result<()>) -> Option<i32> {
        answer.err().and_then(|e| e.raw_os_error())
    }

    fn count(side: Side) -> usize {
        filters(LO, side).expect("a list").len()
    }

    #[test]
    fn root_it_removes_no_filter_of_others_and_none_that_it_is_told_of_too_late() {
        let in_a_namespace_of_its_own = || {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return println!("skipped: not root");
            }
            let program = program();
            let (mine, others) = (Classic::start().expect("it starts"), Classic::start().expect("it starts"));
            let theirs = others.attach(&program, "syntap_ingress", LO, Side::Ingress).expect("attached");
            // A tap that was taken over says that another one's filter is its own, or all that have its priority.
            for foreign in [theirs.filter, Filter { handle: 0, ..theirs.filter }] {
                assert_eq!(errno(mine.supervisor.know(&foreign)), Some(libc::EPERM));
                assert_eq!(errno(mine.supervisor.remove(&foreign)), Some(libc::ENOENT));
            }
            let own = mine.attach(&program, "syntap_egress", LO, Side::Egress).expect("attached");
            mine.seal().expect("sealed");
            let late = Filter { egress: 0, ..own.filter };
            assert_eq!(errno(mine.supervisor.know(&late)), Some(libc::EPERM));
            assert_eq!(errno(mine.supervisor.remove(&late)), Some(libc::ENOENT));
            let again = mine.attach(&program, "syntap_ingress", LO, Side::Ingress).map(drop);
            assert_eq!(errno(again), Some(libc::EPERM), "no other is attached, either");
            let unknown = Message { ask: 7, filter: own.filter };
            assert_eq!((count(Side::Ingress), count(Side::Egress)), (1, 1));
            let mut known = Known { handle: 0, filters: [own.filter; MOST], sealed: false };
            let socket = Socket::open().expect("a socket");
            assert_eq!(
                known.answer(&unknown, &socket),
                libc::EINVAL,
                "what it does not understand it does not do"
            );
            // Its own go as ever.
            drop(own);
            assert_eq!((count(Side::Ingress), count(Side::Egress)), (1, 0));
            drop(theirs);
            assert_eq!(count(Side::Ingress), 0);
        };
        std::thread::spawn(in_a_namespace_of_its_own).join().expect("as it must be");
    }
}
