//! What is told of anomalies while they come: how many of each sort, the last ones, and the responders that most of them name.
//!
//! The desk counts all of them; it hands on those for which there is room, and waits for nobody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::detect::{Anomaly, Kind, Severity, Verdict};
use crate::flow::Endpoint;
use crate::wire::Nanos;

/// Anomalies that wait for the onlooker, who looks each second: more cannot be read in that time.
const NOTED: usize = 256;

/// Responders that are counted apart.
const RESPONDERS: usize = 1024;

/// Of which so many are told.
const WORST: usize = 32;

/// What is recent is counted in slots of this length,
const SLOT_NS: u64 = 10 * Nanos::SEC;

/// so many of them: a minute.
const SLOTS: usize = 6;

/// One that has been quiet for so many slots makes room for another: an hour.
const FORGET: u64 = 360;

const SORTS: usize = Verdict::ALL.len() * Severity::ALL.len();

/// Anomalies by kind, verdict and severity.
#[derive(Debug)]
pub struct AnomalyCounts {
    cells: Box<[AtomicU64]>,
    /// Anomalies that found no room to be shown.
    passed_over: AtomicU64,
}

impl AnomalyCounts {
    fn count(&self, a: &Anomaly) {
        let cell = a.kind as usize * SORTS + a.verdict as usize * Severity::ALL.len() + a.severity as usize;
        self.cells[cell].fetch_add(a.count, Ordering::Relaxed);
    }

    /// Those that occurred.
    pub fn all(&self) -> Vec<(Kind, Verdict, Severity, u64)> {
        let sorts = || Verdict::ALL.iter().flat_map(|v| Severity::ALL.iter().map(|s| (*v, *s)));
        let sorts = Kind::ALL.iter().flat_map(|k| sorts().map(|(v, s)| (*k, v, s)));
        let counted = sorts.zip(&self.cells).map(|((k, v, s), n)| (k, v, s, n.load(Ordering::Relaxed)));
        counted.filter(|c| c.3 > 0).collect()
    }

    /// How many found no room to be shown.
    pub fn passed_over(&self) -> u64 {
        self.passed_over.load(Ordering::Relaxed)
    }
}

/// An anomaly, as far as it is shown.
#[derive(Clone, Debug)]
pub struct Noted {
    /// When.
    pub time: Nanos,
    /// What was seen.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// Whose doing.
    pub verdict: Verdict,
    /// In words.
    pub summary: String,
}

/// A responder and its anomalies above `info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The responder.
    pub responder: Endpoint,
    /// Its anomalies within the last minute.
    pub recent: u64,
    /// Since it was first named.
    pub total: u64,
    /// The kind that most of them are of.
    pub kind: Kind,
}

#[derive(Debug)]
struct Counts {
    slots: [u64; SLOTS],
    /// The slot that was last counted in.
    slot: u64,
    total: u64,
    /// The kinds that came most often, by a vote: a kind that has the majority is first in the end.
    kind: Kind,
    votes: u64,
}

impl Counts {
    fn move_to(&mut self, slot: u64) {
        let passed = slot.saturating_sub(self.slot);
        for n in 1..=passed.min(SLOTS as u64) {
            self.slots[((self.slot + n) % SLOTS as u64) as usize] = 0;
        }
        self.slot = self.slot.max(slot);
    }

    /// Of the slots up to this one.
    fn recent(&self, slot: u64) -> u64 {
        let passed = slot.saturating_sub(self.slot);
        let ages =
            (0..SLOTS as u64).map(|age| (age + passed, (self.slot + SLOTS as u64 - age) % SLOTS as u64));
        ages.filter(|(age, _)| *age < SLOTS as u64).map(|(_, n)| self.slots[n as usize]).sum()
    }

    fn count(&mut self, kind: Kind, slot: u64, n: u64) {
        self.move_to(slot);
        self.slots[(self.slot % SLOTS as u64) as usize] += n;
        self.total += n;
        if self.kind == kind {
            self.votes += n;
        } else if self.votes >= n {
            self.votes -= n;
        } else {
            (self.kind, self.votes) = (kind, n - self.votes);
        }
    }
}

/// The desk's end.
#[derive(Debug)]
pub struct Onlooker {
    counts: Arc<AnomalyCounts>,
    noted: Producer<Noted>,
    responders: HashMap<Endpoint, Counts>,
    worst: Arc<Mutex<Vec<Named>>>,
    slot: u64,
    told: u64,
}

/// The other end.
#[derive(Debug)]
pub struct Onlooking {
    /// How many of each sort there were.
    pub counts: Arc<AnomalyCounts>,
    noted: Consumer<Noted>,
    worst: Arc<Mutex<Vec<Named>>>,
}

/// Both ends.
pub fn onlooker() -> (Onlooker, Onlooking) {
    let cells = (0..Kind::ALL.len() * SORTS).map(|_| 0.into()).collect();
    let counts = Arc::new(AnomalyCounts { cells, passed_over: 0.into() });
    let (noted, last) = RingBuffer::new(NOTED);
    let worst = Arc::new(Mutex::new(Vec::new()));
    let responders = HashMap::with_capacity(RESPONDERS);
    let onlooking = Onlooking { counts: counts.clone(), noted: last, worst: worst.clone() };
    (Onlooker { counts, noted, responders, worst, slot: 0, told: 0 }, onlooking)
}

impl Onlooker {
    /// Takes note of an anomaly.
    pub(super) fn anomaly(&mut self, a: &Anomaly) {
        self.counts.count(a);
        if a.severity > Severity::Info
            && let Some(tuple) = &a.tuple
        {
            self.name(tuple.dst, a);
        }
        if self.noted.is_full() {
            self.counts.passed_over.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Anomaly { time, kind, severity, verdict, .. } = *a;
        // There was room, and nobody else pushes.
        let _ = self.noted.push(Noted { time, kind, severity, verdict, summary: a.summary.clone() });
    }

    fn name(&mut self, responder: Endpoint, a: &Anomaly) {
        let slot = a.time.0 / SLOT_NS;
        self.slot = self.slot.max(slot);
        let full = self.responders.len() >= RESPONDERS;
        if let Some(counts) = self.responders.get_mut(&responder) {
            counts.count(a.kind, slot, a.count);
        } else if !full {
            let mut counts = Counts { slots: [0; SLOTS], slot, total: 0, kind: a.kind, votes: 0 };
            counts.count(a.kind, slot, a.count);
            self.responders.insert(responder, counts);
        }
    }

    /// Time passes. Tells the worst ones about once a second, unless they are just being read.
    pub(super) fn tick(&mut self, now: Nanos) {
        if now.0 / Nanos::SEC == self.told {
            return;
        }
        let mut worst = match self.worst.try_lock() {
            Ok(worst) => worst,
            Err(TryLockError::Poisoned(worst)) => worst.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.told = now.0 / Nanos::SEC;
        let slot = now.0 / SLOT_NS;
        if slot > self.slot {
            self.slot = slot;
            // When there is no room, those that have been quiet for a minute make it.
            let forget = if self.responders.len() >= RESPONDERS { SLOTS as u64 } else { FORGET };
            self.responders.retain(|_, counts| slot.saturating_sub(counts.slot) < forget);
        }
        worst.clear();
        worst.extend(self.responders.iter().map(|(responder, counts)| {
            let Counts { total, kind, .. } = *counts;
            Named { responder: *responder, recent: counts.recent(slot), total, kind }
        }));
        worst.sort_unstable_by_key(|w| (std::cmp::Reverse((w.recent, w.total)), w.responder));
        worst.truncate(WORST);
    }
}

impl Onlooking {
    /// Anomalies that came since the last call, the oldest first.
    pub fn noted(&mut self) -> Vec<Noted> {
        std::iter::from_fn(|| self.noted.pop().ok()).collect()
    }

    /// The responders that most anomalies name, the worst first.
    pub fn worst(&self) -> Vec<Named> {
        self.worst.lock().map_or_else(|p| p.into_inner().clone(), |worst| worst.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Tuple;

    fn anomaly(kind: Kind, port: u16, at_s: u64, severity: Severity) -> Anomaly {
        let at = Nanos(at_s * Nanos::SEC);
        let mut a = Anomaly::new(kind, format!("at {at_s}"), at, at);
        let end = |port| Endpoint { port, ..Endpoint::default() };
        (a.severity, a.tuple) = (severity, Some(Tuple { src: end(1), dst: end(port) }));
        a
    }

    #[test]
    fn all_are_counted_and_what_has_no_room_is_passed_over() {
        let (mut desk, mut onlooking) = onlooker();
        for _ in 0..NOTED + 10 {
            desk.anomaly(&anomaly(Kind::SynUnanswered, 80, 5, Severity::Error));
        }
        let counts = onlooking.counts.clone();
        assert_eq!(
            counts.all(),
            [(Kind::SynUnanswered, Verdict::Unknown, Severity::Error, NOTED as u64 + 10)]
        );
        assert_eq!((onlooking.noted().len(), counts.passed_over()), (NOTED, 10));
        assert!(onlooking.noted().is_empty());
    }

    #[test]
    fn the_worst_are_those_of_the_last_minute() {
        let (mut desk, onlooking) = onlooker();
        for second in 0..100 {
            desk.anomaly(&anomaly(Kind::ResetMidFlow, 80, second, Severity::Warning));
            desk.anomaly(&anomaly(Kind::SynRefused, 443, second, Severity::Info));
        }
        (0..3).for_each(|_| desk.anomaly(&anomaly(Kind::SynRefused, 22, 100, Severity::Error)));
        let mut told = |at_s: u64| {
            desk.tick(Nanos(at_s * Nanos::SEC));
            let told = onlooking.worst();
            told.into_iter().map(|w| (w.responder.port, w.recent, w.total, w.kind)).collect::<Vec<_>>()
        };
        assert_eq!(told(101), [(80, 50, 100, Kind::ResetMidFlow), (22, 3, 3, Kind::SynRefused)]);
        assert_eq!(told(155), [(22, 3, 3, Kind::SynRefused), (80, 0, 100, Kind::ResetMidFlow)]);
        assert_eq!(told(161).iter().map(|t| t.1).sum::<u64>(), 0);
        assert_eq!(told(5_000), [], "after an hour");
    }

    #[test]
    fn more_responders_than_there_is_room_for_are_not_named_until_others_are_quiet() {
        let (mut desk, onlooking) = onlooker();
        (0..3_000).for_each(|port| desk.anomaly(&anomaly(Kind::SynRefused, port, 1, Severity::Error)));
        assert_eq!(desk.responders.len(), RESPONDERS);
        desk.tick(Nanos(90 * Nanos::SEC));
        desk.anomaly(&anomaly(Kind::SynRefused, 2_999, 91, Severity::Error));
        desk.tick(Nanos(92 * Nanos::SEC));
        assert_eq!(onlooking.worst().len(), 1);
    }
}
