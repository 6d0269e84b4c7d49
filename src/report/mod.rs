//! From records to an answer: what is wrong, how often, since when, whose doing.
//!
//! Bounded memory however many records: counts by kind, the busiest responders and originator networks, timelines that grow
//! coarser as they grow longer, one example a kind. Two reports over parts of the records add up to that over all of them.

mod cause;
mod figures;
pub mod flags;
pub mod html;
pub mod json;
mod line;
mod reuse;
mod short;
mod sightings;
mod timeline;
mod top;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::detect::{Certainty, Kind, Severity, Verdict};
use crate::record::{FIGURES, Record};
use crate::wire::Nanos;

pub use cause::{Cause, Net};
pub use figures::{Figures, Opened, Place};
pub use line::{Facts, Line};
pub use reuse::{AGES, Ages};
pub use short::{Sentence, Short};
use sightings::Sightings;
pub use timeline::{Axis, CELLS, Cell, Timeline};
pub use top::Top;
use words::plus;
pub use words::{WORDS, chosen_words, fact_text, lost_words, many, packet_line, time};

/// Places at which syntap itself may lose something, and hosts: they are few, but a file may claim any number.
const PLACES: usize = 1024;

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
    /// By kind, and whether it is above `info`: what hurt nobody is no part of what hurt somebody.
    causes: HashMap<(Kind, bool), Cause>,
    /// What syntap lost and shed, by cause and place; `budget_shed` has no place.
    pub own: BTreeMap<(String, String), OwnLoss>,
    /// Records of kinds that this version does not know.
    pub unknown: u64,
    /// Records, those of figures apart.
    pub records: u64,
    /// Records, and figures, that were not chosen.
    pub left_out: u64,
    /// First and last moment of all records, those of figures too, ns since the epoch.
    pub span: Option<(u64, u64)>,
    /// Machines that the records come from.
    pub hosts: BTreeSet<String>,
    /// How old tuples were when they were used again.
    pub ages: Ages,
    /// What there was besides trouble.
    pub figures: Figures,
}

/// A cause in its place among all.
#[derive(Clone, Copy, Debug)]
pub struct Ranked<'a> {
    /// The cause.
    pub cause: &'a Cause,
    /// Connections it hurt, as far as counts tell.
    pub hurt: u64,
    /// What tells of them: the cause itself, or, where that names no connection, what came of it.
    told: Option<&'a Cause>,
    /// The kind whose consequence it is.
    pub follows: Option<Kind>,
}

impl Ranked<'_> {
    /// How many connections it hurt, for how long, and what became of them.
    pub fn hurt_words(&self) -> String {
        let hurt = self.hurt;
        let connections = many(hurt, "connection");
        let Some(told) = self.told else { return connections };
        let became = told.became(hurt).map_or_else(String::new, |words| format!("; {words}"));
        match (told.slow.connections().min(hurt), told.longest_ns / 1_000_000) {
            (_, 0) => format!("{connections}{became}"),
            (0, ms) => format!("{connections}, for {ms} ms at most{became}"),
            (n, ms) if n == hurt => {
                format!("{connections}, for a second or more, {} s at most{became}", ms as f64 / 1e3)
            }
            (n, ms) => {
                format!(
                    "{connections}, {n} of them for a second or more, {} s at most{became}",
                    ms as f64 / 1e3
                )
            }
        }
    }
}

impl Report {
    /// Takes one record as a shard has it; `chosen` may leave it out. False if it is no record of this version.
    pub fn line(&mut self, raw: &[u8], chosen: impl FnOnce(&Line<'_>) -> bool) -> bool {
        let Some(r) = Line::read(raw) else { return false };
        match chosen(&r) {
            true => self.take(&r, || serde_json::from_slice(raw).ok()),
            false => self.left_out += 1,
        }
        true
    }

    /// Takes one record.
    pub fn add(&mut self, r: &Record) {
        let mut raw = Vec::new();
        r.write_line(&mut raw);
        self.line(&raw, |_| true);
    }

    fn take(&mut self, r: &Line<'_>, whole: impl FnOnce() -> Option<Record>) {
        let span = self.span.get_or_insert((r.first_ns, r.last_ns));
        *span = (span.0.min(r.first_ns), span.1.max(r.last_ns));
        if !self.hosts.contains(r.host.0.as_ref()) && self.hosts.len() < PLACES {
            self.hosts.insert(r.host.0.clone().into_owned());
        }
        if r.kind.0 == FIGURES {
            return self.figures.add(r);
        }
        self.records += 1;
        let (Some(kind), Some(severity)) = (Kind::from_name(&r.kind.0), Severity::from_name(&r.severity.0))
        else {
            self.unknown += 1;
            return;
        };
        let facts = r.facts();
        if matches!(kind, Kind::CaptureGap | Kind::BudgetShed) {
            self.add_own(kind, r, &facts);
        }
        self.ages.add(kind, r.count, &facts);
        let loud = severity > Severity::Info;
        let c = self.causes.entry((kind, loud)).or_insert_with(|| Cause::new(kind));
        c.add(r, severity, &facts);
        // The last of many that were counted is no better an example than one of the first.
        let certainty = Certainty::from_name(&r.certainty.0).unwrap_or(Certainty::Possible);
        let rank = (severity, certainty, std::cmp::Reverse(r.first_ns));
        let verdict = Verdict::from_name(&r.verdict.0).unwrap_or(Verdict::Unknown);
        let best = &mut c.examples[verdict as usize];
        if best.as_ref().is_none_or(|b| rank > b.0 && !facts.is_sum())
            && let Some(record) = whole()
        {
            *best = Some((rank, Box::new(record)));
        }
    }

    fn add_own(&mut self, kind: Kind, r: &Line<'_>, facts: &Facts<'_>) {
        let (key, count) = match kind {
            Kind::BudgetShed => ((kind.name().to_owned(), String::new()), facts.packets()),
            _ => ((facts.cause().into_owned(), facts.source().into_owned()), facts.count()),
        };
        let loss = OwnLoss { times: r.count, count, first_ns: r.first_ns, last_ns: r.last_ns };
        self.merge_own(key, &loss);
    }

    fn merge_own(&mut self, key: (String, String), o: &OwnLoss) {
        if self.own.len() >= PLACES && !self.own.contains_key(&key) {
            return;
        }
        let own = self.own.entry(key).or_insert(OwnLoss { first_ns: o.first_ns, ..OwnLoss::default() });
        plus(&mut own.times, o.times);
        plus(&mut own.count, o.count);
        own.first_ns = own.first_ns.min(o.first_ns);
        own.last_ns = own.last_ns.max(o.last_ns);
    }

    /// Adds a report over other records.
    pub fn merge(&mut self, other: Report) {
        self.records += other.records;
        self.left_out += other.left_out;
        self.unknown += other.unknown;
        if let Some(theirs) = other.span {
            let span = self.span.get_or_insert(theirs);
            *span = (span.0.min(theirs.0), span.1.max(theirs.1));
        }
        let room = PLACES.saturating_sub(self.hosts.len());
        self.hosts.extend(other.hosts.into_iter().take(room));
        self.ages.merge(&other.ages);
        self.figures.merge(other.figures);
        other.own.into_iter().for_each(|(key, own)| self.merge_own(key, &own));
        for (kind, cause) in other.causes {
            match self.causes.entry(kind) {
                std::collections::hash_map::Entry::Occupied(mut mine) => mine.get_mut().merge(cause),
                std::collections::hash_map::Entry::Vacant(room) => {
                    room.insert(cause);
                }
            }
        }
    }

    /// Causes, the worst first: by severity, then by count.
    pub fn causes(&self) -> Vec<&Cause> {
        let mut all: Vec<&Cause> = self.causes.values().collect();
        all.sort_by_key(|c| (std::cmp::Reverse(c.severity), std::cmp::Reverse(c.count), c.kind));
        all
    }

    /// Causes above `info`, what syntap says of itself apart: by the connections they hurt, and after them what follows from them.
    pub fn ranked(&self) -> Vec<Ranked<'_>> {
        let loud: Vec<&Cause> =
            self.causes().into_iter().filter(|c| c.severity > Severity::Info && !c.is_own()).collect();
        let root = |c: &Cause| {
            let of = loud.iter().filter(|r| r.kind != c.kind && short::follows(c, r));
            // The gateway's own reset is a root where no lost translation explains it.
            of.min_by_key(|r| r.kind == Kind::ResetByGateway).map(|r| r.kind)
        };
        // Those of what names no connection itself are those of what came of it.
        let whose = |c: &'_ Cause| match c.responders.is_empty() {
            false => loud.iter().find(|o| o.kind == c.kind),
            true => {
                let came = loud.iter().filter(|o| o.kind != c.kind && short::follows(o, c));
                came.max_by_key(|o| (o.connections(), o.slow.connections()))
            }
        };
        let ranked = |&cause| {
            let told = whose(cause).copied();
            let hurt = told.map_or(0, Cause::connections);
            Ranked { cause, hurt, told, follows: root(cause) }
        };
        let mut all: Vec<Ranked<'_>> = loud.iter().map(ranked).collect();
        all.sort_by_key(|r| {
            let Ranked { cause, hurt, follows, .. } = r;
            (follows.is_some(), std::cmp::Reverse((*hurt, cause.severity, cause.count)), cause.kind)
        });
        all
    }

    /// How many causes hurt how many connections.
    pub fn hurt_in_all(&self) -> String {
        let (causes, hurt) = self.hurt();
        let causes = many(causes, "cause");
        let twice = self.hurt_twice().map_or_else(String::new, |w| format!(", {w}"));
        match hurt {
            0 => format!("{causes}, and nobody is hurt yet"),
            n => format!("{causes} hurt {}{twice}", many(n, "connection")),
        }
    }

    /// Causes that follow from no other, and the connections they hurt.
    pub fn hurt(&self) -> (u64, u64) {
        let (mut causes, mut sum) = (0, 0);
        for r in self.ranked().iter().filter(|r| r.follows.is_none()) {
            causes += 1;
            plus(&mut sum, r.hurt);
        }
        (causes, sum)
    }

    /// Whether two causes hurt the same connections, where there are two.
    pub fn hurt_twice(&self) -> Option<String> {
        let ranked = self.ranked();
        let roots = ranked.iter().filter(|r| r.follows.is_none());
        let roots: Vec<&Sightings> =
            roots.filter(|r| r.hurt > 0).filter_map(|r| r.told).map(|c| &c.sightings).collect();
        let mut twice = 0;
        for (n, a) in roots.iter().enumerate() {
            roots[n + 1..].iter().for_each(|b| plus(&mut twice, a.shared(b)));
        }
        (roots.len() > 1).then(|| match twice {
            0 => "none by two causes".to_owned(),
            n => format!("on {} by two causes", many(n, "tuple")),
        })
    }

    /// What nobody was hurt by, the frequent kinds first.
    pub fn quiet(&self) -> Vec<&Cause> {
        self.causes().into_iter().filter(|c| c.severity == Severity::Info && !c.is_own()).collect()
    }

    /// Whether a cause, or something that is part of it, goes on, as far as records tell. Of what is part of another one that one tells: much
    /// of it is told once a connection.
    pub fn goes_on(&self, c: &Cause) -> String {
        let parts = self.ranked().into_iter().filter(|r| r.follows == Some(c.kind)).map(|r| r.cause.last_ns);
        let last = parts.max().map_or(c.last_ns, |last| last.max(c.last_ns));
        let end = self.span.map_or(last, |s| s.1);
        let seen_at = c.interfaces.names().map(String::as_str);
        let quiet = words::quiet_since(last, end, self.figures.since(last, seen_at));
        if last > c.last_ns { format!("what is part of it until {}: {quiet}", time(last)) } else { quiet }
    }

    /// For how long there are figures of a place, where that is less than what the report is over: runs end, and others begin.
    pub fn recorded_words(&self, place: &Place) -> String {
        let (ns, whole) =
            (place.total.recorded_ns, self.span.map_or(0, |(first, last)| last.saturating_sub(first)));
        let span = |ns: u64| words::span_words(ns / Nanos::SEC);
        match ns > 0 && ns + 2 * self.figures.longest_ns < whole {
            true => format!(", recorded for {} of these {}", span(ns), span(whole)),
            false => String::new(),
        }
    }

    /// What to do about one of these, in the words of the short answer.
    pub fn advice(&self, r: &Ranked<'_>) -> String {
        let loud: Vec<&Cause> = self.ranked().iter().map(|r| r.cause).collect();
        match r.follows {
            Some(root) => format!("what is said of {}", root.name()),
            None => short::told(r.cause, &loud).1,
        }
    }

    /// Occurrences: a record may stand for many of a kind.
    pub fn occurrences(&self) -> u64 {
        let mut sum = self.unknown;
        self.causes.values().for_each(|c| plus(&mut sum, c.count));
        sum
    }

    /// The time axis of this report with at most `most` cells.
    pub fn axis(&self, most: u64) -> Axis {
        let (first, last) = self.span.unwrap_or((0, 0));
        Axis::over(first, last, most, 0)
    }

    /// Handshakes before the first connection was hurt, and while some were: what there is of each.
    pub fn before_and_during(&self) -> (Opened, Opened) {
        let (first, last) = self.span.unwrap_or((0, 0));
        let axis = Axis::over(first, last, CELLS, self.figures.longest_ns);
        let mut hurt = vec![0u64; axis.count as usize];
        for r in self.ranked() {
            hurt.iter_mut().zip(r.cause.timeline.on(axis)).for_each(|(sum, n)| plus(sum, n));
        }
        let begin = hurt.iter().position(|&n| n > 0).unwrap_or(hurt.len());
        let (mut before, mut during) = (Opened::default(), Opened::default());
        for (n, cell) in self.figures.on(axis).iter().enumerate() {
            if n < begin {
                before.merge(cell);
            } else if hurt[n] > 0 {
                during.merge(cell);
            }
        }
        (before, during)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, port: u16, from: u64, to: u64, facts: serde_json::Value) -> Record {
        let json = serde_json::json!({
            "kind": kind.name(), "severity": "warning", "verdict": "unknown", "certainty": "likely", "summary": "", "time": "",
            "ts_ns": to, "first_ns": from, "last_ns": to, "mono_ns": null, "count": 1, "host": "h", "interface": "a",
            "role": null, "direction": null, "src_ip": "10.0.0.1", "src_port": port, "dst_ip": "10.0.0.3", "dst_port": 80,
            "vlan": null, "tunnel": null, "community_id": null, "nat": null, "history": null, "conn_state": null,
            "facts": facts, "packets": [], "loss": null,
        });
        serde_json::from_value::<Record>(json).expect("a record")
    }

    #[test]
    fn originators_are_named_where_a_few_are_most_of_them() {
        let mut report = Report::default();
        let of = |n: u8| {
            let mut r = record(Kind::SynUnanswered, u16::from(n), 0, 1, serde_json::json!({}));
            r.src_ip = Some([10, 0, 0, n].into());
            r
        };
        (0..4).for_each(|n| report.add(&of(n)));
        let few = |report: &Report| report.ranked()[0].cause.few_hosts().map(Top::len);
        assert_eq!(few(&report), Some(4));
        (4..8).for_each(|n| report.add(&of(n)));
        assert_eq!(few(&report), None, "four of eight");
    }

    #[test]
    fn what_hurt_for_a_second_is_told_apart_and_a_root_goes_on_while_its_parts_do() {
        let s = 1_000_000_000;
        let mut report = Report::default();
        let tied = || serde_json::json!({ "link": "arp_two_answers" });
        report.add(&record(Kind::SynUnanswered, 1, 0, 12_000_000, tied()));
        report.add(&record(Kind::SynUnanswered, 2, s, 4 * s, tied()));
        let words = |report: &Report| report.ranked()[0].hurt_words();
        assert_eq!(words(&report), "2 connections, 1 of them for a second or more, 3 s at most");
        let answered = |after: serde_json::Value| serde_json::json!({ "link": "arp_two_answers", "answered_after_ms": after });
        let mut other = report.clone();
        other.add(&record(Kind::SynUnanswered, 1, 0, 12_000_000, answered(12.into())));
        let said = words(&other);
        assert!(said.ends_with("; 1 opened in the end, of 2 no record tells"), "{said}");
        other.add(&record(Kind::SynUnanswered, 2, s, 4 * s, answered(serde_json::Value::Null)));
        let said = words(&other);
        assert!(said.ends_with("; 1 opened in the end, 1 never, of 2 no record tells"), "{said}");
        let mut duel = record(Kind::ArpTwoAnswers, 0, 0, s, serde_json::json!({ "request": "10.0.0.3" }));
        (duel.src_ip, duel.src_port, duel.dst_ip, duel.dst_port) = (None, None, None, None);
        report.add(&duel);
        let ranked = report.ranked();
        assert_eq!((ranked[0].cause.kind, ranked[0].hurt), (Kind::ArpTwoAnswers, 2));
        assert_eq!(report.hurt_in_all(), "1 cause hurt 2 connections");
        let said = report.goes_on(ranked[0].cause);
        assert!(
            said.starts_with("what is part of it until ")
                && said.ends_with(": it goes on when the records end"),
            "{said}"
        );
        report.add(&record(Kind::TupleReuseAccepted, 3, 200 * s, 204 * s, serde_json::json!({})));
        let said = report.goes_on(report.ranked()[0].cause);
        assert!(said.ends_with("none in the 3 min after it until the records end"), "{said}");
        // Another cause on a tuple of its own, and on one that is hurt already.
        let refused =
            |port: u16| record(Kind::TupleReuseRefused, port, 204 * s, 204 * s, serde_json::json!({}));
        report.add(&refused(4));
        assert_eq!(report.hurt_in_all(), "3 causes hurt 4 connections, none by two causes");
        report.add(&refused(2));
        assert_eq!(report.hurt_in_all(), "3 causes hurt 5 connections, on 1 tuple by two causes");
    }

    #[test]
    fn what_hurt_nobody_is_apart_from_what_of_the_same_kind_hurt_somebody() {
        let mut report = Report::default();
        for (port, severity) in [(1, "warning"), (2, "info"), (3, "info")] {
            let mut r = record(Kind::ResetMidFlow, port, 0, 0, serde_json::json!({}));
            r.severity = severity.into();
            report.add(&r);
        }
        assert_eq!(report.hurt_in_all(), "1 cause hurt 1 connection");
        let counts = |causes: Vec<&Cause>| causes.iter().map(|c| (c.severity, c.count)).collect::<Vec<_>>();
        assert_eq!(counts(report.ranked().iter().map(|r| r.cause).collect()), [(Severity::Warning, 1)]);
        assert_eq!(counts(report.quiet()), [(Severity::Info, 2)]);
        let mut both = report.clone();
        both.merge(report);
        assert_eq!((both.hurt().1, both.occurrences()), (2, 6));
    }

    #[test]
    fn networks_are_those_of_their_addresses() {
        let net = |ip: &str| Net::of(ip.parse().expect("an address")).to_string();
        assert_eq!(net("10.1.2.3"), "10.1.2.0/24");
        assert_eq!(net("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    }

    #[test]
    fn what_handshakes_took_is_told_apart_before_and_during() {
        use crate::detect::Anomaly;
        use crate::record::{Context, FigureSet, Interface};
        let interface = |name: &str, role: &str| Interface { name: name.into(), role: Some(role.into()) };
        let context = Context {
            interfaces: vec![interface("in0", "inside"), interface("out0", "outside")],
            ..Context::default()
        };
        let minute = |n: u64| Nanos(n * 60 * Nanos::SEC);
        let mut report = Report::default();
        // Three minutes: well, with somebody hurt, well again. The outside sees the same connections and counts nothing.
        for (n, us) in [(0, 20), (1, 1_048_576), (2, 24)] {
            for point in [0, 1] {
                let (first, last) = (minute(n), minute(n + 1));
                let latencies = vec![(us, 10)];
                let set = FigureSet {
                    first,
                    last,
                    point: Some(point),
                    attempts: 12,
                    handshakes: 10,
                    failed: 2,
                    latencies,
                    ..FigureSet::default()
                };
                report.add(&set.record(&context));
            }
        }
        assert_eq!(report.before_and_during().1.attempts, 0, "nobody was hurt yet");
        let at = minute(1).add(Nanos::SEC);
        let mut a = Anomaly::new(Kind::SynUnanswered, "a SYN".into(), at, at);
        (a.severity, a.point) = (Severity::Warning, Some(0));
        report.add(&Record::from_anomaly(&a, &context, None));
        let (before, during) = report.before_and_during();
        assert_eq!((before.quantile(0.99), before.attempts), (Some(20), 12));
        assert_eq!((during.quantile(0.5), during.failed), (Some(1_048_576), 2));
        assert_eq!(report.figures.total().attempts, 36);
        // Silence for long enough, in which there are attempts; and then none.
        let more = |report: &mut Report, n: u64, attempts: u64| {
            let stretch = (minute(n), minute(n + 1));
            let set = FigureSet {
                first: stretch.0,
                last: stretch.1,
                point: Some(0),
                attempts,
                ..FigureSet::default()
            };
            report.add(&set.record(&context));
        };
        let said = |report: &Report| report.goes_on(report.ranked()[0].cause);
        let soon = "none in the 119 s after it until the records end, too soon to tell whether it is over";
        assert_eq!(said(&report), soon);
        more(&mut report, 3, 5);
        assert!(
            said(&report).ends_with(" records end, in which 17 connections were tried at in0"),
            "{}",
            said(&report)
        );
        let mut silent = Report::default();
        silent.add(&Record::from_anomaly(&a, &context, None));
        more(&mut silent, 0, 5);
        more(&mut silent, 5, 0);
        let unheard = "none in the 4 min after it until the records end, of which 60 s are recorded at in0, too soon to tell whether it is over";
        assert_eq!(said(&silent), unheard);
        (2..5).for_each(|n| more(&mut silent, n, 0));
        let nobody = ", but nobody tried to connect at in0 any more either: it may be there still";
        assert!(said(&silent).ends_with(nobody), "{}", said(&silent));
    }
}
