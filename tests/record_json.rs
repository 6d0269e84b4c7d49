//! The line of a record is what serde_json makes of its fields, byte for byte.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use common::anomalies::{Night, context};
use common::{corpus, root};
use proptest::prelude::*;
use serde_json::{Map, Value};
use syntap::capture::{CaptureFile, Point, PortSet, ReplaySource};
use syntap::flow::Seed;
use syntap::pipeline::{Desk, RecordSink, Rounds, WorkerConfig};
use syntap::record::{Context, Interface, Loss, Nat, PacketRecord, Record, TunnelRecord};

fn same(record: &Record) -> usize {
    let mut line = b"before".to_vec();
    record.write_line(&mut line);
    let line = String::from_utf8(line.split_off(6)).expect("text");
    assert_eq!(line, serde_json::to_string(record).expect("JSON") + "\n");
    serde_json::from_str::<Record>(&line).expect("a record");
    line.len()
}

#[derive(Default)]
struct Compared(usize);

impl RecordSink for Compared {
    fn record(&mut self, record: &Record) -> std::io::Result<()> {
        same(record);
        self.0 += 1;
        Ok(())
    }
}

/// Records of a replay that were compared.
fn replayed(path: &Path) -> usize {
    let Ok(file) = CaptureFile::open(path) else { return 0 };
    let interface = Interface { name: "a \"tap\"".into(), role: Some("inside".into()) };
    let context = Context { host: "here\\".into(), interfaces: vec![interface], clock_offset_ns: Some(1) };
    let config = WorkerConfig {
        max_flows: 16_384,
        recorder: 65_536,
        seed: Seed::FIXED,
        ports: PortSet::all(),
        ..WorkerConfig::default()
    };
    let mut desk = Desk::new(context, Compared::default());
    let mut source = ReplaySource::new(vec![(Point(0), 1, file)]);
    Rounds::new(&config, 1, 64).run(&mut source, &mut desk).expect("all is taken");
    desk.finish().expect("all is taken").0.0
}

fn captures(dir: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "pcap" || e == "pcapng"));
    paths.sort();
    paths
}

#[test]
fn of_all_captures_here() {
    let records: usize = captures(root().join("tests/captures")).iter().map(|p| replayed(p)).sum();
    assert!(records >= 13, "{records}");
}

#[test]
fn of_all_captures_of_others() {
    let Some(dir) = corpus("lab") else { return };
    let lab: usize = captures(dir).iter().map(|p| replayed(p)).sum();
    assert!(lab >= 500, "{lab}");
    let others: usize = corpus("").map_or(0, |dir| captures(dir).iter().map(|p| replayed(p)).sum());
    assert!(others >= 100, "{others}");
}

#[test]
fn of_a_bad_night() {
    let (mut night, context) = (Night::new(1), context());
    for (make, most) in
        [(Night::unanswered as fn(&mut Night) -> _, 2_000), (Night::reset, 4_000), (Night::refused, 8_000)]
    {
        for _ in 0..200 {
            let record = Record::from_anomaly(&make(&mut night), &context, None);
            let len = same(&record);
            assert!(len < most, "{len}");
        }
    }
}

/// Text with what must be escaped, and with what looks like it.
fn text() -> impl Strategy<Value = String> {
    let odd = prop_oneof![
        Just('"'),
        Just('\\'),
        Just('/'),
        Just('\u{7f}'),
        Just('\u{2028}'),
        Just('\u{fffd}'),
        (0u32..0x20).prop_map(|c| char::from_u32(c).expect("a control character")),
        any::<char>(),
    ];
    prop_oneof!["[ -~]{0,40}", proptest::collection::vec(odd, 0..30).prop_map(|c| c.into_iter().collect())]
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|b| Ipv4Addr::from(b).into()),
        any::<u128>().prop_map(|b| Ipv6Addr::from(b).into()),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Ipv6Addr::new(0xfe80, 0, 0, 0, a & 1, 0, 0, b).into()),
        any::<u32>().prop_map(|b| Ipv4Addr::from(b).to_ipv6_mapped().into()),
    ]
}

/// Numbers of all lengths.
fn long() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(n, bits)| n >> bits)
}

fn word() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0..32u32).prop_map(|(n, bits)| n >> bits)
}

fn maybe<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    proptest::option::of(of)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        long().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0u32..10_000_000).prop_map(|n| Value::from(f64::from(n) / 1e3)),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((text(), inner), 0..4)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

prop_compose! {
    fn packet()(
        (ts_ns, interface, direction, from) in (long(), text(), maybe(text()), text()),
        (src_mac, dst_mac, flags) in (maybe(text()), maybe(text()), text()),
        (seq, ack, win, len) in (word(), word(), any::<u16>(), word()),
        (ttl, ip_id, tsval, tsecr) in (any::<u8>(), any::<u16>(), maybe(word()), maybe(word())),
        (mss, wscale) in (maybe(any::<u16>()), maybe(any::<u8>())),
        tuple in maybe((ip(), any::<u16>(), ip(), any::<u16>())),
    ) -> PacketRecord {
        PacketRecord {
            ts_ns, interface, direction: direction.map(Into::into), from: from.into(),
            src_mac, dst_mac, flags: flags.into(),
            seq, ack, win, len, ttl, ip_id, tsval, tsecr, mss, wscale,
            tuple: tuple.map(|(src_ip, src_port, dst_ip, dst_port)| Nat { src_ip, src_port, dst_ip, dst_port }),
        }
    }
}

prop_compose! {
    fn record()(
        (kind, severity, verdict, certainty) in (text(), text(), text(), text()),
        (summary, time, ts_ns, first_ns, last_ns) in (text(), text(), long(), long(), long()),
        (mono_ns, count, host) in (maybe(long()), long(), text()),
        (interface, role, direction) in (maybe(text()), maybe(text()), maybe(text())),
        (src_ip, src_port, dst_ip, dst_port) in (maybe(ip()), maybe(any::<u16>()), maybe(ip()), maybe(any::<u16>())),
        (vlan, community_id) in (maybe(any::<u16>()), maybe(text())),
        tunnel in maybe((text(), word(), ip(), ip())),
        nat in maybe((ip(), any::<u16>(), ip(), any::<u16>())),
        (history, conn_state) in (maybe(text()), maybe(text())),
        facts in proptest::collection::vec((text(), value()), 0..5),
        packets in proptest::collection::vec(packet(), 0..5),
        loss in maybe((long(), long())),
    ) -> Record {
        Record {
            kind: kind.into(), severity: severity.into(), verdict: verdict.into(), certainty: certainty.into(),
            summary, time, ts_ns, first_ns, last_ns, mono_ns, count, host,
            interface, role, direction: direction.map(Into::into),
            src_ip, src_port, dst_ip, dst_port, vlan,
            tunnel: tunnel.map(|(kind, id, src_ip, dst_ip)| TunnelRecord { kind, id, src_ip, dst_ip }),
            community_id,
            nat: nat.map(|(src_ip, src_port, dst_ip, dst_port)| Nat { src_ip, src_port, dst_ip, dst_port }),
            history, conn_state: conn_state.map(Into::into),
            facts: facts.into_iter().collect(), packets,
            loss: loss.map(|(drops, misses)| Loss { drops, misses }),
        }
    }
}

proptest! {
    #[test]
    fn of_any_strings_and_numbers(record in record()) {
        let mut line = Vec::new();
        record.write_line(&mut line);
        let expected = serde_json::to_string(&record).expect("JSON") + "\n";
        prop_assert_eq!(String::from_utf8(line).expect("text"), expected);
    }
}
