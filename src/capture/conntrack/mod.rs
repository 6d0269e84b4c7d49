//! The kernel's own account of translations: ctnetlink events and counters of one network namespace.
//!
//! Two sockets of the calling thread's namespace: one hears events, the other asks for counters and dumps. Nothing here slows the
//! gateway's traffic: the sockets never ask for reliable delivery (`NETLINK_BROADCAST_ERROR`), with which conntrack would drop packets
//! whose events do not fit. So events can be lost. The kernel says that (ENOBUFS), they are counted, and a dump tells what is there.
//!
//! Entries made while nobody on the machine listened make no events later (`net.netfilter.nf_conntrack_events` = 2, the default since
//! Linux 5.19): what is older than the tap is seen by dumps alone. Setting that to 1 before makes all entries speak.

mod asker;
mod filter;
mod message;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use asker::{Asker, Request};
pub use message::{Change, CtCounters, CtEvent, CtTuple, TcpState};
use message::{Message, Messages};

/// Receive buffer of the events, bytes; the kernel doubles it for its own bookkeeping. An event is charged 1,280 bytes (Linux 6.18), so
/// 32 MiB, doubled, hold 52,000: over a second of 20,000 connections that begin and 20,000 that end in it. That is how long the reading
/// thread may be kept from its CPU before events are lost. Less, and a burst costs events; more only holds memory while it lags.
pub const EVENT_BUFFER: usize = 32 << 20;

/// The kernel fills dump messages up to 32 KiB.
const READ: usize = 64 << 10;

/// Events read in one call of [`Conntrack::poll`] at most: their reader looks at the clock between calls. Fewer, and all are read.
pub const BATCH: usize = 4096;

/// An answer to a request that has not come after this long will not come.
const ANSWER_MS: u16 = 5_000;

/// Multicast groups, from linux/netfilter/nfnetlink_compat.h.
const GROUPS: [(u32, &str); 3] = [(1, "new"), (2, "update"), (3, "destroy")];

/// Why conntrack cannot be heard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConntrackError {
    /// The kernel has no connection tracking here.
    #[error("conntrack is not to be had: nf_conntrack is not loaded")]
    Absent,
    /// The kernel refused an operation.
    #[error("cannot {operation} conntrack: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

impl ConntrackError {
    /// What would mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let ConntrackError::System { source, .. } = self else {
            return Some(
                "a gateway that translates has it; else 'modprobe nf_conntrack', or --conntrack off".into(),
            );
        };
        match source.raw_os_error()? {
            libc::EPERM | libc::EACCES => Some("run it as root, or with CAP_NET_ADMIN".into()),
            libc::EPROTONOSUPPORT | libc::EINVAL | libc::ENOENT => {
                Some("'modprobe nf_conntrack_netlink', or --conntrack off".into())
            }
            _ => None,
        }
    }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> ConntrackError {
    move |source| ConntrackError::System { operation, source }
}

/// True if connection tracking is loaded for the calling thread's network namespace. Asking loads nothing.
pub fn is_loaded() -> bool {
    Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists()
}

/// Whether entries make events (`net.netfilter.nf_conntrack_events`): 0 never, 1 always, 2 those made while somebody listens.
pub fn events_setting() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_events").ok()?;
    text.trim().parse().ok()
}

/// The realtime clock, on which the kernel stamps events.
pub fn realtime_ns() -> u64 {
    let t = nix::time::ClockId::CLOCK_REALTIME.now().map_or(Duration::ZERO, Duration::from);
    t.as_nanos() as u64
}

/// What a call of [`Conntrack::poll`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This many messages, all told of.
    Messages(usize),
    /// The kernel lost this many since the last time it said so; 0 if it cannot say how many.
    Lost(u64),
}

/// See the module.
#[derive(Debug)]
pub struct Conntrack {
    events: Socket,
    requests: Socket,
    /// Who sends the requests, if not this process.
    asker: Option<Asker>,
    sequence: u32,
    lost: u32,
    filtered_dumps: bool,
    bytes: Vec<u8>,
}

impl Conntrack {
    /// Begins to listen, with a receive buffer of `buffer` bytes ([`EVENT_BUFFER`]). The namespace is the calling thread's.
    pub fn open(buffer: usize) -> Result<Conntrack, ConntrackError> {
        if !is_loaded() {
            return Err(ConntrackError::Absent);
        }
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            Ok(socket)
        };
        let (events, requests) = (open().map_err(failed("open"))?, open().map_err(failed("open"))?);
        // Past the limit of net.core.rmem_max, which is 200 KiB as a rule.
        let sized = setsockopt(&events, sockopt::RcvBufForce, &buffer);
        sized.map_err(|e| failed("make room for the events of")(e.into()))?;
        filter::attach(events.as_fd()).map_err(failed("filter the events of"))?;
        requests.connect(&SocketAddr::new(0, 0)).map_err(failed("ask"))?;
        for (group, _) in GROUPS {
            events.add_membership(group).map_err(failed("subscribe to"))?;
        }
        events.set_non_blocking(true).map_err(failed("read"))?;
        let lost = filter::drops(events.as_fd()).unwrap_or(0);
        Ok(Conntrack {
            events,
            requests,
            asker: None,
            sequence: 0,
            lost,
            filtered_dumps: true,
            bytes: Vec::with_capacity(READ),
        })
    }

    /// From now on a helper sends the requests, so that this process needs no capability for them. `confine` is done in the helper
    /// before it is asked anything. It is forked: call this while the process has one thread.
    pub fn ask_by_helper(&mut self, confine: impl FnOnce() -> io::Result<()>) -> Result<(), ConntrackError> {
        let asker = Asker::fork(self.requests.as_raw_fd(), confine);
        self.asker = Some(asker.map_err(failed("start the helper that asks"))?);
        Ok(())
    }

    /// Tells of what has happened, or waits up to `wait_ms` for it.
    pub fn poll(&mut self, wait_ms: u16, each: &mut dyn FnMut(CtEvent)) -> Result<Heard, ConntrackError> {
        let (mut read, mut waited) = (0, false);
        while read < BATCH {
            self.bytes.clear();
            match self.events.recv(&mut self.bytes, libc::MSG_DONTWAIT) {
                Ok(_) => {
                    read += 1;
                    Messages(&self.bytes).filter_map(|m| message::event(&m, false)).for_each(&mut *each);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // Once, and only for the first message.
                    if read > 0 || std::mem::replace(&mut waited, true) || !wait(&self.events, wait_ms)? {
                        break;
                    }
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Heard::Lost(self.count_lost()));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed("read the events of")(e)),
            }
        }
        Ok(Heard::Messages(read))
    }

    fn count_lost(&mut self) -> u64 {
        let drops = filter::drops(self.events.as_fd()).unwrap_or(self.lost);
        u64::from(drops.wrapping_sub(std::mem::replace(&mut self.lost, drops)))
    }

    /// Messages lost that the kernel has not said so of yet: at the end of a run.
    pub fn lost_at_last(&mut self) -> u64 {
        self.count_lost()
    }

    /// Every TCP entry there is, as [`Change::Found`]; how many.
    pub fn dump(&mut self, each: &mut dyn FnMut(CtEvent)) -> Result<usize, ConntrackError> {
        let mut found = 0;
        let mut take = |m: &Message<'_>| {
            if let Some(event) = message::event(m, true) {
                found += 1;
                each(event);
            }
        };
        if self.filtered_dumps {
            match self.ask(Request::Tcp, &mut take) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                    self.filtered_dumps = false;
                }
                done => return done.map(|()| found).map_err(failed("list")),
            }
        }
        self.ask(Request::All, &mut take).map_err(failed("list"))?;
        Ok(found)
    }

    /// The counters of all CPUs, summed.
    pub fn counters(&mut self) -> Result<CtCounters, ConntrackError> {
        let mut sum = CtCounters::default();
        let read = self.ask(Request::Counters, &mut |m| {
            message::add_cpu(m, &mut sum);
        });
        read.map_err(failed("read the counters of"))?;
        Ok(sum)
    }

    /// Sends a request for a dump and hands out its answers.
    fn ask(&mut self, what: Request, each: &mut dyn FnMut(&Message<'_>)) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        match &self.asker {
            Some(asker) => asker.ask(what, self.sequence)?,
            None => self.requests.send(&what.bytes(self.sequence), 0).map(drop)?,
        }
        loop {
            if !wait(&self.requests, ANSWER_MS).map_err(|e| match e {
                ConntrackError::System { source, .. } => source,
                ConntrackError::Absent => io::ErrorKind::NotFound.into(),
            })? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.bytes.clear();
            self.requests.recv(&mut self.bytes, 0)?;
            // Answers to a request that timed out before are not this one's.
            for m in Messages(&self.bytes).filter(|m| m.sequence == self.sequence) {
                match (m.kind, m.payload.first_chunk().map(|c| i32::from_ne_bytes(*c))) {
                    ((0, 3), _) | ((0, 2), Some(0)) => return Ok(()),
                    ((0, 2), Some(errno)) => return Err(io::Error::from_raw_os_error(errno.abs())),
                    _ => each(&m),
                }
            }
        }
    }
}

/// What a datagram of the kernel's tells: events (those of a listing if `listing`), and the counters of a CPU.
#[doc(hidden)] // for the fuzzer
pub fn read(datagram: &[u8], listing: bool, each: &mut dyn FnMut(CtEvent)) -> CtCounters {
    let mut sum = CtCounters::default();
    for m in Messages(datagram) {
        message::event(&m, listing).into_iter().for_each(&mut *each);
        message::add_cpu(&m, &mut sum);
    }
    sum
}

/// True if there is something to read, or an error to hear of, within `wait_ms`.
fn wait(socket: &Socket, wait_ms: u16) -> Result<bool, ConntrackError> {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(wait_ms)) {
        Ok(n) => Ok(n > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(e) => Err(failed("wait for")(e.into())),
    }
}
