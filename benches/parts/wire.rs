//! Decoding: what a frame of each shape costs.

use std::hint::black_box;

use super::work;
use super::work::life::Family;
use criterion::{Criterion, Throughput};

pub fn wire(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Elements(1));
    for (name, frame) in work::shapes() {
        group.bench_function(name, |b| {
            b.iter(|| black_box(work::decode(black_box(&frame), frame.len() as u32)));
        });
    }
    for (name, family) in [("lives mixed, IPv4", Family::V4), ("lives mixed, IPv6", Family::V6)] {
        let frames = work::lives(10, family, false, 4096);
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                for (frame, wire_len, _) in &frames {
                    black_box(work::decode(frame, *wire_len));
                }
            });
        });
    }
    group.finish();
}
