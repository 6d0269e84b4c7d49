//! One flow in one cache line: what is kept of a connection that does what connections do.
//!
//! A line holds the key, where the connection stands, each end's numbers, and where the newest of its packets is in the flight
//! recorder. Most connections never need more. One that does something else gets a whole flow beside its line (`track::Flow`), made
//! from the recorder's packets, and from the line alone where those are overwritten.

use super::{FlowKey, Mark, Side};
use crate::wire::{Addr, Mac, Nanos, Seq};

/// Where a flow stands that is kept in its line alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// No flow is kept here.
    #[default]
    Free = 0,
    /// A whole flow is kept beside the line.
    Whole,
    /// One SYN, no answer.
    SynSent,
    /// The SYN-ACK that answers it.
    SynRecv,
    /// The handshake is complete.
    Established,
    /// One end has sent its FIN.
    FinWait,
    /// And the other end has acknowledged it.
    HalfClosed,
    /// The other end has sent its FIN as well.
    LastAck,
    /// Both FINs are acknowledged.
    TimeWait,
}

/// Facts of a line, one bit each.
pub mod bit {
    /// The originator is end B of the key.
    pub const TURNED: u8 = 1;
    /// The addresses are IPv6: they stand in the table's list of them.
    pub const WIDE: u8 = 2;
    /// The responder's FIN came first.
    pub const RESP_CLOSED: u8 = 4;
    /// The originator's segments carry timestamps.
    pub const ORIG_TS: u8 = 8;
    /// The responder's segments carry timestamps.
    pub const RESP_TS: u8 = 16;
    /// It was a whole flow before, and not all of that is kept.
    pub const FOLDED: u8 = 32;
    /// It was met in mid-stream.
    pub const MET: u8 = 64;
    /// Its tuple had a life before: only as many packets as are counted are of this one.
    pub const REBORN: u8 = 128;
}

/// The numbers of one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LineEnd {
    /// One after the highest sequence number it sent, or that the other end acknowledged.
    pub next: Seq,
    /// Its highest acknowledgement.
    pub ack: Seq,
    /// Its newest TSval, where it has timestamps.
    pub tsval: u32,
}

/// See the module. `a` and `b` are the addresses of the key's ends for IPv4, and the place of the IPv6 pair in `a`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line {
    pub(super) a: u32,
    pub(super) b: u32,
    pub(super) a_port: u16,
    pub(super) b_port: u16,
    pub(super) point: u8,
    /// Where it stands.
    pub phase: Phase,
    /// Facts: [`bit`].
    pub bits: u8,
    /// Its VLAN, a number of the worker's own; 0 for none.
    pub label: u8,
    /// The tick of the wheel that it waits for.
    pub armed: u16,
    /// TTL of each end's newest packet.
    pub ttl: [u8; 2],
    /// First packet: nanoseconds over 2^20, round the circle.
    pub(super) first: u32,
    /// Last packet: 48 bits of nanoseconds, round the circle; then a byte of each end's MAC.
    pub(super) last_macs: u64,
    /// 40 bits of the newest packet's mark, round the circle; then packets of each end, and segments of data of the originator,
    /// each up to 255.
    pub(super) mark_counts: u64,
    /// The ends by role; of a whole flow, its place.
    pub ends: [LineEnd; 2],
}

const _: () = assert!(size_of::<Line>() == 64);

const TIME: u64 = (1 << 48) - 1;
const MARK: u64 = (1 << 40) - 1;

/// A number known up to its place on a circle, made whole by a later number less than a turn ahead.
#[inline]
const fn before(now: u64, low: u64, mask: u64) -> u64 {
    now.wrapping_sub(now.wrapping_sub(low) & mask)
}

/// A byte that tells two MAC addresses apart, but for one pair in 255; 0 is none.
#[inline]
fn mac_byte(mac: Mac) -> u8 {
    let m = mac.0;
    let word = u64::from_le_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0]);
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1
}

impl Line {
    /// The packets of a role, as far as they were counted: 255 stands for more.
    #[inline]
    pub fn packets(&self, role: Side) -> u8 {
        (self.mark_counts >> (40 + 8 * role as u32)) as u8
    }

    /// How many packets the recorder has of this life, where that is not all of its chain; `None` if they were not counted to the
    /// end.
    #[inline]
    pub fn counted(&self) -> Option<usize> {
        let each = [Side::Orig, Side::Resp].map(|role| self.packets(role));
        (!each.contains(&u8::MAX)).then(|| each.map(usize::from).iter().sum())
    }

    /// Segments of the originator's data, as far as they were counted.
    #[inline]
    pub fn requests(&self) -> u8 {
        (self.mark_counts >> 56) as u8
    }

    /// Takes note of a packet of `role` at `ts`, with this mark in the recorder.
    #[inline]
    pub fn packet(&mut self, role: Side, ts: Nanos, mark: Mark, data: bool) {
        let mut counts = self.mark_counts & !MARK;
        let shift = 40 + 8 * role as u32;
        counts += u64::from((counts >> shift) as u8 != u8::MAX) << shift;
        counts += u64::from(data && role == Side::Orig && (counts >> 56) as u8 != u8::MAX) << 56;
        self.mark_counts = counts | mark.0 & MARK;
        self.last_macs = self.last_macs & !TIME | ts.0 & TIME;
    }

    /// Sets what was counted.
    pub fn set_counts(&mut self, packets: [u32; 2], requests: u32) {
        let byte = |n: u32| u64::from(n.min(255));
        self.mark_counts =
            self.mark_counts & MARK | byte(packets[0]) << 40 | byte(packets[1]) << 48 | byte(requests) << 56;
    }

    /// Its newest packet's mark; `next` is the recorder's next one.
    #[inline]
    pub fn mark(&self, next: Mark) -> Mark {
        Mark(before(next.0, self.mark_counts & MARK, MARK))
    }

    /// Sets the newest packet's mark.
    pub fn set_mark(&mut self, mark: Mark) {
        self.mark_counts = self.mark_counts & !MARK | mark.0 & MARK;
    }

    /// When its last packet came: exact, if that is less than three days before `now`.
    #[inline]
    pub fn last(&self, now: Nanos) -> Nanos {
        Nanos(before(now.0, self.last_macs & TIME, TIME))
    }

    /// When its first packet came, a millisecond early at most; its circle is 52 days.
    pub fn first(&self, now: Nanos) -> Nanos {
        Nanos(before(now.0 >> 20, u64::from(self.first), u32::MAX.into()) << 20)
    }

    /// Sets first and last packet.
    pub fn set_times(&mut self, first: Nanos, last: Nanos) {
        self.first = (first.0 >> 20) as u32;
        self.last_macs = self.last_macs & !TIME | last.0 & TIME;
    }

    /// Sets the last packet alone.
    #[inline]
    pub fn set_last(&mut self, last: Nanos) {
        self.last_macs = self.last_macs & !TIME | last.0 & TIME;
    }

    /// True if `role` sent its packets from this address until now; the first one sets it.
    #[inline]
    pub fn same_mac(&mut self, role: Side, mac: Mac) -> bool {
        let shift = 48 + 8 * role as u32;
        let (had, is) = ((self.last_macs >> shift) as u8, mac_byte(mac));
        if had == 0 {
            self.last_macs |= u64::from(is) << shift;
        }
        had == 0 || had == is
    }

    /// Forgets the addresses that packets came from.
    pub fn clear_macs(&mut self) {
        self.last_macs &= TIME;
    }

    /// The end of the key that is the originator.
    #[inline]
    pub fn orig(&self) -> Side {
        if self.bits & bit::TURNED == 0 { Side::Orig } else { Side::Resp }
    }

    /// Whether all bits are set.
    #[inline]
    pub fn has(&self, bits: u8) -> bool {
        self.bits & bits == bits
    }

    /// The place of its whole flow.
    #[inline]
    pub(super) fn whole(&self) -> usize {
        self.ends[0].next.0 as usize
    }

    /// True if the key of an IPv4 flow is this one.
    #[inline]
    pub(super) fn is_narrow(&self, key: &Narrow) -> bool {
        (self.a, self.b, self.a_port, self.b_port, self.point)
            == (key.a, key.b, key.a_port, key.b_port, key.point)
            && self.bits & bit::WIDE == 0
    }

    /// True if the ports and the point of an IPv6 flow's key are these.
    #[inline]
    pub(super) fn may_be_wide(&self, key: &FlowKey) -> bool {
        let [a, b] = key.ports();
        (self.a_port, self.b_port, self.point) == (a, b, key.point()) && self.bits & bit::WIDE != 0
    }

    /// The key; `wide` is the pair of addresses of an IPv6 flow.
    #[inline]
    pub(super) fn key(&self, wide: Option<[Addr; 2]>) -> FlowKey {
        let ends = wide.unwrap_or_else(|| [Addr::v4(self.a.to_be_bytes()), Addr::v4(self.b.to_be_bytes())]);
        FlowKey::ordered(ends, [self.a_port, self.b_port], self.point)
    }
}

/// The key of an IPv4 flow as a line has it.
#[derive(Clone, Copy)]
pub(super) struct Narrow {
    pub a: u32,
    pub b: u32,
    pub a_port: u16,
    pub b_port: u16,
    pub point: u8,
}

impl Narrow {
    /// `None` for IPv6.
    #[inline]
    pub fn of(key: &FlowKey) -> Option<Narrow> {
        let [a, b] = key.addresses();
        let [a_port, b_port] = key.ports();
        (a.is_v4() && b.is_v4()).then(|| Narrow { a: v4(a), b: v4(b), a_port, b_port, point: key.point() })
    }
}

#[inline]
fn v4(a: &Addr) -> u32 {
    u32::from_be_bytes([a.0[12], a.0[13], a.0[14], a.0[15]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_marks_are_whole_again_round_their_circles() {
        let mut line = Line::default();
        let day = 86_400 * Nanos::SEC;
        for first in [0, 1, 5 * Nanos::SEC, 1_700_000_000 * Nanos::SEC + 123_456_789] {
            let last = Nanos(first + 20 * day + 7);
            line.set_times(Nanos(first), last);
            line.set_mark(Mark(first));
            let now = last.add(2 * day);
            assert_eq!(line.last(now), last);
            let apart = Nanos(first).since(line.first(now));
            assert!(apart < 1 << 20, "{apart}");
            assert_eq!(line.mark(Mark(first + (1 << 39))), Mark(first));
        }
    }

    #[test]
    fn counts_stop_at_255_and_leave_the_rest_alone() {
        let mut line = Line::default();
        assert!(line.same_mac(Side::Resp, Mac([2, 0, 0, 0, 0, 1])));
        for n in 1..300u64 {
            line.packet(Side::Orig, Nanos(n), Mark(n), n % 2 == 0);
        }
        line.packet(Side::Resp, Nanos(300), Mark(300), true);
        assert_eq!((line.packets(Side::Orig), line.packets(Side::Resp), line.requests()), (255, 1, 149));
        assert_eq!((line.mark(Mark(301)), line.last(Nanos(301))), (Mark(300), Nanos(300)));
        assert!(line.same_mac(Side::Resp, Mac([2, 0, 0, 0, 0, 1])));
        assert!(!line.same_mac(Side::Resp, Mac([2, 0, 0, 0, 0, 2])));
        assert!(line.same_mac(Side::Orig, Mac([2, 0, 0, 0, 0, 2])), "the first of its end");
    }
}
