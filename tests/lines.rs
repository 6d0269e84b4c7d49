//! A flow that is kept in its line alone gives the events that a whole one gives, exactly.

mod common;

use std::net::Ipv4Addr;
use std::path::Path;

use common::corpus;
use common::packet::{ACK, FIN, PSH, SYN, Tcp};
use proptest::prelude::*;
use syntap::capture::{CaptureFile, Packet, Point, PortSet, ReplaySource};
use syntap::flow::Seed;
use syntap::pipeline::{Event, Worker, WorkerConfig};
use syntap::wire::{Brief, Digest, LinkType, Nanos, OffloadedVlan, Way, brief, brief_ends, decode};

fn worker(no_lines: bool, recorder: usize, selected: u32) -> Worker {
    Worker::new(&WorkerConfig {
        max_flows: 4_096,
        recorder,
        seed: Seed::FIXED,
        ports: PortSet::all(),
        no_lines,
        selected,
        ..WorkerConfig::default()
    })
}

/// What two workers say of the same packets, one with lines and one without.
fn both(packets: &[Packet<'_>], end: Nanos, selected: u32) -> [Vec<String>; 2] {
    [false, true].map(|no_lines| {
        let mut worker = worker(no_lines, 1 << 16, selected);
        let mut events: Vec<Event> = Vec::new();
        packets.chunks(7).for_each(|some| worker.batch(some, &mut events));
        worker.settle(end, &mut events);
        worker.finish(end, &mut events);
        let mut counted = *worker.counters();
        counted.live = 0;
        let mut said: Vec<String> = events.iter().map(|e| format!("{:?} {:?}", e.place, e.what)).collect();
        said.push(format!("{counted:?}"));
        said
    })
}

fn same(packets: &[Packet<'_>], end: Nanos, name: &str) {
    // Of tap points that show all packets, and of those that show some.
    for selected in [0, u32::MAX] {
        let [lines, wholes] = both(packets, end, selected);
        for (line, whole) in lines.iter().zip(&wholes) {
            assert_eq!(line, whole, "{name}");
        }
        assert_eq!(lines.len(), wholes.len(), "{name}");
    }
}

#[test]
fn every_capture_gives_the_same_events() {
    let mut seen = 0;
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut dirs = vec![own];
    dirs.extend(corpus("."));
    let mut files: Vec<_> = dirs.iter().flat_map(|d| captures_in(d)).collect();
    files.sort();
    for path in files {
        let Ok(file) = CaptureFile::open(&path) else { continue };
        let mut source = ReplaySource::new(vec![(Point(0), 1, file)]);
        let mut round = Vec::new();
        source.round(40_000, Nanos(u64::MAX), |p| round.push(p));
        let Some(end) = round.iter().map(|p| p.now).max() else { continue };
        same(&round, end, &path.display().to_string());
        seen += 1;
    }
    assert!(seen > 1, "{seen} captures");
}

fn captures_in(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(|e| Some(e.ok()?.path()));
    paths
        .flat_map(|p| if p.is_dir() { captures_in(&p) } else { vec![p] })
        .filter(|p| p.extension().is_some_and(|e| e == "pcap" || e == "pcapng"))
        .collect()
}

/// A packet of a faultless connection: from the originator, flags, sequence and acknowledgement past the ISNs, payload.
const LIFE: [(bool, u8, u32, u32, usize); 11] = [
    (true, SYN, 0, 0, 0),
    (false, SYN | ACK, 0, 1, 0),
    (true, ACK, 1, 1, 0),
    (true, PSH | ACK, 1, 1, 100),
    (false, ACK, 1, 101, 0),
    (false, PSH | ACK, 1, 101, 200),
    (true, ACK, 101, 201, 0),
    (true, FIN | ACK, 101, 201, 0),
    (false, ACK, 201, 102, 0),
    (false, FIN | ACK, 201, 102, 0),
    (true, ACK, 102, 202, 0),
];

/// What happens to a packet on its way to the tap.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Comes,
    Lost,
    Twice,
    Late,
    Reset,
    OtherMac,
    Altered(u8),
    /// So much data of its sender was not seen before it.
    Unseen(u32),
}

/// A connection: which tuple, both ways turned, timestamps, when each packet comes after the one before, and its fate.
type Connection = (u8, bool, bool, Vec<(u64, Fate)>);

fn connections() -> impl Strategy<Value = Vec<Connection>> {
    let step = prop_oneof![
        12 => 0u64..200_000,
        4 => 200_000u64..2_000_000_000,
        1 => 2_000_000_000u64..70_000_000_000,
        1 => Just(400_000_000_000u64),
    ];
    let fate = prop_oneof![
        40 => Just(Fate::Comes),
        2 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        1 => Just(Fate::Late),
        1 => Just(Fate::Reset),
        1 => Just(Fate::OtherMac),
        1 => any::<u8>().prop_map(Fate::Altered),
        1 => any::<u32>().prop_map(Fate::Unseen),
    ];
    let life = proptest::collection::vec((step, fate), LIFE.len());
    proptest::collection::vec((0u8..6, any::<bool>(), any::<bool>(), life), 1..12)
}

fn frame(connection: u32, tuple: u8, turned: bool, ts: bool, n: usize, fate: Fate) -> Vec<u8> {
    let (from_orig, mut flags, mut seq, mut ack, payload) = LIFE[n];
    let (low, high) =
        ((Ipv4Addr::new(10, 0, 0, tuple), 4_000 + u16::from(tuple)), (Ipv4Addr::new(192, 0, 2, 1), 443));
    let (orig, resp) = if turned { (high, low) } else { (low, high) };
    let isn = |from_orig: bool| connection.wrapping_mul(if from_orig { 0x3000_0001 } else { 0x7000_0003 });
    match fate {
        Fate::Reset => flags = 0x14,
        Fate::Altered(how) => match how % 4 {
            0 => seq = seq.wrapping_add(u32::from(how)),
            1 => ack = ack.wrapping_sub(u32::from(how)),
            2 => ack = ack.wrapping_add(u32::from(how)),
            _ => flags = how,
        },
        _ => {}
    }
    let clock = connection * 1_000 + n as u32;
    let times = [&[1, 1, 8, 10][..], &clock.to_be_bytes(), &(clock / 2).to_be_bytes()].concat();
    let options = match (flags & SYN != 0, ts) {
        (true, true) => [&[2, 4, 5, 180, 4, 2][..], &times[2..], &[1, 3, 3, 7]].concat(),
        (true, false) => vec![2, 4, 5, 180],
        (false, true) => times,
        (false, false) => vec![],
    };
    let tcp = Tcp {
        src: if from_orig { orig } else { resp },
        dst: if from_orig { resp } else { orig },
        flags,
        seq: isn(from_orig).wrapping_add(seq),
        ack: if flags & ACK != 0 { isn(!from_orig).wrapping_add(ack) } else { 0 },
        win: 500,
        options,
        payload,
        ttl: 64,
        id: (connection as u16) << 4 | n as u16,
    };
    let mut frame = tcp.frame();
    if matches!(fate, Fate::OtherMac) {
        frame[11] ^= 0x55;
    }
    frame
}

/// Moves the numbers of a segment on: its own, and those that it acknowledges.
fn move_on(frame: &mut [u8], seq: u32, ack: u32) {
    let acks = frame[47] & ACK != 0;
    for (at, by) in [(38, seq), (42, if acks { ack } else { 0 })] {
        let field: &mut [u8; 4] = (&mut frame[at..at + 4]).try_into().expect("four bytes");
        *field = u32::from_be_bytes(*field).wrapping_add(by).to_be_bytes();
    }
}

fn wire_of(connections: &[Connection]) -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    for (n, (tuple, turned, ts, life)) in connections.iter().enumerate() {
        let mut at = 1_700_000_000_000_000_000u64 + n as u64 * 3_000_000_000;
        let mut unseen = [0u32; 2];
        for (k, (step, fate)) in life.iter().enumerate() {
            at += step;
            let mut frame = frame(n as u32 + 1, *tuple, *turned, *ts, k, *fate);
            let from = usize::from(!LIFE[k].0);
            if let Fate::Unseen(bytes) = fate {
                unseen[from] = unseen[from].wrapping_add(*bytes);
            }
            move_on(&mut frame, unseen[from], unseen[1 - from]);
            match fate {
                Fate::Lost => {}
                Fate::Twice => out.extend([(at, frame.clone()), (at + 300_000_000, frame)]),
                Fate::Late => out.push((at + 1_000_000, frame)),
                _ => out.push((at, frame)),
            }
        }
    }
    out.sort_by_key(|(at, _)| *at);
    out
}

fn packets(wire: &[(u64, Vec<u8>)]) -> Vec<Packet<'_>> {
    let one = |(at, bytes): &'_ (u64, Vec<u8>)| (Nanos(*at), bytes.len() as u32);
    wire.iter()
        .map(|p| {
            let (ts, wire_len) = one(p);
            Packet { ts, now: ts, way: Way::Ingress, wire_len, bytes: &p.1, ..Packet::NONE }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connections_with_some_trouble_give_the_same_events(connections in connections()) {
        let wire = wire_of(&connections);
        let packets = packets(&wire);
        let end = packets.last().map_or(Nanos(0), |p| p.ts);
        same(&packets, end, "as made");
    }

    /// With most of its packets overwritten a connection is known by its line only. Nothing may be made up then.
    #[test]
    fn what_the_recorder_has_lost_makes_no_false_alarm(gaps in proptest::collection::vec(0u64..3_000_000_000, 11), ts: bool) {
        let life = |gaps: &[u64]| gaps.iter().map(|g| (*g, Fate::Comes)).collect::<Vec<_>>();
        let mut many: Vec<Connection> = (0..6).map(|n| (n, n % 2 == 0, ts, life(&gaps))).collect();
        many[0].3[9].0 += 5_000_000_000; // A half close on purpose.
        let mut wire = wire_of(&many);
        // A sixth of what is no SYN is sent twice, so that flows become whole after their packets were overwritten. A SYN once more so
        // late is a retransmission, and its flow was whole when it came.
        let plain = wire.iter().filter(|(_, f)| f[47] & SYN == 0);
        let again: Vec<_> = plain.step_by(6).map(|(at, f)| (at + 250_000_000, f.clone())).collect();
        wire.extend(again);
        wire.sort_by_key(|(at, _)| *at);
        let packets = packets(&wire);
        let mut small = worker(false, 1, 0);
        let mut events: Vec<Event> = Vec::new();
        packets.iter().for_each(|p| {
            small.batch(&[*p], &mut events);
            // The noise of others overwrites all.
            let noise: Vec<_> = (0..40u32).map(|n| frame(n + 100, 200, false, false, 0, Fate::Comes)).collect();
            let noise: Vec<_> = noise.iter().map(|b| Packet { bytes: b, ..*p }).collect();
            small.batch(&noise, &mut events);
        });
        let end = packets.last().map_or(Nanos(0), |p| p.ts);
        small.finish(end.add(400 * Nanos::SEC), &mut events);
        for e in &events {
            if let syntap::pipeline::What::Anomaly(a) = &e.what {
                let noise = a.tuple.is_some_and(|t| t.src.port == 4_200);
                let known = ["synack_unacknowledged", "half_closed_stuck", "seen_twice"];
                prop_assert!(noise || known.contains(&a.kind.name()), "{a:?}");
            }
        }
    }

    /// Too small a table, recorder and pool of whole flows lose things, and break nothing.
    #[test]
    fn with_hardly_any_room_nothing_breaks(connections in connections()) {
        let wire = wire_of(&connections);
        let packets = packets(&wire);
        let mut small = Worker::new(&WorkerConfig { max_flows: 16, recorder: 1, wholes: 1, seed: Seed::FIXED, ..WorkerConfig::default() });
        let mut events: Vec<Event> = Vec::new();
        for (n, p) in packets.iter().enumerate() {
            let others: Vec<_> = (0..20).map(|k| frame(n as u32, 100 + k, false, true, usize::from(k) % 11, Fate::Comes)).collect();
            let others: Vec<_> = others.iter().map(|bytes| Packet { bytes, ..*p }).collect();
            small.batch(&[&[*p][..], &others].concat(), &mut events);
            prop_assert!(small.counters().live <= 16);
        }
        let end = packets.last().map_or(Nanos(0), |p| p.ts);
        small.finish(end.add(8_000 * Nanos::SEC), &mut events);
        let c = small.counters();
        prop_assert_eq!(c.packets, packets.len() as u64 * 21);
        prop_assert!(c.live == 0 && (packets.is_empty() || c.evicted >= c.evicted_early));
    }

    /// The quick decoder says what the other one says, or nothing.
    #[test]
    fn the_common_packet_is_read_alike(
        n in 0usize..11, ts: bool, at in 0usize..90, value: u8, cut in 0usize..200, tag: bool,
    ) {
        let mut bytes = frame(3, 9, false, ts, n, Fate::Comes);
        if tag {
            bytes.splice(12..12, [0x81, 0, 0x20, 7]);
        }
        if let Some(b) = bytes.get_mut(at) {
            *b = value;
        }
        let wire_len = bytes.len() as u32;
        bytes.truncate(cut);
        let slow = decode(LinkType::Ethernet, &bytes, wire_len, OffloadedVlan::default());
        let left = Digest { mss: 7, has_ts: true, tsval: 9, ip_id: 3, vlan: 5, ..Digest::default() };
        let mut b = Brief { digest: left, ..Brief::default() };
        if brief(LinkType::Ethernet, &bytes, OffloadedVlan::default(), &mut b) {
            let syntap::wire::Body::Tcp(mut seg) = slow.body else {
                return Err(TestCaseError::fail(format!("{b:?} of {slow:?}")));
            };
            prop_assert!(seg.options.nop_row < 4 && !seg.options.broken);
            (seg.text, seg.text_len, seg.options.nop_row) = ([0; 32], 0, 0);
            let slow_vlan = slow.vlans.id().map_or(0, |v| v + 1);
            prop_assert_eq!(b.segment(), seg);
            let d = &b.digest;
            prop_assert_eq!((d.src_mac, d.dst_mac, d.vlan), (slow.src_mac, slow.dst_mac, slow_vlan));
            prop_assert!(b.six || brief_ends(LinkType::Ethernet, &bytes, OffloadedVlan::default()).is_some());
        }
        if let Some((four, ports)) = brief_ends(LinkType::Ethernet, &bytes, OffloadedVlan::default()) {
            let syntap::wire::Body::Tcp(seg) = slow.body else {
                return Err(TestCaseError::fail(format!("{four:x} {ports:x} of {slow:?}")));
            };
            let b = Brief { four, ports, ..Brief::default() };
            prop_assert_eq!((b.addresses(), b.sport(), b.dport()), ([seg.src, seg.dst], seg.sport, seg.dport));
        }
    }
}

#[test]
fn a_faultless_connection_is_never_whole_and_is_told_as_one() {
    let life = LIFE.map(|_| (1_000, Fate::Comes)).to_vec();
    let wire = wire_of(&[(1, false, true, life)]);
    let packets = packets(&wire);
    assert!(packets.iter().all(|p| brief(p.link, p.bytes, p.vlan, &mut Brief::default())));
    let [lines, wholes] = both(&packets, packets.last().unwrap().ts.add(500 * Nanos::SEC), 0);
    assert_eq!(lines, wholes);
    assert_eq!(lines.len(), 6, "SYN, SYN-ACK, answered, completed, over, counters: {lines:#?}");
}

#[test]
fn ipv4_addresses_in_ipv6_headers_are_a_flow_of_their_own() {
    let life = LIFE.map(|_| (1_000, Fate::Comes)).to_vec();
    let mut wire = wire_of(&[(1, false, true, life)]);
    for (_, bytes) in &mut wire {
        let mapped = |at: usize| [[0; 10].as_slice(), &[0xff; 2], &bytes[at..at + 4]].concat();
        let length = u16::from_be_bytes([bytes[16], bytes[17]]) - 20;
        let head = [[0x86, 0xdd, 0x60, 0, 0, 0].as_slice(), &length.to_be_bytes(), &[6, 64]].concat();
        *bytes = [&bytes[..12], &head, &mapped(26), &mapped(30), &bytes[34..]].concat();
    }
    let packets = packets(&wire);
    assert!(packets.iter().all(|p| brief(p.link, p.bytes, p.vlan, &mut Brief::default())));
    let [lines, wholes] = both(&packets, packets.last().unwrap().ts.add(500 * Nanos::SEC), 0);
    assert_eq!(lines, wholes);
    assert!(lines[0].contains("10.0.0.1"), "{}", lines[0]);
}
