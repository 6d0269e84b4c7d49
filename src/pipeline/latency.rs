//! Handshake latencies of a stretch of time.

use hdrhistogram::Histogram;

/// Longest latency told apart: Linux gives up a SYN after 127 s.
const MAX_US: u64 = 200_000_000;

/// Latencies from the first SYN to the SYN-ACK, at microsecond resolution and two digits.
#[derive(Clone, Debug)]
pub struct Interval {
    histogram: Histogram<u32>,
}

impl Default for Interval {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_US, 2);
        // The bounds are constants that the histogram accepts.
        Interval { histogram: histogram.unwrap_or_else(|_| unreachable!("constant bounds")) }
    }
}

impl Interval {
    /// Adds one, in nanoseconds.
    #[inline]
    pub fn latency(&mut self, ns: u64) {
        self.histogram.saturating_record((ns / 1_000).max(1));
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Interval) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.histogram.add(&other.histogram);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// The latency that this share (0 to 1) of the handshakes did not exceed, in microseconds.
    pub fn quantile_us(&self, q: f64) -> u64 {
        self.histogram.value_at_quantile(q)
    }

    /// The longest, in microseconds.
    pub fn max_us(&self) -> u64 {
        if self.histogram.is_empty() { 0 } else { self.histogram.max() }
    }
}
