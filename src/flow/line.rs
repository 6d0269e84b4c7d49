//! One flow in one cache line: what is kept of a connection that does what connections do.
//!
//! A line holds the key, where the connection stands, each end's numbers, and where the newest of its packets is in the flight
//! recorder. Most connections never need more. One that does something else gets a whole flow beside its line (`track::Flow`), made
//! from the recorder's packets, and from the line alone where those are overwritten.

use super::{FlowKey, Mark, Narrow, Side};
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

/// See the module. `pair` is the addresses of the key's ends for IPv4, and the next free place where no flow is.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line {
    pub(super) pair: u64,
    pub(super) ports: u32,
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
    /// First packet, in units of [`Nanos::coarse`], round the circle.
    pub(super) first: u32,
    /// Last packet: 48 bits of nanoseconds, round the circle.
    pub(super) last_low: u32,
    pub(super) last_high: u16,
    /// A byte of each end's MAC.
    pub(super) macs: [u8; 2],
    /// The newest packet's mark: 40 bits, round the circle.
    pub(super) mark_low: u32,
    pub(super) mark_high: u8,
    /// Packets of each end, up to 255.
    pub(super) packets: [u8; 2],
    /// Segments of the originator's data, up to 255.
    pub(super) requests: u8,
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
        self.packets[role as usize]
    }

    /// How many packets the recorder has of this life, where that is not all of its chain; `None` if they were not counted to the
    /// end.
    #[inline]
    pub fn counted(&self) -> Option<usize> {
        (!self.packets.contains(&u8::MAX)).then(|| self.packets.map(usize::from).iter().sum())
    }

    /// Segments of the originator's data, as far as they were counted.
    #[inline]
    pub fn requests(&self) -> u8 {
        self.requests
    }

    /// Takes note of a packet of `role` at `ts`, with this mark in the recorder.
    #[inline]
    pub fn packet(&mut self, role: Side, ts: Nanos, mark: Mark, data: bool) {
        let packets = &mut self.packets[role as usize];
        *packets = packets.saturating_add(1);
        self.requests = self.requests.saturating_add(u8::from(data && role == Side::Orig));
        self.set_mark(mark);
        self.set_last(ts);
    }

    /// Sets what was counted.
    pub fn set_counts(&mut self, packets: [u32; 2], requests: u32) {
        let byte = |n: u32| n.min(255) as u8;
        self.packets = packets.map(byte);
        self.requests = byte(requests);
    }

    /// Its newest packet's mark; `next` is the recorder's next one.
    #[inline]
    pub fn mark(&self, next: Mark) -> Mark {
        let low = u64::from(self.mark_low) | u64::from(self.mark_high) << 32;
        Mark(before(next.0, low, MARK))
    }

    /// Sets the newest packet's mark.
    #[inline]
    pub fn set_mark(&mut self, mark: Mark) {
        (self.mark_low, self.mark_high) = (mark.0 as u32, (mark.0 >> 32) as u8);
    }

    /// When its last packet came: exact, if that is less than three days before `now`.
    #[inline]
    pub fn last(&self, now: Nanos) -> Nanos {
        let low = u64::from(self.last_low) | u64::from(self.last_high) << 32;
        Nanos(before(now.0, low, TIME))
    }

    /// When its first packet came, as [`Nanos::coarse`] has it; its circle is 52 days.
    #[inline]
    pub fn first(&self, now: Nanos) -> Nanos {
        Nanos(before(now.0 >> Nanos::COARSE, u64::from(self.first), u32::MAX.into()) << Nanos::COARSE)
    }

    /// Sets first and last packet.
    pub fn set_times(&mut self, first: Nanos, last: Nanos) {
        self.first = (first.0 >> Nanos::COARSE) as u32;
        self.set_last(last);
    }

    /// Sets the last packet alone.
    #[inline]
    pub fn set_last(&mut self, last: Nanos) {
        (self.last_low, self.last_high) = (last.0 as u32, (last.0 >> 32) as u16);
    }

    /// True if `role` sent its packets from this address until now; the first one sets it.
    #[inline]
    pub fn same_mac(&mut self, role: Side, mac: Mac) -> bool {
        let had = &mut self.macs[role as usize];
        let is = mac_byte(mac);
        if *had == 0 {
            *had = is;
        }
        *had == is
    }

    /// Forgets the addresses that packets came from.
    pub fn clear_macs(&mut self) {
        self.macs = [0; 2];
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
        let rest = (self.point ^ key.point) | (self.bits & bit::WIDE);
        (self.pair ^ key.pair) | u64::from(self.ports ^ key.ports) | u64::from(rest) == 0
    }

    /// True if the ports and the point of an IPv6 flow's key are these.
    #[inline]
    pub(super) fn may_be_wide(&self, key: &FlowKey) -> bool {
        (self.ports, self.point) == (key.ports(), key.point()) && self.bits & bit::WIDE != 0
    }

    /// The key; `wide` is the pair of addresses of an IPv6 flow.
    #[inline]
    pub(super) fn key(&self, wide: Option<[Addr; 2]>) -> FlowKey {
        match wide {
            Some(ends) => FlowKey::ordered(ends, self.ports, self.point),
            None => self.narrow().into(),
        }
    }

    /// The key of an IPv4 flow.
    #[inline]
    pub(super) fn narrow(&self) -> Narrow {
        Narrow { pair: self.pair, ports: self.ports, point: self.point }
    }
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
