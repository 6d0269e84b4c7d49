//! The mirror is a mirror: whoever talks through a tapped gateway sees no difference.

mod common;

use common::{is_root, json_lines, lab, of_kind, replay, run, syntap};
use serde_json::Value;

const SYNTAP: &str = env!("CARGO_BIN_EXE_syntap");

fn path(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).to_str().expect("a path").to_owned()
}

fn int(v: &Value) -> i64 {
    v.as_i64().unwrap_or_else(|| panic!("not a number: {v}"))
}

fn clean(v: &Value, connections: i64) {
    assert_eq!(int(&v["ok"]), connections, "{v}");
    assert_eq!((int(&v["wrong"]), int(&v["errors"])), (0, 0), "{v}");
}

#[test]
fn root_a_tapped_gateway_forwards_every_byte_without_a_reset_or_a_retransmission_more() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let truth = lab(&["mirror", SYNTAP, &path(&dir, "records"), "100", "5000"]);
    for run in ["untapped", "tapped"] {
        let t = &truth[run];
        assert_eq!(int(&t["bulk"]["bytes"]), 100 << 20, "{run}");
        assert_eq!(int(&t["bulk"]["wrong_blocks"]), 0, "{run}");
        clean(&t["short"], 5000);
        for part in ["bulk", "short"] {
            assert_eq!(int(&t[part]["OutRsts"]), 0, "{run}: {t}");
            assert_eq!(int(&t[part]["EstabResets"]), 0, "{run}: {t}");
        }
    }
    // The ends retransmit only what is really lost: the lab sees to that, and loses nothing itself.
    for part in ["bulk", "short"] {
        let retransmitted = |run: &str| int(&truth[run][part]["RetransSegs"]);
        assert!(retransmitted("tapped") <= retransmitted("untapped"), "{part}: {truth}");
    }
    assert_eq!(int(&truth["exit"]), 0, "{truth}");
    assert_eq!(truth["before"], truth["after"], "nothing of the tap remains");
    assert_ne!(truth["before"], truth["during"], "the tap was there");
    assert!(truth["during"]["tcx"].as_object().expect("counts").values().all(|n| n == 1), "{truth}");
}

#[test]
fn root_killing_the_tap_loses_no_packet_and_leaves_nothing_behind() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let truth = lab(&["killed", SYNTAP, &path(&dir, "records"), "kill"]);
    assert_eq!(int(&truth["exit"]), -9);
    for r in truth["results"].as_array().expect("two clients") {
        clean(r, 1500);
        assert_eq!(int(&r["slow"]), 0, "a lost SYN costs a second: {r}");
    }
    assert_eq!(int(&truth["counters"]["OutRsts"]), 0);
    assert_eq!(truth["before"], truth["after"], "no link, program or namespace remains");
}

#[test]
fn root_traffic_goes_on_while_the_tap_is_stopped() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let truth = lab(&["killed", SYNTAP, &path(&dir, "records"), "stop"]);
    for r in truth["results"].as_array().expect("two clients") {
        clean(r, 1500);
        assert_eq!(int(&r["slow"]), 0, "{r}");
    }
    assert_eq!(int(&truth["exit"]), 0, "continued, it ends well: {truth}");
    assert_eq!(truth["before"], truth["after"]);
}

#[test]
fn root_real_refusals_are_told_with_the_kernels_own_numbers() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (records, mirrored) = (path(&dir, "records"), path(&dir, "mirror.pcapng"));
    let truth = lab(&["refusals", SYNTAP, &records, &mirrored]);
    let told = json_lines(&run(syntap().args(["show", "--json", &records])));
    let cells = truth["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), 13, "{truth}");
    for cell in cells {
        let name = cell["cell"].as_str().expect("a name");
        assert_eq!(
            cell["outcome"], cell["expected"],
            "{name}: the kernel decides as it was measured to: {cell}"
        );
        for point in ["in0", "out0"] {
            let mine: Vec<&Value> = of_kind(&told, "tuple_reuse_refused")
                .into_iter()
                .filter(|r| r["src_port"] == cell["sport"] && r["interface"] == point)
                .collect();
            if cell["expected"] == "accepted" {
                assert!(mine.is_empty(), "{name} at {point}");
                continue;
            }
            assert_eq!(mine.len(), 1, "{name} at {point}");
            let f = &mine[0]["facts"];
            assert_eq!(f["isn"], cell["isn"], "{name}");
            assert_eq!(f["rcv_nxt"], cell["stale_ack"], "{name}");
            assert_eq!(f["rcv_nxt"], cell["rcv_nxt"], "{name}");
            assert_eq!(f["distance"], cell["distance"], "{name}");
            assert_eq!(f["tsval"], cell["tsval"], "{name}");
            assert_eq!(f["ts_recent"], cell["ts_recent"], "{name}");
            assert_eq!(f["old_state"], cell["old_state"], "{name}");
            assert_eq!(f["stale_acks"], cell["stale_acks"], "{name}");
            let rule = match (cell["old_state"].as_str(), name.starts_with("ts_older")) {
                (Some("half_open"), _) => Value::Null,
                (_, true) => "timestamp_older".into(),
                _ => "isn_not_after".into(),
            };
            assert_eq!(f["rule"], rule, "{name}");
            if cell["old_state"] == "time_wait" {
                assert_eq!(f["closed_first"], "responder", "{name}");
                assert_eq!(f["then"], "gave_up", "{name}");
            }
            assert_eq!(mine[0]["certainty"], "proven", "{name}");
        }
    }
    // What the tap mirrored, replayed, gives the same records, but for the monotonic clock, which a file has not.
    let key = |mut r: Value| {
        r.as_object_mut().expect("a record").remove("mono_ns");
        r.to_string()
    };
    let mut live: Vec<String> = told.into_iter().map(key).collect();
    let mut again: Vec<String> = replay(&[&mirrored]).into_iter().map(key).collect();
    live.sort();
    again.sort();
    assert!(!live.is_empty());
    for (l, a) in live.iter().zip(&again) {
        assert_eq!(l, a);
    }
    assert_eq!(live.len(), again.len());
}

#[test]
fn root_healthy_traffic_is_quiet_live_too() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let records = path(&dir, "records");
    let truth = lab(&["healthy", SYNTAP, &records, "2000"]);
    clean(&truth["short"], 2000);
    let summary = truth["stderr"].as_array().expect("lines");
    let line =
        |name: &str| summary.iter().filter_map(Value::as_str).find(|l| l.starts_with(name)).unwrap_or("");
    assert!(line("handshakes").contains("4000 of 4000"), "each seen on both sides: {summary:?}");
    assert!(line("lost").contains("0 dropped, 0 missed"), "{summary:?}");
    // Reuse of a tuple by a client that picks ports at random is ordinary; nothing above it is.
    let shards = std::fs::read_dir(&records).expect("a directory").count();
    if shards > 0 {
        let told = json_lines(&run(syntap().args(["show", "--json", "--severity", "warning", &records])));
        assert!(told.is_empty(), "{told:?}");
    }
}
