//! The window: is a segment where the other end can take it? After the four conditions of Rooij, "Real Stateful TCP Packet
//! Filtering in IP Filter", which `tcp_in_window()` of `net/netfilter/nf_conntrack_proto_tcp.c` uses too.
//!
//! The conditions are the filter's; what they mean is not. A filter in the path sees every packet and may drop one that does
//! not fit. This observer may have missed any number of packets, so what lies *ahead* of all it saw is either missed
//! packets or forged, and it follows; what lies *behind* is old for certain, and moves nothing.
//!
//! For certain, if not more than half the sequence space can have passed unseen: beyond 2^31 bytes, ahead and behind look the same
//! (RFC 9293 section 3.4). See [`Coverage`].

use super::life::{End, seen};
use crate::wire::{Nanos, Segment, Seq, TcpFlags};

/// What a tap point shows of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coverage {
    /// Every packet, but for losses: a capture.
    #[default]
    All,
    /// Packets that open and close, and the first few others: a live tap, and what one mirrored to a file. Any amount of data may have
    /// passed between two of them, as far as there was time for it.
    Selected,
}

/// What one direction carries at most, in half bytes a nanosecond: 100 Gbit/s, more than one connection fills. With less, what lies
/// ahead of unseen data on a fast link would be called old; with more, an old segment is told as such only soon after another one.
const HALF_BYTES_A_NS: u64 = 25;

impl Coverage {
    /// True if the other end may be at `to` although it was at `from`, `waited` ns ago: data up to there may have passed unseen, that is
    /// more than half the sequence space where `to` looks older.
    pub fn hides(self, from: Seq, to: Seq, waited: u64) -> bool {
        let bytes = u64::from(to.0.wrapping_sub(from.0));
        self == Coverage::Selected && bytes * 2 <= waited.saturating_mul(HALF_BYTES_A_NS)
    }

    /// True if `sender` may be at `seq`, at `ts`, for all that was seen of both: of its own packets, and of what `receiver` has of them.
    pub fn hides_between(self, sender: &End, receiver: &End, seq: Seq, ts: Nanos) -> bool {
        let sent = sender.has(seen::ANY) && self.hides(sender.next, seq, ts.since(sender.last));
        sent && (!receiver.has(seen::ACK) || self.hides(receiver.ack, seq, ts.since(receiver.last)))
    }
}

/// Where a segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// In the window, as far as it is known.
    Fits,
    /// I: beyond what the receiver offered.
    Ahead,
    /// II: a window or more before what the receiver has, or older than the timestamp that it holds (PAWS, RFC 7323 section 5).
    Old,
    /// III: acknowledges what was never sent.
    AcksUnsent,
    /// IV: acknowledges less than a window ago was acknowledged already.
    AcksOld,
}

/// An acknowledgement may lag behind by this much at least, whatever the window (`MAXACKWINCONST`): a peer that was quiet while
/// its window was small.
const ACK_LAG: u32 = 66_000;

/// The largest window scale (RFC 7323 section 2.3).
const SCALE_MAX: u8 = 14;

impl End {
    /// The window field of `seg`, sent by this end, in bytes. Scaled only if both ends offered to scale; in a connection whose
    /// SYNs were not seen by the most that can be, since what is not known must not make a segment look out of place.
    pub fn window(&self, peer: &End, seg: &Segment) -> u32 {
        let shift = match (self.has(seen::SYN), self.has(seen::WSCALE) && peer.has(seen::WSCALE)) {
            _ if seg.flags.any(TcpFlags::SYN) => 0,
            (true, true) => self.wscale.min(SCALE_MAX),
            (true, false) if peer.has(seen::SYN) => 0,
            _ => SCALE_MAX,
        };
        u32::from(seg.win) << shift
    }

    /// Takes note of the timestamp on `seg`, sent by this end. The receiver holds it from now on (RFC 7323 section 4.3,
    /// `tcp_replace_ts_recent()`) if the segment begins no later than what it acknowledged last: one that overtook another says
    /// nothing of that one's age. Acknowledgements that have not passed here yet can only have moved its own further.
    pub fn stamp(&mut self, peer: &End, seg: &Segment) {
        let Some((tsval, _)) = seg.options.ts else { return };
        let syn = seg.flags.any(TcpFlags::SYN); // There is nothing before it.
        if !self.has(seen::TS) || !older(tsval, self.tsval) {
            self.tsval = tsval;
            self.seen |= seen::TS;
        }
        let in_order = peer.has(seen::ACK) && !seg.seq.after(peer.ack);
        if (syn || in_order) && !(self.has(seen::TS_RECENT) && older(tsval, self.ts_recent)) {
            self.ts_recent = tsval;
            self.seen |= seen::TS_RECENT;
        }
    }

    /// Takes note of the window that `seg`, sent by this end, offers to `peer`.
    pub fn offer(&mut self, peer: &mut End, seg: &Segment) {
        let window = self.window(peer, seg);
        let ack = seg.ack;
        let sack = seg.options.sack.filter(|s| s.after(ack)).unwrap_or(ack);
        self.max_win = self.max_win.max(window.saturating_add(sack.distance(ack).unsigned_abs())).max(1);
        if !seg.flags.any(TcpFlags::ACK) {
            return;
        }
        // One byte more into a closed window: the probe (RFC 9293 3.8.6.1).
        let limit = sack.add(window).add(u32::from(window == 0));
        if !peer.has(seen::LIMIT) || limit.after(peer.limit) {
            peer.limit = limit;
            peer.seen |= seen::LIMIT;
        }
    }
}

/// True if a timestamp is older than another (RFC 7323 section 5.2).
fn older(tsval: u32, than: u32) -> bool {
    (tsval.wrapping_sub(than) as i32) < 0
}

/// Where `seg` lies, sent by `sender` to `receiver`, by what was seen of both. Both ends' wrap-around is that of [`Seq`].
pub fn fit(sender: &End, receiver: &End, seg: &Segment) -> Fit {
    if is_stamped_older(sender, receiver, seg) {
        return Fit::Old;
    }
    if sender.has(seen::LIMIT) && seg.seq.after(sender.limit.add(1)) {
        return Fit::Ahead;
    }
    if is_behind(sender, receiver, seg) {
        return Fit::Old;
    }
    if seg.flags.any(TcpFlags::ACK) && receiver.has(seen::ANY) {
        let sack = seg.options.sack.filter(|s| s.after(seg.ack)).unwrap_or(seg.ack);
        if sack.after(receiver.next) {
            return Fit::AcksUnsent;
        }
        if acks_old(sender, receiver, seg) {
            return Fit::AcksOld;
        }
    }
    Fit::Fits
}

/// Older than the timestamp that the receiver holds. A FIN that was acknowledged was taken, whatever the order in which the two were
/// captured.
fn is_stamped_older(sender: &End, receiver: &End, seg: &Segment) -> bool {
    let acknowledged = seg.flags.any(TcpFlags::FIN) && receiver.has(seen::ACK) && receiver.ack == seg.end();
    let stamped = seg.options.ts.is_some_and(|(tsval, _)| older(tsval, sender.ts_recent));
    stamped && sender.has(seen::TS_RECENT) && !seg.flags.any(TcpFlags::RST | TcpFlags::SYN) && !acknowledged
}

/// Condition II.
fn is_behind(sender: &End, receiver: &End, seg: &Segment) -> bool {
    let oldest = Seq(sender.next.0.wrapping_sub(receiver.max_win).wrapping_sub(1));
    let known = sender.has(seen::ANY) && receiver.max_win > 0;
    known && !seg.end().after(oldest) && sender.next.distance(seg.end()) > 0
}

/// Condition IV.
fn acks_old(sender: &End, receiver: &End, seg: &Segment) -> bool {
    let behind = receiver.next.distance(seg.ack);
    behind > 0 && behind.unsigned_abs() > sender.max_win.max(ACK_LAG)
}

/// Takes note of data that passed unseen, more than half the sequence space of it: `seg`, sent by `sender` at `ts`, lies behind what was
/// seen or acknowledges less, and there was time for the rest. What was known of that direction is known no more.
pub fn catch_up(coverage: Coverage, sender: &mut End, receiver: &mut End, seg: &Segment, ts: Nanos) {
    if is_stamped_older(sender, receiver, seg) {
        return;
    }
    let fin = seg.flags.any(TcpFlags::FIN) && !(sender.has(seen::FIN) && seg.end() == sender.fin_end);
    let before_ack = receiver.has(seen::ACK) && seg.end().before(receiver.ack);
    let behind = is_behind(sender, receiver, seg) || fin && before_ack;
    if behind && coverage.hides_between(sender, receiver, seg.seq, ts) {
        sender.next = seg.seq;
        sender.seen &= !seen::LIMIT;
        receiver.seen &= !seen::ACK;
    }
    // Nobody acknowledges less than before.
    let less = seg.flags.any(TcpFlags::ACK) && sender.has(seen::ACK) && seg.ack.before(sender.ack);
    if less && coverage.hides(sender.ack, seg.ack, ts.since(sender.last)) {
        sender.ack = seg.ack;
        receiver.seen &= !seen::LIMIT;
        let since = ts.since(receiver.last);
        if acks_old(sender, receiver, seg) && coverage.hides(receiver.next, seg.ack, since) {
            receiver.next = seg.ack;
        }
    }
}

/// True for a segment that only asks whether the other end is there: a keep-alive (RFC 9293 3.8.4: the byte before the next, or none
/// at that place) or a probe of a closed window (3.8.6.1).
pub fn is_probe(sender: &End, seg: &Segment) -> bool {
    let control = seg.flags.any(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST);
    let keep_alive = sender.has(seen::ANY) && seg.seq.add(1) == sender.next && seg.payload <= 1;
    let into_closed = sender.has(seen::LIMIT) && seg.payload == 1 && seg.end() == sender.limit;
    !control && (keep_alive || into_closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TcpOptions;

    const ACK: u16 = TcpFlags::ACK;

    fn seg(seq: u32, ack: u32, payload: u32, win: u16) -> Segment {
        Segment { seq: Seq(seq), ack: Seq(ack), payload, win, flags: TcpFlags(ACK), ..Segment::default() }
    }

    /// Two ends in the middle of a connection just below the wrap: A sent up to -1000, B up to -2000, windows 10,000.
    fn ends() -> (End, End) {
        let known = seen::SYN | seen::ANY | seen::ACK | seen::LIMIT;
        let a = End { next: Seq(0xffff_fc18), max_win: 10_000, seen: known, ..End::default() };
        let b = End { next: Seq(0xffff_f830), max_win: 10_000, seen: known, ..End::default() };
        let a = End { limit: a.next.add(10_000), ack: b.next, ..a };
        (a, End { limit: b.next.add(10_000), ack: a.next, ..b })
    }

    #[test]
    fn each_condition_refuses_on_its_own_side_of_the_wrap() {
        let (a, b) = ends();
        let (next, ack) = (a.next.0, b.next.0);
        let place = |seq: u32, ack: u32, len| fit(&a, &b, &seg(seq, ack, len, 100));
        assert_eq!(place(next, ack, 1_000), Fit::Fits);
        assert_eq!(place(next.wrapping_add(10_000), ack, 0), Fit::Fits, "at the edge, past the wrap");
        assert_eq!(place(next.wrapping_add(10_002), ack, 0), Fit::Ahead);
        assert_eq!(place(next.wrapping_sub(9_999), ack, 10), Fit::Fits, "sent again");
        assert_eq!(place(next.wrapping_sub(12_000), ack, 10), Fit::Old);
        assert_eq!(place(next, ack.wrapping_add(1), 0), Fit::AcksUnsent);
        assert_eq!(place(next, ack.wrapping_sub(66_000), 0), Fit::Fits, "a late acknowledgement");
        assert_eq!(place(next, ack.wrapping_sub(66_001), 0), Fit::AcksOld);
    }

    #[test]
    fn an_older_timestamp_is_old_and_a_reset_is_not_asked_for_one() {
        let (mut a, b) = ends();
        let next = a.next;
        let at = |flags, tsval| Segment {
            flags: TcpFlags(flags),
            options: TcpOptions { ts: Some((tsval, 0)), ..TcpOptions::default() },
            ..seg(next.0, b.next.0, 0, 100)
        };
        a.stamp(&b, &at(ACK, 5));
        assert_eq!(fit(&a, &b, &at(ACK, 4)), Fit::Old);
        assert_eq!(fit(&a, &b, &at(ACK, 0xffff_fff0)), Fit::Old, "around the wrap");
        assert_eq!(fit(&a, &b, &at(ACK, 5)), Fit::Fits);
        assert_eq!(fit(&a, &b, &at(ACK | TcpFlags::RST, 4)), Fit::Fits);
    }

    #[test]
    fn a_segment_that_overtook_another_makes_that_one_no_older() {
        let (mut a, mut b) = ends();
        let at = |seq: Seq, tsval| Segment {
            options: TcpOptions { ts: Some((tsval, 0)), ..TcpOptions::default() },
            ..seg(seq.0, b.next.0, 100, 100)
        };
        let (first, second) = (at(a.next, 5), at(a.next.add(100), 6));
        a.stamp(&b, &second);
        assert_eq!((a.tsval, a.has(seen::TS_RECENT)), (6, false));
        assert_eq!(fit(&a, &b, &first), Fit::Fits);
        a.stamp(&b, &first);
        assert_eq!((a.tsval, a.ts_recent), (6, 5), "the newest, and what the receiver holds");
        b.ack = a.next.add(200);
        a.stamp(&b, &second);
        assert_eq!(fit(&a, &b, &first), Fit::Old);
        // Captured behind its acknowledgement.
        let fin = TcpFlags(ACK | TcpFlags::FIN);
        assert_eq!(fit(&a, &b, &Segment { payload: 199, flags: fin, ..first }), Fit::Fits);
        assert_eq!(fit(&a, &b, &Segment { payload: 198, flags: fin, ..first }), Fit::Old);
    }

    #[test]
    fn windows_are_scaled_only_if_both_ends_offered_to() {
        let syn = seen::SYN;
        let end = |wscale, bits| End { wscale, seen: bits, ..End::default() };
        let s = seg(0, 0, 0, 100);
        let both = (end(7, syn | seen::WSCALE), end(2, syn | seen::WSCALE));
        assert_eq!(both.0.window(&both.1, &s), 12_800);
        assert_eq!(end(7, syn | seen::WSCALE).window(&end(0, syn), &s), 100);
        assert_eq!(end(0, 0).window(&end(0, 0), &s), 100 << 14, "not seen: the most it can be");
        assert_eq!(end(15, syn | seen::WSCALE).window(&both.1, &s), 100 << 14);
    }

    #[test]
    fn a_selective_acknowledgement_counts_to_its_right_edge() {
        let (a, b) = ends();
        let sack = |edge: u32| Segment {
            options: TcpOptions { sack: Some(Seq(edge)), ..TcpOptions::default() },
            ..seg(a.next.0, b.next.0.wrapping_sub(500), 0, 100)
        };
        assert_eq!(fit(&a, &b, &sack(b.next.0)), Fit::Fits);
        assert_eq!(fit(&a, &b, &sack(b.next.0.wrapping_add(1))), Fit::AcksUnsent);
    }

    #[test]
    fn keep_alives_and_probes_of_a_closed_window_are_known() {
        let (mut a, mut b) = ends();
        assert!(is_probe(&a, &seg(a.next.0.wrapping_sub(1), b.next.0, 0, 100)));
        assert!(is_probe(&a, &seg(a.next.0.wrapping_sub(1), b.next.0, 1, 100)));
        assert!(!is_probe(&a, &seg(a.next.0, b.next.0, 100, 100)));
        a.limit = a.next;
        let closed = seg(b.next.0, a.next.0, 0, 0);
        b.offer(&mut a, &closed);
        assert!(is_probe(&a, &seg(a.next.0, b.next.0, 1, 100)), "one byte into a window of none");
    }
}
