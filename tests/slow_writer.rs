//! A disk that hangs stalls no worker: only counters move.

mod common;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use common::packet::Tcp;
use syntap::capture::{BATCH, Packet, Polled, Source, SourceError};
use syntap::detect::Anomaly;
use syntap::pipeline::{Desk, Interval, Pipeline, Plan, RecordSink, Ticking, WorkerConfig};
use syntap::record::{Context, Interface, Record};
use syntap::wire::Nanos;

/// SYNs of each worker, each of another tuple: each is told to the writer, and there are more than its ring holds.
const SYNS: u64 = 300_000;

const BEGIN: u64 = 1_700_000_000 * Nanos::SEC;

/// A source that has packets as fast as they are taken, and counts those that were.
struct Syns {
    client: u8,
    taken: Arc<AtomicU64>,
}

impl Source for Syns {
    fn poll(&mut self, _: u32, sink: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
        let from = self.taken.load(Ordering::Relaxed);
        if from == SYNS {
            std::thread::sleep(Duration::from_millis(1));
            return Ok(Polled::Idle);
        }
        let count = (SYNS - from).min(BATCH as u64);
        let frame = |n: u64| Tcp::syn_of(self.client, n).frame();
        let frames: Vec<Vec<u8>> = (from..from + count).map(frame).collect();
        let packet = |(n, bytes): (u64, _)| {
            let bytes: &Vec<u8> = bytes;
            let ts = Nanos(BEGIN + n * 1_000);
            Packet { ts, now: ts, wire_len: bytes.len() as u32, bytes, ..Packet::NONE }
        };
        let packets: Vec<Packet<'_>> = (from..).zip(&frames).map(packet).collect();
        sink(&packets);
        self.taken.fetch_add(count, Ordering::Relaxed);
        Ok(Polled::Packets(packets.len()))
    }
}

/// A disk that hangs until it is told not to.
#[derive(Default)]
struct Disk {
    works: Mutex<bool>,
    changed: Condvar,
    asked: AtomicU64,
}

struct Hanging(Arc<Disk>);

impl RecordSink for Hanging {
    fn record(&mut self, _: &Record) -> io::Result<()> {
        Ok(())
    }
}

impl Ticking for Hanging {
    fn tick(&mut self) -> io::Result<Option<Anomaly>> {
        let Disk { works, changed, asked } = &*self.0;
        asked.fetch_add(1, Ordering::Relaxed);
        let works = works.lock().expect("nobody panicked");
        drop(changed.wait_while(works, |works| !*works).expect("nobody panicked"));
        Ok(None)
    }
}

fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn workers_go_on_while_the_disk_hangs_and_what_is_not_written_is_counted() {
    let disk = Arc::new(Disk::default());
    let taken: Vec<Arc<AtomicU64>> = (0..2).map(|_| Arc::default()).collect();
    let source = |(n, taken): (usize, &Arc<AtomicU64>)| {
        Box::new(Syns { client: n as u8, taken: taken.clone() }) as Box<dyn Source + Send>
    };
    let sources = taken.iter().enumerate().map(source).collect();
    let sink = Hanging(disk.clone());
    let desk = move || {
        let interfaces = vec![Interface { name: "eth0".into(), role: None }];
        Ok(Desk::new(Context { host: "here".into(), interfaces, clock_offset_ns: None }, sink))
    };
    let plan = Plan {
        worker: WorkerConfig::default(),
        cpus: &[],
        clock: Arc::new(|| Nanos(BEGIN + Nanos::SEC)),
        copies: None,
        conntrack: None,
        link: None,
        hand_over: Default::default(),
    };
    let mut pipeline = Pipeline::start(sources, desk, plan).expect("threads");

    until("the disk is asked", || disk.asked.load(Ordering::Relaxed) == 1);
    // The disk hangs from here on; the workers take all there is.
    until("workers go on", || taken.iter().all(|t| t.load(Ordering::Relaxed) == SYNS));
    assert_eq!(disk.asked.load(Ordering::Relaxed), 1, "it still hangs");
    let dropped = pipeline.shared().events_dropped.load(Ordering::Relaxed);
    assert!(dropped > 0, "more was told than the rings hold");
    assert!(!pipeline.failed());

    *disk.works.lock().expect("nobody panicked") = true;
    disk.changed.notify_all();
    let drained = pipeline.drain(&mut Interval::default());
    assert_eq!(drained.counters.packets, 2 * SYNS, "not a packet was lost by it");
    assert_eq!(drained.counters.flows, 2 * SYNS);
    assert!(drained.failed.is_empty());
    pipeline.finish().written.expect("written");
}
