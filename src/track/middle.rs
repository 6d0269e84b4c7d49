//! What follows the opening: resets, data, FINs, silence.

use super::life::{Flow, Outcome, seen};
use super::state::{Next, SegClass, State, next};
use super::step::{ResetSeen, Step, note};
use super::window::{Coverage, Fit, fit, is_probe};
use crate::flow::Side;
use crate::wire::{Nanos, Segment, TcpFlags};

/// Retransmission gaps below this are fast retransmissions or duplicates, not timeouts (Linux `TCP_RTO_MIN` 200 ms).
pub(super) const TIMEOUT: u64 = 150 * Nanos::MS;

/// A final ACK that lies further than this from what the handshake said acknowledges something else; nearer it may follow data
/// that was not captured: all that fits the windows of SYN and SYN-ACK, which are never scaled.
pub(super) const FINAL_ACK_NEAR: i32 = 65_535;

/// Where a reset lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the window that its receiver offered.
    Inside,
    /// The packets seen do not tell.
    Unknown,
    /// It looks behind, and there was time for all the data that makes it lie ahead.
    BeyondUnseen,
    /// Its receiver has that already.
    Behind,
}

impl Place {
    fn in_window(self) -> Option<bool> {
        match self {
            Place::Inside => Some(true),
            Place::Unknown | Place::BeyondUnseen => None,
            Place::Behind => Some(false),
        }
    }
}

impl Flow {
    pub(super) fn on_rst(
        &mut self,
        seg: &Segment,
        end: Side,
        ts: Nanos,
        coverage: Coverage,
        step: &mut Step,
    ) {
        let a = self.attempt;
        if a.pending && a.from == end {
            if a.is_its_own(seg.seq) {
                step.ended = Some(self.end_attempt(Outcome::Aborted, ts));
            } else {
                // It answers a stale ACK; the attempt goes on, and so does an old life here.
                self.attempt.stray_rst = Some(seg.seq);
                return;
            }
        } else if a.pending {
            // Linux drops a reset whose echoed timestamp is none of its own before it looks further (PAWSActiveRejected,
            // tcp_rcv_synsent_state_process()).
            let foreign_echo = match (seg.options.ts, a.tsval) {
                (Some((_, echo)), Some(tsval)) => echo != 0 && (echo.wrapping_sub(tsval) as i32) < 0,
                _ => false,
            };
            if seg.flags.any(TcpFlags::ACK) && a.accepts(seg.ack) && !foreign_echo {
                step.ended = Some(self.end_attempt(Outcome::Refused, ts));
            } else if self.state == State::SynSent {
                // Not an answer to this SYN: a SYN_SENT end drops it (RFC 9293 3.10.7.3). Without an acknowledgement it answers a segment
                // of the tuple's life before, and whoever accepts the SYN may well have sent it.
                self.tallies.unbelieved |= seg.flags.any(TcpFlags::ACK);
                self.note_ttl(seg, self.role(end));
                step.notes |= note::RST_UNBELIEVED;
                return;
            }
        }
        let role = self.role(end);
        let before = self.state;
        let Next::Go(to) = next(role, SegClass::Rst, self.state) else { return };
        let place = self.place(seg, role, ts, coverage);
        let in_window = place.in_window();
        if before.is_open() && step.ended.is_none() && !step.reset_without_flow {
            step.reset = Some(ResetSeen { state: before, idle_ns: ts.since(self.last), in_window });
            if in_window == Some(false) {
                // Behind what its receiver has: that drops it (RFC 9293 3.10.7.4), and the flow goes on.
                return;
            }
        }
        if before == State::SynRecv && role == Side::Orig && self.tallies.acked_at.0 == 0 {
            step.notes |= note::PROBE;
        }
        if place == Place::BeyondUnseen {
            // What its sender had sent until then.
            self.ends[role as usize].next = seg.seq;
        }
        self.state = to;
        self.closed_at = ts;
        self.tallies.reset_by = Some(role);
        self.tallies.reset_seq = seg.seq;
        self.note_ttl(seg, role);
    }

    /// Keeps the TTL of a reset, and those of its sender's packets before it.
    fn note_ttl(&mut self, seg: &Segment, role: Side) {
        let sender = self.end(role);
        self.tallies.reset_usual = [sender.ttl, sender.ttl_first];
        self.tallies.reset_ttl = seg.ttl;
    }

    /// RFC 9293 3.10.7.4: a reset counts if its sequence number lies in the receiver's window, from what the receiver
    /// acknowledged up to what it offered. Packets that were not captured can have moved both on and never back: what lies
    /// behind is outside for certain, but where more than half the sequence space may have passed unseen, and of what lies beyond
    /// nothing is known but the sender's own next number.
    fn place(&self, seg: &Segment, role: Side, ts: Nanos, coverage: Coverage) -> Place {
        let (sender, receiver) = (self.end(role), self.end(role.other()));
        if !receiver.has(seen::ACK) {
            return Place::Unknown;
        }
        if seg.seq.before(receiver.ack) {
            let unseen = coverage.hides_between(sender, receiver, seg.seq, ts);
            return if unseen { Place::BeyondUnseen } else { Place::Behind };
        }
        let offered = sender.has(seen::LIMIT) && !seg.seq.after(sender.limit);
        let next = sender.has(seen::ANY) && seg.seq == sender.next;
        if offered || next { Place::Inside } else { Place::Unknown }
    }

    pub(super) fn on_other(&mut self, seg: &Segment, class: SegClass, end: Side, ts: Nanos, step: &mut Step) {
        if self.attempt.pending {
            self.on_waiting(seg, class, end, ts, step);
        }
        let role = self.role(end);
        step.old = fit(self.end(role), self.end(role.other()), seg) == Fit::Old;
        if role == Side::Orig && self.state == State::SynRecv && self.final_ack_is_wrong(seg, class, step) {
            step.old = true;
            return;
        }
        let t = &mut self.tallies;
        if role == Side::Orig && class != SegClass::Odd && t.syn_acks > 0 && t.acked_at.0 == 0 {
            t.acked_at = ts;
            step.completed = Some(ts.since(t.syn_ack_first));
            if t.syn_ack_late() {
                step.notes |= note::ACKED_LATE;
            }
        }
        if self.state == State::Reset && t.reset_by == Some(role) && class != SegClass::Odd {
            // What was on its way when the reset came is before it in sequence; what follows it is not.
            let new = seg.end().after(self.ends[role as usize].next) && seg.end().after(t.reset_seq);
            let beyond = seg.payload > 0 && new;
            if beyond {
                t.after_reset = t.after_reset.saturating_add(1);
                step.notes |= note::WENT_ON_AFTER_RESET;
            }
        }
        if class == SegClass::Fin && self.fin_is_old(seg, role) {
            step.old = true;
            step.notes |= note::FIN_OUT_OF_WINDOW;
            return;
        }
        self.silence_of_the_other(seg, role, ts, step);
        if class == SegClass::Fin && step.old {
            // Its receiver drops it.
            return;
        }
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

    /// The third packet acknowledges something else than the SYN-ACK, or does not follow the SYN: told once, and it moves
    /// nothing. With two different SYN-ACKs before it, nobody knows what fits.
    fn final_ack_is_wrong(&mut self, seg: &Segment, class: SegClass, step: &mut Step) -> bool {
        let [orig, resp] = &self.ends;
        let known = orig.has(seen::SYN) && resp.has(seen::SYN) && self.tallies.syn_acks > 0;
        if class != SegClass::Ack || !known || self.tallies.final_ack_wrong || self.tallies.differed {
            return false;
        }
        let near = |n: i32| (0..=FINAL_ACK_NEAR).contains(&n);
        let right = near(seg.ack.distance(resp.isn.add(1))) && near(seg.seq.distance(orig.isn.add(1)));
        if !right {
            self.tallies.final_ack_wrong = true;
            step.notes |= note::FINAL_ACK_WRONG;
        }
        !right
    }

    /// A FIN at a place that its receiver has behind it, and that is not the end's FIN once more: a stray of another life, or
    /// forged. The receiver drops it (RFC 9293 3.10.7.4). A FIN that was not captured may be sent again at the very end.
    fn fin_is_old(&self, seg: &Segment, role: Side) -> bool {
        let (me, peer) = (self.end(role), self.end(role.other()));
        let again = me.has(seen::FIN) && seg.end() == me.fin_end;
        let behind = peer.has(seen::ACK) && seg.end().before(peer.ack);
        let on_the_syn = me.has(seen::SYN) && seg.seq == me.isn && seg.payload == 0;
        !self.picked_up && (on_the_syn || behind && !again)
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
        if seg.flags.any(TcpFlags::FIN) {
            // A FIN into silence is a peer that is gone; `fins_again` counts it.
            if again && self.ends[me].has(seen::FIN) {
                t.fins_again[me] = t.fins_again[me].saturating_add(1);
            }
            return;
        }
        if is_probe(&self.ends[me], seg) {
            return;
        }
        if !again || self.ends[peer].last > t.unheard_last[me] {
            t.unheard[me] = 0;
            t.unheard_gap[me] = 0;
            t.unheard_first[me] = ts;
        } else {
            let gap = ts.since(t.unheard_last[me]);
            if gap >= TIMEOUT && gap * 2 >= t.unheard_gap[me] * 3 {
                t.unheard[me] = t.unheard[me].saturating_add(1);
                t.unheard_gap[me] = gap;
                step.notes |= note::UNHEARD;
            }
        }
        t.unheard_last[me] = ts;
    }
}
