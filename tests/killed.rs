//! A run that is killed at any moment leaves all but what it had not yet written, and the next one goes on beside it.

mod common;
mod net;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::packet::{ACK, RST, Tcp, pcap};
use common::{run, syntap};
use syntap::record::{ShardReader, ShardState, read_lines, shard_paths};

/// Connections that are refused, each one a record: some tens of frames.
const REFUSED: u64 = 12_000;

/// What a writer holds back at most before it writes a frame, and a record more.
const HELD_BACK: usize = 512 * 1024 + 8 * 1024;

/// The kills.
const KILLS: u64 = 50;

/// A millisecond apart, and of 300 responders, so that no record stands for others.
fn capture(dir: &Path) -> PathBuf {
    let refused = |n: u64| {
        let dst = (Ipv4Addr::new(192, 0, 2 + (n % 300 / 200) as u8, (n % 300 % 200) as u8), 443);
        let syn = Tcp { dst, ..Tcp::syn_of(0, n) };
        let (src, seq, ack) = (syn.dst, 0, syn.seq + 1);
        let rst = Tcp { src, dst: syn.src, flags: RST | ACK, seq, ack, ..syn.clone() };
        let us = 1_700_000_000_000_000 + n * 1_000;
        [(us, syn.frame()), (us + 500, rst.frame())]
    };
    let path = dir.join("refused.pcap");
    std::fs::write(&path, pcap(&(0..REFUSED).flat_map(refused).collect::<Vec<_>>())).expect("written");
    path
}

fn replay(capture: &Path, into: Option<&Path>) -> Command {
    let mut command = syntap();
    command.args(["replay", "--host", "gw", "--json"]).arg(capture);
    if let Some(dir) = into {
        command.arg("-w").arg(dir);
    }
    command
}

/// The lines of a shard that are anomalies, and its state.
fn lines(path: &Path) -> (Vec<String>, ShardState) {
    let mut all = Vec::new();
    let state = read_lines(path, (0, u64::MAX), &mut |line| {
        let line = String::from_utf8(line.to_vec()).expect("text");
        if !line.starts_with("{\"kind\":\"figures\"") {
            all.push(line);
        }
        true
    });
    (all, state.expect("read"))
}

#[test]
fn a_replay_killed_fifty_times_loses_what_it_held_back_and_never_a_finished_frame() {
    let dir = tempfile::tempdir().expect("a directory");
    let capture = capture(dir.path());
    let whole = run(&mut replay(&capture, None)).stdout;
    let whole: Vec<String> = String::from_utf8(whole).expect("text").lines().map(str::to_owned).collect();
    assert!(whole.len() as u64 >= REFUSED, "{} records", whole.len());
    let shards = dir.path().join("shards");
    std::fs::create_dir(&shards).expect("a directory");
    let list = || shard_paths(std::slice::from_ref(&shards)).expect("listed");

    let mut left: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut kept = 0;
    for kill in 0..KILLS {
        let mut child = replay(&capture, Some(&shards))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        // Killed after some records were told, from the first to nearly the last.
        let after = kill * (whole.len() as u64 - 100) / KILLS + kill % 7;
        let mut told = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        for line in &whole[..=after as usize] {
            assert_eq!(told.next().expect("a line").expect("text"), *line);
        }
        child.kill().expect("it runs");
        child.wait().expect("it ran");
        // Those on their way into the pipe were told as well; the last may be half a line.
        let told = after as usize + told.map_while(Result::ok).filter(|l| l.ends_with('}')).count();

        for (path, bytes) in &left {
            assert_eq!(std::fs::read(path).expect("there"), *bytes, "nobody touches it any more");
        }
        let new: Vec<PathBuf> = list().into_iter().filter(|p| !left.contains_key(p)).collect();
        let [path] = &new[..] else { panic!("one shard a run: {new:?}") };
        let (lines, state) = lines(path);
        assert_eq!(lines, whole[..lines.len()], "from the first on, and none is missing in between");
        assert!(!state.closed && !state.written);
        // Half a frame at the end is the one that was being written.
        assert!(state.losses <= 1, "{state:?}");
        let torn = state.lost.first().map_or(state.end, |l| l.at);
        let index = ShardReader::open(path).expect("opened").index().expect("read");
        assert!(index.frames.iter().all(|f| f.at + f.size() <= torn), "{state:?}");
        let lost: usize =
            whole[lines.len()..].iter().take(told.saturating_sub(lines.len())).map(|l| l.len() + 1).sum();
        assert!(lost <= HELD_BACK, "kill {kill}: {lost} bytes of {told} records");
        kept += lines.len();
        left.insert(path.clone(), std::fs::read(path).expect("there"));
    }
    assert!(kept > REFUSED as usize, "most kills come when frames have been written");

    // The next one goes on beside what they left, and all of it is read.
    run(&mut replay(&capture, Some(&shards)));
    let last = list().into_iter().find(|p| !left.contains_key(p)).expect("one more");
    let (lines, state) = lines(&last);
    assert!(lines == whole && state.is_whole() && state.closed, "{state:?}");
    let out = run(syntap().args(["show", "--json"]).arg(&shards)).stdout;
    assert_eq!(out.iter().filter(|b| **b == b'\n').count(), kept + whole.len());
}

/// A run that ends with the test, however that ends.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn root_live_runs_that_are_killed_leave_what_was_read_of_them_before() {
    if net::skip("root_live_runs_that_are_killed_leave_what_was_read_of_them_before") {
        return;
    }
    let wire = net::Wire::new();
    let dir = tempfile::tempdir().expect("a directory");
    let list = || shard_paths(&[dir.path().to_owned()]).expect("listed");
    let stop = AtomicBool::new(false);
    let refused = || {
        for port in (1_024..3_024).cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // Each port has its own count of records that are written whole.
            let _ = TcpStream::connect((net::NEAR_IP, port));
            std::thread::sleep(Duration::from_micros(500));
        }
    };
    let runs = || {
        for kill in 1..=5 {
            let run = || {
                let mut command = syntap();
                command.args(["run", "--user", "root", "-i", "near", "--status", "0", "-w"]).arg(dir.path());
                command.stderr(Stdio::null()).spawn().expect("the program starts")
            };
            let mut child = Run(wire.near.run(run));
            let begun = Instant::now();
            let (path, before) = loop {
                assert!(begun.elapsed() < Duration::from_secs(120), "it writes");
                std::thread::sleep(Duration::from_millis(50));
                let shards = list();
                if shards.len() < kill {
                    continue;
                }
                let path = shards[kill - 1].clone();
                let (before, state) = lines(&path);
                assert!(state.is_whole() && !state.closed, "{state:?}");
                // More at each kill, so that they come at different moments.
                if before.len() > 100 * kill {
                    break (path, before);
                }
            };
            child.0.kill().expect("it runs");
            child.0.wait().expect("it ran");
            let (after, state) = lines(&path);
            assert!(after.starts_with(&before) && !state.closed && !state.written, "{state:?}");
            assert!(state.losses <= 1 && state.lost.iter().all(|l| l.at + l.bytes == state.end), "{state:?}");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| wire.far.run(refused));
        // Whatever happens, the traffic ends.
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(runs));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ran {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(list().len(), 5, "each goes on in a shard of its own");
}
