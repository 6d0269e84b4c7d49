//! Signs of life, for whoever watches the run: that each thread goes round its loop, and how full the queues before it were.
//!
//! Each thread stores into words of its own; nobody waits for anybody.

use std::sync::atomic::{AtomicU64, Ordering};

use rtrb::Consumer;

use super::desk::{Desk, RecordSink, WAITING};
use super::event::Event;
use super::threads::Notice;
use crate::capture::Source;

/// How full a queue was at most since it was last asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// What waits there: `packets` in the ring of a worker, `events` from it to the writer, `conntrack`, `link`, `notices`, `copies`, and
    /// `order`, where the writer puts events in order.
    pub queue: &'static str,
    /// Which of several.
    pub number: usize,
    /// The most that waited: bytes in `packets`, entries elsewhere.
    pub most: u64,
    /// What there is room for.
    pub room: u64,
}

/// What a run's queues have room for; 0 is none.
pub(super) struct Queues {
    pub events: usize,
    pub copies: usize,
    pub conntrack: usize,
    pub link: usize,
    pub notices: usize,
}

#[derive(Debug)]
struct Queue {
    name: &'static str,
    number: usize,
    room: u64,
    most: AtomicU64,
}

/// See the module. Threads are counted from 0: the workers, then the writer.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: Box<[AtomicU64]>,
    queues: Box<[Queue]>,
}

impl Pulse {
    /// Of so many threads, and queues with their names, numbers and room.
    fn new(threads: usize, queues: &[(&'static str, usize, u64)]) -> Pulse {
        let queue =
            |&(name, number, room): &(&'static str, usize, u64)| Queue { name, number, room, most: 0.into() };
        Pulse { beats: (0..threads).map(|_| 0.into()).collect(), queues: queues.iter().map(queue).collect() }
    }

    /// Of a run with these sources, a worker each.
    pub(super) fn of(sources: &[Box<dyn Source + Send>], rooms: Queues) -> Pulse {
        let mut queues = Vec::new();
        for (n, source) in sources.iter().enumerate() {
            queues.extend(source.filled().map(|(_, room)| ("packets", n, room)));
            queues.push(("events", n, rooms.events as u64));
            queues.push(("copies", n, rooms.copies as u64));
        }
        let once = [
            ("conntrack", rooms.conntrack),
            ("link", rooms.link),
            ("notices", rooms.notices),
            ("order", WAITING),
        ];
        queues.extend(once.map(|(name, room)| (name, 0, room as u64)));
        queues.retain(|(_, _, room)| *room > 0);
        Pulse::new(sources.len() + 1, &queues)
    }

    /// A thread has gone round.
    #[inline]
    pub(super) fn beat(&self, thread: usize) {
        if let Some(beats) = self.beats.get(thread) {
            // Nobody else writes it.
            beats.store(beats.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Where a queue is to be reported.
    pub(super) fn queue(&self, name: &str, number: usize) -> Option<usize> {
        self.queues.iter().position(|q| q.name == name && q.number == number)
    }

    /// So much waits in a queue.
    #[inline]
    pub(super) fn waits(&self, queue: Option<usize>, count: u64) {
        if let Some(queue) = queue.and_then(|n| self.queues.get(n))
            && count > queue.most.load(Ordering::Relaxed)
        {
            queue.most.fetch_max(count, Ordering::Relaxed);
        }
    }

    /// How often each thread went round.
    pub fn beats(&self) -> Vec<u64> {
        self.beats.iter().map(|b| b.load(Ordering::Relaxed)).collect()
    }

    /// How full each queue was at most since the last call.
    pub fn levels(&self) -> Vec<Level> {
        let level = |q: &Queue| {
            let most = q.most.swap(0, Ordering::Relaxed);
            Level { queue: q.name, number: q.number, most, room: q.room }
        };
        self.queues.iter().map(level).collect()
    }
}

/// The writer's part of [`Pulse`].
pub(super) struct Beat<'a> {
    pulse: &'a Pulse,
    events: Vec<Option<usize>>,
    kernel: [Option<usize>; 2],
    notices: Option<usize>,
    order: Option<usize>,
}

impl Beat<'_> {
    /// Of a run of so many workers.
    pub fn of(pulse: &Pulse, workers: usize) -> Beat<'_> {
        let queue = |name| pulse.queue(name, 0);
        Beat {
            pulse,
            events: (0..workers).map(|n| pulse.queue("events", n)).collect(),
            kernel: ["conntrack", "link"].map(queue),
            notices: queue("notices"),
            order: queue("order"),
        }
    }

    /// The writer goes round, before it empties these.
    pub fn beat<S: RecordSink>(
        &self,
        desk: &Desk<S>,
        events: &[Consumer<Event>],
        kernel: &[Consumer<Event>],
        notices: &Consumer<Notice>,
    ) {
        self.pulse.beat(events.len());
        for (queue, ring) in self.events.iter().zip(events).chain(self.kernel.iter().zip(kernel)) {
            self.pulse.waits(*queue, ring.slots() as u64);
        }
        self.pulse.waits(self.notices, notices.slots() as u64);
        self.pulse.waits(self.order, desk.waiting() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_the_highest_since_it_was_asked_for() {
        let pulse = Pulse::new(2, &[("events", 0, 8), ("events", 1, 8)]);
        let queue = pulse.queue("events", 1);
        [3, 7, 2].into_iter().for_each(|n| pulse.waits(queue, n));
        assert_eq!(pulse.levels().iter().map(|l| l.most).collect::<Vec<_>>(), [0, 7]);
        assert_eq!(pulse.levels()[1].most, 0);
        pulse.waits(pulse.queue("nowhere", 0), 1);
        pulse.beat(1);
        pulse.beat(9);
        assert_eq!(pulse.beats(), [0, 1]);
    }
}
