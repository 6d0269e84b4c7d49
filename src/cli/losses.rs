//! What a live run lost and shed: looked at every second, told to the records, summed up at the end.

use std::fmt;
use std::sync::atomic::Ordering;

use crate::bpf::abi::{Census, Counter};
use crate::capture::TapStats;
use crate::detect::tool::{Gap, Shed, budget_shed, capture_gap};
use crate::pipeline::{Notice, Pipeline, RecordSink, Ticking};
use crate::wire::{Nanos, TcpFlags};

use super::status::latency;
use crate::pipeline::Interval;

/// One cause of loss at one place.
struct Cause {
    name: &'static str,
    place: String,
    count: u64,
    /// This program lost it, or it never got it.
    ours: bool,
}

/// See the module.
pub struct Losses {
    before: Vec<u64>,
    shed_before: (u64, u64),
    at: Nanos,
    mirrored: u64,
    shed: u64,
    dropped: u64,
    missed: u64,
}

fn causes(stats: &TapStats, events_dropped: u64) -> Vec<Cause> {
    let mut all = Vec::new();
    let mut add =
        |name, place: &str, count, ours| all.push(Cause { name, place: place.to_owned(), count, ours });
    for point in &stats.points {
        for (lane, way) in [(&point.ingress, "ingress"), (&point.egress, "egress")] {
            let place = format!("{} {way}", point.name);
            use Counter::{CloneFailed, NoRing, PiecesLost, PushFailed, TrimFailed};
            for counter in [CloneFailed, TrimFailed, PushFailed, NoRing, PiecesLost] {
                add(counter.name(), &place, lane.get(counter), false);
            }
        }
    }
    add("carrier_full", "private pair", stats.carrier_drops, false);
    for ring in &stats.rings {
        add("ring_full", &ring.name, ring.stats.ring_full, true);
        add("no_free_frame", &ring.name, ring.stats.fill_empty, true);
        // What found no frame is counted under both names.
        add("ring_dropped", &ring.name, ring.stats.dropped.saturating_sub(ring.stats.fill_empty), false);
        add("ring_invalid", &ring.name, ring.stats.invalid, true);
    }
    add("writer_behind", "event ring", events_dropped, true);
    all
}

impl Losses {
    /// Nothing lost yet.
    pub fn new(stats: &TapStats, now: Nanos) -> Losses {
        let before = causes(stats, 0).iter().map(|c| c.count).collect();
        let total = stats.total();
        Losses {
            before,
            shed_before: (total.shed(), total.get(Counter::ShedHard)),
            at: now,
            mirrored: 0,
            shed: 0,
            dropped: 0,
            missed: 0,
        }
    }

    /// Compares with the last look and tells the writer what is new.
    pub fn look<S>(&mut self, stats: &TapStats, pipeline: &mut Pipeline<S>)
    where
        S: RecordSink + Ticking + Send + 'static,
    {
        let now = pipeline.now();
        let events = pipeline.shared().events_dropped.load(Ordering::Relaxed);
        for (n, cause) in causes(stats, events).iter().enumerate() {
            let count = cause.count.saturating_sub(self.before[n]);
            if count == 0 {
                continue;
            }
            self.before[n] = cause.count;
            let (drops, misses) = if cause.ours { (count, 0) } else { (0, count) };
            self.dropped += drops;
            self.missed += misses;
            let gap = Gap { cause: cause.name, source: &cause.place, first: self.at, last: now, count };
            pipeline.notice(Notice::Lost { first: self.at, last: now, drops, misses });
            pipeline.notice(Notice::Anomaly(Box::new(capture_gap(&gap))));
        }
        let total = stats.total();
        self.mirrored = total.get(Counter::Mirrored);
        self.shed = total.shed();
        let (shed, hard) = (total.shed(), total.get(Counter::ShedHard));
        let (new, new_hard) = (shed - self.shed_before.0, hard - self.shed_before.1);
        if new > 0 {
            let kept = self.mirrored as f64 / (self.mirrored + shed).max(1) as f64;
            let told = Shed { kept, packets: new, hard: new_hard, first: self.at, last: now };
            pipeline.notice(Notice::Lost { first: self.at, last: now, drops: 0, misses: new });
            pipeline.notice(Notice::Anomaly(Box::new(budget_shed(&told))));
        }
        self.shed_before = (shed, hard);
        self.at = now;
    }

    /// The lines about the kernel side at the end of a run.
    pub fn summary(&self, stats: &TapStats, latencies: &Interval) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        let mut line = |name: &str, text: String| lines.push((name.to_owned(), text));
        for point in &stats.points {
            for (lane, census, way) in
                [(&point.ingress, &point.ingress_census, "in"), (&point.egress, &point.egress_census, "out")]
            {
                let mirrored = lane.get(Counter::Mirrored);
                let text = format!(
                    "{way:<3} {} packets, {mirrored} mirrored{}",
                    lane.get(Counter::Packets),
                    flags(census)
                );
                line(&point.name, text);
            }
        }
        line(
            "seen",
            format!(
                "{} packets at the hooks, {} mirrored, {} shed",
                stats.total().get(Counter::Packets),
                self.mirrored,
                self.shed
            ),
        );
        let causes = causes(stats, 0);
        let lost: Vec<String> = causes
            .iter()
            .filter(|c| c.count > 0)
            .map(|c| format!("{} {} at {}", c.count, c.name, c.place))
            .collect();
        let text = if lost.is_empty() { String::new() } else { format!(": {}", lost.join(", ")) };
        line("lost", format!("{} dropped, {} missed{text}", self.dropped, self.missed));
        line("latency", latency(latencies));
        lines
    }
}

/// The commonest flag combinations, as a story's author counted them with ngrep.
fn flags(census: &Census) -> String {
    let mut cells: Vec<(u64, usize)> = census
        .0
        .iter()
        .enumerate()
        .filter(|(_, c)| c.packets > 0)
        .map(|(f, c)| (c.segments.max(c.packets), f))
        .collect();
    cells.sort_unstable_by(|a, b| b.cmp(a));
    let shown: Vec<String> =
        cells.iter().take(8).map(|&(n, f)| format!("[{}] {n}", TcpFlags(f as u16))).collect();
    if shown.is_empty() { String::new() } else { format!("; {}", shown.join(" ")) }
}

/// For the status line.
impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Losses { mirrored, shed, dropped, missed, .. } = self;
        write!(f, "mirrored {mirrored} shed {shed} dropped {dropped} missed {missed}")
    }
}
