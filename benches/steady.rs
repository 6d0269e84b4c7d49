//! What a packet costs on a worker in the steady state: connections open and close among N that live.
//!
//! `cargo bench --bench steady [-- FLOWS ...]` prints `flows ns/packet bytes/flow` for each. Input is in memory, a slab at a time,
//! and making it is not timed. A wave of connections closes (FIN, FIN, ACK), each picked at random among those that live, and as
//! many open (SYN, SYN-ACK, ACK, request, answer), phase by phase: between two packets of one flow lie as many packets as the wave
//! has flows.

#![allow(missing_docs)]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use syntap::capture::{Packet, Point, PortSet};
use syntap::flow::Seed;
use syntap::pipeline::{Event, Outlet, Worker, WorkerConfig};
use syntap::wire::{LinkType, Nanos, OffloadedVlan, Way};

#[path = "../tests/common/packet.rs"]
#[allow(dead_code)]
mod packet;

use packet::{ACK, FIN, PSH, SYN, Tcp};

/// Bytes of a frame in the slab.
const STRIDE: usize = 128;

const SEC: u64 = Nanos::SEC;

struct Nowhere(u64);

impl Outlet for Nowhere {
    fn event(&mut self, event: Event) {
        self.0 += 1;
        black_box(&event);
    }
}

/// One packet of a connection's life: who sends it, its flags, sequence and acknowledgement past the ISNs, payload.
const LIFE: [(bool, u8, u32, u32, usize); 8] = [
    (true, FIN | ACK, 101, 201, 0),
    (false, FIN | ACK, 201, 102, 0),
    (true, ACK, 102, 202, 0),
    (true, SYN, 0, 0, 0),
    (false, SYN | ACK, 0, 1, 0),
    (true, ACK, 1, 1, 0),
    (true, PSH | ACK, 1, 1, 100),
    (false, PSH | ACK, 1, 101, 200),
];

/// Frames of a phase with zeroes where the flow's own numbers stand.
fn template(phase: usize) -> Vec<u8> {
    let (from_client, flags, seq, ack, payload) = LIFE[phase];
    let (client, server) = ((Ipv4Addr::new(10, 0, 0, 0), 0), (Ipv4Addr::new(192, 0, 2, 1), 443));
    let times = [1u8, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let syn = [2u8, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    let tcp = Tcp {
        src: if from_client { client } else { server },
        dst: if from_client { server } else { client },
        flags,
        seq: (if from_client { 1_000 } else { 9_000 }) + seq,
        ack: if flags & ACK != 0 { (if from_client { 9_000 } else { 1_000 }) + ack } else { 0 },
        win: 502,
        options: if flags & SYN != 0 { syn.to_vec() } else { times.to_vec() },
        payload,
        ttl: 64,
        id: 7,
    };
    tcp.frame()
}

struct Traffic {
    templates: Vec<Vec<u8>>,
    slab: Vec<u8>,
    meta: Vec<(usize, u32, u64)>,
    at: u64,
    dt: u64,
    random: u64,
}

impl Traffic {
    fn new() -> Traffic {
        Traffic {
            templates: (0..8).map(template).collect(),
            slab: Vec::new(),
            meta: Vec::new(),
            at: 1_000 * SEC,
            // A million packets a second: closed connections, kept for two minutes where there is room, fill the table and make
            // room for new ones, as at line rate they must.
            dt: SEC / 1_000_000,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn clear(&mut self) {
        self.slab.clear();
        self.meta.clear();
    }

    fn put(&mut self, phase: usize, id: u32) {
        let t = &self.templates[phase];
        let at = self.slab.len();
        self.slab.extend_from_slice(&t[..t.len().min(STRIDE)]);
        self.slab.resize(at + STRIDE, 0);
        let f = &mut self.slab[at..at + STRIDE];
        let (ip, port) = if LIFE[phase].0 { (26, 34) } else { (30, 36) };
        f[ip + 1..ip + 4].copy_from_slice(&(id >> 8).to_be_bytes()[1..]);
        f[port..port + 2].copy_from_slice(&(1024 + (id & 0xff) as u16).to_be_bytes());
        self.at += self.dt;
        self.meta.push((t.len().min(STRIDE), t.len() as u32, self.at));
    }

    fn packets(&self) -> Vec<Packet<'_>> {
        let frames = self.slab.chunks_exact(STRIDE).zip(&self.meta);
        frames
            .map(|(f, &(len, wire_len, at))| Packet {
                ts: Nanos(at),
                now: Nanos(at),
                point: Point(0),
                way: Way::Ingress,
                link: LinkType::Ethernet,
                wire_len,
                vlan: OffloadedVlan::default(),
                reason: 0,
                bytes: &f[..len],
            })
            .collect()
    }
}

fn main() {
    let asked: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let asked = if asked.is_empty() { vec![1 << 16, 1 << 20] } else { asked };
    for flows in asked {
        let config = WorkerConfig {
            max_flows: flows * 5 / 4,
            recorder: 1 << 18,
            seed: Seed::FIXED,
            ports: PortSet::all(),
            ..WorkerConfig::default()
        };
        let mut worker = Worker::new(&config);
        let mut out = Nowhere(0);
        let mut traffic = Traffic::new();
        let mut live: Vec<u32> = (0..flows as u32).collect();
        for some in live.chunks(4096) {
            traffic.clear();
            (3..8).for_each(|phase| some.iter().for_each(|&id| traffic.put(phase, id)));
            worker.batch(&traffic.packets(), &mut out);
        }
        let wave = (flows / 16).min(1 << 15);
        let mut fresh = flows as u32;
        let (mut best, mut all, mut rounds) = (f64::MAX, Duration::ZERO, 0);
        let begun = Instant::now();
        let only: Option<u32> = std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok());
        out.0 = 0;
        while only.map_or(begun.elapsed() < Duration::from_secs(4), |n| rounds < n) {
            traffic.clear();
            for n in 0..wave {
                let other = n + (traffic.next() % (flows - n) as u64) as usize;
                live.swap(n, other);
            }
            let going = live[..wave].to_vec();
            for phase in 0..8 {
                for n in 0..wave {
                    let id = if phase < 3 { going[n] } else { live[n] };
                    traffic.put(phase, id);
                }
                if phase == 2 {
                    live[..wave].iter_mut().for_each(|id| {
                        *id = fresh;
                        fresh += 1;
                    });
                }
            }
            let packets = traffic.packets();
            let begin = Instant::now();
            worker.batch(&packets, &mut out);
            let took = begin.elapsed();
            all += took;
            rounds += 1;
            best = best.min(took.as_nanos() as f64 / packets.len() as f64);
        }
        let c = worker.counters();
        println!(
            "{flows} flows: {best:.1} ns/packet at best, {:.1} on average; {} bytes a flow; {} live, {} evicted, {} failed, {:.2} events a packet",
            all.as_nanos() as f64 / f64::from(rounds) / (8 * wave) as f64,
            worker.bytes_per_flow(),
            c.live,
            c.evicted,
            c.failed,
            out.0 as f64 / f64::from(rounds) / (8 * wave) as f64,
        );
    }
}
