//! From a worker to the writer: events over a ring of one producer and one consumer.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use rtrb::RingBuffer;
use syntap::detect::Sight;
use syntap::pipeline::{Event, Place, What};
use syntap::wire::{Malformed, Nanos};

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
    group.finish();
}
