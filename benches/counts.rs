//! Instructions, as callgrind counts them: the same for the same code, whatever else the machine does.
//!
//! Runs itself under valgrind once a subject and prints `subject instructions/unit`; `-- --json` prints one JSON object. Counted is
//! what happens within [`work_that_is_counted`], not what makes its input ready.

#![allow(missing_docs)]

mod work;

use std::env;
use std::hint::black_box;
use std::process::{Command, exit};

use rtrb::RingBuffer;
use syntap::capture::BATCH;
use syntap::detect::Sight;
use syntap::flow::{Mark, Recorder};
use syntap::pipeline::{Event, Place, What};
use syntap::track::{Coverage, Flow};
use syntap::wire::{Malformed, Nanos};
use work::life::Family;

/// Names the subject to the process that valgrind runs.
const SUBJECT: &str = "SYNTAP_COUNTED";

#[inline(never)]
fn work_that_is_counted(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

/// What is counted: a name, and what it does, which returns the units done.
type Subject = (&'static str, fn() -> usize);

const SUBJECTS: &[Subject] = &[
    ("decode, IPv4", || decode("IPv4")),
    ("decode, IPv6", || decode("IPv6")),
    ("decode, VLAN, IPv4", || decode("VLAN, IPv4")),
    ("decode, VXLAN, IPv4", || decode("VXLAN, IPv4")),
    ("decode, IPv4, SYN with its options", || decode("IPv4, SYN with its options")),
    ("table, find, IPv4", || find(Family::V4)),
    ("table, find, IPv6", || find(Family::V6)),
    ("tracker, a segment of a life", step),
    ("recorder, push", push),
    ("hand-over, an event", hand_over),
    ("hand-over, a packet to a worker", hand_over_packets),
    ("worker, a packet of the steady state, IPv4", || packet(Family::V4)),
    ("worker, a packet of the steady state, IPv6", || packet(Family::V6)),
    ("worker, a packet where a third of them is lost", in_trouble),
];

fn decode(shape: &str) -> usize {
    const TIMES: usize = 1000;
    let (_, frame) = work::shapes().into_iter().find(|(name, _)| *name == shape).expect("a known shape");
    work_that_is_counted(&mut || {
        for _ in 0..TIMES {
            black_box(work::decode(black_box(&frame), frame.len() as u32));
        }
    });
    TIMES
}

fn find(family: Family) -> usize {
    let table = work::table(12, family);
    let keys: Vec<_> = (0..4096).map(|n| work::key(n, family)).collect();
    work_that_is_counted(&mut || {
        for key in &keys {
            black_box(table.find(key, table.hash(key)));
        }
    });
    keys.len()
}

fn step() -> usize {
    let segments = work::segments();
    let mut flow = Flow::default();
    work_that_is_counted(&mut || {
        for (seg, side, at) in &segments {
            black_box(flow.step(seg, *side, *at, Coverage::All, |_| ()));
        }
    });
    segments.len()
}

fn push() -> usize {
    const TIMES: u32 = 4096;
    let mut recorder = Recorder::new(1024);
    // The ring is full and turns round.
    for n in 0..1024 {
        recorder.push(Mark::default(), &work::digest(n));
    }
    let mut mark = Mark::default();
    work_that_is_counted(&mut || {
        for n in 0..TIMES {
            mark = recorder.push(mark, &work::digest(n));
        }
    });
    TIMES as usize
}

fn hand_over() -> usize {
    const TIMES: u64 = 4096;
    let (mut to, mut from) = RingBuffer::new(TIMES as usize);
    work_that_is_counted(&mut || {
        for count in 0..TIMES {
            let place = Place { at: Nanos(count), age: Nanos(0), lane: 7, count };
            let what = What::Sight(Sight::Malformed { reason: Malformed::LinkTruncated, point: 0 });
            let _ = to.push(Event { place, what });
        }
        while let Ok(event) = from.pop() {
            black_box(event);
        }
    });
    TIMES as usize
}

fn hand_over_packets() -> usize {
    const TIMES: usize = 4096;
    let frames = work::exchange::Batches::new(TIMES);
    let packets = frames.packets();
    let mut pair = work::exchange::Pair::new();
    pair.pass(&packets);
    work_that_is_counted(&mut || assert_eq!(pair.pass(&packets), TIMES as u64));
    TIMES
}

fn packet(family: Family) -> usize {
    const BITS: u32 = 10;
    // Two lives of each slot, so that each kind of packet is in by its share, and births and deaths are.
    const TIMES: usize = 20 << BITS;
    let frames = work::lives(BITS, family, true, TIMES);
    let packets = work::packets(&frames);
    let (before, counted) = packets.split_at(packets.len() - TIMES);
    let mut worker = work::worker(BITS);
    let mut nowhere = work::Nowhere::default();
    worker.batch(before, &mut nowhere);
    work_that_is_counted(&mut || {
        for batch in counted.chunks(BATCH) {
            worker.batch(batch, &mut nowhere);
        }
    });
    TIMES
}

/// Hardly a flow has all its packets, and there are more such flows than may be whole at one time.
fn in_trouble() -> usize {
    const BITS: u32 = 10;
    const TIMES: usize = 20 << BITS;
    let frames = work::lossy(BITS, 2 * TIMES);
    let packets = work::packets(&frames);
    let (before, counted) = packets.split_at(TIMES);
    let mut worker = work::worker_in_trouble(BITS);
    let mut nowhere = work::Nowhere::default();
    worker.batch(before, &mut nowhere);
    work_that_is_counted(&mut || {
        for batch in counted.chunks(BATCH) {
            worker.batch(batch, &mut nowhere);
        }
    });
    TIMES
}

/// Instructions a unit; the reason if they cannot be counted.
fn count(name: &str) -> Result<f64, String> {
    let me = env::current_exe().map_err(|e| e.to_string())?;
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*work_that_is_counted*"])
        .arg("--callgrind-out-file=/dev/null")
        .arg(me)
        .env(SUBJECT, name)
        .output()
        .map_err(|e| format!("cannot run valgrind ({e}): apt install valgrind"))?;
    let (out, said) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let units: f64 = out.trim().parse().map_err(|_| said.lines().last().unwrap_or("it failed").to_owned())?;
    let line = said.lines().find_map(|l| l.split_once("Collected :"));
    let counted = line.and_then(|(_, n)| n.trim().parse::<f64>().ok()).ok_or("callgrind counted nothing")?;
    Ok(counted / units)
}

fn main() {
    if let Ok(wanted) = env::var(SUBJECT) {
        let (_, subject) = SUBJECTS.iter().find(|(name, _)| *name == wanted).expect("a known subject");
        println!("{}", subject());
        return;
    }
    let json = env::args().any(|a| a == "--json");
    let only = env::args().skip(1).find(|a| !a.starts_with('-'));
    let mut object = serde_json::Map::new();
    for (name, _) in
        SUBJECTS.iter().filter(|(name, _)| only.as_ref().is_none_or(|o| name.contains(o.as_str())))
    {
        match count(name) {
            Ok(n) => {
                object.insert((*name).to_owned(), n.into());
                if !json {
                    println!("{name:46} {n:9.1} instructions");
                }
            }
            Err(why) => {
                eprintln!("cannot count {name}: {why}");
                exit(1);
            }
        }
    }
    if json {
        println!("{}", serde_json::Value::Object(object));
    }
}
