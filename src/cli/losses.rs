//! What a live run lost and shed: looked at every second, told to the records, summed up at the end.

use std::fmt;
use std::sync::atomic::Ordering;

use super::many;
use crate::bpf::abi::{Census, Counter, Counters};
use crate::bpf::{Budget, Kept};
use crate::capture::TapStats;
use crate::capture::tap::PointStats;
use crate::detect::Sight;
use crate::detect::tool::{Gap, Shed, Unit, budget_shed, capture_gap};
use crate::pipeline::{Notice, Pipeline, RecordSink, Shared, Ticking};
use crate::wire::{Nanos, TcpFlags};

/// Who lost it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// This program.
    Ours,
    /// It never got it.
    Kernels,
    /// This program: flows and no packets.
    Tables,
    /// This program, for the file of `--mirror-to` only.
    Copies,
}

/// One cause of loss at one place.
pub struct Cause {
    /// As records have it.
    pub name: &'static str,
    /// Interface and direction, ring, or what else it is.
    pub place: String,
    /// Since the start.
    pub count: u64,
    /// Who lost it.
    pub whose: Whose,
}

/// What was counted at a tap point up to the last look.
struct PointLook {
    lanes: Counters,
    syns: u64,
    budget: Budget,
    /// The least that the kernel side kept since.
    kept: Kept,
    /// And between the two looks before.
    kept_before: Kept,
}

impl PointLook {
    fn of(point: &PointStats) -> (Counters, u64) {
        let mut lanes = point.ingress;
        lanes.add(&point.egress);
        let asks = |flags: usize| {
            let control = TcpFlags(flags as u16);
            control.any(TcpFlags::SYN) && !control.any(TcpFlags::ACK | TcpFlags::FIN | TcpFlags::RST)
        };
        let censuses = [&point.ingress_census, &point.egress_census];
        let syns = |c: &Census| (0..256).filter(|&f| asks(f)).map(|f| c.0[f].packets).sum::<u64>();
        (lanes, censuses.into_iter().map(syns).sum())
    }

    /// What was counted since the last look, and what was shed.
    fn look(&mut self, n: u8, point: &PointStats, first: Nanos, last: Nanos) -> (Sight, Shed) {
        let (lanes, syns) = PointLook::of(point);
        let since = |c: Counter| lanes.get(c) - self.lanes.get(c);
        use Counter::{
            SelectedSyn, ShedControl, ShedHard, ShedIcmp, ShedKnown, ShedNeighbour, ShedSyn, ShedWatch,
        };
        let kept = std::mem::replace(&mut self.kept, Kept::ALL);
        self.kept_before = kept;
        let below_all = |share: f64| (share < 1.0).then_some(share);
        let shed = Shed {
            point: n,
            kept: below_all(kept.new),
            kept_known: below_all(kept.known),
            packets: [ShedSyn, ShedControl, ShedWatch, ShedNeighbour, ShedIcmp].map(since),
            known: since(ShedKnown),
            hard: since(ShedHard),
            budget_pps: self.budget.pps,
            budget_share: (self.budget.share > 0).then_some(self.budget.share),
            first,
            last,
        };
        let (syns, mirrored) = (syns - std::mem::replace(&mut self.syns, syns), since(SelectedSyn));
        self.lanes = lanes;
        (Sight::Counted { point: n, syns, mirrored, known_shed: shed.known }, shed)
    }
}

/// See the module.
pub struct Losses {
    before: Vec<u64>,
    points: Vec<PointLook>,
    at: Nanos,
    mirrored: u64,
    shed: u64,
    shed_known: u64,
    dropped: u64,
    missed: u64,
    copies: u64,
}

/// All of them, also those that have lost nothing yet.
pub fn causes(stats: &TapStats, shared: &Shared) -> Vec<Cause> {
    let mut all = Vec::new();
    let mut add =
        |name, place: &str, count, whose| all.push(Cause { name, place: place.to_owned(), count, whose });
    let mut counted = 0;
    for point in &stats.points {
        for (lane, way) in [(&point.ingress, "ingress"), (&point.egress, "egress")] {
            let place = format!("{} {way}", point.name);
            use Counter::{CloneFailed, NoRing, PiecesLost, PushFailed, RingFull, TrimFailed};
            counted += lane.get(CloneFailed) + lane.get(PiecesLost);
            for counter in [CloneFailed, TrimFailed, PushFailed, NoRing, PiecesLost] {
                add(counter.name(), &place, lane.get(counter), Whose::Kernels);
            }
            add(RingFull.name(), &place, lane.get(RingFull), Whose::Ours);
        }
    }
    // A clone that the pair has no room for fails at the hook and is counted there, too; so is a packet that went in
    // pieces.
    let carrier = stats.carrier_drops.saturating_sub(counted);
    add("carrier_full", "private pair", carrier, Whose::Kernels);
    for ring in &stats.rings {
        add("ring_full", &ring.name, ring.stats.ring_full, Whose::Ours);
        add("no_free_frame", &ring.name, ring.stats.fill_empty, Whose::Ours);
        // What found no frame is counted under both names.
        let others = ring.stats.dropped.saturating_sub(ring.stats.fill_empty);
        add("ring_dropped", &ring.name, others, Whose::Kernels);
        add("ring_invalid", &ring.name, ring.stats.invalid, Whose::Ours);
    }
    for (source, ring) in stats.rings.iter().enumerate() {
        add("worker_behind", &ring.name, shared.behind(source), Whose::Ours);
    }
    let given_up = shared.flows_given_up.load(Ordering::Relaxed);
    add("flow_table_full", "flow table", given_up, Whose::Tables);
    add("writer_behind", "event ring", shared.events_dropped.load(Ordering::Relaxed), Whose::Ours);
    add("copies_dropped", "mirror file", shared.copies_dropped.load(Ordering::Relaxed), Whose::Copies);
    all
}

impl Losses {
    /// Nothing lost yet. `budget` tells that of an interface.
    pub fn new(stats: &TapStats, budget: impl Fn(&str) -> Budget, now: Nanos) -> Losses {
        let before = causes(stats, &Shared::default()).iter().map(|c| c.count).collect();
        let look = |p: &PointStats| {
            let (lanes, syns) = PointLook::of(p);
            PointLook { lanes, syns, budget: budget(&p.name), kept: Kept::ALL, kept_before: Kept::ALL }
        };
        Losses {
            before,
            points: stats.points.iter().map(look).collect(),
            at: now,
            mirrored: 0,
            shed: 0,
            shed_known: 0,
            dropped: 0,
            missed: 0,
            copies: 0,
        }
    }

    /// Takes what the kernel side keeps of a tap point at this moment. Between two looks the least counts: the kernel
    /// side loosens again within a fraction of a second.
    pub fn kept(&mut self, point: usize, kept: Kept) {
        if let Some(look) = self.points.get_mut(point) {
            look.kept = look.kept.least(kept);
        }
    }

    /// The least that the kernel side kept of a tap point between the last two looks.
    pub fn kept_at_last(&self, point: usize) -> Kept {
        self.points.get(point).map_or(Kept::ALL, |p| p.kept_before)
    }

    /// What a tap point may take of each CPU.
    pub fn budget_of(&self, point: usize) -> Budget {
        self.points.get(point).map_or_else(Budget::default, |p| p.budget)
    }

    /// The tap points have these budgets from now on; false if they had them before.
    pub fn set_budgets(&mut self, budgets: &[Budget]) -> bool {
        let changed = self.points.iter().zip(budgets).any(|(p, b)| p.budget != *b);
        self.points.iter_mut().zip(budgets).for_each(|(p, b)| p.budget = *b);
        changed
    }

    /// Packets that this program lost.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Packets that it never got.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Compares with the last look and tells the writer what is new.
    pub fn look<S>(&mut self, stats: &TapStats, pipeline: &mut Pipeline<S>)
    where
        S: RecordSink + Ticking + Send + 'static,
    {
        let now = pipeline.now();
        for notice in self.compare(stats, &causes(stats, pipeline.shared()), now) {
            pipeline.notice(notice);
        }
    }

    fn compare(&mut self, stats: &TapStats, causes: &[Cause], now: Nanos) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (before, cause) in self.before.iter_mut().zip(causes) {
            let count = cause.count.saturating_sub(*before);
            if count == 0 {
                continue;
            }
            *before = cause.count;
            let (drops, misses, copies) = match cause.whose {
                Whose::Ours | Whose::Tables => (count, 0, 0),
                Whose::Kernels => (0, count, 0),
                Whose::Copies => (0, 0, count),
            };
            self.dropped += if cause.whose == Whose::Tables { 0 } else { drops };
            self.missed += misses;
            self.copies += copies;
            let unit = match cause.whose {
                Whose::Ours | Whose::Kernels => Unit::Packets,
                Whose::Tables => Unit::Flows,
                Whose::Copies => Unit::Copies,
            };
            let (first, last, count) = (self.at, now, Some(count));
            let gap = Gap { cause: cause.name, source: &cause.place, first, last, count, unit };
            // What is missing in the mirror file only, the rules have seen.
            if copies == 0 {
                notices.push(Notice::Lost { first, last, drops, misses });
            }
            notices.push(Notice::Anomaly(Box::new(capture_gap(&gap))));
        }
        let total = stats.total();
        self.mirrored = total.get(Counter::Mirrored);
        self.shed = total.shed();
        self.shed_known = total.get(Counter::ShedKnown);
        let first = self.at;
        for (n, (look, point)) in self.points.iter_mut().zip(&stats.points).enumerate() {
            let (counted, shed) = look.look(n as u8, point, first, now);
            notices.push(Notice::Sight(counted, now));
            let misses = shed.packets.iter().sum();
            if misses > 0 {
                notices.push(Notice::Lost { first, last: now, drops: 0, misses });
                notices.push(Notice::Anomaly(Box::new(budget_shed(&shed))));
            }
        }
        self.at = now;
        notices
    }

    /// The lines about the kernel side at the end of a run.
    pub fn summary(&self, stats: &TapStats, shared: &Shared) -> Vec<(String, String)> {
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
                "{} packets at the hooks, {} mirrored, {} shed{}",
                stats.total().get(Counter::Packets),
                self.mirrored,
                self.shed,
                if self.shed == 0 {
                    String::new()
                } else {
                    format!(", {} of known connections", self.shed_known)
                }
            ),
        );
        let causes = causes(stats, shared);
        let lost: Vec<String> = causes
            .iter()
            .filter(|c| c.count > 0)
            .map(|c| format!("{} {} at {}", c.count, c.name, c.place))
            .collect();
        let text = if lost.is_empty() { String::new() } else { format!(": {}", lost.join(", ")) };
        let copies = match self.copies {
            0 => String::new(),
            n => format!(", {n} missing in the mirror file"),
        };
        if let Some((handed, late)) = shared.handed() {
            let late = if late == 0 { String::new() } else { format!(", {late} worked out of order") };
            line("hand-over", format!("{} between workers{late}", many(handed, "packet")));
        }
        line("lost", format!("{} dropped, {} missed{copies}{text}", self.dropped, self.missed));
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
        let Losses { mirrored, shed, dropped, missed, copies, .. } = self;
        write!(f, "mirrored {mirrored} shed {shed} dropped {dropped} missed {missed}")?;
        if *copies > 0 { write!(f, " copies dropped {copies}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Kind;

    fn stats(counts: &[(Counter, u64)], carrier_drops: u64) -> TapStats {
        let mut point = PointStats { name: "eth0".into(), ..PointStats::default() };
        for (counter, n) in counts {
            point.ingress.0[*counter as usize] = *n;
        }
        TapStats { points: vec![point], carrier_drops, ..TapStats::default() }
    }

    fn found(notices: &[Notice], kind: Kind) -> Vec<String> {
        let of_kind = notices.iter().filter_map(|n| match n {
            Notice::Anomaly(a) if a.kind == kind => Some(a.summary.clone()),
            _ => None,
        });
        of_kind.collect()
    }

    #[test]
    fn a_clone_that_the_pair_had_no_room_for_is_missed_once() {
        let mut losses = Losses::new(&stats(&[], 0), |_| Budget::packets(1_000), Nanos(0));
        let shared = Shared::default();
        let counts = [(Counter::SelectedSyn, 1_000), (Counter::Mirrored, 900), (Counter::CloneFailed, 100)];
        let now = stats(&counts, 90);
        losses.compare(&now, &causes(&now, &shared), Nanos(1));
        assert_eq!((losses.mirrored, losses.missed), (900, 100), "mirrored and missed are what was selected");
        // What the pair drops after the clone was taken is not in the hook's counters.
        let now = stats(&counts, 130);
        losses.compare(&now, &causes(&now, &shared), Nanos(2));
        assert_eq!(losses.missed, 130);
    }

    #[test]
    fn what_was_shed_is_told_of_each_look_with_the_share_that_the_kernel_side_kept() {
        let mut losses = Losses::new(&stats(&[], 0), |_| Budget::packets(1_000), Nanos(0));
        let shared = Shared::default();
        let mut look = |shed: u64, kept: &[f64]| {
            kept.iter().for_each(|k| losses.kept(0, Kept { new: *k, known: 1.0 }));
            let now = stats(&[(Counter::Mirrored, 1_000_000), (Counter::ShedSyn, shed)], 0);
            let notices = losses.compare(&now, &causes(&now, &shared), Nanos(shed));
            found(&notices, Kind::BudgetShed)
        };
        let told = look(1_000, &[1.0, 0.25, 0.5]);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("1000 packets ") && told[0].contains(" 25 % of the new tuples"),
            "{told:?}"
        );
        // The share of the look before is not that of this one, nor are its packets.
        let told = look(1_001, &[1.0]);
        assert!(told[0].starts_with("1 packet was ") && told[0].contains("a burst"), "{told:?}");
        assert!(look(1_001, &[0.5]).is_empty(), "nothing was shed since");
    }

    #[test]
    fn what_only_the_mirror_file_lacks_casts_no_doubt_on_the_records() {
        let mut losses = Losses::new(&stats(&[], 0), |_| Budget::packets(1_000), Nanos(0));
        let shared = Shared::default();
        shared.copies_dropped.store(7, Ordering::Relaxed);
        let now = stats(&[], 0);
        let notices = losses.compare(&now, &causes(&now, &shared), Nanos(1));
        assert_eq!(found(&notices, Kind::CaptureGap).len(), 1);
        assert!(!notices.iter().any(|n| matches!(n, Notice::Lost { .. })), "{notices:?}");
        assert_eq!((losses.dropped, losses.missed), (0, 0));
        assert!(losses.to_string().ends_with(" copies dropped 7"), "{losses}");
    }
}
