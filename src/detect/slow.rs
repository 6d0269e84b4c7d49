//! `slow_handshake`: a SYN-ACK that took far longer than this responder's do, though no SYN was lost.
//!
//! Peers: none as such; DeepFlow and Arkime give the latency and leave the judgement to people.

use super::evidence::{duration, endpoint, ms};
use super::handshake::HURT_AFTER;
use super::{Anomaly, Certainty, Fact, Kind, Verdict};
use crate::flow::{Endpoint, Tuple};
use crate::wire::Nanos;

/// Below this nobody notices, whatever the baseline is (a tenth of a second reads as "at once", a fifth does not).
const NOTICED: u64 = 200 * Nanos::MS;

/// Handshakes of a responder before its p99 means anything: two of them lie above it.
const LEAST: u32 = 200;

/// Handshakes after which all counts are halved, so that the baseline follows the day.
const REMEMBERED: u32 = 8192;

/// Powers of two of a microsecond: the last is everything over 4 s.
const BUCKETS: usize = 23;

/// Responders remembered; direct-mapped, a collision starts anew, which can only lose a finding.
const PLACES: usize = 1024;

#[derive(Clone, Copy)]
struct Baseline {
    of: Endpoint,
    counts: [u16; BUCKETS],
    total: u32,
}

/// See the module.
pub struct Slow {
    places: Box<[Option<Baseline>]>,
}

impl Default for Slow {
    fn default() -> Self {
        Slow { places: vec![None; PLACES].into_boxed_slice() }
    }
}

fn bucket(latency_ns: u64) -> usize {
    ((latency_ns / 1_000).max(1).ilog2() as usize).min(BUCKETS - 1)
}

impl Baseline {
    /// No more than one in a hundred took longer than this, ns: the upper end of the bucket that holds the p99.
    fn p99(&self) -> u64 {
        let mut left = self.total - self.total / 100;
        for (n, &count) in self.counts.iter().enumerate() {
            left = left.saturating_sub(u32::from(count));
            if left == 0 {
                return (2_000u64 << n).saturating_sub(1);
            }
        }
        u64::MAX
    }

    fn add(&mut self, latency_ns: u64) {
        self.counts[bucket(latency_ns)] += 1;
        self.total += 1;
        if self.total >= REMEMBERED {
            self.counts.iter_mut().for_each(|c| *c /= 2);
            self.total = self.counts.iter().map(|&c| u32::from(c)).sum();
        }
    }
}

impl Slow {
    /// A handshake that needed one SYN, answered after `latency_ns`.
    pub fn handshake(
        &mut self,
        tuple: &Tuple,
        latency_ns: u64,
        point: u8,
        at: Nanos,
        out: &mut dyn FnMut(Anomaly),
    ) {
        let slot = &mut self.places[super::storms::place_of(&tuple.dst, PLACES)];
        let fresh = Baseline { of: tuple.dst, counts: [0; BUCKETS], total: 0 };
        let b = slot.get_or_insert(fresh);
        if b.of != tuple.dst {
            *b = fresh;
        }
        let p99 = b.p99();
        if b.total >= LEAST && latency_ns >= NOTICED && latency_ns > p99 {
            // One that is lost before it comes here is sent again after a second (RFC 6298).
            let again = latency_ns >= HURT_AFTER;
            let text = format!(
                "the SYN-ACK of {} took {}, though the SYN was not {}: 99 of 100 of its handshakes take less than {}{}",
                endpoint(tuple.dst),
                duration(latency_ns),
                if again { "sent again" } else { "lost" },
                duration(p99),
                if again { "; one before it may have been lost" } else { "" },
            );
            out(Anomaly {
                verdict: if again { Verdict::Unknown } else { Verdict::Responder },
                certainty: Certainty::Possible,
                point: Some(point),
                tuple: Some(*tuple),
                facts: vec![("ms", Fact::F64(ms(latency_ns))), ("baseline", Fact::F64(ms(p99)))],
                ..Anomaly::new(Kind::SlowHandshake, text, Nanos(at.0.saturating_sub(latency_ns)), at)
            });
        }
        b.add(latency_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Addr;

    fn run(latencies: impl IntoIterator<Item = u64>) -> Vec<Anomaly> {
        let end = |n, port| Endpoint { addr: Addr::v4([192, 0, 2, n]), port };
        let tuple = Tuple { src: end(1, 40_000), dst: end(2, 443) };
        let (mut slow, mut out) = (Slow::default(), Vec::new());
        for (n, ms) in latencies.into_iter().enumerate() {
            let at = Nanos(Nanos::SEC * (1_000 + n as u64));
            slow.handshake(&tuple, ms * Nanos::MS, 0, at, &mut |a| out.push(a));
        }
        out
    }

    #[test]
    fn one_slow_handshake_among_many_fast_ones_is_told() {
        let told = run((0..300).map(|n| if n == 250 { 700 } else { 20 }));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].facts[0], ("ms", Fact::F64(700.0)));
    }

    #[test]
    fn a_responder_that_is_far_away_or_new_or_merely_late_is_not() {
        assert!(run((0..300).map(|n| 300 + n % 100)).is_empty(), "its round trip is that long");
        assert!(run([20, 20, 20, 700]).is_empty(), "nothing to compare with");
        assert!(run((0..300).map(|n| if n == 250 { 150 } else { 2 })).is_empty(), "nobody notices 150 ms");
        assert!(
            run((0..900).map(|n| if n % 50 == 0 { 600 } else { 20 })).len() < 4,
            "one in fifty is its habit"
        );
    }
}
