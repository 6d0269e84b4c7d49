//! Exports hold what the records hold: read back by Wireshark's dissectors, by a CSV reader and by a Parquet reader, once each,
//! however often and whenever they are made.

mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{corpus, json_lines, root, run, syntap};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;

/// Shards of the project's own captures, and of others' where they are there.
fn shards(dir: &Path) -> PathBuf {
    let shards = dir.join("shards");
    std::fs::create_dir(&shards).expect("a directory");
    let own = root().join("tests/captures");
    let mut pairs: Vec<(String, Vec<String>)> = Vec::new();
    let sides = |stem: PathBuf| {
        let side = |s: &str, e: &str| format!("{s}:{e}={}-{e}.pcap", stem.display());
        vec![side("eth0", "inside"), side("eth1", "outside")]
    };
    for name in ["snat-race", "nat-mapping-lost"] {
        pairs.push((format!("own-{name}"), sides(own.join(name))));
    }
    pairs.push(("own-reuse".into(), vec![own.join("time-wait-reuse.pcap").display().to_string()]));
    if corpus("lab").is_some() {
        for name in ["nat_mapping_lost", "snat_race", "time_wait_reuse", "lossy", "benign_odd", "arp_duel"] {
            let stem = root().join("../shared/corpus/lab").join(name);
            pairs.push((format!("lab-{name}").replace('_', "-"), sides(stem)));
        }
        let other = |name: &str| root().join("../shared/corpus").join(name).display().to_string();
        for name in [
            "zeek__ipv6.pcap",
            "zeek__vlan-collisions.pcap",
            "tcptrace__dlt_null.pcap",
            "zeek__snap-tcp.pcap",
        ] {
            pairs.push((name.replace("__", "-"), vec![other(name)]));
        }
    }
    for (host, files) in pairs {
        run(syntap().args(["replay", "--host", &host, "-w"]).arg(&shards).args(files));
    }
    shards
}

fn shown(shards: &Path) -> Vec<Value> {
    json_lines(&run(syntap().args(["show", "--json"]).arg(shards)))
}

fn export(format: &str, to: &Path, from: &Path) -> String {
    let out = run(syntap().args(["export", "--format", format, "-o"]).arg(to).arg(from));
    String::from_utf8(out.stderr).expect("text")
}

/// A directory to export into, by name.
fn into(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}/"))
}

const FIELDS: [&str; 21] = [
    "frame.time_epoch",
    "frame.interface_name",
    "frame.len",
    "eth.src",
    "eth.dst",
    "vlan.id",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "ip.ttl",
    "ipv6.hlim",
    "ip.id",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.flags",
    "tcp.window_size_value",
    "tcp.options.timestamp.tsval",
    "tcp.options.mss_val",
];

/// What the dissector should say of a packet, from its record.
fn expected(r: &Value, p: &Value) -> Option<String> {
    let t = if p["tuple"].is_null() { r } else { &p["tuple"] };
    let ip = |name: &str| t[name].as_str()?.parse::<IpAddr>().ok();
    let port = |name: &str| t[name].as_u64();
    let (orig, resp) = ((ip("src_ip")?, port("src_port")?), (ip("dst_ip")?, port("dst_port")?));
    let (src, dst) = if p["from"] == "orig" { (orig, resp) } else { (resp, orig) };
    let num = |name: &str| p[name].as_u64().map_or_else(String::new, |n| n.to_string());
    let ethernet = !p["src_mac"].is_null();
    let mac = |name: &str| p[name].as_str().unwrap_or_default().to_owned();
    let (v4, v6) = (src.0.is_ipv4(), src.0.is_ipv6());
    let only = |yes: bool, text: String| if yes { text } else { String::new() };
    let syn = if p["mss"].is_null() { 0 } else { 4 } + if p["wscale"].is_null() { 0 } else { 4 };
    let options = syn + if p["tsval"].is_null() { 0 } else { 12 };
    let tagged = !r["vlan"].is_null();
    let link = if ethernet || tagged { 14 } else { 0 } + if tagged { 4 } else { 0 };
    let len = link + if v4 { 20 } else { 40 } + 20 + options + p["len"].as_u64()?;
    let letters = p["flags"].as_str()?;
    let bit = |c: char| if letters == "none" { 0 } else { "FSRP.UEWe".find(c).map_or(0, |n| 1u64 << n) };
    let flags = letters.chars().map(bit).fold(0, |a, b| a | b);
    let ts = p["ts_ns"].as_u64()?;
    let fields = [
        format!("{}.{:09}", ts / 1_000_000_000, ts % 1_000_000_000),
        format!("{}:{}", r["host"].as_str()?, p["interface"].as_str()?),
        len.to_string(),
        mac("src_mac"),
        mac("dst_mac"),
        r["vlan"].as_u64().map_or_else(String::new, |v| v.to_string()),
        only(v4, src.0.to_string()),
        only(v4, dst.0.to_string()),
        only(v6, src.0.to_string()),
        only(v6, dst.0.to_string()),
        only(v4, num("ttl")),
        only(v6, num("ttl")),
        only(v4, format!("0x{:04x}", p["ip_id"].as_u64()?)),
        src.1.to_string(),
        dst.1.to_string(),
        num("seq"),
        num("ack"),
        format!("0x{flags:04x}"),
        num("win"),
        num("tsval"),
        num("mss"),
    ];
    Some(fields.join("\t"))
}

#[test]
fn wireshark_reads_the_packets_of_records_as_they_were_each_once_and_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let shards = shards(dir.path());
    let capture = dir.path().join("evidence.pcapng");
    let said = export("pcapng", &capture, &shards);
    let records = shown(&shards);
    if Command::new("tshark").arg("--version").output().is_err() {
        println!("skipped: tshark is not installed (tools/setup --test)");
        return;
    }
    let checks = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"];
    let tshark = |args: &[&str]| {
        let out = run(Command::new("tshark").args(checks).arg("-r").arg(&capture).args(args));
        String::from_utf8(out.stdout).expect("text")
    };
    let wrong = tshark(&["-Y", "_ws.malformed || _ws.expert.severity >= 8388608"]);
    assert!(wrong.is_empty(), "{wrong}");
    let mut args = vec!["-T", "fields", "-E", "separator=/t", "-E", "occurrence=f"];
    FIELDS.iter().for_each(|f| args.extend(["-e", *f]));
    let text = tshark(&args);
    let mut got: Vec<&str> = text.lines().collect();
    let time = |line: &&str| line.split('\t').next().unwrap_or_default().to_owned();
    assert!(got.windows(2).all(|w| time(&w[0]) <= time(&w[1])), "in order");
    let mut want: Vec<String> = Vec::new();
    for r in &records {
        let packets = r["packets"].as_array().expect("a list");
        want.extend(packets.iter().map(|p| expected(r, p).unwrap_or_else(|| panic!("no tuple: {r}"))));
    }
    want.sort();
    want.dedup();
    got.sort_unstable();
    assert!(want.len() > 50, "{said}");
    for (w, g) in want.iter().zip(&got) {
        assert_eq!(w, g);
    }
    assert_eq!(want.len(), got.len(), "{said}");

    // Every record that has packets is told of at its first one.
    let comments = tshark(&["-T", "fields", "-e", "frame.comment", "-E", "aggregator=/s"]);
    for r in records.iter().filter(|r| r["packets"].as_array().is_some_and(|p| !p.is_empty())) {
        let summary = r["summary"].as_str().expect("text");
        assert!(comments.contains(summary), "{summary}");
    }
    let without = records.iter().filter(|r| r["packets"].as_array().is_some_and(Vec::is_empty)).count();
    assert_eq!(said.contains("no packets"), without > 0, "{said}");
    // The tap's roles are those of the interfaces; a replay finds them again.
    let out = run(syntap().args(["replay", "--json"]).arg(&capture));
    assert!(json_lines(&out).iter().any(|r| r["role"] == "outside"));
}

#[test]
fn packets_of_a_lost_mapping_have_the_tuple_that_they_were_seen_with() {
    let side =
        |e: &str| format!("{e}:{e}={}-{e}.pcap", root().join("tests/captures/nat-mapping-lost").display());
    let records = common::replay(&[&side("inside"), &side("outside")]);
    let lost = common::of_kind(&records, "nat_mapping_lost")[0];
    let packets = lost["packets"].as_array().expect("a list");
    let reset =
        packets.iter().find(|p| p["flags"].as_str().is_some_and(|f| f.contains('R'))).expect("its reset");
    let outside = lost["facts"]["outside"].as_str().expect("a tuple");
    assert!(
        outside.starts_with(&format!("{}:", reset["tuple"]["src_ip"].as_str().expect("an address"))),
        "{reset}"
    );
    let plain = packets.iter().find(|p| p["flags"] == "P.").expect("what left untranslated");
    assert!(plain["tuple"].is_null(), "it has the tuple inside, which is the record's");
}

#[test]
fn lines_and_columns_hold_every_field_of_every_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let shards = shards(dir.path());
    let records = shown(&shards);
    let path = |name: &str| dir.path().join(name);
    export("jsonl", &path("all.jsonl"), &shards);
    let shown = run(syntap().args(["show", "--json"]).arg(&shards)).stdout;
    assert_eq!(std::fs::read(path("all.jsonl")).expect("there"), shown);

    export("csv", &path("all.csv"), &shards);
    let text = std::fs::read(path("all.csv")).expect("there");
    assert!(text.ends_with(b"\r\n"));
    let mut csv = csv::Reader::from_reader(text.as_slice());
    let names = csv.headers().expect("a header").clone();
    let fields: Vec<_> = records[0].as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names.iter().collect::<Vec<_>>(), fields);
    let rows: Vec<_> = csv.records().map(|r| r.expect("a row")).collect();
    assert_eq!(rows.len(), records.len());
    for (row, r) in rows.iter().zip(&records) {
        for (cell, name) in row.iter().zip(&names) {
            let as_text = match &r[name] {
                Value::Null => String::new(),
                Value::String(s) => s.clone(),
                v => v.to_string(),
            };
            assert_eq!(cell, as_text, "{name}");
        }
    }

    for option in [None, Some("--no-packets")] {
        let file = path("all.parquet");
        let mut command = syntap();
        command.args(["export", "--format", "parquet", "-o"]).arg(&file).arg(&shards).args(option);
        run(&mut command);
        let reader = SerializedFileReader::new(std::fs::File::open(&file).expect("there")).expect("whole");
        let rows: Vec<_> = reader.get_row_iter(None).expect("rows").map(|r| r.expect("a row")).collect();
        assert_eq!(rows.len(), records.len());
        for (row, r) in rows.iter().zip(&records) {
            let names: Vec<&str> = row.get_column_iter().map(|(n, _)| n.as_str()).collect();
            assert_eq!(names.len(), fields.len() - usize::from(option.is_some()));
            let at = |name: &str| names.iter().position(|n| *n == name).expect("a column");
            assert_eq!(row.get_string(at("summary")).expect("text").as_str(), r["summary"]);
            assert_eq!(row.get_long(at("ts_ns")).expect("a number") as u64, r["ts_ns"].as_u64().expect("ns"));
            if let Some(ip) = r["nat"]["src_ip"].as_str() {
                assert_eq!(row.get_group(at("nat")).expect("a group").get_string(0).expect("text"), ip);
            }
            let facts = r["facts"].as_object().expect("an object");
            assert_eq!(row.get_map(at("facts")).expect("a map").len(), facts.len());
            if option.is_none() {
                use parquet::record::ListAccessor;
                let packets = row.get_list(at("packets")).expect("a list");
                let of = r["packets"].as_array().expect("a list");
                assert_eq!(packets.len(), of.len());
                for (n, p) in of.iter().enumerate() {
                    let g = packets.get_group(n).expect("a struct");
                    assert_eq!(u64::from(g.get_uint(7).expect("seq")), p["seq"].as_u64().expect("seq"));
                    assert_eq!(g.get_string(6).expect("flags").as_str(), p["flags"]);
                }
            }
        }
    }
}

/// When the records of all files in a directory were told, in order.
fn exported(dir: &Path) -> Vec<u64> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            let text = std::fs::read_to_string(&path).expect("text");
            let record = |l| serde_json::from_str::<Value>(l).expect("JSON");
            lines.extend(text.lines().map(|l| record(l)["ts_ns"].as_u64().expect("ns")));
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_directory_gets_what_is_new_and_nothing_twice_also_of_a_shard_that_grows_or_is_torn() {
    let dir = tempfile::tempdir().expect("a directory");
    let from = dir.path().join("growing");
    std::fs::create_dir(&from).expect("a directory");
    // Frames of two records each, as a run of hours would have written them.
    let records =
        common::replay(&[&root().join("tests/captures/time-wait-reuse.pcap").display().to_string()]);
    let base: syntap::record::Record = serde_json::from_value(records[0].clone()).expect("a record");
    let (mut frames, mut want): (Vec<Vec<u8>>, Vec<u64>) = Default::default();
    for n in 0..12u64 {
        let own = tempfile::tempdir().expect("a directory");
        let mut w =
            syntap::record::ShardWriter::create(own.path(), "gw", Default::default()).expect("created");
        for k in 0..2 {
            let r = syntap::record::Record { ts_ns: base.ts_ns + 2 * n + k, ..base.clone() };
            want.push(r.ts_ns);
            w.push(&r).expect("taken");
        }
        w.close().expect("closed");
        let shard = std::fs::read_dir(own.path()).expect("readable").next().expect("one").expect("an entry");
        frames.push(std::fs::read(shard.path()).expect("there"));
    }
    let shard = from.join("syntap-gw-20261127T000000Z-0000.jsonl.zst");
    let mut whole: Vec<u8> = frames.concat();
    let to = into(dir.path(), "out");
    let mut last = 0;
    // Cut anywhere: within a frame, within a head, between frames.
    for cut in [
        0,
        frames[0].len() / 2,
        frames[0].len(),
        frames[0].len() + 7,
        whole.len() / 2,
        whole.len() - 1,
        whole.len(),
    ] {
        std::fs::write(&shard, &whole[..cut]).expect("written");
        let out = syntap()
            .args(["export", "--format", "jsonl", "-o"])
            .arg(&to)
            .arg(&from)
            .output()
            .expect("starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let again = export("jsonl", &to, &from);
        assert!(again.contains(": 0 records in 0 files added"), "{again}");
        let now = exported(&to).len();
        assert!(now >= last && now.is_multiple_of(2), "{cut}: {now} after {last}");
        last = now;
    }
    assert_eq!(exported(&to), want);

    // A flipped byte in a frame: the others come, also those that are written later, and none twice.
    let to = into(dir.path(), "hurt");
    let at = frames[..3].iter().map(Vec::len).sum::<usize>() + 60;
    whole[at] ^= 0x55;
    for frames_there in [2, 6, 7, 12] {
        let len: usize = frames[..frames_there].iter().map(Vec::len).sum();
        std::fs::write(&shard, &whole[..len]).expect("written");
        export("jsonl", &to, &from);
    }
    let all: Vec<u64> =
        want.chunks(2).enumerate().filter(|(n, _)| *n != 3).flat_map(|(_, c)| c.to_vec()).collect();
    assert_eq!(exported(&to), all);

    // Another file under that name is not taken for it.
    std::fs::write(&shard, frames[5..].concat()).expect("written");
    let out =
        syntap().args(["export", "--format", "jsonl", "-o"]).arg(&to).arg(&shard).output().expect("starts");
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("is not the shard of this name"));
}

#[test]
fn a_frame_that_a_run_is_writing_comes_with_a_later_export() {
    let dir = tempfile::tempdir().expect("a directory");
    let from = dir.path().join("shards");
    std::fs::create_dir(&from).expect("a directory");
    let records =
        common::replay(&[&root().join("tests/captures/time-wait-reuse.pcap").display().to_string()]);
    let base: syntap::record::Record = serde_json::from_value(records[0].clone()).expect("a record");
    let mut w = syntap::record::ShardWriter::create(&from, "gw", Default::default()).expect("created");
    let mut write = |n: u64| {
        w.push(&syntap::record::Record { ts_ns: n, ..base.clone() }).expect("taken");
        w.flush();
    };
    write(1);
    let shard = std::fs::read_dir(&from).expect("readable").next().expect("one").expect("an entry").path();
    let to = into(dir.path(), "out");
    let whole = std::fs::metadata(&shard).expect("there").len();
    // Half of the next frame is there, and the shard is locked.
    let mut file = std::fs::OpenOptions::new().append(true).open(&shard).expect("opened");
    std::io::Write::write_all(&mut file, &std::fs::read(&shard).expect("there")[..whole as usize / 2])
        .expect("written");
    let said = export("jsonl", &to, &from);
    assert!(said.contains(": 1 record in 1 file added") && !said.contains("no whole frame"), "{said}");
    file.set_len(whole).expect("cut");
    write(2);
    write(3);
    let said = export("jsonl", &to, &from);
    assert!(said.contains(": 2 records in 1 file added"), "{said}");
    assert_eq!(exported(&to), [1, 2, 3]);
}

#[test]
fn options_that_would_lose_something_are_refused_with_a_way_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let from = dir.path().join("shards");
    let capture = root().join("tests/captures/time-wait-reuse.pcap");
    std::fs::create_dir(&from).expect("a directory");
    run(syntap().args(["replay", "-w"]).arg(&from).arg(&capture));
    let to = into(dir.path(), "out");
    export("jsonl", &to, &from);
    let missing = dir.path().join("no/such/file");
    let cases: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        ("holds an export of jsonl, not of csv", vec!["--format", "csv"]),
        (
            "holds an export of jsonl, not of jsonl --kind syn_refused",
            vec!["--format", "jsonl", "--kind", "syn_refused"],
        ),
        ("--since and a directory", vec!["--format", "jsonl", "--since", "1h"]),
        ("--no-packets: this format is made of packets", vec!["--format", "pcapng", "--no-packets"]),
    ]);
    for (said, args) in cases {
        let out = syntap().arg("export").args(args).arg("-o").arg(&to).arg(&from).output().expect("starts");
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{text}");
        assert!(text.contains(said) && text.contains("hint: "), "{text}");
    }
    let out =
        syntap().args(["export", "--format", "csv", "-o"]).arg(&missing).arg(&from).output().expect("starts");
    assert!(String::from_utf8_lossy(&out.stderr).contains("hint: the directory of -o must exist"));
    // What failed leaves nothing behind.
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).expect("readable").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
