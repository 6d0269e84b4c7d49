//! What the benches work on: the packets of connections' lives, and some of other shapes.

#![allow(dead_code, missing_docs)]

pub mod exchange;
#[path = "../../examples/meter/life.rs"]
pub mod life;
#[path = "../../tests/common/packet.rs"]
pub mod packet;

use syntap::capture::{Packet, PortSet};
use syntap::flow::{Class, Digest, Endpoint, FlowKey, Seed, Side, Table};
use syntap::pipeline::{Event, Outlet, Worker, WorkerConfig};
use syntap::wire::{self, Addr, Body, LinkType, Nanos, OffloadedVlan, Segment, Seq, Way};

use life::{Family, Maker, Mix, Order, STRIDE};
use packet::{ACK, SYN, Tcp};

pub const START: u64 = 1_700_000_000_000_000_000;

/// A frame, its length on the wire, and when.
pub type Frame = (Vec<u8>, u32, u64);

/// Packets of the steady state of `2^bits` flows, the first that bring each flow where it stands left out or not.
pub fn lives(bits: u32, family: Family, fill: bool, count: usize) -> Vec<Frame> {
    let (mut order, maker) = (Order::new(bits, Mix::Births, START), Maker::new(family, Mix::Births, false));
    let mut out = Vec::new();
    let mut room = [0; STRIDE];
    while let Some(v) = order.fill() {
        if fill {
            let (len, wire_len) = maker.make(&v, &mut room);
            out.push((room[..len].to_vec(), wire_len, v.at));
        }
    }
    let end = out.len() + count;
    while out.len() < end {
        let v = order.next();
        let (len, wire_len) = maker.make(&v, &mut room);
        out.push((room[..len].to_vec(), wire_len, v.at));
    }
    out
}

/// Packets of `2^bits` slots, of which one in three is lost.
pub fn lossy(bits: u32, count: usize) -> Vec<Frame> {
    let mut order = Order::new(bits, Mix::Births, START).losing(3);
    let maker = Maker::new(Family::V4, Mix::Births, false);
    let mut room = [0; STRIDE];
    let mut frame = |v| {
        let (len, wire_len) = maker.make(&v, &mut room);
        (room[..len].to_vec(), wire_len, v.at)
    };
    (0..count).map(|_| frame(order.next())).collect()
}

pub fn packets(frames: &[Frame]) -> Vec<Packet<'_>> {
    let one = |(bytes, wire_len, at)| Packet {
        ts: Nanos(at),
        now: Nanos(at),
        way: Way::Ingress,
        wire_len,
        bytes,
        ..Packet::NONE
    };
    frames.iter().map(|(bytes, wire_len, at)| one((&bytes[..], *wire_len, *at))).collect()
}

/// One frame of each shape, by name.
pub fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let tcp = |flags, options: &[u8], payload| Tcp {
        src: ([10, 0, 0, 1].into(), 40_000),
        dst: ([192, 0, 2, 1].into(), 443),
        flags,
        seq: 1,
        ack: 1,
        win: 502,
        options: options.to_vec(),
        payload,
        ttl: 64,
        id: 7,
    };
    let times = [1u8, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let syn = [2u8, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    let sack = [times.as_slice(), &[1, 1, 5, 18], &[7; 16]].concat();
    let plain = tcp(ACK, &times, 0);
    vec![
        ("IPv4", plain.frame()),
        ("IPv6", plain.frame6()),
        ("IPv4, SYN with its options", tcp(SYN, &syn, 0).frame()),
        ("IPv4, no options", tcp(ACK, &[], 0).frame()),
        ("IPv4, two SACK blocks", tcp(ACK, &sack, 0).frame()),
        ("IPv4, 200 bytes of data", tcp(ACK, &times, 200).frame()),
        ("VLAN, IPv4", packet::vlan(plain.frame(), &[7])),
        ("two VLANs, IPv6", packet::vlan(plain.frame6(), &[7, 8])),
        ("VXLAN, IPv4", packet::vxlan(&plain.frame(), [10, 1, 0, 1].into(), [10, 1, 0, 2].into(), 7)),
        ("ARP", packet::arp(true, ([2; 6], [10, 0, 0, 1].into()), ([0; 6], [10, 0, 0, 2].into()))),
    ]
}

pub fn decode(frame: &[u8], wire_len: u32) -> wire::Decoded {
    wire::decode(LinkType::Ethernet, frame, wire_len, OffloadedVlan::default())
}

/// The segments of six lives of one slot, and which end sent each.
pub fn segments() -> Vec<(Segment, Side, Nanos)> {
    let one = |(frame, wire_len, at): Frame| match decode(&frame, wire_len).body {
        Body::Tcp(seg) => (seg, if seg.dport == 443 { Side::Orig } else { Side::Resp }, Nanos(at)),
        other => panic!("a segment, and not {other:?}"),
    };
    lives(0, Family::V4, true, 60).into_iter().map(one).collect()
}

/// The `n`th client's flow, over either family.
pub fn key(n: u32, family: Family) -> FlowKey {
    let (client, server) = match family {
        Family::V4 => (Addr::v4((0x0a00_0000 | n).to_be_bytes()), Addr::v4([192, 0, 2, 1])),
        Family::V6 => {
            let mut a = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let server = Addr(a);
            a[12..].copy_from_slice(&n.to_be_bytes());
            (Addr(a), server)
        }
    };
    FlowKey::new(Endpoint { addr: client, port: 40_000 }, Endpoint { addr: server, port: 443 }, 0).0
}

/// Puts a flow in, unless both its buckets are full.
pub fn put<V: Clone + Default>(table: &mut Table<V>, key: &FlowKey) {
    let hash = table.hash(key);
    if table.victim(hash, Nanos(0)).is_none() {
        let id = table.insert(*key, hash);
        table.set_class(id, Class::Open);
    }
}

/// A table of `2^bits` open flows.
pub fn table(bits: u32, family: Family) -> Table<u64> {
    let mut table = Table::new(1 << bits, Seed::FIXED);
    for n in 0..1 << bits {
        put(&mut table, &key(n, family));
    }
    table
}

pub fn digest(n: u32) -> Digest {
    Digest { seq: Seq(n), ts: Nanos(START + u64::from(n)), ..Digest::default() }
}

/// Counts events and drops them.
#[derive(Default)]
pub struct Nowhere(pub u64);

impl Outlet for Nowhere {
    fn event(&mut self, event: Event) {
        self.0 += 1;
        std::hint::black_box(event);
    }
}

pub fn worker(bits: u32) -> Worker {
    Worker::new(&WorkerConfig {
        max_flows: 1 << bits,
        recorder: 1 << bits,
        seed: Seed::FIXED,
        ports: PortSet::all(),
        ..WorkerConfig::default()
    })
}

/// A worker with no room for more than one slot in 16 whose flow is whole, and for flows whose FINs are lost.
pub fn worker_in_trouble(bits: u32) -> Worker {
    Worker::new(&WorkerConfig {
        max_flows: 8 << bits,
        recorder: 1 << bits,
        wholes: 1 << bits >> 4,
        ..WorkerConfig::default()
    })
}
