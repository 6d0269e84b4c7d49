//! The thread that listens to connection tracking and hands what it says to the writer, in the order of time with the packets.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer};

use super::event::{Event, Place, What};
use super::threads::Shared;
use crate::bpf::Watch;
use crate::capture::conntrack::{
    self, Conntrack, ConntrackError, CtCounters, CtEvent, CtTuple, Heard, TcpState,
};
use crate::capture::{ClockOffset, PortSet};
use crate::detect::conntrack::{Change, Deltas, Entry, Stage};
use crate::detect::{Anomaly, Sight, tool};
use crate::flow::{Endpoint, Tuple};
use crate::wire::Nanos;

/// How often the counters are read. A record of a lost SYN names what was counted then, and is made when the SYN is sent again, a second
/// later at the earliest (RFC 6298): by then the reading must be here, also from a thread that had to wait for its CPU.
const READ_EVERY: Duration = Duration::from_millis(250);

/// How long it waits for an event before it looks whether the run ends.
const WAIT_MS: u16 = 50;

/// A dump reads the whole table; with events lost all the time that would be done all the time.
const DUMP_EVERY: Duration = Duration::from_secs(5);

/// How long a dump waits, all in all, for the writer to take what it found; what still finds no room is counted as lost.
const DUMP_PATIENCE: Duration = Duration::from_secs(1);

/// A connection whose entry went is watched for a minute, anew before the kernel side's 10 s are over: it may take that long until
/// either end sends again, and plain packets are mirrored of watched tuples only.
const WATCH_FOR: Duration = Duration::from_secs(60);
const WATCH_AGAIN: Duration = Duration::from_secs(4);

/// Connections watched so at one time. A flush of a whole table has more; some of them tell what it did to all.
const WATCHED: usize = 1024;

/// What a live run needs to listen.
#[derive(Debug)]
pub struct ConntrackFeed {
    /// The namespace's connection tracking.
    pub source: Conntrack,
    /// Entries with one of these ports, on either end and side of a translation.
    pub ports: PortSet,
    /// Puts connections whose entries went under watch.
    pub watch: Option<Watch>,
}

/// What was heard so far; several threads see it.
#[derive(Debug, Default)]
pub struct ConntrackTotals {
    /// Events of the chosen ports.
    pub events: AtomicU64,
    /// Events that the kernel had no room for.
    pub lost: AtomicU64,
    /// Dumps after such a loss.
    pub dumps: AtomicU64,
    counters: [AtomicU64; 6],
    error: OnceLock<ConntrackError>,
}

impl ConntrackTotals {
    /// What conntrack counted since the start: `conntrack -S`'s names and figures.
    pub fn counters(&self) -> [(&'static str, u64); 6] {
        let mut named = CtCounters::default().named();
        for (to, from) in named.iter_mut().zip(&self.counters) {
            to.1 = from.load(Ordering::Relaxed);
        }
        named
    }

    /// Why nothing more is heard, if so. The run goes on without.
    pub fn error(&self) -> Option<&ConntrackError> {
        self.error.get()
    }
}

/// The thread's belongings.
pub(super) struct Listener {
    feed: ConntrackFeed,
    ring: Producer<Event>,
    /// Ports that are followed from now on.
    ports: Consumer<PortSet>,
    shared: Arc<Shared>,
    clock: Arc<dyn Fn() -> Nanos + Send + Sync>,
    count: u64,
    /// The last reading of the counters.
    before: Option<(CtCounters, Nanos)>,
    /// When events were read last without a loss, and how many were lost since.
    whole: Nanos,
    lost: u64,
    dumped: Option<Instant>,
    watched: Watched,
}

impl Listener {
    pub(super) fn new(
        feed: ConntrackFeed,
        ring: Producer<Event>,
        ports: Consumer<PortSet>,
        shared: Arc<Shared>,
        clock: Arc<dyn Fn() -> Nanos + Send + Sync>,
    ) -> Listener {
        let whole = clock();
        Listener {
            feed,
            ring,
            ports,
            shared,
            clock,
            count: 0,
            before: None,
            whole,
            lost: 0,
            dumped: None,
            watched: Watched::default(),
        }
    }

    /// Listens until the run ends.
    pub(super) fn run(mut self) {
        if let Err(e) = self.listen() {
            self.tell_loss(None);
            let _ = self.shared.conntrack.error.set(e);
        }
    }

    fn listen(&mut self) -> Result<(), ConntrackError> {
        self.read_counters()?;
        let mut read = Instant::now();
        loop {
            // Asked before the events are read: what happened before the end is told.
            let stopping = self.shared.stopping();
            while let Ok(ports) = self.ports.pop() {
                self.feed.ports = ports;
            }
            let wait = if stopping { 0 } else { WAIT_MS };
            let heard = self.hear(wait)?;
            self.watched.again(self.feed.watch.as_ref());
            if read.elapsed() >= READ_EVERY || stopping {
                read = Instant::now();
                self.read_counters()?;
            }
            let all = matches!(heard, Heard::Messages(n) if n < conntrack::BATCH);
            let due = self.dumped.is_none_or(|d| d.elapsed() >= DUMP_EVERY);
            if self.lost > 0 && all && (due || stopping) {
                let found = self.dump()?;
                self.tell_loss(Some(found));
                self.dumped = Some(Instant::now());
            }
            if stopping && all {
                // A loss that no read has met yet.
                self.lost += self.feed.source.lost_at_last();
                self.tell_loss(None);
                return Ok(());
            }
        }
    }

    fn hear(&mut self, wait_ms: u16) -> Result<Heard, ConntrackError> {
        let Listener { feed, ring, shared, clock, count, watched, .. } = self;
        let (ports, watch) = (&feed.ports, feed.watch.as_ref());
        let heard = feed.source.poll(wait_ms, &mut |e| {
            if chosen(ports, &e) {
                shared.conntrack.events.fetch_add(1, Ordering::Relaxed);
                let (at, entry) = (stamp(&e, clock()), entry(&e));
                watched.event(&e, &entry, watch);
                push(ring, shared, count, at, What::Sight(Sight::Conntrack(entry)));
            }
        })?;
        match heard {
            Heard::Lost(n) => {
                // At least the one that the kernel complained of.
                self.lost += n.max(1);
                self.shared.conntrack.lost.fetch_add(n.max(1), Ordering::Relaxed);
            }
            Heard::Messages(_) if self.lost == 0 => self.whole = (self.clock)(),
            Heard::Messages(_) => {}
        }
        Ok(heard)
    }

    fn read_counters(&mut self) -> Result<(), ConntrackError> {
        let now = self.feed.source.counters()?;
        let at = (self.clock)();
        let Some((before, first)) = self.before.replace((now, at)) else { return Ok(()) };
        let since = now.since(before);
        for (to, (_, n)) in self.shared.conntrack.counters.iter().zip(since.named()) {
            to.fetch_add(n, Ordering::Relaxed);
        }
        let CtCounters { insert_failed, drop, early_drop, invalid, search_restart, clash_resolve } = since;
        let deltas = Deltas { insert_failed, drop, early_drop, invalid, search_restart, clash_resolve };
        let what = What::Sight(Sight::ConntrackStats { deltas, first, last: at });
        push(&mut self.ring, &self.shared, &mut self.count, at, what);
        Ok(())
    }

    /// Tells of the entries there are, as far as they can differ from what is known: open and translated ones.
    fn dump(&mut self) -> Result<u64, ConntrackError> {
        let Listener { feed, ring, shared, clock, count, .. } = self;
        let (begun, ports, mut found) = (Instant::now(), &feed.ports, 0);
        shared.conntrack.dumps.fetch_add(1, Ordering::Relaxed);
        feed.source.dump(&mut |e| {
            let open = e.state == Some(TcpState::Established);
            let translated = e.original.src != e.reply.dst || e.original.dst != e.reply.src;
            if !chosen(ports, &e) || !open || !translated {
                return;
            }
            found += 1;
            while ring.is_full() && begun.elapsed() < DUMP_PATIENCE {
                std::thread::sleep(Duration::from_millis(1));
            }
            push(ring, shared, count, clock(), What::Sight(Sight::Conntrack(entry(&e))));
        })?;
        Ok(found)
    }

    fn tell_loss(&mut self, found: Option<u64>) {
        if self.lost == 0 {
            return;
        }
        let now = (self.clock)();
        let told: Anomaly = tool::conntrack_event_loss(self.lost, found, self.whole, now);
        push(&mut self.ring, &self.shared, &mut self.count, now, What::Anomaly(Box::new(told)));
        (self.lost, self.whole) = (0, now);
    }
}

/// Connections whose entries went, by original tuple: the tuples that their next packets may have, and since when.
#[derive(Default)]
struct Watched {
    connections: HashMap<CtTuple, (Vec<CtTuple>, Instant)>,
    armed: Option<Instant>,
}

impl Watched {
    fn event(&mut self, e: &CtEvent, entry: &Entry, watch: Option<&Watch>) {
        let Some(watch) = watch else { return };
        match e.change {
            conntrack::Change::Destroy if entry.is_needed() && self.connections.len() < WATCHED => {
                let tuples = vec![e.original, e.reply];
                arm(watch, &tuples);
                self.connections.insert(e.original, (tuples, Instant::now()));
            }
            conntrack::Change::New | conntrack::Change::Found => {
                let Some((tuples, _)) = self.connections.get_mut(&e.original) else { return };
                if tuples.contains(&e.reply) || entry.stage != Stage::Open {
                    // Mended, or another connection.
                    self.connections.remove(&e.original);
                } else {
                    tuples.push(e.reply);
                    arm(watch, &tuples[tuples.len() - 1..]);
                }
            }
            _ => {}
        }
    }

    fn again(&mut self, watch: Option<&Watch>) {
        let due = self.armed.is_none_or(|t| t.elapsed() >= WATCH_AGAIN);
        let Some(watch) = watch.filter(|_| due) else { return };
        self.armed = Some(Instant::now());
        self.connections.retain(|_, (_, since)| since.elapsed() < WATCH_FOR);
        self.connections.values().for_each(|(tuples, _)| arm(watch, tuples));
    }
}

fn arm(watch: &Watch, tuples: &[CtTuple]) {
    let now = ClockOffset::monotonic_ns();
    for t in tuples {
        // Without it the connection is judged by its entries alone.
        let _ = watch.arm(t.src, t.dst, now);
    }
}

fn push(ring: &mut Producer<Event>, shared: &Shared, count: &mut u64, at: Nanos, what: What) {
    *count += 1;
    // After the packets of the same moment.
    let place = Place { at, age: Nanos(0), lane: u64::MAX, count: *count };
    if ring.push(Event { place, what }).is_err() {
        shared.events_dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// When an event happened on the packets' clock: by the kernel's own stamp, if it has one; else it is not told from now.
fn stamp(e: &CtEvent, now: Nanos) -> Nanos {
    let Some(happened) = e.realtime_ns else { return now };
    let realtime = conntrack::realtime_ns();
    // A stamp from the future is one of a clock that was stepped.
    Nanos(now.0.saturating_sub(realtime.saturating_sub(happened)))
}

fn chosen(ports: &PortSet, e: &CtEvent) -> bool {
    [e.original.src, e.original.dst, e.reply.src, e.reply.dst].iter().any(|(_, port)| ports.contains(*port))
}

fn entry(e: &CtEvent) -> Entry {
    let end = |(addr, port)| Endpoint { addr, port };
    let tuple = |t: CtTuple| Tuple { src: end(t.src), dst: end(t.dst) };
    Entry {
        change: match e.change {
            conntrack::Change::New => Change::New,
            conntrack::Change::Update => Change::Update,
            conntrack::Change::Destroy => Change::Destroy,
            conntrack::Change::Found => Change::Found,
        },
        original: tuple(e.original),
        reply: tuple(e.reply),
        stage: match e.state {
            Some(TcpState::None | TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2) => {
                Stage::Opening
            }
            Some(TcpState::Established) => Stage::Open,
            Some(TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck) => Stage::Closing,
            Some(TcpState::TimeWait) => Stage::Over,
            Some(TcpState::Close) => Stage::Reset,
            None => Stage::Unknown,
        },
        state: e.state.map_or("", TcpState::name),
        zone: e.zone,
        timeout_s: e.timeout_s,
        by: e.by,
    }
}

/// Starts the thread.
pub(super) fn listen(listener: Listener) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("syntap-conntrack".into()).spawn(move || listener.run())
}
