//! Hand-over through the threads of a run: what ends well loses nothing, and a worker that is behind loses at its own mailbox, counted.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::packet::Tcp;
use syntap::capture::{BATCH, Packet, Polled, Source, SourceError};
use syntap::detect::Anomaly;
use syntap::pipeline::{Desk, HandOver, Interval, Pipeline, Plan, RecordSink, Ticking, WorkerConfig};
use syntap::record::{Context, Interface, Record};
use syntap::wire::Nanos;

const BEGIN: u64 = 1_700_000_000 * Nanos::SEC;

/// SYNs of one ring, as fast as they are taken, for either worker in turns or for the second one alone.
struct Syns {
    next: u64,
    count: u64,
    all_for_the_second: bool,
    given: Arc<AtomicBool>,
}

impl Source for Syns {
    fn poll(&mut self, _: u32, sink: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
        if self.next == self.count {
            self.given.store(true, Ordering::Release);
            std::thread::sleep(Duration::from_millis(1));
            return Ok(Polled::Idle);
        }
        let until = self.count.min(self.next + BATCH as u64);
        let frame = |n: u64| Tcp::syn_of(0, n).frame();
        let frames: Vec<Vec<u8>> = (self.next..until).map(frame).collect();
        let packets: Vec<Packet<'_>> = (self.next..until)
            .zip(&frames)
            .map(|(n, bytes)| {
                let ts = Nanos(BEGIN + n * 1_000);
                let hash = if self.all_for_the_second { 1 } else { 2 + n as u32 };
                Packet { ts, now: ts, hash, wire_len: bytes.len() as u32, bytes, ..Packet::NONE }
            })
            .collect();
        sink(&packets);
        self.next = until;
        Ok(Polled::Packets(packets.len()))
    }
}

/// A ring that holds its worker up until the other one has given all it has.
struct Stuck(Arc<AtomicBool>);

impl Source for Stuck {
    fn poll(&mut self, _: u32, _: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
        while !self.0.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(1));
        Ok(Polled::Idle)
    }
}

struct Nowhere;

impl RecordSink for Nowhere {
    fn record(&mut self, _: &Record) -> io::Result<()> {
        Ok(())
    }
}

impl Ticking for Nowhere {
    fn tick(&mut self) -> io::Result<Option<Anomaly>> {
        Ok(None)
    }
}

/// Packets worked, lost at each worker's mailboxes, and handed over.
fn run(sources: Vec<Box<dyn Source + Send>>, given: &AtomicBool) -> (u64, [u64; 2], u64) {
    let desk = || {
        let interfaces = vec![Interface { name: "eth0".into(), role: None }];
        Ok(Desk::new(Context { host: "here".into(), interfaces, clock_offset_ns: None }, Nowhere))
    };
    let plan = Plan {
        worker: WorkerConfig::default(),
        cpus: &[],
        clock: Arc::new(|| Nanos(BEGIN + Nanos::SEC)),
        copies: None,
        conntrack: None,
        link: None,
        hand_over: HandOver { groups: std::iter::once(0..2).collect(), key: [1, 2] },
    };
    let mut pipeline = Pipeline::start(sources, desk, plan).expect("threads");
    while !given.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let drained = pipeline.drain(&mut Interval::default());
    assert!(drained.failed.is_empty());
    let shared = pipeline.shared();
    let told = ([shared.behind(0), shared.behind(1)], shared.handed().expect("they hand over").0);
    pipeline.finish().written.expect("written");
    (drained.counters.packets, told.0, told.1)
}

#[test]
fn at_a_clean_end_every_packet_was_worked_by_its_owner() {
    // Less than a mailbox holds, so that a worker without a CPU loses nothing either.
    const COUNT: u64 = 20_000;
    let given = Arc::new(AtomicBool::new(false));
    let source = |n: &Arc<AtomicBool>| {
        let source = Syns { next: 0, count: COUNT, all_for_the_second: false, given: n.clone() };
        Box::new(source) as Box<dyn Source + Send>
    };
    // The run is stopped as soon as the first ring has been read: what is in the mailboxes and the second ring is worked off.
    let sources = vec![source(&given), source(&Arc::default())];
    assert_eq!(run(sources, &given), (2 * COUNT, [0, 0], COUNT));
}

#[test]
fn a_worker_that_is_behind_loses_at_its_own_mailbox_and_it_is_counted() {
    const COUNT: u64 = 100_000;
    let given = Arc::new(AtomicBool::new(false));
    let first = Syns { next: 0, count: COUNT, all_for_the_second: true, given: given.clone() };
    let sources: Vec<Box<dyn Source + Send>> = vec![Box::new(first), Box::new(Stuck(given.clone()))];
    let (worked, behind, handed) = run(sources, &given);
    assert!(behind[1] > COUNT / 2, "a mailbox is bounded: {behind:?}");
    assert_eq!((behind[0], worked, handed), (0, COUNT - behind[1], worked));
}
