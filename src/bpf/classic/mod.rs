//! The classic hook, for kernels without tcx (before 6.6): a `bpf` filter in a clsact qdisc.
//!
//! A filter outlives the process that made it. So a `Supervisor` takes it off when that is gone, and what both of them left
//! behind, killed at the same time, is removed by the next tap of the interface: a filter is taken for a dead tap's if its handle
//! and its name are syntap's and nobody holds the socket that goes with the handle. Until then it harms nobody: its program answers
//! "go on" whatever happens, and finds its ring full.
//!
//! Nobody else's filter is touched. Where there is no clsact qdisc one is made, and stays: filters come and go without a packet lost,
//! but with the qdisc the kernel stops the interface's queues, and what is sent in these milliseconds is dropped. Once is
//! unavoidable; an empty one costs nothing.

mod netlink;
mod supervisor;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;

use netlink::Socket;
use supervisor::Supervisor;

/// Upper half of each handle of ours.
const MARK: u32 = 0x5374;
/// Filters of a tap: two on each tap point, one on the carrier, and as many again of interfaces that come back.
const MOST: usize = 4 * crate::bpf::abi::SLOTS + 2;
/// Priorities that are tried, first to run first.
const PRIORITIES: std::ops::RangeInclusive<u32> = 1..=16;

/// Which of the two hooks of a clsact qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Packets that the interface received.
    Ingress,
    /// Packets that leave by it.
    Egress,
}

/// Where a filter is; what removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Filter {
    ifindex: u32,
    egress: u32,
    priority: u32,
    handle: u32,
}

impl Filter {
    const NONE: Filter = Filter { ifindex: 0, egress: 0, priority: 0, handle: 0 };

    fn side(&self) -> Side {
        if self.egress == 0 { Side::Ingress } else { Side::Egress }
    }
}

/// A filter at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What kind: `bpf`, `flower`, ...
    pub kind: String,
    /// Its name, if it is a `bpf` one.
    pub name: String,
    /// Its place in the order.
    pub priority: u16,
    /// It is syntap's,
    pub ours: bool,
    /// and the tap that made it is gone.
    pub stale: bool,
    handle: u32,
}

impl Found {
    /// The command that removes it.
    pub fn removal(&self, interface: &str, side: Side) -> String {
        let hook = match side {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        };
        format!("tc filter del dev {interface} {hook} pref {} handle 0x{:x} bpf", self.priority, self.handle)
    }
}

/// Whether an interface of the calling thread's namespace has the qdisc that holds filters.
pub fn has_clsact(ifindex: u32) -> io::Result<bool> {
    Socket::open()?.has_clsact(ifindex)
}

/// Whoever holds this name in the interface's namespace is alive: the kernel lets go of it with the last process that does.
fn token(handle: u32) -> io::Result<UnixDatagram> {
    let name = format!("syntap-hook-{:08x}", handle);
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// The filters at a hook of an interface of the calling thread's namespace, first to run first.
pub fn filters(ifindex: u32, side: Side) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    Socket::open()?.list(ifindex, side, |listed| {
        // The list itself has a line too.
        if listed.handle == 0 {
            return;
        }
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let ours =
            listed.kind == b"bpf" && listed.handle >> 16 == MARK && listed.name.starts_with(b"syntap_");
        found.push(Found {
            kind: text(listed.kind),
            name: text(listed.name),
            priority: listed.priority,
            ours,
            stale: false,
            handle: listed.handle,
        });
    })?;
    for filter in found.iter_mut().filter(|f| f.ours) {
        filter.stale = token(filter.handle).is_ok();
    }
    Ok(found)
}

/// What a tap's classic filters share.
#[derive(Debug)]
pub struct Classic {
    supervisor: Supervisor,
    /// For the case that the supervisor is gone before its time.
    socket: Socket,
    _token: UnixDatagram,
    handle: u32,
}

/// An attached filter; dropping it takes it off.
#[derive(Debug)]
pub struct Attached {
    filter: Filter,
    made_qdisc: bool,
    by: Arc<Classic>,
}

impl Classic {
    /// Starts the supervisor. The filters will be those of interfaces of the calling thread's namespace. Best called early: the
    /// supervisor keeps the memory that the process has now.
    pub fn start() -> io::Result<Arc<Classic>> {
        let mut last = io::Error::from_raw_os_error(libc::EADDRINUSE);
        for _ in 0..16 {
            let handle = MARK << 16 | random()? & 0xffff;
            match token(handle) {
                Ok(token) => {
                    let supervisor = Supervisor::start(&Socket::open()?, &token, handle)?;
                    return Ok(Arc::new(Classic {
                        supervisor,
                        socket: Socket::open()?,
                        _token: token,
                        handle,
                    }));
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Attaches a program in front of all other filters of the hook, or behind those whose priority cannot be had: a filter's
    /// place is told by [`Attached::priority`].
    pub fn attach(
        self: &Arc<Classic>,
        program: &OwnedFd,
        name: &str,
        ifindex: u32,
        side: Side,
    ) -> io::Result<Attached> {
        let made_qdisc = self.socket.add_clsact(ifindex)?;
        let mut last = io::Error::from_raw_os_error(libc::EBUSY);
        for priority in PRIORITIES {
            let egress = (side == Side::Egress).into();
            let filter = Filter { ifindex, egress, priority, handle: self.handle };
            self.supervisor.know(&filter)?;
            match self.socket.add(&filter, program.as_raw_fd(), name) {
                Ok(()) => return Ok(Attached { filter, made_qdisc, by: self.clone() }),
                Err(e) => {
                    let _ = self.supervisor.remove(&filter);
                    let taken = matches!(e.raw_os_error(), Some(libc::EEXIST | libc::EINVAL));
                    last = e;
                    if !taken {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// From now on the supervisor removes the filters that are there, and takes no word for any other.
    pub fn seal(&self) -> io::Result<()> {
        self.supervisor.seal()
    }

    /// Removes what dead taps left on an interface of the calling thread's namespace, in which it must be that this was started:
    /// whose tap is alive is asked there.
    pub fn clean_up(&self, ifindex: u32) -> io::Result<()> {
        for side in [Side::Ingress, Side::Egress] {
            for stale in filters(ifindex, side)?.iter().filter(|f| f.stale) {
                let egress = (side == Side::Egress).into();
                let priority = stale.priority.into();
                self.socket.remove(&Filter { ifindex, egress, priority, handle: stale.handle })?;
            }
        }
        Ok(())
    }
}

impl Attached {
    /// 1 in front of all others; more behind others.
    pub fn priority(&self) -> u32 {
        self.filter.priority
    }

    /// Whether there was no clsact qdisc before.
    pub fn made_qdisc(&self) -> bool {
        self.made_qdisc
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Gone is gone, whoever did it: an interface takes its filters along.
        match self.by.supervisor.remove(&self.filter) {
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {
                let _ = self.by.socket.remove(&self.filter);
            }
            _ => {}
        }
    }
}

fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}
