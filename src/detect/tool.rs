//! What the tool says about itself: packets it lost, packets it shed. Always written.

use super::{Anomaly, Fact, Facts, Kind, Severity};
use crate::wire::Nanos;

/// What was lost in a gap, and so what it means to the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Packets that no rule saw.
    Packets,
    /// Records that could not be written.
    Records,
    /// Open connections, and such as were opening, that the flow table had no room for any more.
    Flows,
    /// Packets that the rules saw, and that are missing in the file of `--mirror-to`.
    Copies,
}

/// A stretch of time in which something was lost.
#[derive(Clone, Copy, Debug)]
pub struct Gap<'a> {
    /// What lost it, in words of the counters: `ring_full`, `clone_failed`, `writer_behind`, `disk_full`.
    pub cause: &'a str,
    /// Where: an interface, a ring, a directory.
    pub source: &'a str,
    /// The loss happened after this
    pub first: Nanos,
    /// and before this.
    pub last: Nanos,
    /// How many; `None` where nobody could count.
    pub count: Option<u64>,
    /// Of what.
    pub unit: Unit,
}

/// `capture_gap`.
///
/// Peers: Zeek `capture_loss`, Suricata `capture.kernel_drops`.
pub fn capture_gap(gap: &Gap<'_>) -> Anomaly {
    let Gap { cause, source, count, unit, .. } = *gap;
    let (word, meaning) = match unit {
        Unit::Packets => ("packet", "what rests on an absence in this time is uncertain"),
        Unit::Records => ("record", "what they told is not here"),
        Unit::Flows => (
            "flow",
            "the rest of these connections is not understood, and what rests on an absence is uncertain",
        ),
        Unit::Copies => ("packet", "they are missing in that file only, the records are whole"),
    };
    let summary = match count {
        Some(n) => {
            let (s, were) = if n == 1 { ("", "was") } else { ("s", "were") };
            format!("{n} {word}{s} {were} lost at {source} ({cause}): {meaning}")
        }
        None => {
            let s = gap.last.since(gap.first) as f64 / 1e9;
            format!("nothing was seen at {source} for {s:.1} s ({cause}): {meaning}")
        }
    };
    let facts = vec![
        ("cause", Fact::Str(cause.to_owned().into())),
        ("source", Fact::Str(source.to_owned().into())),
        ("count", count.map_or(Fact::Null, Fact::U64)),
    ];
    of_tool(Kind::CaptureGap, Severity::Warning, summary, gap.first, gap.last, facts)
}

/// A stretch of time in which the kernel side mirrored less of a tap point than was asked of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shed {
    /// Where.
    pub point: u8,
    /// Share of the tuples that the kernel side still mirrored at the worst moment seen, 0 to 1; `None` if it was not
    /// seen below 1: a burst that met the hard cap and was over before anybody looked.
    pub kept: Option<f64>,
    /// The same of tuples known to be open.
    pub kept_known: Option<f64>,
    /// Packets not mirrored, in the order of [`SHED_CLASSES`].
    pub packets: [u64; SHED_CLASSES.len()],
    /// Of these, of tuples known to be open.
    pub known: u64,
    /// Of these, beyond the hard cap: their tuples are not whole.
    pub hard: u64,
    /// The budget: packets a second and CPU,
    pub budget_pps: u64,
    /// and millionths of a CPU; `None` if no time is metered.
    pub budget_share: Option<u32>,
    /// From when
    pub first: Nanos,
    /// to when.
    pub last: Nanos,
}

/// Classes of packets that are shed, as the kernel side counts them.
pub const SHED_CLASSES: [&str; 5] = ["syn", "control", "watch", "neighbour", "icmp"];

/// `budget_shed`.
///
/// Peers: Suricata's flow bypass and memcap counters are the nearest.
pub fn budget_shed(shed: &Shed) -> Anomaly {
    let packets = shed.packets.iter().sum();
    let (s, were) = if packets == 1 { ("", "was") } else { ("s", "were") };
    let tuples = match shed.kept {
        Some(kept) => format!("{:.0} % of the new tuples were still followed", kept * 100.0),
        None => "a burst beyond what one window of 10 ms allows".to_owned(),
    };
    let known = match shed.known {
        0 => "none of a known connection".to_owned(),
        n => format!("{n} of known connections"),
    };
    let summary =
        format!("{packets} packet{s} {were} not mirrored, to stay within the budget, {known}: {tuples}");
    let share = |share: Option<f64>| share.map_or(Fact::Null, Fact::F64);
    let mut facts = vec![
        ("threshold", share(shed.kept)),
        // The kernel side counts packets. To count tuples it would need a table of those it has no budget for.
        ("tuples", Fact::Null),
        ("packets", Fact::U64(packets)),
        ("packets_of_broken_tuples", Fact::U64(shed.hard)),
        ("threshold_known", share(shed.kept_known)),
        ("packets_of_known_tuples", Fact::U64(shed.known)),
    ];
    facts.extend(SHED_CLASSES.into_iter().zip(shed.packets.map(Fact::U64)));
    facts.push(("budget_pps", Fact::U64(shed.budget_pps)));
    facts.push(("budget_share", share(shed.budget_share.map(|millionths| f64::from(millionths) / 1e6))));
    Anomaly {
        point: Some(shed.point),
        ..of_tool(Kind::BudgetShed, Severity::Warning, summary, shed.first, shed.last, facts)
    }
}

/// `conntrack_event_loss`: the kernel had no room for `count` events between `first` and `last`; `found` entries were listed after.
pub fn conntrack_event_loss(count: u64, found: Option<u64>, first: Nanos, last: Nanos) -> Anomaly {
    let (s, were) = if count == 1 { ("", "was") } else { ("s", "were") };
    let after = match found {
        Some(n) => format!("; the {n} open and translated entries there are were listed instead"),
        None => String::new(),
    };
    let summary = format!(
        "{count} event{s} of connection tracking {were} lost: a mapping that was lost in this time may go unseen{after}"
    );
    let facts = vec![("count", Fact::U64(count)), ("found", found.map_or(Fact::Null, Fact::U64))];
    of_tool(Kind::ConntrackEventLoss, Severity::Warning, summary, first, last, facts)
}

fn of_tool(
    kind: Kind,
    severity: Severity,
    summary: String,
    first: Nanos,
    last: Nanos,
    facts: Facts,
) -> Anomaly {
    Anomaly { severity, facts, ..Anomaly::new(kind, summary, first, last) }
}
