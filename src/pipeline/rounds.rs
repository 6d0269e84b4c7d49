//! A replay: captures through the same workers as live packets, in rounds.
//!
//! A round is a stretch of the capture, shared out to the workers by tuple and worked off by all of them at once. At
//! its end every worker has reached the round's last packet time, so the desk can look at all events up to there in
//! their order. What comes out is the same, byte for byte, at any number of workers and any size of batch, as long as
//! the flow table has room (with it full, which flow makes room depends on its neighbours in the table).

use std::io;

use super::desk::{Desk, RecordSink};
use super::ends::hash_of;
use super::event::{Event, Outlet};
use super::fragments::Fragments;
use super::latency::{Interval, figures_until};
use super::worker::{Worker, WorkerConfig, WorkerCounters};
use crate::capture::{Packet, ReplaySource};
use crate::wire::Nanos;

/// Packets in a round: a few milliseconds of work for each worker, so that starting threads costs a hundredth of it.
const ROUND: usize = 32_768;

/// Packets below which a round is worked off without threads: starting one costs as much as a hundred packets.
const WORTH_THREADS: usize = 1_024;

/// Why a replay ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoundsError {
    /// A record could not be written.
    #[error("cannot write a record: {0}")]
    Write(#[from] io::Error),
}

/// See the module.
pub struct Rounds {
    workers: Vec<Worker>,
    /// What each of them had to say in a round.
    events: Vec<Vec<Event>>,
    batch: usize,
    fragments: Fragments,
    /// Figures that are in records.
    total: Interval,
}

impl Rounds {
    /// `count` workers (at least one) that share the room of `config`; batches of `batch` packets.
    pub fn new(config: &WorkerConfig, count: usize, batch: usize) -> Rounds {
        let count = count.max(1);
        let each = WorkerConfig {
            max_flows: config.max_flows.div_ceil(count),
            recorder: config.recorder.div_ceil(count),
            ..config.clone()
        };
        Rounds {
            workers: (0..count).map(|_| Worker::new(&each)).collect(),
            events: (0..count).map(|_| Vec::new()).collect(),
            batch: batch.max(1),
            fragments: Fragments::default(),
            total: Interval::default(),
        }
    }

    /// Replays all of `source` and concludes at its end.
    pub fn run<S: RecordSink>(
        &mut self,
        source: &mut ReplaySource,
        desk: &mut Desk<S>,
    ) -> Result<(), RoundsError> {
        let mut now = Nanos(0);
        // When this recording began, and the stretch of time whose figures are being gathered.
        let (mut began, mut since, mut until) = (None, Nanos(0), Nanos(u64::MAX));
        loop {
            let round = source.round(ROUND, until);
            let Some(last) = round.iter().map(|p| p.ts).max() else { break };
            now = now.max(last);
            let first = round.first().map_or(now, |p| p.now);
            let began_at = *began.get_or_insert(first);
            if first >= until {
                self.figures(since, until, desk)?;
            }
            if first >= until || until.0 == u64::MAX {
                since = first;
                until = figures_until(began_at, first);
            }
            let offered = round.iter().enumerate();
            let made: Vec<_> = offered.filter_map(|(n, p)| Some((n, self.fragments.offer(p)?))).collect();
            let round = if made.is_empty() { round } else { with_made(&round, &made) };
            let (since, before) = (round.first().map_or(now, |p| p.now), self.counters().evicted_early);
            self.round(&round, now);
            self.events.iter_mut().flat_map(|events| events.drain(..)).try_for_each(|e| desk.event(e))?;
            let given_up = self.counters().evicted_early - before;
            if given_up > 0 {
                desk.lost(since, now, given_up, 0);
            }
            desk.advance(now)?;
            if source.new_recording() {
                self.conclude(now, desk)?;
                self.figures(since, now, desk)?;
                (now, began, until) = (Nanos(0), None, Nanos(u64::MAX));
            }
        }
        let end = source.end_time().unwrap_or(now).max(now);
        self.conclude(end, desk)?;
        self.figures(since.min(end), end, desk)
    }

    /// Writes the figures of a stretch of time and begins with the next.
    fn figures<S: RecordSink>(
        &mut self,
        first: Nanos,
        last: Nanos,
        desk: &mut Desk<S>,
    ) -> Result<(), RoundsError> {
        let mut taken = Interval::default();
        for w in &mut self.workers {
            taken.add(&w.take_interval());
        }
        for set in taken.sets(first, last).iter().filter(|s| !s.is_empty()) {
            desk.figures(set)?;
        }
        self.total.add(&taken);
        Ok(())
    }

    /// Ends a recording: what still waits is concluded.
    fn conclude<S: RecordSink>(&mut self, end: Nanos, desk: &mut Desk<S>) -> Result<(), RoundsError> {
        for worker in &mut self.workers {
            let mut to = Straight { desk: &mut *desk, went: Ok(()) };
            worker.finish(end, &mut to);
            to.went?;
        }
        desk.advance(end)?;
        Ok(())
    }

    /// The workers' counters, added up.
    pub fn counters(&self) -> WorkerCounters {
        let mut sum = WorkerCounters::default();
        self.workers.iter().for_each(|w| sum.add(w.counters()));
        sum
    }

    /// Handshake latencies of all workers.
    pub fn latencies(&mut self) -> Interval {
        let mut sum = std::mem::take(&mut self.total);
        for w in &mut self.workers {
            sum.add(&w.take_interval());
        }
        sum
    }

    /// Works one round off; `now` is the latest packet time so far.
    fn round(&mut self, packets: &[Packet<'_>], now: Nanos) {
        let batch = self.batch;
        let work = |worker: &mut Worker, events: &mut Vec<Event>, packets: &[Packet<'_>]| {
            packets.chunks(batch).for_each(|chunk| worker.batch(chunk, events));
            worker.settle(now, events);
        };
        let count = self.workers.len();
        let workers = self.workers.iter_mut().zip(&mut self.events);
        if count == 1 {
            return workers.for_each(|(worker, events)| work(worker, events, packets));
        }
        // Room for a share by a quarter larger than the others.
        let room = packets.len() / count * 5 / 4;
        let mut lanes: Vec<Vec<Packet<'_>>> = (0..count).map(|_| Vec::with_capacity(room)).collect();
        for p in packets {
            lanes[worker_of(p, count)].push(*p);
        }
        let shares = workers.zip(&lanes);
        if packets.len() < WORTH_THREADS {
            return shares.for_each(|((worker, events), lane)| work(worker, events, lane));
        }
        std::thread::scope(|scope| {
            let jobs: Vec<_> = shares
                .map(|((worker, events), lane)| scope.spawn(move || work(worker, events, lane)))
                .collect();
            for job in jobs {
                job.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
    }
}

/// Events that go to the desk at once: every flow that lives ends with the capture, and a list of all that would be copied twice.
struct Straight<'a, S> {
    desk: &'a mut Desk<S>,
    went: io::Result<()>,
}

impl<S: RecordSink> Outlet for Straight<'_, S> {
    fn event(&mut self, event: Event) {
        if self.went.is_ok() {
            self.went = self.desk.event(event);
        }
    }
}

/// A packet made of pieces, and which one of its round completed it.
type Made = (usize, (Vec<u8>, u32));

/// The packets of a round, and behind each the one that it completed.
fn with_made<'a>(round: &[Packet<'a>], made: &'a [Made]) -> Vec<Packet<'a>> {
    let mut all = Vec::with_capacity(round.len() + made.len());
    let mut from = 0;
    for (n, (bytes, wire_len)) in made {
        all.extend_from_slice(&round[from..=*n]);
        all.push(Packet { bytes, wire_len: *wire_len, ..round[*n] });
        from = n + 1;
    }
    all.extend_from_slice(&round[from..]);
    all
}

/// The worker of a packet: both directions of a tuple, the errors that quote it, and its fragments' first go to one.
fn worker_of(p: &Packet<'_>, count: usize) -> usize {
    // All points of a tuple go to one worker too, as the kernel side does it.
    hash_of(p).map_or(0, |hash| (hash >> 32) as usize % count)
}
