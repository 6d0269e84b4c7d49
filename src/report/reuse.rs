//! How old a tuple's last close was when a SYN came on it again: the closer to 60 s, the closer is the port range to being enough.

use super::Facts;
use super::words::plus;
use crate::detect::Kind;

/// Upper bounds of the ages told apart, seconds; beyond the last is one more. A tuple rests 60 s after its close on Linux.
pub const AGES: [f64; 9] = [0.001, 0.01, 0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// SYNs that were refused, by age.
    pub refused: [u64; AGES.len() + 1],
    /// SYNs that were accepted.
    pub accepted: [u64; AGES.len() + 1],
}

impl Ages {
    pub(super) fn add(&mut self, kind: Kind, count: u64, facts: &Facts<'_>) {
        let of = match kind {
            Kind::TupleReuseRefused => &mut self.refused,
            Kind::TupleReuseAccepted => &mut self.accepted,
            _ => return,
        };
        if let Some(ms) = facts.since_close_ms() {
            plus(&mut of[AGES.iter().position(|&s| ms <= s * 1e3).unwrap_or(AGES.len())], count);
        }
    }

    pub(super) fn merge(&mut self, other: &Ages) {
        self.refused.iter_mut().zip(other.refused).for_each(|(a, b)| plus(a, b));
        self.accepted.iter_mut().zip(other.accepted).for_each(|(a, b)| plus(a, b));
    }

    /// True if no tuple was used again whose age is known.
    pub fn is_empty(&self) -> bool {
        self.refused.iter().chain(&self.accepted).all(|&n| n == 0)
    }

    /// The label of a row: `up to 1 ms`, `over 2 min`.
    pub fn label(row: usize) -> String {
        let words = |s: f64| match s {
            _ if s < 1.0 => format!("{:.0} ms", s * 1e3),
            _ if s < 60.0 => format!("{s:.0} s"),
            _ => format!("{:.0} min", s / 60.0),
        };
        match AGES.get(row) {
            Some(&s) => format!("up to {}", words(s)),
            None => format!("over {}", words(AGES[AGES.len() - 1])),
        }
    }
}
