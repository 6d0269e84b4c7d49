//! However a live run ends, and whatever is taken from it meanwhile: what it found is written, and what it lost is said.

mod common;
mod net;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::packet::{ACK, RST, SYN, Tcp};
use common::{TRANSPORTS, json_lines, of_kind, run, syntap, transport_option};
use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};
use net::{Namespace, Wire, sh, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// `syntap run` in a namespace.
struct Tap {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Tap {
    fn start(ns: &Namespace, args: &str) -> Tap {
        let transport = if args.contains("--transport") { String::new() } else { transport_option() };
        Tap::through(ns, &format!("exec {} run --user root {args}{transport}", env!("CARGO_BIN_EXE_syntap")))
    }

    fn through(ns: &Namespace, script: &str) -> Tap {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &ns.name, "sh", "-c", script])
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, to) = (child.stderr.take().expect("piped"), lines.clone());
        // Ends, and closes the pipe, with the line that asks for it.
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                to.lock().unwrap().push(line);
                if to.lock().unwrap().iter().any(|l| l == "close") {
                    break;
                }
            }
        });
        let tap = Tap { child, lines, reader: Some(reader) };
        tap.wait_for("records go to");
        tap
    }

    fn said(&self, what: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|l| l.contains(what)).count()
    }

    fn wait_for(&self, what: &str) {
        let begun = Instant::now();
        while self.said(what) == 0 {
            let lines = self.lines.lock().unwrap().join("\n");
            assert!(begun.elapsed() < Duration::from_secs(20), "'{what}' is not said: {lines}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops reading what it says: from now on nobody does.
    fn close_stderr(&mut self) {
        self.lines.lock().unwrap().push("close".into());
        self.reader.take().map(thread::JoinHandle::join);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Waits for its end: exit code, and all it said.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().expect("a child").code();
        self.reader.take().map(thread::JoinHandle::join);
        (code, self.lines.lock().unwrap().join("\n"))
    }

    fn stop(self) -> (Option<i32>, String) {
        self.signal(Signal::SIGTERM);
        self.end()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects from `far` to ports where nobody listens.
fn knock(wire: &Wire, host: &str, ports: std::ops::Range<u16>) {
    wire.far.run(|| {
        for port in ports {
            let to: SocketAddr = format!("{host}:{port}").parse().unwrap();
            TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect_err("nobody listens");
        }
    });
}

fn records(dir: &Path) -> Vec<Value> {
    json_lines(&run(syntap().args(["show", "--json"]).arg(dir)))
}

fn has(records: &[Value], kind: &str, port: u16) -> bool {
    of_kind(records, kind).iter().any(|r| r["dst_port"] == port)
}

fn gap<'a>(records: &'a [Value], cause: &str) -> Vec<&'a Value> {
    of_kind(records, "capture_gap").into_iter().filter(|r| r["facts"]["cause"] == cause).collect()
}

/// A small file system of its own.
struct Small(std::path::PathBuf);

impl Small {
    fn at(at: &Path, size: &str) -> Small {
        let flags = nix::mount::MsFlags::empty();
        let options = format!("size={size},mode=700");
        nix::mount::mount(Some("none"), at, Some("tmpfs"), flags, Some(options.as_str())).expect("mounted");
        Small(at.to_owned())
    }

    fn fill(&self) {
        let mut f = fs::File::create(self.0.join("filler")).expect("created");
        while std::io::Write::write_all(&mut f, &[7; 512]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn root_nobody_reading_the_status_line_neither_ends_the_tap_nor_loses_a_record() {
    if skip("root_nobody_reading_the_status_line") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let args = format!("-i near -w {} --status 1", dir.path().display());
    let mut tap = Tap::start(&wire.near, &args);
    knock(&wire, net::NEAR_IP, 5001..5002);
    // The line after which the reader looks whether it shall end.
    tap.wait_for("handshakes");
    tap.close_stderr();
    thread::sleep(Duration::from_millis(2500));
    knock(&wire, net::NEAR_IP, 5002..5003);
    let (code, _) = tap.stop();
    assert_eq!(code, Some(0));
    let told = records(dir.path());
    assert!(has(&told, "syn_refused", 5001) && has(&told, "syn_refused", 5002), "{told:?}");
}

#[test]
fn root_a_hang_up_ends_it_as_a_termination_does_unless_it_was_ignored() {
    if skip("root_a_hang_up_ends_it") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let args = format!("-i near -w {}", dir.path().display());
    // Whoever started the tests may have ignored it for all that they start.
    let script =
        format!("exec env --default-signal=HUP {} run --user root {args}", env!("CARGO_BIN_EXE_syntap"));
    let tap = Tap::through(&wire.near, &script);
    knock(&wire, net::NEAR_IP, 5001..5002);
    tap.signal(Signal::SIGHUP);
    let (code, said) = tap.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("anomalies"), "the summary: {said}");
    assert!(has(&records(dir.path()), "syn_refused", 5001));

    let script =
        format!("trap '' HUP; exec {} run --user root {args} --status 1", env!("CARGO_BIN_EXE_syntap"));
    let tap = Tap::through(&wire.near, &script);
    tap.signal(Signal::SIGHUP);
    tap.wait_for("handshakes");
    assert_eq!(tap.stop().0, Some(0), "it was still there");
}

#[test]
fn root_a_span_interface_that_is_removed_ends_the_tap_with_its_records() {
    if skip("root_a_span_interface_that_is_removed") {
        return;
    }
    let (wire, dir) = (Wire::bare(), tempfile::tempdir().unwrap());
    let tap = Tap::start(&wire.near, &format!("-i near=span -w {}", dir.path().display()));
    // Copies of both directions, as a switch sends them.
    let (client, server) = (("10.9.0.2".parse().unwrap(), 4000), ("10.9.0.1".parse().unwrap(), 5001));
    let tcp = |src, dst, flags, seq, ack| {
        let (win, options, payload, ttl, id) = (1000, vec![], 0, 64, 1);
        Tcp { src, dst, flags, seq, ack, win, options, payload, ttl, id }.frame()
    };
    for frame in [tcp(client, server, SYN, 7, 0), tcp(server, client, RST | ACK, 0, 8)] {
        let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
        wire.far.sh(&format!(
            "python3 -c \"import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('far', 0)); \
             s.send(bytes.fromhex('{hex}'))\""
        ));
    }
    wire.near.ip("link del near");
    let (code, said) = tap.end();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("no tapped interface is left: near is gone\nhint: "), "{said}");
    assert!(said.contains("anomalies"), "the summary: {said}");
    let told = records(dir.path());
    assert!(has(&told, "syn_refused", 5001), "{said} {told:?}");
    assert_eq!(gap(&told, "interface_gone").len(), 1);
}

#[test]
fn root_a_span_interface_that_is_removed_leaves_the_others_tapped() {
    if skip("root_a_span_interface_that_is_removed_leaves") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    wire.near.ip("link add spare type veth peer name spared");
    wire.near.ip("link set spare addrgenmode none up");
    wire.near.ip("link set spared addrgenmode none up");
    let tap = Tap::start(&wire.near, &format!("-i spare=span,near -w {}", dir.path().display()));
    wire.near.ip("link del spare");
    tap.wait_for("spare is gone");
    thread::sleep(Duration::from_millis(1500));
    knock(&wire, net::NEAR_IP, 5001..5002);
    let (code, said) = tap.stop();
    assert_eq!(code, Some(0), "{said}");
    let told = records(dir.path());
    assert!(has(&told, "syn_refused", 5001), "{told:?}");
    assert_eq!(gap(&told, "interface_gone")[0]["facts"]["source"], "spare");
}

#[test]
fn root_an_inline_interface_that_comes_back_is_tapped_again_and_the_gap_recorded() {
    if skip("root_an_inline_interface_that_comes_back") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let second = || {
        let (near, far) = (&wire.near.name, &wire.far.name);
        sh(&format!("ip link add two netns {near} type veth peer name owt netns {far}"));
        wire.near.ip("addr add 10.10.0.1/24 dev two");
        wire.far.ip("addr add 10.10.0.2/24 dev owt");
        wire.near.ip("link set two addrgenmode none up");
        wire.far.ip("link set owt addrgenmode none up");
    };
    second();
    let tap = Tap::start(&wire.near, &format!("-i near=outside,two=inside -w {}", dir.path().display()));
    knock(&wire, "10.10.0.1", 5001..5002);
    wire.near.ip("link set two down");
    tap.wait_for("two is down or has no carrier");
    wire.near.ip("link set two up");
    tap.wait_for("two is up again");
    wire.near.ip("link del two");
    tap.wait_for("two is gone");
    thread::sleep(Duration::from_millis(1100));
    second();
    tap.wait_for("two is back and tapped again");
    knock(&wire, "10.10.0.1", 5002..5003);
    knock(&wire, net::NEAR_IP, 5003..5004);
    let (code, said) = tap.stop();
    assert_eq!(code, Some(0), "{said}");
    let told = records(dir.path());
    for port in [5001, 5002, 5003] {
        assert!(has(&told, "syn_refused", port), "{port}: {told:?}");
    }
    let back = of_kind(&told, "syn_refused").into_iter().find(|r| r["dst_port"] == 5002).unwrap();
    assert_eq!((&back["interface"], &back["role"]), (&"two".into(), &"inside".into()));
    let gaps = gap(&told, "interface_gone");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0]["facts"]["source"], "two");
    assert_eq!(gaps[0]["facts"]["count"], Value::Null, "nobody counts what passes an interface that is gone");
    let ns = |field: &str| gaps[0][field].as_u64().unwrap();
    assert!(ns("last_ns") - ns("first_ns") > 1_000_000_000, "{gaps:?}");
}

#[test]
fn root_a_disk_that_fills_up_meanwhile_is_said_at_once_counted_and_an_error_at_the_end() {
    if skip("root_a_disk_that_fills_up_meanwhile") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let disk = Small::at(dir.path(), "1M");
    // A machine that was busy sends what waited all at once, and more of it than the usual budget mirrors in its 10 ms.
    let args = format!("-i near --budget 100000000 -w {}", dir.path().display());
    let tap = Tap::start(&wire.near, &args);
    disk.fill();
    knock(&wire, net::NEAR_IP, 4000..4100);
    tap.wait_for("No space left on device");
    // More than is kept for better times.
    knock(&wire, net::NEAR_IP, 5000..9000);
    thread::sleep(Duration::from_millis(2500));
    fs::remove_file(dir.path().join("filler")).unwrap();
    tap.wait_for("records are written again");
    knock(&wire, net::NEAR_IP, 7001..7002);
    let (code, said) = tap.stop();
    assert_eq!(code, Some(2), "records are lost: {said}");
    let at_once =
        format!("syntap: cannot write records into {}: No space left on device", dir.path().display());
    assert_eq!(said.matches(&at_once).count(), 1, "said once: {said}");
    assert!(said.contains("hint: make room on that file system"), "{said}");
    assert!(said.contains("anomalies"), "the summary: {said}");
    let last: Vec<&str> = said.lines().rev().take(2).collect();
    assert!(
        last[1].starts_with("syntap: ") && last[1].contains(" records could not be written into "),
        "{said}"
    );
    assert_eq!(last[1].matches("No space left").count(), 1, "{said}");
    assert!(last[0].starts_with("hint: "), "{said}");
    let told = records(dir.path());
    assert!(has(&told, "syn_refused", 7001));
    let gaps = gap(&told, "disk_full");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let lost = gaps[0]["facts"]["count"].as_u64().unwrap();
    assert!(last[1].contains(&format!("{lost} records")), "{said}");
    let refused = of_kind(&told, "syn_refused").len() as u64;
    // The figures of ten seconds of the clock are a record too, and one that may be lost.
    let round = |field: &str| gaps[0][field].as_u64().unwrap() / 10_000_000_000;
    let figures = round("last_ns") - round("first_ns");
    // On a machine so busy that the tap had to wait for a CPU packets are lost before there are records of them, and that is told.
    let starved = of_kind(&told, "capture_gap").iter().any(|g| g["facts"]["cause"] != "disk_full");
    let all = refused + lost;
    assert!(
        (4101..=4101 + figures).contains(&all) || starved && all < 4101,
        "each is there or counted: {refused} + {lost}: {said}"
    );
}

#[test]
fn root_a_mirror_file_on_a_full_disk_is_given_up_readable_and_the_run_goes_on() {
    if skip("root_a_mirror_file_on_a_full_disk") {
        return;
    }
    let (wire, dir, small) = (Wire::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = Small::at(small.path(), "64k");
    let file = small.path().join("mirror.pcapng");
    let args = format!("-i near -w {} --mirror-to {} --status 1", dir.path().display(), file.display());
    let tap = Tap::start(&wire.near, &args);
    knock(&wire, net::NEAR_IP, 5000..5400);
    tap.wait_for("No space left on device");
    tap.wait_for("copies dropped");
    knock(&wire, net::NEAR_IP, 6000..6001);
    let (code, said) = tap.stop();
    assert_eq!(code, Some(2), "{said}");
    let message = format!("syntap: cannot write {}: No space left on device", file.display());
    assert_eq!(said.matches(&message).count(), 2, "at once, and at the end: {said}");
    assert!(said.contains("hint: make room"), "{said}");
    assert!(said.contains("missing in the mirror file"), "{said}");
    let told = records(dir.path());
    assert!(has(&told, "syn_refused", 6000), "the run went on");
    let dropped: u64 =
        gap(&told, "copies_dropped").iter().map(|g| g["facts"]["count"].as_u64().unwrap()).sum();
    assert!(
        told.iter().all(|r| r["kind"] == "capture_gap" || r["loss"].is_null()),
        "the records lack nothing"
    );
    // What is in the file and what was counted is what was mirrored.
    let out = run(syntap().arg("replay").arg(&file));
    let read = String::from_utf8(out.stderr).unwrap();
    assert!(!read.contains("the file is cut"), "{read}");
    let packets = |text: &str| -> u64 {
        let line = text.lines().find(|l| l.starts_with("packets ")).unwrap();
        line[10..].trim().split(':').next().unwrap().parse().unwrap()
    };
    assert_eq!(packets(&read) + dropped, packets(&said), "{said}");
    drop(disk);
}

/// What a process holds of the kernel by these descriptors' information: `prog_id`, `map_id`, `link_id`.
fn held(pid: u32, what: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs").flatten() {
        let info = fs::read_to_string(fd.path()).unwrap_or_default();
        ids.extend(
            info.lines().filter_map(|l| l.strip_prefix(what)?.strip_prefix(":")?.trim().parse::<u32>().ok()),
        );
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn root_a_killed_tap_leaves_no_program_map_link_or_namespace() {
    if skip("root_a_killed_tap_leaves") {
        return;
    }
    for transport in TRANSPORTS {
        let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
        let spaces = || wire.near.sh("ip netns list-id");
        let before = spaces();
        let tap =
            Tap::start(&wire.near, &format!("-i near -w {} --transport {transport}", dir.path().display()));
        let pid = tap.child.id();
        // The carrier has hooks of its own.
        let hooks = if transport == "afxdp" { 4 } else { 2 };
        let [programs, maps, links] = ["prog_id", "map_id", "link_id"].map(|what| held(pid, what));
        assert!(
            programs.len() == hooks && maps.len() >= 5 && links.len() == hooks,
            "{programs:?} {maps:?} {links:?}"
        );
        assert_eq!(
            spaces() != before,
            transport == "afxdp",
            "the pair's far end is in a namespace of its own"
        );
        tap.signal(Signal::SIGKILL);
        tap.end();
        // The kernel takes them down in the background.
        let left = || {
            let programs = ProgInfoIter::default().filter(|p| programs.contains(&p.id)).count();
            let maps = MapInfoIter::default().filter(|m| maps.contains(&m.id)).count();
            let links = LinkInfoIter::default().filter(|l| links.contains(&l.id)).count();
            (programs, maps, links, spaces() == before)
        };
        let begun = Instant::now();
        while left() != (0, 0, 0, true) && begun.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(left(), (0, 0, 0, true));
        assert!(!wire.near.ip("-o link").contains(&format!("st{pid}n")), "nor the pair");
    }
}

#[test]
fn root_without_more_memory_the_traffic_goes_on_whatever_becomes_of_the_tap() {
    if skip("root_without_more_memory") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let mut tap = Tap::start(&wire.near, &format!("-i near -w {}", dir.path().display()));
    let pid = tap.child.id();
    knock(&wire, net::NEAR_IP, 5001..5002);
    // Written within a second, before it may all end.
    let begun = Instant::now();
    while !has(&records(dir.path()), "syn_refused", 5001) && begun.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(100));
    }
    let links = held(pid, "link_id");
    assert!(!links.is_empty());
    sh(&format!("prlimit --pid {pid} --as=1"));
    // What is remembered of tuples may want room with each of these; all of them are refused.
    for first in (10_000..60_000).step_by(500) {
        knock(&wire, net::NEAR_IP, first..first + 500);
    }
    match tap.child.try_wait().unwrap() {
        None => {
            let (code, said) = tap.stop();
            assert!(code == Some(0) || said.contains("memory allocation of"), "{said}");
        }
        Some(status) => {
            let (_, said) = tap.end();
            assert!(!status.success() && said.contains("memory allocation of"), "{status:?} {said}");
        }
    }
    let begun = Instant::now();
    let left = || LinkInfoIter::default().filter(|l| links.contains(&l.id)).count();
    while left() > 0 && begun.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(left(), 0, "hooks");
    assert!(has(&records(dir.path()), "syn_refused", 5001), "what was written is read");
}

#[test]
fn root_what_the_budget_sheds_is_told_with_the_kernel_sides_own_threshold() {
    if skip("root_what_the_budget_sheds") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let tap = Tap::start(&wire.near, &format!("-i near -w {} --budget 100", dir.path().display()));
    knock(&wire, net::NEAR_IP, 5000..8000);
    let (code, said) = tap.stop();
    assert_eq!(code, Some(0), "{said}");
    let told = records(dir.path());
    let shed = of_kind(&told, "budget_shed");
    let facts = |name: &str| -> Vec<&Value> { shed.iter().map(|r| &r["facts"][name]).collect() };
    let packets: u64 = facts("packets").iter().map(|p| p.as_u64().unwrap()).sum();
    assert!(
        said.contains(&format!(" {packets} shed")),
        "each look tells of its own packets: {said} {shed:?}"
    );
    assert!(facts("threshold").iter().any(|t| t.as_f64().is_some_and(|t| t > 0.0 && t < 1.0)), "{shed:?}");
    assert!(facts("tuples").iter().all(|t| t.is_null()), "{shed:?}");
}

#[test]
fn root_a_mirror_file_is_new_and_is_not_left_by_a_run_that_did_not_start() {
    if skip("root_a_mirror_file_is_new") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    fs::write(&old, "precious").unwrap();
    let fails = |interface: &str, file: &Path| {
        let mut command = syntap();
        command
            .args(["run", "--user", "root", "-i", interface, "-w"])
            .arg(dir.path())
            .arg("--mirror-to")
            .arg(file);
        let out = command.output().unwrap();
        assert_eq!(out.status.code(), Some(2));
        String::from_utf8(out.stderr).unwrap()
    };
    let said = fails("lo", &old);
    assert!(said.contains("it exists\nhint: --mirror-to takes the name of a new file"), "{said}");
    assert_eq!(fs::read(&old).unwrap(), b"precious");
    fails("nosuch0", &new);
    assert!(!new.exists());
}
