//! What reads records and captures: reports, filters, streams, captures with several interfaces.

mod common;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use common::packet::{ACK, RST, SYN, Tcp, pcap};
use common::{json_lines, root, run, syntap};
use serde_json::Value;
use syntap::capture::MirrorWriter;
use syntap::detect::tool::{Gap, Shed, Unit, budget_shed, capture_gap};
use syntap::record::{Context, Record, ShardOptions, ShardWriter};
use syntap::wire::Nanos;

const STORY: &str = "tests/captures/time-wait-reuse.pcap";

fn text(out: &[u8]) -> String {
    String::from_utf8(out.to_vec()).expect("text")
}

fn fails(command: &mut Command) -> String {
    let out = command.output().expect("it starts");
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{command:?}: {said}");
    said
}

fn report(dir: &Path) -> String {
    text(&run(syntap().arg("report").arg(dir)).stdout)
}

fn shards(dir: &Path, records: &[Record]) {
    let mut w = ShardWriter::create(dir, "host", ShardOptions::default()).expect("created");
    w.begin_first().expect("begun");
    records.iter().for_each(|r| w.push(r).expect("taken"));
    w.close().expect("closed");
}

/// A SYN and its refusal.
fn refused(port: u16) -> [Vec<u8>; 2] {
    let (client, server) = (([192, 0, 2, 1].into(), 4000), ([192, 0, 2, 2].into(), port));
    let tcp = |src, dst, flags, seq, ack| {
        let (win, options, payload, ttl, id) = (1000, vec![], 0, 64, 1);
        Tcp { src, dst, flags, seq, ack, win, options, payload, ttl, id }.frame()
    };
    [tcp(client, server, SYN, 7, 0), tcp(server, client, RST | ACK, 0, 8)]
}

#[test]
fn a_report_tells_a_healthy_run_from_nothing_at_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = fails(syntap().arg("report").arg(dir.path()));
    assert!(said.starts_with(&format!("syntap: no shards in {}\nhint: ", dir.path().display())), "{said}");
    assert_eq!(said, fails(syntap().arg("show").arg(dir.path())), "show says the same");
    shards(dir.path(), &[]);
    let said = report(dir.path());
    let year = jiff::Timestamp::now().strftime("%Y-").to_string();
    assert!(said.contains("nothing that these rules know went wrong; recording began at"), "{said}");
    assert!(said.contains(&year), "{said}");
    assert!(text(&run(syntap().args(["show", "--json"]).arg(dir.path())).stdout).is_empty());
}

#[test]
fn a_report_says_first_what_was_not_seen_and_sums_it_up() {
    let gap = |cause, source, first, last, count| {
        let unit = if cause == "disk_full" { Unit::Records } else { Unit::Packets };
        let (first, last) = (Nanos(first * Nanos::SEC), Nanos(last * Nanos::SEC));
        let a = capture_gap(&Gap { cause, source, first, last, count, unit });
        Record::from_anomaly(&a, &Context::default(), None)
    };
    let (first, last) = (Nanos(Nanos::SEC), Nanos(2 * Nanos::SEC));
    let shed = Shed { kept: Some(0.25), packets: [1, 0, 0, 0, 0], first, last, ..Shed::default() };
    let shed = Record::from_anomaly(&budget_shed(&shed), &Context::default(), None);
    let dir = tempfile::tempdir().expect("a directory");
    shards(
        dir.path(),
        &[
            gap("ring_full", "eth0 queue 0", 10, 11, Some(5)),
            gap("ring_full", "eth0 queue 0", 70, 71, Some(7)),
            gap("ring_full", "eth0 queue 1", 70, 71, Some(1)),
            gap("interface_gone", "eth1", 20, 30, None),
            shed,
        ],
    );
    let said = report(dir.path());
    for line in [
        "5 records, 1970-01-01T00:00:01Z to 1970-01-01T00:01:11Z;",
        "12 packets lost at eth0 queue 0 (ring_full), 2 times, 1970-01-01T00:00:10Z to 1970-01-01T00:01:11Z",
        "1 packet lost at eth0 queue 1 (ring_full), once, 1970-01-01T00:01:10Z",
        "eth1 was gone (interface_gone), once, 1970-01-01T00:00:20Z to 1970-01-01T00:00:30Z",
        "1 packet shed to stay within the budget, once",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let lost = said.find("did not see everything").expect("said");
    let hurt = said.find("no connection was hurt").expect("said");
    assert!(lost < hurt, "{said}");
    assert!(!said.contains("lost and shed nothing"), "{said}");
}

#[test]
fn one_record_is_not_1_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let gap = Gap {
        cause: "ring_full",
        source: "r",
        first: Nanos(1),
        last: Nanos(2),
        count: Some(1),
        unit: Unit::Packets,
    };
    shards(dir.path(), &[Record::from_anomaly(&capture_gap(&gap), &Context::default(), None)]);
    let said = report(dir.path());
    assert!(said.starts_with("1 record, "), "{said}");
    let said = text(&run(syntap().arg("show").arg(dir.path())).stdout);
    assert!(said.contains("1 packet was lost at r"), "{said}");
}

#[test]
fn an_odd_entry_of_a_directory_hides_nothing_else_and_is_no_success() {
    let dir = tempfile::tempdir().expect("a directory");
    run(syntap().args(["replay", "-w"]).arg(dir.path()).arg(root().join(STORY)));
    std::fs::create_dir(dir.path().join("syntap-a-odd.jsonl.zst")).expect("made");
    std::os::unix::fs::symlink("/dev/null", dir.path().join("syntap-b-odd.jsonl.zst")).expect("made");
    for command in ["show", "report"] {
        let out = syntap().arg(command).arg(dir.path()).output().expect("it starts");
        assert_eq!(out.status.code(), Some(2), "{command}");
        assert!(text(&out.stdout).contains("tuple_reuse_refused"), "{command}");
        let said = text(&out.stderr);
        assert!(
            said.contains("cannot read") && said.contains("this is no file"),
            "{command} says what is odd"
        );
    }
}

#[test]
fn a_full_standard_output_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    run(syntap().args(["replay", "-w"]).arg(dir.path()).arg(root().join(STORY)));
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("there is one"));
    let capture = root().join(STORY);
    for args in [
        vec!["show".into(), dir.path().to_owned()],
        vec!["report".into(), dir.path().to_owned()],
        vec!["explain".into()],
        vec!["replay".into(), "--json".into(), capture],
    ] {
        let said = fails(syntap().args(&args).stdout(full()));
        assert!(said.contains("cannot write to standard output: No space left"), "{args:?}: {said}");
    }
}

#[test]
fn filters_of_a_replay_choose_what_is_printed_and_written_or_are_refused() {
    let capture = root().join(STORY);
    let said = fails(syntap().args(["replay", "--kind", "syn_refused"]).arg(&capture));
    assert!(said.contains("--kind chooses nothing") && said.contains("\nhint: add --json"), "{said}");
    let said = fails(syntap().args(["replay", "--connections", "--severity", "error"]).arg(&capture));
    assert!(said.contains("--severity is about anomalies"), "{said}");

    let dir = tempfile::tempdir().expect("a directory");
    run(syntap().args(["replay", "--kind", "syn_refused", "-w"]).arg(dir.path()).arg(&capture));
    assert!(json_lines(&run(syntap().args(["show", "--json"]).arg(dir.path()))).is_empty());
    // That nothing of it is there does not mean that nothing was.
    let report = run(syntap().arg("report").arg(dir.path()));
    let report = text(&report.stdout);
    assert!(report.contains("Recorded with filters (--kind syn_refused)"), "{report}");
    assert!(!report.contains("lost and shed nothing"), "{report}");

    let connections =
        |args: &[&str]| json_lines(&run(syntap().args(["replay", "--connections"]).args(args).arg(&capture)));
    let all = connections(&[]);
    assert!(all.len() > 1, "{all:?}");
    assert!(connections(&["--tuple", "203.0.113.9"]).is_empty());
    assert_eq!(connections(&["--tuple", "192.0.2.10:30001"]).len(), all.len());
    let first = all.iter().map(|c| c["last_ns"].as_u64().expect("ns")).min().expect("one");
    let after = jiff::Timestamp::from_nanosecond(i128::from(first) + 1).expect("a time").to_string();
    let late = connections(&["--since", &after]);
    assert!(!late.is_empty() && late.len() < all.len(), "{late:?}");
    assert!(connections(&["--until", "2001-01-01"]).is_empty());
}

#[test]
fn a_time_that_makes_no_sense_is_refused_with_what_does() {
    let said = fails(syntap().args(["show", "--since", "yesterdayish", "."]));
    assert!(said.contains("--since") && said.contains("\nhint: write 2026-11-24"), "{said}");
    let dir = tempfile::tempdir().expect("a directory");
    run(syntap().args(["replay", "-w"]).arg(dir.path()).arg(root().join(STORY)));
    let shown =
        |args: &[&str]| json_lines(&run(syntap().args(["show", "--json"]).args(args).arg(dir.path()))).len();
    assert!(shown(&["--since", "2017-04-13"]) > 0);
    assert!(shown(&["--until", "10m"]) > 0, "the capture is older than ten minutes");
    assert_eq!(shown(&["--since", "10m"]), 0);
}

#[test]
fn a_capture_can_come_from_standard_input() {
    let capture = root().join(STORY);
    let plain = run(syntap().args(["replay", "--json"]).arg(format!("x={}", capture.display())));
    let streamed =
        run(syntap().args(["replay", "--json", "x=-"]).stdin(File::open(&capture).expect("opened")));
    assert_eq!(text(&plain.stdout), text(&streamed.stdout));
    // A pipe, as from tcpdump.
    let mut cat = Command::new("cat").arg(&capture).stdout(Stdio::piped()).spawn().expect("cat");
    let pipe = cat.stdout.take().expect("piped");
    let streamed = run(syntap().args(["replay", "--json", "x=-"]).stdin(pipe));
    cat.wait().expect("a child");
    assert_eq!(text(&plain.stdout), text(&streamed.stdout));
    let said = fails(syntap().args(["replay", "-"]).stdin(Stdio::null()));
    assert!(said.contains("cannot read standard input: it is too short"), "{said}");
}

/// A pcapng with interfaces of these names, one refused connection at each; of another program unless `ours`.
fn several(names: &[Option<&str>], ours: bool) -> Vec<u8> {
    let own: Vec<_> = names.iter().map(|n| (n.unwrap_or(""), None)).collect();
    let mut w = MirrorWriter::new(Vec::new(), &own).expect("written");
    for n in 0..names.len() {
        for (i, frame) in refused(5000 + n as u16).iter().enumerate() {
            let at = Nanos(Nanos::SEC * (1 + n as u64) + i as u64);
            let p = syntap::capture::Packet {
                ts: at,
                now: at,
                point: syntap::capture::Point(n as u8),
                wire_len: frame.len() as u32,
                bytes: frame,
                ..syntap::capture::Packet::NONE
            };
            w.write(&p).expect("written");
        }
    }
    let mut bytes = w.get_ref().clone();
    if !ours {
        let at = bytes.windows(7).position(|b| b == b"syntap ").expect("its mark");
        bytes[at..at + 6].copy_from_slice(b"dumper");
    }
    bytes
}

#[test]
fn interfaces_of_a_foreign_capture_are_tap_points_by_their_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("two.pcapng");
    let places = |arg: String| -> Vec<(Value, Value)> {
        let records = json_lines(&run(syntap().args(["replay", "--json", &arg])));
        records.into_iter().map(|r| (r["interface"].clone(), r["role"].clone())).collect()
    };
    let place = |name: &str, role: Option<&str>| (Value::from(name), role.map_or(Value::Null, Value::from));
    std::fs::write(&file, several(&[Some("eth0"), None], false)).expect("written");
    assert_eq!(places(file.display().to_string()), [place("eth0", None), place("two-1", None)]);
    let named = format!("gw:inside={}", file.display());
    assert_eq!(places(named), [place("eth0", Some("inside")), place("gw-1", Some("inside"))]);
    // One interface is the file, as ever.
    std::fs::write(&file, several(&[Some("eth0")], false)).expect("written");
    assert_eq!(places(file.display().to_string()), [place("two", None)]);
    // More than there is room for are one again.
    std::fs::write(&file, several(&[Some("a"); 17], false)).expect("written");
    assert!(places(file.display().to_string()).iter().all(|p| *p == place("two", None)));
}

#[test]
fn names_for_a_capture_of_syntaps_own_are_refused_politely() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("own.pcapng");
    std::fs::write(&file, several(&[Some("eth0"), Some("eth1")], true)).expect("written");
    let out = run(syntap().args(["replay", "--json"]).arg(format!("gw:inside={}", file.display())));
    assert!(json_lines(&out).iter().all(|r| r["interface"] != "gw" && r["role"].is_null()));
    assert!(
        text(&out.stderr).contains("its own names and roles are used, not 'gw'"),
        "{}",
        text(&out.stderr)
    );
    let out = run(syntap().arg("replay").arg(&file));
    assert!(!text(&out.stderr).contains("its own names"), "nothing was typed");
    // A plain pcap has no names of its own.
    let plain = dir.path().join("plain.pcap");
    let [syn, rst] = refused(80);
    std::fs::write(&plain, pcap(&[(1, syn), (2, rst)])).expect("written");
    run(syntap().arg("replay").arg(format!("gw:inside={}", plain.display())));
}
