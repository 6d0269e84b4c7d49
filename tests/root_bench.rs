//! The bench's parts all run: as little of each as there is, by binaries that are not optimised. No figure is looked at but those that
//! count packets.

mod net;

use std::path::Path;
use std::process::Command;

use net::skip;
use serde_json::Value;

/// Runs a tool of the repository with what `cargo test` built, and returns the results that it wrote.
fn run(tool: &str, args: &[&str]) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target =
        Path::new(env!("CARGO_BIN_EXE_syntap")).parent().and_then(Path::parent).expect("target/debug");
    let output = target.join("tmp").join(format!("{tool}-{}.json", std::process::id()));
    let done = Command::new(root.join("tools").join(tool))
        .args(args)
        .args(["--no-setup", "--output"])
        .arg(&output)
        .env("SYNTAP_BENCH_PROFILE", "debug")
        .env("CARGO_TARGET_DIR", target)
        .output()
        .expect("the tool runs");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    let results = serde_json::from_slice(&std::fs::read(&output).expect("results")).expect("JSON");
    let _ = std::fs::remove_file(&output);
    results
}

fn number(results: &Value, name: &str, at: &str) -> f64 {
    results["measurements"][name]
        .pointer(at)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{name} {at} in {results:#}"))
}

#[test]
fn every_part_of_the_bench_runs_and_its_packets_arrive() {
    if skip("every_part_of_the_bench_runs_and_its_packets_arrive") {
        return;
    }
    let r = run("bench", &["--smoke"]);
    for family in ["IPv4", "IPv6"] {
        let name = format!("worker, 1 k flows, {family}");
        assert_eq!(number(&r, &name, "/details/malformed"), 0.0);
        // One life of each of 1,024 slots, but for a bucket that is full by chance.
        assert!((1000.0..1100.0).contains(&number(&r, &name, "/details/lives_begun")));
    }
    if std::thread::available_parallelism().is_ok_and(|n| n.get() > 1) {
        let got = "/details/last/received/received";
        assert!(number(&r, "AF_XDP, frames handed back at once", got) > 1000.0);
        assert!(number(&r, "AF_XDP, full pipeline", got) > 1000.0);
        assert!(number(&r, "forwarding untapped, long mix", "/value") > 1000.0);
        let mirrored = "/details/mirrored_share_at_the_hooks";
        let ways: Vec<&String> = r["measurements"].as_object().unwrap().keys().collect();
        for way in
            ways.iter().filter(|n| n.starts_with("forwarding tapped, long mix") && n.ends_with("no budget"))
        {
            let share = number(&r, way, mirrored);
            assert!((0.15..0.25).contains(&share), "one packet in five is control: {way} {share}");
        }
    }
}

#[test]
fn the_bench_of_ports_runs_on_a_veth_pair_and_sends_nowhere_else() {
    if skip("the_bench_of_ports_runs_on_a_veth_pair_and_sends_nowhere_else") {
        return;
    }
    if std::thread::available_parallelism().is_ok_and(|n| n.get() < 2) {
        eprintln!("skipped the_bench_of_ports_runs_on_a_veth_pair_and_sends_nowhere_else: one CPU");
        return;
    }
    let r = run("nic-bench", &["--veth", "--runs", "1", "--seconds", "0.2"]);
    assert!(number(&r, "packets that came", "/value") > 1000.0);
    assert_eq!(number(&r, "receive queues", "/value"), 2.0);
    assert_eq!(r["ports"][0]["driver"], "veth");
    // Without the flag that names the port, with one port for both, with a port that is in use: not a packet.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for args in [
        &["--generator", "lo", "--tapped", "none"][..],
        &["--generator", "lo", "--tapped", "lo", "--transmit-on", "lo"],
        &["--generator", "lo", "--tapped", "none", "--transmit-on", "lo"],
    ] {
        let refused = Command::new(root.join("tools/nic-bench"))
            .args(args)
            .arg("--no-setup")
            .env("SYNTAP_BENCH_PROFILE", "debug")
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).starts_with("nic-bench: "), "{refused:?}");
    }
}
