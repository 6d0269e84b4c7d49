//! A span whose queues disagree on connections: each direction comes over a ring of its own, and one worker sees both.

mod common;
mod net;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::packet::{ACK, FIN, RST, SYN};
use common::talk::Talk;
use common::{json_lines, of_kind, run, syntap};
use net::tap::RawSender;
use net::{Wire, skip};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const CONNECTIONS: u16 = 200;

/// A program that is killed if the test ends before it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two CPUs of different parity: a raw socket past the queueing disciplines sends on the queue of its CPU's number, modulo their number.
fn two_cpus() -> Option<[usize; 2]> {
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let of = |parity| (parity..CpuSet::count()).step_by(2).find(|cpu| all.is_set(*cpu).unwrap());
    Some([of(0)?, of(1)?])
}

fn on(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// Connections that open, talk and close, and in between such as are refused: clients' packets sent on one CPU, servers' on the other, a round
/// of all at a time.
fn talk(wire: &Wire, cpus: [usize; 2]) {
    let sender = RawSender::new(wire);
    let yes: libc::c_int = 1;
    // SAFETY: the option outlives the call.
    let set = unsafe {
        let value = (&raw const yes).cast();
        libc::setsockopt(sender.socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, value, 4)
    };
    assert_eq!(set, 0);
    let mut talks: Vec<Talk> = (0..CONNECTIONS).map(|n| Talk::new(20_000 + n)).collect();
    const SCRIPT: [(usize, u8, usize); 9] = [
        (0, SYN, 0),
        (1, SYN | ACK, 0),
        (0, ACK, 0),
        (0, ACK, 320),
        (1, ACK, 270),
        (0, ACK, 0),
        (0, FIN | ACK, 0),
        (1, FIN | ACK, 0),
        (0, ACK, 0),
    ];
    std::thread::scope(|s| {
        s.spawn(|| {
            for (round, (from, flags, payload)) in SCRIPT.into_iter().enumerate() {
                on(cpus[from]);
                for (n, t) in talks.iter_mut().enumerate() {
                    let refused = n % 4 == 0;
                    let segment = match (from, round) {
                        (_, 2..) if refused => continue,
                        (1, 1) if refused => t.server(RST | ACK, 0),
                        (0, _) => t.client(flags, payload),
                        _ => t.server(flags, payload),
                    };
                    sender.send(&segment.frame());
                }
                // Long enough for the other CPU's packets not to be stamped first on a busy machine.
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    });
}

/// What a run finds and says.
fn tapped(queues: u32, options: &str, cpus: [usize; 2]) -> (Vec<Value>, String) {
    let wire = Wire::with_queues(queues);
    let dir = tempfile::tempdir().unwrap();
    let mut child = Running(
        Command::new("ip")
            .args([
                "netns",
                "exec",
                &wire.near.name,
                env!("CARGO_BIN_EXE_syntap"),
                "run",
                "--user",
                "root",
                "-i",
                "near=span",
            ])
            .args(["-w", dir.path().to_str().unwrap()])
            .args(options.split_whitespace())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts"),
    );
    let mut lines = BufReader::new(child.0.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let mut said = String::new();
    for line in lines.by_ref() {
        said += &format!("{line}\n");
        if line.contains("records go to") {
            break;
        }
    }
    talk(&wire, cpus);
    std::thread::sleep(Duration::from_millis(300));
    kill(Pid::from_raw(child.0.id() as i32), Signal::SIGTERM).expect("it runs");
    lines.for_each(|line| said += &format!("{line}\n"));
    assert_eq!(child.0.wait().unwrap().code(), Some(0), "{said}");
    (records(dir.path()), said)
}

fn records(dir: &Path) -> Vec<Value> {
    json_lines(&run(syntap().args(["show", "--json"]).arg(dir)))
}

/// Kind, tuple, verdict, certainty and letters of each record.
fn verdicts(records: &[Value]) -> BTreeSet<String> {
    let fields = [
        "kind",
        "src_ip",
        "src_port",
        "dst_ip",
        "dst_port",
        "severity",
        "verdict",
        "certainty",
        "history",
        "count",
    ];
    records.iter().map(|r| fields.map(|f| r[f].to_string()).join(" ")).collect()
}

#[test]
fn root_connections_whose_directions_come_over_two_rings_are_seen_whole() {
    if skip("root_connections_whose_directions_come_over_two_rings_are_seen_whole") {
        return;
    }
    let Some(cpus) = two_cpus() else {
        println!("skipped: a packet's CPU picks its queue, and there is one CPU");
        return;
    };
    let (one, said) = tapped(1, "", cpus);
    assert!(
        !said.contains("hand-over") && !said.contains("hand packets"),
        "one ring hands nothing over: {said}"
    );
    let refused = usize::from(CONNECTIONS / 4);
    assert_eq!(of_kind(&one, "syn_refused").len(), refused, "{one:#?}\n{said}");

    let (two, said) = tapped(2, "", cpus);
    assert!(said.contains("2 workers hand packets over to each other"), "{said}");
    assert!(said.contains("0 dropped, 0 missed") && !said.contains("out of order"), "{said}");
    let handed = said.lines().find_map(|l| l.strip_prefix("hand-over")).expect("the summary counts them");
    let handed: u64 = handed.split_whitespace().next().unwrap().parse().unwrap();
    // Six packets of a connection that opens, two of a refused one, and each has a direction on the wrong ring.
    assert!(handed > u64::from(CONNECTIONS), "{said}");
    assert!(said.contains("packets    1450: 1450 TCP"), "all were worked: {said}");
    assert_eq!(verdicts(&two), verdicts(&one), "as with one ring\n{said}");

    // And without: the halves are told as what they are.
    let (halves, said) = tapped(2, "--hand-over off", cpus);
    assert!(said.contains("connections may be seen in halves"), "{said}");
    assert_eq!(of_kind(&halves, "asymmetric_hash").len(), 1, "{halves:#?}");
    assert!(of_kind(&halves, "syn_refused").len() < refused, "neither worker sees a refusal whole");
}

#[test]
fn root_check_says_that_queues_may_disagree() {
    if skip("root_check_says_that_queues_may_disagree") {
        return;
    }
    let wire = Wire::with_queues(2);
    let check = || wire.near.sh(&format!("{} check -i near=span", env!("CARGO_BIN_EXE_syntap")));
    let said = check();
    assert!(said.contains("2 workers hand packets over to each other"), "{said}");
    assert!(said.contains("mend: if it is symmetric: --hand-over off"), "{said}");
}
