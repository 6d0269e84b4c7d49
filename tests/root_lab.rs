//! The lab's quick scenarios: what syntap records of trouble that real kernels make, against what they counted themselves.
//! `tools/lab all` runs all of them, and more of each.

mod common;

use std::time::{Duration, Instant};

use common::{is_root, json_lines, lab, syntap};
use serde_json::Value;

const SYNTAP: &str = env!("CARGO_BIN_EXE_syntap");

/// Criteria that are not met yet: by the beginning of the scenario, and words of what is compared.
const NOT_YET: &[(&str, &str)] = &[];

/// Runs scenarios, each within its time, and holds what they compare against what is expected.
fn run(scenarios: &[&[&str]]) {
    if !is_root() {
        return;
    }
    for names in scenarios {
        let dir = tempfile::tempdir().expect("a directory");
        let records = dir.path().to_str().expect("a path");
        let begun = Instant::now();
        let truth = lab(&[&names[..1], &[SYNTAP, records, "quick"], &names[1..]].concat());
        // Twice what it takes alone: others are at work on this machine.
        assert!(begun.elapsed() < Duration::from_secs(40), "{names:?} took {:?}", begun.elapsed());
        let variants = truth["variants"].as_array().cloned().unwrap_or_else(|| vec![truth.clone()]);
        for one in variants {
            judge(&one);
        }
    }
}

fn judge(one: &Value) {
    let name = one["scenario"].as_str().expect("a name");
    if let Some(why) = one["skipped"].as_str() {
        println!("skipped: {name}: {why}");
        return;
    }
    let checks = one["checks"].as_array().expect("what was compared");
    assert!(!checks.is_empty(), "{name}");
    for c in checks {
        let what = c["what"].as_str().expect("words");
        let known = NOT_YET.iter().any(|(s, w)| name.starts_with(s) && what.contains(w));
        assert!(known || c["ok"] == true, "{name}: {c}\n{:#}\n{:#}", one["truth"], one["recorded"]);
    }
}

#[test]
fn root_syns_that_a_gateway_drops_are_told_from_those_that_others_do() {
    run(&[&["snat-race"], &["lossy"], &["lossy-gateway"]]);
}

#[test]
fn root_ports_that_are_used_up_or_passed_on_too_early_are_the_gateways_doing() {
    run(&[&["snat-exhaust"], &["time-wait-reuse"]]);
}

#[test]
fn root_a_lost_translation_is_one_incident_and_a_harmless_flush_is_none() {
    run(&[&["nat-mapping-lost", "flush-client", "flush-server", "flush-random", "uplink", "bridge-leave"]]);
}

#[test]
fn root_two_that_answer_for_one_machine_are_found_and_odd_things_that_harm_nobody_are_quiet() {
    run(&[&["arp-conflict"], &["arp-duel"], &["benign-odd"]]);
}

#[test]
fn root_figures_of_a_live_run_hold_every_connection_and_every_flag() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let truth = lab(&["healthy", SYNTAP, dir.path().to_str().expect("a path"), "200"]);
    if let Some(why) = truth["skipped"].as_str() {
        println!("skipped: {why}");
        return;
    }
    let out = common::run(syntap().args(["show", "--json", "--kind", "figures"]).arg(dir.path()));
    let figures = json_lines(&out);
    let sum = |interface: &str, path: &str| -> u64 {
        let own = figures.iter().filter(|r| r["interface"] == interface);
        own.map(|r| r["facts"].pointer(path).and_then(Value::as_u64).unwrap_or(0)).sum()
    };
    for (interface, way, back) in [("in0", "ingress", "egress"), ("out0", "egress", "ingress")] {
        let count = |path: &str| sum(interface, path);
        assert_eq!(
            (count("/attempts"), count("/handshakes"), count("/failed")),
            (200, 200, 0),
            "{figures:?}"
        );
        // Those that the kernel side counted, mirrored or not.
        assert_eq!((count(&format!("/flags/{way}/S")), count(&format!("/flags/{back}/S."))), (200, 200));
    }
}
