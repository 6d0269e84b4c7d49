//! The flight recorder: writing a digest, and reading back a flow's last ones.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use syntap::flow::{Mark, Recorder};

use super::work;

/// Flows whose digests alternate.
const FLOWS: usize = 1 << 14;

pub fn recorder(c: &mut Criterion) {
    let mut group = c.benchmark_group("recorder");
    for (name, bits) in [("64 k", 16), ("1 M", 20)] {
        let mut recorder = Recorder::new(1 << bits);
        let mut newest = vec![Mark::default(); FLOWS];
        let mut n = 0u32;
        group.throughput(Throughput::Elements(FLOWS as u64));
        group.bench_function(format!("push, {name} digests"), |b| {
            b.iter(|| {
                for mark in &mut newest {
                    n = n.wrapping_add(1);
                    *mark = recorder.push(*mark, &work::digest(n));
                }
            });
        });
        group.throughput(Throughput::Elements(1));
        let mut at = 0;
        group.bench_function(format!("read sixteen, {name} digests"), |b| {
            b.iter(|| {
                at = (at + 7919) % FLOWS;
                black_box(recorder.chain(newest[at], 16))
            });
        });
    }
    group.finish();
}
