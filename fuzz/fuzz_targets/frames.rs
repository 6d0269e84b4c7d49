//! Any frames of any link type through all of a worker: the short way and the long one agree, batches of any size tell the same,
//! and what is kept is bounded by the tables.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syntap::capture::{Packet, Point, PortSet};
use syntap::flow::Seed;
use syntap::pipeline::{Event, Worker, WorkerConfig};
use syntap::wire::{Body, Brief, LinkType, Nanos, OffloadedVlan, Way, brief, brief_ends, decode};

const LINKS: [LinkType; 6] = [
    LinkType::Ethernet,
    LinkType::Ethernet,
    LinkType::Ethernet,
    LinkType::LinuxSll,
    LinkType::RawIp,
    LinkType::Nflog,
];

/// A frame's length comes first, then its link type and gap, then its bytes.
fn frames(mut data: &[u8]) -> Vec<(LinkType, u64, &[u8])> {
    let mut out = Vec::new();
    while let [len, how, rest @ ..] = data {
        let (frame, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        let gap = [1_000, 400_000_000, 3_000_000_000, 61_000_000_000][usize::from(how >> 6)];
        out.push((LINKS[usize::from(how & 63) % LINKS.len()], gap, frame));
        data = rest;
        if out.len() == 64 {
            break;
        }
    }
    out
}

fn run(packets: &[Packet<'_>], batch: usize) -> Vec<String> {
    let config = WorkerConfig {
        max_flows: 16,
        recorder: 64,
        seed: Seed::FIXED,
        ports: PortSet::all(),
        ..WorkerConfig::default()
    };
    let mut worker = Worker::new(&config);
    let mut out: Vec<Event> = Vec::new();
    for chunk in packets.chunks(batch) {
        worker.batch(chunk, &mut out);
        assert!(worker.counters().live <= 16);
    }
    worker.finish(packets.last().map_or(Nanos(0), |p| p.ts), &mut out);
    out.iter().map(|e| format!("{e:?}")).collect()
}

fuzz_target!(|data: &[u8]| {
    let mut at = 1_000_000_000_000;
    let packets: Vec<Packet<'_>> = frames(data)
        .into_iter()
        .map(|(link, gap, bytes)| {
            at += gap;
            Packet { ts: Nanos(at), now: Nanos(at), way: Way::Unknown, link, wire_len: bytes.len() as u32, bytes, point: Point(0), ..Packet::NONE }
        })
        .collect();
    for p in &packets {
        let mut short = Brief::default();
        if brief(p.link, p.bytes, OffloadedVlan::default(), &mut short) {
            let Body::Tcp(long) = decode(p.link, p.bytes, p.wire_len, p.vlan).body else {
                panic!("the short way takes what the long one does not");
            };
            let d = &short.digest;
            assert_eq!((short.addresses(), short.sport(), short.dport()), ([long.src, long.dst], long.sport, long.dport));
            assert_eq!((d.seq, d.ack, d.flags, d.len), (long.seq, long.ack, long.flags, long.payload));
            assert_eq!((d.win, d.mss), (long.win, long.options.mss.unwrap_or(0)));
        }
        if let Some((four, ports)) = brief_ends(p.link, p.bytes, OffloadedVlan::default()) {
            let Body::Tcp(long) = decode(p.link, p.bytes, p.wire_len, p.vlan).body else {
                panic!("ends are read of what the long way does not take");
            };
            let ends = Brief { four, ports, ..Brief::default() };
            assert_eq!((ends.addresses(), ends.sport(), ends.dport()), ([long.src, long.dst], long.sport, long.dport));
        }
    }
    let one = run(&packets, 1);
    assert_eq!(one, run(&packets, 64));
    assert!(one.len() <= 32 * (packets.len() + 1));
});
