//! How a life begins: SYNs, and what answers them.

use super::life::{Attempt, Flow, Outcome, StaleAck, seen};
use super::middle::{FINAL_ACK_NEAR, TIMEOUT};
use super::state::{Next, SegClass, State, next};
use super::step::{ATTEMPT_DELAY, Ended, Step, note, syn_of};
use crate::flow::Side;
use crate::wire::{Nanos, Segment, Seq, TcpFlags};

/// How long after a SYN a pure ACK can still be the answer to it. A stale ACK comes within a round trip; 3 s is the
/// longest initial retransmission timeout in use (RFC 1122 4.2.3.1; 1 s since RFC 6298), after which the next SYN
/// takes over.
const ANSWER_WITHIN: u64 = 3 * Nanos::SEC;

/// A SYN-ACK this long after the final ACK passed was not on its way when that came: over any round trip, below the
/// shortest retransmission timeout of a SYN-ACK (1 s; Linux' `tcp_synack_retries` timer starts there).
const AFTER_ACK: u64 = 500 * Nanos::MS;

/// An acknowledgement that lies this little after a SYN that waits acknowledges data of the connection which that SYN opened: the
/// packets between were not captured. One of another life lies there by chance once in 4,000 times.
const MISSED: u32 = 1 << 20;

/// How much further an originator's clock may have come than the time since its SYN passed here, in ticks: the SYN may have
/// waited on its way for a second, at 1 ms, the fastest tick of RFC 7323 section 5.4. That time itself counts as microseconds,
/// the tick of Linux' `tcp_usec_ts`, and no more than [`MISSED`] of them. With more, the stale ACK of another client's
/// connection, whose clock is a little ahead, would pass for an answer.
const TICKS_QUEUED: u64 = 1_000;

impl Flow {
    pub(super) fn on_syn(
        &mut self,
        seg: &Segment,
        end: Side,
        ts: Nanos,
        over: &mut Option<impl FnOnce(&Flow)>,
        step: &mut Step,
    ) {
        let a = &mut self.attempt;
        if a.syns > 0 && a.from == end && a.isn == seg.seq && !self.state.is_over() {
            // The same SYN again, or once more after it was answered.
            if a.pending || self.state == State::SynSent {
                a.gap = ts.since(a.last);
                a.last = ts;
                a.syns = a.syns.saturating_add(1);
                a.syn_after_rst |= a.stray_rst.is_some();
                // One that was given up and told goes on silently: one record an episode.
                a.pending |= !a.told;
                let begins = a.on_live.is_none() && self.zeek.attempted();
                if begins && ts.since(self.first) > ATTEMPT_DELAY {
                    self.next_try(end, ts, over, step);
                }
            } else if self.state == State::SynRecv {
                // It draws another SYN-ACK.
                a.last = ts;
                step.notes |= note::SYN_AFTER_SYN_ACK;
            } else {
                step.old = true;
            }
            return;
        }
        let role = self.role(end);
        if self.state.is_over() && self.opened_by(seg, end) || self.follows_its_answer(seg, role) {
            step.old = true;
            return;
        }
        if self.state == State::SynRecv && role == Side::Orig && !self.ends[0].has(seen::SYN) {
            // Its SYN-ACK was captured before it.
            let attempt = Attempt { pending: false, told: true, ..Attempt::of(seg, end, ts) };
            if self.ends[1].has(seen::ACK) && attempt.accepts(self.ends[1].ack) {
                if std::mem::take(&mut self.tallies.unsolicited) {
                    self.attempt = attempt;
                    if attempt.refuses_data(self.ends[1].ack) {
                        step.notes |= note::TFO_REFUSED;
                    }
                    step.ended = Some(Ended {
                        attempt,
                        outcome: Outcome::Accepted,
                        at: ts,
                        past: self.past,
                        answer_seen: true,
                    });
                    step.answered = true;
                }
                return;
            }
        }
        let live = self.state.is_open() || self.state == State::SynRecv;
        match next(role, SegClass::Syn, self.state) {
            Next::Go(State::SynCrossed) => {
                self.state = State::SynCrossed;
                step.notes |= note::CROSSED;
                return;
            }
            Next::Odd => return,
            Next::Attempt
                if self.ends[role as usize].has(seen::SYN) && self.ends[role as usize].isn == seg.seq =>
            {
                // A late duplicate of the SYN that opened this life.
                step.old = true;
                return;
            }
            _ => {}
        }
        let (mut isns, mut told, mut replaced) = (1, 0, None);
        if self.attempt.pending {
            // After its originator reset it on a stale ACK, it is over; what comes now is another's turn.
            let reset = self.attempt.stray_rst.is_some();
            step.ended = Some(self.end_attempt(Outcome::Replaced, ts));
            if !reset {
                step.notes |= note::ISN_CHANGED;
                isns = self.tallies.isns.max(1).saturating_add(1);
                told = self.tallies.told;
                replaced = Some(self.attempt.isn);
            }
        }
        let on_live = live.then(|| (self.state, ts.since(self.last)));
        if live {
            self.past = self.as_past();
        } else {
            self.begin(end, ts, over, step);
            self.state = State::SynSent;
            self.tallies.told = told;
        }
        self.attempt = Attempt { pending: true, on_live, replaced, ..Attempt::of(seg, end, ts) };
        self.tallies.isns = isns;
    }

    /// True for the SYN that opened this life, which has gone on past it: a duplicate that was late on its way, and no new attempt. A new
    /// one with the same ISN has a newer timestamp than all the life had; without timestamps the packet's own identification tells.
    fn opened_by(&self, seg: &Segment, end: Side) -> bool {
        let (a, me) = (&self.attempt, self.end(self.role(end)));
        let same = me.has(seen::SYN) && me.isn == seg.seq && self.tallies.acked_at.0 != 0;
        same && match seg.options.ts {
            Some((tsval, _)) => me.has(seen::TS) && (me.tsval.wrapping_sub(tsval) as i32) >= 0,
            None => !me.has(seen::TS) && a.isn == seg.seq && seg.ip_id != 0 && a.ip_id == seg.ip_id,
        }
    }

    /// True for the SYN of a life that was captured from its SYN-ACK on: that and what answered it overtook the SYN.
    fn follows_its_answer(&self, seg: &Segment, role: Side) -> bool {
        let [orig, resp] = &self.ends;
        let went_on = 1..=1 + FINAL_ACK_NEAR;
        let answered =
            role == Side::Orig && !orig.has(seen::SYN) && orig.has(seen::ANY) && resp.has(seen::SYN);
        answered && self.tallies.acked_at.0 != 0 && went_on.contains(&orig.next.distance(seg.seq))
    }

    /// The same SYN once more, so long after the first that the connection list has given that one up: another life there, and
    /// the attempt goes on.
    fn next_try(&mut self, end: Side, ts: Nanos, over: &mut Option<impl FnOnce(&Flow)>, step: &mut Step) {
        let (attempt, tallies) = (self.attempt, self.tallies);
        self.begin(end, ts, over, step);
        self.state = State::SynSent;
        self.attempt = attempt;
        self.tallies = tallies;
    }

    /// Ends the present life, if it was one, and starts the next from `end`.
    pub(super) fn begin(
        &mut self,
        end: Side,
        ts: Nanos,
        over: &mut Option<impl FnOnce(&Flow)>,
        step: &mut Step,
    ) {
        if self.state != State::New {
            if let Some(over) = over.take() {
                over(self);
            }
            step.began = true;
            // A life that never got an answer leaves nothing behind at the responder: the one before it still counts.
            // Nor does a stray packet.
            let [o, r] = &self.ends;
            let answered = r.has(seen::SYN | seen::FIN | seen::DATA) && !self.picked_up;
            let met = o.packets > 0 && r.packets > 0
                || o.has(seen::FIN | seen::DATA)
                || r.has(seen::FIN | seen::DATA);
            if answered || self.picked_up && met {
                self.past = self.as_past();
            }
        }
        let keep = (self.past, self.newest, self.vlan, self.tunnel);
        *self = Flow { orig: end, first: ts, last: ts, ..Flow::default() };
        (self.past, self.newest, self.vlan, self.tunnel) = keep;
    }

    pub(super) fn on_syn_ack(
        &mut self,
        seg: &Segment,
        end: Side,
        ts: Nanos,
        over: &mut Option<impl FnOnce(&Flow)>,
        step: &mut Step,
    ) {
        let a = self.attempt;
        let role = self.role(end);
        let me = *self.end(role);
        step.syn_ack_before = (me.isn, me.ack);
        if a.pending && a.from != end {
            if a.accepts(seg.ack) {
                self.accept(seg, ts, over, step);
            } else if me.has(seen::SYN | seen::ACK) && me.isn == seg.seq && me.ack == seg.ack {
                // The one that opened the life before, once more.
                self.syn_ack_again(ts, step);
            } else if a.replaced.is_none_or(|isn| seg.ack != isn.add(1)) {
                // An answer to the SYN before this one, on its way when that was replaced, is none.
                step.notes |= note::SYN_ACK_WRONG_ACK;
            }
            return;
        }
        if self.state == State::New {
            self.tallies.unsolicited = true;
        } else if role == Side::Orig
            && matches!(self.state, State::SynSent | State::SynRecv | State::Established)
        {
            step.notes |= note::SYN_ACK_FROM_ORIGINATOR;
        } else if role == Side::Resp && me.has(seen::SYN) && !self.state.is_over() {
            // While it has sent nothing but SYN-ACKs they acknowledge one thing: the SYN, with or without data in it.
            let only_syn_acks = me.packets <= u32::from(self.tallies.syn_acks);
            let other_ack = only_syn_acks && seg.ack != me.ack && !(a.syns > 0 && a.accepts(seg.ack));
            if seg.seq != me.isn || other_ack {
                step.notes |= note::SYN_ACK_DIFFERS;
                self.tallies.differed = true;
            } else {
                self.syn_ack_again(ts, step);
            }
        } else if role == Side::Resp && a.syns > 0 && a.from != end && a.accepts(seg.ack) {
            let refused = self.state == State::Reset && self.tallies.acked_at.0 == 0;
            if refused && self.tallies.reset_by == Some(Side::Resp) {
                // It refused this SYN, and now accepts it: one of the two was not its own.
                step.notes |= note::WENT_ON_AFTER_RESET;
            }
            // The SYN was told as given up; its answer comes all the same.
            step.answered |= self.state == State::SynSent;
        }
        if let Next::Go(s) = next(role, SegClass::SynAck, self.state) {
            if matches!(self.state, State::New | State::SynSent) {
                self.first_syn_ack(ts);
            }
            self.state = s;
        }
    }

    fn accept(&mut self, seg: &Segment, ts: Nanos, over: &mut Option<impl FnOnce(&Flow)>, step: &mut Step) {
        let a = self.attempt;
        step.ended = Some(Ended { answer_seen: true, ..self.end_attempt(Outcome::Accepted, ts) });
        step.answered = true;
        if a.refuses_data(seg.ack) {
            step.notes |= note::TFO_REFUSED;
        }
        if self.tallies.unbelieved {
            step.notes |= note::WENT_ON_AFTER_RESET;
        }
        if a.on_live.is_some() {
            self.begin(a.from, a.first, over, step);
            let e = &mut self.ends[0];
            e.isn = a.isn;
            e.next = a.isn.add(1);
            e.seen = seen::SYN | seen::ANY;
            self.zeek.segment(syn_of(&a), Side::Orig);
            self.counts[0] = u32::from(a.syns);
            self.attempt = Attempt { pending: false, told: true, ..a };
        }
        self.state = State::SynRecv;
        self.first_syn_ack(ts);
    }

    fn first_syn_ack(&mut self, ts: Nanos) {
        self.tallies.syn_acks = 1;
        self.tallies.syn_ack_first = ts;
        self.tallies.syn_ack_last = ts;
    }

    fn syn_ack_again(&mut self, ts: Nanos, step: &mut Step) {
        let t = &mut self.tallies;
        // Another SYN draws another SYN-ACK; without one only the responder's timer does, and that is never so short.
        if ts.since(t.syn_ack_last) < TIMEOUT && self.attempt.last <= t.syn_ack_last {
            return;
        }
        t.syn_acks = t.syn_acks.saturating_add(1);
        t.syn_ack_last = ts;
        if t.acked_at.0 != 0 && ts.since(t.acked_at) >= AFTER_ACK {
            t.syn_acks_after_ack = t.syn_acks_after_ack.saturating_add(1);
            step.notes |= note::SYN_ACK_AFTER_ACK;
        }
    }

    /// What a segment that is neither SYN, SYN-ACK nor RST does to an attempt that waits.
    pub(super) fn on_waiting(
        &mut self,
        seg: &Segment,
        class: SegClass,
        end: Side,
        ts: Nanos,
        step: &mut Step,
    ) {
        let missed = self.attempt.on_live.is_none() && self.answer_was_missed(seg, ts);
        let a = &mut self.attempt;
        if a.from == end {
            // The end that sent the SYN goes on. With the old life: the SYN was a duplicate, a probe or forged. Without one:
            // it acknowledges a SYN-ACK that was not captured; or it is a program that makes its own packets.
            let old = a.on_live.is_some();
            let follows = (1..=MISSED as i32).contains(&seg.seq.distance(a.isn));
            let goes_on = old || follows && seg.flags.any(TcpFlags::ACK);
            if !goes_on {
                return;
            }
            let outcome = if old { Outcome::OldLifeWentOn } else { Outcome::Accepted };
            step.ended = Some(self.end_attempt(outcome, ts));
            return;
        }
        let own = a.accepts(seg.ack);
        if matches!(self.state, State::SynCrossed | State::SynRecv) && a.on_live.is_none() {
            // The SYN of this end came before: it acknowledges the other one, and both are open.
            if own {
                step.ended = Some(self.end_attempt(Outcome::Accepted, ts));
                step.notes |= note::SPLIT;
                self.state = State::SynRecv;
            }
        } else if own || missed {
            // A plain ACK of the SYN opens nothing: a split handshake begins with one.
            if missed || seg.payload > 0 {
                step.ended = Some(self.end_attempt(Outcome::Accepted, ts));
                self.state = State::Established;
            }
        } else if seg.is_pure_ack() && ts.since(a.last) <= ANSWER_WITHIN {
            a.stale_acks = a.stale_acks.saturating_add(1);
            if a.stale.is_none() {
                a.stale = Some(StaleAck::of(seg, ts));
            }
        } else if seg.payload > 0 && a.stale_data.is_none() && class == SegClass::Ack {
            a.stale_data = Some(StaleAck::of(seg, ts));
        }
    }

    /// The responder acknowledges data of the connection that the waiting SYN opened: its SYN-ACK, and more, was not captured. A
    /// timestamp decides: only who took the SYN echoes its value, or one that the originator's clock reached since. Without one
    /// the number must lie a little after the ISN. What the tuple's past explains is the past's.
    fn answer_was_missed(&self, seg: &Segment, ts: Nanos) -> bool {
        let a = &self.attempt;
        let of_the_past = self.past.known && self.past.next[a.from as usize] == seg.ack;
        if of_the_past || a.accepts(seg.ack) {
            return false;
        }
        let ahead = seg.ack.distance(a.isn);
        match (seg.options.ts, a.tsval) {
            (Some((_, echo)), Some(first)) => {
                let ticks = (TICKS_QUEUED + ts.since(a.first) / 1_000).min(MISSED.into());
                ahead > 1 && u64::from(echo.wrapping_sub(first)) <= ticks
            }
            // Without a timestamp on the SYN nobody may answer it with one (RFC 7323 section 3.2).
            (Some(_), None) => false,
            (None, _) => (2..=MISSED as i32).contains(&ahead),
        }
    }

    /// True for a segment that belongs to an attempt that waits or was given up, however late it comes.
    pub(super) fn belongs_to_attempt(&self, seg: &Segment, end: Side, ts: Nanos) -> bool {
        let a = &self.attempt;
        if a.syns == 0 {
            return false;
        }
        if a.pending && ts.since(a.last) <= ANSWER_WITHIN.max(ATTEMPT_DELAY) {
            return true;
        }
        if end == a.from {
            seg.flags.any(TcpFlags::RST) && a.is_its_own(seg.seq)
        } else {
            seg.flags.any(TcpFlags::ACK) && a.accepts(seg.ack)
        }
    }

    /// An ICMP error quotes a SYN of this flow, sent by `end`: the attempt is refused on the way.
    pub fn icmp(&mut self, end: Side, seq: Seq, ts: Nanos) -> Option<Ended> {
        self.tallies.icmp_errors = self.tallies.icmp_errors.saturating_add(1);
        let a = &self.attempt;
        let mine = a.pending && a.from == end && a.isn == seq && a.on_live.is_none();
        mine.then(|| self.end_attempt(Outcome::RefusedOnTheWay, ts))
    }
}

impl Attempt {
    /// The attempt that this SYN begins.
    fn of(seg: &Segment, from: Side, ts: Nanos) -> Attempt {
        Attempt {
            from,
            isn: seg.seq,
            tsval: seg.options.ts.map(|t| t.0),
            payload: seg.payload,
            ip_id: seg.ip_id,
            first: ts,
            last: ts,
            syns: 1,
            ..Attempt::default()
        }
    }

    /// True for an acknowledgement of the SYN: ISN+1, or up to the end of the SYN's own data (RFC 7413 section 4.2).
    pub(super) fn accepts(&self, ack: Seq) -> bool {
        let acked = ack.distance(self.isn);
        acked >= 1 && acked as u32 <= 1 + self.payload
    }

    /// True for an acknowledgement of the SYN that leaves its data out.
    fn refuses_data(&self, ack: Seq) -> bool {
        self.payload > 0 && ack == self.isn.add(1)
    }

    /// True for a sequence number that a reset by the originator itself has: the SYN's, or the one after it.
    pub(super) fn is_its_own(&self, seq: Seq) -> bool {
        let d = seq.distance(self.isn);
        d >= 0 && d as u32 <= 1 + self.payload
    }
}
