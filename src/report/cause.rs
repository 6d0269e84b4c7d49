//! What is known of one kind: how often, whom it hurt and for how long, where, whose doing, and an example.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::line::{Facts, Line};
use super::sightings::Sightings;
use super::timeline::Timeline;
use super::top::Top;
use super::words::plus;
use crate::detect::{Certainty, HURT_AFTER, Kind, Severity, Verdict};
use crate::record::Record;

/// A network of originators: /24, or /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net(IpAddr);

impl Net {
    pub(super) fn of(ip: IpAddr) -> Net {
        Net(match ip {
            IpAddr::V4(v4) => (u32::from(v4) & !0xff).to_be_bytes().into(),
            IpAddr::V6(v6) => (u128::from(v6) & !u128::from(u64::MAX)).to_be_bytes().into(),
        })
    }
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0, if self.0.is_ipv4() { 24 } else { 64 })
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
    /// By verdict, as [`Verdict::ALL`] has them.
    pub(super) verdicts: [u64; Verdict::ALL.len()],
    /// By certainty: possible, likely, proven.
    pub certainties: [u64; 3],
    /// By responder.
    pub responders: Top<SocketAddr>,
    /// By originator network (/24 or /64).
    pub originators: Top<Net>,
    /// By originator.
    pub hosts: Top<IpAddr>,
    /// By interface.
    pub interfaces: Top<String>,
    /// By the gateway's address outside, of translated connections.
    pub nat: Top<IpAddr>,
    /// Connections, seen wherever they were; and those of them whose trouble lasted for a second or more, that opened in the end, and
    /// that did not as far as one record tells.
    pub(super) sightings: Sightings,
    pub(super) slow: Sightings,
    pub(super) opened: Sightings,
    pub(super) failed: Sightings,
    /// The longest from the first packet of one to its end, ns.
    pub(super) longest_ns: u64,
    /// By the address that it is about, where that is no responder (ARP).
    pub subjects: Top<String>,
    /// By the kind that the record itself names as what lies behind it.
    pub(super) linked: Top<String>,
    /// When.
    pub timeline: Timeline<u64>,
    /// The most severe and best proven record of each verdict, the earliest of equals.
    pub(super) examples: [Option<(Rank, Box<Record>)>; Verdict::ALL.len()],
}

/// What makes a record the better example: severity, certainty, earliness.
type Rank = (Severity, Certainty, std::cmp::Reverse<u64>);

impl Cause {
    pub(super) fn new(kind: Kind) -> Cause {
        Cause {
            kind,
            count: 0,
            severity: Severity::Info,
            first_ns: u64::MAX,
            last_ns: 0,
            verdicts: [0; Verdict::ALL.len()],
            certainties: [0; 3],
            responders: Top::default(),
            originators: Top::default(),
            hosts: Top::default(),
            interfaces: Top::default(),
            nat: Top::default(),
            sightings: Sightings::default(),
            slow: Sightings::default(),
            opened: Sightings::default(),
            failed: Sightings::default(),
            longest_ns: 0,
            subjects: Top::default(),
            linked: Top::default(),
            timeline: Timeline::default(),
            examples: Default::default(),
        }
    }

    /// True for what syntap says of itself.
    pub fn is_own(&self) -> bool {
        matches!(self.kind, Kind::CaptureGap | Kind::BudgetShed)
    }

    /// Occurrences by verdict, the frequent ones first; none that did not occur.
    pub fn verdicts(&self) -> Vec<(Verdict, u64)> {
        let all = Verdict::ALL.iter().copied().zip(self.verdicts);
        let mut rows: Vec<_> = all.filter(|&(_, n)| n > 0).collect();
        rows.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        rows
    }

    /// The originators, if a few of them are most of it; else their networks say more.
    pub fn few_hosts(&self) -> Option<&Top<IpAddr>> {
        let (rows, rest) = self.hosts.rows(4);
        (rows.iter().map(|r| r.1).sum::<u64>() > rest).then_some(&self.hosts)
    }

    /// Whose doing it mostly is.
    pub fn mostly(&self) -> Verdict {
        self.verdicts().first().map_or(Verdict::Unknown, |v| v.0)
    }

    /// Connections hurt, as far as counts tell: one that was seen at several places is one.
    pub fn connections(&self) -> u64 {
        self.sightings.connections()
    }

    /// How many opened in the end: an attempt that failed at one place or under one translation may be followed by one that did not.
    pub(super) fn opened(&self, hurt: u64) -> u64 {
        self.opened.connections().min(hurt)
    }

    /// How many did not, nor did what came after on the same tuple.
    pub(super) fn failed(&self, hurt: u64) -> u64 {
        self.failed.without(&self.opened).min(hurt - self.opened(hurt))
    }

    /// What became of those that it hurt while they opened; `None` where nothing tells.
    pub(super) fn became(&self, hurt: u64) -> Option<String> {
        let (opened, failed) = (self.opened(hurt), self.failed(hurt));
        Some(match (opened, failed, hurt - opened - failed) {
            (0, 0, _) => return None,
            (1, 0, 0) => "it opened in the end".into(),
            (_, 0, 0) => "all opened in the end".into(),
            (0, 1, 0) => "it never opened".into(),
            (0, _, 0) => "none of them opened".into(),
            (_, _, 0) => format!("{opened} opened in the end, {failed} never"),
            (_, 0, rest) => format!("{opened} opened in the end, of {rest} no record tells"),
            (0, _, rest) => format!("{failed} never opened, of {rest} no record tells"),
            (_, _, rest) => format!("{opened} opened in the end, {failed} never, of {rest} no record tells"),
        })
    }

    /// One of them: of whom it mostly is the doing, if there is none more severe.
    pub fn example(&self) -> Option<&Record> {
        let all = || self.examples.iter().flatten();
        let worst = all().map(|e| e.0.0).max()?;
        let usual = self.examples[self.mostly() as usize].as_ref().filter(|e| e.0.0 == worst);
        usual.or_else(|| all().max_by_key(|e| e.0)).map(|e| &*e.1)
    }

    /// A fact of the example.
    pub(super) fn fact(&self, name: &str) -> Option<&Value> {
        self.example()?.facts.get(name)
    }

    /// A fact of the example: a word.
    pub(super) fn fact_text(&self, name: &str) -> Option<&str> {
        self.fact(name).and_then(Value::as_str)
    }

    /// A fact of the example: a list of words.
    pub(super) fn fact_list(&self, name: &str) -> Vec<&str> {
        let list = self.fact(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// A fact of the example: a number, or 0.
    pub(super) fn fact_number(&self, name: &str) -> u64 {
        self.fact(name).and_then(Value::as_u64).unwrap_or(0)
    }

    pub(super) fn add(&mut self, r: &Line<'_>, severity: Severity, facts: &Facts<'_>) {
        plus(&mut self.count, r.count);
        self.severity = self.severity.max(severity);
        self.first_ns = self.first_ns.min(r.first_ns);
        self.last_ns = self.last_ns.max(r.last_ns);
        let verdict = Verdict::from_name(&r.verdict.0).unwrap_or(Verdict::Unknown);
        plus(&mut self.verdicts[verdict as usize], r.count);
        let certainty = Certainty::from_name(&r.certainty.0).unwrap_or(Certainty::Possible);
        plus(&mut self.certainties[certainty as usize], r.count);
        if let (Some(ip), Some(port)) = (r.dst_ip, r.dst_port) {
            self.responders.add(SocketAddr::new(ip, port), r.count);
        }
        if let Some(i) = &r.interface {
            self.interfaces.add_ref(i.0.as_ref(), r.count);
        }
        let outside = r.role.as_ref().is_some_and(|role| role.0 == "outside");
        // Outside the source is the gateway's; whose connection it is the inside tells.
        let (originator, nat) = match &r.nat {
            Some(nat) if outside => (Some(nat.src_ip), r.src_ip),
            nat => (r.src_ip, nat.as_ref().map(|n| n.src_ip)),
        };
        if let Some(ip) = originator {
            self.originators.add(Net::of(ip), r.count);
            self.hosts.add(ip, r.count);
        }
        if let Some(address) = nat {
            self.nat.add(address, r.count);
        }
        self.sightings.add(r);
        let lasted = r.last_ns.saturating_sub(r.first_ns);
        // What stands for many lasted as long as all of them together.
        if r.count == 1 && r.src_ip.is_some() {
            self.longest_ns = self.longest_ns.max(lasted);
            if lasted >= HURT_AFTER {
                self.slow.add(r);
            }
        }
        match facts.opened().filter(|_| r.src_ip.is_some()) {
            Some(true) => self.opened.add(r),
            Some(false) => self.failed.add(r),
            None => {}
        }
        if let Some(address) = facts.request() {
            self.subjects.add_ref(address.as_ref(), r.count);
        }
        if let Some(kind) = facts.link() {
            self.linked.add_ref(kind.as_ref(), r.count);
        }
        plus(self.timeline.at(r.first_ns), r.count);
    }

    pub(super) fn merge(&mut self, o: Cause) {
        plus(&mut self.count, o.count);
        self.severity = self.severity.max(o.severity);
        self.first_ns = self.first_ns.min(o.first_ns);
        self.last_ns = self.last_ns.max(o.last_ns);
        self.verdicts.iter_mut().zip(o.verdicts).for_each(|(a, b)| plus(a, b));
        self.certainties.iter_mut().zip(o.certainties).for_each(|(a, b)| plus(a, b));
        self.responders.merge(o.responders);
        self.originators.merge(o.originators);
        self.hosts.merge(o.hosts);
        self.interfaces.merge(o.interfaces);
        self.nat.merge(o.nat);
        self.sightings.merge(o.sightings);
        self.slow.merge(o.slow);
        self.opened.merge(o.opened);
        self.failed.merge(o.failed);
        self.longest_ns = self.longest_ns.max(o.longest_ns);
        self.subjects.merge(o.subjects);
        self.linked.merge(o.linked);
        self.timeline.merge(o.timeline);
        for (mine, theirs) in self.examples.iter_mut().zip(o.examples) {
            if theirs.as_ref().map(|e| e.0) > mine.as_ref().map(|e| e.0) {
                *mine = theirs;
            }
        }
    }
}
