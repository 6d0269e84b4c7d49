//! `syntap report` in its three forms: text, HTML, JSON.

mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{root, run, syntap};
use serde_json::Value;
use syntap::detect::Kind;
use syntap::detect::tool::{Gap, Unit, capture_gap};
use syntap::record::{Context, Interface, Record, ShardOptions, ShardWriter};
use syntap::wire::Nanos;

fn text(out: &[u8]) -> String {
    String::from_utf8(out.to_vec()).expect("text")
}

fn report(dir: &Path, args: &[&str]) -> String {
    text(&run(syntap().arg("report").args(args).arg(dir)).stdout)
}

/// A shipped story's records and figures.
fn story(dir: &Path) {
    let capture = |name: &str| root().join("tests/captures").join(name);
    let arg = |at: &str, name: &str| format!("{at}={}", capture(name).display());
    run(syntap().args(["replay", "-w"]).arg(dir).args([
        arg("inside:inside", "snat-race-inside.pcap"),
        arg("outside:outside", "snat-race-outside.pcap"),
    ]));
    run(syntap().args(["replay", "-w"]).arg(dir).arg(arg("gateway:outside", "time-wait-reuse.pcap")));
}

fn shards(dir: &Path, records: &[Record]) {
    let mut w = ShardWriter::create(dir, "host", ShardOptions::default()).expect("created");
    w.begin_first().expect("begun");
    records.iter().for_each(|r| w.push(r).expect("taken"));
    w.close().expect("closed");
}

fn gap(context: &Context) -> Record {
    let (first, last) = (Nanos(Nanos::SEC), Nanos(2 * Nanos::SEC));
    let gap = Gap { cause: "ring_full", source: "eth0", first, last, count: Some(1), unit: Unit::Packets };
    Record::from_anomaly(&capture_gap(&gap), context, None)
}

/// What a real parser finds wrong with a page, and what is on it; `None`, said aloud, without Python.
fn checked(page: &str) -> Option<Value> {
    let script = root().join("tests/html/check.py");
    let started = Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = started else {
        println!("skipped: there is no python3 to parse the page with");
        return None;
    };
    python.stdin.take().expect("piped").write_all(page.as_bytes()).expect("it reads");
    let out = python.wait_with_output().expect("it ends");
    assert!(out.status.success(), "the parser fails");
    let found: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(found["wrong"], serde_json::json!([]));
    for theme in found["themes"].as_array().expect("themes") {
        assert!(theme["least"][0].as_f64().expect("a ratio") >= 4.5, "{theme}");
        assert!(theme["pairs"].as_u64().expect("a number") >= 20, "{theme}");
    }
    assert_eq!(found["themes"].as_array().map(Vec::len), Some(3), "light, dark and paper");
    Some(found)
}

#[test]
fn a_page_needs_nothing_from_outside_and_every_link_and_label_on_it_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    story(dir.path());
    let file = dir.path().join("report.html");
    run(syntap().args(["report", "--html"]).arg(&file).arg(dir.path()));
    let page = std::fs::read_to_string(&file).expect("written");
    assert_eq!(page, report(dir.path(), &["--html", "-"]), "the same on standard output");
    let Some(found) = checked(&page) else { return };
    let said = found["text"].as_str().expect("text");
    for words in [
        "In short",
        "snat_collision",
        "tuple_reuse_refused",
        "1563951501",
        "How long connections took",
        "TCP flags seen",
    ] {
        assert!(said.contains(words), "{words}");
    }
    assert!(
        found["anchors"].as_u64() > Some(4) && found["counts"]["svg"].as_u64() > Some(4),
        "{}",
        found["counts"]
    );
}

#[test]
fn hostile_names_stay_text() {
    let hostile = "<script>alert(1)</script>\"' onload=x &amp; \u{202e}\u{1b}[31m";
    let context = Context {
        host: hostile.into(),
        interfaces: vec![Interface { name: hostile.into(), role: Some(hostile.into()) }],
        clock_offset_ns: None,
    };
    let mut records = Vec::new();
    for kind in Kind::ALL {
        let mut r = gap(&context);
        (r.kind, r.severity, r.verdict) = (kind.name().into(), "error".into(), "gateway".into());
        (r.summary, r.time) = (hostile.into(), hostile.into());
        (r.certainty, r.interface, r.role) = ("proven".into(), Some(hostile.into()), Some(hostile.into()));
        for name in ["request", "cause", "source", "link", "interfaces", hostile] {
            r.facts.insert(name.into(), Value::from(hostile));
        }
        (r.dst_ip, r.dst_port) = (Some([192, 0, 2, 1].into()), Some(80));
        records.push(r);
    }
    let mut figures = gap(&context);
    (figures.kind, figures.interface) = ("figures".into(), Some(hostile.into()));
    figures.facts = serde_json::json!({ "attempts": 1, "latencies": [[10, 1], [0, u64::MAX]], "flags": { "ingress": { hostile: 3 } } })
        .as_object()
        .expect("facts")
        .clone();
    records.push(figures);
    let dir = tempfile::tempdir().expect("a directory");
    shards(dir.path(), &records);
    let page = report(dir.path(), &["--html", "-"]);
    assert!(!page.contains("<script>alert") && !page.contains('\u{202e}') && !page.contains('\u{1b}'));
    let said = report(dir.path(), &["--brief"]);
    assert!(!said.contains('\u{1b}'), "nor do they steer a terminal");
    let Some(found) = checked(&page) else { return };
    assert_eq!(found["counts"]["script"], 1, "only its own");
    assert!(found["text"].as_str().expect("text").contains("<script>alert(1)</script>\"' onload=x &amp;"));
}

#[test]
fn a_page_without_trouble_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    shards(dir.path(), &[]);
    let page = report(dir.path(), &["--html", "-"]);
    checked(&page);
    assert!(
        page.contains("Nothing was recorded") && !page.contains(">NaN") && !page.contains("inf %"),
        "{page}"
    );
    // Losses of its own, and no connection hurt.
    let dir = tempfile::tempdir().expect("a directory");
    shards(dir.path(), &[gap(&Context::default())]);
    let page = report(dir.path(), &["--html", "-"]);
    checked(&page);
    assert!(page.contains("No connection was hurt") && page.contains("did not see everything"));
    assert!(
        page.contains("1 packet lost at eth0 (ring_full), once") && page.contains("In what it saw, nothing")
    );
}

#[test]
fn figures_are_in_the_report_and_in_no_other_output_unless_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    story(dir.path());
    let shown = |args: &[&str]| {
        let out = run(syntap().args(["show", "--json"]).args(args).arg(dir.path()));
        common::json_lines(&out)
    };
    assert!(shown(&[]).iter().all(|r| r["kind"] != "figures"));
    let figures = shown(&["--kind", "figures"]);
    assert!(!figures.is_empty() && figures.iter().all(|r| r["kind"] == "figures"), "{figures:?}");
    let of = |interface: &str, fact: &str| {
        let own = figures.iter().filter(|r| r["interface"] == interface);
        own.map(|r| r["facts"][fact].as_u64().expect("a number")).sum::<u64>()
    };
    let report: Value = serde_json::from_str(&report(dir.path(), &["--json"])).expect("JSON");
    let inside = report["connections"]["interfaces"].as_array().expect("a list");
    let inside = inside.iter().find(|i| i["interface"] == "inside").expect("it is there");
    for fact in ["attempts", "handshakes", "failed", "resets"] {
        assert_eq!(inside[fact].as_u64(), Some(of("inside", fact)), "{fact}");
    }
    assert!(of("inside", "attempts") > 0);
    // The census is that of the packets: what the connections of the same capture had.
    let capture = root().join("tests/captures/snat-race-inside.pcap");
    let arg = format!("inside:inside={}", capture.display());
    let connections = common::json_lines(&run(syntap().args(["replay", "--connections", &arg])));
    for (flags, field) in [("S", "syn"), ("S.", "syn_ack"), ("F.", "fin")] {
        let counted: u64 = connections.iter().map(|c| c[field].as_u64().expect("a number")).sum();
        assert_eq!(report["flags"]["inside"][flags].as_u64(), Some(counted), "{flags}");
    }
}

#[test]
fn the_whole_report_is_json_for_scripts() {
    let dir = tempfile::tempdir().expect("a directory");
    story(dir.path());
    let whole: Value = serde_json::from_str(&report(dir.path(), &["--json"])).expect("JSON");
    let refused = |report: &Value| {
        let causes = report["causes"].as_array().expect("a list").clone();
        causes.into_iter().find(|c| c["kind"] == "tuple_reuse_refused")
    };
    let cause = refused(&whole).expect("it is there");
    assert_eq!((&cause["hurt"], &cause["example"]["packets"][0]["flags"]), (&1.into(), &"S".into()));
    assert_eq!(whole["short"][0]["kind"], whole["causes"][0]["kind"]);
    let aged: u64 =
        whole["reuse_ages"].as_array().expect("ages").iter().map(|a| a["refused"].as_u64().expect("n")).sum();
    assert_eq!(aged, 1, "55.6 s after its close");
    assert_eq!(whole["lost"], serde_json::json!([]));
    // Filters are those of show.
    let late: Value =
        serde_json::from_str(&report(dir.path(), &["--json", "--since", "2020-01-01"])).expect("JSON");
    assert!(refused(&late).is_none() && late["causes"][0]["kind"] == "snat_collision", "{late}");
    let taken =
        |report: &Value| [&report["records"], &report["left_out"]].map(|n| n.as_u64().expect("a number"));
    assert_eq!(
        taken(&late)[1] > 0,
        taken(&late)[0] < taken(&whole)[0],
        "also what frames hold that were not read"
    );
    let places = |report: &Value| report["connections"]["interfaces"].as_array().expect("a list").len();
    assert_eq!((places(&whole), places(&late)), (3, 2), "figures of the chosen time");
    let only: Value = serde_json::from_str(&report(dir.path(), &["--json", "--kind", "tuple_reuse_refused"]))
        .expect("JSON");
    assert_eq!(only["causes"].as_array().map(Vec::len), Some(1));
    assert!(only["left_out"].as_u64() > Some(0) && whole["left_out"] == 0, "what was left out is said");
    let none = report(dir.path(), &["--until", "2001-01-01"]);
    assert!(none.starts_with("No record passes the filters; they left out "), "{none}");
    assert_eq!(
        only["connections"]["all"]["attempts"], 0,
        "figures are of all connections, not of the chosen ones"
    );
}

#[test]
fn a_narrow_terminal_is_kept_to_and_colour_needs_a_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    story(dir.path());
    for columns in [60, 80] {
        let out =
            run(syntap().args(["report", "--brief"]).arg(dir.path()).env("COLUMNS", columns.to_string()));
        let said = text(&out.stdout);
        for line in said.lines() {
            assert!(line.chars().count() <= columns, "{columns}: {line}");
        }
        assert!(!said.contains('\u{1b}'));
    }
}

#[test]
fn two_halves_of_the_records_are_a_whole_report() {
    let dir = tempfile::tempdir().expect("a directory");
    story(dir.path());
    let all = syntap::record::shard_paths(&[dir.path().to_owned()]).expect("listed");
    assert!(all.len() >= 2, "each replay begins a shard");
    let read = |paths: &[std::path::PathBuf]| {
        let mut report = syntap::report::Report::default();
        for path in paths {
            syntap::record::read_lines(path, (0, u64::MAX), &mut |line| report.line(line, |_| true))
                .expect("read");
        }
        report
    };
    let mut halves = read(&all[1..]);
    halves.merge(read(&all[..1]));
    let of = |r: &syntap::report::Report| syntap::report::json::of(r, None);
    assert_eq!(of(&halves), of(&read(&all)));
}
