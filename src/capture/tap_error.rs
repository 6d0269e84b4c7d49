//! Why a tap could not be opened, and the way out.

use std::io;

use crate::bpf::LoadError;
use crate::bpf::attach::{Attached, XdpMode};

/// Why a tap could not be opened or read. Whatever failed, nothing of it stays attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// No interface was named.
    #[error("no interface to tap")]
    NoInterface,
    /// More than the kernel side has slots for.
    #[error("cannot tap {count} interfaces: {most} is the most")]
    TooMany {
        /// Named.
        count: usize,
        /// Possible.
        most: usize,
    },
    /// One interface twice.
    #[error("interface {0} is named twice")]
    Twice(String),
    /// No such interface in this network namespace.
    #[error("there is no interface {name}")]
    Unknown {
        /// What was named.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The link layer is not Ethernet.
    #[error("cannot tap {0}: its packets have no Ethernet header")]
    NotEthernet(String),
    /// What the loopback sends it receives at once.
    #[error("cannot tap {0}: it is the loopback, where every packet passes twice")]
    Loopback(String),
    /// The interface is down, so nothing can be bound to it.
    #[error("cannot tap {0}: it is down")]
    Down(String),
    /// A span tap would cut the interface off.
    #[error(
        "will not tap {name} as span: {because}, and a span tap takes every packet away from this machine"
    )]
    Live {
        /// Interface.
        name: String,
        /// The sign that it carries traffic.
        because: String,
    },
    /// Somebody else's XDP program is on the interface.
    #[error("cannot attach to {name}: XDP program '{}' (id {}) is attached to it", .program.name, .program.id)]
    ForeignXdp {
        /// Interface.
        name: String,
        /// What is there.
        program: Attached,
    },
    /// The kernel refused an XDP program.
    #[error("cannot attach to {name} in {} mode: {source}", .mode.name())]
    Xdp {
        /// Interface.
        name: String,
        /// The last mode tried.
        mode: XdpMode,
        /// The kernel's word.
        source: io::Error,
    },
    /// The kernel refused a program for a live interface.
    #[error("cannot attach to {hook} of {name}: {source}")]
    Tcx {
        /// Interface.
        name: String,
        /// `ingress` or `egress`.
        hook: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// A socket could not be bound.
    #[error("cannot bind a ring to {name} queue {queue}: {source}")]
    Ring {
        /// Interface.
        name: String,
        /// Receive queue.
        queue: u32,
        /// The kernel's word.
        source: io::Error,
    },
    /// More queues than the kernel side has rings for.
    #[error("cannot open {count} rings: {most} is the most")]
    TooManyRings {
        /// Needed.
        count: u32,
        /// Possible.
        most: u32,
    },
    /// The programs could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The programs' maps could not be read or written.
    #[error("cannot {operation}: {source}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// libbpf's word.
        source: libbpf_rs::Error,
    },
    /// Anything else the kernel refused.
    #[error("cannot {operation} {object}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// The kernel's word.
        source: io::Error,
    },
}

impl TapError {
    /// What would mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let errno = match self {
            TapError::Xdp { source, .. }
            | TapError::Tcx { source, .. }
            | TapError::Ring { source, .. }
            | TapError::System { source, .. } => source.raw_os_error(),
            TapError::Load(e) => errno_of(&e.source),
            TapError::Map { source, .. } => errno_of(source),
            _ => None,
        };
        if matches!(errno, Some(libc::EPERM | libc::EACCES)) {
            return Some(
                "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; for AF_XDP with CAP_NET_RAW and CAP_IPC_LOCK, \
                 for afxdp and --netns with CAP_SYS_ADMIN, too"
                    .into(),
            );
        }
        match (self, errno) {
            (TapError::NoInterface, _) => Some("name one with -i".into()),
            (TapError::Unknown { known, .. }, _) => Some(format!("interfaces here: {}", known.join(", "))),
            (TapError::NotEthernet(_), _) => Some("tap the Ethernet interface under it".into()),
            (TapError::Twice(_), _) => Some("name it once: both directions of it are tapped".into()),
            (TapError::Loopback(_), _) => Some("tap the interface that the traffic comes in by".into()),
            (TapError::Down(name), _) => Some(format!("ip link set {name} up")),
            (TapError::Live { name, .. }, _) => Some(format!(
                "leave the mode out to tap {name} inline; --force only for an interface that receives nothing but copies"
            )),
            (TapError::ForeignXdp { name, program }, _) => Some(format!(
                "tap {name} inline, which needs no XDP on it, or ask who loaded program {}: bpftool prog show id {}",
                program.id, program.id
            )),
            (TapError::Tcx { .. }, Some(libc::EINVAL | libc::EOPNOTSUPP)) => Some(
                "see 'syntap check'; an 'ingress' qdisc (tc qdisc show) leaves no place for clsact".into(),
            ),
            (TapError::Xdp { .. }, Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                Some("see 'syntap check'; an MTU over a page or LRO also keeps drivers from XDP".into())
            }
            (TapError::Ring { .. } | TapError::Load(_), Some(libc::ENOBUFS | libc::ENOMEM)) => Some(
                "raise the limit of locked memory (ulimit -l unlimited), or use fewer frames a ring".into(),
            ),
            (TapError::Ring { name, .. }, Some(libc::EBUSY)) => {
                Some(format!("another program has an AF_XDP socket on this queue of {name}"))
            }
            (TapError::TooManyRings { .. }, _) => {
                Some("use fewer workers, or fewer queues: ethtool -L".into())
            }
            _ => None,
        }
    }
}

fn errno_of(e: &libbpf_rs::Error) -> Option<i32> {
    match e.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => Some(libc::EPERM),
        libbpf_rs::ErrorKind::OutOfMemory => Some(libc::ENOMEM),
        _ => None,
    }
}
