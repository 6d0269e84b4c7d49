//! One segment's step: the flow's numbers and state move on, and what the rules may want to know is noted.

use super::life::{Attempt, End, Flow, Outcome, Past, StaleAck, seen};
use super::state::{Next, SegClass, State, next};
use super::zeek::Seen;
use crate::flow::Side;
use crate::wire::{Nanos, Segment, Seq, TcpFlags};

/// How long after a SYN a pure ACK can still be the answer to it. A stale ACK comes within a round trip; 3 s is the
/// longest initial retransmission timeout in use (RFC 1122 4.2.3.1; 1 s since RFC 6298), after which the next SYN
/// takes over.
const ANSWER_WITHIN: u64 = 3 * Nanos::SEC;

/// The shortest wait before an attempt without answer counts as given up: over the 3 s of old initial timeouts, so
/// that a retry always comes first.
const GIVE_UP_AFTER: u64 = 4 * Nanos::SEC;

/// Idle times after which a flow is forgotten. Half-open: Linux sends its last SYN 63 s after the first and gives up
/// at 127 s (`tcp_syn_retries` 6).
const FORGET_OPENING: u64 = 130 * Nanos::SEC;
/// Over: 60 s of TIME_WAIT (`TCP_TIMEWAIT_LEN`), which a SYN refused for its timestamp can start anew once.
const FORGET_OVER: u64 = 120 * Nanos::SEC;
/// One direction closed: Linux holds an orphaned FIN_WAIT2 60 s, others for long; conntrack 120 s.
const FORGET_CLOSING: u64 = 300 * Nanos::SEC;
/// Established: a NAT must keep an idle mapping 2 h 4 min (RFC 5382 REQ-5), since keep-alives start after 2 h.
const FORGET_OPEN: u64 = 7_440 * Nanos::SEC;

/// See [`Flow::lingered`].
const CLOSE_DELAY: u64 = 5 * Nanos::SEC;
const ATTEMPT_DELAY: u64 = 5 * Nanos::SEC;

/// Ports below belong to services (RFC 6335 section 6: system ports).
const PRIVILEGED: u16 = 1024;

/// An attempt that ended, with everything known of it.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The attempt as it was.
    pub attempt: Attempt,
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub at: Nanos,
    /// The life before it.
    pub past: Past,
}

/// What a reset did to the flow.
#[derive(Clone, Copy, Debug)]
pub struct ResetSeen {
    /// The state before.
    pub state: State,
    /// Silence before it, ns.
    pub idle_ns: u64,
    /// The sequence number lies in the window the other end last offered, as far as the packets seen tell;
    /// `None` if they do not.
    pub in_window: Option<bool>,
}

/// What a step noticed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// The sender's role, after the step.
    pub from: Side,
    /// An attempt ended.
    pub ended: Option<Ended>,
    /// A reset on a flow that was not over.
    pub reset: Option<ResetSeen>,
    /// A reset was the first packet ever seen of this tuple.
    pub reset_without_flow: bool,
    /// A life ended and another began within this step: the summary of the old one is due.
    pub began: bool,
    /// A SYN-ACK was accepted: the responder is alive and answers.
    pub answered: bool,
    /// Time since the packet before in this flow, ns.
    pub since_last: u64,
    /// Smaller things: [`note`].
    pub notes: u32,
}

/// Bits of [`Step::notes`].
pub mod note {
    /// The final ACK came, after the SYN-ACK had been sent again.
    pub const ACKED_LATE: u32 = 1;
    /// A SYN-ACK came again well after the final ACK had passed.
    pub const SYN_ACK_AFTER_ACK: u32 = 2;
    /// A SYN-ACK acknowledged something else than the SYN.
    pub const SYN_ACK_WRONG_ACK: u32 = 4;
    /// A SYN-ACK was the first packet of the tuple.
    pub const SYN_ACK_UNSOLICITED: u32 = 8;
    /// A SYN-ACK differed from the one before in its sequence number.
    pub const SYN_ACK_DIFFERS: u32 = 16;
    /// A SYN-ACK came from the originator.
    pub const SYN_ACK_FROM_ORIGINATOR: u32 = 32;
    /// SYNs crossed.
    pub const CROSSED: u32 = 64;
    /// A SYN with another ISN, while the one before was not answered.
    pub const ISN_CHANGED: u32 = 128;
    /// The end in whose name a reset came went on.
    pub const WENT_ON_AFTER_RESET: u32 = 256;
    /// The same bytes were sent once more into silence.
    pub const UNHEARD: u32 = 512;
    /// A flag mixture.
    pub const ODD_FLAGS: u32 = 1024;
    /// The responder acknowledged a crossed SYN with a plain ACK.
    pub const SPLIT: u32 = 2048;
    /// The originator reset its own handshake before it was used.
    pub const PROBE: u32 = 4096;
}

/// A SYN-ACK this long after the final ACK passed was not on its way when that came: over any round trip, below the
/// shortest retransmission timeout of a SYN-ACK (1 s; Linux' `tcp_synack_retries` timer starts there).
const AFTER_ACK: u64 = 500 * Nanos::MS;

/// Retransmission gaps below this are fast retransmissions or duplicates, not timeouts (Linux `TCP_RTO_MIN` 200 ms).
const TIMEOUT: u64 = 150 * Nanos::MS;

impl Flow {
    /// Moves the flow on by `seg`, sent by `end` of the key at `ts`. `over` is called with the old life before a new
    /// one takes its place.
    pub fn step(&mut self, seg: &Segment, end: Side, ts: Nanos, over: impl FnOnce(&Flow)) -> Step {
        let class = SegClass::of(seg.flags);
        let mut step = Step { since_last: ts.since(self.last), ..Step::default() };
        let mut over = Some(over);
        if self.state != State::New && class != SegClass::Syn && self.lingered(ts) {
            // Long after its end: a stray packet of the past, and no part of that life any more.
            self.begin(end, ts, &mut over, &mut step);
        }
        if self.state == State::New {
            self.pick_up(seg, class, end, ts);
            step.reset_without_flow = class == SegClass::Rst && !self.past.known;
        }
        match class {
            SegClass::Syn => self.on_syn(seg, end, ts, &mut over, &mut step),
            SegClass::SynAck => self.on_syn_ack(seg, end, ts, &mut over, &mut step),
            SegClass::Rst => self.on_rst(seg, end, ts, &mut step),
            _ => self.on_other(seg, class, end, ts, &mut step),
        }
        let role = self.role(end);
        step.from = role;
        self.count(seg.flags);
        self.zeek.segment(seen_by_zeek(seg), role);
        self.note(seg, class, role, ts);
        self.deadline = self.next_deadline();
        step
    }

    /// Counts a packet by its flags; a packet seen twice is only counted.
    pub fn count(&mut self, f: TcpFlags) {
        let counts = &mut self.counts;
        counts[0] += u32::from(f.any(TcpFlags::SYN) && !f.any(TcpFlags::ACK));
        counts[1] += u32::from(f.all(TcpFlags::SYN | TcpFlags::ACK));
        counts[2] += u32::from(f.any(TcpFlags::FIN));
        counts[3] += u32::from(f.any(TcpFlags::RST));
    }

    /// Called when the deadline has passed. `None` asks that the flow be forgotten.
    pub fn timer(&mut self, now: Nanos) -> Option<Step> {
        let mut step = Step::default();
        if self.attempt.pending && self.give_up_at() <= now {
            step.ended = Some(self.end_attempt(Outcome::Expired, self.give_up_at()));
            step.from = self.role(self.attempt.from);
        } else if self.forget_at() <= now {
            return None;
        }
        self.deadline = self.next_deadline();
        Some(step)
    }

    /// Called once at the end of the capture: what still waits is handed over as unfinished.
    pub fn finish(&mut self, now: Nanos) -> Option<Ended> {
        self.attempt.pending.then(|| self.end_attempt(Outcome::Unfinished, now))
    }

    fn give_up_at(&self) -> Nanos {
        // Twice the last gap: the next retransmission of a doubling timer would have come.
        let wait = (2 * self.attempt.gap + Nanos::SEC).max(GIVE_UP_AFTER);
        self.attempt.last.add(wait)
    }

    fn forget_at(&self) -> Nanos {
        self.last.add(match self.state {
            State::New | State::SynSent | State::SynCrossed | State::SynRecv => FORGET_OPENING,
            State::Established => FORGET_OPEN,
            State::FinWait | State::HalfClosed | State::LastAck => FORGET_CLOSING,
            State::TimeWait | State::Reset => FORGET_OVER,
        })
    }

    fn next_deadline(&self) -> Nanos {
        if self.attempt.pending { self.give_up_at().min(self.forget_at()) } else { self.forget_at() }
    }

    /// First packet of the tuple: who called whom? The sender, unless it answers.
    fn pick_up(&mut self, seg: &Segment, class: SegClass, end: Side, ts: Nanos) {
        // A SYN-ACK answers; so does, as a rule, whatever comes from a privileged port to one that is not.
        let answers = class == SegClass::SynAck
            || class != SegClass::Syn && seg.sport < PRIVILEGED && seg.dport >= PRIVILEGED;
        self.orig = if answers { end.other() } else { end };
        self.first = ts;
        self.picked_up = class != SegClass::Syn;
        if answers {
            self.zeek.turned();
        }
    }

    /// True if this life ended so long ago that a packet that is no SYN is a stray and no part of it any more: as long
    /// as Zeek keeps a connection (`tcp_close_delay` and `tcp_attempt_delay`, 5 s each), so that both count the same ones.
    fn lingered(&self, ts: Nanos) -> bool {
        match self.state {
            State::LastAck | State::TimeWait | State::Reset => ts.since(self.last) > CLOSE_DELAY,
            _ if self.zeek.closed_alone() => ts.since(self.last) > CLOSE_DELAY,
            _ => self.zeek.attempted() && ts.since(self.first) > ATTEMPT_DELAY,
        }
    }

    fn end_attempt(&mut self, outcome: Outcome, at: Nanos) -> Ended {
        let ended = Ended { attempt: self.attempt, outcome, at, past: self.past };
        self.attempt.pending = false;
        self.attempt.told = true;
        ended
    }

    fn on_syn(
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
            }
            return;
        }
        let role = self.role(end);
        if self.state == State::SynRecv && role == Side::Orig && !self.ends[0].has(seen::SYN) {
            // Its SYN-ACK was captured before it.
            if self.ends[1].has(seen::ACK) && self.ends[1].ack == seg.seq.add(1) {
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
                return;
            }
            _ => {}
        }
        if self.attempt.pending {
            step.ended = Some(self.end_attempt(Outcome::Replaced, ts));
            step.notes |= note::ISN_CHANGED;
        }
        let isns = if step.notes & note::ISN_CHANGED != 0 { self.tallies.isns.max(1) + 1 } else { 1 };
        let on_live = live.then(|| (self.state, ts.since(self.last)));
        if live {
            self.past = self.as_past();
        } else {
            self.begin(end, ts, over, step);
            self.state = State::SynSent;
        }
        self.attempt = Attempt {
            pending: true,
            from: end,
            isn: seg.seq,
            tsval: seg.options.ts.map(|t| t.0),
            payload: seg.payload,
            first: ts,
            last: ts,
            syns: 1,
            on_live,
            ..Attempt::default()
        };
        self.tallies.isns = isns;
    }

    /// Ends the present life, if it was one, and starts the next from `end`.
    fn begin(&mut self, end: Side, ts: Nanos, over: &mut Option<impl FnOnce(&Flow)>, step: &mut Step) {
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

    fn on_syn_ack(
        &mut self,
        seg: &Segment,
        end: Side,
        ts: Nanos,
        over: &mut Option<impl FnOnce(&Flow)>,
        step: &mut Step,
    ) {
        let a = self.attempt;
        if a.pending && a.from != end {
            let acked = seg.ack.distance(a.isn);
            // ISN+1, or up to the end of the SYN's own data (RFC 7413 section 4.2).
            if !(acked >= 1 && acked as u32 <= 1 + a.payload) {
                step.notes |= note::SYN_ACK_WRONG_ACK;
            } else {
                step.ended = Some(self.end_attempt(Outcome::Accepted, ts));
                step.answered = true;
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
                self.tallies.syn_acks = 1;
                self.tallies.syn_ack_first = ts;
                self.tallies.syn_ack_last = ts;
            }
            return;
        }
        let role = self.role(end);
        if self.state == State::New {
            step.notes |= note::SYN_ACK_UNSOLICITED;
        } else if role == Side::Orig
            && matches!(self.state, State::SynSent | State::SynRecv | State::Established)
        {
            step.notes |= note::SYN_ACK_FROM_ORIGINATOR;
        } else if role == Side::Resp && self.end(role).has(seen::SYN) && !self.state.is_over() {
            if seg.seq != self.end(role).isn {
                step.notes |= note::SYN_ACK_DIFFERS;
            } else {
                let t = &mut self.tallies;
                t.syn_acks = t.syn_acks.saturating_add(1);
                t.syn_ack_last = ts;
                if t.acked_at.0 != 0 && ts.since(t.acked_at) >= AFTER_ACK {
                    t.syn_acks_after_ack = t.syn_acks_after_ack.saturating_add(1);
                    step.notes |= note::SYN_ACK_AFTER_ACK;
                }
            }
        }
        if let Next::Go(s) = next(role, SegClass::SynAck, self.state) {
            if self.state == State::New {
                self.tallies.syn_acks = 1;
                self.tallies.syn_ack_first = ts;
                self.tallies.syn_ack_last = ts;
            }
            self.state = s;
        }
    }

    fn on_rst(&mut self, seg: &Segment, end: Side, ts: Nanos, step: &mut Step) {
        let a = self.attempt;
        if a.pending && a.from == end {
            if seg.seq == a.isn || seg.seq == a.isn.add(1) {
                step.ended = Some(self.end_attempt(Outcome::Aborted, ts));
            } else {
                // It answers a stale ACK; the attempt goes on, and so does an old life here.
                self.attempt.stray_rst = Some(seg.seq);
                return;
            }
        } else if a.pending {
            let acked = seg.ack.distance(a.isn);
            if seg.flags.any(TcpFlags::ACK) && acked >= 1 && acked as u32 <= 1 + a.payload {
                step.ended = Some(self.end_attempt(Outcome::Refused, ts));
            } else if self.state == State::SynSent {
                // Not an answer to this SYN: a SYN_SENT end drops it (RFC 9293 3.10.7.3).
                return;
            }
        }
        let role = self.role(end);
        let before = self.state;
        if let Next::Go(s) = next(role, SegClass::Rst, self.state) {
            self.state = s;
            self.closed_at = ts;
            self.tallies.reset_by = Some(role);
            if before == State::SynRecv && role == Side::Orig && self.tallies.acked_at.0 == 0 {
                step.notes |= note::PROBE;
            }
            self.tallies.reset_ttl = seg.ttl;
            if before.is_open() && step.ended.is_none() && !step.reset_without_flow {
                step.reset = Some(ResetSeen {
                    state: before,
                    idle_ns: ts.since(self.last),
                    in_window: self.in_window(seg, role),
                });
            }
        }
    }

    /// RFC 9293 3.10.7.4: a reset counts if its sequence number lies in the receiver's window, that is from what the
    /// receiver acknowledged last. Packets that were not captured may have moved that on, up to the sender's own.
    fn in_window(&self, seg: &Segment, role: Side) -> Option<bool> {
        let (sender, receiver) = (self.end(role), self.end(role.other()));
        if !receiver.has(seen::ACK) {
            return None;
        }
        let window = (u32::from(receiver.win) << receiver.wscale.min(14)).max(1);
        let from_ack = seg.seq.distance(receiver.ack);
        let fits = from_ack >= 0 && (from_ack as u32) < window;
        let is_next = sender.has(seen::ANY) && seg.seq == sender.next;
        Some(fits || is_next)
    }

    fn on_other(&mut self, seg: &Segment, class: SegClass, end: Side, ts: Nanos, step: &mut Step) {
        let a = &mut self.attempt;
        if a.pending && a.from != end {
            let own = seg.ack == a.isn.add(1);
            if matches!(self.state, State::SynCrossed | State::SynRecv) && a.on_live.is_none() {
                // The SYN of this end came before: it acknowledges the other one, and both are open.
                if own {
                    step.ended = Some(self.end_attempt(Outcome::Accepted, ts));
                    step.notes |= note::SPLIT;
                    self.state = State::SynRecv;
                }
            } else if seg.is_pure_ack() && !own && ts.since(a.last) <= ANSWER_WITHIN {
                a.stale_acks = a.stale_acks.saturating_add(1);
                if a.stale.is_none() {
                    a.stale = Some(StaleAck::of(seg, ts));
                }
            } else if seg.payload > 0 && !own && a.stale_data.is_none() && class == SegClass::Ack {
                a.stale_data = Some(StaleAck::of(seg, ts));
            }
        } else if a.pending && a.on_live.is_some() {
            // The end that sent the SYN goes on with the old life: the SYN was a duplicate, a probe or forged.
            step.ended = Some(self.end_attempt(Outcome::OldLifeWentOn, ts));
        } else if a.pending {
            // It acknowledges a SYN-ACK that was not captured.
            step.ended = Some(self.end_attempt(Outcome::Accepted, ts));
        }
        let role = self.role(end);
        if class == SegClass::Odd {
            step.notes |= note::ODD_FLAGS;
        }
        let t = &mut self.tallies;
        if role == Side::Orig && class != SegClass::Odd && t.syn_acks > 0 && t.acked_at.0 == 0 {
            t.acked_at = ts;
            if t.syn_acks > 1 {
                step.notes |= note::ACKED_LATE;
            }
        }
        if self.state == State::Reset && t.reset_by == Some(role) && class != SegClass::Odd {
            // What was on its way when the reset came is before it in sequence; what follows it is not.
            let beyond = seg.payload > 0 && seg.end().after(self.ends[role as usize].next);
            if beyond {
                t.after_reset = t.after_reset.saturating_add(1);
                step.notes |= note::WENT_ON_AFTER_RESET;
            }
        }
        self.silence_of_the_other(seg, role, ts, step);
        if let Next::Go(s) = next(role, class, self.state) {
            self.state = s;
        }
        if class == SegClass::Fin && !self.end(role).has(seen::FIN) && !self.attempt.pending {
            if self.end(role.other()).has(seen::FIN) {
                self.state = State::LastAck;
                // FINs that crossed: this one does not acknowledge the other.
                if seg.ack.before(self.end(role.other()).fin_end) {
                    self.closed_first = None;
                }
            } else {
                self.closed_first = Some(role);
            }
        }
    }

    /// Counts transmissions of the same bytes with growing gaps, while the other end says nothing at all.
    fn silence_of_the_other(&mut self, seg: &Segment, role: Side, ts: Nanos, step: &mut Step) {
        let (me, peer) = (role as usize, role.other() as usize);
        let t = &mut self.tallies;
        // Whatever an end says breaks the silence the other one speaks into.
        t.unheard[peer] = 0;
        t.unheard_gap[peer] = 0;
        if seg.payload == 0 && !seg.flags.any(TcpFlags::FIN) {
            return;
        }
        let again = self.ends[me].has(seen::ANY) && !seg.end().after(self.ends[me].next);
        if !again || self.ends[peer].last > t.unheard_last[me] {
            t.unheard[me] = 0;
            t.unheard_gap[me] = 0;
        } else {
            let gap = ts.since(t.unheard_last[me]);
            if gap >= TIMEOUT && gap * 2 >= t.unheard_gap[me] * 3 {
                t.unheard[me] = t.unheard[me].saturating_add(1);
                t.unheard_gap[me] = gap;
                step.notes |= note::UNHEARD;
            }
        }
        if seg.flags.any(TcpFlags::FIN) && again && self.ends[me].has(seen::FIN) {
            t.fins_again[me] = t.fins_again[me].saturating_add(1);
        }
        t.unheard_last[me] = ts;
    }

    /// An ICMP error quotes a SYN of this flow, sent by `end`: the attempt is refused on the way.
    pub fn icmp(&mut self, end: Side, seq: Seq, ts: Nanos) -> Option<Ended> {
        let a = &self.attempt;
        let mine = a.pending && a.from == end && a.isn == seq && a.on_live.is_none();
        mine.then(|| self.end_attempt(Outcome::RefusedOnTheWay, ts))
    }

    /// The sender's numbers, the history, and the acknowledgement of FINs.
    fn note(&mut self, seg: &Segment, class: SegClass, role: Side, ts: Nanos) {
        self.last = self.last.max(ts);
        let from_orig = role == Side::Orig;
        if self.attempt.pending && self.attempt.on_live.is_some() {
            // Whose segment this is, the old life's or the new one's, is not known yet.
            return;
        }
        let stale = self.attempt.pending && class == SegClass::Ack && !from_orig;
        let [orig, resp] = &mut self.ends;
        let (me, peer) = if from_orig { (orig, resp) } else { (resp, orig) };
        me.packets = me.packets.saturating_add(1);
        me.last = ts;
        if me.packets == 1 {
            me.ttl = seg.ttl;
        }
        if class == SegClass::Rst {
            me.seen |= seen::RST;
            return;
        }
        me.ttl = seg.ttl;
        if class == SegClass::Odd || stale {
            // A stale ACK has the old life's numbers.
            return;
        }
        note_numbers(me, seg, class);
        if seg.flags.any(TcpFlags::ACK) {
            if !me.has(seen::ACK) || seg.ack.after(me.ack) {
                me.ack = seg.ack;
            }
            me.seen |= seen::ACK;
            if peer.has(seen::FIN) && !seg.ack.before(peer.fin_end) {
                peer.seen |= seen::FIN_ACKED;
            }
            if peer.has(seen::ANY) && seg.ack.after(peer.next) {
                peer.next = seg.ack;
            }
        }
        let [orig, resp] = &self.ends;
        self.state = match self.state {
            State::FinWait if orig.has(seen::FIN_ACKED) || resp.has(seen::FIN_ACKED) => State::HalfClosed,
            State::LastAck if orig.has(seen::FIN_ACKED) && resp.has(seen::FIN_ACKED) => {
                self.closed_at = ts;
                State::TimeWait
            }
            s => s,
        };
    }
}

fn seen_by_zeek(seg: &Segment) -> Seen {
    Seen { flags: seg.flags, seq: seg.seq, ack: seg.ack, len: seg.payload, win: seg.win }
}

/// The SYN of an attempt that became a life of its own.
fn syn_of(a: &Attempt) -> Seen {
    Seen { flags: TcpFlags(TcpFlags::SYN), seq: a.isn, ack: Seq(0), len: a.payload, win: u16::MAX }
}

fn note_numbers(me: &mut End, seg: &Segment, class: SegClass) {
    if matches!(class, SegClass::Syn | SegClass::SynAck) {
        me.isn = seg.seq;
        me.next = seg.end();
        me.seen |= seen::SYN | seen::ANY;
        me.wscale = seg.options.wscale.unwrap_or(0);
    }
    let new = !me.has(seen::ANY) || seg.end().after(me.next);
    if new {
        me.next = seg.end();
        me.seen |= seen::ANY;
    }
    if seg.payload > 0 {
        me.seen |= seen::DATA;
        me.data = me.data.saturating_add(u16::from(new));
    }
    if class == SegClass::Fin {
        me.seen |= seen::FIN;
        me.fin_end = seg.end();
    }
    if let Some((tsval, _)) = seg.options.ts {
        me.tsval = tsval;
        me.seen |= seen::TS;
    }
    me.win = seg.win;
}
