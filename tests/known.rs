//! Which tuples a worker takes for open, so that the kernel side keeps them when it sheds: those whose two ends have
//! shown that they are there, and no forged ones.

mod common;

use common::packet::{ACK, FIN, RST, SYN, Tcp};
use common::talk::Talk;
use syntap::bpf::Known;
use syntap::capture::{Packet, Point, PortSet};
use syntap::pipeline::{Event, What, Worker, WorkerConfig};
use syntap::wire::{LinkType, Nanos, OffloadedVlan, Way};

struct Bench {
    worker: Worker,
    known: Known,
    now: u64,
    events: Vec<Event>,
}

impl Bench {
    fn new(max_flows: usize) -> Bench {
        let known = Known::apart(max_flows, [1, 2]).expect("memory");
        let config = WorkerConfig { max_flows, known: Some(known.clone()), ..WorkerConfig::default() };
        Bench { worker: Worker::new(&config), known, now: 1_700_000_000 * Nanos::SEC, events: Vec::new() }
    }

    /// A packet, a millisecond after the one before; how many tuples are known then.
    fn sees(&mut self, packet: Tcp) -> usize {
        self.now += Nanos::MS;
        let bytes = packet.frame();
        let packet = Packet {
            ts: Nanos(self.now),
            now: Nanos(self.now),
            point: Point(0),
            way: Way::Ingress,
            link: LinkType::Ethernet,
            wire_len: bytes.len() as u32,
            vlan: OffloadedVlan { tpid: 0, tci: 0 },
            reason: 0,
            hash: 0,
            bytes: &bytes,
        };
        self.worker.batch(&[packet], &mut self.events);
        self.known.len()
    }

    fn finish(mut self) -> usize {
        self.worker.finish(Nanos(self.now), &mut self.events);
        self.known.len()
    }
}

#[test]
fn a_tuple_is_known_from_its_handshake_on_until_it_is_forgotten_or_used_again() {
    let mut b = Bench::new(64);
    let mut t = Talk::new(40_000);
    assert_eq!(b.sees(t.client(SYN, 0)), 0);
    assert_eq!(b.sees(t.server(SYN | ACK, 0)), 0, "an answer is none of the originator's");
    assert_eq!(b.sees(t.client(ACK, 0)), 1);
    let ends = |e: (std::net::Ipv4Addr, u16)| (std::net::IpAddr::from(e.0).into(), e.1);
    assert!(b.known.contains(ends(t.client), ends(t.server), 0));
    assert_eq!(b.sees(t.client(FIN | ACK, 0)), 1);
    assert_eq!(b.sees(t.server(FIN | ACK, 0)), 1);
    assert_eq!(b.sees(t.client(ACK, 0)), 1, "its last packets may come again");
    let mut next = t.again(77);
    assert_eq!(b.sees(next.client(SYN, 0)), 0, "a new life has shown nothing yet");
    b.sees(next.server(SYN | ACK, 0));
    assert_eq!(b.sees(next.client(ACK, 0)), 1);
    assert_eq!(b.finish(), 0);
}

#[test]
fn what_one_end_can_forge_makes_no_tuple_known() {
    let mut b = Bench::new(64);
    // An answered SYN, acknowledged by one who has not seen the answer: once, and once more.
    let mut t = Talk::new(40_000);
    b.sees(t.client(SYN, 0));
    b.sees(t.server(SYN | ACK, 0));
    let ack = t.client(ACK, 0);
    for guess in [0x4000_0000, 0x6000_0000, 0x7000_0000] {
        assert_eq!(b.sees(Tcp { ack: guess, ..ack.clone() }), 0, "{guess:x}");
    }
    // Two SYNs, and an answer to each: which of them an acknowledgement means is anybody's guess.
    let mut t = Talk::new(40_001);
    b.sees(t.client(SYN, 0));
    let answer = t.server(SYN | ACK, 0);
    b.sees(answer.clone());
    b.sees(Tcp { seq: answer.seq + 99_999, ..answer });
    assert_eq!(b.sees(Tcp { ack: 3, ..t.client(ACK, 0) }), 0);
    // Data, FINs and resets out of nowhere, and resets that answer them.
    for (port, flags, payload) in
        [(40_002, ACK, 100), (40_003, FIN | ACK, 0), (40_004, RST, 0), (40_005, FIN | ACK, 9)]
    {
        let mut t = Talk::new(port);
        assert_eq!(b.sees(t.client(flags, payload)), 0);
        assert_eq!(b.sees(t.server(RST, 0)), 0);
    }
}

#[test]
fn a_connection_older_than_the_tap_is_known_when_both_ends_have_sent_data() {
    let mut b = Bench::new(64);
    let mut t = Talk::new(40_000);
    assert_eq!(b.sees(t.client(ACK, 320)), 0);
    assert_eq!(b.sees(t.server(ACK, 0)), 0);
    assert_eq!(b.sees(t.server(ACK, 270)), 1);
}

#[test]
fn a_table_of_open_connections_gives_up_none_of_them_for_a_flood() {
    const ROOM: usize = 256;
    let mut b = Bench::new(ROOM);
    for n in 0..ROOM as u16 * 3 / 4 {
        let mut t = Talk::new(10_000 + n);
        b.sees(t.client(SYN, 0));
        b.sees(t.server(SYN | ACK, 0));
        b.sees(t.client(ACK, 0));
    }
    for n in 0..20_000 {
        let mut t = Talk::new(20_000 + n);
        b.sees(t.client(SYN, 0));
        assert_eq!(b.sees(t.server(SYN | ACK, 0)), ROOM * 3 / 4, "after {n}");
    }
    let c = *b.worker.counters();
    assert_eq!((c.live as usize, c.evicted_open), (ROOM, 0), "{c:?}");
    assert_eq!(c.evicted, 20_000 - ROOM as u64 / 4);
    // More open ones than there is room for: the oldest goes, and is known no more.
    for n in 0..ROOM as u16 / 4 + 10 {
        let mut t = Talk::new(50_000 + n);
        b.sees(t.client(SYN, 0));
        b.sees(t.server(SYN | ACK, 0));
        b.sees(t.client(ACK, 0));
    }
    assert_eq!(b.known.len(), ROOM);
    assert_eq!(b.worker.counters().evicted_open, 10);
}

#[test]
fn a_connection_whose_port_was_not_followed_for_a_while_is_a_stranger_afterwards() {
    let anomalies = |b: &Bench| b.events.iter().filter(|e| matches!(e.what, What::Anomaly(_))).count();
    let mut b = Bench::new(64);
    let (mut t, mut other) = (Talk::new(40_000), Talk::new(40_001));
    other.server.1 = 9_090;
    for talk in [&mut t, &mut other] {
        b.sees(talk.client(SYN, 0));
        b.sees(talk.server(SYN | ACK, 0));
        b.sees(talk.client(ACK, 0));
    }
    assert_eq!(b.known.len(), 2);
    b.worker.set_ports("9090".parse().expect("a port"));
    assert_eq!((b.known.len(), b.worker.counters().live), (1, 1), "the other one is followed on");
    // It ends unseen, and its tuple is used again when its port is followed again.
    b.worker.set_ports(PortSet::all());
    b.now += 10 * Nanos::SEC;
    let mut next = t.again(77);
    b.sees(next.client(SYN, 0));
    b.sees(next.server(SYN | ACK, 0));
    assert_eq!(b.sees(next.client(ACK, 0)), 2);
    assert_eq!(anomalies(&b), 0, "nothing is said of what nobody saw");
}
