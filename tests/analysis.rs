//! The queries of docs/analysis.md, run as they stand there by the engines that they are for, over records of several gateways.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{corpus, json_lines, root, run, syntap};
use serde_json::Value;

/// A Python that has the engines; `None`, said aloud, without one.
fn python(engine: &str) -> Option<PathBuf> {
    let path = root().join("target/analysis/bin/python");
    let has = |module: &str| {
        Command::new(&path)
            .args(["-c", &format!("import {module}")])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if !has(if engine == "spark" { "pyspark" } else { "duckdb" }) {
        println!("skipped: {engine} is not installed (tools/setup --test)");
        return None;
    }
    if engine == "spark" && Command::new("java").arg("-version").output().is_err() {
        println!("skipped: spark needs java (tools/setup --test)");
        return None;
    }
    Some(path)
}

/// A classic capture, some days later.
fn later(from: &Path, to: &Path, days: u32) {
    let mut bytes = std::fs::read(from).expect("a capture");
    let word = |b: &[u8], at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    assert!(matches!(word(&bytes, 0), 0xa1b2_c3d4 | 0xa1b2_3c4d), "a little-endian pcap");
    let mut at = 24;
    while at + 16 <= bytes.len() {
        let ts = word(&bytes, at) + days * 86_400;
        bytes[at..at + 4].copy_from_slice(&ts.to_le_bytes());
        at += 16 + word(&bytes, at + 8) as usize;
    }
    std::fs::write(to, bytes).expect("written");
}

/// Two gateways on two days and a third on one; what `show --json` has of them.
fn gateways(dir: &Path) -> Vec<Value> {
    let shards = dir.join("shards");
    std::fs::create_dir(&shards).expect("a directory");
    let own = root().join("tests/captures");
    let replay = |host: &str, stem: &Path, days: u32| {
        let side = |s: &str| {
            let file = dir.join(format!("{days}-{s}.pcap"));
            later(Path::new(&format!("{}-{s}.pcap", stem.display())), &file, days);
            format!("{s}:{s}={}", file.display())
        };
        let files = [side("inside"), side("outside")];
        run(syntap().args(["replay", "--host", host, "-w"]).arg(&shards).args(files));
    };
    replay("gw1", &own.join("snat-race"), 0);
    replay("gw1", &own.join("nat-mapping-lost"), 1);
    replay("gw2", &own.join("nat-mapping-lost"), 1);
    replay("gw2", &own.join("snat-race"), 1);
    if corpus("lab").is_some() {
        let lab = root().join("../shared/corpus/lab");
        replay("gw3", &lab.join("time_wait_reuse"), 6);
        replay("gw3", &lab.join("lossy"), 7);
    }
    run(syntap().args(["export", "--format", "parquet", "-o", "export/", "shards"]).current_dir(dir));
    json_lines(&run(syntap().args(["show", "--json"]).arg(&shards)))
}

fn answers(engine: &str, dir: &Path) -> Option<BTreeMap<String, Vec<Value>>> {
    let python = python(engine)?;
    let mut command = Command::new(python);
    command
        .arg(root().join("tests/analysis.py"))
        .arg(engine)
        .arg(root().join("docs/analysis.md"))
        .current_dir(dir);
    let out = run(command.env("PYTHONDONTWRITEBYTECODE", "1"));
    Some(serde_json::from_slice(&out.stdout).expect("JSON"))
}

/// Records and times by host and kind, as the first query has them.
fn counted(records: &[Value]) -> Value {
    let mut by: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for r in records {
        let text = |name: &str| r[name].as_str().expect("text").to_owned();
        let n = by.entry((text("host"), text("kind"))).or_default();
        *n = (n.0 + 1, n.1 + r["count"].as_u64().expect("a count"));
    }
    by.into_iter().map(|((host, kind), (n, times))| serde_json::json!([host, kind, n, times])).collect()
}

#[test]
fn the_documented_queries_give_the_same_answers_in_duckdb_and_spark_and_count_what_show_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let records = gateways(dir.path());
    assert!(records.len() >= 12);
    let duckdb = answers("duckdb", dir.path());
    let spark = answers("spark", dir.path());
    for all in [&duckdb, &spark].into_iter().flatten() {
        assert_eq!(all["What is there"], [counted(&records)]);
        let pressed = &all["Which NAT address is under pressure"][0];
        assert!(
            pressed.as_array().is_some_and(|rows| rows.iter().any(|r| r[1] == "198.51.100.1")),
            "{pressed}"
        );
        let pairs = all["Which pair of gateways sees the same connections break"][0].to_string();
        assert!(pairs.contains(r#"["gw1","gw2","nat_mapping_lost",1]"#), "{pairs}");
        let changed = all["What changed since yesterday"][0].as_array().expect("rows").clone();
        assert!(!changed.is_empty());
        let worst = all["Which responder is worst"][0].as_array().expect("rows").clone();
        assert!(worst.len() >= 2 && worst[0][3].as_u64() >= worst[1][3].as_u64(), "{worst:?}");
        let resets: u64 =
            all["Into the packets"][0].as_array().expect("rows").iter().filter_map(|r| r[2].as_u64()).sum();
        let of = |r: &Value| {
            let packets = r["packets"].as_array().expect("a list");
            let reset =
                |p: &&Value| p["from"] == "resp" && p["flags"].as_str().is_some_and(|f| f.contains('R'));
            packets.iter().filter(reset).count() as u64
        };
        assert_eq!(resets, records.iter().map(of).sum::<u64>());
    }
    if let Some(all) = &duckdb {
        assert_eq!(all["Without an export"], [counted(&records)], "shards as they are");
    }
    if let (Some(mut duckdb), Some(spark)) = (duckdb, spark) {
        duckdb.remove("Without an export");
        duckdb.remove("Bringing them together");
        assert_eq!(duckdb, spark);
    }
}
