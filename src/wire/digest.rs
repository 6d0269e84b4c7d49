//! What the flight recorder keeps of a packet. The short decoder writes it at once, so that it is stored as it was read.

use super::{Mac, Nanos, Segment, Seq, TcpFlags, TcpOptions, Way};

/// Which end of a flow sent a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Side {
    /// The end that called.
    #[default]
    Orig = 0,
    /// The end that was called.
    Resp = 1,
}

impl Side {
    /// The other end.
    #[inline]
    pub const fn other(self) -> Side {
        match self {
            Side::Orig => Side::Resp,
            Side::Resp => Side::Orig,
        }
    }

    /// `orig` or `resp`, as in records.
    pub const fn name(self) -> &'static str {
        match self {
            Side::Orig => "orig",
            Side::Resp => "resp",
        }
    }
}

/// One packet of a flow, as evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// When.
    pub ts: Nanos,
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgement number as on the wire.
    pub ack: Seq,
    /// TSval; meaningful if `has_ts`.
    pub tsval: u32,
    /// TSecr; meaningful if `has_ts`.
    pub tsecr: u32,
    /// Payload bytes.
    pub len: u32,
    /// TCP flags.
    pub flags: TcpFlags,
    /// Window field, unscaled.
    pub win: u16,
    /// IPv4 identification.
    pub ip_id: u16,
    /// VLAN identifier plus 1; 0 without a tag.
    pub vlan: u16,
    /// Ethernet destination.
    pub dst_mac: Mac,
    /// Ethernet source.
    pub src_mac: Mac,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Tap point.
    pub point: u8,
    /// Which way.
    pub way: Way,
    /// Who sent it.
    pub from: Side,
    /// Whether the packet had timestamps.
    pub has_ts: bool,
    /// MSS option; 0 without.
    pub mss: u16,
    /// Window scale option plus 1; 0 without.
    pub wscale: u8,
}

impl Digest {
    /// The packet as a segment, as far as it was kept: without addresses and ports, SACK and the first bytes of its payload.
    pub fn segment(&self) -> Segment {
        Segment {
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            win: self.win,
            payload: self.len,
            ttl: self.ttl,
            ip_id: self.ip_id,
            options: TcpOptions {
                mss: (self.mss != 0).then_some(self.mss),
                wscale: self.wscale.checked_sub(1),
                ts: self.has_ts.then_some((self.tsval, self.tsecr)),
                ..TcpOptions::default()
            },
            ..Segment::default()
        }
    }

    /// The sequence number after the segment.
    #[inline]
    pub fn end(&self) -> Seq {
        let flags = u32::from(self.flags.any(TcpFlags::SYN)) + u32::from(self.flags.any(TcpFlags::FIN));
        self.seq.add(self.len.wrapping_add(flags))
    }
}
