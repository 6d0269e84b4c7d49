//! What the parts of a worker cost, each alone, in time: `cargo bench --bench parts [-- wire]`. `counts` has them in instructions.

#![allow(missing_docs)]

mod handover;
mod recorder;
mod table;
mod tracker;
mod wire;
#[path = "../work/mod.rs"]
mod work;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = parts;
    config = Criterion::default().sample_size(20);
    targets = wire::wire, table::table, tracker::tracker, recorder::recorder, handover::handover
}
criterion_main!(parts);
