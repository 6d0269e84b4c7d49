//! The hook of kernels without tcx: clsact filters, which outlive the process that made them, and must not.

mod common;
mod net;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{TRANSPORTS, is_root, lab_by_hook};
use net::tap::{config, drain, ifindex, ping, serve};
use net::{NEAR_IP, Namespace, Wire, skip};
use serde_json::Value;
use syntap::bpf::attach::HookKind;
use syntap::capture::TapConfig;
use syntap::capture::tap::Tap;

const SYNTAP: &str = env!("CARGO_BIN_EXE_syntap");

fn int(v: &Value) -> i64 {
    v.as_i64().unwrap_or_else(|| panic!("not a number: {v}"))
}

#[test]
fn root_by_classic_hooks_a_gateway_forwards_every_byte_and_nothing_stays() {
    if !is_root() {
        return;
    }
    for transport in TRANSPORTS {
        let dir = tempfile::tempdir().expect("a directory");
        let records = dir.path().to_str().expect("a path");
        let truth = lab_by_hook(transport, &["mirror", SYNTAP, records, "20", "1000"]);
        for run in ["untapped", "tapped"] {
            let t = &truth[run];
            assert_eq!((int(&t["bulk"]["bytes"]), int(&t["bulk"]["wrong_blocks"])), (20 << 20, 0), "{run}");
            assert_eq!((int(&t["short"]["ok"]), int(&t["short"]["errors"])), (1000, 0), "{run}: {t}");
            for part in ["bulk", "short"] {
                assert_eq!((int(&t[part]["OutRsts"]), int(&t[part]["EstabResets"])), (0, 0), "{run}: {t}");
            }
        }
        assert_eq!(int(&truth["exit"]), 0, "{truth}");
        let during = &truth["during"];
        assert!(during["tcx"].as_object().expect("counts").values().all(|n| n == 0), "{truth}");
        assert!(during["classic"].as_object().expect("counts").values().all(|n| n == 1), "{truth}");
        assert_eq!(truth["before"], truth["after"], "filters are gone: {truth}");
    }
}

#[test]
fn root_a_classic_tap_killed_or_stopped_harms_nobody_and_the_supervisor_cleans_up() {
    if !is_root() {
        return;
    }
    for (how, exit) in [("kill", -9), ("stop", 0)] {
        let dir = tempfile::tempdir().expect("a directory");
        let truth = lab_by_hook("ringbuf", &["killed", SYNTAP, dir.path().to_str().expect("a path"), how]);
        for r in truth["results"].as_array().expect("two clients") {
            assert_eq!((int(&r["ok"]), int(&r["wrong"]), int(&r["errors"])), (1500, 0, 0), "{how}: {r}");
            assert_eq!(int(&r["slow"]), 0, "a lost SYN costs a second: {r}");
        }
        assert_eq!(int(&truth["exit"]), exit, "{truth}");
        assert_eq!(truth["before"], truth["after"], "{how}: {truth}");
    }
}

fn classic(interface: &str) -> TapConfig {
    TapConfig { hook: Some(HookKind::Classic), ..config(interface, None, "8080") }
}

/// What is told of the first tap point's hooks.
fn hooks(tap: &Tap) -> (HookKind, bool, bool) {
    let hooks = tap.points()[0].hooks.expect("it is tapped inline");
    (hooks.kind, hooks.behind, hooks.made_qdisc)
}

/// `tc`'s own words of what is at an interface's hooks.
fn filters(ns: &Namespace) -> String {
    ["ingress", "egress"].map(|hook| ns.sh(&format!("tc filter show dev near {hook}"))).concat()
}

/// How many of them are syntap's.
fn ours(filters: &str) -> usize {
    filters.matches("handle 0x5374").count()
}

fn qdiscs(ns: &Namespace) -> String {
    ns.sh("tc qdisc show dev near")
}

/// Waits until something is so; the supervisor and the kernel take their time.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn root_filters_and_a_qdisc_of_others_stay_as_they_were() {
    if skip("root_filters_and_a_qdisc_of_others_stay_as_they_were") {
        return;
    }
    let wire = Wire::new();
    wire.near.sh("tc qdisc add dev near clsact");
    wire.near.sh("tc filter add dev near ingress pref 7 protocol ip u32 match u32 0 0 classid 1:1");
    let before = (filters(&wire.near), qdiscs(&wire.near));
    {
        let (tap, mut sources) = wire.near.run(|| Tap::open(&classic("near"))).expect("the tap opens");
        assert_eq!(hooks(&tap), (HookKind::Classic, false, false), "in front of the other");
        let at = filters(&wire.near);
        assert!(at.contains("syntap_ingress") && at.contains("syntap_egress"), "{at}");
        let server = format!("{NEAR_IP}:8080");
        serve(&wire.near, &server, 1, || {
            wire.far.run(|| ping(&server));
        });
        assert!(drain(&mut sources).iter().filter(|s| s.is_tcp()).count() >= 6);
        // One that came after the tap stays as well, at the tap's own priority too.
        wire.near.sh("tc filter add dev near egress pref 9 protocol ip u32 match u32 0 0 classid 1:1");
    }
    assert_eq!(qdiscs(&wire.near), before.1);
    let after = filters(&wire.near);
    assert!(
        after.starts_with(before.0.trim_end()) && after.contains("pref 9") && !after.contains("syntap"),
        "{after}"
    );
}

#[test]
fn root_each_of_two_classic_taps_has_its_own_filters_and_the_qdisc_stays() {
    if skip("root_each_of_two_classic_taps_has_its_own_filters_and_the_qdisc_stays") {
        return;
    }
    let wire = Wire::new();
    let open = || wire.near.run(|| Tap::open(&classic("near"))).expect("the tap opens");
    let (first, second) = (open(), open());
    assert_eq!((hooks(&first.0).2, hooks(&second.0).2), (true, false), "who made the qdisc says so");
    assert_eq!(ours(&filters(&wire.near)), 4, "two each");
    drop(first);
    assert_eq!(ours(&filters(&wire.near)), 2, "only its own");
    drop(second);
    assert_eq!(filters(&wire.near), "");
    // With it packets would be lost.
    assert!(qdiscs(&wire.near).contains("clsact"));
}

#[test]
fn root_where_a_classic_filter_is_first_the_tap_goes_behind_it_and_says_so() {
    if skip("root_where_a_classic_filter_is_first_the_tap_goes_behind_it_and_says_so") {
        return;
    }
    let wire = Wire::new();
    wire.near.sh("tc qdisc add dev near clsact");
    wire.near.sh("tc filter add dev near ingress pref 1 protocol ip u32 match u32 0 0 classid 1:1");
    let (tap, _sources) = wire.near.run(|| Tap::open(&classic("near"))).expect("the tap opens");
    assert_eq!(hooks(&tap), (HookKind::Classic, true, false));
}

/// `syntap run` on `near`, until its records are open.
fn run(wire: &Wire, dir: &std::path::Path) -> Child {
    let mut child = Command::new("ip")
        .args([
            "netns",
            "exec",
            &wire.near.name,
            SYNTAP,
            "run",
            "--user",
            "root",
            "-i",
            "near",
            "--hook",
            "classic",
            "-w",
        ])
        .arg(dir)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map(Result::unwrap);
    lines.find(|l| l.contains("records go to")).expect("it taps");
    // Goes on reading, so that nothing it says blocks it.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// The process that takes filters off: the one of its name in the tap's namespace.
fn supervisor(ns: &Namespace) -> Option<i32> {
    let pids = ns.sh(&format!("ip netns pids {}", ns.name));
    let name = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids.split_whitespace().find(|pid| name(pid).trim() == "syntap-hooks").and_then(|pid| pid.parse().ok())
}

#[test]
fn root_what_a_killed_tap_and_its_killed_supervisor_left_is_harmless_told_and_removed() {
    if skip("root_what_a_killed_tap_and_its_killed_supervisor_left_is_harmless_told_and_removed") {
        return;
    }
    let wire = Wire::new();
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = run(&wire, dir.path());
    let pid = supervisor(&wire.near).expect("a classic tap has a supervisor");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    for line in [
        "CapPrm:\t0000000000001000",
        "CapEff:\t0000000000001000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    // First the supervisor, so that nothing is there to clean up.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).expect("it is there");
    until("the supervisor dies", || supervisor(&wire.near).is_none());
    let check = || wire.near.sh(&format!("{SYNTAP} check -i near"));
    assert!(!check().contains("a killed tap left"), "its tap lives");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let left = filters(&wire.near);
    assert!(left.contains("syntap_ingress") && left.contains("syntap_egress"), "{left}");

    // Far more packets than the ring that nobody reads has room for.
    let server = format!("{NEAR_IP}:8080");
    serve(&wire.near, &server, 300, || {
        wire.far.run(|| {
            (0..300).for_each(|_| {
                ping(&server);
            })
        });
    });

    let said = check();
    assert_eq!(said.matches("a killed tap left its filter on").count(), 2, "{said}");
    // The command that it names removes one of them; the next tap the other one.
    let mend = said.lines().find_map(|l| l.trim().strip_prefix("mend: tc ")).expect("a command");
    wire.near.sh(&format!("tc {mend}"));
    assert_eq!((ours(&left), ours(&filters(&wire.near))), (2, 1), "{mend}");
    let (tap, _sources) = wire.near.run(|| Tap::open(&classic("near"))).expect("the tap opens");
    let at = filters(&wire.near);
    assert_eq!(ours(&at), 2, "{at}");
    drop(tap);
    assert_eq!(filters(&wire.near), "");
}

#[test]
fn root_a_classic_tap_ended_orderly_leaves_no_process_and_one_killed_none_for_long() {
    if skip("root_a_classic_tap_ended_orderly_leaves_no_process_and_one_killed_none_for_long") {
        return;
    }
    let wire = Wire::new();
    for signal in [nix::sys::signal::SIGTERM, nix::sys::signal::SIGKILL] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = run(&wire, dir.path());
        assert!(supervisor(&wire.near).is_some());
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).expect("it is there");
        child.wait().expect("it ends");
        until("the supervisor ends", || supervisor(&wire.near).is_none());
        assert_eq!(filters(&wire.near), "", "{signal}");
    }
}

#[test]
fn root_an_interface_that_comes_back_is_hooked_again_and_cleaned_up() {
    if skip("root_an_interface_that_comes_back_is_hooked_again_and_cleaned_up") {
        return;
    }
    let wire = Wire::new();
    let (mut tap, _sources) = wire.near.run(|| Tap::open(&classic("near"))).expect("the tap opens");
    for _ in 0..40 {
        wire.near.ip("link del near");
        until("it is gone", || tap.look().expect("a look").iter().any(|(n, _)| *n == 0));
        let far = &wire.far.name;
        wire.near.ip(&format!("link add near type veth peer name far netns {far}"));
        wire.near.ip("link set near up");
        until("it is back", || {
            tap.look().expect("a look");
            filters(&wire.near).contains("syntap_ingress")
        });
    }
    assert!(ifindex(&wire.near, "near") > 0);
    drop(tap);
    assert_eq!(filters(&wire.near), "");
}
