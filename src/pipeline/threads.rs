//! The threads of a live run: one worker for each ring, one writer. No locks: events, reports and mirrored packets
//! travel over single-producer single-consumer rings, and a full ring drops and counts.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, RingBuffer};

use super::conntrack::{ConntrackFeed, ConntrackTotals, Listener, listen};
use super::desk::{Desk, RecordSink, Tally};
use super::event::{Event, Outlet, Place, What};
use super::handover::{Exchange, Group, HandOver};
use super::latency::Interval;
use super::link::{LINK_EVENTS, LinkListener, LinkTotals};
use super::pulse::{Beat, Pulse, Queues};
use super::worker::{Worker, WorkerConfig, WorkerCounters};
use crate::capture::link::LinkEvents;
use crate::capture::{Packet, Point, Polled, PortSet, Source, SourceError};
use crate::detect::{Anomaly, Sight};
use crate::record::FigureSet;
use crate::wire::{LinkType, Nanos, OffloadedVlan, Way};

/// Events a worker can be ahead of the writer: a third of a second of 100,000 handshakes a second over two workers, four events each.
/// The writer works them off ten times as fast; this is for the time that a disk makes it wait.
const EVENTS: usize = 65_536;

/// Mirrored packets a worker can be ahead of `--mirror-to`'s file.
const COPIES: usize = 16_384;

/// What the control thread can be ahead of the writer: a look makes some dozens of them.
const NOTICES: usize = 1024;

/// Sets of ports that can be on their way to a thread.
const PORTS: usize = 4;

/// A thread takes other ports within one round of its loop.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);

/// How often a worker reports.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// How long a worker waits for packets before it looks at the clock: flow timers may be this late, and so may the end.
const WAIT_MS: u32 = 50;

/// How long the writer sleeps when there is nothing to write.
const WRITER_NAP: Duration = Duration::from_millis(5);

/// How far behind the present the events of all workers are put in order: a worker may sit out [`WAIT_MS`] before it looks at
/// its ring, its timers follow at [`TIMER_LAG`], and their wheel turns in tenths of a second.
const IN_ORDER_AFTER: u64 = 500 * Nanos::MS;

/// Packets may still be on their way into the ring when it is found empty: timers follow at this distance.
const TIMER_LAG: u64 = 200 * Nanos::MS;

/// How long an unanswered SYN waits for news of losses: they are looked at every second.
const HOLD_NS: u64 = 2 * Nanos::SEC;

/// What the control thread tells the writer.
#[derive(Debug)]
pub enum Notice {
    /// An anomaly of the tool itself.
    Anomaly(Box<Anomaly>),
    /// What was seen at this moment of all packets together.
    Sight(Sight, Nanos),
    /// Figures of a stretch of time.
    Figures(Box<FigureSet>),
    /// Other ports are followed from now on.
    Ports(PortSet),
    /// Packets were lost.
    Lost {
        /// From when,
        first: Nanos,
        /// to when,
        last: Nanos,
        /// by this program,
        drops: u64,
        /// or before it.
        misses: u64,
    },
}

/// What a worker tells the control thread.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its counters.
    pub counters: WorkerCounters,
    /// Handshake latencies since the report before.
    pub latencies: Box<Interval>,
}

/// A copy of a mirrored packet, for `--mirror-to`.
#[derive(Debug)]
pub struct Copied {
    /// When.
    pub ts: Nanos,
    /// Where.
    pub point: Point,
    /// Which way.
    pub way: Way,
    /// Link type.
    pub link: LinkType,
    /// Length on the wire.
    pub wire_len: u32,
    /// Tag outside the bytes.
    pub vlan: OffloadedVlan,
    /// The bytes.
    pub bytes: Box<[u8]>,
}

/// Where copies of mirrored packets go. After an error nothing more is given to it.
pub trait CopySink: Send {
    /// Takes one.
    fn copied(&mut self, packet: &Copied) -> io::Result<()>;
    /// Time passes: what was taken a while ago is written.
    fn tick(&mut self) -> io::Result<()>;
    /// The capture ended at this time.
    fn end(&mut self, at: Nanos) -> io::Result<()>;
    /// After an error: how many packets were taken and are not in the file.
    fn unwritten(&self) -> u64;
}

/// Counters that several threads see.
#[derive(Debug, Default)]
pub struct Shared {
    stop: AtomicBool,
    /// When the capture ended: one moment for all, so that a replay of the mirrored packets ends as the run did.
    end: AtomicU64,
    /// Events that did not fit the ring to the writer.
    pub events_dropped: AtomicU64,
    /// Copies that are not in the mirror file: they did not fit the ring to it, or it could not be written.
    pub copies_dropped: AtomicU64,
    /// Flows that workers gave up for room before they were over.
    pub flows_given_up: AtomicU64,
    /// Why the mirror file is not written any more. The run goes on without it.
    copy_error: OnceLock<io::Error>,
    /// The workers that hand over to each other.
    groups: Vec<Arc<Group>>,
    /// What connection tracking said.
    pub conntrack: ConntrackTotals,
    /// What the link layer said.
    pub link: LinkTotals,
    /// Signs of life of workers and writer.
    pub pulse: Pulse,
    /// Set when the writer failed and the run cannot go on.
    pub failed: AtomicBool,
}

/// Why a worker stopped before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Its source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A mistake in this program.
    #[error("a worker panicked")]
    Panicked,
}

/// What the workers leave behind.
#[derive(Debug, Default)]
pub struct Drained {
    /// Their counters, added up.
    pub counters: WorkerCounters,
    /// Workers that stopped before their time, by the number of their source.
    pub failed: Vec<(usize, WorkerError)>,
}

/// What remains when all threads have ended.
pub struct Finished<S> {
    /// Where the records went, and what was found.
    pub written: io::Result<(S, Tally)>,
    /// The counters, complete.
    pub shared: Arc<Shared>,
}

/// How the run is to be set up.
pub struct Plan<'a> {
    /// For each worker.
    pub worker: WorkerConfig,
    /// CPUs to pin workers to, in turn; empty pins nothing.
    pub cpus: &'a [usize],
    /// The present time on the packets' clock.
    pub clock: Arc<dyn Fn() -> Nanos + Send + Sync>,
    /// Where mirrored packets are copied to, if anywhere.
    pub copies: Option<Box<dyn CopySink>>,
    /// The gateway's connection tracking, if it is listened to.
    pub conntrack: Option<ConntrackFeed>,
    /// The kernel's link-layer events, if they are listened to.
    pub link: Option<LinkEvents>,
    /// Which workers hand over to each other.
    pub hand_over: HandOver,
}

/// A running pipeline.
pub struct Pipeline<S> {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<(Report, Option<SourceError>)>>,
    reports: Vec<Consumer<Report>>,
    latest: Vec<WorkerCounters>,
    notices: Option<Producer<Notice>>,
    writer: Option<JoinHandle<io::Result<(S, Tally)>>>,
    clock: Arc<dyn Fn() -> Nanos + Send + Sync>,
    copier: Option<JoinHandle<()>>,
    listeners: Vec<JoinHandle<()>>,
    /// To each worker, and to whoever listens to connection tracking.
    ports: Vec<Producer<PortSet>>,
}

impl Shared {
    /// Why the mirror file is not written any more, if so.
    pub fn copy_error(&self) -> Option<&io::Error> {
        self.copy_error.get()
    }

    /// Packets for a source's worker that were lost because it was behind.
    pub fn behind(&self, source: usize) -> u64 {
        self.groups.iter().find(|g| g.sources().contains(&source)).map_or(0, |g| g.behind(source))
    }

    /// Packets that workers handed over to each other, and packets worked after one with a later stamp; `None` where nothing is handed
    /// over.
    pub fn handed(&self) -> Option<(u64, u64)> {
        let sum = |of: fn(&Group) -> u64| self.groups.iter().map(|g| of(g)).sum();
        (!self.groups.is_empty()).then(|| (sum(Group::handed), sum(Group::late)))
    }

    /// Whether the run ends.
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn end(&self) -> Nanos {
        Nanos(self.end.load(Ordering::Relaxed))
    }
}

struct Ring {
    events: Producer<Event>,
    shared: Arc<Shared>,
}

impl Outlet for Ring {
    fn event(&mut self, event: Event) {
        if self.events.push(event).is_err() {
            self.shared.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<S: RecordSink + Ticking + Send + 'static> Pipeline<S> {
    /// Starts one worker for each source, and the writer.
    pub fn start(
        sources: Vec<Box<dyn Source + Send>>,
        desk: impl FnOnce() -> io::Result<Desk<S>> + Send + 'static,
        plan: Plan<'_>,
    ) -> io::Result<Pipeline<S>> {
        let pulse = Pulse::of(
            &sources,
            Queues {
                events: EVENTS,
                copies: if plan.copies.is_some() { COPIES } else { 0 },
                conntrack: if plan.conntrack.is_some() { EVENTS } else { 0 },
                link: if plan.link.is_some() { LINK_EVENTS } else { 0 },
                notices: NOTICES,
            },
        );
        let mut exchanges: Vec<Option<Exchange>> = (0..sources.len()).map(|_| None).collect();
        let mut groups = Vec::new();
        for numbers in plan.hand_over.groups {
            let (group, parts) = Exchange::group(numbers.clone(), plan.hand_over.key);
            groups.push(group);
            numbers.zip(parts).for_each(|(n, part)| exchanges[n] = Some(part));
        }
        let shared = Arc::new(Shared { groups, pulse, ..Shared::default() });
        let (mut workers, mut reports, mut events, mut copies) = (vec![], vec![], vec![], vec![]);
        let mut ports = Vec::new();
        let copying = plan.copies.is_some();
        for (n, (source, exchange)) in sources.into_iter().zip(exchanges).enumerate() {
            let (event_tx, event_rx) = RingBuffer::new(EVENTS);
            let (report_tx, report_rx) = RingBuffer::new(16);
            let (copy_tx, copy_rx) = RingBuffer::new(if copying { COPIES } else { 1 });
            let (ports_tx, ports_rx) = RingBuffer::new(PORTS);
            ports.push(ports_tx);
            events.push(event_rx);
            reports.push(report_rx);
            copies.push(copy_rx);
            let lane = Lane {
                source,
                exchange,
                outlet: Ring { events: event_tx, shared: shared.clone() },
                reports: report_tx,
                copies: copying.then_some(copy_tx),
                shared: shared.clone(),
                clock: plan.clock.clone(),
                cpu: plan.cpus.get(n % plan.cpus.len().max(1)).copied(),
                number: n,
                ports: ports_rx,
                given_up: 0,
            };
            let config = plan.worker.clone();
            let thread = std::thread::Builder::new().name(format!("syntap-w{n}"));
            workers.push(thread.spawn(move || {
                let worker = Worker::new(&config);
                lane.run(worker)
            })?);
        }
        let (listener_tx, listener_rx) = RingBuffer::new(if plan.conntrack.is_some() { EVENTS } else { 1 });
        let (link_tx, link_rx) = RingBuffer::new(if plan.link.is_some() { LINK_EVENTS } else { 1 });
        let mut listeners = Vec::new();
        if let Some(feed) = plan.conntrack {
            let (ports_tx, ports_rx) = RingBuffer::new(PORTS);
            ports.push(ports_tx);
            listeners.push(listen(Listener::new(
                feed,
                listener_tx,
                ports_rx,
                shared.clone(),
                plan.clock.clone(),
            ))?);
        }
        if let Some(source) = plan.link {
            let (shared, clock) = (shared.clone(), plan.clock.clone());
            listeners.push(LinkListener { source, ring: link_tx, shared, clock }.start()?);
        }
        let (notice_tx, notice_rx) = RingBuffer::new(NOTICES);
        let clock = plan.clock.clone();
        let writer_shared = shared.clone();
        let writer_clock = plan.clock.clone();
        let writer = std::thread::Builder::new().name("syntap-writer".into()).spawn(move || {
            let written = desk().and_then(|desk| {
                let beat = Beat::of(&writer_shared.pulse, events.len());
                write(desk.hold(HOLD_NS), events, [listener_rx, link_rx], notice_rx, &*writer_clock, &beat)
            });
            if written.is_err() {
                writer_shared.failed.store(true, Ordering::Relaxed);
            }
            written
        })?;
        let copier = match plan.copies {
            None => None,
            Some(sink) => {
                let shared = shared.clone();
                let thread = std::thread::Builder::new().name("syntap-mirror".into());
                Some(thread.spawn(move || copy(sink, copies, &shared))?)
            }
        };
        Ok(Pipeline {
            latest: vec![WorkerCounters::default(); workers.len()],
            shared,
            workers,
            reports,
            notices: Some(notice_tx),
            writer: Some(writer),
            clock,
            copier,
            listeners,
            ports,
        })
    }

    /// The shared counters.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether the writer failed: the run must end.
    pub fn failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Workers that have stopped, by the number of their source.
    pub fn stopped(&self) -> impl Iterator<Item = usize> {
        self.workers.iter().enumerate().filter(|(_, w)| w.is_finished()).map(|(n, _)| n)
    }

    /// Tells the writer.
    pub fn notice(&mut self, notice: Notice) {
        if let Some(ring) = &mut self.notices
            && ring.push(notice).is_err()
        {
            self.shared.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Follows other ports: tells all threads that look at ports, and waits until they have taken them, for as long as one of them may
    /// be busy. False if one has not: it follows.
    pub fn follow(&mut self, ports: &PortSet) -> bool {
        let until = Instant::now() + TAKEN_WITHIN;
        for ring in &mut self.ports {
            // One that is over takes nothing, and needs nothing.
            while !ring.is_abandoned() && ring.push(ports.clone()).is_err() && Instant::now() < until {
                std::thread::sleep(WRITER_NAP);
            }
        }
        let waits = |ring: &Producer<PortSet>| !ring.is_abandoned() && ring.slots() < PORTS;
        while self.ports.iter().any(waits) {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(WRITER_NAP);
        }
        true
    }

    /// What the workers reported since the last call: latencies are added to `latencies`, counters summed up.
    pub fn gather(&mut self, latencies: &mut Interval) -> WorkerCounters {
        for (ring, latest) in self.reports.iter_mut().zip(&mut self.latest) {
            while let Ok(report) = ring.pop() {
                latencies.add(&report.latencies);
                *latest = report.counters;
            }
        }
        let mut sum = WorkerCounters::default();
        for c in &self.latest {
            sum.add(c);
        }
        sum
    }

    /// The present time on the packets' clock.
    pub fn now(&self) -> Nanos {
        (self.clock)()
    }

    /// Asks the workers to work off what their rings hold and to stop, and waits for them. No packet may be on its
    /// way into the rings any more. `latencies` and the counters are complete after this, but for what a worker that
    /// panicked had not reported.
    pub fn drain(&mut self, latencies: &mut Interval) -> Drained {
        self.shared.end.store(self.now().0, Ordering::Relaxed);
        self.shared.stop.store(true, Ordering::Release);
        let mut drained = Drained::default();
        let mut last = Vec::new();
        for (n, w) in self.workers.drain(..).enumerate() {
            match w.join() {
                Ok((report, error)) => {
                    last.push((n, report));
                    drained.failed.extend(error.map(|e| (n, e.into())));
                }
                Err(_) => drained.failed.push((n, WorkerError::Panicked)),
            }
        }
        for listener in self.listeners.drain(..) {
            if listener.join().is_err() {
                drained.failed.push((usize::MAX, WorkerError::Panicked));
            }
        }
        self.gather(latencies);
        for (n, report) in last {
            latencies.add(&report.latencies);
            self.latest[n] = report.counters;
        }
        self.latest.iter().for_each(|c| drained.counters.add(c));
        drained
    }

    /// Waits for the writer to write the rest. Call after [`Pipeline::drain`].
    pub fn finish(mut self) -> Finished<S> {
        self.notices = None;
        let gone = || io::Error::other("the writer panicked");
        let written = self.writer.take().map(JoinHandle::join);
        let written = written.and_then(Result::ok).unwrap_or_else(|| Err(gone()));
        if let Some(Err(_)) = self.copier.take().map(JoinHandle::join) {
            let _ = self.shared.copy_error.set(io::Error::other("its thread panicked"));
        }
        Finished { written, shared: self.shared }
    }
}

/// A sink that wants to know that time passes, to flush.
pub trait Ticking {
    /// Called a few times a second. An anomaly is one of the tool itself, for the records.
    fn tick(&mut self) -> io::Result<Option<Anomaly>>;
}

/// One worker thread's belongings.
struct Lane {
    source: Box<dyn Source + Send>,
    /// With the other workers of its span, where its ring does not agree with the tuple hash.
    exchange: Option<Exchange>,
    outlet: Ring,
    reports: Producer<Report>,
    copies: Option<Producer<Copied>>,
    shared: Arc<Shared>,
    clock: Arc<dyn Fn() -> Nanos + Send + Sync>,
    cpu: Option<usize>,
    /// Which worker it is.
    number: usize,
    /// Ports that are followed from now on.
    ports: Consumer<PortSet>,
    /// Flows given up so far, as reported.
    given_up: u64,
}

impl Lane {
    /// Ends when it is told to and its ring is empty, or with its source.
    fn run(mut self, mut worker: Worker) -> (Report, Option<SourceError>) {
        if let Some(cpu) = self.cpu {
            let mut set = nix::sched::CpuSet::new();
            // A CPU that is not ours to use only costs speed.
            if set.set(cpu).is_ok() {
                let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
            }
        }
        let mut reported = Instant::now();
        let ring = self.shared.pulse.queue("packets", self.number);
        let failed = loop {
            self.shared.pulse.beat(self.number);
            while let Ok(ports) = self.ports.pop() {
                worker.set_ports(ports);
            }
            self.shared.pulse.waits(ring, self.source.filled().map_or(0, |(filled, _)| filled));
            // Read before the poll: what was in the ring when the stop came is worked off.
            let stopping = self.shared.stop.load(Ordering::Acquire);
            let Lane { source, exchange, outlet, copies, shared, clock, .. } = &mut self;
            let wait = if stopping { 0 } else { WAIT_MS };
            let mut work = |packets: &[Packet<'_>]| {
                if let Some(ring) = copies {
                    copy_out(packets, ring, shared);
                }
                worker.batch(packets, outlet);
            };
            let polled = match exchange {
                None => source.poll(wait, &mut work),
                Some(exchange) => exchange.poll(&mut **source, stopping, &**clock, &mut work),
            };
            let polled = match polled {
                Ok(polled) => polled,
                Err(e) => break Some(e),
            };
            let idle = !matches!(polled, Polled::Packets(_));
            if idle {
                if stopping || polled == Polled::End {
                    break None;
                }
                let now = (self.clock)();
                let timers = Nanos(now.0.saturating_sub(TIMER_LAG));
                let timers = self.exchange.as_ref().map_or(timers, |x| x.timers(timers));
                worker.idle(timers, &mut self.outlet);
            }
            if reported.elapsed() >= REPORT_EVERY {
                self.report(&mut worker);
                reported = Instant::now();
            }
        };
        // A source that ended before the run did ends its flows now.
        let end = if self.shared.stop.load(Ordering::Acquire) { self.shared.end() } else { (self.clock)() };
        worker.finish(end, &mut self.outlet);
        (Report { counters: *worker.counters(), latencies: worker.take_interval() }, failed)
    }

    fn report(&mut self, worker: &mut Worker) {
        let given_up = worker.counters().evicted_early;
        self.shared.flows_given_up.fetch_add(given_up - self.given_up, Ordering::Relaxed);
        self.given_up = given_up;
        if self.reports.is_full() {
            return; // The next one carries this one's latencies too.
        }
        let latencies = worker.take_interval();
        let report = Report { counters: *worker.counters(), latencies };
        // There was room, and nobody else pushes.
        let _ = self.reports.push(report);
    }
}

fn copy_out(packets: &[Packet<'_>], ring: &mut Producer<Copied>, shared: &Shared) {
    for p in packets {
        let copied = Copied {
            ts: p.ts,
            point: p.point,
            way: p.way,
            link: p.link,
            wire_len: p.wire_len,
            vlan: p.vlan,
            bytes: p.bytes.into(),
        };
        if ring.push(copied).is_err() {
            shared.copies_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The writer's loop: ends when all rings are empty and their producers gone.
fn write<S: RecordSink + Ticking>(
    mut desk: Desk<S>,
    mut events: Vec<Consumer<Event>>,
    mut kernel: [Consumer<Event>; 2],
    mut notices: Consumer<Notice>,
    clock: &dyn Fn() -> Nanos,
    beat: &Beat<'_>,
) -> io::Result<(S, Tally)> {
    loop {
        beat.beat(&desk, &events, &kernel, &notices);
        let mut took = false;
        // Asked before the rings are emptied: nothing can come after an abandoned ring was found empty.
        let last = notices.is_abandoned() && kernel.iter().chain(&events).all(Consumer::is_abandoned);
        while let Ok(notice) = notices.pop() {
            took = true;
            match notice {
                Notice::Anomaly(a) => desk.anomaly(*a)?,
                Notice::Sight(sight, at) => {
                    // Behind all that was seen up to then.
                    let place = Place { at, age: Nanos(u64::MAX), lane: 0, count: 0 };
                    desk.event(Event { place, what: What::Sight(sight) })?;
                }
                Notice::Figures(set) => desk.figures(&set)?,
                Notice::Ports(ports) => desk.only_ports(ports),
                Notice::Lost { first, last, drops, misses } => desk.lost(first, last, drops, misses),
            }
        }
        for (n, ring) in events.iter_mut().enumerate() {
            took |= bite(ring, |event| desk.event_of(n, event))?;
        }
        for ring in &mut kernel {
            took |= bite(ring, |event| desk.event(event))?;
        }
        let now = clock();
        desk.advance(Nanos(now.0.saturating_sub(IN_ORDER_AFTER)))?;
        desk.tick(now)?;
        if let Some(own) = desk.sink().tick()? {
            desk.anomaly(own)?;
        }
        if !took {
            if last {
                return desk.finish();
            }
            std::thread::sleep(WRITER_NAP);
        }
    }
}

/// A bounded bite of a ring, so that none starves; whether there was anything.
fn bite(ring: &mut Consumer<Event>, mut each: impl FnMut(Event) -> io::Result<()>) -> io::Result<bool> {
    let some = ring.slots().min(1024);
    let Ok(chunk) = ring.read_chunk(some) else { return Ok(false) };
    chunk.into_iter().try_for_each(&mut each)?;
    Ok(some > 0)
}

/// The loop behind `--mirror-to`. A file that cannot be written is given up, and what is missing in it counted.
fn copy(mut sink: Box<dyn CopySink>, mut rings: Vec<Consumer<Copied>>, shared: &Shared) {
    let give_up = |sink: &dyn CopySink, e: io::Error| {
        shared.copies_dropped.fetch_add(sink.unwritten(), Ordering::Relaxed);
        let _ = shared.copy_error.set(e);
    };
    let queues: Vec<_> = (0..rings.len()).map(|n| shared.pulse.queue("copies", n)).collect();
    loop {
        let last = rings.iter().all(Consumer::is_abandoned);
        let mut took = false;
        for (queue, ring) in queues.iter().zip(&mut rings) {
            shared.pulse.waits(*queue, ring.slots() as u64);
            for _ in 0..1024 {
                let Ok(packet) = ring.pop() else { break };
                took = true;
                if shared.copy_error().is_some() {
                    shared.copies_dropped.fetch_add(1, Ordering::Relaxed);
                } else if let Err(e) = sink.copied(&packet) {
                    give_up(&*sink, e);
                }
            }
        }
        if shared.copy_error().is_none()
            && let Err(e) = sink.tick()
        {
            give_up(&*sink, e);
        }
        if !took {
            if last {
                break;
            }
            std::thread::sleep(WRITER_NAP);
        }
    }
    if shared.copy_error().is_none()
        && let Err(e) = sink.end(shared.end())
    {
        give_up(&*sink, e);
    }
}
