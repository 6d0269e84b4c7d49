//! Resets: on an established flow, and on no known flow.

use super::evidence::{EVIDENCE, Finding, View, duration, ms};
use super::sight::Seen;
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use crate::flow::{Digest, Side, Tuple};
use crate::track::{ResetSeen, seen};
use crate::wire::{Nanos, Segment, TcpFlags, Way};

/// True if a reset's TTL is none that its sender's other packets have.
pub fn foreign(view: &View<'_>, seg: &Segment, by: Side) -> bool {
    let sender = view.flow.end(by);
    sender.packets > 1 && sender.ttl != 0 && sender.ttl != seg.ttl && sender.ttl_first != seg.ttl
}

/// True if the other end has asked for a reset: MPTCP's fast close closes all of a connection at once, and is answered with one (RFC
/// 8684 section 3.5).
pub fn asked_for(view: &View<'_>, by: Side) -> bool {
    view.flow.tallies.fast_close == Some(by.other())
}

/// Idle for this long with nothing under way, a responder that resets only tidies up; the same timeout again and again is
/// `reset_after_idle`.
const IDLE: u64 = 10 * Nanos::SEC;

/// A FIN that its sender sent before it could know of a reset passes this long after it at most: a round trip, as a rule far less.
pub const FIN_CROSSES: u64 = 300 * Nanos::MS;

/// True if a FIN may show that nobody was cut off by this reset: a responder's, with nothing else amiss.
pub fn may_cross(a: &Anomaly) -> bool {
    let reset =
        a.packets.last().is_some_and(|p| p.flags.all(TcpFlags::RST | TcpFlags::ACK) && p.from == Side::Resp);
    let responders = a.severity == Severity::Warning && a.verdict == Verdict::Responder;
    a.kind == Kind::ResetMidFlow && responders && reset
}

/// The originator's FIN begins where the reset's acknowledgement ends: both were closing.
pub fn crossed(a: &mut Anomaly, fin: &Seen) -> bool {
    let same = a.point == Some(fin.digest.point) && a.tuple == Some(fin.tuple);
    let soon = fin.digest.ts.since(a.time) < FIN_CROSSES;
    let here = same && soon && a.packets.last().is_some_and(|reset| reset.ack == fin.digest.seq);
    if here {
        a.severity = Severity::Info;
        a.summary.push_str("; the originator's FIN crossed it: it was closing, too");
    }
    here
}

/// `reset_mid_flow`: a reset while at least one direction was open; `reset_out_of_window` if its receiver has that behind it.
///
/// Peers: Zeek `RSTO` and `RSTR`, DeepFlow "Transfer - Client/Server RST"; Snort 129:15 and Suricata `rst_invalid_ack` for
/// the second.
pub fn mid_flow(view: &View<'_>, reset: &ResetSeen, seg: &Segment, by: Side, ts: Nanos) -> Anomaly {
    let flow = view.flow;
    let after_fin = flow.end(Side::Orig).has(seen::FIN) || flow.end(Side::Resp).has(seen::FIN);
    let usual_ttl = flow.end(by).ttl;
    let foreign = foreign(view, seg, by);
    let [sent, received] = [flow.end(Side::Orig).bytes(), flow.end(Side::Resp).bytes()];
    let out_of_window = reset.in_window == Some(false);
    // A reset by the originator ends its own connection (SO_LINGER 0, a process that died): nobody waits for more.
    // After a FIN it only cleans up. The responder's reset is what users see as "connection reset by peer"; but one that
    // is all it ever said, to a packet without a handshake, says that it knows no such connection (RFC 9293 3.10.7.1).
    let stranger = flow.picked_up && flow.end(by).packets <= 1;
    let [o, r] = &flow.ends;
    let settled = o.has(seen::ACK) && r.has(seen::ACK) && o.ack == r.next && r.ack == o.next;
    // A reset without an acknowledgement answers a segment that has one (RFC 9293 3.10.7.1): its sender tidies nothing up, it knows no
    // such connection, and whoever still uses it is cut off.
    let answers = !seg.flags.any(TcpFlags::ACK);
    let forgotten = by == Side::Resp && answers;
    let idle = reset.idle_ns >= IDLE && settled;
    let tidied = idle && !forgotten;
    let guessed = flow.is_guessed(&view.tuple(flow.orig));
    let asked = asked_for(view, by) && !out_of_window;
    let severity = match by {
        _ if after_fin || out_of_window || stranger || tidied || guessed || asked => Severity::Info,
        Side::Orig if !foreign => Severity::Info,
        _ => Severity::Warning,
    };
    // Without an acknowledgement it is the answer to one: it does not end a connection, it says that there is none. That may be
    // because its sender has forgotten it, or because somebody on the way has given the packet another tuple.
    let knows_none = stranger && answers;
    let (verdict, certainty) = match (by, foreign) {
        // A blind attack, or a reset of an earlier life: whose it is cannot be told.
        _ if out_of_window => (Verdict::Unknown, Certainty::Likely),
        (Side::Orig, _) if asked && !guessed => (Verdict::Responder, Certainty::Likely),
        (Side::Resp, _) if asked && !guessed => (Verdict::Originator, Certainty::Likely),
        (_, false) if knows_none => (Verdict::Unknown, Certainty::Likely),
        (_, true) => (Verdict::Middlebox, Certainty::Possible),
        _ if guessed => (Verdict::Unknown, Certainty::Possible),
        (Side::Orig, false) => (Verdict::Originator, Certainty::Likely),
        (Side::Resp, false) => (Verdict::Responder, Certainty::Likely),
    };
    let names = ["originator", "responder"];
    let (who, other) = (names[by as usize], names[by.other() as usize]);
    let bytes = match (sent, received) {
        (Some(s), Some(r)) => format!(" and {s} bytes to, {r} bytes from the responder"),
        _ => String::new(),
    };
    let ttl = if foreign {
        format!("; its TTL is {}, the {who}'s packets have {usual_ttl}", seg.ttl)
    } else {
        String::new()
    };
    let fin = if after_fin { " after a FIN" } else { "" };
    let count = |v: Option<u64>| v.map_or(Fact::Null, Fact::U64);
    view.anomaly(
        flow.orig,
        Finding {
            // Outside the window the receiver does not believe it: blind, or of another life.
            kind: if out_of_window { Kind::ResetOutOfWindow } else { Kind::ResetMidFlow },
            severity,
            verdict,
            certainty,
            summary: if out_of_window {
                let has = flow.end(by.other()).ack;
                let before = has.distance(seg.seq);
                format!("a reset of the {who} lies {before} before what its receiver has: it drops that reset{ttl}")
            } else if asked {
                format!(
                    "the {other} closed at once (MPTCP fast close), {} after it began{bytes}; the {who}'s reset answers that",
                    duration(ts.since(flow.first)),
                )
            } else if knows_none {
                format!("the {who} knows no such connection and resets it; its beginning was not seen, nor anything else of the {who}")
            } else {
                format!(
                    "connection reset by the {who}{fin}, {} after it began, {} of silence{bytes}{ttl}{}",
                    duration(ts.since(flow.first)),
                    duration(reset.idle_ns),
                    if idle && forgotten && !after_fin { "; it knew no such connection any more" } else { "" },
                )
            },
            first: ts,
            time: ts,
            facts: vec![
                ("by", Fact::Str(by.name().into())),
                ("state", Fact::Str(reset.state.name().into())),
                ("idle_ms", Fact::F64(ms(reset.idle_ns))),
                ("bytes_orig", count(sent)),
                ("bytes_resp", count(received)),
                (
                    "distance",
                    if out_of_window { Fact::I64(seg.seq.distance(flow.end(by.other()).ack).into()) } else { Fact::Null },
                ),
                ("in_window", reset.in_window.map_or(Fact::Null, Fact::Bool)),
                ("after_fin", Fact::Bool(after_fin)),
                ("ttl", Fact::U64(seg.ttl.into())),
                ("usual_ttl", if usual_ttl == 0 { Fact::Null } else { Fact::U64(usual_ttl.into()) }),
            ],
        },
    )
}

/// `reset_out_of_window` of a reset that the waiting originator drops: without an acknowledgement of its SYN (RFC 9293 3.10.7.3), or
/// with somebody else's timestamp.
///
/// Peers: Suricata `rst_invalid_ack`, Snort's counter `rsts_ack_bad`.
pub fn unbelieved(view: &View<'_>, seg: &Segment, ts: Nanos) -> Anomaly {
    let expected = view.flow.attempt.isn.add(1);
    let distance = seg.ack.distance(expected);
    view.anomaly(
        view.flow.orig,
        Finding {
            kind: Kind::ResetOutOfWindow,
            severity: Severity::Info,
            verdict: Verdict::Unknown,
            certainty: Certainty::Likely,
            summary: if distance == 0 {
                "a reset answers a SYN with the echo of a timestamp that the SYN did not have: the originator drops it".into()
            } else {
                format!(
                    "a reset answers a SYN without acknowledging it ({}, the SYN asks for {expected}): the originator drops it",
                    if seg.flags.any(TcpFlags::ACK) { format!("it acknowledges {}", seg.ack) } else { "it has no ACK".into() }
                )
            },
            first: ts,
            time: ts,
            facts: vec![
                ("by", Fact::Str("resp".into())),
                ("state", Fact::Str(view.flow.state.name().into())),
                ("distance", Fact::I64(distance.into())),
                ("ttl", Fact::U64(seg.ttl.into())),
            ],
        },
    )
}

/// Resets without a flow are counted for this long in one record.
const COUNT_FOR: u64 = 10 * Nanos::SEC;

/// Tap points whose resets are counted apart.
const POINTS: usize = 16;

/// `reset_without_flow`: info, counted for each tap point.
///
/// Peers: Suricata `rst_but_no_session`, Zeek `spontaneous_RST`.
#[derive(Default)]
pub struct WithoutFlow {
    points: [Option<Counted>; POINTS],
}

#[derive(Clone)]
struct Counted {
    first: Nanos,
    last: Nanos,
    count: u64,
    tuple: Tuple,
    way: Way,
    packets: Vec<Digest>,
    tuples: Vec<Tuple>,
}

impl WithoutFlow {
    /// Counts one; hands over the record of the time before when it is due.
    pub fn count(&mut self, point: u8, tuple: Tuple, digest: Digest) -> Option<Anomaly> {
        let slot = self.points.get_mut(usize::from(point))?;
        let due = slot.as_ref().is_some_and(|c| digest.ts.since(c.first) >= COUNT_FOR);
        let told = if due { slot.take().map(|c| c.anomaly(point)) } else { None };
        let c = slot.get_or_insert_with(|| Counted {
            first: digest.ts,
            last: digest.ts,
            count: 0,
            tuple,
            way: digest.way,
            packets: Vec::new(),
            tuples: Vec::new(),
        });
        c.count += 1;
        c.last = c.last.max(digest.ts);
        if c.packets.len() < EVIDENCE {
            c.packets.push(digest);
            c.tuples.push(tuple);
        }
        told
    }

    /// What is left at the end.
    pub fn finish(&mut self, out: &mut dyn FnMut(Anomaly)) {
        for (point, slot) in self.points.iter_mut().enumerate() {
            if let Some(c) = slot.take() {
                out(c.anomaly(point as u8));
            }
        }
    }
}

impl Counted {
    fn anomaly(self, point: u8) -> Anomaly {
        let times = if self.count == 1 { "a reset".to_owned() } else { format!("{} resets", self.count) };
        Anomaly {
            certainty: Certainty::Possible,
            count: self.count,
            point: Some(point),
            way: self.way,
            tuple: (self.count == 1).then_some(self.tuple),
            facts: vec![("count", Fact::U64(self.count))],
            packets: self.packets,
            tuples: self.tuples,
            ..Anomaly::new(
                Kind::ResetWithoutFlow,
                format!("{times} on tuples of which nothing else was seen lately"),
                self.first,
                self.last,
            )
        }
    }
}
