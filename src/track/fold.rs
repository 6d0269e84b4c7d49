//! The connection that does what connections do, in one cache line.
//!
//! [`begin`] and [`step`] move a [`Line`] on by the packets that a faultless connection has: SYN, SYN-ACK, ACK, data and
//! acknowledgements in order, FINs and their acknowledgements. They answer only for those, and change nothing otherwise; then the
//! flow is made whole by [`unfold`], from the recorder's packets where they are all there, and [`Flow::step`] goes on. So the long way
//! says what is right and this one only how fast: a test holds one against the other over captures and random conversations.

use super::life::{Attempt, End, Flow, seen};
use super::state::State;
use super::step::{FORGET_CLOSING, FORGET_OPEN, FORGET_OPENING, FORGET_OVER, GIVE_UP_AFTER};
use super::zeek::Seen;
use crate::flow::{Class, Digest, Line, Phase, Side, bit};
use crate::wire::{Brief, Nanos, Segment, Seq, TcpFlags, TcpOptions};

/// Answers and last ACKs that take longer go the long way: from there on, what counts as one connection is Zeek's question.
const PROMPT: u64 = 5 * Nanos::SEC;

/// A jump in sequence space that is taken for packets that were not captured.
const FAR: i32 = 1 << 30;

const SYN: u16 = TcpFlags::SYN;
const ACK: u16 = TcpFlags::ACK;
const FIN: u16 = TcpFlags::FIN;

/// What a step on a line did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    /// Numbers moved on, or the state did, and nobody needs to know.
    Quiet,
    /// The SYN-ACK came, this long after the SYN, ns.
    Answered(u64),
    /// The handshake is complete, this long after the SYN-ACK, ns.
    Completed(u64),
}

/// The timestamp bit of a role.
const fn ts_bit(role: Side) -> u8 {
    match role {
        Side::Orig => bit::ORIG_TS,
        Side::Resp => bit::RESP_TS,
    }
}

/// The role of an end of the key.
#[inline]
pub fn role(line: &Line, end: Side) -> Side {
    if end == line.orig() { Side::Orig } else { Side::Resp }
}

/// The flags that decide; PSH and the ECN bits do not.
#[inline]
fn control(b: &Brief) -> u16 {
    b.flags.0 & (SYN | ACK | FIN)
}

/// True if a flow may begin with this packet in its line alone: a SYN that says nothing else.
#[inline]
pub fn begins(b: &Brief) -> bool {
    control(b) == SYN && b.payload == 0 && b.ack.0 == 0
}

/// A new line's first packet, for which [`begins`] is true. `end` of the key sent it; the caller notes its mark.
#[inline]
pub fn begin(line: &mut Line, b: &Brief, end: Side, ts: Nanos) {
    line.phase = Phase::SynSent;
    if end == Side::Resp {
        line.bits |= bit::TURNED;
    }
    line.set_times(ts, ts);
    line.same_mac(Side::Orig, b.src_mac);
    numbers(line, b, Side::Orig);
}

/// Moves a line on by a packet that `end` sent at `ts`, if it is one of those that the module names; `now` is the newest packet time.
/// `None` changes nothing.
#[inline]
pub fn step(line: &mut Line, b: &Brief, end: Side, ts: Nanos, now: Nanos) -> Option<Folded> {
    let role = role(line, end);
    let last = line.last(now);
    if ts < last || deadline(line, now) <= now {
        return None;
    }
    let done = match (line.phase, control(b)) {
        (Phase::SynSent, flags) if flags == SYN | ACK => answer(line, b, role, ts.since(last)),
        (Phase::SynRecv, ACK) => complete(line, b, role, ts.since(last)),
        (Phase::Established | Phase::FinWait | Phase::HalfClosed, ACK) => on_ack(line, b, role),
        (Phase::Established | Phase::FinWait | Phase::HalfClosed, f) if f == FIN | ACK => {
            on_fin(line, b, role)
        }
        (Phase::LastAck, ACK) if ts.since(last) <= PROMPT => last_ack(line, b, role),
        _ => None,
    };
    let (phase, folded) = done?;
    if !line.same_mac(role, b.src_mac) {
        return None;
    }
    if role == Side::Resp && (line.phase, phase) == (Phase::Established, Phase::FinWait) {
        line.bits |= bit::RESP_CLOSED;
    }
    line.phase = phase;
    numbers(line, b, role);
    Some(folded)
}

fn numbers(line: &mut Line, b: &Brief, role: Side) {
    let (me, peer) = (role as usize, role.other() as usize);
    line.ttl[me] = b.ttl;
    line.ends[me].next = b.end();
    if b.has_ts {
        line.ends[me].tsval = b.tsval;
        line.bits |= ts_bit(role);
    }
    if b.flags.any(ACK) {
        line.ends[me].ack = b.ack;
        if b.ack.after(line.ends[peer].next) {
            line.ends[peer].next = b.ack;
        }
    }
}

fn answer(line: &Line, b: &Brief, role: Side, waited: u64) -> Option<(Phase, Folded)> {
    let right = role == Side::Resp && b.payload == 0 && b.ack == line.ends[0].next && waited <= PROMPT;
    right.then_some((Phase::SynRecv, Folded::Answered(waited)))
}

fn complete(line: &Line, b: &Brief, role: Side, waited: u64) -> Option<(Phase, Folded)> {
    let [orig, resp] = &line.ends;
    let right = b.payload == 0 && b.seq == orig.next && b.ack == resp.next && newer(line, b, role);
    (role == Side::Orig && right).then_some((Phase::Established, Folded::Completed(waited)))
}

/// The timestamp is no older than the one before (RFC 7323 section 5).
fn newer(line: &Line, b: &Brief, role: Side) -> bool {
    let had = line.has(ts_bit(role));
    had == b.has_ts && (!had || (b.tsval.wrapping_sub(line.ends[role as usize].tsval) as i32) >= 0)
}

/// Follows on what its sender sent last, or on packets of it that were not captured, and acknowledges no less than before.
fn follows(line: &Line, b: &Brief, role: Side) -> bool {
    let me = &line.ends[role as usize];
    let (seq, ack) = (b.seq.distance(me.next), b.ack.distance(me.ack));
    (0..FAR).contains(&seq) && (0..FAR).contains(&ack) && newer(line, b, role)
}

/// Which role's FIN came first.
fn closer(line: &Line) -> Side {
    if line.has(bit::RESP_CLOSED) { Side::Resp } else { Side::Orig }
}

/// Data or an acknowledgement on a flow that is not closed by both.
fn on_ack(line: &Line, b: &Brief, role: Side) -> Option<(Phase, Folded)> {
    let me = &line.ends[role as usize];
    // Without data it must acknowledge more than before, or it may be the same packet once more.
    if !follows(line, b, role) || b.payload == 0 && b.ack == me.ack {
        return None;
    }
    if line.phase == Phase::Established {
        return Some((Phase::Established, Folded::Quiet));
    }
    let closed = &line.ends[closer(line) as usize];
    if role == closer(line) {
        // Nothing follows a FIN.
        return (b.payload == 0 && b.seq == me.next).then_some((line.phase, Folded::Quiet));
    }
    match b.ack.distance(closed.next) {
        0 => Some((Phase::HalfClosed, Folded::Quiet)),
        d if d < 0 => Some((line.phase, Folded::Quiet)),
        _ => None,
    }
}

fn on_fin(line: &Line, b: &Brief, role: Side) -> Option<(Phase, Folded)> {
    if !follows(line, b, role) {
        return None;
    }
    if line.phase == Phase::Established {
        return Some((Phase::FinWait, Folded::Quiet));
    }
    // The other end's. One that does not acknowledge the first FIN crossed it.
    let right = role != closer(line) && b.ack == line.ends[closer(line) as usize].next;
    right.then_some((Phase::LastAck, Folded::Quiet))
}

fn last_ack(line: &Line, b: &Brief, role: Side) -> Option<(Phase, Folded)> {
    let (me, peer) = (&line.ends[role as usize], &line.ends[role.other() as usize]);
    let right = role == closer(line) && b.payload == 0 && b.seq == me.next && b.ack == peer.next;
    (right && newer(line, b, role)).then_some((Phase::TimeWait, Folded::Quiet))
}

/// When something is to be done about a line although no packet of it comes: for a lone SYN to be given up, else to be forgotten.
#[inline]
pub fn deadline(line: &Line, now: Nanos) -> Nanos {
    line.last(now).add(match line.phase {
        Phase::SynSent => GIVE_UP_AFTER,
        Phase::SynRecv | Phase::Free | Phase::Whole => FORGET_OPENING,
        Phase::Established => FORGET_OPEN,
        Phase::FinWait | Phase::HalfClosed | Phase::LastAck => FORGET_CLOSING,
        Phase::TimeWait => FORGET_OVER,
    })
}

/// What a line is worth.
#[inline]
pub fn class(phase: Phase) -> Class {
    match phase {
        Phase::Free | Phase::Whole | Phase::SynSent | Phase::SynRecv => Class::HalfOpen,
        Phase::Established | Phase::FinWait | Phase::HalfClosed | Phase::LastAck => Class::Open,
        Phase::TimeWait => Class::Closed,
    }
}

/// A segment as the recorder kept it.
fn segment(d: &Digest) -> Segment {
    Segment {
        seq: d.seq,
        ack: d.ack,
        flags: d.flags,
        win: d.win,
        payload: d.len,
        ttl: d.ttl,
        ip_id: d.ip_id,
        options: TcpOptions {
            mss: (d.mss != 0).then_some(d.mss),
            wscale: d.wscale.checked_sub(1),
            ts: d.has_ts.then_some((d.tsval, d.tsecr)),
            ..TcpOptions::default()
        },
        ..Segment::default()
    }
}

/// The whole flow of a line whose packets are all in the recorder: `packets`, oldest first.
pub fn unfold(packets: &[Digest]) -> Flow {
    let mut flow = Flow::default();
    for d in packets {
        flow.step(&segment(d), d.from, d.ts, |_| ());
    }
    flow
}

/// The whole flow of a line whose first packets are overwritten: what the line knows, and nothing that it does not. Windows, the
/// first numbers and the order of letters are not known any more.
pub fn unfold_line(line: &Line, now: Nanos) -> Flow {
    let (first, last) = (line.first(now), line.last(now));
    let opened = line.phase > Phase::SynRecv;
    let fin = |role| line.phase >= Phase::FinWait && (role == closer(line) || line.phase >= Phase::LastAck);
    let fin_acked = |role| match line.phase {
        Phase::HalfClosed | Phase::LastAck => role == closer(line),
        phase => phase == Phase::TimeWait,
    };
    let end = |role: Side| {
        let e = &line.ends[role as usize];
        let mut bits = seen::ANY;
        let mut set = |yes: bool, bit: u16| bits |= if yes { bit } else { 0 };
        set(opened || role == Side::Resp && line.phase == Phase::SynRecv, seen::ACK);
        set(line.has(ts_bit(role)), seen::TS);
        set(fin(role), seen::FIN);
        set(fin_acked(role), seen::FIN_ACKED);
        set(if role == Side::Orig { line.requests() > 0 } else { opened }, seen::DATA);
        let data = if role == Side::Orig { line.requests().into() } else { 0 };
        End {
            next: e.next,
            ack: e.ack,
            fin_end: e.next,
            tsval: e.tsval,
            seen: bits,
            ttl: line.ttl[role as usize],
            ttl_first: line.ttl[role as usize],
            packets: line.packets(role).into(),
            data,
            last,
            ..End::default()
        }
    };
    let mut flow = Flow {
        state: state(line.phase),
        orig: line.orig(),
        ends: [end(Side::Orig), end(Side::Resp)],
        first,
        last,
        closed_first: (line.phase >= Phase::FinWait).then_some(closer(line)),
        closed_at: if line.phase == Phase::TimeWait { last } else { Nanos(0) },
        over_at: if line.phase >= Phase::LastAck { last } else { Nanos(0) },
        picked_up: line.has(bit::MET),
        attempt: Attempt { told: true, from: line.orig(), ..Attempt::default() },
        ..Flow::default()
    };
    if line.phase <= Phase::SynRecv {
        opening(&mut flow, line);
    }
    if line.phase >= Phase::SynRecv && !line.has(bit::MET) {
        flow.tallies.syn_acks = 1;
        (flow.tallies.syn_ack_first, flow.tallies.syn_ack_last) = (first, first);
        flow.tallies.acked_at = if opened { first } else { Nanos(0) };
    }
    letters(&mut flow, line);
    flow.deadline = flow.next_deadline();
    flow
}

/// While nothing but SYNs were sent their numbers are still known.
fn opening(flow: &mut Flow, line: &Line) {
    let waits = line.phase == Phase::SynSent;
    for role in if waits { &[Side::Orig][..] } else { &[Side::Orig, Side::Resp] } {
        let end = &mut flow.ends[*role as usize];
        end.isn = Seq(end.next.0.wrapping_sub(1));
        end.seen |= seen::SYN;
    }
    flow.attempt = Attempt {
        pending: waits,
        told: !waits,
        from: line.orig(),
        isn: flow.ends[0].isn,
        tsval: line.has(bit::ORIG_TS).then_some(line.ends[0].tsval),
        first: if waits { flow.last } else { flow.first },
        last: if waits { flow.last } else { flow.first },
        syns: 1,
        ..Attempt::default()
    };
    flow.tallies.isns = 1;
}

const fn state(phase: Phase) -> State {
    match phase {
        Phase::Free | Phase::Whole => State::New,
        Phase::SynSent => State::SynSent,
        Phase::SynRecv => State::SynRecv,
        Phase::Established => State::Established,
        Phase::FinWait => State::FinWait,
        Phase::HalfClosed => State::HalfClosed,
        Phase::LastAck => State::LastAck,
        Phase::TimeWait => State::TimeWait,
    }
}

/// Zeek's letters for what is known, in the order in which they come as a rule.
fn letters(flow: &mut Flow, line: &Line) {
    let numbers = |role: Side| (line.ends[role as usize].next.0, line.ends[role.other() as usize].next.0);
    let mut say = |role: Side, flags: u16, back: u32, len: u32| {
        let (next, ack) = numbers(role);
        let seq = Seq(next.wrapping_sub(back));
        let ack = if flags & ACK != 0 { Seq(ack) } else { Seq(0) };
        flow.zeek.segment(Seen { flags: TcpFlags(flags), seq, ack, len, win: 1 }, role);
    };
    let (orig, resp) = (Side::Orig, Side::Resp);
    if !line.has(bit::MET) {
        say(orig, SYN, 3, 0);
        if line.phase >= Phase::SynRecv {
            say(resp, SYN | ACK, 3, 0);
        }
    }
    if line.phase >= Phase::Established {
        say(orig, ACK, 2, 0);
        if line.requests() > 0 {
            say(orig, ACK, 2, 1);
            say(resp, ACK, 2, 0);
        }
    }
    if line.phase >= Phase::FinWait {
        say(closer(line), FIN | ACK, 1, 0);
    }
    if line.phase >= Phase::LastAck {
        say(closer(line).other(), FIN | ACK, 1, 0);
    }
}

/// True for a flow that has just opened by a SYN, a SYN-ACK and an ACK, each of them once, and by nothing else.
pub fn opened_well(flow: &Flow) -> bool {
    let (a, t) = (&flow.attempt, &flow.tallies);
    let attempt =
        !a.pending && a.syns == 1 && a.stale_acks == 0 && a.stray_rst.is_none() && a.on_live.is_none();
    let tallies = t.syn_acks == 1 && t.isns <= 1 && t.twice == 0 && !t.unbelieved && t.icmp_errors == 0;
    let packets = flow.ends.each_ref().map(|e| e.packets) == [2, 1] && flow.counts == [1, 1, 0, 0];
    flow.state == State::Established && !flow.picked_up && attempt && tallies && packets
}

/// Keeps of a whole flow what fits a line, where that is enough to go on: false if not. For when there is no room for more whole ones.
pub fn fold(flow: &Flow, line: &mut Line) -> bool {
    let phase = match flow.state {
        _ if flow.attempt.pending => return false,
        State::Established => Phase::Established,
        State::FinWait => Phase::FinWait,
        State::HalfClosed => Phase::HalfClosed,
        State::LastAck => Phase::LastAck,
        State::TimeWait => Phase::TimeWait,
        State::New | State::SynSent | State::SynCrossed | State::SynRecv | State::Reset => return false,
    };
    let mut bits = line.bits & bit::WIDE | bit::FOLDED;
    let mut set = |yes: bool, bit: u8| bits |= if yes { bit } else { 0 };
    set(flow.orig == Side::Resp, bit::TURNED);
    set(flow.closed_first == Some(Side::Resp), bit::RESP_CLOSED);
    set(flow.picked_up, bit::MET);
    for role in [Side::Orig, Side::Resp] {
        let e = flow.end(role);
        set(e.has(seen::TS), ts_bit(role));
        let kept = &mut line.ends[role as usize];
        (kept.next, kept.ack, kept.tsval) = (e.next, e.ack, e.tsval);
        line.ttl[role as usize] = e.ttl;
    }
    line.set_counts(flow.ends.map(|e| e.packets), flow.ends[0].data.into());
    line.set_times(flow.first, flow.last);
    line.set_mark(flow.newest);
    line.clear_macs();
    (line.phase, line.bits) = (phase, bits);
    true
}
