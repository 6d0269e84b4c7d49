//! `syntap show`: in order of time both ways, no more than was asked for, and what comes next.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{json_lines, run, syntap};
use proptest::prelude::*;
use serde_json::Value;
use syntap::record::{Merged, Record, ShardOptions, ShardWriter, Wanted, shard_paths};

/// A record of this moment, ns since the epoch.
fn at(base: &Record, ns: u64) -> Record {
    Record { ts_ns: ns, first_ns: ns, last_ns: ns, ..base.clone() }
}

/// A shard of a host, a frame for each list of times.
fn shard(dir: &Path, host: &str, frames: &[&[u64]]) -> PathBuf {
    let base = common::a_record();
    let mut w = ShardWriter::create(dir, host, ShardOptions::default()).expect("created");
    for frame in frames {
        frame.iter().for_each(|ns| w.push(&at(&base, *ns)).expect("taken"));
        w.flush();
    }
    w.close().expect("closed");
    let own = format!("syntap-{host}-");
    let mut paths = shard_paths(&[dir.to_owned()]).expect("listed").into_iter();
    let is_own = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&own));
    paths.rfind(is_own).expect("one")
}

/// The times that are shown, and what is said.
fn shown(dir: &Path, args: &[&str]) -> (Vec<u64>, String) {
    let out = run(syntap().args(["show", "--json"]).args(args).arg(dir));
    let times = json_lines(&out).iter().map(|r| r["ts_ns"].as_u64().expect("a number")).collect();
    (times, String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Damages a frame of a shard.
fn hurt(path: &Path, frame: usize) {
    let index = syntap::record::ShardReader::open(path).expect("opened").index().expect("read");
    let mut bytes = std::fs::read(path).expect("there");
    bytes[index.frames[frame].at as usize + 70] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn shards_of_several_hosts_are_shown_in_order_of_time_and_backwards() {
    let dir = tempfile::tempdir().expect("a directory");
    shard(dir.path(), "b", &[&[1, 4], &[9]]);
    shard(dir.path(), "a", &[&[2, 3, 5], &[7, 8]]);
    shard(dir.path(), "c", &[&[6]]);
    let forwards: Vec<u64> = (1..10).collect();
    let backwards: Vec<u64> = (1..10).rev().collect();
    assert_eq!(shown(dir.path(), &[]), (forwards, String::new()));
    assert_eq!(shown(dir.path(), &["--reverse"]), (backwards, String::new()));
    assert_eq!(shown(dir.path(), &["--limit", "3"]).0, [1, 2, 3]);
    assert_eq!(shown(dir.path(), &["--limit", "3", "--reverse"]).0, [9, 8, 7]);
    for command in ["show", "report", "export --format jsonl -o -"] {
        let mut ran = syntap();
        ran.args(command.split(' ')).args(["--since", "1h", "--until", "2h"]).arg(dir.path());
        let out = ran.output().expect("starts");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(2) && said.contains("--since is later than --until"), "{said}");
    }
}

#[test]
fn what_was_not_asked_for_is_not_read() {
    let dir = tempfile::tempdir().expect("a directory");
    const DAY: u64 = 86_400_000_000_000;
    let old = shard(dir.path(), "a", &[&[DAY], &[2 * DAY], &[3 * DAY]]);
    let new = shard(dir.path(), "b", &[&[11 * DAY], &[12 * DAY]]);
    // Damage shows where something is read, and nowhere else.
    hurt(&old, 1);
    hurt(&new, 0);
    let (all, said) = shown(dir.path(), &[]);
    assert_eq!(all, [DAY, 3 * DAY, 12 * DAY]);
    assert_eq!(said.matches("1 record; ").count(), 2, "each says what it lost: {said}");
    for (args, times) in [
        (&["--limit", "1"][..], vec![DAY]),
        (&["--limit", "1", "--reverse"], vec![12 * DAY]),
        (&["--until", "1970-01-02"], vec![DAY]),
        (&["--since", "1970-01-04", "--until", "1970-01-05"], vec![3 * DAY]),
        (&["--since", "1970-01-13"], vec![12 * DAY]),
        (&["--since", "1970-01-13", "--reverse"], vec![12 * DAY]),
        (&["--since", "1970-02-01"], vec![]),
    ] {
        assert_eq!(shown(dir.path(), args), (times, String::new()), "{args:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_shards_are_merged_by_time_and_a_time_chooses_as_it_does_record_by_record(
        shards in proptest::collection::vec(proptest::collection::vec(0..200u64, 0..40), 1..6),
        since in 0..200u64, length in 0..200u64
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let base = common::a_record();
        for (n, times) in shards.iter().enumerate() {
            let mut times = times.clone();
            times.sort_unstable();
            let mut w = ShardWriter::create(dir.path(), &format!("h{n}"), ShardOptions::default()).expect("created");
            for (k, ns) in times.iter().enumerate() {
                w.push(&at(&base, *ns)).expect("taken");
                if k % 4 == n {
                    w.flush();
                }
            }
            w.close().expect("closed");
        }
        let mut want: Vec<u64> = shards.concat();
        want.sort_unstable();
        let paths = shard_paths(&[dir.path().to_owned()]).expect("listed");
        let times = |within, newest_first| -> Vec<u64> {
            Merged::of(paths.clone(), Wanted { within, newest_first }).map(|s| s.record.ts_ns).collect()
        };
        prop_assert_eq!(times((0, u64::MAX), false), want.clone());
        let until = since + length;
        let chosen: Vec<u64> = times((since, until), true);
        let inside = |ns: &u64| (since..=until).contains(ns);
        want.retain(inside);
        // Frames are passed over as a whole, so some beside them may be left.
        prop_assert_eq!(chosen.iter().copied().filter(inside).rev().collect::<Vec<_>>(), want);
        prop_assert!(chosen.is_sorted_by(|a, b| a >= b));
    }
}

#[test]
fn nets_and_interfaces_choose() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = common::a_record();
    let mut w = ShardWriter::create(dir.path(), "gw", ShardOptions::default()).expect("created");
    for (ns, src, dst, interface) in [
        (1, "10.1.0.1", "192.0.2.1", Some("eth0")),
        (2, "10.2.0.1", "192.0.2.2", Some("eth1")),
        (3, "2001:db8::1", "2001:db8:1::1", Some("eth0")),
        (4, "10.2.0.2", "192.0.2.1", None),
    ] {
        let ip = |ip: &str| Some(ip.parse().expect("an address"));
        let interface = interface.map(str::to_owned);
        w.push(&Record { src_ip: ip(src), dst_ip: ip(dst), interface, ..at(&base, ns) }).expect("taken");
    }
    w.close().expect("closed");
    let times = |args: &[&str]| shown(dir.path(), args).0;
    assert_eq!(times(&["--net", "10.2.0.0/16"]), [2, 4]);
    assert_eq!(times(&["--net", "10.1.0.0/16,2001:db8:1::/48"]), [1, 3], "an end in one of them");
    assert_eq!(times(&["--net", "10.0.0.0/8", "--tuple", "192.0.2.1"]), [1, 4]);
    assert_eq!(times(&["--interface", "eth0"]), [1, 3]);
    assert_eq!(times(&["--interface", "eth0,eth1", "--net", "0.0.0.0/0"]), [1, 2]);
    let out = syntap().args(["show", "--net", "10.0.0.0/40"]).arg(dir.path()).output().expect("starts");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(2) && said.contains("from 0 to 32 bits"), "{said}");
    // A report takes them as well.
    let out = run(syntap().args(["report", "--json", "--net", "10.2.0.0/16"]).arg(dir.path()));
    assert_eq!(json_lines_of(&out.stdout)["records"], 2);
}

fn json_lines_of(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("JSON")
}

/// A `show --follow` and what it prints.
struct Following(Child, std::io::Lines<BufReader<std::process::ChildStdout>>);

impl Following {
    fn new(dir: &Path, args: &[&str]) -> Following {
        let mut command = syntap();
        command.args(["show", "--json", "--follow"]).args(args).arg(dir).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Following(child, lines)
    }

    fn next(&mut self) -> u64 {
        let line = self.1.next().expect("a line").expect("text");
        let record: Value = serde_json::from_str(&line).expect("JSON");
        record["ts_ns"].as_u64().expect("a number")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn new_records_are_followed_over_the_ends_of_shards_in_order_and_none_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = common::a_record();
    // A frame fills a shard.
    let options = ShardOptions { max_bytes: 1, ..ShardOptions::default() };
    let mut w = ShardWriter::create(dir.path(), "gw", options).expect("created");
    let mut write = |ns: u64| {
        w.push(&at(&base, ns)).expect("taken");
        w.flush();
    };
    (1..=3).for_each(&mut write);
    // With what was before, from then on.
    let mut all = Following::new(dir.path(), &["--since", "1970-01-01T00:00:00.000000002Z"]);
    assert_eq!([all.next(), all.next()], [2, 3]);
    for ns in 4..20 {
        write(ns);
        assert_eq!(all.next(), ns);
    }
    (20..40).for_each(&mut write);
    assert_eq!((20..40).map(|_| all.next()).collect::<Vec<_>>(), (20..40).collect::<Vec<_>>());
    // Only what comes, and only so many. It says nothing when it has begun to wait, so it is written to until it has seen one.
    let mut some = Following::new(dir.path(), &["--limit", "2"]);
    let mut ns = 100;
    let begun = Instant::now();
    while some.0.try_wait().expect("a child").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it ends after two");
        write(ns);
        ns += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    let first = some.next();
    assert!(first >= 100 && some.next() == first + 1, "{first}");
    assert!(some.1.next().is_none());
}

#[test]
fn a_directory_without_shards_is_waited_at() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut following = Following::new(dir.path(), &["--since", "1970-01-01"]);
    shard(dir.path(), "gw", &[&[7]]);
    assert_eq!(following.next(), 7);
}

#[test]
fn a_shard_that_cannot_be_read_is_named_once_while_others_are_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let odd = |name: &str| std::fs::create_dir(dir.path().join(name)).expect("made");
    let base = common::a_record();
    let mut w = ShardWriter::create(dir.path(), "gw", ShardOptions::default()).expect("created");
    let mut write = |ns: u64| {
        w.push(&at(&base, ns)).expect("taken");
        w.flush();
    };
    odd("syntap-before.jsonl.zst");
    let mut command = syntap();
    command.args(["show", "--json", "--follow", "--limit", "1"]).arg(dir.path());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut told = BufReader::new(child.stderr.take().expect("a pipe")).lines().map(|l| l.expect("text"));
    assert!(told.next().expect("a line").contains("syntap-before.jsonl.zst"));
    odd("syntap-meanwhile.jsonl.zst");
    let named = told.by_ref().find(|l| l.contains(".jsonl.zst")).expect("a line");
    assert!(named.contains("syntap-meanwhile.jsonl.zst"), "{named}");
    // It looks at the directory again and again until there is something to print.
    std::thread::sleep(Duration::from_secs(1));
    write(7);
    assert!(child.wait().expect("a child").success());
    assert_eq!(told.filter(|l| l.contains(".jsonl.zst")).count(), 0, "each is named once");
}

#[test]
fn a_person_at_a_terminal_gets_a_pager_and_nobody_else_does() {
    let dir = tempfile::tempdir().expect("a directory");
    shard(dir.path(), "gw", &[&[7]]);
    // `script` gives a command a terminal.
    if Command::new("script").arg("--version").output().is_err() {
        println!("skipped: no script command");
        return;
    }
    let show = |args: &str| format!("{} show {args} {}", env!("CARGO_BIN_EXE_syntap"), dir.path().display());
    let script = |args: &str, pager: &str| {
        let mut command = Command::new("script");
        command.args(["-qec", &show(args), "/dev/null"]).stdin(Stdio::null());
        command.env("PAGER", pager).env("TERM", "xterm");
        command
    };
    let at_a_terminal =
        |args: &str, pager: &str| String::from_utf8(run(&mut script(args, pager)).stdout).expect("text");
    let at_a_terminal_fails = |args: &str, pager: &str| {
        let out = script(args, pager).output().expect("it starts");
        assert_eq!(out.status.code(), Some(2));
        String::from_utf8(out.stdout).expect("text")
    };
    let paged = at_a_terminal("", "sed 's/^/PAGED /'");
    let lines: Vec<&str> = paged.lines().filter(|l| !l.trim().is_empty()).collect();
    assert!(lines.len() > 3 && lines.iter().all(|l| l.starts_with("PAGED ")), "{paged}");
    for args in ["--no-pager", "--json"] {
        assert!(!at_a_terminal(args, "sed 's/^/PAGED /'").contains("PAGED "), "{args}");
    }
    assert!(at_a_terminal("", "cat").contains("tuple_reuse"), "no pager where none is wanted");
    assert!(at_a_terminal_fails("", "no-such-pager").contains("$PAGER cannot be started"));
    // A pager that is quit early is no error.
    assert!(!at_a_terminal("", "true").contains("syntap:"));
    let piped = run(Command::new("sh").args(["-c", &show("")]).env("PAGER", "sed 's/^/PAGED /'")).stdout;
    assert!(!String::from_utf8(piped).expect("text").contains("PAGED "));
}
