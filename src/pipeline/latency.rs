//! Figures of a stretch of time: handshake latencies, what each tap point saw, and those of each responder that was asked for.

use hdrhistogram::Histogram;

use crate::flow::Endpoint;
use crate::record::{FigureSet, bucket};
use crate::wire::{Nanos, TcpFlags, Way};

/// Longest latency told apart: Linux gives up a SYN after 127 s.
const MAX_US: u64 = 200_000_000;

/// Durations at microsecond resolution and two digits.
#[derive(Clone, Debug)]
pub struct Durations {
    histogram: Histogram<u32>,
}

impl Default for Durations {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_US, 2);
        // The bounds are constants that the histogram accepts.
        Durations { histogram: histogram.unwrap_or_else(|_| unreachable!("constant bounds")) }
    }
}

impl Durations {
    /// Of a histogram in microseconds.
    pub fn of(histogram: Histogram<u32>) -> Durations {
        Durations { histogram }
    }

    /// Adds one, in nanoseconds.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.histogram.saturating_record((ns / 1_000).max(1));
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Durations) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.histogram.add(&other.histogram);
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// Coarsely, as records have them: upper bounds in microseconds and how many, ascending.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> = Vec::new();
        for step in self.histogram.iter_recorded() {
            let us = bucket(step.value_iterated_to());
            match all.last_mut() {
                Some(last) if last.0 == us => last.1 += step.count_since_last_iteration(),
                _ => all.push((us, step.count_since_last_iteration())),
            }
        }
        all
    }

    /// Each time that came, in microseconds to two digits, and how often.
    pub fn each(&self, with: &mut dyn FnMut(u64, u64)) {
        for step in self.histogram.iter_recorded() {
            with(step.value_iterated_to(), step.count_since_last_iteration());
        }
    }

    /// What this share (0 to 1) of them did not exceed, in microseconds.
    pub fn quantile_us(&self, q: f64) -> u64 {
        self.histogram.value_at_quantile(q)
    }

    /// The longest, in microseconds.
    pub fn max_us(&self) -> u64 {
        if self.histogram.is_empty() { 0 } else { self.histogram.max() }
    }
}

/// When the figures that are gathered from `since` on are written: at the next ten seconds of the clock in the first ten minutes of a
/// run that began at `began`, so that a run of a minute shows before and after; at the next minute after that, which is a few
/// megabytes a month. At round times, so that what is drawn by the minute is cut where they are.
pub const fn figures_until(began: Nanos, since: Nanos) -> Nanos {
    let period = if since.since(began) < 600 * Nanos::SEC { 10 * Nanos::SEC } else { 60 * Nanos::SEC };
    Nanos((since.0 / period + 1) * period)
}

/// How connections to one responder went, as their originators saw it.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The responder.
    pub responder: Endpoint,
    /// From the first SYN to the SYN-ACK.
    pub latencies: Durations,
    /// Attempts that ended, well or not.
    pub attempts: u64,
    /// Attempts that led to nothing.
    pub failed: u64,
}

/// Segments by direction and by their eight lower flag bits.
#[derive(Clone, Debug)]
pub struct FlagCounts(Box<[[u64; 256]; 3]>);

impl Default for FlagCounts {
    fn default() -> Self {
        FlagCounts(Box::new([[0; 256]; 3]))
    }
}

impl FlagCounts {
    /// Counts one.
    #[inline]
    pub fn count(&mut self, way: Way, flags: TcpFlags) {
        self.0[way as usize][usize::from(flags.0 & 0xff)] += 1;
    }

    fn list(&self) -> Vec<(Way, TcpFlags, u64)> {
        let ways = [Way::Ingress, Way::Egress, Way::Unknown];
        let cells = ways.into_iter().zip(self.0.iter()).flat_map(|(way, cells)| {
            cells.iter().enumerate().map(move |(flags, &n)| (way, TcpFlags(flags as u16), n))
        });
        cells.filter(|c| c.2 > 0).collect()
    }
}

/// What one tap point saw of connections.
#[derive(Clone, Debug, Default)]
pub struct PointFigures {
    /// From the first SYN to the SYN-ACK.
    pub syn_acks: Durations,
    /// Attempts that ended, well or not.
    pub attempts: u64,
    /// Attempts that led to nothing.
    pub failed: u64,
    /// Resets on open flows.
    pub resets: u64,
    /// Which flags went by, where the worker counts them.
    pub flags: Option<FlagCounts>,
}

impl PointFigures {
    fn add(&mut self, other: &PointFigures) {
        self.syn_acks.add(&other.syn_acks);
        self.attempts += other.attempts;
        self.failed += other.failed;
        self.resets += other.resets;
        if let Some(theirs) = &other.flags {
            let mine = self.flags.get_or_insert_default();
            for (mine, theirs) in mine.0.iter_mut().flatten().zip(theirs.0.iter().flatten()) {
                *mine += theirs;
            }
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    /// What each tap point saw, by its number; as many as were needed.
    pub points: Vec<PointFigures>,
    /// From the first SYN to the SYN-ACK.
    pub syn_acks: Durations,
    /// From the first SYN-ACK to the final ACK.
    pub acks: Durations,
    /// Of the responders that were asked for.
    pub responders: Vec<Figures>,
}

impl Interval {
    /// Nothing yet, for these responders.
    pub fn of(responders: &[Endpoint]) -> Interval {
        let figures =
            |r: &Endpoint| Figures { responder: *r, latencies: Durations::default(), attempts: 0, failed: 0 };
        Interval { responders: responders.iter().map(figures).collect(), ..Interval::default() }
    }

    /// Nothing yet, for the same responders.
    pub fn fresh(&self) -> Interval {
        let responders: Vec<Endpoint> = self.responders.iter().map(|f| f.responder).collect();
        // Room for the same points: who counts on allocates nothing.
        let flags = |p: &PointFigures| p.flags.as_ref().map(|_| FlagCounts::default());
        let point = |p: &PointFigures| PointFigures { flags: flags(p), ..PointFigures::default() };
        Interval { points: self.points.iter().map(point).collect(), ..Interval::of(&responders) }
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Interval) {
        self.syn_acks.add(&other.syn_acks);
        self.acks.add(&other.acks);
        for (n, theirs) in other.points.iter().enumerate() {
            self.at(n as u8).add(theirs);
        }
        for theirs in &other.responders {
            match self.responders.iter_mut().find(|f| f.responder == theirs.responder) {
                Some(mine) => {
                    mine.latencies.add(&theirs.latencies);
                    mine.attempts += theirs.attempts;
                    mine.failed += theirs.failed;
                }
                None => self.responders.push(theirs.clone()),
            }
        }
    }

    /// The figures of a tap point.
    #[inline]
    pub fn at(&mut self, point: u8) -> &mut PointFigures {
        let n = usize::from(point);
        if n >= self.points.len() {
            self.points.resize_with(n + 1, PointFigures::default);
        }
        &mut self.points[n]
    }

    /// As records: one for each tap point and each responder that was asked for.
    pub fn sets(&self, first: Nanos, last: Nanos) -> Vec<FigureSet> {
        let points = self.points.iter().enumerate().map(|(n, p)| FigureSet {
            first,
            last,
            point: Some(n as u8),
            attempts: p.attempts,
            handshakes: p.syn_acks.len(),
            failed: p.failed,
            resets: p.resets,
            latencies: p.syn_acks.buckets(),
            max_us: p.syn_acks.max_us(),
            flags: p.flags.as_ref().map_or_else(Vec::new, FlagCounts::list),
            ..FigureSet::default()
        });
        let responders = self.responders.iter().map(|f| FigureSet {
            first,
            last,
            responder: Some(f.responder),
            attempts: f.attempts,
            handshakes: f.latencies.len(),
            failed: f.failed,
            latencies: f.latencies.buckets(),
            max_us: f.latencies.max_us(),
            ..FigureSet::default()
        });
        points.chain(responders).collect()
    }

    /// Forgets everything but the responders.
    pub fn clear(&mut self) {
        *self = self.fresh();
    }

    /// Counts an attempt that ended: after `answered_ns` with a SYN-ACK, or otherwise.
    pub fn attempt(&mut self, responder: &Endpoint, answered_ns: Option<u64>, failed: bool) {
        let Some(f) = self.responders.iter_mut().find(|f| f.responder == *responder) else { return };
        f.attempts += 1;
        f.failed += u64::from(failed);
        if let Some(ns) = answered_ns {
            f.latencies.record(ns);
        }
    }
}
