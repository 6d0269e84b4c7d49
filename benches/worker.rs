//! What a packet costs on a worker: decode alone, and the whole path from bytes to a stepped flow.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use syntap::capture::{Packet, Point, PortSet};
use syntap::flow::Seed;
use syntap::pipeline::{Event, Outlet, Worker, WorkerConfig};
use syntap::wire::{self, LinkType, Nanos, OffloadedVlan, Way};

#[path = "../tests/common/packet.rs"]
#[allow(dead_code)]
mod packet;

use packet::{ACK, FIN, SYN, Tcp};

/// Packets of one round: 64 whole handshakes with their closes.
const FLOWS: usize = 64;

struct Nowhere;

impl Outlet for Nowhere {
    fn event(&mut self, event: Event) {
        black_box(event);
    }
}

/// SYN, SYN-ACK, ACK, FIN, FIN, ACK of each flow, with timestamps, round robin.
fn frames(round: u32) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (from_client, flags, seq, ack) in [
        (true, SYN, 0, 0),
        (false, SYN | ACK, 0, 1),
        (true, ACK, 1, 1),
        (true, FIN | ACK, 1, 1),
        (false, FIN | ACK, 1, 2),
        (true, ACK, 2, 2),
    ] {
        for n in 0..FLOWS as u32 {
            let id = round * FLOWS as u32 + n;
            let client =
                ([10, (id >> 16) as u8, (id >> 8) as u8, id as u8].into(), 1024 + (id % 50_000) as u16);
            let server = ([192, 0, 2, 1].into(), 443);
            let isn = if from_client { 1_000 } else { 9_000 };
            let other = if from_client { 9_000 } else { 1_000 };
            let tcp = Tcp {
                src: if from_client { client } else { server },
                dst: if from_client { server } else { client },
                flags,
                seq: isn + seq,
                ack: if flags & ACK != 0 { other + ack } else { 0 },
                win: 502,
                options: [&[1u8, 1, 8, 10][..], &[0, 0, 0, 1, 0, 0, 0, 2]].concat(),
                payload: 0,
                ttl: 64,
                id: 7,
            };
            out.push(tcp.frame());
        }
    }
    out
}

fn packets<'a>(frames: &'a [Vec<u8>], at: &mut u64) -> Vec<Packet<'a>> {
    frames
        .iter()
        .map(|f| {
            *at += 10_000;
            Packet {
                ts: Nanos(*at),
                now: Nanos(*at),
                point: Point(0),
                way: Way::Ingress,
                link: LinkType::Ethernet,
                wire_len: f.len() as u32,
                vlan: OffloadedVlan::default(),
                reason: 0,
                bytes: f,
            }
        })
        .collect()
}

fn decode(c: &mut Criterion) {
    let frames = frames(0);
    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Elements(frames.len() as u64));
    group.bench_function("decode Ethernet IPv4 TCP with timestamps", |b| {
        b.iter(|| {
            for f in &frames {
                black_box(wire::decode(LinkType::Ethernet, f, f.len() as u32, OffloadedVlan::default()));
            }
        });
    });
    group.finish();
}

fn worker(c: &mut Criterion) {
    let mut group = c.benchmark_group("worker");
    for (name, max_flows) in [("64k flows", 1 << 16), ("1M flows", 1 << 20)] {
        let config = WorkerConfig {
            max_flows,
            recorder: max_flows,
            seed: Seed::FIXED,
            ports: PortSet::all(),
            lives: false,
            ..WorkerConfig::default()
        };
        let mut worker = Worker::new(&config);
        let mut at = 1_000_000_000_000;
        let mut round = 0;
        group.throughput(Throughput::Elements(6 * FLOWS as u64));
        group.bench_function(format!("handshake and close, {name}"), |b| {
            b.iter_batched(
                || {
                    round += 1;
                    frames(round)
                },
                |frames| worker.batch(&packets(&frames, &mut at), &mut Nowhere),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, decode, worker);
criterion_main!(benches);
