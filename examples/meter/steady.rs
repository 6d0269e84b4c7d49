//! One worker with many live flows, every one equally likely next.
//!
//! Frames are made in chunks of [`CHUNK`] before the clock runs, and lie in the second-level cache when it does: as they do behind
//! a NIC that writes into the cache. What is timed is [`Worker::batch`] on 64 of them at a time, and nothing else.

use std::hint::black_box;

use clap::Args;
use serde_json::{Value, json};
use syntap::capture::{BATCH, Packet, PortSet};
use syntap::detect::Sight;
use syntap::flow::Seed;
use syntap::pipeline::{Event, Outlet, What, Worker, WorkerConfig};
use syntap::wire::{Nanos, Way};

use super::life::{Family, Maker, Mix, Order, STRIDE, Visit};
use super::{alloc, limit, thread};

/// Frames made and worked through at a time.
pub const CHUNK: usize = 2048;

/// Some moment, in epoch nanoseconds.
pub const START: u64 = 1_700_000_000_000_000_000;

#[derive(Args)]
pub struct WorkerArgs {
    /// Live flows, as a power of two.
    #[arg(long, default_value_t = 20)]
    bits: u32,
    /// Over IPv6.
    #[arg(long)]
    v6: bool,
    /// What follows a connection.
    #[arg(long, value_enum, default_value_t = Mix::Births)]
    mix: Mix,
    /// One packet in so many is lost before the worker gets it; none if not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..))]
    lost: Option<u64>,
    /// Packets that are timed.
    #[arg(long, default_value_t = 4_000_000)]
    packets: u64,
    /// Flows that the table has room for; as many as the mix asks for if not given.
    #[arg(long)]
    max_flows: Option<usize>,
    /// Packet digests of the flight recorder; as many as flows if not given.
    #[arg(long)]
    recorder: Option<usize>,
}

/// Counts what a worker has to say, and drops it.
#[derive(Default)]
pub struct Tally {
    pub anomalies: u64,
    pub sights: u64,
    pub arps: u64,
    kinds: std::collections::BTreeMap<&'static str, u64>,
}

impl Outlet for Tally {
    fn event(&mut self, event: Event) {
        match &event.what {
            What::Anomaly(a) => {
                self.anomalies += 1;
                *self.kinds.entry(a.kind.name()).or_default() += 1;
            }
            What::Sight(Sight::Arp { .. }) => self.arps += 1,
            What::Sight(_) => self.sights += 1,
            What::Life(_) | What::Taken => {}
        }
        black_box(event);
    }
}

/// Flows that the table has room for. What is full all the time holds the slots' flows and as many again by a quarter that are over.
/// Where FINs are lost connections stay open long after their last packet.
fn room(flows: usize, mix: Mix, lost: Option<u64>) -> usize {
    match (lost, mix) {
        (Some(_), _) => flows * 8,
        (None, Mix::Full) => flows + flows / 4,
        (None, _) => flows,
    }
}

/// A worker, and the packets that it gets.
pub struct Bench {
    pub worker: Worker,
    order: Order,
    maker: Maker,
    frames: Vec<[u8; STRIDE]>,
    lens: Vec<(usize, u32, u64)>,
    pub tally: Tally,
    pub packets: u64,
}

impl Bench {
    pub fn new(
        bits: u32,
        family: Family,
        mix: Mix,
        lost: Option<u64>,
        max_flows: usize,
        recorder: Option<usize>,
    ) -> Bench {
        let flows = 1usize << bits;
        let config = WorkerConfig {
            max_flows,
            recorder: recorder.unwrap_or(flows),
            seed: Seed::random(),
            ports: PortSet::all(),
            ..WorkerConfig::default()
        };
        Bench {
            worker: Worker::new(&config),
            order: Order::new(bits, mix, START).losing(lost.unwrap_or(0)),
            maker: Maker::new(family, mix, false),
            frames: vec![[0; STRIDE]; CHUNK],
            lens: vec![(0, 0, 0); CHUNK],
            tally: Tally::default(),
            packets: 0,
        }
    }

    fn put(&mut self, i: usize, v: &Visit) {
        let (len, wire_len) = self.maker.make(v, &mut self.frames[i]);
        self.lens[i] = (len, wire_len, v.at);
    }

    /// Makes a chunk of the steady state.
    pub fn make(&mut self) {
        for i in 0..CHUNK {
            let v = self.order.next();
            self.put(i, &v);
        }
    }

    /// Works through the first `n` frames of the chunk: CPU time in nanoseconds, and allocations.
    pub fn work(&mut self, n: usize) -> (u64, u64) {
        let packets: Vec<Packet<'_>> = self.frames[..n]
            .iter()
            .zip(&self.lens)
            .map(|(bytes, &(len, wire_len, at))| Packet {
                ts: Nanos(at),
                now: Nanos(at),
                way: Way::Ingress,
                wire_len,
                bytes: &bytes[..len],
                ..Packet::NONE
            })
            .collect();
        let (allocations, start) = (alloc::taken(), thread::cpu_ns());
        for batch in packets.chunks(BATCH) {
            self.worker.batch(batch, &mut self.tally);
        }
        let spent = thread::cpu_ns() - start;
        self.packets += n as u64;
        (spent, alloc::taken() - allocations)
    }

    /// Brings every slot where it stands, and lets `rounds` go round.
    pub fn warm_up(&mut self, rounds: u64) {
        let mut n = 0;
        while let Some(v) = self.order.fill() {
            self.put(n, &v);
            n += 1;
            if n == CHUNK {
                self.work(n);
                n = 0;
            }
        }
        self.work(n);
        for _ in 0..(self.order.slots() * rounds).div_ceil(CHUNK as u64) {
            self.make();
            self.work(CHUNK);
        }
    }
}

/// Memory that is to be had, bytes.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(u64::MAX, |kib| kib << 10)
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|p| p.parse::<u64>().ok()).unwrap_or(0) * 4096
}

pub fn run(args: &WorkerArgs) -> anyhow::Result<Value> {
    let flows = 1u64 << args.bits;
    let recorder = args.recorder.unwrap_or(flows as usize);
    let max_flows = args.max_flows.unwrap_or_else(|| room(flows as usize, args.mix, args.lost));
    let config = WorkerConfig { max_flows, recorder, ..WorkerConfig::default() };
    let (need, have) = (config.bytes(), available());
    if need > have - have / 8 {
        return Ok(
            json!({ "skipped": format!("needs {} MiB, {} MiB are to be had", need >> 20, have >> 20) }),
        );
    }
    thread::pin(*thread::cpus().last().unwrap_or(&0));
    let limit = limit::ns_an_update(args.bits);
    let before = resident();
    let family = if args.v6 { Family::V6 } else { Family::V4 };
    let mut bench = Bench::new(args.bits, family, args.mix, args.lost, max_flows, args.recorder);
    // A flood fills the table in a round; lives that push others out fill the quarter to spare in 2.5.
    bench.warm_up(match args.mix {
        Mix::Steady | Mix::Births => 0,
        Mix::Flood => 1,
        Mix::Full => 3,
    });
    let memory = resident().saturating_sub(before);
    bench.tally = Tally::default();
    let counters = *bench.worker.counters();
    let (mut spent, mut allocations, mut quiet, mut samples) = (0, 0, 0, Vec::new());
    let chunks = args.packets.div_ceil(CHUNK as u64);
    for _ in 0..chunks {
        bench.make();
        let anomalies = bench.tally.anomalies;
        let (ns, n) = bench.work(CHUNK);
        spent += ns;
        allocations += n;
        if bench.tally.anomalies == anomalies {
            quiet += n;
        }
        samples.push(ns as f64 / CHUNK as f64);
    }
    let again = limit::ns_an_update(args.bits);
    let after = bench.worker.counters();
    Ok(json!({
        "flows": flows,
        "family": if args.v6 { "IPv6" } else { "IPv4" },
        "mix": format!("{:?}", args.mix).to_lowercase(),
        "lost_one_in": args.lost,
        "packets": chunks * CHUNK as u64,
        "ns_a_packet": spent as f64 / (chunks * CHUNK as u64) as f64,
        "ns_a_packet_median": thread::median(&samples),
        "limit_ns": limit.min(again),
        "limit_runs_ns": [limit, again],
        "allocations": allocations,
        "allocations_without_anomalies": quiet,
        "anomalies": bench.tally.anomalies,
        "kinds": bench.tally.kinds,
        "events": bench.tally.sights,
        "live": after.live,
        "lives_begun": after.flows - counters.flows,
        "evicted": after.evicted - counters.evicted,
        "malformed": after.malformed.iter().sum::<u64>(),
        "bytes_a_flow_in_the_table": bench.worker.bytes_per_flow(),
        "recorder_digests": recorder,
        "resident_bytes_a_flow": memory as f64 / flows as f64,
    }))
}
