//! `syntap verify` says what is in shards and what of them is lost, to the record.

mod common;

use std::path::{Path, PathBuf};

use common::{json_lines, root, run, syntap};
use serde_json::{Value, json};
use syntap::record::{Record, ShardReader, ShardWriter, shard_paths};

const HOUR: u64 = 3_600_000_000_000;

/// A closed shard of three frames with two records each, an hour after one another; its offsets.
fn shard(dir: &Path) -> (PathBuf, Vec<u64>) {
    let base = common::a_record();
    let mut w = ShardWriter::create(dir, "gw", Default::default()).expect("created");
    for n in 1..=6 {
        let ns = n * HOUR;
        w.push(&Record { ts_ns: ns, first_ns: ns, last_ns: ns, ..base.clone() }).expect("taken");
        if n % 2 == 0 {
            w.flush();
        }
    }
    w.close().expect("closed");
    let path = shard_paths(&[dir.to_owned()]).expect("listed").remove(0);
    let index = ShardReader::open(&path).expect("opened").index().expect("read");
    (path, index.frames.iter().map(|f| f.at).chain([index.end - 56, index.end]).collect())
}

/// Exit code and words, and the same as JSON.
fn verify(path: &Path) -> (i32, String, Value) {
    let out = syntap().arg("verify").arg(path).output().expect("starts");
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    let json = syntap().args(["verify", "--json"]).arg(path).output().expect("starts");
    assert_eq!(out.status.code(), json.status.code());
    let text = String::from_utf8(out.stdout.clone()).expect("text");
    (out.status.code().expect("it ended"), text, json_lines(&json).remove(0))
}

#[test]
fn whole_shards_are_counted_and_pass() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, ends) = shard(dir.path());
    let (code, text, json) = verify(dir.path());
    let said = "whole, closed: 3 frames, 6 records of gw, 1970-01-01T01:00:00.000000000Z to 1970-01-01T06:00:00.000000000Z, schema 2";
    assert_eq!(text, format!("{}: {said}\n1 shard: 1 whole; 6 records read\n", path.display()));
    assert_eq!(code, 0);
    assert_eq!(
        (&json["bytes"], &json["hosts"], &json["losses"]),
        (&json!(ends[4]), &json!(["gw"]), &json!([]))
    );

    // What a run leaves that is killed between two frames is all there; it only does not end.
    let bytes = std::fs::read(&path).expect("there");
    std::fs::write(&path, &bytes[..ends[2] as usize]).expect("written");
    let (code, text, json) = verify(&path);
    assert!(text.contains(": whole, not closed: 2 frames, 4 records of gw, "), "{text}");
    assert_eq!((code, &json["end"]), (0, &json!("not closed")));
}

#[test]
fn each_loss_is_told_with_its_place_size_records_and_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, ends) = shard(dir.path());
    let bytes = std::fs::read(&path).expect("there");
    let at = |n: usize| ends[n] as usize;
    let hurt = |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).expect("written");
        verify(&path)
    };
    let flipped = |at: usize| {
        let mut hurt = bytes.clone();
        hurt[at] ^= 1;
        hurt
    };
    let time = |hour: u32| format!("1970-01-01T0{hour}:00:00.000000000Z");
    let len = ends[2] - ends[1];

    // A frame that is damaged: its own head says of when it was.
    let (code, text, json) = hurt(flipped(at(1) + 80));
    let said = format!(
        "\n  lost at byte {}: {len} bytes, 2 records, from {} on, up to {}\n",
        ends[1],
        time(3),
        time(4)
    );
    assert!(text.contains(": damaged, closed: 2 frames, 4 records") && text.contains(&said), "{text}");
    assert!(text.ends_with("1 shard: 0 whole, 1 damaged; 4 records read, lost: 2 records\n"), "{text}");
    let loss = json!([{"at": ends[1], "bytes": len, "records": 2, "exact": true, "after_ns": 3 * HOUR, "before_ns": 4 * HOUR}]);
    assert_eq!((code, &json["losses"], &json["lost_records"]), (1, &loss, &json!(2)));

    // A damaged head: it was between its neighbours.
    let (_, text, _) = hurt(flipped(at(1) + 20));
    let said =
        format!("lost at byte {}: {len} bytes, 2 records, from {} on, up to {}\n", ends[1], time(2), time(5));
    assert!(text.contains(&said), "{text}");

    // Nothing is left of it.
    let (code, text, _) = hurt([&bytes[..at(1)], &bytes[at(2)..]].concat());
    let said = format!("lost at byte {}: whole frames are gone, 2 records, from {}", ends[1], time(2));
    assert!(text.contains(&said) && code == 1, "{text}");

    // A torn end: what its head announced is the least.
    let (code, text, json) = hurt(bytes[..at(2) + 100].to_vec());
    let said = format!("  lost at byte {}: 100 bytes, at least 2 records, from {} on\n", ends[2], time(4));
    assert!(text.contains("damaged, not closed: 2 frames") && text.contains(&said) && code == 1, "{text}");
    assert_eq!(json["lost_exact"], false);
    let (_, text, _) = hurt(bytes[..at(2) + 9].to_vec());
    assert!(text.contains(": 9 bytes, nothing says how many records, from "), "{text}");
}

#[test]
fn what_is_no_shard_is_damaged_and_what_is_not_there_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("syntap-gw-20261124T000000Z-0000.jsonl.zst");
    std::fs::write(&path, "nothing of the kind").expect("written");
    let (code, text, _) = verify(&path);
    assert!(text.contains("damaged, not closed: 0 frames, 0 records\n  lost at byte 0: 19 bytes"), "{text}");
    assert_eq!(code, 1);
    let missing = dir.path().join("missing");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    for (path, said) in [(&missing, "cannot read"), (&empty, "no shards in")] {
        let out = syntap().arg("verify").arg(path).output().expect("starts");
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(2) && text.contains(said), "{text}");
    }
}

#[test]
fn several_shards_are_told_in_their_order_and_a_run_that_writes_one_is_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let capture = root().join("tests/captures/time-wait-reuse.pcap");
    for host in ["a", "b", "c"] {
        run(syntap().args(["replay", "--host", host, "-w"]).arg(dir.path()).arg(&capture));
    }
    let mut writer = ShardWriter::create(dir.path(), "d", Default::default()).expect("created");
    writer.begin_first().expect("begun");
    let out = json_lines(&run(syntap().args(["verify", "--json"]).arg(dir.path())));
    let ends: Vec<&Value> = out.iter().map(|v| &v["end"]).collect();
    assert_eq!(ends, ["closed", "closed", "closed", "being written"]);
    let hosts: Vec<&Value> = out[..3].iter().map(|v| &v["hosts"][0]).collect();
    assert_eq!(hosts, ["a", "b", "c"]);
    let text = String::from_utf8(run(syntap().arg("verify").arg(dir.path())).stdout).expect("text");
    assert!(text.lines().last().expect("a line").starts_with("4 shards: 4 whole; "), "{text}");
}

#[test]
fn a_shard_of_no_bytes_is_one_that_was_begun_to_whoever_reads_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("syntap-gw-20261124T000000Z-0000.jsonl.zst");
    std::fs::write(&path, "").expect("written");
    let begun = format!("{}: begun, nothing written", path.display());
    let (code, text, json) = verify(&path);
    assert_eq!((code, text), (0, format!("{begun}\n1 shard: 1 whole; 0 records read\n")));
    assert_eq!((&json["whole"], &json["bytes"]), (&json!(true), &json!(0)));
    let out = dir.path().join("out.csv");
    let out = out.to_str().expect("text");
    for args in [&["show"][..], &["report"], &["export", "--format", "csv", "-o", out]] {
        let ran = syntap().args(args).arg(dir.path()).output().expect("starts");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && said.contains(&begun), "{args:?}: {said}");
    }
    // Beside others it is nothing to be told of.
    let other = tempfile::tempdir().expect("a directory");
    shard(other.path());
    let ran = run(syntap().arg("show").args([dir.path(), other.path()]));
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "");
}

#[test]
fn what_cannot_be_read_is_said_after_what_can_and_is_no_success() {
    let dir = tempfile::tempdir().expect("a directory");
    shard(dir.path());
    // Opening a pipe that nobody writes to would wait for ever.
    let pipe = dir.path().join("syntap-gw-20261124T000000Z-0000.jsonl.zst");
    run(std::process::Command::new("mkfifo").arg(&pipe));
    let export = ["export", "--format", "jsonl", "-o"];
    let into = dir.path().join("into/");
    for (args, printed) in [
        (&["verify"][..], "6 records of gw"),
        (&["show", "--json"], "\"ts_ns\":"),
        (&["report"], "tuple_reuse"),
        (&[&export[..], &["-"]].concat(), "\"ts_ns\":"),
        (&[&export[..], &[into.to_str().expect("text")]].concat(), ""),
    ] {
        let ran = syntap().args(args).arg(dir.path()).output().expect("starts");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains("no file"), "{args:?}: {said}");
        assert!(String::from_utf8_lossy(&ran.stdout).contains(printed), "{args:?}");
    }
    let ran = syntap().arg("verify").arg(&pipe).output().expect("starts");
    assert_eq!(ran.status.code(), Some(2));
}

#[test]
fn a_shard_that_is_named_twice_counts_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, _) = shard(dir.path());
    let ran = run(syntap().arg("verify").args([&path, dir.path(), &path]));
    let text = String::from_utf8(ran.stdout).expect("text");
    assert!(text.ends_with("\n1 shard: 1 whole; 6 records read\n"), "{text}");
}
