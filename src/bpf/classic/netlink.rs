//! Filters and qdiscs over rtnetlink, without an allocation: the supervisor's child calls this after a fork.
//!
//! Written by hand, as libbpf's calls open their socket in whichever namespace the calling thread is then.
//!
//! Unsafe invariants:
//! - U1: a buffer or address passed to a call outlives it, and its length is what the call is told.
//! - U2: a non-negative answer of `socket` is a descriptor that nobody else owns.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::{Filter, Side};

// linux/rtnetlink.h, pkt_sched.h, pkt_cls.h.
const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const ACT_DIRECT: u32 = 1;
/// `ETH_P_ALL`, in network order.
const ALL: u32 = 0x0300;

const HEADER: usize = 16;
const TCMSG: usize = 20;
/// A request of ours is some hundred bytes.
const REQUEST: usize = 256;
/// The kernel fills a dump's messages up to this by itself.
const ANSWER: usize = 32 << 10;

/// Closes itself; speaks to the namespace that it was opened in.
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// A filter as a dump tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Its own number; 0 for the list that holds filters.
    pub handle: u32,
    /// Where in the order it stands.
    pub priority: u16,
    /// `bpf`, `flower`, ...
    pub kind: &'a [u8],
    /// A `bpf` filter's.
    pub name: &'a [u8],
}

/// What is sent, in a buffer of its own.
struct Request {
    bytes: [u8; REQUEST],
    len: usize,
}

impl Request {
    fn new(kind: u16, flags: i32, ifindex: u32, handle: u32, parent: u32, info: u32) -> Request {
        let mut request = Request { bytes: [0; REQUEST], len: 0 };
        request.put(&0u32.to_ne_bytes());
        request.put(&kind.to_ne_bytes());
        request.put(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        request.put(&[0; 8]);
        request.put(&[0; 4]);
        for word in [ifindex, handle, parent, info] {
            request.put(&word.to_ne_bytes());
        }
        request
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.put(&(4 + value.len() as u16).to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        self.len = self.len.next_multiple_of(4);
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Request)) {
        let at = self.len;
        self.attribute(kind, &[]);
        fill(self);
        let len = (self.len - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]))
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

/// An attribute's value; empty if it is absent.
fn attribute(mut b: &[u8], wanted: u16) -> &[u8] {
    while b.len() >= 4 {
        let len = usize::from(u16_at(b, 0));
        if len < 4 || len > b.len() {
            break;
        }
        // The two upper bits are flags.
        if u16_at(b, 2) & 0x3fff == wanted {
            return &b[4..len];
        }
        b = b.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    &[]
}

fn text(b: &[u8]) -> &[u8] {
    b.split(|c| *c == 0).next().unwrap_or(&[])
}

fn parent(side: Side) -> u32 {
    match side {
        Side::Ingress => 0xffff_fff2,
        Side::Egress => 0xffff_fff3,
    }
}

impl Socket {
    /// Of the calling thread's network namespace.
    pub fn open() -> io::Result<Socket> {
        // SAFETY: a plain call; U2 below.
        let fd = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: U2.
        Ok(Socket(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Its descriptor's number.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Takes a descriptor over.
    ///
    /// # Safety
    /// It is an rtnetlink socket that nobody else owns.
    pub unsafe fn from_raw(fd: RawFd) -> Socket {
        // SAFETY: promised by the caller.
        Socket(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Sends a request and reads what comes; `each` is called with every message's kind and body until the answer is over.
    fn ask(&self, request: &mut Request, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let len = request.len as u32;
        request.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        let fd = self.0.as_raw_fd();
        // SAFETY: U1.
        let sent = unsafe { libc::send(fd, request.bytes.as_ptr().cast(), request.len, 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut answer = [0u8; ANSWER];
        loop {
            // SAFETY: U1.
            let n = unsafe { libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0) };
            if n < 0 {
                let e = io::Error::last_os_error();
                if e.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(e);
            }
            let mut rest = &answer[..n as usize];
            while rest.len() >= HEADER {
                let len = (u32_at(rest, 0) as usize).clamp(HEADER, rest.len());
                match u16_at(rest, 4) {
                    // NLMSG_ERROR (0 is a yes) and NLMSG_DONE both carry an errno.
                    2 | 3 => {
                        let code = u32_at(rest, HEADER) as i32;
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    kind => each(kind, &rest[HEADER..len]),
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
    }

    fn change(&self, request: &mut Request) -> io::Result<()> {
        self.ask(request, |_, _| {})
    }

    /// Makes the qdisc that holds filters: false if there is one. The kernel stops the interface's queues meanwhile, some
    /// milliseconds, and drops what is sent then.
    pub fn add_clsact(&self, ifindex: u32) -> io::Result<bool> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;
        let mut request = Request::new(RTM_NEWQDISC, flags, ifindex, 0xffff_0000, TC_H_CLSACT, 0);
        request.attribute(TCA_KIND, b"clsact\0");
        match self.change(&mut request) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether there is one.
    pub fn has_clsact(&self, ifindex: u32) -> io::Result<bool> {
        let mut has = false;
        let mut request = Request::new(RTM_GETQDISC, libc::NLM_F_DUMP, ifindex, 0, 0, 0);
        self.ask(&mut request, |kind, body| {
            let attributes = body.get(TCMSG..).unwrap_or(&[]);
            let is = kind == RTM_NEWQDISC && u32_at(body, 4) == ifindex;
            has |= is && text(attribute(attributes, TCA_KIND)) == b"clsact";
        })?;
        Ok(has)
    }

    /// Adds a filter that runs a program and does what it answers.
    pub fn add(&self, filter: &Filter, program: RawFd, name: &str) -> io::Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;
        let mut request = filter.request(RTM_NEWTFILTER, flags);
        request.nested(TCA_OPTIONS, |options| {
            let mut terminated = [0u8; 32];
            let len = name.len().min(31);
            terminated[..len].copy_from_slice(&name.as_bytes()[..len]);
            options.attribute(TCA_BPF_FD, &(program as u32).to_ne_bytes());
            options.attribute(TCA_BPF_NAME, &terminated[..=len]);
            options.attribute(TCA_BPF_FLAGS, &ACT_DIRECT.to_ne_bytes());
        });
        self.change(&mut request)
    }

    /// Removes a filter of ours, and no other one.
    pub fn remove(&self, filter: &Filter) -> io::Result<()> {
        self.change(&mut filter.request(RTM_DELTFILTER, libc::NLM_F_ACK))
    }

    /// Tells of all filters at a hook, in the order in which they run. None where there is no clsact.
    pub fn list(&self, ifindex: u32, side: Side, mut each: impl FnMut(Listed<'_>)) -> io::Result<()> {
        let mut request = Request::new(RTM_GETTFILTER, libc::NLM_F_DUMP, ifindex, 0, parent(side), 0);
        self.ask(&mut request, |kind, body| {
            let attributes = body.get(TCMSG..).unwrap_or(&[]);
            if kind == RTM_NEWTFILTER {
                each(Listed {
                    handle: u32_at(body, 8),
                    priority: (u32_at(body, 16) >> 16) as u16,
                    kind: text(attribute(attributes, TCA_KIND)),
                    name: text(attribute(attribute(attributes, TCA_OPTIONS), TCA_BPF_NAME)),
                });
            }
        })
    }
}

impl Filter {
    fn request(&self, kind: u16, flags: i32) -> Request {
        let info = self.priority << 16 | ALL;
        let mut request = Request::new(kind, flags, self.ifindex, self.handle, parent(self.side()), info);
        request.attribute(TCA_KIND, b"bpf\0");
        request
    }
}
