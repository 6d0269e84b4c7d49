//! Two workers on two cores against one: input in memory, no rings, no writer.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use clap::Args;
use serde_json::{Value, json};

use super::life::{Family, Mix};
use super::steady::{Bench, CHUNK};
use super::thread;

#[derive(Args)]
pub struct PairArgs {
    /// Live flows of each worker, as a power of two.
    #[arg(long, default_value_t = 17)]
    bits: u32,
    /// Packets of each worker in a run.
    #[arg(long, default_value_t = 1_310_720)]
    packets: u64,
    /// Runs of each kind; one worker and two take turns.
    #[arg(long, default_value_t = 7)]
    runs: u32,
}

/// One worker's share of a run: nanoseconds a packet. All workers of the run time the same moments: who has made a chunk waits for
/// the other.
fn share(bench: &mut Bench, packets: u64, together: Option<&Barrier>) -> f64 {
    let chunks = packets.div_ceil(CHUNK as u64);
    let mut spent = 0;
    for _ in 0..chunks {
        bench.make();
        if let Some(barrier) = together {
            barrier.wait();
        }
        spent += bench.work(CHUNK).0;
    }
    spent as f64 / (chunks * CHUNK as u64) as f64
}

pub fn run(args: &PairArgs) -> anyhow::Result<Value> {
    let cpus = thread::cpus();
    let [first, .., last] = cpus[..] else {
        return Ok(json!({ "skipped": "one CPU only" }));
    };
    let (start, ready, over) = (Barrier::new(2), Barrier::new(2), AtomicBool::new(false));
    let together = Barrier::new(2);
    let (mut ones, mut pairs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let second = std::sync::Mutex::new(0.0);
    scope(|s| {
        s.spawn(|| {
            thread::pin(first);
            let mut bench = Bench::new(args.bits, Family::V4, Mix::Births, None, 1 << args.bits, None);
            bench.warm_up(0);
            loop {
                start.wait();
                if over.load(Ordering::Acquire) {
                    return;
                }
                *second.lock().expect("no worker panics") = share(&mut bench, args.packets, Some(&together));
                ready.wait();
            }
        });
        thread::pin(last);
        let mut bench = Bench::new(args.bits, Family::V4, Mix::Births, None, 1 << args.bits, None);
        bench.warm_up(0);
        for _ in 0..args.runs {
            let one = share(&mut bench, args.packets, None);
            start.wait();
            let mine = share(&mut bench, args.packets, Some(&together));
            ready.wait();
            let other = *second.lock().expect("no worker panics");
            ones.push(one);
            pairs.extend([mine, other]);
            ratios.push((1.0 / mine + 1.0 / other) * one);
        }
        over.store(true, Ordering::Release);
        start.wait();
    });
    Ok(json!({
        "flows_a_worker": 1u64 << args.bits,
        "runs": args.runs,
        "ns_a_packet_alone": thread::median(&ones),
        "ns_a_packet_each_of_two": thread::median(&pairs),
        "speed_up": thread::median(&ratios),
        "speed_up_least": thread::least(&ratios),
        "speed_up_most": thread::most(&ratios),
    }))
}
