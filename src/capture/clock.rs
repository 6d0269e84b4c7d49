//! From the kernel's monotonic stamps to the epoch.
//!
//! One offset serves the whole run, so that the distance of two packets is exactly what the kernel measured. It is
//! measured by reading the clocks in turn and keeping the tightest bracket; it changes only when the realtime
//! clock was stepped, not when it is slewed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use nix::time::{ClockId, clock_gettime};

use crate::wire::Nanos;

/// A refresh that differs by less keeps the old offset. NTP slews up to 500 ppm, which is half a millisecond a
/// second: what gathers between refreshes is not a step, and following it would bend intervals.
pub const STEP_NS: u64 = Nanos::MS;

/// Brackets tried; a bracket is some 50 ns unless an interrupt falls into it, so a few are enough.
const TRIES: usize = 16;

/// Epoch minus monotonic clock, shared by all sources of a run.
#[derive(Clone, Debug)]
pub struct ClockOffset(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    offset: AtomicI64,
    uncertainty: AtomicU64,
}

fn read(clock: ClockId) -> i64 {
    let t = clock_gettime(clock).expect("the kernel has this clock");
    t.tv_sec() * 1_000_000_000 + t.tv_nsec()
}

/// The offset and half the width of its bracket, nanoseconds.
fn measure() -> (i64, u64) {
    (0..TRIES)
        .map(|_| {
            let before = read(ClockId::CLOCK_MONOTONIC);
            let epoch = read(ClockId::CLOCK_REALTIME);
            let after = read(ClockId::CLOCK_MONOTONIC);
            (epoch - (before + (after - before) / 2), (after - before).unsigned_abs().div_ceil(2))
        })
        .min_by_key(|m| m.1)
        .expect("tries is not zero")
}

impl ClockOffset {
    /// Measures it.
    #[allow(clippy::new_without_default)]
    pub fn new() -> ClockOffset {
        let (offset, uncertainty) = measure();
        ClockOffset(Arc::new(Shared { offset: offset.into(), uncertainty: uncertainty.into() }))
    }

    /// A monotonic stamp on the epoch.
    #[inline]
    pub fn epoch(&self, monotonic_ns: u64) -> Nanos {
        Nanos(monotonic_ns.wrapping_add_signed(self.ns()))
    }

    /// The present time, as packets would be stamped.
    pub fn now(&self) -> Nanos {
        self.epoch(ClockOffset::monotonic_ns())
    }

    /// The present on the kernel side's clock.
    pub fn monotonic_ns() -> u64 {
        read(ClockId::CLOCK_MONOTONIC) as u64
    }

    /// Epoch minus monotonic clock, nanoseconds.
    #[inline]
    pub fn ns(&self) -> i64 {
        self.0.offset.load(Ordering::Relaxed)
    }

    /// The offset is right to this many nanoseconds.
    pub fn uncertainty_ns(&self) -> u64 {
        self.0.uncertainty.load(Ordering::Relaxed)
    }

    /// Measures again. If the realtime clock was stepped, takes the new offset over and returns by how much,
    /// nanoseconds, positive for forward.
    pub fn refresh(&self) -> Option<i64> {
        let (offset, uncertainty) = measure();
        let step = offset - self.ns();
        if step.unsigned_abs() <= STEP_NS {
            return None;
        }
        self.0.offset.store(offset, Ordering::Relaxed);
        self.0.uncertainty.store(uncertainty, Ordering::Relaxed);
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_taken_now_is_the_time_now() {
        let clock = ClockOffset::new();
        let before = read(ClockId::CLOCK_REALTIME) as u64;
        let at = clock.epoch(read(ClockId::CLOCK_MONOTONIC) as u64);
        let after = read(ClockId::CLOCK_REALTIME) as u64;
        let slack = clock.uncertainty_ns() + 1000;
        assert!(at.0 + slack >= before && at.0 <= after + slack, "{before} {at:?} {after}");
        assert!(clock.uncertainty_ns() < Nanos::MS);
    }

    #[test]
    fn only_a_step_is_taken_over() {
        let clock = ClockOffset::new();
        assert_eq!(clock.refresh(), None);
        let real = clock.ns();
        clock.0.offset.store(real - 5_000_000_000, Ordering::Relaxed);
        let step = clock.refresh().expect("five seconds are a step");
        assert!((step - 5_000_000_000).abs() < 1_000_000, "{step}");
        assert!((clock.ns() - real).abs() < 1_000_000);
    }
}
