//! Kinds that the real kernel shows, in namespaces of their own: a machine misbehaves, and the tap on the wire beside it says so.
//!
//! | kind | how the kernel is brought to it |
//! | --- | --- |
//! | accept_queue_overflow | a listener that never accepts, and two handshakes at once for the last place |
//! | syn_refused | a port where nobody listens; a port with an nft `reject` |
//! | syn_unanswered | a port with an nft `drop` |
//! | synack_unacknowledged | the client's ACKs held back by nft for longer than a second |
//! | reset_mid_flow | SO_LINGER 0 at the server |
//! | black_hole | an nft `drop` in the middle of a connection; a full accept queue behind SYN cookies |
//! | icmp_error | a router whose second link has a smaller MTU |
//! | tfo_refused | a client that sends data in its SYN to a server without Fast Open |
//! | invalid_flags | raw frames: null, xmas, SYN and FIN |
//! | mac_changed_in_flow | the client's MAC address is changed under an open connection |
//! | arp_two_answers | two machines on one bridge with one address and one MAC |
//! | address_conflict | two machines on one bridge with one address |
//!
//! The refusals of a tuple's reuse are live in `root_mirror`, the losses of the tool in `root_endings`. `half_closed_stuck` takes a
//! minute and is not shown live. Each test also says what else was found: nothing.

mod common;
mod net;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use common::packet::{FIN, PSH, SYN, Tcp, with_macs};
use common::{json_lines, of_kind, run, syntap, transport_option};
use net::tap::send_raw;
use net::{NEAR_IP, Namespace, Wire, sh, skip};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// `syntap run` on the `near` end of a wire.
struct Tap {
    child: Child,
    dir: tempfile::TempDir,
    reader: Option<thread::JoinHandle<()>>,
}

impl Tap {
    fn on(ns: &Namespace, interface: &str) -> Tap {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &ns.name,
                env!("CARGO_BIN_EXE_syntap"),
                "run",
                "--user",
                "root",
                "-i",
                interface,
                "-w",
            ])
            .arg(dir.path())
            .args(transport_option().split_whitespace())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|l| l.contains("records go to"));
        let reader = Some(thread::spawn(move || lines.for_each(drop)));
        let tap = Tap { child, dir, reader };
        assert!(ready, "it taps");
        tap
    }

    /// Ends the run; its records.
    fn records(mut self) -> Vec<Value> {
        // What came last is on its way through the rings.
        sleep(Duration::from_millis(200));
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("it runs");
        assert!(self.child.wait().expect("a child").success());
        self.reader.take().map(thread::JoinHandle::join);
        json_lines(&run(syntap().args(["show", "--json"]).arg(self.dir.path())))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A wire and the tap on its near end, where the servers are.
fn tapped() -> (Wire, Tap) {
    let wire = Wire::new();
    let tap = Tap::on(&wire.near, "near");
    (wire, tap)
}

/// An nftables chain of one rule, gone when it is dropped.
struct Rule<'a>(&'a Namespace, &'static str);

impl<'a> Rule<'a> {
    fn new(ns: &'a Namespace, table: &'static str, hook: &str, rule: &str) -> Rule<'a> {
        let text =
            format!("table ip {table} {{ chain c {{ type filter hook {hook} priority 0; {rule}; }}; }};");
        ns.sh(&format!("nft '{text}'"));
        Rule(ns, table)
    }
}

impl Drop for Rule<'_> {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "exec", &self.0.name, "nft", "delete", "table", "ip", self.1])
            .output();
    }
}

fn server(ns: &Namespace, port: u16) -> TcpListener {
    ns.run(|| TcpListener::bind((NEAR_IP, port)).expect("a free port"))
}

fn connect(ns: &Namespace, to: (&str, u16)) -> TcpStream {
    let to: SocketAddr = format!("{}:{}", to.0, to.1).parse().expect("an address");
    ns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("a connection"))
}

/// A connection both of whose ends are here, with a request and an answer behind it.
fn talking(wire: &Wire, port: u16) -> (TcpStream, TcpStream) {
    let listener = server(&wire.near, port);
    let mut client = connect(&wire.far, (NEAR_IP, port));
    let (mut peer, _) = listener.accept().expect("a connection");
    let mut bytes = [0; 4];
    client.write_all(b"ping").expect("sent");
    peer.read_exact(&mut bytes).expect("a request");
    peer.write_all(b"pong").expect("sent");
    client.read_exact(&mut bytes).expect("an answer");
    (client, peer)
}

/// The records of a kind and the responder's port, and of no other kind above `info`.
#[track_caller]
fn only<'a>(all: &'a [Value], kind: &str, port: u16) -> &'a Value {
    let of: Vec<_> = of_kind(all, kind).into_iter().filter(|r| r["dst_port"] == port).collect();
    assert_eq!(of.len(), 1, "{kind}: {all:#?}");
    let others: Vec<_> = all.iter().filter(|r| r["kind"] != kind && r["severity"] != "info").collect();
    // A machine that is busy with other tests may lose something, and then says so.
    let others: Vec<_> = others.into_iter().filter(|r| r["kind"] != "capture_gap").collect();
    assert!(others.is_empty(), "{others:#?}");
    of[0]
}

#[track_caller]
fn judged(r: &Value, severity: &str, verdict: &str, certainty: &str) {
    let words = [&r["severity"], &r["verdict"], &r["certainty"]];
    assert_eq!(words, [severity, verdict, certainty], "{}", r["summary"]);
}

#[test]
fn root_a_listener_that_never_accepts_repeats_its_syn_ack() {
    if skip("root_a_listener_that_never_accepts_repeats_its_syn_ack") {
        return;
    }
    let (wire, tap) = tapped();
    let listener = server(&wire.near, 7_001);
    // Room for three. With a smaller backlog the SYN queue is full as well, and SYN cookies take over.
    listen(&listener, Backlog::new(2).expect("a backlog")).expect("it listens");
    let _first: Vec<_> = (0..2).map(|_| connect(&wire.far, (NEAR_IP, 7_001))).collect();
    sleep(Duration::from_millis(50));
    // Two handshakes at once for one place: the ACKs of both are held back until both are in the SYN queue.
    let hold = Rule::new(&wire.far, "hold", "output", "tcp dport 7001 tcp flags & (syn | ack) == ack drop");
    let mut clients: Vec<_> = (0..2).map(|_| connect(&wire.far, (NEAR_IP, 7_001))).collect();
    drop(hold);
    clients.iter_mut().for_each(|c| c.write_all(b"anybody there?").expect("sent"));
    // The responder's timer: 1 s, then 2 s more.
    sleep(Duration::from_millis(3_500));
    let all = tap.records();
    let r = only(&all, "accept_queue_overflow", 7_001);
    judged(r, "warning", "responder", "likely");
    assert!(r["facts"]["attempts"].as_u64().expect("a count") >= 1);
    assert!(r["facts"]["acked_at"].as_u64().expect("a time") > r["first_ns"].as_u64().expect("a time"));
}

#[test]
fn root_a_full_accept_queue_behind_syn_cookies_is_not_called_the_networks() {
    if skip("root_a_full_accept_queue_behind_syn_cookies_is_not_called_the_networks") {
        return;
    }
    let (wire, tap) = tapped();
    let listener = server(&wire.near, 7_025);
    listen(&listener, Backlog::new(0).expect("a backlog")).expect("it listens");
    let hold = Rule::new(&wire.far, "hold", "output", "tcp dport 7025 tcp flags & (syn | ack) == ack drop");
    let mut clients: Vec<_> = (0..2).map(|_| connect(&wire.far, (NEAR_IP, 7_025))).collect();
    drop(hold);
    clients.iter_mut().for_each(|c| c.write_all(b"anybody there?").expect("sent"));
    sleep(Duration::from_millis(3_900));
    let all = tap.records();
    let r = only(&all, "black_hole", 7_025);
    judged(r, "warning", "unknown", "possible");
    assert!(r["summary"].as_str().expect("text").contains("never sent more than its SYN-ACK"));
}

#[test]
fn root_refusals_are_told_with_what_refused() {
    if skip("root_refusals_are_told_with_what_refused") {
        return;
    }
    let (wire, tap) = tapped();
    let _reject = Rule::new(
        &wire.near,
        "filter",
        "input",
        "tcp dport 7003 reject with icmp type admin-prohibited; tcp dport 7004 drop",
    );
    wire.far.run(|| {
        for (port, seconds) in [(7_002, 5.0), (7_003, 5.0), (7_004, 1.6)] {
            let to = format!("{NEAR_IP}:{port}").parse().unwrap();
            TcpStream::connect_timeout(&to, Duration::from_secs_f64(seconds)).expect_err("nobody there");
        }
    });
    // The capture must have gone on for a second after the last of several SYNs.
    sleep(Duration::from_millis(1_100));
    let all = tap.records();
    let by_rst = only(&all, "syn_refused", 7_002);
    judged(by_rst, "info", "responder", "proven");
    assert_eq!(by_rst["facts"]["by"], "rst");
    let by_icmp = only(&all, "syn_refused", 7_003);
    judged(by_icmp, "info", "responder", "proven");
    assert_eq!(by_icmp["facts"]["by"], "icmp 3/13 (prohibited)");
    assert_eq!(by_icmp["facts"]["from"], NEAR_IP);
    let dropped = only(&all, "syn_unanswered", 7_004);
    judged(dropped, "info", "unknown", "likely");
    assert_eq!(dropped["facts"]["attempts"], 2);
    let gap = dropped["facts"]["gaps_ms"][0].as_f64().expect("a gap");
    assert!((900.0..1_500.0).contains(&gap), "{gap}");
    assert_eq!(all.len(), 3, "{all:#?}");
}

#[test]
fn root_acks_held_back_are_a_syn_ack_without_acknowledgement() {
    if skip("root_acks_held_back_are_a_syn_ack_without_acknowledgement") {
        return;
    }
    let (wire, tap) = tapped();
    let _listener = server(&wire.near, 7_005);
    let hold = Rule::new(&wire.far, "hold", "output", "tcp dport 7005 tcp flags & (syn | ack) == ack drop");
    let mut client = connect(&wire.far, (NEAR_IP, 7_005));
    sleep(Duration::from_millis(1_400));
    drop(hold);
    client.write_all(b"at last").expect("sent");
    sleep(Duration::from_millis(300));
    let all = tap.records();
    let r = only(&all, "synack_unacknowledged", 7_005);
    judged(r, "warning", "network", "likely");
    assert_eq!(r["facts"]["attempts"], 2);
    assert!(r["facts"]["acknowledged_after_ms"].as_f64().expect("a time") >= 1_000.0);
}

#[test]
fn root_a_server_that_aborts_is_a_reset_in_mid_flow_and_one_that_closes_is_nothing() {
    if skip("root_a_server_that_aborts_is_a_reset_in_mid_flow") {
        return;
    }
    let (wire, tap) = tapped();
    let (mut client, peer) = talking(&wire, 7_006);
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&peer, sockopt::Linger, &linger).expect("set");
    drop(peer);
    assert_eq!(client.read(&mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    // The innocent one.
    let (client, peer) = talking(&wire, 7_007);
    drop(peer);
    sleep(Duration::from_millis(50));
    drop(client);
    let all = tap.records();
    let r = only(&all, "reset_mid_flow", 7_006);
    judged(r, "warning", "responder", "likely");
    let f = &r["facts"];
    assert_eq!((&f["by"], &f["bytes_orig"], &f["bytes_resp"]), (&json!("resp"), &json!(4), &json!(4)));
    assert_eq!((&f["in_window"], &f["after_fin"]), (&json!(true), &json!(false)));
    assert_eq!((&f["ttl"], &f["usual_ttl"]), (&json!(64), &json!(64)));
    assert_eq!(all.len(), 1, "{all:#?}");
}

#[test]
fn root_a_filter_in_the_middle_of_a_connection_is_a_black_hole() {
    if skip("root_a_filter_in_the_middle_of_a_connection_is_a_black_hole") {
        return;
    }
    let (wire, tap) = tapped();
    let (mut client, _peer) = talking(&wire, 7_008);
    let _drop = Rule::new(&wire.near, "filter", "input", "tcp dport 7008 drop");
    client.write_all(b"hello?").expect("sent");
    // 0.2, 0.4, 0.8, 1.6 s, and a probe of the tail before them.
    sleep(Duration::from_millis(3_900));
    let all = tap.records();
    let r = only(&all, "black_hole", 7_008);
    judged(r, "warning", "network", "likely");
    let f = &r["facts"];
    assert!(f["attempts"].as_u64().expect("a count") >= 4, "{f}");
    let gaps: Vec<f64> = f["gaps_ms"].as_array().expect("gaps").iter().filter_map(Value::as_f64).collect();
    assert!(gaps.len() >= 3 && gaps.last() > gaps.first(), "{f}");
    let mac = wire.near.sh("cat /sys/class/net/near/address");
    assert_eq!(f["last_mac"], mac.trim());
}

#[test]
fn root_a_link_with_a_smaller_mtu_is_told_by_the_routers_own_error() {
    if skip("root_a_link_with_a_smaller_mtu_is_told_by_the_routers_own_error") {
        return;
    }
    let wire = Wire::new();
    let end = Namespace::new();
    // The far side of the second link knows nothing of its MTU, and so offers a larger segment size.
    let (router, far) = (&wire.near, &wire.far);
    sh(&format!("ip link add beyond netns {} type veth peer name near netns {}", router.name, end.name));
    router.ip("link set beyond addrgenmode none mtu 1300 up");
    end.ip("link set near addrgenmode none up");
    router.ip("addr add 10.9.1.1/24 dev beyond");
    end.ip("addr add 10.9.1.2/24 dev near");
    end.ip("route add default via 10.9.1.1");
    far.ip("route add 10.9.1.0/24 via 10.9.0.1");
    router.sh("sysctl -qw net.ipv4.ip_forward=1");
    let tap = Tap::on(router, "near");
    let listener = end.run(|| TcpListener::bind("10.9.1.2:7009").expect("a free port"));
    let mut client = connect(far, ("10.9.1.2", 7_009));
    let (mut peer, _) = listener.accept().expect("a connection");
    client.write_all(&[7; 4_000]).expect("sent");
    peer.read_exact(&mut [0; 4_000]).expect("it arrives all the same");
    let all = tap.records();
    let r = only(&all, "icmp_error", 7_009);
    judged(r, "info", "network", "proven");
    let f = &r["facts"];
    assert_eq!((&f["by"], &f["mtu"]), (&json!("icmp 3/4 (too big)"), &json!(1_300)));
    assert_eq!(f["from"], NEAR_IP);
    assert_eq!(all.len(), 1, "{all:#?}");
}

#[test]
fn root_data_in_a_syn_to_a_server_without_fast_open_is_told() {
    if skip("root_data_in_a_syn_to_a_server_without_fast_open_is_told") {
        return;
    }
    let (wire, tap) = tapped();
    // 1: as a client; 4: even without a cookie.
    wire.far.sh("sysctl -qw net.ipv4.tcp_fastopen=5");
    let listener = server(&wire.near, 7_010);
    let code = format!(
        "import socket; s = socket.socket(); s.sendto(b'x' * 100, socket.MSG_FASTOPEN, ('{NEAR_IP}', 7010)); s.recv(1)"
    );
    let client = Command::new("ip").args(["netns", "exec", &wire.far.name, "python3", "-c", &code]).spawn();
    let mut client = client.expect("it starts");
    let (mut peer, _) = listener.accept().expect("a connection");
    peer.read_exact(&mut [0; 100]).expect("the data, once more");
    drop(peer);
    assert!(client.wait().expect("a child").success());
    let all = tap.records();
    let r = only(&all, "tfo_refused", 7_010);
    judged(r, "info", "responder", "proven");
    assert_eq!(r["facts"], json!({"bytes": 100}));
    assert_eq!(all.len(), 1, "{all:#?}");
}

#[test]
fn root_flags_that_no_stack_sends_are_mirrored_and_named() {
    if skip("root_flags_that_no_stack_sends_are_mirrored_and_named") {
        return;
    }
    let (wire, tap) = tapped();
    let mac = |ns: &Namespace, link: &str| -> [u8; 6] {
        let text = ns.sh(&format!("cat /sys/class/net/{link}/address"));
        let bytes: Vec<u8> =
            text.trim().split(':').map(|b| u8::from_str_radix(b, 16).expect("hex")).collect();
        bytes.try_into().expect("six bytes")
    };
    let (from, to) = (mac(&wire.far, "far"), mac(&wire.near, "near"));
    const URG: u8 = 32;
    let odd = [(0, "null"), (FIN | PSH | URG, "xmas"), (SYN | FIN, "syn_fin"), (FIN, "fin")];
    let frames: Vec<_> = (7_011u16..)
        .zip(odd)
        .map(|(port, (flags, _))| {
            let tcp = Tcp {
                src: ("10.9.0.2".parse().unwrap(), 40_000),
                dst: (NEAR_IP.parse().unwrap(), port),
                flags,
                seq: 1,
                ack: 0,
                win: 1_024,
                options: vec![],
                payload: 0,
                ttl: 64,
                id: port,
            };
            with_macs(tcp.frame(), from, to)
        })
        .collect();
    send_raw(&wire, &frames);
    let all = tap.records();
    for (port, (_, name)) in (7_011u16..).zip(odd) {
        let r = only(&all, "invalid_flags", port);
        judged(r, "info", "originator", "proven");
        assert_eq!(r["facts"]["name"], name);
    }
}

#[test]
fn root_a_mac_that_changes_under_a_connection_is_told_with_both() {
    if skip("root_a_mac_that_changes_under_a_connection_is_told_with_both") {
        return;
    }
    let (wire, tap) = tapped();
    let (mut client, mut peer) = talking(&wire, 7_020);
    let before = wire.far.sh("cat /sys/class/net/far/address").trim().to_owned();
    wire.far.ip("link set far address 02:00:00:00:77:20");
    client.write_all(b"it is me").expect("sent");
    peer.read_exact(&mut [0; 8]).expect("it arrives");
    let all = tap.records();
    let r = only(&all, "mac_changed_in_flow", 7_020);
    judged(r, "info", "unknown", "likely");
    assert_eq!(r["facts"], json!({"side": "orig", "before": before, "after": "02:00:00:00:77:20"}));
}

/// A machine that is tapped, and two more with one address on its bridge. `macs` of the two.
fn two_of_one_address(macs: [&str; 2]) -> Vec<Value> {
    let (asker, switch, hosts) = (Namespace::new(), Namespace::new(), [Namespace::new(), Namespace::new()]);
    switch.ip("link add br0 type bridge mcast_snooping 0");
    switch.ip("link set br0 addrgenmode none up");
    let plug = |ns: &Namespace, port: &str| {
        sh(&format!("ip link add eth0 netns {} type veth peer name {port} netns {}", ns.name, switch.name));
        switch.ip(&format!("link set {port} master br0 addrgenmode none up"));
        ns.ip("link set eth0 addrgenmode none");
    };
    plug(&asker, "p0");
    asker.ip("link set eth0 up");
    asker.ip("addr add 10.9.2.1/24 dev eth0");
    for (n, (host, mac)) in hosts.iter().zip(macs).enumerate() {
        plug(host, &format!("p{}", n + 1));
        host.ip(&format!("link set eth0 address {mac} up"));
        host.ip("addr add 10.9.2.2/24 dev eth0");
    }
    let tap = Tap::on(&asker, "eth0");
    asker.run(|| {
        let to = "10.9.2.2:7030".parse().unwrap();
        let begun = Instant::now();
        let _ = TcpStream::connect_timeout(&to, Duration::from_secs(2));
        // A conflict waits a second for a sign that one of the two is a bridge.
        sleep(Duration::from_millis(1_300).saturating_sub(begun.elapsed()));
    });
    tap.records()
}

#[test]
fn root_two_machines_with_one_address_are_a_conflict() {
    if skip("root_two_machines_with_one_address_are_a_conflict") {
        return;
    }
    let all = two_of_one_address(["02:00:00:00:77:31", "02:00:00:00:77:32"]);
    let of = of_kind(&all, "address_conflict");
    assert_eq!(of.len(), 1, "{all:#?}");
    judged(of[0], "error", "network", "proven");
    assert_eq!(of[0]["facts"]["request"], "10.9.2.2");
    let mut macs: Vec<_> =
        of[0]["facts"]["macs"].as_array().expect("MACs").iter().map(Value::to_string).collect();
    macs.sort();
    assert_eq!(macs, ["\"02:00:00:00:77:31\"", "\"02:00:00:00:77:32\""]);
    assert!(of_kind(&all, "arp_two_answers").is_empty());
}

#[test]
fn root_two_machines_with_one_mac_are_a_duel() {
    if skip("root_two_machines_with_one_mac_are_a_duel") {
        return;
    }
    let all = two_of_one_address(["02:00:00:00:77:41", "02:00:00:00:77:41"]);
    let of = of_kind(&all, "arp_two_answers");
    assert_eq!(of.len(), 1, "{all:#?}");
    judged(of[0], "warning", "network", "likely");
    assert_eq!(of[0]["facts"]["mac"], "02:00:00:00:77:41");
    assert!(of_kind(&all, "address_conflict").is_empty(), "{all:#?}");
}
