//! One record for each tuple, kind and episode: what goes on is told once, with how often and from when to when.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use common::talk::{Capture, Talk};
use common::{corpus, of_kind, root};
use serde_json::Value;

fn captures(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            captures(&path, out);
        } else if path.extension().is_some_and(|e| e == "pcap" || e == "pcapng") {
            out.push(path);
        }
    }
}

/// Whose record it is: the kind, where, and the tuple; `None` without one.
fn whose(r: &Value) -> Option<String> {
    let of = ["kind", "interface", "vlan", "tunnel", "src_ip", "src_port", "dst_ip", "dst_port"]
        .map(|name| &r[name]);
    (!r["src_port"].is_null()).then(|| of.map(Value::to_string).join(" "))
}

#[test]
fn no_two_records_of_a_tuple_and_kind_tell_of_the_same_time() {
    let mut all = Vec::new();
    captures(&root().join("tests/captures"), &mut all);
    if let Some(manifest) = corpus("MANIFEST.tsv") {
        captures(manifest.parent().expect("a directory"), &mut all);
    }
    let mut several = 0;
    for capture in all {
        // What cannot be read as a capture has no records.
        let out = common::syntap().args(["replay", "--json"]).arg(&capture).output().expect("it starts");
        let mut by: HashMap<String, Vec<(u64, u64)>> = HashMap::new();
        for r in common::json_lines(&out) {
            let ns = |name: &str| r[name].as_u64().expect("a number");
            let span = (ns("first_ns"), ns("last_ns"));
            assert!(span.0 <= span.1 && ns("count") >= 1, "{r}");
            if let Some(whose) = whose(&r) {
                by.entry(whose).or_default().push(span);
            }
        }
        for (whose, mut spans) in by {
            spans.sort_unstable();
            several += usize::from(spans.len() > 1);
            assert!(spans.windows(2).all(|w| w[0].1 < w[1].0), "{}: {whose}: {spans:?}", capture.display());
        }
    }
    println!("{several} tuples have a kind more than once");
}

#[test]
fn a_syn_that_is_sent_again_is_one_episode_and_a_later_attempt_is_another() {
    let mut c = Capture::default();
    for isn in [1_000, 9_000_000] {
        let mut talk = Talk::new(40_000);
        talk.next[0] = isn;
        let syn = talk.client(common::packet::SYN, 0);
        for ms in [0.0, 1_000.0, 2_000.0, 4_000.0, 8_000.0] {
            c.after(ms, syn.frame());
        }
        c.quiet(200_000.0);
    }
    let all = c.records();
    let unanswered = of_kind(&all, "syn_unanswered");
    let told: Vec<(&Value, &Value)> =
        unanswered.iter().map(|r| (&r["count"], &r["facts"]["attempts"])).collect();
    let five = Value::from(5);
    let once = Value::from(1);
    assert_eq!(told, [(&once, &five), (&once, &five)], "{all:#?}");
}
