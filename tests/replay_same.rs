//! A replay says the same, byte for byte, at any number of workers and any size of batch.

mod common;

use std::path::Path;

use common::corpus;
use common::packet::pcap;
use proptest::prelude::*;
use syntap::capture::{CaptureFile, Point, PortSet, ReplaySource};
use syntap::flow::Seed;
use syntap::pipeline::{Desk, RecordSink, Rounds, WorkerConfig};
use syntap::record::{ConnectionRecord, Context, Interface, Record};
use syntap::wire::Nanos;

#[derive(Default)]
struct Lines(Vec<String>);

impl RecordSink for Lines {
    fn record(&mut self, record: &Record) -> std::io::Result<()> {
        self.0.push(serde_json::to_string(record)?);
        Ok(())
    }

    fn connection(&mut self, connection: &ConnectionRecord) -> std::io::Result<()> {
        self.0.push(serde_json::to_string(connection)?);
        Ok(())
    }
}

fn replay(path: &Path, workers: usize, batch: usize) -> Vec<String> {
    let file = CaptureFile::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let interface = Interface { name: "one".into(), role: None };
    let context = Context { host: "here".into(), interfaces: vec![interface], clock_offset_ns: None };
    let config = WorkerConfig {
        max_flows: 16_384,
        recorder: 65_536,
        seed: Seed::FIXED,
        ports: PortSet::all(),
        lives: true,
        ..WorkerConfig::default()
    };
    let mut desk = Desk::new(context, Lines::default());
    let mut source = ReplaySource::new(vec![(Point(0), 1, file)]);
    Rounds::new(&config, workers, batch).run(&mut source, &mut desk).expect("a list takes everything");
    desk.finish().expect("a list takes everything").0.0
}

/// Asserts that all ways to share the work give what one worker gives packet by packet.
fn same(path: &Path) -> usize {
    let one = replay(path, 1, 1);
    for (workers, batch) in [(1, 64), (2, 64), (3, 7), (8, 1_000)] {
        let other = replay(path, workers, batch);
        let name = path.display();
        assert_eq!(one.len(), other.len(), "{name} with {workers} workers and batches of {batch}");
        for (a, b) in one.iter().zip(&other) {
            assert_eq!(a, b, "{name} with {workers} workers and batches of {batch}");
        }
    }
    one.len()
}

#[test]
fn real_captures_give_the_same_records_and_connections_however_the_work_is_shared() {
    let story = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/time-wait-reuse.pcap");
    assert!(same(&story) > 0);
    let names = [
        "lab/time_wait_reuse-outside.pcap",
        "lab/benign_odd-inside.pcap",
        "lab/lossy-outside.pcap",
        "lab/arp_duel-inside.pcap",
        // Recordings of different times, one behind the other.
        "arkime__arkime_synthetic.pcap",
        // Packets that overtook each other.
        "tcptrace__hardware_dups.pcap",
        "ppa2__gnutella.pcap",
    ];
    for name in names {
        let Some(path) = corpus(name) else { return };
        assert!(same(&path) > 0, "{name}");
    }
}

#[test]
fn a_recording_that_begins_where_a_round_ends_is_another_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("two.pcap");
    let times = [100, 101, 102, 50, 51].map(|s| (s * 1_000_000, vec![0; 60]));
    std::fs::write(&path, pcap(&times)).expect("written");
    let file = CaptureFile::open(&path).expect("a capture");
    let mut source = ReplaySource::new(vec![(Point(0), 1, file)]);
    let mut round = || {
        let mut times = Vec::new();
        source.round(3, Nanos(u64::MAX), |p| times.push(p.now.0 / Nanos::SEC));
        (times, source.new_recording())
    };
    let rounds = [round(), round(), round(), round()];
    let expected = [(vec![100, 101, 102], false), (vec![], true), (vec![50, 51], false), (vec![], false)];
    assert_eq!(rounds, expected);
}

/// One packet among few tuples: time step, tuple, direction, flags, numbers close to each other.
fn packets() -> impl Strategy<Value = Vec<(i64, u8, bool, u8, u8, u8, u8)>> {
    let step = prop_oneof![
        4 => 0i64..2_000,
        2 => 2_000i64..400_000_000,
        2 => 400_000_000i64..20_000_000_000,
        1 => -50_000_000i64..0,
        1 => -100_000_000_000i64..-20_000_000_000,
    ];
    let flags = prop_oneof![
        Just(0x02u8),
        Just(0x12),
        Just(0x10),
        Just(0x11),
        Just(0x04),
        Just(0x14),
        Just(0x18),
        any::<u8>()
    ];
    proptest::collection::vec((step, 0u8..40, any::<bool>(), flags, 0u8..4, 0u8..4, 0u8..3), 1..250)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_conversation_gives_the_same_however_the_work_is_shared(conversation in packets()) {
        let mut ts = 1_700_000_000_000_000_000i64;
        let mut out = Vec::new();
        for (step, tuple, back, flags, seq, ack, payload) in conversation {
            ts += step;
            let (client, server) = ([10, 0, 0, tuple], [192, 0, 2, tuple % 3]);
            let near = |n: u8| 0xffff_fffeu32.wrapping_add(u32::from(n));
            let tcp = common::packet::Tcp {
                src: if back { (server.into(), 80) } else { (client.into(), 4_000) },
                dst: if back { (client.into(), 4_000) } else { (server.into(), 80) },
                flags,
                seq: near(seq),
                ack: if flags & 0x10 != 0 { near(ack) } else { 0 },
                win: 500,
                options: vec![],
                payload: usize::from(payload) * 5,
                ttl: 64,
                id: 0,
            };
            out.push((ts as u64 / 1_000, tcp.frame()));
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("any.pcap");
        std::fs::write(&path, pcap(&out)).expect("written");
        same(&path);
    }
}
