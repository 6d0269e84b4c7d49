//! What the tool says about itself: packets it lost, packets it shed. Always written.

use super::{Anomaly, Certainty, Fact, Facts, Kind, Severity, Verdict};
use crate::wire::{Nanos, Way};

/// A stretch of time in which packets were lost.
#[derive(Clone, Copy, Debug)]
pub struct Gap<'a> {
    /// What lost them, in words of the counters: `xsk_ring_full`, `clone_failed`, `writer_behind`.
    pub cause: &'a str,
    /// Where: an interface, a ring.
    pub source: &'a str,
    /// The loss happened after this
    pub first: Nanos,
    /// and before this.
    pub last: Nanos,
    /// Packets.
    pub count: u64,
}

/// `capture_gap`.
pub fn capture_gap(gap: &Gap<'_>) -> Anomaly {
    let summary = format!(
        "{} packets were lost at {} ({}): what rests on an absence in this time is uncertain",
        gap.count, gap.source, gap.cause
    );
    let facts = vec![
        ("cause", Fact::Str(gap.cause.to_owned().into())),
        ("source", Fact::Str(gap.source.to_owned().into())),
        ("count", Fact::U64(gap.count)),
    ];
    of_tool(Kind::CaptureGap, Severity::Warning, summary, gap.first, gap.last, facts)
}

/// A stretch of time in which the kernel side mirrored less than was asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Shed {
    /// Share of the tuples that were still mirrored at the worst moment, 0 to 1.
    pub kept: f64,
    /// Packets not mirrored.
    pub packets: u64,
    /// Of these, beyond the hard cap: their tuples are not whole.
    pub hard: u64,
    /// From when
    pub first: Nanos,
    /// to when.
    pub last: Nanos,
}

/// `budget_shed`.
pub fn budget_shed(shed: &Shed) -> Anomaly {
    let summary = format!(
        "{} packets were not mirrored, to stay within the budget: {:.0} % of the tuples were still followed",
        shed.packets,
        shed.kept * 100.0
    );
    let facts = vec![
        ("threshold", Fact::F64(shed.kept)),
        ("packets", Fact::U64(shed.packets)),
        ("packets_of_broken_tuples", Fact::U64(shed.hard)),
    ];
    of_tool(Kind::BudgetShed, Severity::Warning, summary, shed.first, shed.last, facts)
}

fn of_tool(
    kind: Kind,
    severity: Severity,
    summary: String,
    first: Nanos,
    last: Nanos,
    facts: Facts,
) -> Anomaly {
    Anomaly {
        kind,
        severity,
        verdict: Verdict::Unknown,
        certainty: Certainty::Proven,
        summary,
        time: last,
        first,
        last,
        count: 1,
        point: None,
        way: Way::Unknown,
        tuple: None,
        vlan: None,
        tunnel: None,
        history: String::new(),
        conn_state: "",
        facts,
        packets: Vec::new(),
    }
}
