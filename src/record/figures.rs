//! Figures of a stretch of time: how many connections a tap point or a responder saw, how long they took to open, and
//! which TCP flags went by. A line of its own kind among the records, so that what went wrong can be held against what
//! did not.
//!
//! It is no anomaly: its kind has no rule and `explain` does not list it. Readers leave it out unless it is asked for.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Context, Record, rfc3339};
use crate::flow::Endpoint;
use crate::wire::{Nanos, TcpFlags, Way};

/// The kind of such a record.
pub const FIGURES: &str = "figures";

/// What happened in a stretch of time.
#[derive(Clone, Debug, Default)]
pub struct FigureSet {
    /// From when
    pub first: Nanos,
    /// to when.
    pub last: Nanos,
    /// Where; `None` for a responder that was asked for by name.
    pub point: Option<u8>,
    /// That responder.
    pub responder: Option<Endpoint>,
    /// Attempts to open that ended, well or not.
    pub attempts: u64,
    /// Of these, answered with a SYN-ACK.
    pub handshakes: u64,
    /// Of these, such as led to nothing.
    pub failed: u64,
    /// Resets on open flows.
    pub resets: u64,
    /// Times from the first SYN to the SYN-ACK: upper bounds in microseconds as [`bucket`] gives them, and how many. Ascending.
    pub latencies: Vec<(u64, u64)>,
    /// The longest of them, microseconds.
    pub max_us: u64,
    /// Segments with these flags.
    pub flags: Vec<(Way, TcpFlags, u64)>,
}

/// The upper bound of the bucket that a time falls into: four buckets for each doubling, so that a percentile is known to a
/// fifth. A bucket's members are above the bound before it.
pub fn bucket(us: u64) -> u64 {
    let us = us.max(1);
    let below = 1u64 << us.ilog2();
    let bounds = [below, below + below / 4, below + below / 2, below + below * 3 / 4];
    bounds.into_iter().find(|&b| us <= b).unwrap_or(below * 2)
}

/// What a share (0 to 1) of the members of such buckets did not exceed, microseconds; `None` without any.
pub fn quantile(buckets: &BTreeMap<u64, u64>, share: f64) -> Option<u64> {
    let total: u128 = buckets.values().map(|&n| u128::from(n)).sum();
    let wanted = ((total as f64 * share).ceil() as u128).max(1);
    let mut sum = 0;
    buckets.iter().find_map(|(&us, &n)| {
        sum += u128::from(n);
        (sum >= wanted && total > 0).then_some(us)
    })
}

/// Microseconds in milliseconds, with two digits that count.
pub fn milliseconds(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.2}", us as f64 / 1e3),
        10_000..100_000 => format!("{:.1}", us as f64 / 1e3),
        _ => format!("{:.0}", us as f64 / 1e3),
    }
}

impl FigureSet {
    /// True if nothing happened.
    pub fn is_empty(&self) -> bool {
        self.attempts == 0 && self.resets == 0 && self.flags.is_empty()
    }

    /// As a record.
    pub fn record(&self, context: &Context) -> Record {
        let point = self.point.and_then(|p| context.interfaces.get(usize::from(p)));
        let buckets: BTreeMap<u64, u64> = self.latencies.iter().copied().collect();
        let of = |share| quantile(&buckets, share).map(|us| us.min(self.max_us.max(1)));
        let mono = context.clock_offset_ns;
        let mono = mono.and_then(|o| u64::try_from(i128::from(self.last.0) - i128::from(o)).ok());
        Record {
            kind: FIGURES.into(),
            severity: "info".into(),
            verdict: "unknown".into(),
            certainty: "proven".into(),
            summary: self.summary(context, of(0.5), of(0.99)),
            time: rfc3339(self.last),
            ts_ns: self.last.0,
            first_ns: self.first.0,
            last_ns: self.last.0,
            mono_ns: mono,
            count: 1,
            host: context.host.clone(),
            interface: point.map(|p| p.name.clone()),
            role: point.and_then(|p| p.role.clone()),
            direction: None,
            src_ip: None,
            src_port: None,
            dst_ip: self.responder.map(|r| r.addr.ip()),
            dst_port: self.responder.map(|r| r.port),
            vlan: None,
            tunnel: None,
            community_id: None,
            nat: None,
            history: None,
            conn_state: None,
            facts: self.facts(of),
            packets: Vec::new(),
            loss: None,
        }
    }

    fn summary(&self, context: &Context, median: Option<u64>, p99: Option<u64>) -> String {
        let place = match (self.responder, self.point) {
            (Some(r), _) => std::net::SocketAddr::new(r.addr.ip(), r.port).to_string(),
            (None, Some(p)) => {
                context.interfaces.get(usize::from(p)).map_or_else(String::new, |i| i.name.clone())
            }
            (None, None) => "all".into(),
        };
        let took = match median.zip(p99) {
            Some((m, p)) => format!(", SYN to SYN-ACK median {} p99 {} ms", milliseconds(m), milliseconds(p)),
            None => String::new(),
        };
        let seconds = self.last.since(self.first) as f64 / 1e9;
        format!(
            "{place}, {seconds:.0} s: {} handshakes of {} attempts, {} failed, {} resets{took}",
            self.handshakes, self.attempts, self.failed, self.resets
        )
    }

    fn facts(&self, quantile: impl Fn(f64) -> Option<u64>) -> Map<String, Value> {
        let mut facts = Map::new();
        let mut put = |name: &str, value: Value| facts.insert(name.to_owned(), value);
        put("attempts", self.attempts.into());
        put("handshakes", self.handshakes.into());
        put("failed", self.failed.into());
        put("resets", self.resets.into());
        put("median_us", quantile(0.5).into());
        put("p95_us", quantile(0.95).into());
        put("p99_us", quantile(0.99).into());
        put("max_us", (self.max_us > 0).then_some(self.max_us).into());
        put("latencies", self.latencies.iter().map(|&(us, n)| Value::from(vec![us, n])).collect());
        let mut ways = Map::new();
        for &(way, flags, n) in &self.flags {
            let way = ways.entry(way.name().unwrap_or("unknown")).or_insert_with(|| Map::new().into());
            if let Value::Object(way) = way {
                way.insert(flags.to_string(), n.into());
            }
        }
        put("flags", ways.into());
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_ascend_and_hold_what_falls_into_them() {
        let mut before = 0;
        for us in 1..100_000 {
            let b = bucket(us);
            assert!(b >= us && b >= before, "{us} in {b}");
            assert!(b as f64 <= us as f64 * 1.25 + 1.0, "{us} in {b}");
            before = b;
        }
        assert_eq!(bucket(0), 1);
        assert_eq!(bucket(200_000_000), 201_326_592);
    }

    #[test]
    fn a_share_of_nothing_is_nothing_and_of_one_is_that() {
        let mut all = BTreeMap::new();
        assert_eq!(quantile(&all, 0.5), None);
        all.insert(20, 1);
        assert_eq!((quantile(&all, 0.0), quantile(&all, 1.0)), (Some(20), Some(20)));
        all.insert(1_000, 99);
        assert_eq!((quantile(&all, 0.01), quantile(&all, 0.02)), (Some(20), Some(1_000)));
    }

    #[test]
    fn a_set_says_in_its_record_what_it_holds() {
        let set = FigureSet {
            last: Nanos(60 * Nanos::SEC),
            attempts: 3,
            handshakes: 2,
            failed: 1,
            latencies: vec![(20, 1), (1_024, 1)],
            max_us: 1_000,
            flags: vec![
                (Way::Ingress, TcpFlags(TcpFlags::SYN), 3),
                (Way::Unknown, TcpFlags(TcpFlags::RST), 1),
            ],
            ..FigureSet::default()
        };
        let r = set.record(&Context::default());
        assert_eq!(r.facts["flags"], serde_json::json!({"ingress": {"S": 3}, "unknown": {"R": 1}}));
        assert_eq!((&r.facts["median_us"], &r.facts["p99_us"]), (&20.into(), &1_000.into()));
        assert!(r.summary.contains("2 handshakes of 3 attempts, 1 failed") && r.summary.contains("0.02"));
    }
}
