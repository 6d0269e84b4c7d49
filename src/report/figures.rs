//! What the records of figures add up to: how many connections, how long they took to open, which flags went by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::line::{FigureFacts, Line};
use super::timeline::{Axis, Cell, Timeline};
use super::words::{Since, plus};
use crate::record::quantile;

/// Tap points and responders counted apart; figures of further ones are left out and counted.
const PLACES: usize = 64;

/// Flag combinations told apart at a place and direction: all that eight bits make.
const FLAGS: usize = 256;

/// Buckets of latencies: what times up to the longest are told apart by, and some.
const BUCKETS: usize = 256;

/// Connections of a stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Attempts that ended.
    pub attempts: u64,
    /// Of these, answered.
    pub handshakes: u64,
    /// Of these, such as led to nothing.
    pub failed: u64,
    /// Resets on open flows.
    pub resets: u64,
    /// For how long it was counted, ns.
    pub recorded_ns: u64,
    /// The longest time to an answer, microseconds.
    pub max_us: u64,
    /// Times to an answer: upper bounds in microseconds, and how many.
    pub latencies: BTreeMap<u64, u64>,
}

impl Cell for Opened {
    fn merge(&mut self, o: &Opened) {
        plus(&mut self.attempts, o.attempts);
        plus(&mut self.handshakes, o.handshakes);
        plus(&mut self.failed, o.failed);
        plus(&mut self.resets, o.resets);
        plus(&mut self.recorded_ns, o.recorded_ns);
        self.max_us = self.max_us.max(o.max_us);
        for (&us, &n) in &o.latencies {
            self.took(us, n);
        }
    }
}

impl Opened {
    fn took(&mut self, us: u64, n: u64) {
        if self.latencies.len() < BUCKETS || self.latencies.contains_key(&us) {
            plus(self.latencies.entry(us).or_default(), n);
        }
    }

    /// What this share of the answers did not take longer than, microseconds.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let longest = if self.max_us > 0 { self.max_us } else { u64::MAX };
        quantile(&self.latencies, share).map(|us| us.min(longest))
    }

    /// Attempts of which neither is known: they waited for an answer when the capture ended.
    pub fn waiting(&self) -> u64 {
        self.attempts.saturating_sub(self.handshakes).saturating_sub(self.failed)
    }

    /// Answers that took a second or more: a SYN had to be sent again.
    pub fn slow(&self) -> u64 {
        self.latencies.range(1_000_000..).map(|(_, n)| n).sum()
    }

    /// Attempts that failed, in percent.
    pub fn failed_percent(&self) -> f64 {
        if self.attempts == 0 { 0.0 } else { self.failed as f64 * 100.0 / self.attempts as f64 }
    }

    fn of(f: &FigureFacts) -> Opened {
        let mut opened = Opened { max_us: f.max_us.unwrap_or(0), ..Opened::default() };
        plus(&mut opened.attempts, f.attempts);
        plus(&mut opened.handshakes, f.handshakes);
        plus(&mut opened.failed, f.failed);
        plus(&mut opened.resets, f.resets);
        f.latencies.iter().for_each(|&(us, n)| opened.took(us, n));
        opened
    }
}

/// What one tap point or responder saw.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The interface's role, if it has one.
    pub role: Option<String>,
    /// All of it.
    pub total: Opened,
    /// When.
    pub timeline: Timeline<Opened>,
    /// Segments by direction (`ingress`, `egress`, `unknown`) and flags.
    pub flags: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Place {
    fn add(&mut self, line: &Line<'_>, facts: FigureFacts) {
        let mut opened = Opened::of(&facts);
        opened.recorded_ns = line.last_ns.saturating_sub(line.first_ns);
        self.total.merge(&opened);
        self.timeline.at(line.first_ns).merge(&opened);
        self.role = self.role.take().or_else(|| line.role.as_ref().map(|r| r.0.clone().into_owned()));
        self.add_flags(facts.flags);
    }

    fn add_flags(&mut self, flags: BTreeMap<String, BTreeMap<String, u64>>) {
        for (way, counts) in flags {
            if !matches!(way.as_str(), "ingress" | "egress" | "unknown") {
                continue;
            }
            let mine = self.flags.entry(way).or_default();
            for (flags, n) in counts {
                if mine.len() < FLAGS || mine.contains_key(&flags) {
                    plus(mine.entry(flags).or_default(), n);
                }
            }
        }
    }

    fn merge(&mut self, other: Place) {
        self.total.merge(&other.total);
        self.timeline.merge(other.timeline);
        self.role = self.role.take().or(other.role);
        self.add_flags(other.flags);
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// By interface.
    pub points: BTreeMap<String, Place>,
    /// By responder that was asked for by name.
    pub responders: BTreeMap<SocketAddr, Place>,
    /// The longest stretch of time that one record is about, ns.
    pub longest_ns: u64,
    /// Records of places beyond those that are counted apart.
    pub left_out: u64,
    /// Filters that records were written with.
    pub filters: BTreeSet<String>,
}

/// Filters told apart: a reload may change them.
const FILTERS: usize = 16;

impl Figures {
    /// Takes a record of figures.
    pub(super) fn add(&mut self, line: &Line<'_>) {
        let facts = line.figures();
        self.filters.extend(facts.filter.clone().filter(|_| self.filters.len() < FILTERS));
        let place = match (line.dst_ip.zip(line.dst_port), &line.interface) {
            (Some((ip, port)), _) => place_in(&mut self.responders, SocketAddr::new(ip, port)),
            (None, Some(interface)) => place_in(&mut self.points, interface.0.clone().into_owned()),
            (None, None) => None,
        };
        match place {
            Some(place) => place.add(line, facts),
            None => self.left_out += 1,
        }
        self.longest_ns = self.longest_ns.max(line.last_ns.saturating_sub(line.first_ns));
    }

    /// Adds all of another.
    pub(super) fn merge(&mut self, other: Figures) {
        self.left_out += other.left_out;
        let room = FILTERS.saturating_sub(self.filters.len());
        self.filters.extend(other.filters.into_iter().take(room));
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        for (name, place) in other.points {
            match place_in(&mut self.points, name) {
                Some(mine) => mine.merge(place),
                None => self.left_out += 1,
            }
        }
        for (address, place) in other.responders {
            match place_in(&mut self.responders, address) {
                Some(mine) => mine.merge(place),
                None => self.left_out += 1,
            }
        }
    }

    /// What is known of the time after that moment at one of these interfaces: where most was tried. `None` if there are no figures.
    pub(super) fn since<'a>(&self, ns: u64, at: impl Iterator<Item = &'a str>) -> Option<Since<'a>> {
        let known = |name: &'a str| {
            let mut sum = Opened::default();
            self.points.get(name)?.timeline.since(ns).for_each(|o| sum.merge(o));
            Some((sum.attempts, sum.recorded_ns, name))
        };
        let (tried, recorded_ns, at) = at.filter_map(known).max()?;
        Some(Since { at, tried, recorded_ns, stretch_ns: self.longest_ns })
    }

    /// The interfaces at which connections are counted: where one is inside, not those outside, which see the same ones. One that
    /// crosses two of the rest counts at each.
    pub fn where_counted(&self) -> Vec<(&str, &Place)> {
        let inside = |p: &Place| p.role.as_deref() == Some("inside") && p.total.attempts > 0;
        let any = self.points.values().any(inside);
        let all = self.points.iter().filter(|(_, p)| !any || p.role.as_deref() != Some("outside"));
        all.map(|(name, p)| (name.as_str(), p)).collect()
    }

    /// All connections, as [`Figures::where_counted`] has them.
    pub fn total(&self) -> Opened {
        let mut sum = Opened::default();
        self.where_counted().into_iter().for_each(|(_, p)| sum.merge(&p.total));
        sum
    }

    /// The same by the cells of an axis.
    pub fn on(&self, axis: Axis) -> Vec<Opened> {
        let mut all = vec![Opened::default(); axis.count as usize];
        for (_, place) in self.where_counted() {
            for (sum, cell) in all.iter_mut().zip(place.timeline.on(axis)) {
                sum.merge(&cell);
            }
        }
        all
    }
}

fn place_in<K: Ord>(places: &mut BTreeMap<K, Place>, key: K) -> Option<&mut Place> {
    if places.len() >= PLACES && !places.contains_key(&key) {
        return None;
    }
    Some(places.entry(key).or_default())
}
