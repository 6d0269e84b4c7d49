//! A SYN flood beside connections that live: what is shed is counted to the packet, the connections are followed to
//! their ends, memory stays what it was, and the flood is told in its true size.

mod common;
mod net;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{json_lines, of_kind, run, syntap};
use net::flood::{Flood, let_answers_out};
use net::tap::config;
use net::{NEAR_IP, Wire, skip};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use serde_json::Value;
use syntap::bpf::{Budget, Counter};
use syntap::capture::{Source, Tap};
use syntap::pipeline::{Event, LifeOver, Outlet, What, Worker, WorkerConfig, WorkerCounters};
use syntap::track::State;

const PORT: u16 = 8080;

/// Flows that the worker has room for.
const FLOWS: usize = 1024;

/// A flood takes both CPUs there may be.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Connections from `far` to `near`, each open and used.
struct Talks {
    ends: Vec<(TcpStream, TcpStream)>,
}

impl Talks {
    fn new(wire: &Wire, listener: &TcpListener, count: usize) -> Talks {
        let to: SocketAddr = format!("{NEAR_IP}:{PORT}").parse().unwrap();
        let open = || {
            let client = wire.far.run(|| TcpStream::connect(to)).expect("it accepts");
            let (server, _) = listener.accept().expect("a connection");
            (client, server)
        };
        let mut talks = Talks { ends: Vec::new() };
        for _ in 0..count {
            talks.ends.push(open());
            // So that the budget has room for all of it.
            thread::sleep(Duration::from_millis(10));
        }
        talks.say();
        talks
    }

    /// A byte there and one back on each.
    fn say(&mut self) {
        let mut byte = [0];
        for (client, server) in &mut self.ends {
            client.write_all(b"x").unwrap();
            server.read_exact(&mut byte).unwrap();
            server.write_all(b"y").unwrap();
            client.read_exact(&mut byte).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn ports(&self) -> Vec<u16> {
        self.ends.iter().map(|(client, _)| client.local_addr().unwrap().port()).collect()
    }

    /// Ends them one after the other: the client closes, then the server; `reset` of them by a reset of the server.
    fn end(self, reset: usize, apart: Duration) {
        for (n, (mut client, server)) in self.ends.into_iter().enumerate() {
            if n < reset {
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&server, sockopt::Linger, &linger).unwrap();
                drop(server);
                let _ = client.read(&mut [0]);
            } else {
                client.shutdown(std::net::Shutdown::Write).unwrap();
                let mut server = server;
                assert_eq!(server.read(&mut [0]).unwrap(), 0, "the client's FIN");
                drop(server);
                assert_eq!(client.read(&mut [0]).unwrap(), 0, "the server's FIN");
            }
            thread::sleep(apart);
        }
    }
}

fn listener(wire: &Wire) -> TcpListener {
    wire.near.run(|| TcpListener::bind((NEAR_IP, PORT))).expect("a free port")
}

/// Floods for `lasts` while `meanwhile` goes on; how many SYNs were sent.
fn flood(wire: &Wire, lasts: Duration, meanwhile: impl FnOnce()) -> u64 {
    let mut flood = Flood::new(wire, PORT);
    thread::scope(|scope| {
        let sender = scope.spawn(|| flood.run(lasts));
        meanwhile();
        sender.join().expect("it sends");
    });
    flood.sent
}

#[derive(Default)]
struct Stop(AtomicBool);

/// Ends the reader also where the test fails.
struct StopOnDrop<'a>(&'a Stop);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

/// Keeps the lives of the tuples that are not the flood's.
#[derive(Default)]
struct Lives(Vec<LifeOver>);

impl Outlet for Lives {
    fn event(&mut self, event: Event) {
        if let What::Life(life) = event.what {
            let tuple = life.key.tuple();
            let forged = [tuple.src, tuple.dst].iter().any(|e| e.addr.to_string().starts_with("10.77."));
            if !forged {
                self.0.push(*life);
            }
        }
    }
}

/// Taps `near` with a worker of few flows, floods it with or without answers.
fn flooded(
    wire: &Wire,
    budget: Budget,
    answers: bool,
) -> (u64, syntap::capture::TapStats, WorkerCounters, Lives, Vec<u16>) {
    const TALKS: usize = 30;
    if answers {
        let_answers_out(wire);
    }
    let mut config = config("near", None, "8080");
    config.frames = 4096;
    config.budget = budget;
    config.known = 1024;
    let (mut tap, mut sources) = wire.near.run(|| Tap::open(&config)).expect("the tap opens");
    let known = tap.known();
    let worker = WorkerConfig {
        max_flows: FLOWS,
        recorder: 1024,
        known: Some(known.clone()),
        lives: true,
        ..WorkerConfig::default()
    };
    let (mut worker, mut lives) = (Worker::new(&worker), Lives::default());
    let stop = Stop::default();
    let listener = listener(wire);
    let (mut sent, mut ports) = (0, Vec::new());
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            loop {
                let last = stop.0.load(Ordering::Acquire);
                let polled = sources[0].poll(20, &mut |packets| worker.batch(packets, &mut lives)).unwrap();
                if last && polled == syntap::capture::Polled::Idle {
                    break;
                }
            }
        });
        let _stop = StopOnDrop(&stop);
        let mut talks = Talks::new(wire, &listener, TALKS);
        ports = talks.ports();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(known.len(), TALKS, "each connection is known, at the one tap point it crosses");
        sent = flood(wire, Duration::from_millis(2_500), || {
            thread::sleep(Duration::from_millis(300));
            talks.say();
            talks.end(10, Duration::from_millis(40));
        });
        thread::sleep(Duration::from_millis(100));
        assert_eq!(known.len(), TALKS, "and no tuple of the flood");
        assert_eq!(known.refused(), 0);
        tap.detach();
        thread::sleep(Duration::from_millis(50));
        drop(_stop);
        reader.join().expect("it reads");
    });
    let counters = *worker.counters();
    let now = worker.now();
    worker.finish(now, &mut lives);
    assert!(known.is_empty(), "what is forgotten is not known");
    (sent, tap.stats().expect("counters"), counters, lives, ports)
}

/// Whatever the flood was, each connection was seen from its SYN to its end.
fn whole(lives: &Lives, ports: &[u16]) {
    for (n, port) in ports.iter().enumerate() {
        let of = |l: &&LifeOver| [l.key.tuple().src.port, l.key.tuple().dst.port].contains(port);
        let of: Vec<_> = lives.0.iter().filter(of).collect();
        assert_eq!(of.len(), 1, "one life");
        let flow = &of[0].flow;
        let (history, want) = (flow.history(), if n < 10 { State::Reset } else { State::TimeWait });
        assert_eq!((flow.state, flow.picked_up), (want, false), "{port}: {history}");
        let [syns, syn_acks, fins, resets] = flow.counts;
        let ends = if n < 10 { (0, 1) } else { (2, 0) };
        assert_eq!((syns, syn_acks, fins, resets), (1, 1, ends.0, ends.1), "{port}: {history}");
    }
}

fn counted(sent: u64, stats: &syntap::capture::TapStats, talks: u64) {
    let total = stats.total();
    let n = |c: Counter| total.get(c);
    assert_eq!(n(Counter::SelectedSyn) + n(Counter::ShedSyn), sent + talks, "each SYN, to the packet");
    let census: u64 = stats.points[0].ingress_census.0[2].packets;
    assert_eq!(census, sent + talks, "and once more in the census");
    assert!(n(Counter::ShedSyn) > sent / 4, "it was a flood: {total:?}");
    assert_eq!(n(Counter::ShedKnown), 0, "nothing of a known connection: {total:?}");
    eprintln!(
        "{sent} SYNs sent; selected {} syn {} control; shed {} syn {} control, {} at the cap; dropped {:?}",
        n(Counter::SelectedSyn),
        n(Counter::SelectedControl),
        n(Counter::ShedSyn),
        n(Counter::ShedControl),
        n(Counter::ShedHard),
        stats.ring_total(),
    );
}

#[test]
fn root_connections_are_followed_to_their_ends_through_a_flood_that_nobody_answers() {
    if skip("root_connections_are_followed_to_their_ends_through_a_flood_that_nobody_answers") {
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let wire = Wire::new();
    let (sent, stats, counters, lives, ports) = flooded(&wire, Budget::packets(10_000), false);
    counted(sent, &stats, ports.len() as u64);
    // On a machine that is busy with other things the flood may be too small to fill the table.
    assert!(counters.evicted > 0 || counters.flows <= FLOWS as u64, "{counters:?}");
    assert_eq!(counters.evicted_open, 0, "{counters:?}");
    whole(&lives, &ports);
}

#[test]
fn root_connections_are_followed_to_their_ends_through_a_flood_that_is_answered() {
    if skip("root_connections_are_followed_to_their_ends_through_a_flood_that_is_answered") {
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let wire = Wire::new();
    let (sent, stats, counters, lives, ports) = flooded(&wire, Budget::packets(10_000), true);
    counted(sent, &stats, ports.len() as u64);
    let total = stats.total();
    let answers = total.get(Counter::SelectedControl) + total.get(Counter::ShedControl);
    assert!(answers > sent / 10, "it answers: {total:?}");
    // On a machine that is busy with other things the flood may be too small to fill the table.
    assert!(counters.evicted > 0 || counters.flows <= FLOWS as u64, "{counters:?}");
    assert_eq!(counters.evicted_open, 0, "{counters:?}");
    whole(&lives, &ports);
}

#[test]
fn root_a_share_of_the_cpu_is_kept_to_and_connections_are_followed() {
    if skip("root_a_share_of_the_cpu_is_kept_to_and_connections_are_followed") {
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let wire = Wire::new();
    // A fiftieth of each CPU; packets without end.
    let budget = Budget { pps: 10_000_000, share: 20_000 };
    let (sent, stats, counters, lives, ports) = flooded(&wire, budget, false);
    counted(sent, &stats, ports.len() as u64);
    assert_eq!(counters.evicted_open, 0, "{counters:?}");
    whole(&lives, &ports);
}

/// `syntap run`, and what it says.
struct Running {
    child: Child,
    reader: Option<thread::JoinHandle<String>>,
}

impl Running {
    fn start(wire: &Wire, args: &str) -> Running {
        let script =
            format!("exec {} run --user root -i near -p {PORT} {args}", env!("CARGO_BIN_EXE_syntap"));
        let mut child = Command::new("ip")
            .args(["netns", "exec", &wire.near.name, "sh", "-c", &script])
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut said = String::new();
        for line in lines.by_ref().map_while(Result::ok) {
            said.push_str(&line);
            said.push('\n');
            if line.contains("records go to") {
                break;
            }
        }
        assert!(said.contains("records go to"), "{said}");
        let reader = thread::spawn(move || {
            lines.map_while(Result::ok).fold(String::new(), |said, line| said + &line + "\n")
        });
        Running { child, reader: Some(reader) }
    }

    /// Memory, KiB: taken (`VmData`), and of that touched (`VmRSS`).
    fn memory(&self, which: &str) -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(which)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn stop(mut self) -> String {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("it runs");
        let code = self.child.wait().expect("a child").code();
        let said = self.reader.take().map(|r| r.join().expect("it reads")).unwrap_or_default();
        assert_eq!(code, Some(0), "{said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sum(records: &[&Value], fact: &str) -> u64 {
    records.iter().map(|r| r["facts"][fact].as_u64().expect("a number")).sum()
}

#[test]
fn root_a_flood_is_told_in_its_true_size_and_memory_stays_what_it_was() {
    if skip("root_a_flood_is_told_in_its_true_size_and_memory_stays_what_it_was") {
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let (records, mirror) = (dir.path().join("records"), dir.path().join("mirrored.pcapng"));
    fs::create_dir(&records).unwrap();
    let args = format!(
        "-w {} --mirror-to {} --budget 20000,50% --max-flows 1024",
        records.display(),
        mirror.display()
    );
    let running = Running::start(&wire, &args);
    let listener = listener(&wire);
    let talks = Talks::new(&wire, &listener, 20);
    let ports = talks.ports();
    thread::sleep(Duration::from_millis(200));
    // The first flood fills the tables; the second is the one that counts.
    let warm = flood(&wire, Duration::from_millis(1_500), || ());
    let (taken, touched) = (running.memory("VmData"), running.memory("VmRSS"));
    let sent = flood(&wire, Duration::from_millis(4_000), || {
        thread::sleep(Duration::from_millis(300));
        talks.end(10, Duration::from_millis(100));
    });
    let grown = (running.memory("VmData") - taken, running.memory("VmRSS") - touched);
    thread::sleep(Duration::from_millis(300));
    let said = running.stop();
    // Queues have bounds and grow up to them, and what was taken at start is touched when it is first used. A SYN that
    // left a flow of 600 bytes behind would make hundreds of MiB.
    assert!(
        grown.0 < 64 * 1_024 && grown.1 < 64 * 1_024,
        "{grown:?} KiB more than {taken} and {touched}: {said}"
    );

    let all = json_lines(&run(syntap().args(["show", "--json"]).arg(&records)));
    let shed = of_kind(&all, "budget_shed");
    let packets = sum(&shed, "packets");
    let classes: u64 = ["syn", "control", "watch", "neighbour", "icmp"].iter().map(|c| sum(&shed, c)).sum();
    assert_eq!(packets, classes, "{shed:?}");
    assert!(said.contains(&format!(" {packets} shed, 0 of known connections")), "{packets}: {said}");
    assert_eq!(sum(&shed, "packets_of_known_tuples"), 0, "{shed:?}");
    assert!(shed.iter().all(|r| r["interface"] == "near" && r["facts"]["budget_pps"] == 20_000), "{shed:?}");
    assert!(shed.iter().all(|r| r["facts"]["budget_share"] == 0.5), "{shed:?}");
    let syns = sent + warm + ports.len() as u64;
    assert!(said.contains(&format!("[S] {syns}")), "{syns} SYNs in the census: {said}");

    // A look at the counters finds some packets between the hook and the rules.
    let floods = of_kind(&all, "syn_flood");
    let (told, mirrored) = (sum(&floods, "syns"), sum(&floods, "mirrored"));
    let flood = sent + warm;
    assert!(told.abs_diff(flood) < flood / 50, "{told} told, {flood} sent: {floods:#?}");
    assert!(mirrored < told, "{floods:#?}");
    for r in &floods {
        assert_eq!(r["facts"]["responder"], format!("{NEAR_IP}:{PORT}"));
        assert_eq!(r["facts"]["known_shed"], 0);
        assert_eq!((&r["severity"], &r["interface"]), (&"error".into(), &"near".into()));
        let rate = r["facts"]["syns_per_second"].as_u64().unwrap();
        assert!(rate > 1_000, "{r}");
    }

    let resets = of_kind(&all, "reset_mid_flow");
    let of_reset: Vec<u64> = resets.iter().map(|r| r["src_port"].as_u64().unwrap()).collect();
    assert_eq!(of_reset, ports[..10].iter().map(|p| u64::from(*p)).collect::<Vec<_>>(), "{resets:?}");
    let lives = json_lines(&run(syntap().args(["replay", "--connections"]).arg(&mirror)));
    for port in &ports[10..] {
        let of: Vec<_> = lives.iter().filter(|l| l["src_port"] == *port).collect();
        assert!(of.len() == 1 && of[0]["conn_state"] == "SF", "{port}: {of:?}");
    }
    eprintln!(
        "{sent} and {warm} sent, {told} told; {taken} KiB taken, {touched} touched, and then {grown:?} more; {said}"
    );
}
