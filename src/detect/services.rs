//! Which responders answer at all. A SYN to a port where nobody ever answered is somebody knocking; the same silence
//! from a service that answers others is a fault.

use super::{Anomaly, Fact, Kind, Severity};
use crate::flow::Endpoint;
use crate::wire::Nanos;

/// Responders remembered: 4-way buckets, the newest answer displaces the oldest of its bucket. 16,384 services behind
/// one gateway are many; forgetting one only lowers a severity.
const PLACES: usize = 16_384;
const WAYS: usize = 4;

#[derive(Clone, Copy, Default)]
struct Service {
    at: Endpoint,
    answers: u64,
    last: Nanos,
    age: u64,
}

/// Answers after which a service counts as one that is there to answer, so that its silence towards everybody is a
/// fault too. A port with a few answers may as well have been a probe, or a service on its way up.
const ESTABLISHED: u64 = 10;

/// See the module.
pub struct Services {
    places: Box<[Service]>,
    clock: u64,
}

impl Default for Services {
    fn default() -> Self {
        Services { places: vec![Service::default(); PLACES].into_boxed_slice(), clock: 0 }
    }
}

impl Services {
    fn bucket(at: &Endpoint) -> usize {
        let mut h = u64::from(at.port).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for chunk in at.addr.0.chunks_exact(8) {
            let word = chunk.iter().fold(0u64, |w, b| w << 8 | u64::from(*b));
            h = (h ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        (h >> 40) as usize % (PLACES / WAYS) * WAYS
    }

    /// A responder accepted a connection.
    pub fn answered(&mut self, at: Endpoint, when: Nanos) {
        self.clock += 1;
        let b = Self::bucket(&at);
        let bucket = &mut self.places[b..b + WAYS];
        let clock = self.clock;
        if let Some(s) = bucket.iter_mut().find(|s| s.answers > 0 && s.at == at) {
            s.answers += 1;
            s.age = clock;
            s.last = s.last.max(when);
        } else if let Some(s) = bucket.iter_mut().min_by_key(|s| s.age) {
            *s = Service { at, answers: 1, last: when, age: clock };
        }
    }

    fn known(&self, at: &Endpoint) -> Option<&Service> {
        let b = Self::bucket(at);
        self.places[b..b + WAYS].iter().find(|s| s.answers > 0 && s.at == *at)
    }

    /// Connections it was seen to accept.
    pub fn answers(&self, at: &Endpoint) -> u64 {
        self.known(at).map_or(0, |s| s.answers)
    }

    /// Adds what is known of the responder to an anomaly about a SYN that led to nothing.
    pub fn judge(&self, anomaly: &mut Anomaly) {
        if !matches!(anomaly.kind, Kind::SynUnanswered | Kind::SynRefused) {
            return;
        }
        let answered = anomaly.facts.iter().any(|(n, f)| *n == "answered_after_ms" && *f != Fact::Null);
        let Some(tuple) = anomaly.tuple.filter(|_| !answered) else { return };
        let service = self.known(&tuple.dst);
        let answers = service.map_or(0, |s| s.answers);
        anomaly.facts.push(("others_answered", Fact::U64(answers)));
        // It answers, then: somebody got an answer while this one waited, or it has answered often before.
        let answers_others = service.is_some_and(|s| s.last >= anomaly.first || s.answers >= ESTABLISHED);
        if !answers_others {
            anomaly.severity = Severity::Info;
            anomaly.summary.push_str(&match answers {
                0 => "; nobody was seen to get an answer there".to_owned(),
                n => format!("; nobody else got an answer there meanwhile, {n} had before"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Addr;

    #[test]
    fn answers_are_counted_by_address_and_port_and_memory_stays() {
        let mut s = Services::default();
        let at = |n: u32, port| Endpoint { addr: Addr::v4(n.to_be_bytes()), port };
        for n in 0..100_000 {
            s.answered(at(n, 80), Nanos(1));
        }
        s.answered(at(7, 443), Nanos(1));
        s.answered(at(7, 443), Nanos(1));
        assert_eq!(s.answers(&at(7, 443)), 2);
        assert_eq!(s.answers(&at(7, 444)), 0);
        assert_eq!(s.answers(&at(99_999, 80)), 1);
        assert_eq!(s.places.len(), PLACES);
    }
}
