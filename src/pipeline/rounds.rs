//! A replay: captures through the same workers as live packets, in rounds.
//!
//! A round is a stretch of the capture, shared out to the workers by tuple and worked off by all of them at once. At
//! its end every worker has reached the round's last packet time, so the desk can look at all events up to there in
//! their order. What comes out is the same, byte for byte, at any number of workers and any size of batch, as long as
//! the flow table has room (with it full, which flow makes room depends on its neighbours in the table).

use std::io;

use super::desk::{Desk, RecordSink};
use super::ends::ends_of;
use super::event::{Event, Outlet};
use super::fragments::Fragments;
use super::latency::{Interval, figures_until};
use super::waiting::Waiting;
use super::worker::{Worker, WorkerConfig, WorkerCounters};
use crate::capture::{Packet, ReplaySource};
use crate::flow::{FlowId, FlowKey, Narrow, Seed};
use crate::wire::{self, Nanos};

/// Packets in a round: a few milliseconds of work for each worker, so that starting threads costs a hundredth of it.
const ROUND: usize = 32_768;

/// Packets below which a round is worked off without threads: starting one costs as much as a hundred packets.
const WORTH_THREADS: usize = 1_024;

/// Flows at the end of a recording whose buckets are fetched ahead, and twice as many lines, in which stands what these are.
const AHEAD: usize = 8;

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
    /// What each of them has to say.
    events: Vec<Waiting>,
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
            events: (0..count).map(|_| Waiting::default()).collect(),
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
            let mut made = Vec::new();
            let round = Round::of(source, until, self.workers.len(), &mut self.fragments, &mut made);
            let round = round.with(&made);
            if let Some(first) = round.first {
                now = now.max(round.last);
                let began_at = *began.get_or_insert(first);
                if first >= until {
                    self.figures(since, until, desk)?;
                }
                if first >= until || until.0 == u64::MAX {
                    since = first;
                    until = figures_until(began_at, first);
                }
                let before = self.counters().evicted_early;
                self.round(&round, now);
                let given_up = self.counters().evicted_early - before;
                if given_up > 0 {
                    desk.lost(first, now, given_up, 0);
                }
                desk.advance_over(now, &mut self.events)?;
            }
            let ended = round.first.is_none();
            if source.new_recording() {
                self.conclude(now, desk)?;
                self.figures(since, now, desk)?;
                (now, began, until) = (Nanos(0), None, Nanos(u64::MAX));
            } else if ended {
                break;
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

    /// Ends a recording: what is still followed is concluded, the one that was quiet longest first. All of it ends at one moment, so it
    /// goes to the desk in its order and waits nowhere.
    fn conclude<S: RecordSink>(&mut self, end: Nanos, desk: &mut Desk<S>) -> Result<(), RoundsError> {
        let Rounds { workers, events, .. } = self;
        workers.iter_mut().zip(&mut *events).for_each(|(worker, events)| worker.settle(end, events));
        desk.advance_over(end, events)?;
        let left = in_order(workers, end);
        let mut to = Straight { desk, went: Ok(()) };
        for (at, one) in left.iter().enumerate() {
            if let Some(later) = left.get(at + 2 * AHEAD) {
                workers[later.worker()].fetch(later.id());
            }
            if let Some(soon) = left.get(at + AHEAD) {
                workers[soon.worker()].fetch_buckets(soon.id());
            }
            workers[one.worker()].conclude(one.id(), end, &mut to);
        }
        to.went?;
        workers.iter_mut().for_each(Worker::rewind);
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
    fn round(&mut self, round: &Round<'_>, now: Nanos) {
        let batch = self.batch;
        let work = |worker: &mut Worker, events: &mut Waiting, packets: &[Packet<'_>]| {
            packets.chunks(batch).for_each(|chunk| worker.batch(chunk, events));
            worker.settle(now, events);
        };
        let each = self.workers.iter_mut().zip(&mut self.events).zip(&round.shares);
        let packets: usize = round.shares.iter().map(Vec::len).sum();
        if round.shares.len() == 1 || packets < WORTH_THREADS {
            return each.for_each(|((worker, events), share)| work(worker, events, share));
        }
        std::thread::scope(|scope| {
            let jobs: Vec<_> = each
                .map(|((worker, events), share)| scope.spawn(move || work(worker, events, share)))
                .collect();
            for job in jobs {
                job.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
    }
}

/// The packets of a round, shared out to workers.
struct Round<'a> {
    shares: Vec<Vec<Packet<'a>>>,
    /// The latest time when its first packet had come.
    first: Option<Nanos>,
    /// Its latest packet's time.
    last: Nanos,
}

/// A packet made of pieces: its worker, its place there, its bytes.
type Made = (usize, usize, Vec<u8>);

impl<'a> Round<'a> {
    /// The next packets of `source` before `until`, and behind each the one that it completes, for whose bytes there is a place in `made`.
    fn of(
        source: &'a mut ReplaySource,
        until: Nanos,
        workers: usize,
        fragments: &mut Fragments,
        made: &mut Vec<Made>,
    ) -> Round<'a> {
        // Where there are several, room for a share by a quarter larger than the others.
        let room = if workers == 1 { ROUND } else { ROUND / workers * 5 / 4 };
        let shares = (0..workers).map(|_| Vec::with_capacity(room)).collect();
        let mut round = Round { shares, first: None, last: Nanos(0) };
        source.round(ROUND, until, |p| {
            round.first.get_or_insert(p.now);
            round.last = round.last.max(p.ts);
            let ends = wire::brief_ends(p.link, p.bytes, p.vlan);
            round.shares[worker_of(&p, ends, workers)].push(p);
            // What has its ends in the usual place is whole.
            if ends.is_none()
                && let Some((bytes, wire_len)) = fragments.offer(&p)
            {
                let worker = worker_of(&Packet { bytes: &bytes, wire_len, ..p }, None, workers);
                made.push((worker, round.shares[worker].len(), bytes));
                round.shares[worker].push(Packet { bytes: &[], wire_len, ..p });
            }
        });
        round
    }

    /// The same with the bytes of those that were made of pieces.
    fn with<'b>(self, made: &'b [Made]) -> Round<'b>
    where
        'a: 'b,
    {
        let mut round: Round<'b> = self;
        for (worker, at, bytes) in made {
            round.shares[*worker][*at].bytes = bytes;
        }
        round
    }
}

/// A flow that is left when a recording ends, in a number that sorts as its last packet's time: that stands in the upper half, and then the worker and the
/// flow's number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Left(u128);

impl Left {
    fn new(last: Nanos, worker: usize, id: FlowId) -> Left {
        Left(u128::from(last.0) << 64 | (worker as u128) << 32 | u128::from(id.0))
    }

    fn last(self) -> u64 {
        (self.0 >> 64) as u64
    }

    fn worker(self) -> usize {
        (self.0 >> 32) as usize & 0xffff
    }

    fn id(self) -> FlowId {
        FlowId(self.0 as u32)
    }
}

/// What all workers have left, in the order in which it is told: that of [`Place`](super::event::Place).
fn in_order(workers: &[Worker], end: Nanos) -> Vec<Left> {
    let of = |(n, w): (usize, &Worker)| {
        w.left(end).map(move |(last, id)| Left::new(last, n, id)).collect::<Vec<_>>()
    };
    let mut left: Vec<_> = workers.iter().enumerate().flat_map(of).collect();
    left.sort_unstable();
    for same in left.chunk_by_mut(|a, b| a.last() == b.last()).filter(|same| same.len() > 1) {
        same.sort_by_key(|one| workers[one.worker()].lane(one.id()));
    }
    left
}

/// Events that go to the desk at once: every flow that lives ends with the capture, and a list of all that would be long.
struct Straight<'a, S> {
    desk: &'a mut Desk<S>,
    went: io::Result<()>,
}

impl<S: RecordSink> Outlet for Straight<'_, S> {
    fn event(&mut self, mut event: Event) {
        if self.went.is_ok() {
            self.went = self.desk.look(&mut event);
        }
    }
}

/// The worker of a packet: both directions of a tuple, the errors that quote it, and its fragments' first go to one. `ends` are its own
/// as [`wire::brief_ends`] reads them.
#[inline]
fn worker_of(p: &Packet<'_>, ends: Option<(u64, u32)>, count: usize) -> usize {
    if count == 1 {
        return 0;
    }
    // All points of a tuple go to one worker too, as the kernel side does it.
    let hash = match ends {
        Some((four, ports)) => Some(Narrow::new(four, ports, 0).0.hash(Seed::FIXED)),
        None => ends_of(p).map(|(src, dst)| FlowKey::new(src, dst, 0).0.hash(Seed::FIXED)),
    };
    hash.map_or(0, |hash| (hash >> 32) as usize % count)
}
