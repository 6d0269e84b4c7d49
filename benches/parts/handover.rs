//! From a worker to the writer: events over a ring of one producer and one consumer. From a worker to another: packets, and what could travel
//! instead of their bytes.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use rtrb::RingBuffer;
use syntap::capture::{BATCH, Packet};
use syntap::detect::Sight;
use syntap::pipeline::{Event, Place, What};
use syntap::wire::{self, Brief, Malformed, Nanos};

use super::work::exchange::{Batches, Pair};

/// As in the pipeline.
const EVENTS: usize = 1 << 14;
const BITE: u64 = 1024;

fn event(count: u64) -> Event {
    let place = Place { at: Nanos(count), age: Nanos(0), lane: 7, count };
    Event { place, what: What::Sight(Sight::Malformed { reason: Malformed::LinkTruncated, point: 0 }) }
}

pub fn handover(c: &mut Criterion) {
    let mut group = c.benchmark_group("handover");
    group.throughput(Throughput::Elements(BITE));
    let (mut to, mut from) = RingBuffer::new(EVENTS);
    group.bench_function(format!("an event of {} bytes, one thread", size_of::<Event>()), |b| {
        b.iter(|| {
            for n in 0..BITE {
                to.push(event(n)).expect("it was emptied");
            }
            while let Ok(event) = from.pop() {
                black_box(event);
            }
        });
    });
    group.bench_function("an event, two threads", |b| {
        b.iter_custom(|rounds| {
            let (mut to, mut from) = RingBuffer::new(EVENTS);
            std::thread::scope(|s| {
                s.spawn(move || {
                    for n in 0..rounds * BITE {
                        let mut waiting = event(n);
                        while let Err(rtrb::PushError::Full(back)) = to.push(waiting) {
                            waiting = back;
                            std::thread::yield_now();
                        }
                    }
                });
                let start = std::time::Instant::now();
                let mut left = rounds * BITE;
                while left > 0 {
                    match from.pop() {
                        Ok(event) => {
                            black_box(event);
                            left -= 1;
                        }
                        Err(_) => std::thread::yield_now(),
                    }
                }
                start.elapsed()
            })
        });
    });
    packets(&mut group);
    group.finish();
}

/// What a packet costs that goes to its owner: through the workers' mailboxes, with the merge by time; and, without owners, order or bounds, through
/// a ring of slots of one length, and decoded.
fn packets(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>) {
    group.throughput(Throughput::Elements(BITE));
    let frames = Batches::new(BITE as usize);
    let packets = frames.packets();
    let mut pair = Pair::new();
    group.bench_function("a packet, merged, one thread", |b| {
        b.iter(|| assert_eq!(pair.pass(&packets), BITE));
    });
    let (mut to, mut from) = RingBuffer::new(EVENTS);
    group.bench_function(format!("a slot of {} bytes, one thread", size_of::<Slot>()), |b| {
        b.iter(|| {
            for batch in packets.chunks(BATCH) {
                for p in batch {
                    to.push(Slot::of(p)).expect("it was emptied");
                }
                while let Ok(slot) = from.pop() {
                    black_box(&slot);
                }
            }
        });
    });
    let (mut to, mut from) = RingBuffer::new(EVENTS);
    group.bench_function(format!("a decoded packet of {} bytes, one thread", size_of::<Brief>() + 24), |b| {
        b.iter(|| {
            for batch in packets.chunks(BATCH) {
                for p in batch {
                    let mut brief = Brief::default();
                    wire::brief(p.link, p.bytes, p.vlan, &mut brief);
                    to.push((brief, p.ts, p.wire_len, p.reason, p.point)).expect("it was emptied");
                }
                while let Ok(decoded) = from.pop() {
                    black_box(&decoded);
                }
            }
        });
    });
}

/// A packet in room for the longest.
struct Slot {
    ts: Nanos,
    len: usize,
    bytes: [u8; 464],
}

impl Slot {
    fn of(p: &Packet<'_>) -> Slot {
        let mut slot = Slot { ts: p.ts, len: p.bytes.len(), bytes: [0; 464] };
        slot.bytes[..slot.len].copy_from_slice(p.bytes);
        black_box(slot.ts);
        slot
    }
}
