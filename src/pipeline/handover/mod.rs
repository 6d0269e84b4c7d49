//! Hand-over between the workers of a span whose rings do not agree with the tuple hash: each packet goes to the one worker that owns its
//! tuple, whichever ring it came over.
//!
//! ```text
//!  ring 0 ─▶ worker 0: whose is it? ─┬─ mailbox 0▶0 ─┐
//!                                    └─ mailbox 0▶1 ─┼─┐
//!  ring 1 ─▶ worker 1: whose is it? ─┬─ mailbox 1▶0 ─┘ │     mailboxes ▶0, merged by time ─▶ worker 0's flows
//!                                    └─ mailbox 1▶1 ───┘     mailboxes ▶1, merged by time ─▶ worker 1's flows
//! ```
//!
//! - **Mailboxes** are single-producer single-consumer rings of bytes, one for each ordered pair of workers, their memory taken at the start. A
//!   batch goes into each in one piece. One that is full drops and counts: its owner is behind (`worker_behind`). A worker's mailbox to itself
//!   never drops, because it makes room before it reads its ring.
//! - **Order.** Each worker tells up to when it has passed on all that its ring had. A packet waits until all have passed its stamp; then no
//!   earlier one can come, and the order is that of the stamps. It waits at most [`MOST`], for a worker that got no CPU so long, and
//!   not at all where a mailbox is half full. A worker without packets looks each [`NAP_MS`], so that 20 ms are usual and no wake-up is paid for.
//! - **End.** A worker is over when the run stops and its ring is empty. It then serves its mailboxes until all others are over and they are
//!   empty, so that a run that ends well loses nothing.
//!
//! No locks; nothing is allocated after the start.

mod inbox;
mod slip;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rtrb::{Producer, RingBuffer};

use super::ends::ends_of;
use crate::bpf::hash;
use crate::capture::{BATCH, Packet, Polled, Source, SourceError};
use crate::wire::Nanos;
use inbox::{Horizon, Inbox};
use slip::{HEAD, LONGEST};

/// How long a packet waits for workers that have not passed its time, at most, nanoseconds. Flow timers follow the present at twice that, so none
/// runs ahead of it.
const MOST: u64 = 100 * Nanos::MS;

/// A packet is in its ring this long after its stamp: drivers fill rings in bites of 64 packets, which no thread interrupts.
const ON_ITS_WAY: u64 = Nanos::MS;

/// How long a worker waits for packets of its own ring before it looks at its mailboxes, and tells the others how far it is.
const NAP_MS: u32 = 10;

/// The same while packets wait for the others.
const SHORT_NAP_MS: u32 = 2;

/// How long the timers of silent flows wait, beyond their own distance to the present, for workers that are behind.
const TIMERS_WAIT: u64 = 200 * Nanos::MS;

/// Bytes of all mailboxes to one worker: 40,000 SYNs, or what a ring's own frames hold twice.
const ROOM: usize = 4 << 20;

/// Bytes of one mailbox at least: four batches of the longest packets.
const LEAST_ROOM: usize = 4 * BATCH * LONGEST;

/// Batches worked between two looks at a worker's own ring, at most.
const BATCHES: usize = 8;

/// Says that nothing will come any more.
const OVER: u64 = u64::MAX;

/// Which workers hand over to each other.
#[derive(Clone, Debug, Default)]
pub struct HandOver {
    /// Numbers of sources whose rings do not agree with the tuple hash, those of one span together.
    pub groups: Vec<Range<usize>>,
    /// The secret of the kernel side's hash.
    pub key: [u64; 2],
}

/// What the workers of a group know of each other.
#[derive(Debug)]
pub struct Group {
    first: usize,
    key: [u64; 2],
    members: Box<[Member]>,
}

/// Written by its worker, but for `behind`; on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Member {
    /// Up to this stamp its ring's packets are in the mailboxes of their owners.
    passed: AtomicU64,
    /// Packets that others had for it and its mailboxes had no room for.
    behind: AtomicU64,
    /// Packets handed over to others.
    handed: AtomicU64,
    /// Packets that it worked after one with a later stamp.
    late: AtomicU64,
}

impl Group {
    /// The numbers of its sources.
    pub fn sources(&self) -> Range<usize> {
        self.first..self.first + self.members.len()
    }

    /// Packets that were lost because this source's worker was behind.
    pub fn behind(&self, source: usize) -> u64 {
        self.members[source - self.first].behind.load(Ordering::Relaxed)
    }

    /// Packets handed over to another worker.
    pub fn handed(&self) -> u64 {
        self.members.iter().map(|m| m.handed.load(Ordering::Relaxed)).sum()
    }

    /// Packets worked after one with a later stamp.
    pub fn late(&self) -> u64 {
        self.members.iter().map(|m| m.late.load(Ordering::Relaxed)).sum()
    }

    /// All that was stamped up to then is in the mailboxes of its owners. What is read from mailboxes after this call has it all.
    fn passed(&self) -> Nanos {
        let all = self.members.iter().map(|m| m.passed.load(Ordering::Acquire));
        Nanos(all.min().unwrap_or(OVER))
    }
}

/// Mail to one worker.
struct Outbox {
    ring: Producer<u8>,
    /// What goes there in one piece, with the number of its packets.
    stage: Vec<u8>,
    staged: u64,
}

impl Outbox {
    /// Puts what is staged into the mailbox, as much as it has room for, and says how many packets that is.
    fn send(&mut self) -> u64 {
        let sent = if self.ring.is_abandoned() {
            0
        } else if self.ring.push_entire_slice(&self.stage).is_ok() {
            self.staged
        } else {
            let (mut end, mut count, room) = (0, 0, self.ring.slots());
            while let Some(head) = self.stage[end..].first_chunk::<HEAD>() {
                let next = end + HEAD + slip::read(head).len;
                if next > room {
                    break;
                }
                (end, count) = (next, count + 1);
            }
            // There is room, and nobody else fills it.
            let _ = self.ring.push_entire_slice(&self.stage[..end]);
            count
        };
        self.stage.clear();
        self.staged = 0;
        sent
    }
}

/// Why a worker's own ring gives nothing more.
enum Over {
    Stopped,
    End,
    Failed(Instant, Option<SourceError>),
}

/// One worker's part in the hand-over.
pub struct Exchange {
    group: Arc<Group>,
    me: usize,
    outboxes: Vec<Outbox>,
    inbox: Inbox,
    over: Option<Over>,
}

impl Exchange {
    /// The parts of the workers of a group, in the order of `sources`.
    pub fn group(sources: Range<usize>, key: [u64; 2]) -> (Arc<Group>, Vec<Exchange>) {
        let room = (ROOM / sources.len().max(1)).max(LEAST_ROOM);
        Exchange::with_room(sources, key, room)
    }

    fn with_room(sources: Range<usize>, key: [u64; 2], room: usize) -> (Arc<Group>, Vec<Exchange>) {
        let count = sources.len();
        let members = (0..count).map(|_| Member::default()).collect();
        let group = Arc::new(Group { first: sources.start, key, members });
        let mut inboxes: Vec<Vec<_>> = (0..count).map(|_| Vec::with_capacity(count)).collect();
        let zeros = vec![0; room];
        let mut outboxes: Vec<Vec<Outbox>> = Vec::with_capacity(count);
        for _ in 0..count {
            let to = |inbox: &mut Vec<_>| {
                let (mut ring, mut out) = RingBuffer::new(room);
                // Its pages are taken now, and not while packets come.
                let _ = ring.push_entire_slice(&zeros);
                let _ = out.pop_entire_slice(&mut vec![0; room]);
                inbox.push(out);
                Outbox { ring, stage: Vec::with_capacity(BATCH * LONGEST), staged: 0 }
            };
            outboxes.push(inboxes.iter_mut().map(to).collect());
        }
        let exchange = |(me, (outboxes, inbox))| Exchange {
            group: group.clone(),
            me,
            outboxes,
            inbox: Inbox::new(inbox),
            over: None,
        };
        let all = outboxes.into_iter().zip(inboxes).enumerate().map(exchange).collect();
        (group, all)
    }

    /// As [`Source::poll`] of `source`, but what `sink` gets are the packets that this worker owns, in order of time, whichever ring they came
    /// over, and in more than one batch if there are more. With `stopping`, [`Polled::Idle`] says that nothing will come any more, from
    /// nobody.
    pub fn poll(
        &mut self,
        source: &mut dyn Source,
        stopping: bool,
        clock: &dyn Fn() -> Nanos,
        sink: &mut dyn FnMut(&[Packet<'_>]),
    ) -> Result<Polled, SourceError> {
        let made = self.make_room(sink);
        let took = if self.over.is_none() { self.read(source, stopping, clock) } else { 0 };
        let worked = made + self.work(clock(), sink);
        if took + worked > 0 {
            return Ok(Polled::Packets(took.max(worked)));
        }
        let Some(over) = &mut self.over else { return Ok(Polled::Idle) };
        // Asked before the mailboxes: nothing can come after they were found empty.
        let all_over = self.group.passed().0 == OVER;
        let done = all_over && self.inbox.is_empty();
        match over {
            Over::Failed(since, error) if done || since.elapsed() >= Duration::from_nanos(MOST) => {
                error.take().map_or(Ok(Polled::End), Err)
            }
            Over::End if done => Ok(Polled::End),
            Over::Stopped if done => Ok(Polled::Idle),
            _ => {
                if !all_over {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(if stopping { Polled::Packets(0) } else { Polled::Idle })
            }
        }
    }

    /// Up to when the timers of silent flows may run, where they would run up to `timers`.
    pub fn timers(&self, timers: Nanos) -> Nanos {
        let least = Nanos(timers.0.saturating_sub(TIMERS_WAIT));
        self.group.passed().min(timers).max(least)
    }

    /// Works what is in the mailboxes until the one to itself has room for a batch, and says how many packets that were.
    fn make_room(&mut self, sink: &mut dyn FnMut(&[Packet<'_>])) -> usize {
        let mut made = 0;
        while self.outboxes[self.me].ring.slots() < BATCH * LONGEST {
            made += self.inbox.take(&self.horizon(Nanos(0), true), sink);
        }
        made
    }

    /// Reads a batch of its own ring into the mailboxes, and says how many packets that were.
    fn read(&mut self, source: &mut dyn Source, stopping: bool, clock: &dyn Fn() -> Nanos) -> usize {
        let wait = match (stopping, self.inbox.holds()) {
            (true, _) => 0,
            (false, true) => SHORT_NAP_MS,
            (false, false) => NAP_MS,
        };
        let before = clock();
        let (mut took, mut last) = (0, Nanos(0));
        let polled = source.poll(wait, &mut |packets| {
            packets.chunks(BATCH).for_each(|batch| self.hand_out(batch));
            took += packets.len();
            last = packets.last().map_or(last, |p| p.ts);
        });
        let over = match polled {
            Ok(Polled::Packets(_)) => None,
            Ok(Polled::Idle) => stopping.then_some(Over::Stopped),
            Ok(Polled::End) => Some(Over::End),
            Err(e) => Some(Over::Failed(Instant::now(), Some(e))),
        };
        let passed = if over.is_some() {
            OVER
        } else if took >= BATCH {
            last.0
        } else {
            // The ring was found empty after this.
            last.0.max(before.0.saturating_sub(ON_ITS_WAY))
        };
        self.over = over;
        // After the mail that it speaks of.
        self.group.members[self.me].passed.store(passed, Ordering::Release);
        took
    }

    /// Puts each packet of a batch into the mailbox of its owner.
    fn hand_out(&mut self, packets: &[Packet<'_>]) {
        for p in packets {
            let owner = self.owner(p);
            let outbox = &mut self.outboxes[owner];
            slip::write(p, &mut outbox.stage);
            outbox.staged += 1;
        }
        let mut handed = 0;
        for (n, outbox) in self.outboxes.iter_mut().enumerate().filter(|(_, o)| o.staged > 0) {
            let staged = outbox.staged;
            let sent = outbox.send();
            if sent < staged {
                self.group.members[n].behind.fetch_add(staged - sent, Ordering::Relaxed);
            }
            handed += if n == self.me { 0 } else { sent };
        }
        self.group.members[self.me].handed.fetch_add(handed, Ordering::Relaxed);
    }

    /// Who owns a packet: by the hash of its tuple. What belongs to no tuple stays where it came.
    #[inline]
    fn owner(&self, p: &Packet<'_>) -> usize {
        let hash = match p.hash {
            0 => match ends_of(p) {
                Some((a, b)) => hash::tuple(&self.group.key, &a.addr, a.port, &b.addr, b.port) as u32,
                None => return self.me,
            },
            hash => hash,
        };
        hash as usize % self.outboxes.len()
    }

    /// Works what is in the mailboxes and waits for nobody any more, and says how many packets that were.
    fn work(&mut self, now: Nanos, sink: &mut dyn FnMut(&[Packet<'_>])) -> usize {
        let mut worked = 0;
        for _ in 0..BATCHES {
            let horizon = self.horizon(now, self.inbox.is_pressed());
            let count = self.inbox.take(&horizon, sink);
            worked += count;
            if count < BATCH {
                break;
            }
        }
        let late = self.inbox.late();
        if late > 0 {
            self.group.members[self.me].late.fetch_add(late, Ordering::Relaxed);
        }
        worked
    }

    fn horizon(&self, now: Nanos, all: bool) -> Horizon {
        Horizon { passed: self.group.passed(), most: MOST, now, all }
    }
}

/// Whoever waits for this worker waits no longer, however it ended; what it leaves unread was lost.
impl Drop for Exchange {
    fn drop(&mut self) {
        let member = &self.group.members[self.me];
        member.passed.store(OVER, Ordering::Release);
        let mut lost = 0;
        let all = Horizon { passed: Nanos(OVER), most: 0, now: Nanos(0), all: true };
        while !self.inbox.is_empty() {
            lost += self.inbox.take(&all, &mut |_| ()) as u64;
        }
        member.behind.fetch_add(lost, Ordering::Relaxed);
    }
}
