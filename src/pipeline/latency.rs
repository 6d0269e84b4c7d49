//! Figures of a stretch of time: handshake latencies, and those of each responder that was asked for.

use hdrhistogram::Histogram;

use crate::flow::Endpoint;

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

    /// What this share (0 to 1) of them did not exceed, in microseconds.
    pub fn quantile_us(&self, q: f64) -> u64 {
        self.histogram.value_at_quantile(q)
    }

    /// The longest, in microseconds.
    pub fn max_us(&self) -> u64 {
        if self.histogram.is_empty() { 0 } else { self.histogram.max() }
    }
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

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Interval {
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
        Interval::of(&responders)
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Interval) {
        self.syn_acks.add(&other.syn_acks);
        self.acks.add(&other.acks);
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
