//! The two ways from the hooks into user space, as one kind of source.

use super::ringbuf::RingSource;
use super::xsk::XskSource;
use super::{Packet, Polled, Source, SourceError};
use crate::bpf::Meta;

/// How packets of inline interfaces come into user space. A span's always come by AF_XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Cloned into a private veth pair, from whose far end XDP redirects them into AF_XDP rings.
    Afxdp,
    /// Their first bytes copied into BPF ring buffers at the hook.
    Ringbuf,
}

impl Transport {
    /// The word in options and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Afxdp => "afxdp",
            Transport::Ringbuf => "ringbuf",
        }
    }
}

/// The cheaper one, which shows as much: `tests/root_transport.rs` measures both on forwarded traffic.
impl Default for Transport {
    fn default() -> Transport {
        Transport::Ringbuf
    }
}

/// A live source. One worker owns it.
pub enum LiveSource {
    /// An AF_XDP ring.
    Xsk(Box<XskSource>),
    /// A BPF ring buffer.
    Ring(RingSource),
}

impl LiveSource {
    /// For messages and thread names.
    pub fn name(&self) -> &str {
        match self {
            LiveSource::Xsk(s) => s.name(),
            LiveSource::Ring(s) => s.name(),
        }
    }

    /// What was not ours and was skipped; 0 unless something is wrong.
    pub fn foreign(&self) -> u64 {
        match self {
            LiveSource::Xsk(s) => s.foreign(),
            LiveSource::Ring(s) => s.foreign(),
        }
    }

    /// As [`Source::poll`], with the metadata of each packet beside it.
    pub fn poll_with_meta(
        &mut self,
        wait_ms: u32,
        sink: &mut dyn FnMut(&[Packet<'_>], &[Meta]),
    ) -> Result<Polled, SourceError> {
        match self {
            LiveSource::Xsk(s) => s.poll_with_meta(wait_ms, sink),
            LiveSource::Ring(s) => s.poll_with_meta(wait_ms, sink),
        }
    }
}

impl Source for LiveSource {
    fn poll(&mut self, wait_ms: u32, sink: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
        self.poll_with_meta(wait_ms, &mut |packets, _| sink(packets))
    }

    fn filled(&self) -> Option<(u64, u64)> {
        match self {
            LiveSource::Xsk(_) => None,
            LiveSource::Ring(s) => Some((s.held(), s.room())),
        }
    }
}
