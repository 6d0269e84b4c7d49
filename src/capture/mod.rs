//! Where packets come from: live rings or captures, behind one trait.

mod attributes;
pub mod clock;
pub mod conntrack;
pub mod ethtool;
mod file;
pub mod interface;
pub mod link;
mod live;
mod mirror;
pub mod netns;
mod pair;
pub mod ports;
mod presence;
mod receiver;
mod replay;
pub mod ringbuf;
pub mod tap;
mod tap_error;
pub mod xsk;

pub use clock::ClockOffset;
pub use ethtool::QueueHash;
pub use file::{CaptureError, CaptureFile, RawPacket};
pub use live::{LiveSource, Transport};
pub use mirror::MirrorWriter;
pub use ports::{PortError, PortSet};
pub use replay::ReplaySource;
pub use tap::{Change, Mode, Presence, Tap, TapConfig, TapError, TapInterface, TapStats};

use crate::wire::{LinkType, Nanos, OffloadedVlan, Way};

/// A tap point: an interface of a live run or a file of a replay, numbered densely from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Point(pub u8);

/// One captured packet, borrowed from the frame or the file that holds it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When it was stamped.
    pub ts: Nanos,
    /// The latest stamp of its source so far, its own included: captures are not always in order, and timers must not
    /// depend on who looks at which part of them.
    pub now: Nanos,
    /// Where.
    pub point: Point,
    /// Which way.
    pub way: Way,
    /// What the first byte is.
    pub link: LinkType,
    /// Length on the wire, bytes; `bytes` may be shorter.
    pub wire_len: u32,
    /// A VLAN tag that is not in the bytes.
    pub vlan: OffloadedVlan,
    /// Why the kernel side chose it: `SYNTAP_REASON_*`; 0 in a replay.
    pub reason: u16,
    /// Low half of the kernel side's hash of the tuple, the same both ways; 0 where it made none (ARP, a replay).
    pub hash: u32,
    /// What was captured.
    pub bytes: &'a [u8],
}

impl Packet<'static> {
    /// A place in a batch that is not filled yet.
    pub const NONE: Packet<'static> = Packet {
        ts: Nanos(0),
        now: Nanos(0),
        point: Point(0),
        way: Way::Unknown,
        link: LinkType::Ethernet,
        wire_len: 0,
        vlan: OffloadedVlan { tpid: 0, tci: 0 },
        reason: 0,
        hash: 0,
        bytes: &[],
    };
}

/// What a call to [`Source::poll`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// This many packets were handed over.
    Packets(usize),
    /// Nothing came within the time.
    Idle,
    /// Nothing will come any more.
    End,
}

/// A place packets come from. One worker owns one source.
pub trait Source {
    /// Hands over at most one batch (up to [`BATCH`] packets) by one call of `sink`, or waits up to
    /// `wait_ms` milliseconds for one.
    fn poll(&mut self, wait_ms: u32, sink: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError>;

    /// Bytes that wait to be read, and what there is room for; `None` where that cannot be told.
    fn filled(&self) -> Option<(u64, u64)> {
        None
    }
}

/// Packets in one batch: enough to hide memory latency behind prefetches (32 in flight saturate a core's
/// line-fill buffers), few enough that a batch of 256-byte headers stays in the L1 cache.
pub const BATCH: usize = 64;

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The kernel refused an operation on a socket or ring.
    #[error("cannot {operation} on {object}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// The kernel's word.
        source: std::io::Error,
    },
}
