//! The connection that does what connections do, in one cache line.
//!
//! [`begin`] and [`step`] move a [`Line`] on by the packets that a faultless connection has: SYN, SYN-ACK, ACK, data and
//! acknowledgements in order, FINs and their acknowledgements. They answer only for those, and change nothing otherwise; then the
//! flow is made whole by [`unfold`], from the recorder's packets where they are all there, and [`Flow::step`] goes on. So the long way
//! says what is right and this one only how fast: a test holds one against the other over captures and random conversations.

use super::life::{Attempt, End, Flow, seen};
use super::state::State;
use super::step::{FORGET_CLOSING, FORGET_OPEN, FORGET_OPENING, FORGET_OVER, GIVE_UP_AFTER};
use super::window::Coverage;
use super::zeek::Seen;
use crate::flow::{Class, Digest, Line, Phase, Side, bit};
use crate::wire::{Nanos, Seq, TcpFlags};

/// Answers and last ACKs that take longer go the long way: from 5 s on, what counts as one connection is Zeek's question. An answer's
/// time has 32 bits in a line.
const PROMPT: u64 = 4 * Nanos::SEC;

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
    /// The handshake is complete.
    Completed {
        /// How long after the SYN-ACK, ns.
        after: u64,
        /// How long after the SYN, ns.
        all: u64,
    },
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
fn control(d: &Digest) -> u16 {
    d.flags.0 & (SYN | ACK | FIN)
}

/// True if a flow may begin with this packet in its line alone: a SYN that says nothing else.
#[inline]
pub fn begins(d: &Digest) -> bool {
    control(d) == SYN && d.len == 0 && d.ack.0 == 0
}

/// A new line's first packet, for which [`begins`] is true, from an end of the key; the caller notes its mark.
#[inline]
pub fn begin(line: &mut Line, d: &Digest) {
    line.phase = Phase::SynSent;
    if d.from == Side::Resp {
        line.bits |= bit::TURNED;
    }
    line.set_times(d.ts, d.ts);
    line.same_mac(Side::Orig, d.src_mac);
    numbers(line, d, Side::Orig);
}

/// What a packet is asked for, a bit each.
mod is {
    /// No payload.
    pub const EMPTY: u8 = 1;
    /// It follows on what its sender sent last, without a gap.
    pub const NEXT: u8 = 2;
    /// It acknowledges all that the other end sent.
    pub const ALL_ACKED: u8 = 4;
    /// It acknowledges nothing that the other end did not send.
    pub const ACKED: u8 = 8;
    /// Its timestamp is no older than the one before (RFC 7323 section 5), or there are none.
    pub const NEWER: u8 = 16;
    /// It follows on what its sender sent last, or on packets that were not captured, and acknowledges no less than before.
    pub const ONWARD: u8 = 32;
    /// It has data or acknowledges more than before: else it may be the same packet once more.
    pub const FRESH: u8 = 64;
    /// It comes soon after the last one.
    pub const PROMPT: u8 = 128;
}

/// A way from one phase to another.
#[derive(Clone, Copy)]
struct Move {
    /// All of [`is`] that the packet must be.
    must: u8,
    /// Where the line stands then.
    to: Phase,
    /// Where it stands if the packet is [`is::ALL_ACKED`] as well.
    acked: Phase,
}

/// Flags that decide, as a number: FIN and SYN as they stand in the header, or [`NO_ACK`].
const ACK_ALONE: usize = 0;
const FIN_ACK: usize = 1;
const SYN_ACK: usize = 2;
const NO_ACK: usize = 3;
const FLAGS: usize = 4;
const PHASES: usize = Phase::TimeWait as usize + 1;

/// Who sends: the responder 1, the end whose FIN came first 2.
const SENDERS: usize = 4;

/// The moves by phase, flags and sender. What is not here is not faultless, or not common.
const MOVES: [Option<Move>; PHASES * FLAGS * SENDERS] = {
    let mut all = [None; PHASES * FLAGS * SENDERS];
    let mut sender = 0;
    while sender < SENDERS {
        let (responder, closer) = (sender & 1 != 0, sender & 2 != 0);
        // The handshake. Its last packet has no payload: one that has goes the long way.
        if responder {
            all[at(Phase::SynSent, SYN_ACK, sender)] =
                to(is::EMPTY | is::ALL_ACKED | is::PROMPT, Phase::SynRecv);
        } else {
            let must = is::EMPTY | is::NEXT | is::ALL_ACKED | is::NEWER;
            all[at(Phase::SynRecv, ACK_ALONE, sender)] = to(must, Phase::Established);
        }
        all[at(Phase::Established, ACK_ALONE, sender)] = to(is::ONWARD | is::FRESH, Phase::Established);
        all[at(Phase::Established, FIN_ACK, sender)] = to(is::ONWARD, Phase::FinWait);
        let mut phases = [Phase::FinWait, Phase::HalfClosed].as_slice();
        while let [phase, rest @ ..] = phases {
            let (ack, fin) = (at(*phase, ACK_ALONE, sender), at(*phase, FIN_ACK, sender));
            if closer {
                // Nothing follows a FIN.
                all[ack] = to(is::ONWARD | is::FRESH | is::EMPTY | is::NEXT, *phase);
            } else {
                let must = is::ONWARD | is::FRESH | is::ACKED;
                all[ack] = Some(Move { must, to: *phase, acked: Phase::HalfClosed });
                // One that does not acknowledge the first FIN crossed it.
                all[fin] = to(is::ONWARD | is::ALL_ACKED, Phase::LastAck);
            }
            phases = rest;
        }
        if closer {
            let must = is::EMPTY | is::NEXT | is::ALL_ACKED | is::NEWER | is::PROMPT;
            all[at(Phase::LastAck, ACK_ALONE, sender)] = to(must, Phase::TimeWait);
        }
        sender += 1;
    }
    all
};

const fn at(phase: Phase, flags: usize, sender: usize) -> usize {
    (phase as usize * FLAGS + flags) * SENDERS + sender
}

const fn to(must: u8, phase: Phase) -> Option<Move> {
    Some(Move { must, to: phase, acked: phase })
}

/// Moves a line on by a packet from an end of the key, if it is one of those that the module names; `now` is the newest packet time.
/// `None` changes nothing.
#[inline]
pub fn step(line: &mut Line, d: &Digest, now: Nanos) -> Option<Folded> {
    let role = role(line, d.from);
    let last = line.last(now);
    if d.ts < last || deadline(line, now) <= now {
        return None;
    }
    let flags = usize::from(d.flags.0 & (SYN | FIN)) | if d.flags.any(ACK) { 0 } else { NO_ACK };
    let closer = line.phase >= Phase::FinWait && role == closer(line);
    let sender = role as usize | usize::from(closer) << 1;
    let way = MOVES[at(line.phase, flags, sender)]?;
    let waited = d.ts.since(last);
    let what = what(line, d, role, waited);
    if what & way.must != way.must || !line.same_mac(role, d.src_mac) {
        return None;
    }
    let before = line.phase;
    line.phase = if what & is::ALL_ACKED != 0 { way.acked } else { way.to };
    if before >= Phase::Established {
        let closes = (before == Phase::Established) & (line.phase == Phase::FinWait);
        line.bits |= if closes & (role == Side::Resp) { bit::RESP_CLOSED } else { 0 };
        numbers(line, d, role);
        return Some(Folded::Quiet);
    }
    // While it opens, the originator's end keeps how long the answer took: nobody has acknowledged anything to the responder yet.
    let answer = u64::from(line.ends[0].ack.0);
    numbers(line, d, role);
    if before == Phase::SynSent {
        line.ends[0].ack = Seq(waited as u32);
        return Some(Folded::Answered(waited));
    }
    Some(Folded::Completed { after: waited, all: waited + answer })
}

/// All of [`is`] that a packet is.
#[inline]
fn what(line: &Line, d: &Digest, role: Side, waited: u64) -> u8 {
    let (me, peer) = (&line.ends[role as usize], &line.ends[role.other() as usize]);
    let (seq, ack, acked) = (d.seq.distance(me.next), d.ack.distance(me.ack), d.ack.distance(peer.next));
    let had = line.has(ts_bit(role));
    let newer = had == d.has_ts && (!had || (d.tsval.wrapping_sub(me.tsval) as i32) >= 0);
    let onward = (0..FAR).contains(&seq) && (0..FAR).contains(&ack) && newer;
    let bit = |yes: bool, bit: u8| if yes { bit } else { 0 };
    bit(d.len == 0, is::EMPTY)
        | bit(seq == 0, is::NEXT)
        | bit(acked == 0, is::ALL_ACKED)
        | bit(acked <= 0, is::ACKED)
        | bit(newer, is::NEWER)
        | bit(onward, is::ONWARD)
        | bit(d.len != 0 || ack != 0, is::FRESH)
        | bit(waited <= PROMPT, is::PROMPT)
}

fn numbers(line: &mut Line, d: &Digest, role: Side) {
    let (me, peer) = (role as usize, role.other() as usize);
    line.ttl[me] = d.ttl;
    line.ends[me].next = d.end();
    if d.has_ts {
        line.ends[me].tsval = d.tsval;
        line.bits |= ts_bit(role);
    }
    if d.flags.any(ACK) {
        line.ends[me].ack = d.ack;
        if d.ack.after(line.ends[peer].next) {
            line.ends[peer].next = d.ack;
        }
    }
}

/// Which role's FIN came first.
fn closer(line: &Line) -> Side {
    if line.has(bit::RESP_CLOSED) { Side::Resp } else { Side::Orig }
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

/// The whole flow of a line whose packets are all in the recorder: `packets`, oldest first. `flow` is a new one.
pub fn unfold(packets: &[Digest], coverage: Coverage, flow: &mut Flow) {
    for d in packets {
        flow.step(&d.segment(), d.from, d.ts, coverage, |_| ());
    }
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
        // Until the handshake is complete the originator's holds how long the answer took.
        let ack = if role == Side::Orig && !opened { Seq(0) } else { e.ack };
        End {
            next: e.next,
            ack,
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
