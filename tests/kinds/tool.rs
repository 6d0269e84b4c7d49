//! What the tool says of its own view and losses.

use super::*;

#[test]
fn a_view_of_one_direction_says_so() {
    let Some(all) = found("zeek__ssh.client-side-half-duplex.pcap") else { return };
    let r = only(&all, "one_sided_view");
    judged(r, "info", "unknown", "proven");
    says(r, json!({"one_way": 10, "both_ways": 0}));
    assert_eq!(all.len(), 1, "and of missing answers nothing: {all:#?}");
}

mod rings {
    use std::io;

    use syntap::capture::{Packet, Point, Polled, PortSet, Source, SourceError};
    use syntap::detect::Anomaly;
    use syntap::flow::Seed;
    use syntap::pipeline::{Desk, Pipeline, Plan, RecordSink, Ticking, WorkerConfig};
    use syntap::record::{Context, Record};
    use syntap::wire::Nanos;

    use super::*;

    /// Gives what it holds, once.
    struct Ring(Vec<(u64, Vec<u8>)>);

    impl Source for Ring {
        fn poll(&mut self, _wait: u32, each: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
            let packets: Vec<Packet<'_>> = self
                .0
                .iter()
                .map(|(us, bytes)| Packet {
                    ts: Nanos(us * 1_000),
                    now: Nanos(us * 1_000),
                    point: Point(0),
                    wire_len: bytes.len() as u32,
                    bytes,
                    ..Packet::NONE
                })
                .collect();
            if packets.is_empty() {
                return Ok(Polled::End);
            }
            for batch in packets.chunks(syntap::capture::BATCH) {
                each(batch);
            }
            let n = packets.len();
            self.0.clear();
            Ok(Polled::Packets(n))
        }
    }

    struct Sink(Arc<Mutex<Vec<Value>>>);

    impl RecordSink for Sink {
        fn record(&mut self, record: &Record) -> io::Result<()> {
            self.0.lock().unwrap().push(serde_json::to_value(record).expect("it is JSON"));
            Ok(())
        }
    }

    impl Ticking for Sink {
        fn tick(&mut self) -> io::Result<Option<Anomaly>> {
            Ok(None)
        }
    }

    /// What a live run finds whose packets come over these rings.
    pub fn run(rings: Vec<Vec<(u64, Vec<u8>)>>) -> Vec<Value> {
        let records = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink(records.clone());
        let sources = rings.into_iter().map(|r| Box::new(Ring(r)) as Box<dyn Source + Send>).collect();
        let plan = Plan {
            worker: WorkerConfig {
                max_flows: 4_096,
                recorder: 4_096,
                seed: Seed::FIXED,
                ports: PortSet::all(),
                lives: false,
                ..WorkerConfig::default()
            },
            cpus: &[],
            clock: Arc::new(|| Nanos(2_000_000_000_000_000_000)),
            copies: None,
            conntrack: None,
            link: None,
            hand_over: Default::default(),
        };
        let desk = move || Ok(Desk::new(Context::default(), sink));
        let mut pipeline = Pipeline::start(sources, desk, plan).expect("it starts");
        let _ = pipeline.drain(&mut Default::default());
        pipeline.finish().written.expect("it ends");
        std::mem::take(&mut *records.lock().unwrap())
    }
}

/// Handshakes: client's packets and server's packets apart.
fn two_directions(count: u16) -> [Vec<(u64, Vec<u8>)>; 2] {
    let mut out = [Vec::new(), Vec::new()];
    for n in 0..count {
        let mut t = Talk::new(20_000 + n);
        let at = 1_700_000_000_000_000 + u64::from(n) * 1_000;
        out[0].push((at, t.client(SYN, 0).frame()));
        out[1].push((at + 100, t.server(SYN | ACK, 0).frame()));
        out[0].push((at + 200, t.client(ACK, 0).frame()));
    }
    out
}

#[test]
fn two_directions_on_two_rings_are_an_asymmetric_hash() {
    let [client, server] = two_directions(50);
    let all = rings::run(vec![client, server]);
    let r = only(&all, "asymmetric_hash");
    judged(r, "warning", "unknown", "proven");
    says(r, json!({"split": 10, "whole": 0, "rings": [0, 1]}));
    // Each flow on one ring: nothing.
    let [mut one, server] = two_directions(50);
    one.extend(server);
    one.sort_by_key(|p| p.0);
    let all = rings::run(vec![one, Vec::new()]);
    assert!(of_kind(&all, "asymmetric_hash").is_empty(), "{all:#?}");
}

#[test]
fn what_the_tool_lost_or_shed_is_told_with_its_cause_and_time() {
    use syntap::detect::tool::{Gap, Shed, Unit, budget_shed, capture_gap};
    use syntap::record::{Context, Record};
    use syntap::wire::Nanos;
    let record =
        |a| serde_json::to_value(Record::from_anomaly(&a, &Context::default(), None)).expect("it is JSON");
    let (first, last) = (Nanos(5_000_000_000), Nanos(6_000_000_000));
    let gap = Gap { cause: "ring_full", source: "ring 0", first, last, count: Some(7), unit: Unit::Packets };
    let r = record(capture_gap(&gap));
    judged(&r, "warning", "unknown", "proven");
    says(&r, json!({"cause": "ring_full", "source": "ring 0", "count": 7}));
    assert_eq!((&r["first_ns"], &r["last_ns"]), (&json!(first.0), &json!(last.0)));
    let shed = Shed {
        kept: Some(0.25),
        packets: [800, 50, 40, 7, 3],
        hard: 3,
        known: 2,
        budget_pps: 1_000,
        budget_share: Some(250_000),
        first,
        last,
        ..Shed::default()
    };
    let r = record(budget_shed(&shed));
    judged(&r, "warning", "unknown", "proven");
    says(
        &r,
        json!({"threshold": 0.25, "tuples": null, "packets": 900, "packets_of_broken_tuples": 3,
            "threshold_known": null, "packets_of_known_tuples": 2, "syn": 800, "control": 50, "watch": 40,
            "neighbour": 7, "icmp": 3, "budget_pps": 1000, "budget_share": 0.25}),
    );
}
