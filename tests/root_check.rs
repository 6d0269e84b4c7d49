//! Which interfaces may be tapped how, and that `check` and `run` say the same of it.

mod common;
mod net;

use std::process::Command;

use net::{Namespace, Wire, skip};

/// `syntap` in a namespace: exit code, standard output, standard error.
fn syntap(ns: &Namespace, args: &str) -> (Option<i32>, String, String) {
    let program = env!("CARGO_BIN_EXE_syntap");
    let out = Command::new("ip")
        .args(["netns", "exec", &ns.name, program])
        .args(args.split_whitespace())
        .output()
        .expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (out.status.code(), text(out.stdout), text(out.stderr))
}

fn as_span(ns: &Namespace) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let args = format!("run --user root -i near=span --duration 1 -w {}", dir.path().display());
    let (code, _, said) = syntap(ns, &args);
    let (checked, told, _) = syntap(ns, "check -i near=span");
    assert_eq!(code, checked, "check agrees with run: {told}\n{said}");
    if code == Some(2) {
        let why = said.lines().find_map(|l| l.strip_prefix("syntap: ")).expect("a reason");
        assert!(told.contains(why), "in the same words: {told}\n{said}");
    }
    (code, said)
}

#[test]
fn root_span_is_refused_wherever_something_speaks_for_live_traffic() {
    if skip("root_span_is_refused") {
        return;
    }
    for (setup, word) in [
        (&["addr add 192.0.2.1/32 dev near"][..], "the address 192.0.2.1"),
        (&["addr add fd00:7::1/128 dev near"], "the address fd00:7::1"),
        (&["route add 10.1.0.0/16 dev near table 100"], "the route to 10.1.0.0/16"),
        (&["route add default dev near"], "the default route"),
        (&["-6 route add fd00:1::/64 dev near"], "the route to fd00:1::/64"),
        (
            &[
                "link add two type veth peer name owt",
                "link set two up",
                "route add 10.2.0.0/16 nexthop dev two nexthop dev near",
            ],
            "the route to 10.2.0.0/16",
        ),
        (&["link add br0 type bridge", "link set near master br0"], "belongs to br0"),
        (&["link add link near name upper type macvlan"], "upper is on top"),
    ] {
        let wire = Wire::bare();
        setup.iter().for_each(|line| drop(wire.near.ip(line)));
        let (code, said) = as_span(&wire.near);
        assert_eq!(code, Some(2), "{setup:?}: {said}");
        assert!(said.contains(word) && said.contains("\nhint: "), "{setup:?}: {said}");
    }
}

#[test]
fn root_span_is_taken_where_there_are_link_local_addresses_and_routes_only() {
    if skip("root_span_is_taken") {
        return;
    }
    let wire = Wire::bare();
    wire.near.ip("addr add fe80::5/64 dev near nodad");
    assert!(wire.near.ip("-6 route show table all dev near").contains("ff00::/8"), "there are such routes");
    let (code, said) = as_span(&wire.near);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn root_check_judges_an_interface_in_the_role_that_is_named() {
    if skip("root_check_judges") {
        return;
    }
    let wire = Wire::new();
    let (code, said, _) = syntap(&wire.near, "check -i near");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("will be tapped inline") && said.contains("about 0.1 us"), "{said}");
    let each =
        ["--transport ringbuf, which is auto: a BPF ring buffer", "--transport afxdp: the private veth pair"];
    assert!(each.iter().all(|line| said.contains(line)), "{said}");
    let bare = Wire::bare();
    let (code, said, _) = syntap(&bare.near, "check -i near");
    assert_eq!(code, Some(0));
    assert!(said.contains("will be tapped inline"), "without a word it is inline, whatever it is: {said}");
    let (code, said, _) = syntap(&bare.near, "check -i near=span");
    assert_eq!(code, Some(0));
    assert!(said.contains("will be tapped as span") && said.contains("XDP: native"), "{said}");
    bare.near.ip("link set near mtu 9000");
    let (_, said, _) = syntap(&bare.near, "check -i near=span");
    assert!(said.contains("probably generic"), "{said}");
    let (code, _, said) = syntap(&bare.near, "check -i near=sideways");
    assert_eq!(code, Some(2));
    assert!(said.contains("unknown role 'sideways'"), "{said}");
}

#[test]
fn root_the_loopback_and_tunnels_are_refused_by_run_and_by_check() {
    if skip("root_the_loopback_and_tunnels") {
        return;
    }
    let wire = Wire::new();
    wire.near.ip("tuntap add tun1 mode tun");
    let dir = tempfile::tempdir().expect("a directory");
    for (name, word, hint) in [
        ("lo", "it is the loopback", "tap the interface that the traffic comes in by"),
        ("tun1", "no Ethernet header", "tap the Ethernet interface under it"),
    ] {
        let args = format!("run --user root -i {name} -w {}", dir.path().display());
        let (code, _, said) = syntap(&wire.near, &args);
        assert_eq!(code, Some(2));
        assert!(said.contains(word) && said.ends_with(&format!("\nhint: {hint}\n")), "{said}");
        let (code, said, _) = syntap(&wire.near, &format!("check -i {name}"));
        assert_eq!(code, Some(2));
        assert!(said.contains(word) && said.contains(hint), "{said}");
    }
}

#[test]
fn root_check_never_tells_how_to_take_off_what_somebody_else_attached() {
    if skip("root_check_never_tells") {
        return;
    }
    let wire = Wire::bare();
    let dir = tempfile::tempdir().expect("a directory");
    let first = format!("run --user root -i near=span -w {}", dir.path().display());
    let program = env!("CARGO_BIN_EXE_syntap");
    let mut other = Command::new("ip")
        .args(["netns", "exec", &wire.near.name, program])
        .args(first.split_whitespace())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let stderr = other.stderr.as_mut().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stderr), &mut line).expect("read");
    let (code, said, _) = syntap(&wire.near, "check -i near=span");
    other.kill().expect("it runs");
    other.wait().expect("a child");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("XDP program 'syntap_span'"), "{said}");
    assert!(said.contains("tap near inline") && !said.contains("xdp off"), "{said}");
}

#[test]
fn root_another_namespace_is_tapped_from_here_and_one_that_is_not_there_is_said() {
    if skip("root_another_namespace_is_tapped_from_here") {
        return;
    }
    let wire = Wire::new();
    let dir = tempfile::tempdir().expect("a directory");
    let run = |netns: &str| {
        let args = [
            "run",
            "--user",
            "root",
            "-i",
            "near",
            "--netns",
            netns,
            "--duration",
            "1",
            "--status",
            "0",
            "-w",
        ];
        Command::new(env!("CARGO_BIN_EXE_syntap")).args(args).arg(dir.path()).output().expect("it starts")
    };
    let out = run(&wire.near.name);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("tapping near inline"), "{said}");
    let out = run("syntap-nowhere");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("/run/netns/syntap-nowhere") && said.contains("hint: "), "{said}");
}
