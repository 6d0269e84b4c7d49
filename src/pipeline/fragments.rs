//! TCP headers that fragmentation cut in pieces, put together again.
//!
//! A first fragment with the whole TCP header says all that is wanted, and needs none of this. One with 8 bytes of it is an attempt to
//! get past a filter; it is told as `malformed`, and the segment that its pieces make is followed like any other. Only in a
//! replay: a live tap is not given later fragments.

use crate::capture::Packet;
use crate::wire::{LinkType, Nanos};

/// Packets that wait for pieces; the oldest makes room.
const WAITING: usize = 64;

/// How long (RFC 791 section 3.2: 15 s and more; Linux `ipfrag_time` 30 s).
const WAIT: u64 = 30 * Nanos::SEC;

/// The longest TCP header.
const HEADER: usize = 60;

struct Waiting {
    /// Source, destination and identification.
    key: [u8; 10],
    at: Nanos,
    /// Link and IP header of the first fragment; empty before it.
    head: Vec<u8>,
    /// Bytes of link header in it.
    link: usize,
    tcp: [u8; HEADER],
    /// Which of those are there: a bit a byte.
    have: u64,
    /// Length of the whole, once the last fragment came.
    end: Option<usize>,
}

/// See the module.
#[derive(Default)]
pub struct Fragments {
    waiting: Vec<Waiting>,
}

impl Fragments {
    /// Takes a packet; gives the frame that it completes, with no more bytes than the headers, and its length on the wire.
    pub fn offer(&mut self, p: &Packet<'_>) -> Option<(Vec<u8>, u32)> {
        let b = p.bytes;
        let be16 = |at: usize| Some(usize::from(*b.get(at)?) << 8 | usize::from(*b.get(at + 1)?));
        if p.link != LinkType::Ethernet {
            return None;
        }
        let mut link = 14;
        while matches!(be16(link - 2)?, 0x8100 | 0x88a8 | 0x9100) {
            link += 4;
        }
        let field = be16(link + 6).filter(|f| f & 0x3fff != 0)?;
        if be16(link - 2)? != 0x0800 || b.get(link + 9) != Some(&6) {
            return None;
        }
        let header = usize::from(b[link] & 15) * 4;
        let payload = b.get(link + header..(link + be16(link + 2)?).min(b.len()))?;
        let (offset, last) = ((field & 0x1fff) * 8, field & 0x2000 == 0);
        let whole = |t: &[u8]| t.len() >= 20 && t.len() >= usize::from(t[12] >> 4) * 4;
        if offset == 0 && whole(payload) {
            return None;
        }
        let mut key = [0; 10];
        key[..8].copy_from_slice(b.get(link + 12..link + 20)?);
        key[8..].copy_from_slice(&b[link + 4..link + 6]);
        self.waiting.retain(|w| p.now.since(w.at) < WAIT);
        let found = self.waiting.iter().position(|w| w.key == key);
        if found.is_none() && offset >= HEADER {
            return None;
        }
        let n = found.unwrap_or_else(|| {
            if self.waiting.len() == WAITING {
                self.waiting.remove(0);
            }
            let (tcp, at) = ([0; HEADER], p.now);
            self.waiting.push(Waiting { key, at, head: Vec::new(), link, tcp, have: 0, end: None });
            self.waiting.len() - 1
        });
        let w = &mut self.waiting[n];
        for (n, byte) in payload.iter().enumerate().take(HEADER.saturating_sub(offset)) {
            w.tcp[offset + n] = *byte;
            w.have |= 1 << (offset + n);
        }
        if offset == 0 {
            (w.head, w.link) = (b[..link + header].to_vec(), link);
        }
        if last {
            w.end = Some(offset + payload.len());
        }
        let length = usize::from(w.tcp[12] >> 4) * 4;
        let there = |bytes: usize| w.have.trailing_ones() as usize >= bytes;
        let end = w.end.filter(|end| there(20) && there(length) && length >= 20 && *end >= length)?;
        let w = self.waiting.remove(n);
        if w.head.is_empty() {
            return None;
        }
        let mut frame = [w.head.as_slice(), &w.tcp[..length]].concat();
        let total = (w.head.len() - w.link + end) as u16;
        frame[w.link + 2..w.link + 4].copy_from_slice(&total.to_be_bytes());
        frame[w.link + 6..w.link + 8].fill(0);
        Some((frame, (w.head.len() + end) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Point;
    use crate::wire::{self, Body, OffloadedVlan, TcpFlags};

    /// A SYN with 4 bytes of options and 5 of data behind one VLAN tag, as an IP packet of its own and in pieces of 8 bytes.
    fn frame(offset: usize, piece: &[u8], more: bool) -> Vec<u8> {
        let mut b = vec![2; 12];
        b.extend([0x81, 0, 0, 7, 8, 0, 0x45, 0]);
        b.extend((20 + piece.len() as u16).to_be_bytes());
        b.extend([0x12, 0x34]);
        b.extend(((offset as u16 / 8) | (u16::from(more) << 13)).to_be_bytes());
        b.extend([64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        b.extend(piece);
        b
    }

    fn packet(bytes: &[u8], ms: u64) -> Packet<'_> {
        let now = Nanos(Nanos::SEC + ms * Nanos::MS);
        Packet { ts: now, now, point: Point(0), bytes, wire_len: bytes.len() as u32, ..Packet::NONE }
    }

    #[test]
    fn a_header_in_pieces_is_put_together_in_any_order_and_a_whole_one_is_left_alone() {
        let mut tcp =
            vec![0x0f, 0xa0, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x60, 2, 1, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4];
        tcp.extend(b"hello");
        let cuts = [(0, 8, true), (8, 16, true), (16, 29, false)];
        let pieces: Vec<Vec<u8>> = cuts.iter().map(|(a, b, more)| frame(*a, &tcp[*a..*b], *more)).collect();
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut f = Fragments::default();
            let made: Vec<_> = order.iter().filter_map(|n| f.offer(&packet(&pieces[*n], 0))).collect();
            let [(bytes, wire_len)] = made.as_slice() else { panic!("{order:?}: {} made", made.len()) };
            let d = wire::decode(LinkType::Ethernet, bytes, *wire_len, OffloadedVlan::default());
            let Body::Tcp(seg) = d.body else { panic!("{:?}", d.body) };
            assert_eq!((seg.sport, seg.dport, seg.payload, seg.options.mss), (4000, 80, 5, Some(1460)));
            assert!(seg.flags.any(TcpFlags::SYN));
            assert_eq!(d.vlans.id(), Some(7));
            assert!(f.waiting.is_empty());
        }
        let mut f = Fragments::default();
        assert!(f.offer(&packet(&frame(0, &tcp[..24], true), 0)).is_none());
        assert!(f.offer(&packet(&frame(0, &tcp, false), 0)).is_none());
        assert!(f.waiting.is_empty());
        // Too late, or too many that wait.
        assert!(f.offer(&packet(&pieces[0], 0)).is_none());
        assert!(f.offer(&packet(&pieces[1], 31_000)).is_none());
        assert!(f.offer(&packet(&pieces[2], 31_000)).is_none());
        assert_eq!(f.waiting.len(), 1, "the first piece was given up");
    }
}
