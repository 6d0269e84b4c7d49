//! The kernel's connection tracking, live: what it says of translations, and what a run makes of it.

mod common;
mod net;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{json_lines, of_kind, run, syntap};
use net::{Namespace, sh, skip};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};
use nix::unistd::Pid;
use serde_json::Value;
use syntap::capture::conntrack::{Change, Conntrack, CtEvent, EVENT_BUFFER, Heard, TcpState};

const SERVER: &str = "198.51.100.2:8090";

/// Client (10.77.0.11 and .12) - gateway (in0, out0, masquerade) - server.
struct Lab {
    client: Namespace,
    gateway: Namespace,
    server: Namespace,
}

impl Lab {
    fn new(masquerade: &str) -> Lab {
        let lab = Lab { client: Namespace::new(), gateway: Namespace::new(), server: Namespace::new() };
        let Lab { client, gateway, server } = &lab;
        sh(&format!("ip link add in0 netns {} type veth peer name eth0 netns {}", gateway.name, client.name));
        sh(&format!(
            "ip link add out0 netns {} type veth peer name eth0 netns {}",
            gateway.name, server.name
        ));
        for (ns, dev, address) in [
            (gateway, "in0", "10.77.0.1/24"),
            (gateway, "out0", "198.51.100.1/24"),
            (client, "eth0", "10.77.0.11/24"),
            (client, "eth0", "10.77.0.12/24"),
            (server, "eth0", "198.51.100.2/24"),
        ] {
            ns.ip(&format!("link set {dev} addrgenmode none up"));
            ns.ip(&format!("addr add {address} dev {dev}"));
        }
        client.ip("route add default via 10.77.0.1");
        gateway.sh("sysctl -qw net.ipv4.ip_forward=1");
        lab.nat(masquerade);
        lab
    }

    /// Translates anew: connections that have no entry get this rule. Tracking itself stays on.
    fn nat(&self, rule: &str) {
        let rules = format!(
            "table ip t\ndelete table ip t\ntable ip t {{\nchain f {{\ntype filter hook forward priority 0; ct state new counter;\n}}\n\
             chain n {{\ntype nat hook postrouting priority 100; {rule};\n}}\n}}\n"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), rules).unwrap();
        self.gateway.sh(&format!("nft -f {}", file.path().display()));
    }

    /// Deletes all entries, as `conntrack -F` does.
    fn flush(&self) {
        self.gateway.run(|| {
            let mut socket = Socket::new(NETLINK_NETFILTER).unwrap();
            socket.bind_auto().unwrap();
            let mut request = Vec::new();
            request.extend(20u32.to_ne_bytes());
            // IPCTNL_MSG_CT_DELETE; NLM_F_REQUEST and NLM_F_ACK.
            request.extend(0x0102u16.to_ne_bytes());
            request.extend(5u16.to_ne_bytes());
            request.extend([1, 0, 0, 0, 0, 0, 0, 0]);
            request.extend([libc::AF_INET as u8, 0, 0, 0]);
            socket.send(&request, 0).unwrap();
            let (answer, _) = socket.recv_from_full().unwrap();
            assert_eq!(answer[16..20], [0; 4], "the kernel took it");
        });
    }

    /// An open connection over which a byte went both ways: client's end, server's end.
    fn connection(&self) -> (TcpStream, TcpStream) {
        let listener = self.server.run(|| TcpListener::bind(SERVER).unwrap());
        let mut client = self.client.run(|| TcpStream::connect(SERVER).unwrap());
        let (mut server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            end.set_nodelay(true).unwrap();
        }
        assert!(says(&mut client, &mut server) && says(&mut server, &mut client));
        (client, server)
    }

    fn listen(&self) -> Conntrack {
        self.gateway.run(|| Conntrack::open(EVENT_BUFFER).unwrap())
    }

    /// `name` of `/proc/net/stat/nf_conntrack`, over all CPUs.
    fn counter(&self, name: &str) -> u64 {
        let text = self.gateway.sh("cat /proc/net/stat/nf_conntrack");
        let mut lines = text.lines().map(str::split_whitespace);
        let at = lines.next().unwrap().position(|n| n == name).expect("a column");
        lines.map(|mut l| u64::from_str_radix(l.nth(at).unwrap(), 16).unwrap()).sum()
    }
}

fn says(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    let mut byte = [0];
    from.write_all(b"x").is_ok() && to.read_exact(&mut byte).is_ok()
}

/// Events until nothing has come for a while.
fn hear(source: &mut Conntrack) -> Vec<CtEvent> {
    let mut events = Vec::new();
    while source.poll(200, &mut |e| events.push(e)).unwrap() != Heard::Messages(0) {}
    events
}

/// `syntap run` in the gateway.
struct Tap {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Tap {
    fn start(lab: &Lab, dir: &Path, more: &str) -> Tap {
        let args =
            format!("run --user root -i in0=inside,out0=outside -w {} --status 1 {more}", dir.display());
        let mut child = Command::new("ip")
            .args(["netns", "exec", &lab.gateway.name, env!("CARGO_BIN_EXE_syntap")])
            .args(args.split_whitespace())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, to) = (child.stderr.take().expect("piped"), lines.clone());
        let reader = thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|l| to.lock().unwrap().push(l));
        });
        let tap = Tap { child, lines, reader: Some(reader) };
        let begun = Instant::now();
        while !tap.said().contains("records go to") {
            assert!(begun.elapsed() < Duration::from_secs(20), "it does not begin: {}", tap.said());
            thread::sleep(Duration::from_millis(20));
        }
        tap
    }

    fn said(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Ends it: what it said, and the records.
    fn stop(mut self, dir: &Path) -> (String, Vec<Value>) {
        self.signal(Signal::SIGTERM);
        let code = self.child.wait().expect("a child").code();
        self.reader.take().map(thread::JoinHandle::join);
        assert_eq!(code, Some(0), "{}", self.said());
        (self.said(), json_lines(&run(syntap().args(["show", "--json"]).arg(dir))))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn loud(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|r| r["severity"] != "info").collect()
}

/// The one incident of a run.
fn incident(records: &[Value]) -> &Value {
    let lost = of_kind(records, "nat_mapping_lost");
    assert_eq!(lost.len(), 1, "{records:?}");
    assert_eq!((&lost[0]["verdict"], &lost[0]["severity"]), (&"gateway".into(), &"error".into()));
    assert_eq!(lost[0]["facts"]["destroyed_state"], "ESTABLISHED");
    lost[0]
}

#[test]
fn root_entries_are_told_with_both_tuples_and_what_no_rule_reads_is_not() {
    if skip("root_entries_are_told_with_both_tuples") {
        return;
    }
    let lab = Lab::new("oifname out0 meta l4proto tcp masquerade to :5000-5000");
    let mut source = lab.listen();
    lab.client.sh("python3 -c \"import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'x', ('198.51.100.2', 53))\"");
    let (client, server) = lab.connection();
    let port = client.local_addr().unwrap().port();
    let told = hear(&mut source);
    assert_eq!(told.len(), 1, "no UDP, and no step of the handshake: {told:?}");
    let new = told[0];
    assert_eq!((new.change, new.state), (Change::New, Some(TcpState::SynSent)));
    let end = |e: (syntap::wire::Addr, u16)| format!("{}:{}", e.0, e.1);
    assert_eq!((end(new.original.src), end(new.original.dst)), (format!("10.77.0.11:{port}"), SERVER.into()));
    assert_eq!((end(new.reply.src), end(new.reply.dst)), (SERVER.into(), "198.51.100.1:5000".into()));

    let mut found = Vec::new();
    assert_eq!(source.dump(&mut |e| found.push(e)).unwrap(), 1, "{found:?}");
    assert_eq!((found[0].original, found[0].state), (new.original, Some(TcpState::Established)));
    assert!(found[0].assured() && found[0].seen_reply());

    // Reset: the server has not read what the client sent.
    (&client).write_all(b"x").unwrap();
    drop(server);
    let told = hear(&mut source);
    let changes: Vec<_> = told.iter().map(|e| (e.change, e.state)).collect();
    assert_eq!(changes, [(Change::Update, Some(TcpState::Close))]);
    lab.flush();
    let told = hear(&mut source);
    assert_eq!((told[0].change, told[0].original), (Change::Destroy, new.original));
    assert!(told[0].by != 0 && told[0].timeout_s.is_some_and(|s| s > 0), "deleted by this test: {told:?}");

    let before = source.counters().unwrap();
    lab.client.sh("python3 -c \"import socket; s = socket.socket(); s.connect_ex(('198.51.100.2', 1))\"");
    assert_eq!(source.counters().unwrap().since(before).insert_failed, 0);
    assert_eq!(before.invalid, lab.counter("invalid"));
}

#[test]
fn root_events_that_find_no_room_are_counted_by_the_kernels_own_number() {
    if skip("root_events_that_find_no_room") {
        return;
    }
    let lab = Lab::new("oifname out0 masquerade");
    let mut source = lab.gateway.run(|| Conntrack::open(4096).unwrap());
    let knocks = 100;
    lab.client.sh(&format!(
        "python3 -c \"import socket\nfor p in range({knocks}): socket.socket().connect_ex(('198.51.100.2', 9000 + p))\""
    ));
    let (mut heard, mut lost) = (0, 0);
    loop {
        match source.poll(100, &mut |_| heard += 1).unwrap() {
            Heard::Lost(n) => lost += n,
            Heard::Messages(0) => break,
            Heard::Messages(_) => {}
        }
    }
    // A refused connection's entry is gone with the reset: NEW and DESTROY.
    assert_eq!(heard + lost, 2 * knocks, "{heard} heard, {lost} lost");
    assert!(heard > 0 && lost > 0);
}

#[test]
fn root_a_flush_that_the_next_packet_mends_is_silence() {
    if skip("root_a_flush_that_the_next_packet_mends") {
        return;
    }
    let (lab, dir) = (Lab::new("oifname out0 masquerade"), tempfile::tempdir().unwrap());
    let tap = Tap::start(&lab, dir.path(), "--conntrack on");
    let (mut client, mut server) = lab.connection();
    lab.flush();
    assert!(says(&mut client, &mut server) && says(&mut server, &mut client), "it goes on");
    drop((client, server));
    thread::sleep(Duration::from_millis(500));
    let (said, records) = tap.stop(dir.path());
    assert!(records.is_empty(), "{records:?}");
    assert!(said.contains("listening to connection tracking"), "{said}");
}

#[test]
fn root_a_flush_after_which_the_server_speaks_first_is_a_lost_mapping() {
    if skip("root_a_flush_after_which_the_server_speaks_first") {
        return;
    }
    let (lab, dir) = (Lab::new("oifname out0 masquerade"), tempfile::tempdir().unwrap());
    let tap = Tap::start(&lab, dir.path(), "--conntrack on");
    let (client, mut server) = lab.connection();
    lab.flush();
    server.write_all(b"y").unwrap();
    thread::sleep(Duration::from_millis(500));
    let (_, records) = tap.stop(dir.path());
    assert_eq!(of_kind(&records, "reset_by_gateway").len(), 1, "{records:?}");
    let r = incident(&records);
    assert_eq!((&r["facts"]["path"], &r["facts"]["gateway_resets"]), (&"flush".into(), &1.into()), "{r}");
    assert!(r["facts"]["destroyed_by"].is_number(), "{r}");
    assert_eq!(r["src_port"], client.local_addr().unwrap().port());
    assert_eq!(loud(&records).len(), 2, "{records:?}");
}

#[test]
fn root_a_connection_that_goes_on_with_another_port_or_address_is_remapped() {
    if skip("root_a_connection_that_goes_on_with_another") {
        return;
    }
    for (before, after, path) in [
        ("oifname out0 masquerade fully-random", "oifname out0 masquerade fully-random", "flush"),
        ("oifname out0 masquerade", "oifname out0 snat to 198.51.100.99", "uplink"),
    ] {
        // With connection tracking, and from the packets alone.
        for listens in ["on", "off"] {
            let (lab, dir) = (Lab::new(before), tempfile::tempdir().unwrap());
            lab.gateway.ip("addr add 198.51.100.99/24 dev out0");
            let tap = Tap::start(&lab, dir.path(), &format!("--conntrack {listens}"));
            let (mut client, mut server) = lab.connection();
            lab.nat(after);
            lab.flush();
            assert!(!says(&mut client, &mut server), "the server knows no such connection");
            thread::sleep(Duration::from_millis(500));
            let (said, records) = tap.stop(dir.path());
            let remapped = of_kind(&records, "nat_remapped");
            assert_eq!(remapped.len(), 1, "{path} {listens} {said} {records:?}");
            let text = |r: &Value, fact: &str| r["facts"][fact].as_str().unwrap_or("").to_owned();
            let (was, now) = (text(remapped[0], "before"), text(remapped[0], "after"));
            assert!(was != now && now.ends_with(SERVER), "{was} {now}");
            assert_eq!(now.starts_with("198.51.100.99:"), path == "uplink", "{now}");
            let lost = of_kind(&records, "nat_mapping_lost");
            assert_eq!(lost.len(), 1, "{records:?}");
            assert_eq!((text(lost[0], "path"), text(lost[0], "remapped")), (path.into(), now));
            if listens == "on" {
                assert_eq!(remapped[0]["certainty"], "proven");
                incident(&records);
            } else {
                assert!(lost[0]["facts"]["destroyed_state"].is_null());
                assert!(!said.contains("conntrack"), "{said}");
            }
            let reset = of_kind(&records, "reset_mid_flow");
            // Outside it comes before anything shows whose doing it is.
            let outside = |r: &&Value| r["interface"] == "out0" && r["verdict"] == "unknown";
            assert!(
                reset.iter().all(|r| r["verdict"] == "gateway" || outside(r)),
                "it is not the responder's doing: {reset:?}"
            );
        }
    }
}

#[test]
fn root_a_connection_that_goes_on_untranslated_is_seen_though_it_was_idle() {
    if skip("root_a_connection_that_goes_on_untranslated") {
        return;
    }
    let (lab, dir) = (Lab::new("oifname out0 masquerade"), tempfile::tempdir().unwrap());
    let tap = Tap::start(&lab, dir.path(), "--conntrack on");
    let (mut client, mut server) = lab.connection();
    // Longer than its SYN keeps it under watch.
    thread::sleep(Duration::from_secs(11));
    lab.nat("oifname lo masquerade");
    lab.flush();
    thread::sleep(Duration::from_millis(200));
    assert!(!says(&mut client, &mut server));
    let (_, records) = tap.stop(dir.path());
    let r = incident(&records);
    assert_eq!(r["facts"]["path"], "flood", "{r}");
    assert!(
        r["facts"]["untranslated"].as_u64().unwrap() > 0 && r["facts"]["first_untranslated"].is_u64(),
        "{r}"
    );
    assert!(!of_kind(&records, "untranslated_packet").is_empty(), "{records:?}");
}

/// Pairs of SYNs from one source port and two addresses, at the same moment from two CPUs; how many were sent.
fn rendezvous(lab: &Lab, ports: std::ops::Range<u16>) -> usize {
    let meet = AtomicUsize::new(0);
    let connect = |cpu: usize, address: [u8; 4]| -> Vec<OwnedFd> {
        let mut one = CpuSet::new();
        one.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        let [a, b, c, d] = address;
        let mut sockets = Vec::new();
        for (round, port) in ports.clone().enumerate() {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let s = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            socket::setsockopt(&s, sockopt::ReuseAddr, &true).unwrap();
            socket::bind(s.as_raw_fd(), &SockaddrIn::new(a, b, c, d, port)).unwrap();
            meet.fetch_add(1, Ordering::SeqCst);
            while meet.load(Ordering::SeqCst) < 2 * (round + 1) {
                std::hint::spin_loop();
            }
            let to = SockaddrIn::new(198, 51, 100, 2, 8090);
            assert_eq!(socket::connect(s.as_raw_fd(), &to), Err(Errno::EINPROGRESS));
            sockets.push(s);
        }
        sockets
    };
    let mut sockets = lab.client.run(|| {
        thread::scope(|scope| {
            let connect = &connect;
            let other = scope.spawn(move || connect(1, [10, 77, 0, 12]));
            let mut sockets = connect(0, [10, 77, 0, 11]);
            sockets.extend(other.join().unwrap());
            sockets
        })
    });
    // All of them open in the end, those whose SYN was lost a second later.
    let until = Instant::now() + Duration::from_secs(5);
    let sent = sockets.len();
    while !sockets.is_empty() && Instant::now() < until {
        sockets.retain(|s| {
            let mut fds = [PollFd::new(s.as_fd(), PollFlags::POLLOUT)];
            poll(&mut fds, PollTimeout::ZERO) == Ok(0)
        });
        thread::sleep(Duration::from_millis(20));
    }
    assert!(sockets.is_empty(), "{} did not open", sockets.len());
    sent
}

#[test]
fn root_each_syn_that_a_collision_cost_has_the_kernels_count_of_that_moment() {
    if skip("root_each_syn_that_a_collision_cost") {
        return;
    }
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("skipped root_each_syn_that_a_collision_cost: needs two CPUs");
        return;
    }
    let (lab, dir) = (Lab::new("oifname out0 masquerade"), tempfile::tempdir().unwrap());
    let address: SocketAddr = SERVER.parse().unwrap();
    let listener = lab.server.run(|| TcpListener::bind(address).unwrap());
    thread::spawn(move || listener.incoming().map_while(Result::ok).collect::<Vec<_>>());
    let tap = Tap::start(&lab, dir.path(), "--conntrack on");
    let mut rounds = 0;
    while lab.counter("insert_failed") == 0 && rounds < 20 {
        let first = 20_000 + 200 * rounds;
        rendezvous(&lab, first..first + 200);
        rounds += 1;
    }
    thread::sleep(Duration::from_millis(3_500));
    let failed = lab.counter("insert_failed");
    let (said, records) = tap.stop(dir.path());
    if failed == 0 {
        eprintln!(
            "skipped root_each_syn_that_a_collision_cost: no two SYNs collided in {rounds} rounds of 200"
        );
        return;
    }
    let lost: Vec<&Value> = records
        .iter()
        .filter(|r| r["kind"] == "snat_collision" || r["kind"] == "syn_lost_in_gateway")
        .collect();
    // A machine so busy that the tap itself had to wait for a CPU says so in the records, and is forgiven what it missed.
    let starved = records.iter().any(|r| r["kind"] == "capture_gap" || !r["loss"].is_null());
    assert!(lost.len() as u64 == failed || starved && !lost.is_empty(), "each is matched: {records:?}");
    for r in &lost {
        for name in ["insert_failed_delta", "drop_delta"] {
            let delta = &r["facts"][name];
            let counted = delta.as_u64().is_some_and(|n| (1..=failed).contains(&n));
            assert!(counted || starved && delta.is_null(), "{name} of {r}");
        }
    }
    let counted = format!("conntrack insert_failed {failed} drop {failed}");
    assert!(said.contains(&counted), "in the status line: {said}");
    assert!(said.contains(&format!("insert_failed {failed}, drop {failed}")), "in the summary: {said}");
}

#[test]
fn root_lost_events_are_told_and_the_entries_listed_instead() {
    if skip("root_lost_events_are_told") {
        return;
    }
    let (lab, dir) = (Lab::new("oifname out0 masquerade"), tempfile::tempdir().unwrap());
    let tap = Tap::start(&lab, dir.path(), "--conntrack on --conntrack-buffer 4");
    let (mut client, mut server) = lab.connection();
    tap.signal(Signal::SIGSTOP);
    lab.client.sh(
        "python3 -c \"import socket\nfor p in range(200): socket.socket().connect_ex(('198.51.100.2', 9000 + p))\"",
    );
    // Among what is lost: the end of this connection's entry and the beginning of another one.
    lab.nat("oifname out0 masquerade fully-random");
    lab.flush();
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    assert!(server.read_exact(&mut byte).is_err());
    tap.signal(Signal::SIGCONT);
    thread::sleep(Duration::from_millis(1_500));
    let (said, records) = tap.stop(dir.path());
    let told = of_kind(&records, "conntrack_event_loss");
    assert!(!told.is_empty(), "{said} {records:?}");
    let count: u64 = told.iter().map(|r| r["facts"]["count"].as_u64().unwrap()).sum();
    assert!(count > 100, "{told:?}");
    assert!(told[0]["facts"]["found"].is_u64(), "a dump was made: {told:?}");
    assert!(said.contains(&format!("{count} lost")), "{said}");
}

#[test]
fn root_conntrack_that_is_not_there_fails_only_if_it_must_be() {
    if skip("root_conntrack_that_is_not_there") {
        return;
    }
    let (lab, dir) = (Lab::new("oifname out0 masquerade"), tempfile::tempdir().unwrap());
    let start = |when: &str| {
        let hide = "mount -t tmpfs none /proc/sys/net/netfilter";
        let tap = format!(
            "{} run --user root -i in0 -w {} --duration 1",
            env!("CARGO_BIN_EXE_syntap"),
            dir.path().display()
        );
        let script = format!("{hide} && exec {tap} --conntrack {when}");
        let ns = lab.gateway.name.as_str();
        Command::new("ip").args(["netns", "exec", ns, "unshare", "-m", "sh", "-c", &script]).output().unwrap()
    };
    let on = start("on");
    let said = String::from_utf8_lossy(&on.stderr).into_owned();
    assert_eq!(on.status.code(), Some(2), "{said}");
    assert!(said.contains("syntap: conntrack is not to be had: ") && said.contains("\nhint: "), "{said}");
    let auto = start("auto");
    let said = String::from_utf8_lossy(&auto.stderr).into_owned();
    assert!(auto.status.success() && !said.contains("conntrack"), "{said}");
}

#[test]
fn root_entries_older_than_the_listener_are_listed_and_speak_if_they_were_made_to() {
    if skip("root_entries_older_than_the_listener") {
        return;
    }
    let lab = Lab::new("oifname out0 masquerade");
    // By default they do so only if somebody on the machine listened when they were made.
    lab.gateway.sh("sysctl -qw net.netfilter.nf_conntrack_events=1");
    let (_client, _server) = lab.connection();
    let mut source = lab.listen();
    assert_eq!(source.dump(&mut |_| ()).unwrap(), 1);
    lab.flush();
    let told: Vec<_> = hear(&mut source).iter().map(|e| e.change).collect();
    assert_eq!(told, [Change::Destroy]);
}

#[test]
#[ignore = "a measurement"]
fn what_an_event_takes_of_the_buffer() {
    if skip("what_an_event_takes_of_the_buffer") {
        return;
    }
    let lab = Lab::new("oifname out0 masquerade");
    let mut source = lab.gateway.run(|| Conntrack::open(512 << 10).unwrap());
    lab.client.sh(
        "python3 -c \"import socket\nfor p in range(2000): socket.socket().connect_ex(('198.51.100.2', 9000 + p))\"",
    );
    let mut heard = 0;
    while source.poll(100, &mut |_| heard += 1).unwrap() != Heard::Messages(0) {}
    println!("{} bytes an event: {heard} events in 1 MiB", (1 << 20) / heard);
}

#[test]
fn root_what_the_gateway_rejects_is_its_own_doing() {
    if skip("root_what_the_gateway_rejects_is_its_own_doing") {
        return;
    }
    let lab = Lab::new("oifname out0 masquerade");
    let dir = tempfile::tempdir().unwrap();
    let tap = Tap::start(&lab, dir.path(), "");
    for _ in 0..12 {
        drop(lab.connection());
    }
    let (mut client, mut server) = lab.connection();
    assert!(says(&mut server, &mut client));
    let rule = "table ip r { chain c { type filter hook forward priority -5; iifname in0 tcp dport 8090 reject with tcp reset; }; };";
    lab.gateway.sh(&format!("nft '{rule}'"));
    assert!(!says(&mut client, &mut server), "the gateway resets it");
    let refused = lab.client.run(|| TcpStream::connect(SERVER)).expect_err("the gateway refuses it");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    thread::sleep(Duration::from_millis(300));
    let (_, records) = tap.stop(dir.path());
    for kind in ["reset_mid_flow", "syn_refused"] {
        let of = of_kind(&records, kind);
        let told: Vec<_> = of.iter().map(|r| (&r["interface"], &r["verdict"], &r["certainty"])).collect();
        assert_eq!(told, [(&"in0".into(), &"gateway".into(), &"proven".into())], "{kind}: {records:#?}");
    }
    let others = loud(&records).into_iter().filter(|r| r["verdict"] != "gateway").count();
    assert_eq!(others, 0, "{records:#?}");
}

#[test]
fn root_a_rule_that_rejects_what_the_server_sends_loses_no_mapping() {
    if skip("root_a_rule_that_rejects_what_the_server_sends") {
        return;
    }
    for (listens, mappings) in [("on", 0), ("off", 1)] {
        let (lab, dir) = (Lab::new("oifname out0 masquerade"), tempfile::tempdir().unwrap());
        let tap = Tap::start(&lab, dir.path(), &format!("--conntrack {listens}"));
        let (client, mut server) = lab.connection();
        let rule = "table ip r { chain c { type filter hook forward priority -5; iifname out0 tcp sport 8090 reject with tcp reset; }; };";
        lab.gateway.sh(&format!("nft '{rule}'"));
        server.write_all(b"y").unwrap();
        thread::sleep(Duration::from_millis(500));
        let (_, records) = tap.stop(dir.path());
        drop(client);
        assert_eq!(of_kind(&records, "reset_by_gateway").len(), 1, "{records:?}");
        let lost = of_kind(&records, "nat_mapping_lost");
        assert_eq!(lost.len(), mappings, "{listens} {records:?}");
        assert!(lost.iter().all(|r| r["certainty"] == "possible"), "{lost:?}");
    }
}
