//! Gateway or network: what the two sides together say of a SYN without an answer, of a refused reuse, of a reset.
//!
//! Rules 2 to 5 and their like. They need a tap point inside and one outside, and the outside's egress: with one side
//! alone nothing here fires, and verdicts stay `unknown`.

use super::conntrack::{Deltas, Entry};
use super::evidence::{duration, endpoint, ms};
use super::join::{CROSS_WITHIN, Crossing, Given, Join, Role};
use super::mapping::Mappings;
use super::sight::Seen;
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use crate::flow::{Digest, Endpoint, Side, Tuple};
use crate::track::SegClass;
use crate::wire::{Mac, Nanos, Seq, TcpFlags, Way};

use super::bounded::Bounded;

/// SYNs of one attempt that must be lost, all of them, before ports can be exhausted; and ports in use towards the responder. One lost
/// twice by chance is rare, and a pool of fewer ports is a mistake rather than a pool.
const EXHAUSTED_TRIES: usize = 2;
const EXHAUSTED_PORTS: usize = 16;

/// A reset that answers a packet does so within this time (55 us were measured).
const PROVOKED_WITHIN: u64 = 10 * Nanos::MS;

/// Tuples whose resets and lost mappings are remembered.
const TUPLES: usize = 1 << 16;

/// Tuples handed on within a minute that make pressure without any harm yet.
const HANDED_ON: u64 = 20;
const MINUTE: u64 = 60 * Nanos::SEC;

/// Tuples handed on towards one responder in the present minute.
#[derive(Clone, Copy, Debug, Default)]
struct Pressure {
    since: Nanos,
    last: Nanos,
    handed_on: u64,
    refused: u64,
    youngest_ms: f64,
    point: u8,
}

/// See the module.
#[derive(Debug)]
pub struct Gateway {
    /// What is known of both sides.
    pub join: Join,
    /// Newest reset of a tuple inside.
    resets: Bounded<Tuple, (Nanos, Seq)>,
    /// Newest bytes sent into silence, by side.
    unheard: [Bounded<Tuple, Seq>; 2],
    /// Newest resets that came in outside: by sender and sequence number, to whom and when.
    answers: Bounded<(Endpoint, Seq), (Endpoint, Digest)>,
    mappings: Mappings,
    pressure: Bounded<Endpoint, Pressure>,
    /// Resets that the gateway sent; the anomalies of their flows follow.
    own_resets: Bounded<Tuple, OwnReset>,
    /// Connections whose final ACK was seen outside: their responder, and when their first SYN was seen there.
    completed: Bounded<(Endpoint, Nanos), ()>,
    told_proxy: bool,
}

#[derive(Clone, Copy, Debug)]
struct OwnReset {
    inside: Tuple,
    at: Nanos,
    gap_ns: Option<u64>,
}

pub(super) fn anomaly(
    kind: Kind,
    severity: Severity,
    point: u8,
    tuple: Option<Tuple>,
    at: (Nanos, Nanos),
    summary: String,
) -> Anomaly {
    Anomaly {
        severity,
        verdict: Verdict::Gateway,
        certainty: Certainty::Likely,
        point: Some(point),
        tuple,
        ..Anomaly::new(kind, summary, at.0, at.1)
    }
}

pub(super) fn text(t: &Tuple) -> String {
    format!("{} > {}", endpoint(t.src), endpoint(t.dst))
}

/// A packet's tuple, its sender first.
fn sender(seen: &Seen) -> Tuple {
    if seen.digest.from == Side::Orig { seen.tuple } else { seen.tuple.reversed() }
}

impl Gateway {
    /// For tap points with these roles.
    pub fn new(roles: Vec<Role>) -> Gateway {
        Gateway {
            join: Join::new(roles),
            resets: Bounded::new(TUPLES),
            unheard: [Bounded::new(TUPLES), Bounded::new(TUPLES)],
            answers: Bounded::new(TUPLES),
            mappings: Mappings::new(),
            pressure: Bounded::new(TUPLES),
            own_resets: Bounded::new(TUPLES),
            completed: Bounded::new(TUPLES),
            told_proxy: false,
        }
    }

    /// The first packet of a connection that was met in the middle: rule 3, an address from inside that leaves outside.
    pub fn met(&mut self, seen: &Seen, out: &mut dyn FnMut(Anomaly)) {
        let d = &seen.digest;
        if self.join.side(d.point) != Some(1) || d.way == Way::Ingress {
            return;
        }
        let Some(c) = self.join.crossing(0, &seen.tuple) else { return };
        let Some(outside) = c.tuples[1].filter(|o| *o != seen.tuple) else { return };
        let harmless = matches!(SegClass::of(d.flags), SegClass::Rst | SegClass::Fin);
        if harmless {
            // Every gateway lets such strays out: its connection is over, or it lies outside of its window. Nobody is hurt.
            let what = text(&seen.tuple);
            let summary = format!(
                "a stray [{}] of {what} left without translation: it fits no connection that the gateway holds",
                d.flags
            );
            let mut a = anomaly(
                Kind::UntranslatedPacket,
                Severity::Info,
                d.point,
                Some(seen.tuple),
                (d.ts, d.ts),
                summary,
            );
            a.facts = vec![
                ("was", Fact::Str(endpoint(outside.src).into())),
                ("now", Fact::Str(endpoint(seen.tuple.src).into())),
            ];
            a.packets = vec![*d];
            out(a);
            return;
        }
        let summary = format!(
            "a packet of the open connection {} left without translation, which was known outside as {}",
            text(&seen.tuple),
            endpoint(outside.src)
        );
        let mut a = anomaly(
            Kind::UntranslatedPacket,
            Severity::Error,
            d.point,
            Some(seen.tuple),
            (d.ts, d.ts),
            summary,
        );
        a.certainty = Certainty::Proven;
        a.facts = vec![
            ("was", Fact::Str(endpoint(outside.src).into())),
            ("now", Fact::Str(endpoint(seen.tuple.src).into())),
        ];
        a.packets = vec![*d];
        out(a);
        self.mappings.untranslated(seen.tuple, outside, d);
    }

    /// A reset: rules 4 and 5.
    pub fn rst(&mut self, seen: &Seen, provoked: Option<u64>, foreign: bool) {
        let d = &seen.digest;
        match self.join.side(d.point) {
            Some(0) => {
                self.resets.put(seen.tuple, (d.ts, d.seq));
                self.remapped(seen);
            }
            Some(1) => {
                if d.way != Way::Egress && !answers_syn(d) {
                    let sender = sender(seen);
                    self.answers.put((sender.src, d.seq), (sender.dst, *d));
                }
                self.by_gateway(seen, provoked, foreign);
            }
            _ => {}
        }
    }

    /// Rule 4: a reset leaves outside that did not come in inside, in answer to what came in outside.
    fn by_gateway(&mut self, seen: &Seen, provoked: Option<u64>, foreign: bool) {
        let d = &seen.digest;
        // Only the way out: what comes in was sent by the responder.
        let from_orig = d.from == Side::Orig;
        // What was forwarded lost a hop as all the originator's packets did; the gateway's own did not.
        if !foreign {
            return;
        }
        // What provoked it is seen if the tuple is under watch. Where the hook says that it left, with a hop that no forwarded
        // packet keeps, it needs no more.
        let gap_ns = provoked.filter(|g| *g <= PROVOKED_WITHIN);
        let left = match d.way {
            Way::Egress => true,
            Way::Unknown => gap_ns.is_some(),
            Way::Ingress => false,
        };
        if !from_orig || !left {
            return;
        }
        let Some(c) = self.join.crossing(1, &seen.tuple) else { return };
        let Some(inside) = c.tuples[0].filter(|i| *i != seen.tuple) else { return };
        let counterpart = self.resets.get(&inside).is_some_and(|(at, _)| d.ts.since(*at) <= CROSS_WITHIN);
        if counterpart || c.from != 0 {
            return;
        }
        self.own_resets.put(seen.tuple, OwnReset { inside, at: d.ts, gap_ns });
        self.mappings.gateway_reset(inside, seen.tuple, d);
    }

    /// Rule 5: the responder's reset reaches a connection inside, and outside it came to a tuple that was never opened there.
    fn remapped(&mut self, seen: &Seen) {
        let d = &seen.digest;
        if sender(seen).src != seen.tuple.dst {
            return;
        }
        let Some(c) = self.join.outbound(&seen.tuple) else { return };
        // What was never answered has no translation that could be lost while it lived.
        let Some(before) = c.tuples[1].filter(|_| c.syn_ack[0].is_some() && !answers_syn(d)) else { return };
        let Some(&(to, at)) = self.answers.get(&(before.dst, d.seq)) else { return };
        let now = Tuple { src: to, dst: before.dst };
        let opened = c.had(&now) || self.join.crossing(1, &now).is_some();
        if !opened && d.ts.since(at.ts) <= CROSS_WITHIN {
            // Met outside in its middle, it has no roles of its own.
            let answer = (now, Digest { from: Side::Resp, ..at });
            self.mappings.remapped(
                (seen.tuple, before, now),
                d.ts,
                Some(d.point),
                &[answer, (seen.tuple, *d)],
            );
        }
    }

    /// Connection tracking tells of an entry.
    pub fn entry(&mut self, entry: &Entry, at: Nanos) {
        self.mappings.entry(entry, at, &self.join);
    }

    /// Connection tracking's counters were read.
    pub fn counted(&mut self, first: Nanos, last: Nanos, deltas: Deltas) {
        self.mappings.conntrack.reading(first, last, deltas);
    }

    /// Bytes sent once more into silence.
    pub fn unheard(&mut self, seen: &Seen) {
        let Some(side) = self.join.side(seen.digest.point) else { return };
        self.unheard[side].put(seen.tuple, seen.digest.seq);
        if side == 1 && seen.digest.way != Way::Ingress {
            self.mappings.again_untranslated(&seen.tuple, &seen.digest);
        }
    }

    /// A next hop changed its MAC address: its own doing, if it said so itself on its way out.
    pub fn next_hop_changed(&mut self, a: &mut Anomaly) {
        if a.way == Way::Egress {
            a.verdict = Verdict::Gateway;
        }
        if a.point.and_then(|p| self.join.side(p)) == Some(0) {
            self.mappings.next_hop_changed(a);
        }
    }

    /// An interface of the gateway itself has another MAC address, whether or not anybody is known to send to it.
    pub fn link_changed(&mut self, point: u8, macs: [Mac; 2], at: Nanos) {
        if self.join.side(point) == Some(0) {
            self.mappings.mac_changed(macs.map(|m| Fact::Str(m.to_string().into())), at);
        }
    }

    /// Lets time pass: incidents that gathered for long enough are told.
    pub fn release(&mut self, now: Nanos, out: &mut dyn FnMut(Anomaly)) {
        self.mappings.release(now, out);
        if !self.told_proxy && self.join.is_proxied() {
            self.told_proxy = true;
            let pattern = self.join.pattern();
            let what = match pattern {
                "isn_rewritten" => {
                    "they leave with other sequence numbers: a device in the gateway rewrites them"
                }
                "syn_proxy" => {
                    "others leave after the answer: the gateway answers SYNs itself before it passes them on"
                }
                _ => "none leaves: a proxy on the gateway answers for the responders",
            };
            let summary = format!(
                "connections from inside open although their SYNs never leave, and {what}; inside and outside are not joined"
            );
            let point = self.join.point_of(Role::Inside).unwrap_or(0);
            let mut a = anomaly(Kind::NatNotStitchable, Severity::Info, point, None, (now, now), summary);
            a.facts = vec![("pattern", Fact::Str(pattern.into())), ("crossed", Fact::U64(self.join.crossed))];
            out(a);
        }
    }

    /// What gathered and was not told.
    pub fn finish(&mut self, out: &mut dyn FnMut(Anomaly)) {
        self.mappings.finish(out);
        for (responder, p) in self.pressure.drain() {
            out_pressure(responder, &p, out);
        }
    }

    /// Adds what the other side says to an anomaly of one side.
    pub fn judge(&mut self, a: &mut Anomaly, out: &mut dyn FnMut(Anomaly)) {
        // What the writer did not get may have been events of connection tracking.
        if matches!(a.kind, Kind::ConntrackEventLoss | Kind::CaptureGap) {
            self.mappings.conntrack.events_lost(a.time);
        }
        let (Some(point), Some(tuple)) = (a.point, a.tuple) else { return };
        let Some(side) = self.join.side(point) else { return };
        match a.kind {
            Kind::SynUnanswered => self.unanswered(a, side, &tuple),
            Kind::TupleReuseRefused | Kind::TupleReuseAccepted => self.reuse(a, side, &tuple, out),
            Kind::ResetMidFlow => {
                self.own_reset(a, &tuple);
                if side == 0 && a.kind == Kind::ResetMidFlow {
                    if self.mappings.has(&tuple) {
                        a.verdict = Verdict::Gateway;
                        a.summary
                            .push_str("; the gateway had lost its translation before: see nat_mapping_lost");
                    } else if !self.reset_inside(a, &tuple) && self.mappings.has_reset(&tuple) {
                        a.verdict = Verdict::Gateway;
                        a.summary
                            .push_str("; the gateway had reset its responder before: see reset_by_gateway");
                    }
                }
            }
            Kind::SynRefused if side == 0 => self.refused_inside(a, &tuple),
            Kind::AcceptQueueOverflow if side == 0 => self.final_ack_lost(a, &tuple),
            Kind::ResetIgnored if side == 1 && self.own_resets.get(&tuple).is_some() => {
                a.verdict = Verdict::Gateway;
                a.summary.push_str("; the reset was the gateway's own: see reset_by_gateway");
            }
            Kind::SynackUnacknowledged => self.held_answer(a, side, &tuple),
            // Outside, it is what lies beyond the gateway that was slow.
            Kind::SlowHandshake if side == 0 => self.held_answer(a, side, &tuple),
            Kind::BlackHole if side == 0 => self.black_hole(a, &tuple),
            Kind::BlackHole => self.black_hole_outside(a, &tuple),
            _ => {}
        }
    }

    /// A handshake is complete.
    pub fn completed(&mut self, responder: Endpoint, point: u8, asked: Nanos) {
        if self.join.side(point) == Some(1) {
            self.completed.put((responder, asked), ());
        }
    }

    /// A reset in the responder's name, inside, of which none came in outside, where its answers came in, and which has lost no hop: the gateway's
    /// own, as of a rule that rejects. False if nothing says so.
    fn reset_inside(&self, a: &mut Anomaly, tuple: &Tuple) -> bool {
        let Some(rst) = a.packets.last().filter(|p| p.from == Side::Resp && p.way != Way::Ingress) else {
            return false;
        };
        let Some(c) = self.join.outbound(tuple) else { return false };
        let Some(outside) = c.tuples[1].filter(|_| c.syn_ack[1].is_some()) else { return false };
        let came = self.answers.get(&(outside.dst, rst.seq));
        if !whole_way(rst.ttl) || came.is_some_and(|(_, d)| rst.ts.since(d.ts) <= CROSS_WITHIN) {
            return false;
        }
        a.verdict = Verdict::Gateway;
        a.certainty = Certainty::Proven;
        a.summary =
            a.summary.replacen("by the responder", "by the gateway itself in the responder's name", 1);
        a.summary.push_str("; none came in outside");
        true
    }

    /// A SYN that was refused inside and never left, though SYNs to that address do: the gateway itself refused it.
    fn refused_inside(&self, a: &mut Anomaly, tuple: &Tuple) {
        let Some(c) = self.join.outbound(tuple) else { return };
        let left = c.tries.iter().any(|t| t.at[1].is_some());
        let Some(first) = c.tries.iter().find_map(|t| t.at[0]).filter(|_| !left) else { return };
        if self.join.answers_without(&tuple.dst) || !self.join.is_reached(&tuple.dst.addr, first) {
            return;
        }
        let by = a.facts.iter().find_map(|(n, f)| match f {
            Fact::Str(s) if *n == "by" => Some(s.to_string()),
            _ => None,
        });
        // An error's hops are not known: another way out that is not tapped may have brought it.
        let (by, certainty) = match by.as_deref() {
            Some("rst") | None => ("a reset".to_owned(), Certainty::Proven),
            Some(by) => (by.to_owned(), Certainty::Likely),
        };
        let hops = a.packets.last().filter(|p| p.from == Side::Resp).map(|p| whole_way(p.ttl));
        if hops == Some(false) {
            return;
        }
        a.verdict = Verdict::Gateway;
        a.certainty = certainty;
        a.summary = format!(
            "the gateway itself refused the SYN to {} with {by}: it did not leave",
            endpoint(tuple.dst)
        );
    }

    /// A SYN-ACK again after the final ACK that came in: the gateway's doing, if that never left.
    fn final_ack_lost(&self, a: &mut Anomaly, tuple: &Tuple) {
        let Some(c) = self.join.outbound(tuple) else { return };
        let Some(outside) = c.tuples[1].filter(|_| c.syn_ack[1].is_some()) else { return };
        let mut asked = c.tries.iter().filter_map(|t| t.at[1]);
        if asked.any(|at| self.completed.get(&(outside.dst, at)).is_some()) {
            return;
        }
        a.kind = Kind::SynackUnacknowledged;
        a.verdict = Verdict::Gateway;
        a.certainty = Certainty::Likely;
        a.summary = format!(
            "{} sent its SYN-ACK again: the final ACK came to the gateway and did not leave it",
            endpoint(tuple.dst)
        );
        a.facts = vec![
            ("attempts", a.facts.first().map_or(Fact::Null, |f| f.1.clone())),
            ("lost", Fact::Str("ack".into())),
        ];
    }

    /// A SYN-ACK again, or late: in the gateway, if it came to it and did not get through. Outside, one that did get through says
    /// nothing of who lost the acknowledgement.
    fn held_answer(&self, a: &mut Anomaly, side: usize, tuple: &Tuple) {
        let Some(c) = self.join.crossing(side, tuple).filter(|c| c.from == 0) else { return };
        let [inside, outside] = c.syn_ack;
        let held = match (inside, outside) {
            (Some(i), Some(o)) => i.since(o) > CROSS_WITHIN,
            (None, Some(o)) => a.time.since(o) > CROSS_WITHIN,
            _ => return,
        };
        if held {
            a.verdict = Verdict::Gateway;
            a.certainty = Certainty::Proven;
            a.summary.push_str("; the SYN-ACK came to the gateway and did not get through at once");
        } else if side == 1 {
            a.verdict = Verdict::Unknown;
        }
    }

    fn unanswered(&self, a: &mut Anomaly, side: usize, tuple: &Tuple) {
        let Some(c) = self.join.crossing(side, tuple) else { return };
        if side == 1 {
            if c.from == 0 && c.tries.iter().any(|t| t.at[0].is_some()) {
                a.verdict = Verdict::Network;
                a.summary.push_str("; the gateway had sent it");
            }
            return;
        }
        if c.from != 0 || self.join.answers_without(&tuple.dst) {
            return;
        }
        let lost: Vec<Nanos> = c
            .tries
            .iter()
            .filter(|t| t.at[1].is_none())
            .filter_map(|t| t.at[0])
            .filter(|at| a.time.since(*at) > CROSS_WITHIN)
            .collect();
        match lost.first() {
            None => crossed(a, c),
            Some(first) if !self.join.is_reached(&tuple.dst.addr, *first) => {}
            Some(&first) => self.lost(a, c, tuple, first, lost.len()),
        }
    }

    /// Rule 2: a SYN came in and did not go out.
    fn lost(&self, a: &mut Anomaly, c: &Crossing, tuple: &Tuple, at: Nanos, lost: usize) {
        let tries = c.tries.len();
        let all = lost == tries;
        let responder = endpoint(tuple.dst);
        let through = c
            .tries
            .iter()
            .find(|t| t.at[0].is_some_and(|x| x > at) && t.at[1].is_some())
            .and_then(|t| t.at[0]);
        let waited = through.unwrap_or(a.time).since(at);
        let end = match through {
            Some(_) => format!("a SYN {} later went through", duration(waited)),
            None => format!("none went through in {}", duration(waited)),
        };
        a.verdict = Verdict::Gateway;
        a.first = at;
        let mut facts = vec![("waited_ms", Fact::F64(ms(waited))), ("lost", Fact::U64(lost as u64))];
        let (in_use, fresh) = self.join.in_use(&tuple.dst, at, a.time);
        if let Some(r) = self.join.rival(tuple, c.isn, at) {
            a.kind = Kind::SnatCollision;
            a.certainty = Certainty::Proven;
            a.summary = format!(
                "the gateway lost the SYN of {} to {responder}: {} came from the same port {} us apart and took port {} outside; {end}",
                endpoint(tuple.src),
                endpoint(r.inside.src),
                r.gap_ns / 1_000,
                r.outside.src.port
            );
            facts.extend([
                ("rival", Fact::Str(text(&r.inside).into())),
                ("gap_us", Fact::U64(r.gap_ns / 1_000)),
                ("outside_port", Fact::U64(r.outside.src.port.into())),
            ]);
        } else if all && tries >= EXHAUSTED_TRIES && in_use >= EXHAUSTED_PORTS && !fresh {
            a.kind = Kind::SnatPortsExhausted;
            a.severity = Severity::Error;
            a.certainty = Certainty::Likely;
            a.summary = format!(
                "the gateway let none of {tries} SYNs of {} to {responder} out: all of its {in_use} ports towards that responder are in use",
                endpoint(tuple.src)
            );
            facts.extend([("in_use", Fact::U64(in_use as u64)), ("attempts", Fact::U64(tries as u64))]);
        } else {
            a.kind = Kind::SynLostInGateway;
            a.certainty = if lost > 1 || through.is_some() { Certainty::Proven } else { Certainty::Likely };
            a.summary = format!(
                "the gateway took {} of {} SYNs of {} to {responder} in and did not send {} out; {end}",
                lost,
                tries,
                endpoint(tuple.src),
                if lost == 1 { "it" } else { "them" }
            );
        }
        let counted = self.mappings.conntrack.around(at);
        let delta = |of: fn(&Deltas) -> u64| counted.as_ref().map_or(Fact::Null, |d| Fact::U64(of(d)));
        facts
            .extend([("insert_failed_delta", delta(|d| d.insert_failed)), ("drop_delta", delta(|d| d.drop))]);
        a.facts.splice(0..0, facts);
    }

    /// A reuse outside that another connection inside made: the gateway handed the tuple on.
    fn reuse(&mut self, a: &mut Anomaly, side: usize, tuple: &Tuple, out: &mut dyn FnMut(Anomaly)) {
        let Some(c) = self.join.crossing(side, tuple) else { return };
        let mine = |g: &&Given| side == 0 || g.outside == *tuple;
        let handed = c.outsides.iter().filter(mine).find_map(|g| Some((g.outside, g.before?)));
        let (Some(inside), Some((outside, before))) = (c.tuples[0], handed) else { return };
        let refused = a.kind == Kind::TupleReuseRefused;
        if refused {
            a.verdict = Verdict::Gateway;
            a.summary.push_str(&format!(
                "; the gateway had given {} to {} and handed it on to {}",
                endpoint(outside.src),
                endpoint(before.src),
                endpoint(inside.src)
            ));
        }
        a.facts.push(("inside", Fact::Str(text(&inside).into())));
        a.facts.push(("inside_before", Fact::Str(text(&before).into())));
        if side != 1 {
            return;
        }
        let since = a.facts.iter().find_map(|(n, f)| match f {
            Fact::F64(ms) if *n == "since_close_ms" => Some(*ms),
            _ => None,
        });
        let point = a.point.unwrap_or(0);
        let p = self.pressure.entry(outside.dst, || Pressure {
            since: a.time,
            youngest_ms: f64::MAX,
            ..Pressure::default()
        });
        if a.time.since(p.since) >= MINUTE {
            out_pressure(outside.dst, p, out);
            *p = Pressure { since: a.time, youngest_ms: f64::MAX, ..Pressure::default() };
        }
        p.handed_on += 1;
        p.refused += u64::from(refused);
        p.youngest_ms = p.youngest_ms.min(since.unwrap_or(f64::MAX));
        (p.last, p.point) = (a.time, point);
    }

    fn own_reset(&self, a: &mut Anomaly, tuple: &Tuple) {
        let Some(r) = self.own_resets.get(tuple).filter(|r| r.at == a.time) else { return };
        a.kind = Kind::ResetByGateway;
        a.severity = Severity::Error;
        a.verdict = Verdict::Gateway;
        a.certainty = Certainty::Proven;
        let after = r
            .gap_ns
            .map_or_else(String::new, |gap| format!(", {} after a packet of the responder", duration(gap)));
        // What shows later that its translation was lost is told by nat_mapping_lost.
        let inside = endpoint(r.inside.src);
        let why = if self.mappings.has(&r.inside) {
            format!("it could not translate back to {inside}")
        } else {
            format!("none came from {inside}")
        };
        a.summary = format!("the gateway itself reset {}{after}: {why}", text(tuple));
        a.facts.insert(0, ("provoked_by_ms", r.gap_ns.map_or(Fact::Null, |gap| Fact::F64(ms(gap)))));
        a.facts.push(("inside", Fact::Str(text(&r.inside).into())));
    }

    /// The responder's bytes, seen to come in outside: did they leave inside?
    fn black_hole_outside(&self, a: &mut Anomaly, tuple: &Tuple) {
        let Some(inside) = self.join.crossing(1, tuple).and_then(|c| c.tuples[0]) else { return };
        if a.packets.last().is_none_or(|p| p.from != Side::Resp) {
            return;
        }
        let (in_, out_) = (self.unheard[0].get(&inside), self.unheard[1].get(tuple));
        if out_.is_some() && in_ != out_ {
            a.verdict = Verdict::Gateway;
            a.certainty = Certainty::Possible;
            a.summary.push_str("; they were not seen to leave the gateway inside");
        }
    }

    /// The originator's bytes, seen to come in inside: the gateway's doing, if the outside is known and they were not seen there.
    fn black_hole(&mut self, a: &mut Anomaly, tuple: &Tuple) {
        let Some(outside) = self.join.crossing(0, tuple).and_then(|c| c.tuples[1]) else { return };
        self.mappings.silent(*tuple, outside, a.time, a.point.unwrap_or(0));
        let (in_, out_) = (self.unheard[0].get(tuple), self.unheard[1].get(&outside));
        if in_.is_some() && in_ == self.unheard[1].get(tuple) && outside != *tuple {
            a.verdict = Verdict::Gateway;
            a.certainty = Certainty::Proven;
            a.summary.push_str("; the gateway sent them on without translation");
        } else if in_.is_some() && in_ == out_ {
            a.summary.push_str("; the gateway sent them on");
        } else if in_.is_some() {
            a.verdict = Verdict::Gateway;
            a.certainty = Certainty::Possible;
            a.summary.push_str("; they were not seen to leave the gateway");
        }
    }
}

/// True if a packet has lost no hop: stacks begin with one of these (Linux 64, Windows 128, others 255).
fn whole_way(ttl: u8) -> bool {
    matches!(ttl, 64 | 128 | 255)
}

/// True for a reset that answers a segment without an acknowledgement, which is a SYN: its number is 0 (RFC 9293 3.10.7.1), so that all
/// refusals of a responder look alike.
fn answers_syn(d: &Digest) -> bool {
    d.flags.any(TcpFlags::ACK) && d.seq == Seq(0)
}

/// All SYNs crossed: it was not the gateway, unless the answer got lost in it.
fn crossed(a: &mut Anomaly, c: &Crossing) {
    let Some(outside) = c.tuples[1] else { return };
    let came = c.syn_ack[1];
    let delivered = c.syn_ack[0];
    let held = match (came, delivered) {
        (Some(o), Some(i)) => i.since(o) > CROSS_WITHIN,
        (Some(_), None) => true,
        _ => false,
    };
    if held {
        a.verdict = Verdict::Gateway;
        a.certainty = Certainty::Proven;
        a.summary.push_str("; the SYN-ACK came to the gateway and did not get through");
        a.facts.push(("lost", Fact::Str("syn_ack".into())));
    } else {
        a.verdict = Verdict::Network;
        a.summary.push_str(&format!("; not the gateway: the SYN left as {}", endpoint(outside.src)));
    }
}

fn out_pressure(responder: Endpoint, p: &Pressure, out: &mut dyn FnMut(Anomaly)) {
    if p.refused == 0 && p.handed_on < HANDED_ON {
        return;
    }
    let severity = if p.refused > 0 { Severity::Warning } else { Severity::Info };
    let summary = format!(
        "the gateway handed {} tuples towards {} on to others within a minute of their close, and {} refused {} of them",
        p.handed_on,
        endpoint(responder),
        endpoint(responder),
        p.refused
    );
    let mut a = anomaly(Kind::NatPortPressure, severity, p.point, None, (p.since, p.last), summary);
    a.count = p.handed_on;
    a.facts = vec![
        ("responder", Fact::Str(endpoint(responder).into())),
        ("per_minute", Fact::U64(p.handed_on)),
        ("youngest_ms", if p.youngest_ms < f64::MAX { Fact::F64(p.youngest_ms) } else { Fact::Null }),
        ("refused", Fact::U64(p.refused)),
    ];
    out(a);
}
