//! From records to an answer: what is wrong, how often, since when, whose doing.
//!
//! Bounded memory however many records: counts by kind, the busiest responders and originator networks, a timeline
//! that halves its resolution when it grows too long, one example a kind.

mod short;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde_json::Value;

use crate::detect::{Certainty, Kind, Severity};
use crate::record::Record;

pub use short::Short;

/// Responders and originator networks counted apart for each kind; the rest is one row.
const PLACES: usize = 1024;

/// Cells of a timeline.
pub const CELLS: usize = 60;

/// Counts by name, bounded.
#[derive(Clone, Debug, Default)]
pub struct Top {
    counts: HashMap<String, u64>,
    others: u64,
}

impl Top {
    fn add(&mut self, name: String, count: u64) {
        if self.counts.len() >= PLACES && !self.counts.contains_key(&name) {
            self.others += count;
        } else {
            *self.counts.entry(name).or_default() += count;
        }
    }

    /// True if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// True if this name was counted.
    pub fn has(&self, name: &str) -> bool {
        self.counts.contains_key(name)
    }

    /// How often this name was.
    pub fn count_of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// All names counted apart.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.counts.keys().map(String::as_str)
    }

    /// The `n` largest, then what is left of all others together.
    pub fn rows(&self, n: usize) -> (Vec<(&str, u64)>, u64) {
        let mut rows: Vec<_> = self.counts.iter().map(|(k, &v)| (k.as_str(), v)).collect();
        rows.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let rest = rows.iter().skip(n).map(|r| r.1).sum::<u64>() + self.others;
        rows.truncate(n);
        (rows, rest)
    }
}

/// When things happened: equal cells from the first record on, merged in pairs when they run out.
#[derive(Clone, Debug)]
pub struct Timeline {
    start: u64,
    cell_ns: u64,
    counts: [u64; CELLS],
}

impl Timeline {
    /// From `start` on, a second a cell.
    fn new(start: u64) -> Timeline {
        Timeline { start, cell_ns: 1_000_000_000, counts: [0; CELLS] }
    }

    fn add(&mut self, at: u64, count: u64) {
        // Records come nearly in order; one from before the start counts into the first cell.
        let since = at.saturating_sub(self.start);
        while since / self.cell_ns >= CELLS as u64 {
            for i in 0..CELLS {
                let pair = |n: usize| self.counts.get(n).copied().unwrap_or(0);
                self.counts[i] = pair(2 * i) + pair(2 * i + 1);
            }
            self.cell_ns *= 2;
        }
        self.counts[(since / self.cell_ns) as usize] += count;
    }

    /// The cells up to `end`, and the length of one in nanoseconds.
    pub fn cells(&self, end: u64) -> (&[u64], u64) {
        let used = (end.saturating_sub(self.start) / self.cell_ns + 1).min(CELLS as u64);
        (&self.counts[..used as usize], self.cell_ns)
    }
}

/// What is known of one kind.
#[derive(Clone, Debug)]
pub struct Cause {
    /// The kind.
    pub kind: Kind,
    /// Occurrences.
    pub count: u64,
    /// Worst severity.
    pub severity: Severity,
    /// First occurrence, ns since the epoch.
    pub first_ns: u64,
    /// Last one.
    pub last_ns: u64,
    /// By verdict.
    pub verdicts: Top,
    /// By responder.
    pub responders: Top,
    /// By originator network (/24 or /64).
    pub originators: Top,
    /// By interface.
    pub interfaces: Top,
    /// By role of the interface.
    roles: Top,
    /// By the address that it is about, where that is no responder (ARP).
    subjects: Top,
    /// By the kind that the record itself names as what lies behind it.
    linked: Top,
    /// When.
    pub timeline: Timeline,
    /// The best proven, most severe record, the first of equals.
    pub example: Box<Record>,
}

/// What syntap itself lost or shed by one cause at one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnLoss {
    /// Records of it.
    pub times: u64,
    /// Packets (of `disk_full`: records), as far as anybody counted.
    pub count: u64,
    /// First moment, ns since the epoch.
    pub first_ns: u64,
    /// Last one.
    pub last_ns: u64,
}

/// The answer, as it grows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    causes: HashMap<Kind, Cause>,
    /// What syntap lost and shed, by cause and place; `budget_shed` has no place.
    pub own: BTreeMap<(String, String), OwnLoss>,
    /// Records of kinds that this version does not know.
    pub unknown: u64,
    /// Records.
    pub records: u64,
    /// First and last moment of all records, ns since the epoch.
    pub span: Option<(u64, u64)>,
}

impl Cause {
    /// Connections hurt, as far as counts tell: what was seen on both sides of a gateway is one.
    fn connections(&self) -> u64 {
        let (inside, outside) = (self.roles.count_of("inside"), self.roles.count_of("outside"));
        inside.max(outside) + self.count.saturating_sub(inside + outside)
    }

    /// A fact of the example: a word.
    fn fact_text(&self, name: &str) -> Option<&str> {
        self.example.facts.get(name).and_then(Value::as_str)
    }

    /// A fact of the example: a list of words.
    fn fact_list(&self, name: &str) -> Vec<&str> {
        let list = self.example.facts.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// A fact of the example: a number, or 0.
    fn fact_number(&self, name: &str) -> u64 {
        self.example.facts.get(name).and_then(Value::as_u64).unwrap_or(0)
    }
}

fn network(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            format!("{}/64", std::net::Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0))
        }
    }
}

impl Report {
    /// Takes one record.
    pub fn add(&mut self, r: Record) {
        self.records += 1;
        let span = self.span.get_or_insert((r.first_ns, r.last_ns));
        *span = (span.0.min(r.first_ns), span.1.max(r.last_ns));
        let start = span.0;
        let (Some(kind), Some(severity)) = (Kind::from_name(&r.kind), Severity::from_name(&r.severity))
        else {
            self.unknown += 1;
            return;
        };
        if matches!(kind, Kind::CaptureGap | Kind::BudgetShed) {
            self.add_own(kind, &r);
        }
        let rank = |r: &Record| (Severity::from_name(&r.severity), Certainty::from_name(&r.certainty));
        let c = self.causes.entry(kind).or_insert_with(|| Cause {
            kind,
            count: 0,
            severity,
            first_ns: r.first_ns,
            last_ns: r.last_ns,
            verdicts: Top::default(),
            responders: Top::default(),
            originators: Top::default(),
            interfaces: Top::default(),
            roles: Top::default(),
            subjects: Top::default(),
            linked: Top::default(),
            timeline: Timeline::new(start),
            example: Box::new(r.clone()),
        });
        c.count += r.count;
        c.severity = c.severity.max(severity);
        c.first_ns = c.first_ns.min(r.first_ns);
        c.last_ns = c.last_ns.max(r.last_ns);
        c.verdicts.add(r.verdict.to_string(), r.count);
        if let (Some(ip), Some(port)) = (r.dst_ip, r.dst_port) {
            c.responders.add(std::net::SocketAddr::new(ip, port).to_string(), r.count);
        }
        if let Some(ip) = r.src_ip {
            c.originators.add(network(ip), r.count);
        }
        if let Some(i) = &r.interface {
            c.interfaces.add(i.clone(), r.count);
        }
        if let Some(role) = &r.role {
            c.roles.add(role.clone(), r.count);
        }
        let text = |name: &str| r.facts.get(name).and_then(Value::as_str).map(str::to_owned);
        if let Some(address) = text("request") {
            c.subjects.add(address, r.count);
        }
        if let Some(kind) = text("link") {
            c.linked.add(kind, r.count);
        }
        c.timeline.add(r.first_ns, r.count);
        if rank(&r) > rank(&c.example) {
            *c.example = r;
        }
    }

    fn add_own(&mut self, kind: Kind, r: &Record) {
        let text = |name: &str| r.facts.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let number = |name: &str| r.facts.get(name).and_then(Value::as_u64).unwrap_or(0);
        let (key, count) = match kind {
            Kind::BudgetShed => ((kind.name().to_owned(), String::new()), number("packets")),
            _ => ((text("cause"), text("source")), number("count")),
        };
        // Places are few, but a file may claim any number of them.
        if self.own.len() >= PLACES && !self.own.contains_key(&key) {
            return;
        }
        let own = self.own.entry(key).or_insert(OwnLoss { first_ns: r.first_ns, ..OwnLoss::default() });
        own.times += r.count;
        own.count += count;
        own.first_ns = own.first_ns.min(r.first_ns);
        own.last_ns = own.last_ns.max(r.last_ns);
    }

    /// Causes, the worst first: by severity, then by count.
    pub fn causes(&self) -> Vec<&Cause> {
        let mut all: Vec<&Cause> = self.causes.values().collect();
        all.sort_by_key(|c| (std::cmp::Reverse(c.severity), std::cmp::Reverse(c.count), c.kind));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_keeps_every_count_when_it_grows() {
        let mut t = Timeline::new(0);
        for s in 0..10_000u64 {
            t.add(s * 1_000_000_000, 1);
        }
        let (cells, cell) = t.cells(9_999_000_000_000);
        assert_eq!(cells.iter().sum::<u64>(), 10_000);
        assert!(cells.len() <= CELLS && cell == 256_000_000_000, "{cell}");
    }

    #[test]
    fn names_beyond_the_bound_are_counted_together() {
        let mut t = Top::default();
        for n in 0..PLACES + 10 {
            t.add(n.to_string(), 2);
        }
        let (rows, rest) = t.rows(3);
        assert_eq!(rows.len(), 3);
        assert_eq!(rest, (PLACES as u64 + 10 - 3) * 2);
    }
}
