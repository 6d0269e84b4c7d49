//! `asymmetric_hash`: the two directions of a tuple reach two rings, and so two workers, of which neither sees a whole
//! connection.
//!
//! Where the kernel side chooses the ring by its own hash that cannot happen; where the NIC does (XDP on a mirror port, a ring
//! for each of its queues) it does unless the NIC's hash is symmetric.
//!
//! Peers: Suricata `wrong_thread`.

use std::collections::HashMap;

use super::bounded::Bounded;
use super::{Anomaly, Fact, Kind, Severity, Sight};
use crate::flow::Tuple;
use crate::wire::Nanos;

/// Tuples remembered from their SYN to their SYN-ACK: a second of a busy service.
const TUPLES: usize = 16_384;

/// Handshakes on two rings that are told, and the share they must have: one alone can be a NIC whose hash was changed while
/// it ran; with a hash that is not symmetric and two rings it is every other one.
const SPLIT: u64 = 10;
const SPLIT_SHARE: u64 = 10;

/// See the module.
pub struct Rings {
    /// Which ring had a tuple's SYN (true) or SYN-ACK first.
    first: Bounded<(u8, Tuple), (u16, bool)>,
    split: u64,
    whole: u64,
    /// The pairs of rings that were met, with how often.
    pairs: HashMap<(u16, u16), u64>,
    since: Nanos,
    told: bool,
}

impl Default for Rings {
    fn default() -> Self {
        Rings {
            first: Bounded::new(TUPLES),
            split: 0,
            whole: 0,
            pairs: HashMap::new(),
            since: Nanos(0),
            told: false,
        }
    }
}

impl Rings {
    /// Takes a sight that came over a ring; events of two rings come in any order.
    pub fn sight(&mut self, ring: u16, sight: &Sight, at: Nanos) -> Option<Anomaly> {
        let (seen, syn) = match sight {
            Sight::Syn(s) => (s, true),
            Sight::SynAck(s) => (s, false),
            _ => return None,
        };
        if self.since.0 == 0 {
            self.since = at;
        }
        let key = (seen.digest.point, seen.tuple);
        let Some(&(other, other_syn)) = self.first.get(&key) else {
            self.first.put(key, (ring, syn));
            return None;
        };
        if other_syn == syn {
            // Sent again, or the next life.
            self.first.put(key, (ring, syn));
            return None;
        }
        if other == ring {
            self.whole += 1;
            return None;
        }
        self.split += 1;
        *self.pairs.entry((ring.min(other), ring.max(other))).or_default() += 1;
        let share = self.split * 100 >= (self.split + self.whole) * SPLIT_SHARE;
        if self.told || self.split < SPLIT || !share {
            return None;
        }
        self.told = true;
        Some(self.anomaly(at))
    }

    fn anomaly(&self, at: Nanos) -> Anomaly {
        let pair = self.pairs.iter().max_by_key(|&(pair, n)| (*n, *pair)).map_or((0, 0), |(pair, _)| *pair);
        let summary = format!(
            "SYN and SYN-ACK of {} connections came over two rings, of {} over one: the hash that spreads packets over the rings is not symmetric",
            self.split, self.whole
        );
        Anomaly {
            severity: Severity::Warning,
            facts: vec![
                ("split", Fact::U64(self.split)),
                ("whole", Fact::U64(self.whole)),
                ("rings", Fact::List([pair.0, pair.1].map(|r| Fact::U64(r.into())).to_vec())),
            ],
            ..Anomaly::new(Kind::AsymmetricHash, summary, self.since, at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Seen;
    use super::*;
    use crate::flow::{Digest, Endpoint};
    use crate::wire::Addr;

    fn seen(port: u16) -> Seen {
        let end = |n, port| Endpoint { addr: Addr::v4([192, 0, 2, n]), port };
        Seen { tuple: Tuple { src: end(1, port), dst: end(2, 443) }, digest: Digest::default() }
    }

    fn run(ring_of_answer: impl Fn(u16) -> u16) -> Vec<Anomaly> {
        let mut rings = Rings::default();
        let at = |n: u16| Nanos(Nanos::SEC + u64::from(n));
        (0..100)
            .flat_map(|n| {
                let syn = (n % 2, Sight::Syn(seen(n)));
                let answer = (ring_of_answer(n), Sight::SynAck(seen(n)));
                // Half of the answers come to the desk before their SYNs.
                let both = if n % 3 == 0 { [answer, syn] } else { [syn, answer] };
                both.map(|(ring, s)| rings.sight(ring, &s, at(n)))
            })
            .flatten()
            .collect()
    }

    #[test]
    fn a_hash_that_is_not_symmetric_is_told_once() {
        let told = run(|n| n / 2 % 2);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].kind, Kind::AsymmetricHash);
        assert_eq!(told[0].facts[0], ("split", Fact::U64(SPLIT)));
    }

    #[test]
    fn one_that_is_symmetric_is_not_nor_are_a_few_strays() {
        assert!(run(|n| n % 2).is_empty());
        assert!(run(|n| if n % 20 == 0 { 1 - n % 2 } else { n % 2 }).is_empty());
    }
}
