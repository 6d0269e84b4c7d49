//! How a packet lies in a mailbox: [`HEAD`] bytes of what is known of it, then its own first bytes.
//!
//! Slips have the length that they need, so that a SYN takes 102 bytes and not the 492 of the longest one. Raw bytes travel and not
//! what was decoded: the owner works all its packets by one path, and decodes them while their lines are on the way from memory.

use crate::bpf::abi::RECORD_LARGE;
use crate::capture::{Packet, Point};
use crate::wire::{LinkType, Nanos, OffloadedVlan, Way};

/// Bytes in front of a packet's own.
pub(super) const HEAD: usize = 28;

/// Bytes of a packet that travel at most: what a ring buffer shows at most, which is the kernel side's 256 behind 208 of a tunnel.
pub(super) const BYTES: usize = RECORD_LARGE;

/// Bytes of a slip at most.
pub(super) const LONGEST: usize = HEAD + BYTES;

const WAYS: [Way; 3] = [Way::Ingress, Way::Egress, Way::Unknown];

const LINKS: [LinkType; 6] = [
    LinkType::Ethernet,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::RawIp,
    LinkType::Nflog,
    LinkType::BsdLoopback,
];

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slip {
    /// When it was stamped.
    pub ts: Nanos,
    /// How many of its bytes follow.
    pub len: usize,
    wire_len: u32,
    hash: u32,
    vlan: OffloadedVlan,
    reason: u16,
    point: Point,
    way: Way,
    link: LinkType,
}

/// Puts a packet behind what is in `to`, which must have room for [`LONGEST`] more if nothing is to be allocated.
#[inline]
pub(super) fn write(p: &Packet<'_>, to: &mut Vec<u8>) {
    let bytes = &p.bytes[..p.bytes.len().min(BYTES)];
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&p.ts.0.to_ne_bytes());
    head[8..12].copy_from_slice(&p.wire_len.to_ne_bytes());
    head[12..16].copy_from_slice(&p.hash.to_ne_bytes());
    head[16..18].copy_from_slice(&p.vlan.tpid.to_ne_bytes());
    head[18..20].copy_from_slice(&p.vlan.tci.to_ne_bytes());
    head[20..22].copy_from_slice(&p.reason.to_ne_bytes());
    head[22..24].copy_from_slice(&(bytes.len() as u16).to_ne_bytes());
    head[24] = p.point.0;
    head[25] = p.way as u8;
    head[26] = p.link as u8;
    to.extend_from_slice(&head);
    to.extend_from_slice(bytes);
}

/// Reads what is in front of a packet's bytes.
#[inline]
pub(super) fn read(head: &[u8; HEAD]) -> Slip {
    let word = |i: usize| u32::from_ne_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
    let half = |i: usize| u16::from_ne_bytes([head[i], head[i + 1]]);
    let ts = u64::from_ne_bytes([head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]]);
    Slip {
        ts: Nanos(ts),
        len: usize::from(half(22)).min(BYTES),
        wire_len: word(8),
        hash: word(12),
        vlan: OffloadedVlan { tpid: half(16), tci: half(18) },
        reason: half(20),
        point: Point(head[24]),
        way: WAYS[usize::from(head[25]).min(WAYS.len() - 1)],
        link: LINKS[usize::from(head[26]).min(LINKS.len() - 1)],
    }
}

impl Slip {
    /// The packet, with its bytes, where the latest stamp so far is `now`.
    #[inline]
    pub fn packet<'a>(&self, now: Nanos, bytes: &'a [u8]) -> Packet<'a> {
        Packet {
            ts: self.ts,
            now,
            point: self.point,
            way: self.way,
            link: self.link,
            wire_len: self.wire_len,
            vlan: self.vlan,
            reason: self.reason,
            hash: self.hash,
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_comes_out_as_it_went_in() {
        for (n, link) in LINKS.into_iter().enumerate() {
            assert_eq!(link as usize, n, "in the order of the type");
            for way in WAYS {
                assert_eq!(WAYS[way as usize], way);
                let packet = Packet {
                    ts: Nanos(7 << 40),
                    now: Nanos(9 << 40),
                    point: Point(200),
                    way,
                    link,
                    wire_len: 70_000,
                    vlan: OffloadedVlan { tpid: 0x88a8, tci: 0xefff },
                    reason: 0x1234,
                    hash: 0xdead_beef,
                    bytes: &[n as u8; 77],
                };
                let mut lies = Vec::new();
                write(&packet, &mut lies);
                assert_eq!(lies.len(), HEAD + 77);
                let slip = read(lies[..HEAD].try_into().expect("a head"));
                let back = slip.packet(packet.now, &lies[HEAD..HEAD + slip.len]);
                assert_eq!(format!("{back:?}"), format!("{packet:?}"));
            }
        }
    }

    #[test]
    fn a_packet_that_is_too_long_is_cut_and_still_says_how_long_it_was() {
        let packet = Packet { bytes: &[5; 1_700], wire_len: 1_700, ..Packet::NONE };
        let mut lies = Vec::new();
        write(&packet, &mut lies);
        let slip = read(lies[..HEAD].try_into().expect("a head"));
        assert_eq!((lies.len(), slip.len, slip.wire_len), (LONGEST, BYTES, 1_700));
    }
}
