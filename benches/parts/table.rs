//! The flow table with many flows: a batch of look-ups touched together, and of births with the deaths that make room.
//!
//! 16 M flows are measured if there is memory for them.

use std::hint::black_box;

use super::work;
use super::work::life::Family;
use criterion::{Criterion, Throughput};
use syntap::capture::BATCH;
use syntap::flow::{FlowKey, Table};

/// Keys of a batch, no two batches alike.
struct Keys(u64);

impl Keys {
    fn next(&mut self, bits: u32, family: Family) -> FlowKey {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        work::key((self.0 >> 33) as u32 & ((1 << bits) - 1), family)
    }
}

fn has_room_for(bits: u32) -> bool {
    let each = Table::<u64>::new(1 << 10, syntap::flow::Seed::FIXED).bytes_per_flow() as u64;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    (each << bits) < (kib << 10) / 2
}

pub fn table(c: &mut Criterion) {
    let mut group = c.benchmark_group("table");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, bits) in [("64 k", 16), ("1 M", 20), ("16 M", 24)] {
        if !has_room_for(bits) {
            println!("skipped table at {name} flows: no memory");
            continue;
        }
        for family in [Family::V4, Family::V6] {
            if bits == 24 && family == Family::V6 {
                continue;
            }
            let mut table = work::table(bits, family);
            let mut keys = Keys(1);
            let mut batch = [(FlowKey::default(), 0u64); BATCH];
            group.bench_function(format!("find, {name} flows, {family:?}"), |b| {
                b.iter(|| {
                    let mut touched = 0;
                    for place in &mut batch {
                        let key = keys.next(bits, family);
                        let hash = table.hash(&key);
                        touched ^= table.guess(hash, table.places(hash)).map_or(0, |id| id.0);
                        *place = (key, hash);
                    }
                    black_box(touched);
                    for (key, hash) in &batch {
                        black_box(table.find(key, *hash));
                    }
                });
            });
            group.bench_function(format!("remove and insert, {name} flows, {family:?}"), |b| {
                b.iter(|| {
                    for place in &mut batch {
                        let key = keys.next(bits, family);
                        let hash = table.hash(&key);
                        black_box(table.guess(hash, table.places(hash)));
                        *place = (key, hash);
                    }
                    for (key, hash) in &batch {
                        if let Some(id) = table.find(key, *hash) {
                            table.remove(id);
                        }
                        work::put(&mut table, key);
                    }
                });
            });
        }
    }
    group.finish();
}
