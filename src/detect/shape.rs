//! What concerns a tap point and not one connection: odd flags, broken headers, a view of one direction only.

use super::{Anomaly, Fact, Facts, Kind, Life, Verdict};
use crate::flow::{Digest, Side, Tuple};
use crate::wire::{Malformed, Nanos, TcpFlags};

/// Counted for this long in one record.
const COUNT_FOR: u64 = 10 * Nanos::SEC;

/// Tap points told apart.
const POINTS: usize = 16;

/// Flows seen in one direction only that make a one-sided view, and their share among flows that say something.
const ONE_SIDED: u64 = 10;
const ONE_SIDED_SHARE: u64 = 80;

#[derive(Clone, Copy, Default)]
struct Count {
    first: Nanos,
    last: Nanos,
    count: u64,
}

impl Count {
    /// Counts one; gives back what was counted before, when its time is over.
    fn add(&mut self, ts: Nanos) -> Option<Count> {
        let due = self.count > 0 && ts.since(self.first) >= COUNT_FOR;
        let told = due.then_some(*self);
        if due || self.count == 0 {
            *self = Count { first: ts, last: ts, count: 0 };
        }
        self.count += 1;
        self.last = ts;
        told
    }
}

#[derive(Clone, Copy, Default)]
struct Point {
    malformed: [Count; Malformed::COUNT],
    /// First sight; zero before.
    since: Nanos,
    one_way: u64,
    both_ways: u64,
    told: bool,
}

/// See the module.
pub struct Shape {
    points: Box<[Point; POINTS]>,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { points: Box::new([Point::default(); POINTS]) }
    }
}

fn anomaly(kind: Kind, point: u8, at: (Nanos, Nanos), count: u64, summary: String, facts: Facts) -> Anomaly {
    Anomaly { count, point: Some(point), facts, ..Anomaly::new(kind, summary, at.0, at.1) }
}

fn malformed(point: u8, reason: Malformed, c: Count) -> Anomaly {
    let text = format!("{} packets could not be read: {}", c.count, reason.name().replace('_', " "));
    let facts = vec![("reason", Fact::Str(reason.name().into())), ("count", Fact::U64(c.count))];
    anomaly(Kind::Malformed, point, (c.first, c.last), c.count, text, facts)
}

impl Shape {
    /// `malformed`: counts a packet that could not be decoded. A packet cut by the snap length is none.
    ///
    /// Peers: Zeek `truncated_IP` and others, Suricata's decoder events, tcpdump "bad hdr length".
    pub fn malformed(&mut self, point: u8, reason: Malformed, ts: Nanos, out: &mut dyn FnMut(Anomaly)) {
        if reason == Malformed::SnapLength {
            return;
        }
        let Some(p) = self.points.get_mut(usize::from(point)) else { return };
        if let Some(before) = p.malformed[reason as usize].add(ts) {
            out(malformed(point, reason, before));
        }
    }

    /// Something was seen at a tap point.
    pub fn seen(&mut self, point: u8, at: Nanos) {
        if let Some(p) = self.points.get_mut(usize::from(point))
            && p.since.0 == 0
        {
            p.since = at;
        }
    }

    /// True if the view of a tap point is younger than `ns` at `at`.
    pub fn began_before(&self, point: u8, at: Nanos, ns: u64) -> bool {
        self.points.get(usize::from(point)).is_some_and(|p| p.since.0 == 0 || at.since(p.since) < ns)
    }

    /// Learns from a life that is over whether both directions pass here: `one_sided_view`.
    ///
    /// Peers: Zeek `possible_split_routing`, Arkime `no-syn-ack`.
    pub fn over(&mut self, life: &Life, out: &mut dyn FnMut(Anomaly)) {
        let point = life.point;
        let Some(p) = self.points.get_mut(usize::from(point)) else { return };
        // An originator that goes on past its SYN has heard an answer; a responder alone has heard a SYN.
        match life.packets.map(|n| n > 0) {
            [true, true] => p.both_ways += 1,
            [true, false] if life.went_on => p.one_way += 1,
            [false, true] => p.one_way += 1,
            _ => {}
        }
        if !p.told && self.one_sided(point) {
            let p = &mut self.points[usize::from(point)];
            p.told = true;
            let (one, both) = (p.one_way, p.both_ways);
            let text = format!(
                "of {} flows only one direction was seen, of {both} both: no verdict here rests on a missing answer",
                one
            );
            let facts = vec![("one_way", Fact::U64(one)), ("both_ways", Fact::U64(both))];
            out(anomaly(Kind::OneSidedView, point, (life.first, life.last), 1, text, facts));
        }
    }

    /// True if most flows of this tap point show one direction only.
    pub fn one_sided(&self, point: u8) -> bool {
        self.points.get(usize::from(point)).is_some_and(|p| {
            p.one_way >= ONE_SIDED && p.one_way * 100 >= (p.one_way + p.both_ways) * ONE_SIDED_SHARE
        })
    }

    /// What was counted and not told.
    pub fn finish(&mut self, out: &mut dyn FnMut(Anomaly)) {
        for (n, p) in self.points.iter().enumerate() {
            for (reason, c) in Malformed::ALL.iter().zip(&p.malformed).filter(|(_, c)| c.count > 0) {
                out(malformed(n as u8, *reason, *c));
            }
        }
    }
}

/// `invalid_flags`: a mixture that no stack sends.
///
/// Peers: Zeek history `q` and `i`, `TCP_christmas`, `baroque_SYN`; Snort SYN+FIN; nDPI NULL, FIN and XMAS scans.
pub fn invalid_flags(point: u8, tuple: Tuple, digest: &Digest) -> Anomaly {
    const FIN_PSH_URG: u16 = TcpFlags::FIN | TcpFlags::PSH | TcpFlags::URG;
    let f = digest.flags;
    let all = TcpFlags::SYN | TcpFlags::ACK | TcpFlags::FIN | TcpFlags::RST | TcpFlags::PSH | TcpFlags::URG;
    let name = match f.0 & all {
        0 => "null",
        FIN_PSH_URG => "xmas",
        TcpFlags::FIN => "fin",
        _ if f.all(TcpFlags::SYN | TcpFlags::FIN) => "syn_fin",
        _ if f.all(TcpFlags::SYN | TcpFlags::RST) => "syn_rst",
        _ => "mixture",
    };
    let verdict = match digest.from {
        Side::Orig => Verdict::Originator,
        Side::Resp => Verdict::Responder,
    };
    let text = format!("flags [{}] in one packet ({name}): no stack sends that", digest.flags);
    let facts = vec![("flags", Fact::Str(digest.flags.to_string().into())), ("name", Fact::Str(name.into()))];
    let a = anomaly(Kind::InvalidFlags, point, (digest.ts, digest.ts), 1, text, facts);
    Anomaly { tuple: Some(tuple), way: digest.way, verdict, packets: vec![*digest], ..a }
}
