//! The kernel's link-layer events, live: what a run makes of a bridge whose MAC address changes.

mod common;
mod net;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{json_lines, of_kind, run, syntap};
use net::{Namespace, sh, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const BEFORE: &str = "02:00:00:00:0b:01";
const AFTER: &str = "02:00:00:00:0b:02";

/// A gateway whose bridge br0 (10.9.0.1, ports p0 and p1) has a client (10.9.0.2) behind p0.
struct Lab {
    gateway: Namespace,
    client: Namespace,
    other: Namespace,
}

impl Lab {
    fn new() -> Lab {
        let (gateway, client, other) = (Namespace::new(), Namespace::new(), Namespace::new());
        gateway.ip(&format!("link add br0 address {BEFORE} type bridge"));
        for (port, ns) in [("p0", &client), ("p1", &other)] {
            sh(&format!(
                "ip link add {port} netns {} type veth peer name eth0 netns {}",
                gateway.name, ns.name
            ));
            gateway.ip(&format!("link set {port} addrgenmode none master br0 up"));
            ns.ip("link set eth0 addrgenmode none up");
        }
        gateway.ip("link set br0 addrgenmode none up");
        gateway.ip("addr add 10.9.0.1/24 dev br0");
        client.ip("addr add 10.9.0.2/24 dev eth0");
        Lab { gateway, client, other }
    }

    /// A connection from the client to the gateway.
    fn connection(&self) -> (TcpStream, TcpStream) {
        let address: SocketAddr = "10.9.0.1:8090".parse().unwrap();
        let server = self.gateway.run(|| TcpListener::bind(address).unwrap());
        let client =
            self.client.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap());
        (client, server.accept().unwrap().0)
    }

    /// Runs a tap of both ports while `work` is done; gives back what it said and its records.
    fn tapped(&self, dir: &Path, work: impl FnOnce()) -> (String, Vec<Value>) {
        let mut child = Running(
            Command::new("ip")
                .args(["netns", "exec", &self.gateway.name])
                .arg(env!("CARGO_BIN_EXE_syntap"))
                .args(["run", "--user", "root", "-i", "p0=inside,p1=inside", "--status", "0", "-w"])
                .arg(dir)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut stderr = BufReader::new(child.0.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("records go to") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
        }
        work();
        kill(Pid::from_raw(child.0.id() as i32), Signal::SIGINT).unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert!(child.0.wait().unwrap().success(), "{said}");
        let shards: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        let records = json_lines(&run(syntap().args(["show", "--json"]).args(shards)));
        (said, records)
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn root_a_bridge_that_changes_its_mac_under_a_connection_is_a_next_hop_that_changed() {
    if skip("root_a_bridge_that_changes_its_mac") {
        return;
    }
    let (lab, dir) = (Lab::new(), tempfile::tempdir().unwrap());
    let (said, records) = lab.tapped(dir.path(), || {
        let _open = lab.connection();
        lab.gateway.ip(&format!("link set br0 address {AFTER}"));
        thread::sleep(Duration::from_secs(2));
    });
    let told = of_kind(&records, "next_hop_changed");
    assert_eq!(told.len(), 1, "{said} {records:?}");
    let facts = &told[0]["facts"];
    assert_eq!((&facts["before"], &facts["after"]), (&BEFORE.into(), &AFTER.into()), "{facts}");
    assert_eq!((&told[0]["verdict"], &told[0]["certainty"]), (&"gateway".into(), &"proven".into()));
}

#[test]
fn root_a_mac_that_a_bridge_learns_at_two_ports_in_turn_moved() {
    if skip("root_a_mac_that_a_bridge_learns_at_two_ports") {
        return;
    }
    let (lab, dir) = (Lab::new(), tempfile::tempdir().unwrap());
    let (said, records) = lab.tapped(dir.path(), || {
        // No packet that a tap mirrors: the forwarding table alone shows it.
        for ns in [&lab.client, &lab.other, &lab.client, &lab.other] {
            ns.sh(
                "python3 -c \"import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0)); \
                 s.send(bytes.fromhex('ffffffffffff' + '02000000aa07' + '88b5') + bytes(46))\"",
            );
            thread::sleep(Duration::from_millis(200));
        }
    });
    let told = of_kind(&records, "mac_moved");
    assert_eq!(told.len(), 1, "once a minute: {said} {records:?}");
    assert_eq!(told[0]["facts"]["mac"], "02:00:00:00:aa:07", "{}", told[0]);
}

#[test]
fn root_a_quiet_bridge_says_nothing() {
    if skip("root_a_quiet_bridge") {
        return;
    }
    let (lab, dir) = (Lab::new(), tempfile::tempdir().unwrap());
    let (said, records) = lab.tapped(dir.path(), || {
        let _open = lab.connection();
        // Changes of a link that are none of its MAC address.
        lab.gateway.ip("link set br0 mtu 1400");
        thread::sleep(Duration::from_secs(1));
    });
    for kind in ["next_hop_changed", "mac_moved"] {
        assert!(of_kind(&records, kind).is_empty(), "{said} {records:?}");
    }
    assert!(!said.contains("link-layer events"), "{said}");
}
