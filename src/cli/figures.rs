//! The figures of a live run, as records: gathered from the workers and the kernel side, written every so often.

use crate::bpf::abi::Census;
use crate::capture::TapStats;
use crate::pipeline::{Interval, Notice, Pipeline, RecordSink, Ticking, figures_until};
use crate::record::FigureSet;
use crate::wire::{Nanos, TcpFlags, Way};

/// See the module.
pub struct FigureRecords {
    began: Nanos,
    since: Nanos,
    gathered: Interval,
    /// Flags counted up to then, by tap point and direction.
    censuses: Vec<[Census; 2]>,
}

fn censuses(stats: &TapStats) -> Vec<[Census; 2]> {
    stats.points.iter().map(|p| [p.ingress_census.clone(), p.egress_census.clone()]).collect()
}

impl FigureRecords {
    /// Nothing yet.
    pub fn new(stats: &TapStats, now: Nanos) -> FigureRecords {
        FigureRecords { began: now, since: now, gathered: Interval::default(), censuses: censuses(stats) }
    }

    /// Adds what the workers told.
    pub fn add(&mut self, interval: &Interval) {
        self.gathered.add(interval);
    }

    /// Tells the writer, if it is time.
    pub fn look<S>(&mut self, stats: &TapStats, pipeline: &mut Pipeline<S>)
    where
        S: RecordSink + Ticking + Send + 'static,
    {
        if pipeline.now() >= figures_until(self.began, self.since) {
            self.tell(stats, pipeline);
        }
    }

    /// Tells the writer. Quiet interfaces are told of too: that nothing happened is not that nobody looked.
    pub fn tell<S>(&mut self, stats: &TapStats, pipeline: &mut Pipeline<S>)
    where
        S: RecordSink + Ticking + Send + 'static,
    {
        for set in self.sets(stats, pipeline.now()) {
            pipeline.notice(Notice::Figures(Box::new(set)));
        }
    }

    fn sets(&mut self, stats: &TapStats, now: Nanos) -> Vec<FigureSet> {
        // A point without connections has figures, too.
        for n in 0..stats.points.len() {
            self.gathered.at(n as u8);
        }
        let mut sets = self.gathered.sets(self.since, now);
        let before = std::mem::replace(&mut self.censuses, censuses(stats));
        for set in &mut sets {
            let Some(n) = set.point.map(usize::from) else { continue };
            let (Some(before), Some(after)) = (before.get(n), self.censuses.get(n)) else { continue };
            set.flags = flags(before, after);
        }
        self.gathered.clear();
        self.since = now;
        sets
    }
}

/// Segments by flags that came between two censuses.
fn flags(before: &[Census; 2], after: &[Census; 2]) -> Vec<(Way, TcpFlags, u64)> {
    let mut all = Vec::new();
    for (way, (before, after)) in [Way::Ingress, Way::Egress].into_iter().zip(before.iter().zip(after)) {
        for (flags, (before, after)) in before.0.iter().zip(after.0.iter()).enumerate() {
            // What offload has joined counts as the segments that it stands for.
            let of = |c: &crate::bpf::abi::CensusCell| c.segments.max(c.packets);
            let n = of(after).saturating_sub(of(before));
            if n > 0 {
                all.push((way, TcpFlags(flags as u16), n));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::tap::PointStats;

    #[test]
    fn each_stretch_of_time_has_the_flags_that_came_in_it() {
        let stats = |syns| {
            let mut point = PointStats { name: "eth0".into(), ..PointStats::default() };
            point.ingress_census.0[usize::from(TcpFlags::SYN)].packets = syns;
            TapStats { points: vec![point], ..TapStats::default() }
        };
        let mut figures = FigureRecords::new(&stats(5), Nanos(0));
        let mut interval = Interval::default();
        interval.at(0).syn_acks.record(20_000);
        figures.add(&interval);
        let syn = TcpFlags(TcpFlags::SYN);
        let first = figures.sets(&stats(8), Nanos(10));
        assert_eq!((first[0].flags.clone(), first[0].handshakes), (vec![(Way::Ingress, syn, 3)], 1));
        let second = figures.sets(&stats(8), Nanos(20));
        assert_eq!(second.len(), 1, "a quiet interface is told of");
        assert!(second[0].is_empty() && second[0].first == Nanos(10), "{second:?}");
    }
}
