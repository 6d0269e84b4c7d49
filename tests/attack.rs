//! What somebody on the wire can make syntap do, at worst: bounded work and memory, shown by counts.
//!
//! The kernel side's own bounds are in `root_select.rs` (the budget of ARP and neighbours) and `root_shed.rs` (floods past the budget);
//! that its programs end at all, whatever the packet, is what the verifier proves at each load.

mod common;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use common::packet::{ACK, SYN, Tcp, arp, pcap, vxlan};
use common::{json_lines, run, syntap};
use syntap::capture::{BATCH, Packet, Point, PortSet};
use syntap::flow::{Class, Endpoint, FlowKey, Seed, Table};
use syntap::pipeline::{Event, Worker, WorkerConfig};
use syntap::wire::{Body, Decoded, LinkType, Nanos, OffloadedVlan, TunnelKind, decode};

/// Places of the two buckets that a key may be in.
const PLACES: usize = 2 * 10;

fn key(n: u32, port: u16) -> FlowKey {
    let end = |ip: [u8; 4], port: u16| Endpoint { addr: std::net::IpAddr::from(ip).into(), port };
    let [a, b, c, d] = n.to_be_bytes();
    FlowKey::new(end([a | 10, b, c, d], port), end([192, 0, 2, 1], 443), 0).0
}

/// Keys that share both buckets of the first: what an attacker sends who knows the secret.
fn colliding(table: &Table<u64>, count: usize) -> Vec<FlowKey> {
    let at = |key: &FlowKey| {
        let [a, b] = table.buckets(table.hash(key));
        [std::ptr::from_ref(a).addr(), std::ptr::from_ref(b).addr()]
    };
    let first = at(&key(0, 1));
    (0..)
        .map(|n: u32| key(n / 60_000, (n % 60_000) as u16 + 1))
        .filter(|k| at(k) == first)
        .take(count)
        .collect()
}

/// Makes room as a worker does, and puts a flow in. How many had to go for it.
fn insert(table: &mut Table<u64>, key: FlowKey) -> usize {
    let hash = table.hash(&key);
    let mut gone = 0;
    while let Some(victim) = table.victim(hash, Nanos(1)) {
        table.remove(victim);
        gone += 1;
    }
    table.insert(key, hash);
    gone
}

#[test]
fn keys_made_to_collide_fill_two_buckets_and_no_more_and_push_out_no_open_flow() {
    const CAPACITY: usize = 512;
    let mut table = Table::new(CAPACITY, Seed::FIXED);
    let innocent: Vec<FlowKey> = (0..200).map(|n| key(0x0b00_0000 + n, 9)).collect();
    for k in &innocent {
        insert(&mut table, *k);
        let id = table.find(k, table.hash(k)).expect("it was put in");
        table.set_class(id, Class::Open);
    }
    let crafted = colliding(&table, 300);
    let mut evicted = 0;
    for k in &crafted {
        let gone = insert(&mut table, *k);
        assert!(gone <= 1, "one goes for one that comes");
        evicted += gone;
        // A look-up compares what has the tag in these two buckets, whoever sent how much.
        let stored = crafted.iter().filter(|k| table.find(k, table.hash(k)).is_some()).count();
        assert!(stored <= PLACES, "{stored}");
    }
    assert!(evicted >= crafted.len() - PLACES, "{evicted}");
    assert!(table.len() <= innocent.len() + PLACES);
    for k in &innocent {
        assert!(table.find(k, table.hash(k)).is_some(), "an open flow was given up for a half-open one");
    }
}

#[test]
fn a_secret_that_the_attacker_does_not_know_spreads_what_collides_under_another() {
    let known = Table::<u64>::new(512, Seed::FIXED);
    let crafted = colliding(&known, 200);
    let mut table = Table::new(512, Seed::random());
    let evicted: usize = crafted.iter().map(|k| insert(&mut table, *k)).sum();
    assert_eq!((evicted, table.len()), (0, crafted.len()), "as if nobody had chosen them");
}

fn worker(max_flows: usize) -> Worker {
    Worker::new(&WorkerConfig {
        max_flows,
        recorder: 1024,
        seed: Seed::FIXED,
        ports: PortSet::all(),
        ..WorkerConfig::default()
    })
}

/// Works frames off, a microsecond apart from `*at`; how many events they made.
fn feed(worker: &mut Worker, frames: impl Iterator<Item = Vec<u8>>, at: &mut u64) -> usize {
    let frames: Vec<Vec<u8>> = frames.collect();
    let (mut events, mut out) = (0, Vec::<Event>::new());
    for chunk in frames.chunks(BATCH) {
        let packets: Vec<Packet<'_>> = chunk
            .iter()
            .map(|bytes| {
                *at += 1_000;
                let (ts, wire_len) = (Nanos(*at), bytes.len() as u32);
                Packet { ts, now: ts, point: Point(0), wire_len, bytes, ..Packet::NONE }
            })
            .collect();
        worker.batch(&packets, &mut out);
        events += out.drain(..).count();
    }
    events
}

/// One side's packets of a connection that goes on: SYN, SYN-ACK, ACK, and data both ways.
fn opened(port: u16) -> Vec<Vec<u8>> {
    let ends = [(Ipv4Addr::new(10, 9, 9, 9), port), (Ipv4Addr::new(192, 0, 2, 9), 443)];
    let segment = |from: usize, flags, seq, ack, payload| {
        let (src, dst) = (ends[from], ends[1 - from]);
        Tcp { src, dst, flags, seq, ack, win: 500, options: vec![], payload, ttl: 64, id: 1 }.frame()
    };
    vec![
        segment(0, SYN, 100, 0, 0),
        segment(1, SYN | ACK, 900, 101, 0),
        segment(0, ACK, 101, 901, 0),
        segment(0, ACK, 101, 901, 10),
        segment(1, ACK, 901, 111, 10),
    ]
}

#[test]
fn a_flood_of_tuples_stays_within_the_table_and_leaves_open_connections_in_it() {
    const FLOWS: usize = 2_048;
    const FLOOD: u64 = 100_000;
    let mut worker = worker(FLOWS);
    let mut at = 1_000_000_000_000;
    feed(&mut worker, (1..=100).flat_map(opened), &mut at);
    let before = worker.counters().flows;
    assert_eq!((before, worker.counters().handshakes), (100, 100));
    let events = feed(&mut worker, (0..FLOOD).map(|n| Tcp::syn_of(66, n).frame()), &mut at);
    let c = worker.counters();
    assert!(c.live <= FLOWS as u64, "{c:?}");
    assert_eq!(c.flows - before, FLOOD, "each tuple was looked at: {c:?}");
    assert_eq!(c.flows, c.live + c.evicted, "and one went for one that came: {c:?}");
    assert_eq!(c.evicted_open, 0, "{c:?}");
    // A SYN is told of when it comes and when it is given up.
    assert!(events as u64 <= 4 * FLOOD, "{events}");

    // What goes on after it is no new flow.
    let (flows, packets) = (worker.counters().flows, 100);
    let more = (1..=packets).map(|port| opened(port).pop().expect("its last segment"));
    feed(&mut worker, more, &mut at);
    assert_eq!(worker.counters().flows, flows, "all of them are still known");
}

/// A frame in as many VXLAN tunnels.
fn nested(frame: &[u8], times: usize) -> Vec<u8> {
    let end = |n: usize| Ipv4Addr::new(172, 16, 0, n as u8 + 1);
    (0..times).fold(frame.to_vec(), |inner, n| vxlan(&inner, end(n), end(n + 1), n as u32 + 1))
}

fn read(frame: &[u8]) -> Decoded {
    decode(LinkType::Ethernet, frame, frame.len() as u32, OffloadedVlan::default())
}

/// Outer Ethernet, IPv4, UDP and VXLAN.
const VXLAN_HEADERS: usize = 14 + 20 + 8 + 8;

#[test]
fn tunnels_in_tunnels_are_followed_four_deep_and_what_is_deeper_is_not_read() {
    let tcp = Tcp::syn_of(1, 1).frame();
    let mut found = Vec::new();
    for times in 0..=28 {
        let d = read(&nested(&tcp, times));
        assert_eq!(d.tunnel.kind, if times == 0 { TunnelKind::None } else { TunnelKind::Vxlan }, "{times}");
        if matches!(d.body, Body::Tcp(_)) {
            found.push(times);
        } else {
            assert!(matches!(d.body, Body::Other), "{times}: {:?}", d.body);
        }
    }
    assert_eq!(found, [0, 1, 2, 3, 4]);

    // Whatever stands behind the deepest header that is looked at makes no difference: it is not looked at.
    let deep = nested(&tcp, 28);
    let told = format!("{:?}", read(&deep));
    let looked_at = 4 * VXLAN_HEADERS + 14 + 20;
    for value in [0, 0xff, 0x45] {
        let mut other = deep.clone();
        other[looked_at..].fill(value);
        assert_eq!(format!("{:?}", read(&other)), told);
    }
    // And a worker makes nothing of it: no flow, no event.
    let mut worker = worker(64);
    let mut at = 1_000_000_000_000;
    assert_eq!(feed(&mut worker, (0..10_000).map(|_| deep.clone()), &mut at), 0);
    assert_eq!((worker.counters().flows, worker.counters().others), (0, 10_000));
}

/// Records of a replay by kind: how many, and what they count together.
fn told(frames: &[(u64, Vec<u8>)]) -> BTreeMap<String, (usize, u64)> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("storm.pcap");
    std::fs::write(&file, pcap(frames)).expect("room");
    let mut kinds = BTreeMap::new();
    for r in json_lines(&run(syntap().args(["replay", "--json"]).arg(&file))) {
        let (records, count) = kinds.entry(r["kind"].as_str().expect("a kind").to_owned()).or_insert((0, 0));
        *records += 1;
        *count += r["count"].as_u64().expect("a count");
    }
    kinds
}

#[test]
fn an_arp_storm_of_forged_owners_is_told_in_a_bounded_number_of_records() {
    // Each of 512 addresses is asked for and answered by two machines, that of a moment ago and a new one; a hundred times over.
    const ADDRESSES: u64 = 512;
    const ROUNDS: u64 = 100;
    let asker = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 1));
    let mut frames = Vec::new();
    for round in 0..ROUNDS {
        for phase in 0..3 {
            for n in 0..ADDRESSES {
                let owner = Ipv4Addr::from(0x0a00_1000 + n as u32);
                let mac = [2, 1, (round + phase) as u8, 0, (n >> 8) as u8, n as u8];
                let frame = if phase == 0 {
                    arp(true, asker, ([0; 6], owner))
                } else {
                    arp(false, (mac, owner), asker)
                };
                frames.push(((round * 3 + phase) * 150_000 + n, frame));
            }
        }
    }
    let kinds = told(&frames);
    println!("{kinds:?}");
    let records: usize = kinds.values().map(|(records, _)| records).sum();
    let count: u64 = kinds.values().map(|(_, count)| count).sum();
    assert!(records > 0 && count > ADDRESSES, "it is told: {kinds:?}");
    // One record an address and kind in a minute, of which the storm takes less, and what is beyond a kind's rate in one of its own.
    assert!(records as u64 <= 4 * ADDRESSES, "{kinds:?}");
}

#[test]
fn a_storm_of_questions_is_told_in_a_few_records() {
    let ask = |n: u64| {
        let asked = Ipv4Addr::from(0x0a00_0000 + (n % 60_000) as u32);
        (n * 10, arp(true, ([2, 0, 0, 0, 0, 7], Ipv4Addr::new(10, 0, 0, 7)), ([0; 6], asked)))
    };
    let kinds = told(&(0..100_000).map(ask).collect::<Vec<_>>());
    let records: usize = kinds.values().map(|(records, _)| records).sum();
    assert!(records <= 1_000, "{kinds:?}");
}
