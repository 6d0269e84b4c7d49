//! One segment's step: the flow's numbers and state move on, and what the rules may want to know is noted.

use super::life::{Attempt, End, Flow, Outcome, Past, seen};
use super::state::{SegClass, State, is_odd};
use super::window::{Coverage, catch_up};
use super::zeek::Seen;
use crate::flow::{Side, Tuple};
use crate::wire::{Nanos, Segment, Seq, TcpFlags};

/// The shortest wait before an attempt without answer counts as given up: over the 6 s of the oldest initial timeouts (BSD; 3 s in
/// RFC 1122, 1 s in RFC 6298), so that a retry always comes first.
pub(super) const GIVE_UP_AFTER: u64 = 7 * Nanos::SEC;

/// Idle times after which a flow is forgotten. Half-open: Linux sends its last SYN 63 s after the first and gives up
/// at 127 s (`tcp_syn_retries` 6).
pub(super) const FORGET_OPENING: u64 = 130 * Nanos::SEC;
/// Over: 60 s of TIME_WAIT (`TCP_TIMEWAIT_LEN`), which a SYN refused for its timestamp can start anew once.
pub(super) const FORGET_OVER: u64 = 120 * Nanos::SEC;
/// One direction closed: Linux holds an orphaned FIN_WAIT2 60 s, others for long; conntrack 120 s.
pub(super) const FORGET_CLOSING: u64 = 300 * Nanos::SEC;
/// Established: a NAT must keep an idle mapping 2 h 4 min (RFC 5382 REQ-5), since keep-alives start after 2 h.
pub(super) const FORGET_OPEN: u64 = 7_440 * Nanos::SEC;

/// See [`Flow::lingered`].
const CLOSE_DELAY: u64 = 5 * Nanos::SEC;
pub(super) const ATTEMPT_DELAY: u64 = 5 * Nanos::SEC;

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
    /// The SYN-ACK itself ended it, and not something that shows that there was one.
    pub answer_seen: bool,
}

/// What a reset did to the flow.
#[derive(Clone, Copy, Debug)]
pub struct ResetSeen {
    /// The state before.
    pub state: State,
    /// Silence before it, ns.
    pub idle_ns: u64,
    /// The sequence number lies in the window the other end last offered (false only if it is behind that for
    /// certain); `None` if the packets seen do not tell.
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
    /// The handshake is complete: time from the first SYN-ACK to this, its final ACK, ns.
    pub completed: Option<u64>,
    /// For a SYN-ACK: the sequence number and the acknowledgement of the one before it.
    pub syn_ack_before: (Seq, Seq),
    /// It moves nothing: old, or forged.
    pub(super) old: bool,
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
    /// A SYN-ACK was the first packet of the tuple, and no SYN came behind it.
    pub const SYN_ACK_UNSOLICITED: u32 = 8;
    /// A SYN-ACK differed from the one before in its sequence number, or acknowledges something else.
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
    /// A combination of flags that no TCP sends.
    pub const ODD_FLAGS: u32 = 1024;
    /// The responder acknowledged a crossed SYN with a plain ACK.
    pub const SPLIT: u32 = 2048;
    /// The originator reset its own handshake before it was used.
    pub const PROBE: u32 = 4096;
    /// A reset that the waiting originator does not believe.
    pub const RST_UNBELIEVED: u32 = 8192;
    /// The responder did not take the data of the SYN.
    pub const TFO_REFUSED: u32 = 1 << 14;
    /// The final ACK acknowledged something else than the SYN-ACK, or did not follow the SYN.
    pub const FINAL_ACK_WRONG: u32 = 1 << 15;
    /// A FIN at a place that its receiver has behind it.
    pub const FIN_OUT_OF_WINDOW: u32 = 1 << 16;
    /// The SYN came again after its answer, and before anything acknowledged that.
    pub const SYN_AFTER_SYN_ACK: u32 = 1 << 17;
}

impl Flow {
    /// Moves the flow on by `seg`, sent by `end` of the key at `ts` and seen where there is such `coverage` of it. `over` is called with
    /// the old life before a new one takes its place.
    pub fn step(
        &mut self,
        seg: &Segment,
        end: Side,
        ts: Nanos,
        coverage: Coverage,
        over: impl FnOnce(&Flow),
    ) -> Step {
        let class = SegClass::of(seg.flags);
        let mut step = Step { since_last: ts.since(self.last), ..Step::default() };
        if is_odd(seg.flags) {
            step.notes |= note::ODD_FLAGS;
        }
        let mut over = Some(over);
        if self.state != State::New && class != SegClass::Syn && self.lingered(seg, end, ts) {
            // Long after its end: a stray packet of the past, and no part of that life any more.
            self.begin(end, ts, &mut over, &mut step);
        }
        if self.state == State::New && self.ends.iter().all(|e| e.packets == 0) {
            self.pick_up(seg, class, end, ts);
            step.reset_without_flow = class == SegClass::Rst && !self.past.known;
        }
        if self.tallies.unsolicited && class != SegClass::Syn {
            self.tallies.unsolicited = false;
            step.notes |= note::SYN_ACK_UNSOLICITED;
        }
        if matches!(class, SegClass::Fin | SegClass::Ack) && !self.attempt.pending {
            let [orig, resp] = &mut self.ends;
            let of_orig = end == self.orig;
            let (me, peer) = if of_orig { (orig, resp) } else { (resp, orig) };
            catch_up(coverage, me, peer, seg, ts);
        }
        match class {
            SegClass::Syn => self.on_syn(seg, end, ts, &mut over, &mut step),
            SegClass::SynAck => self.on_syn_ack(seg, end, ts, &mut over, &mut step),
            SegClass::Rst => self.on_rst(seg, end, ts, coverage, &mut step),
            _ => self.on_other(seg, class, end, ts, &mut step),
        }
        if !self.state.is_over() {
            self.over_at = Nanos(0);
        } else if self.over_at.0 == 0 {
            self.over_at = ts;
        }
        let role = self.role(end);
        step.from = role;
        self.count(seg.flags);
        self.zeek.segment(seen_by_zeek(seg), role);
        self.note(seg, class, role, ts, step.old);
        self.deadline = self.next_deadline();
        step
    }

    /// Takes a packet that was seen before: it is counted, and Zeek takes it for a retransmission.
    pub fn again(&mut self, seg: &Segment, end: Side) {
        self.count(seg.flags);
        let role = self.role(end);
        self.zeek.segment(seen_by_zeek(seg), role);
    }

    /// Counts a packet by its flags.
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

    pub(super) fn next_deadline(&self) -> Nanos {
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

    /// True if nothing says which end began it: met in its middle, without a SYN or its answer, on ports that do not tell either.
    pub fn is_guessed(&self, tuple: &Tuple) -> bool {
        let tells = tuple.dst.port < PRIVILEGED && tuple.src.port >= PRIVILEGED;
        self.picked_up && !tells && !self.ends.iter().any(|e| e.has(seen::SYN))
    }

    /// True if this life ended so long ago that a packet that is no SYN is a stray and no part of it any more: as long
    /// as Zeek keeps a connection (`tcp_close_delay` and `tcp_attempt_delay`, 5 s each), so that both count the same ones.
    fn lingered(&self, seg: &Segment, end: Side, ts: Nanos) -> bool {
        match self.state {
            State::LastAck | State::TimeWait | State::Reset => ts.since(self.over_at) > CLOSE_DELAY,
            _ if self.zeek.closed_alone() => ts.since(self.last) > CLOSE_DELAY,
            _ => {
                let given_up = self.zeek.attempted() && ts.since(self.first) > ATTEMPT_DELAY;
                given_up && !self.belongs_to_attempt(seg, end, ts)
            }
        }
    }

    pub(super) fn end_attempt(&mut self, outcome: Outcome, at: Nanos) -> Ended {
        let ended = Ended { attempt: self.attempt, outcome, at, past: self.past, answer_seen: false };
        self.attempt.pending = false;
        self.attempt.told = true;
        ended
    }

    /// The sender's numbers, the history, and the acknowledgement of FINs.
    fn note(&mut self, seg: &Segment, class: SegClass, role: Side, ts: Nanos, old: bool) {
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
            (me.ttl, me.ttl_first) = (seg.ttl, seg.ttl);
        }
        if class == SegClass::Rst {
            me.seen |= seen::RST;
            return;
        }
        me.ttl = seg.ttl;
        if seg.options.fast_close {
            self.tallies.fast_close = Some(role);
        }
        if class == SegClass::Odd || stale || old {
            // A stale ACK has the old life's numbers.
            return;
        }
        me.stamp(peer, seg);
        note_numbers(me, seg, class);
        me.offer(peer, seg);
        if class == SegClass::Fin && peer.has(seen::ACK) && !peer.ack.before(me.fin_end) {
            // It was captured behind its acknowledgement.
            me.seen |= seen::FIN_ACKED;
        }
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
pub(super) fn syn_of(a: &Attempt) -> Seen {
    Seen { flags: TcpFlags(TcpFlags::SYN), seq: a.isn, ack: Seq(0), len: a.payload, win: u16::MAX }
}

fn note_numbers(me: &mut End, seg: &Segment, class: SegClass) {
    if matches!(class, SegClass::Syn | SegClass::SynAck) {
        me.isn = seg.seq;
        me.next = seg.end();
        me.seen |= seen::SYN | seen::ANY;
        me.wscale = seg.options.wscale.unwrap_or(0);
        if seg.options.wscale.is_some() {
            me.seen |= seen::WSCALE;
        }
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
    me.win = seg.win;
}
