//! Resets: on an established flow, and on no known flow.

use super::evidence::{EVIDENCE, Finding, View, duration, ms};
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use crate::flow::{Digest, Side, Tuple};
use crate::track::{ResetSeen, seen};
use crate::wire::{Nanos, Segment, Way};

/// `reset_mid_flow`: a reset while at least one direction was open.
///
/// Peers: Zeek `RSTO` and `RSTR`, DeepFlow "Transfer - Client/Server RST".
pub fn mid_flow(view: &View<'_>, reset: &ResetSeen, seg: &Segment, by: Side, ts: Nanos) -> Anomaly {
    let flow = view.flow;
    let after_fin = flow.end(Side::Orig).has(seen::FIN) || flow.end(Side::Resp).has(seen::FIN);
    let usual_ttl = flow.end(by).ttl;
    let foreign = flow.end(by).packets > 1 && usual_ttl != 0 && usual_ttl != seg.ttl;
    let [sent, received] = [flow.end(Side::Orig).bytes(), flow.end(Side::Resp).bytes()];
    let out_of_window = reset.in_window == Some(false);
    // A reset by the originator ends its own connection (SO_LINGER 0, a process that died): nobody waits for more.
    // After a FIN it only cleans up. The responder's reset is what users see as "connection reset by peer"; but one that
    // is all it ever said, to a packet without a handshake, says that it knows no such connection (RFC 9293 3.10.7.1).
    let stranger = flow.picked_up && flow.end(by).packets <= 1;
    let severity = match by {
        _ if after_fin || out_of_window || stranger => Severity::Info,
        Side::Orig if !foreign => Severity::Info,
        _ => Severity::Warning,
    };
    let (verdict, certainty) = match (by, foreign) {
        (_, true) => (Verdict::Middlebox, Certainty::Possible),
        (Side::Orig, false) => (Verdict::Originator, Certainty::Likely),
        (Side::Resp, false) => (Verdict::Responder, Certainty::Likely),
    };
    let who = if by == Side::Orig { "originator" } else { "responder" };
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
            summary: format!(
                "connection reset by the {who}{fin}, {} after it began, {} of silence{bytes}{ttl}",
                duration(ts.since(flow.first)),
                duration(reset.idle_ns),
            ),
            first: ts,
            time: ts,
            facts: vec![
                ("by", Fact::Str(by.name().into())),
                ("state", Fact::Str(reset.state.name().into())),
                ("idle_ms", Fact::F64(ms(reset.idle_ns))),
                ("bytes_orig", count(sent)),
                ("bytes_resp", count(received)),
                ("in_window", reset.in_window.map_or(Fact::Null, Fact::Bool)),
                ("after_fin", Fact::Bool(after_fin)),
                ("ttl", Fact::U64(seg.ttl.into())),
                ("usual_ttl", if usual_ttl == 0 { Fact::Null } else { Fact::U64(usual_ttl.into()) }),
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
        });
        c.count += 1;
        c.last = c.last.max(digest.ts);
        if c.packets.len() < EVIDENCE {
            c.packets.push(digest);
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
            kind: Kind::ResetWithoutFlow,
            severity: Severity::Info,
            verdict: Verdict::Unknown,
            certainty: Certainty::Possible,
            summary: format!("{times} on tuples of which nothing else was seen"),
            time: self.last,
            first: self.first,
            last: self.last,
            count: self.count,
            point: Some(point),
            way: self.way,
            tuple: (self.count == 1).then_some(self.tuple),
            vlan: None,
            tunnel: None,
            history: String::new(),
            conn_state: "",
            facts: vec![("count", Fact::U64(self.count))],
            packets: self.packets,
        }
    }
}
