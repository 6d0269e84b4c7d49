//! Any conversation among few tuples: batches of any size give the same events as one packet at a time, no panic,
//! memory bounded by the table.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syntap::capture::{Packet, Point, PortSet};
use syntap::flow::Seed;
use syntap::pipeline::{Event, Worker, WorkerConfig};
use syntap::wire::{LinkType, Nanos, OffloadedVlan, Way};

fn frame(bits: &[u8]) -> (u64, Vec<u8>) {
    let b = |n: usize| bits.get(n).copied().unwrap_or(0);
    let (host, side) = (b(0) & 3, b(0) & 4 != 0);
    let (client, server) = ([10, 0, 0, 1 + host], [10, 0, 1, 1]);
    let (src, dst) = if side { (server, client) } else { (client, server) };
    let (sport, dport): (u16, u16) = if side { (80, 4000) } else { (4000, 80) };
    // Numbers close to each other, and around the wrap.
    let near = |n: u8| 0xffff_fff0u32.wrapping_add(u32::from(n));
    let stamps = b(0) & 8 != 0;
    let payload = usize::from(b(4) & 7) * 10;
    let header = if stamps { 32 } else { 20 };
    let total = 20 + header + payload;
    let mut p = vec![0x45, 0, (total >> 8) as u8, total as u8, 0, b(5) & 3, 0, 0, 60 + (b(5) >> 6), 6, 0, 0];
    p.extend(src);
    p.extend(dst);
    p.extend(sport.to_be_bytes());
    p.extend(dport.to_be_bytes());
    p.extend(near(b(2)).to_be_bytes());
    p.extend(near(b(3)).to_be_bytes());
    p.extend([(header / 4 << 4) as u8, b(1), 1, 0, 0, 0, 0, 0]);
    if stamps {
        p.extend([1, 1, 8, 10, 0, 0, 0, b(6), 0, 0, 0, b(7)]);
    }
    p.resize(total, b'x');
    let gap = [1_000u64, 5_000_000, 250_000_000, 1_000_000_000, 3_000_000_000, 20_000_000_000, 70_000_000_000, 0]
        [usize::from(b(0) >> 5)];
    (gap, p)
}

fn run(frames: &[(u64, Vec<u8>)], batch: usize) -> Vec<String> {
    let config = WorkerConfig { max_flows: 16, recorder: 64, seed: Seed::FIXED, ports: PortSet::all(), lives: true, ..WorkerConfig::default() };
    let mut worker = Worker::new(&config);
    let mut out: Vec<Event> = Vec::new();
    let mut at = 1_000_000_000_000;
    let packets: Vec<Packet<'_>> = frames
        .iter()
        .map(|(gap, f)| {
            at += gap;
            Packet {
                ts: Nanos(at),
                now: Nanos(at),
                point: Point(0),
                way: Way::Unknown,
                link: LinkType::RawIp,
                wire_len: f.len() as u32,
                vlan: OffloadedVlan::default(),
                reason: 0,
                hash: 0,
                bytes: f,
            }
        })
        .collect();
    for chunk in packets.chunks(batch) {
        worker.batch(chunk, &mut out);
        assert!(worker.counters().live <= 16);
    }
    worker.finish(Nanos(at), &mut out);
    out.iter().map(|e| format!("{e:?}")).collect()
}

fuzz_target!(|data: &[u8]| {
    let frames: Vec<_> = data.chunks(8).take(300).map(frame).collect();
    let one = run(&frames, 1);
    assert_eq!(one, run(&frames, 64));
    assert_eq!(one, run(&frames, 7));
    // Each packet ends a bounded number of things.
    assert!(one.len() <= 24 * (frames.len() + 1));
});
