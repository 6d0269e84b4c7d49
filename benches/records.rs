//! What a record costs on its way to disk, and what a handshake costs at the desk.
//!
//! `cargo bench --bench records` runs all of it under criterion. `cargo bench --bench records -- --lines` measures each
//! stage once and prints a line for each figure: name, value, unit. `-- --stage NAME COUNT` does a stage COUNT times and nothing
//! else, for `valgrind --tool=callgrind`; `-- --print COUNT` prints the records that the shards are measured with.

#![allow(missing_docs)]

use std::hint::black_box;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use syntap::detect::{Anomaly, Life, Seen, Sight};
use syntap::flow::{Digest, Endpoint, Side, Tuple};
use syntap::pipeline::{Desk, Event, Place, RecordSink, What};
use syntap::record::{Context, Record, ShardOptions, ShardWriter, shard_paths};
use syntap::wire::{Addr, Mac, Nanos, Seq, TcpFlags, Way};

#[path = "../tests/common/anomalies.rs"]
mod anomalies;

use anomalies::{Night, context};

/// Something that can be done a number of times; setting up and generating input are not in the time.
trait Stage {
    /// Does it `count` times.
    fn run(&mut self, count: u64) -> Spent;

    /// Figures besides the time, after a run: name, value, unit.
    fn more(&mut self) -> Vec<(&'static str, f64, &'static str)> {
        Vec::new()
    }
}

/// Time that something took.
#[derive(Clone, Copy, Default)]
struct Spent {
    wall: Duration,
    /// Of this process's CPUs: what it costs, whatever the disk and the neighbours make it wait.
    cpu: Duration,
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Spent) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

fn cpu_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
    nix::time::clock_gettime(clock).expect("every kernel has it").into()
}

fn timed(what: impl FnOnce()) -> Spent {
    let (wall, cpu) = (Instant::now(), cpu_time());
    what();
    Spent { wall: wall.elapsed(), cpu: cpu_time() - cpu }
}

type Make = fn(&mut Night) -> Anomaly;

/// The record with three packets is the one that "a million a second" is about.
const KINDS: [(&str, Make); 3] =
    [("3_packets", Night::unanswered), ("8_packets", Night::reset), ("18_packets", Night::refused)];

/// Different records that a stage goes through in turn: more than a cache of second level holds.
const DIFFERENT: usize = 1024;

/// Records as JSON lines into one buffer that is cut when it is as full as a frame.
struct Lines {
    records: Vec<Record>,
    write: fn(&Record, &mut Vec<u8>),
    out: Vec<u8>,
    bytes: u64,
    spent: Spent,
    next: usize,
}

impl Lines {
    fn new(make: Make, write: fn(&Record, &mut Vec<u8>)) -> Lines {
        let (mut night, context) = (Night::new(1), context());
        let record = |_| Record::from_anomaly(&make(&mut night), &context, None);
        let records = (0..DIFFERENT).map(record).collect();
        Lines { records, write, out: Vec::with_capacity(1 << 20), bytes: 0, spent: Spent::default(), next: 0 }
    }
}

impl Stage for Lines {
    fn run(&mut self, count: u64) -> Spent {
        let spent = timed(|| {
            for _ in 0..count {
                if self.out.len() > 256 << 10 {
                    self.bytes += self.out.len() as u64;
                    black_box(&self.out);
                    self.out.clear();
                }
                (self.write)(&self.records[self.next % DIFFERENT], &mut self.out);
                self.next += 1;
            }
        });
        self.spent += spent;
        spent
    }

    fn more(&mut self) -> Vec<(&'static str, f64, &'static str)> {
        let bytes = (self.bytes + self.out.len() as u64) as f64;
        vec![
            ("size", bytes / self.next as f64, "bytes"),
            ("throughput", bytes / self.spent.cpu.as_secs_f64() / 1e6, "MB/s"),
        ]
    }
}

fn with_serde(record: &Record, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, record).expect("a vector takes all");
    out.push(b'\n');
}

/// A record from an anomaly.
struct Made {
    anomalies: Vec<Anomaly>,
    context: Context,
    next: usize,
}

impl Made {
    fn new(make: Make) -> Made {
        let mut night = Night::new(1);
        Made { anomalies: (0..DIFFERENT).map(|_| make(&mut night)).collect(), context: context(), next: 0 }
    }
}

impl Stage for Made {
    fn run(&mut self, count: u64) -> Spent {
        timed(|| {
            for _ in 0..count {
                black_box(Record::from_anomaly(&self.anomalies[self.next % DIFFERENT], &self.context, None));
                self.next += 1;
            }
        })
    }
}

/// Records on their way into shards in a directory: to the page cache, with the sync at the end of each shard.
struct Shards {
    dir: tempfile::TempDir,
    night: Night,
    context: Context,
    raw: u64,
    count: u64,
}

impl Shards {
    fn new() -> Shards {
        // Beside the build's output, which is on a disk; /tmp may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        Shards { dir, night: Night::new(7), context: context(), raw: 0, count: 0 }
    }
}

impl Stage for Shards {
    fn run(&mut self, count: u64) -> Spent {
        let mut shards =
            ShardWriter::create(self.dir.path(), "bench", ShardOptions::default()).expect("shards");
        let (mut spent, mut left, mut line) = (Spent::default(), count, Vec::new());
        while left > 0 {
            let n = left.min(DIFFERENT as u64);
            let records: Vec<Record> =
                (0..n).map(|_| Record::from_anomaly(&self.night.any(), &self.context, None)).collect();
            for r in &records {
                line.clear();
                r.write_line(&mut line);
                self.raw += line.len() as u64;
            }
            spent += timed(|| records.iter().for_each(|r| shards.push(r).expect("taken")));
            left -= n;
        }
        spent += timed(|| shards.close().expect("written"));
        self.count += count;
        spent
    }

    fn more(&mut self) -> Vec<(&'static str, f64, &'static str)> {
        let paths = shard_paths(&[self.dir.path().to_owned()]).expect("listed");
        let stored: u64 = paths.iter().map(|p| std::fs::metadata(p).expect("there").len()).sum();
        vec![
            ("size", self.raw as f64 / self.count as f64, "bytes"),
            ("ratio", self.raw as f64 / stored as f64, "x"),
        ]
    }
}

/// A sink that writes shards, as the product's does.
struct Sink(ShardWriter);

impl RecordSink for Sink {
    fn record(&mut self, record: &Record) -> std::io::Result<()> {
        self.0.push(record)
    }
}

/// All that the writer thread does with an anomaly: order, survey, record, rate limit, line, frame, file.
struct Written {
    dir: tempfile::TempDir,
    night: Night,
}

impl Written {
    fn new() -> Written {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        Written { dir, night: Night::new(7) }
    }
}

impl Stage for Written {
    fn run(&mut self, count: u64) -> Spent {
        let shards = ShardWriter::create(self.dir.path(), "bench", ShardOptions::default()).expect("shards");
        let mut desk = Desk::new(context(), Sink(shards));
        let (mut spent, mut left) = (Spent::default(), count);
        while left > 0 {
            let n = left.min(DIFFERENT as u64);
            let events: Vec<Event> = (0..n)
                .map(|n| {
                    let a = self.night.any();
                    let place = Place { at: a.time, age: Nanos(0), lane: self.night.random(), count: n };
                    Event { place, what: What::Anomaly(Box::new(a)) }
                })
                .collect();
            let horizon = Nanos(self.night.now - 500 * Nanos::MS);
            spent += timed(|| {
                events.into_iter().for_each(|e| desk.event_of(0, e).expect("taken"));
                desk.advance(horizon).expect("taken");
            });
            left -= n;
        }
        spent += timed(|| desk.finish().expect("taken").0.0.close().expect("written"));
        spent
    }
}

struct Nowhere;

impl RecordSink for Nowhere {
    fn record(&mut self, record: &Record) -> std::io::Result<()> {
        black_box(record);
        Ok(())
    }
}

/// Handshakes as two workers tell of them at 100,000 a second: a SYN, its SYN-ACK and the answer 2 ms later, the end of
/// the life after a second. With `both`, each is seen inside and outside of a gateway that translates.
struct Handshakes {
    desk: Desk<Nowhere>,
    both: bool,
    next: u64,
    counts: [u64; 2],
    bites: [Vec<Event>; 2],
}

/// Time between two.
const APART: u64 = 10_000;

/// Handshakes between a SYN and its answer, and between it and the end.
const ANSWER: u64 = 200;
const END: u64 = 100_000;

impl Handshakes {
    fn new(both: bool) -> Handshakes {
        let mut context = context();
        if !both {
            context.interfaces.truncate(1);
        }
        Handshakes {
            desk: Desk::new(context, Nowhere),
            both,
            next: 0,
            counts: [0; 2],
            bites: [vec![], vec![]],
        }
    }

    /// The n-th: its tuples inside and outside, and its numbers.
    fn of(n: u64) -> ([Tuple; 2], [u32; 2]) {
        let mut night = Night::new(n);
        let inside = night.tuple();
        let src = Endpoint { addr: Addr::v4([203, 0, 113, 1]), port: 1_024 + (n % 60_000) as u16 };
        let numbers = night.random();
        ([inside, Tuple { src, dst: inside.dst }], [numbers as u32, (numbers >> 32) as u32])
    }

    fn tell(&mut self, n: u64, at: u64, point: u8, sight: impl Fn(Tuple, [u32; 2], Nanos) -> Sight) {
        let (tuples, numbers) = Handshakes::of(n);
        let at = Nanos(at + 9_000 * u64::from(point));
        let tuple = tuples[usize::from(point)];
        let ring = (n % 2) as usize;
        self.counts[ring] += 1;
        let place = Place { at, age: Nanos(0), lane: n.wrapping_mul(0x9e37_79b9), count: self.counts[ring] };
        self.bites[ring].push(Event { place, what: What::Sight(sight(tuple, numbers, at)) });
    }

    /// All that is told while one handshake begins.
    fn step(&mut self) {
        let (n, at) = (self.next, anomalies::BEGIN + self.next * APART);
        self.next += 1;
        for point in 0..1 + u8::from(self.both) {
            let digest = move |tuple: Tuple, seq: u32, ack: u32, flags: u16, at: Nanos| Digest {
                ts: at,
                seq: Seq(seq),
                ack: Seq(ack),
                flags: TcpFlags(flags),
                tsval: seq,
                has_ts: true,
                win: 64_240,
                src_mac: Mac([2, 0, 0, point, 0, tuple.src.addr.0[15] % 16]),
                dst_mac: Mac([2, 0, 0, point, 1, 1]),
                point,
                way: if (point == 0) == (flags == TcpFlags::SYN) { Way::Ingress } else { Way::Egress },
                from: if flags == TcpFlags::SYN { Side::Orig } else { Side::Resp },
                mss: 1_460,
                wscale: 8,
                ..Digest::default()
            };
            self.tell(n, at, point, |tuple, [isn, _], at| {
                Sight::Syn(Seen { tuple, digest: digest(tuple, isn, 0, TcpFlags::SYN, at) })
            });
            if let Some(n) = n.checked_sub(ANSWER) {
                self.tell(n, at, point, |tuple, [isn, other], at| {
                    let flags = TcpFlags::SYN | TcpFlags::ACK;
                    Sight::SynAck(Seen {
                        tuple,
                        digest: digest(tuple, other, isn.wrapping_add(1), flags, at),
                    })
                });
                let latency_ns = ANSWER * APART;
                self.tell(n, at, point, |tuple, _, _| Sight::Answered { tuple, point, latency_ns, syns: 1 });
            }
            if let Some(n) = n.checked_sub(END) {
                self.tell(n, at, point, |tuple, _, at| {
                    Sight::Over(Life {
                        tuple,
                        point,
                        first: Nanos(at.0 - END * APART),
                        last: at,
                        packets: [5, 5],
                        went_on: true,
                        opened: true,
                        closed: true,
                        reset: false,
                        requests: 2,
                    })
                });
            }
        }
    }
}

impl Stage for Handshakes {
    fn run(&mut self, count: u64) -> Spent {
        let mut spent = Spent::default();
        let mut left = count;
        while left > 0 {
            let n = left.min(256);
            (0..n).for_each(|_| self.step());
            left -= n;
            let horizon = Nanos(anomalies::BEGIN + self.next * APART - 500 * Nanos::MS);
            let Handshakes { desk, bites, .. } = self;
            spent += timed(|| {
                for (ring, bite) in bites.iter_mut().enumerate() {
                    bite.drain(..).for_each(|event| desk.event_of(ring, event).expect("taken"));
                }
                desk.advance(horizon).expect("taken");
            });
        }
        spent
    }
}

/// Sets a stage up.
type Start = Box<dyn Fn() -> Box<dyn Stage>>;

/// What there is to measure: name, how often for a figure, and how it is made.
fn stages() -> Vec<(String, u64, Start)> {
    let mut all: Vec<(String, u64, Start)> = Vec::new();
    for (name, make) in KINDS {
        all.push((
            format!("record_line_{name}"),
            400_000,
            Box::new(move || Box::new(Lines::new(make, Record::write_line))),
        ));
        all.push((
            format!("record_serde_{name}"),
            100_000,
            Box::new(move || Box::new(Lines::new(make, with_serde))),
        ));
        all.push((format!("record_made_{name}"), 100_000, Box::new(move || Box::new(Made::new(make)))));
    }
    all.push(("shard".into(), 200_000, Box::new(|| Box::new(Shards::new()))));
    all.push(("written".into(), 200_000, Box::new(|| Box::new(Written::new()))));
    all.push(("desk_handshake".into(), 800_000, Box::new(|| Box::new(Handshakes::new(false)))));
    all.push(("desk_handshake_two_sides".into(), 800_000, Box::new(|| Box::new(Handshakes::new(true)))));
    all
}

/// One line a figure. A first part of the run warms up and is not in it.
fn print_lines(only: &str) {
    for (name, count, make) in stages().into_iter().filter(|(n, ..)| n.contains(only)) {
        let mut stage = make();
        stage.run(count / 2);
        let spent = stage.run(count);
        let [cpu, wall] = [spent.cpu, spent.wall].map(|t| t.as_secs_f64() / count as f64);
        println!("{name}_rate {:.0} 1/s/core", 1.0 / cpu);
        println!("{name}_cpu {:.1} ns", cpu * 1e9);
        println!("{name}_wall {:.1} ns", wall * 1e9);
        println!("{name}_cpu_at_100k {:.3} cores", cpu * 1e5);
        for (figure, value, unit) in stage.more() {
            println!("{name}_{figure} {value:.2} {unit}");
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| args.iter().position(|a| a == flag).map(|n| &args[n + 1..]);
    if let Some(rest) = after("--stage") {
        let [name, count, ..] = rest else { panic!("--stage NAME COUNT") };
        let stages = stages();
        let (_, _, make) = stages.iter().find(|(n, ..)| n == name).expect("a stage by that name");
        let spent = make().run(count.parse().expect("a count"));
        println!("{name} {count} {:?} {:?}", spent.cpu, spent.wall);
        return;
    }
    if let Some(rest) = after("--print") {
        let (mut night, context, mut out) = (Night::new(7), context(), Vec::new());
        for _ in 0..rest[0].parse().expect("a count") {
            Record::from_anomaly(&night.any(), &context, None).write_line(&mut out);
        }
        return std::io::Write::write_all(&mut std::io::stdout(), &out).expect("written");
    }
    if let Some(rest) = after("--lines") {
        return print_lines(rest.iter().find(|a| !a.starts_with('-')).map_or("", String::as_str));
    }
    let mut c = Criterion::default().configure_from_args();
    let mut group = c.benchmark_group("records");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for (name, _, make) in stages() {
        let mut stage = make();
        group.bench_function(name, |b| b.iter_custom(|n| stage.run(n).wall));
    }
    group.finish();
    c.final_summary();
}
