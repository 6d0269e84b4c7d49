//! One flow's steps: lives of ten packets, one after the other.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use syntap::track::{Coverage, Flow};

use super::work;

pub fn tracker(c: &mut Criterion) {
    let segments = work::segments();
    let mut group = c.benchmark_group("tracker");
    group.throughput(Throughput::Elements(segments.len() as u64));
    group.bench_function("a segment of a life", |b| {
        b.iter(|| {
            let mut flow = Flow::default();
            for (seg, side, at) in &segments {
                black_box(flow.step(seg, *side, *at, Coverage::All, |_| ()));
            }
            black_box(flow)
        });
    });
    group.finish();
}
