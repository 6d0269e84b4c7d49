//! `syn_flood`: SYNs by the thousand to one responder that lead to no connection.
//!
//! Time is cut into seconds. What a second was is decided two seconds later, when the answers to its SYNs have come and
//! the kernel side has said how many it did not mirror. Their number is put on the responders in the proportion of
//! those that were mirrored, because they are shed by a hash that knows no responder. A flood is told when it ends, or
//! goes on for ten seconds, and again for each ten more.
//!
//! Fixed tables, direct-mapped by a hash of address and port. A collision makes the newer responder start anew, unless
//! a flood on the older one is going on.

use super::evidence::{duration, endpoint};
use super::storms::place_of;
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use crate::flow::Endpoint;
use crate::wire::Nanos;

/// Responders remembered.
const PLACES: usize = 1024;
/// Tap points.
const POINTS: usize = 256;

/// SYNs to one responder in a second, and the hundredths of them that led to no connection, that make a flood. A busy
/// service gets thousands a second and accepts them; a dead one gets retries, not thousands.
const FLOOD_SYNS: u64 = 1_000;
const FLOOD_LOST: u64 = 90;

/// Seconds that are kept: the present one, two that wait, and the one before the oldest of these.
const SECONDS: u64 = 4;
/// How many seconds later a second is decided.
const WAIT: u64 = 2;
/// Seconds of a flood that one record tells of.
const TOLD_AFTER: u64 = 10;

/// One responder's second.
#[derive(Clone, Copy, Default)]
struct Cell {
    second: u64,
    syns: u32,
    answered: u32,
    completed: u32,
    first: Nanos,
    last: Nanos,
}

impl Cell {
    /// Nine of ten of its SYNs led to nothing. Where no handshake ever completes, final ACKs are not seen, and an answer
    /// is all that can be asked for.
    fn is_lost(&self, acks_seen: bool) -> bool {
        let went_well = if acks_seen { self.completed } else { self.answered };
        let lost = self.syns.saturating_sub(went_well);
        self.syns > 0 && u64::from(lost) * 100 >= u64::from(self.syns) * FLOOD_LOST
    }
}

/// A flood that goes on, as far as it has not been told.
#[derive(Clone, Copy)]
struct Episode {
    first: Nanos,
    last: Nanos,
    /// Since its beginning, told or not.
    began: Nanos,
    seconds: u64,
    /// SYNs that were sent, by the best knowledge; and in the worst second.
    syns: u64,
    peak: u64,
    /// Of these, seen here.
    mirrored: u64,
    answered: u64,
    completed: u64,
    /// Packets of known connections that were shed meanwhile.
    known_shed: u64,
}

#[derive(Clone, Copy)]
struct Place {
    who: Endpoint,
    /// Where its SYNs are counted: they pass both sides of a gateway.
    point: u8,
    cells: [Cell; SECONDS as usize],
    episode: Option<Episode>,
}

/// One tap point's second.
#[derive(Clone, Copy, Default)]
struct PointCell {
    second: u64,
    /// SYNs that were seen.
    seen: u64,
    /// Of these, those of which the kernel side has said for how many they stand,
    counted: u64,
    /// and for how many they do.
    passed: f64,
    known_shed: u64,
}

/// See the module.
pub struct Floods {
    places: Box<[Option<Place>]>,
    points: Box<[[PointCell; SECONDS as usize]]>,
    /// A handshake was completed at the tap point: final ACKs are seen there.
    acks_seen: Box<[bool]>,
    /// The next second to decide.
    next: u64,
    going_on: usize,
}

impl Default for Floods {
    fn default() -> Self {
        Floods {
            places: vec![None; PLACES].into_boxed_slice(),
            points: vec![[PointCell::default(); SECONDS as usize]; POINTS].into_boxed_slice(),
            acks_seen: vec![false; POINTS].into_boxed_slice(),
            next: 0,
            going_on: 0,
        }
    }
}

fn second_of(ts: Nanos) -> u64 {
    ts.0 / Nanos::SEC
}

impl Floods {
    /// A SYN to a responder.
    ///
    /// Peers: Suricata `3whs_syn_flood`; Zeek's and nDPI's scan detectors count the other way, by originator.
    pub fn syn(&mut self, to: Endpoint, point: u8, ts: Nanos) {
        let second = second_of(ts);
        if second < self.next {
            return;
        }
        self.point_cell(point, second).seen += 1;
        let at = &mut self.places[place_of(&to, PLACES)];
        let stale = |p: &Place| p.cells.iter().all(|c| c.second + WAIT < second);
        let p = match at {
            Some(p) if p.who == to && (p.point == point || p.episode.is_some() || !stale(p)) => p,
            Some(p) if p.who != to && p.episode.is_some() => return,
            _ => at.insert(Place { who: to, point, cells: Default::default(), episode: None }),
        };
        if p.point != point {
            return;
        }
        let cell = &mut p.cells[(second % SECONDS) as usize];
        if cell.second != second || cell.syns == 0 {
            *cell = Cell { second, first: ts, ..Cell::default() };
        }
        cell.syns += 1;
        cell.last = ts;
    }

    /// The responder answered a SYN of this time.
    pub fn answered(&mut self, by: Endpoint, point: u8, asked: Nanos) {
        if let Some(cell) = self.cell(&by, point, asked) {
            cell.answered += 1;
        }
    }

    /// The handshake that began at this time is complete.
    pub fn completed(&mut self, by: Endpoint, point: u8, asked: Nanos) {
        self.acks_seen[usize::from(point)] = true;
        if let Some(cell) = self.cell(&by, point, asked) {
            cell.completed += 1;
        }
    }

    fn cell(&mut self, by: &Endpoint, point: u8, asked: Nanos) -> Option<&mut Cell> {
        let p = self.places[place_of(by, PLACES)].as_mut()?;
        let second = second_of(asked);
        let cell = &mut p.cells[(second % SECONDS) as usize];
        (p.who == *by && p.point == point && cell.second == second).then_some(cell)
    }

    fn point_cell(&mut self, point: u8, second: u64) -> &mut PointCell {
        let cell = &mut self.points[usize::from(point)][(second % SECONDS) as usize];
        if cell.second != second {
            *cell = PointCell { second, ..PointCell::default() };
        }
        cell
    }

    /// What the kernel side counted since the last time: SYNs that passed a tap point and those of them that it mirrored,
    /// which have been seen here; and packets of known tuples that it shed.
    pub fn counted(&mut self, point: u8, syns: u64, mirrored: u64, known_shed: u64) {
        let each = (syns as f64 / mirrored.max(1) as f64).max(1.0);
        let mut newest = None;
        for cell in &mut self.points[usize::from(point)] {
            if cell.seen > cell.counted {
                cell.passed += (cell.seen - cell.counted) as f64 * each;
                cell.counted = cell.seen;
                newest = newest.filter(|n: &&mut PointCell| n.second > cell.second).or(Some(cell));
            }
        }
        if let Some(cell) = newest {
            cell.known_shed += known_shed;
        }
    }

    /// Time passes: seconds that lie long enough back are decided.
    pub fn pass(&mut self, now: Nanos, out: &mut dyn FnMut(Anomaly)) {
        let present = second_of(now);
        if self.next == 0 {
            self.next = present;
        }
        let any = self.next + SECONDS;
        while self.next + WAIT < present {
            self.decide(self.next, out);
            self.next += 1;
            // After a silence there is nothing in what follows the last few seconds.
            if self.next > any {
                self.next = present - WAIT;
            }
        }
    }

    /// Decides what is left.
    pub fn finish(&mut self, out: &mut dyn FnMut(Anomaly)) {
        for _ in 0..=SECONDS {
            self.decide(self.next, out);
            self.next += 1;
        }
        self.next = 0;
    }

    fn decide(&mut self, second: u64, out: &mut dyn FnMut(Anomaly)) {
        let at = (second % SECONDS) as usize;
        let any = self.points.iter().any(|p| p[at].second == second && p[at].all() >= FLOOD_SYNS as f64);
        if !any && self.going_on == 0 {
            return;
        }
        let Floods { places, points, acks_seen, going_on, .. } = self;
        for p in places.iter_mut().flatten() {
            let (of_point, acks) = (&points[usize::from(p.point)], acks_seen[usize::from(p.point)]);
            *going_on -= usize::from(p.episode.is_some());
            p.decide(second, of_point, acks, out);
            *going_on += usize::from(p.episode.is_some());
        }
    }
}

impl PointCell {
    /// SYNs that passed.
    fn all(&self) -> f64 {
        self.passed + (self.seen - self.counted) as f64
    }

    /// How many SYNs passed for each that was seen.
    fn each(&self) -> f64 {
        if self.seen == 0 { 1.0 } else { self.all() / self.seen as f64 }
    }
}

/// A second of a ring of them; an empty one where it has been overwritten, or was never written.
fn of_second<C: Copy + Default>(ring: &[C; SECONDS as usize], second: u64, is: impl Fn(&C) -> u64) -> C {
    let cell = ring[(second % SECONDS) as usize];
    if is(&cell) == second { cell } else { C::default() }
}

impl Place {
    fn decide(
        &mut self,
        second: u64,
        of_point: &[PointCell; SECONDS as usize],
        acks: bool,
        out: &mut dyn FnMut(Anomaly),
    ) {
        let look = |second| {
            let cell = of_second(&self.cells, second, |c| c.second);
            let point = of_second(of_point, second, |p| p.second);
            (cell, (f64::from(cell.syns) * point.each()).round() as u64, point.known_shed)
        };
        let (cell, syns, known) = look(second);
        let lost = cell.is_lost(acks);
        let flood = syns >= FLOOD_SYNS && lost;
        if flood && self.episode.is_none() {
            let mut new = Episode::beginning(cell.first);
            // It did not begin with the second.
            let (before, syns, known) = look(second.wrapping_sub(1));
            if before.is_lost(acks) && cell.first.since(before.last) < Nanos::SEC {
                new = Episode::beginning(before.first);
                new.add(&before, syns, known);
            }
            self.episode = Some(new);
        }
        let Some(episode) = &mut self.episode else { return };
        if lost {
            // Nor does it end with one.
            episode.add(&cell, syns, known);
        }
        if !flood {
            if episode.syns > 0 {
                out(episode.told(self.who, self.point));
            }
            self.episode = None;
        } else if episode.seconds >= TOLD_AFTER {
            out(episode.told(self.who, self.point));
            *episode = Episode { began: episode.began, ..Episode::beginning(episode.last) };
        }
    }
}

impl Episode {
    fn beginning(first: Nanos) -> Episode {
        Episode {
            first,
            last: first,
            began: first,
            seconds: 0,
            syns: 0,
            peak: 0,
            mirrored: 0,
            answered: 0,
            completed: 0,
            known_shed: 0,
        }
    }

    fn add(&mut self, cell: &Cell, syns: u64, known_shed: u64) {
        self.last = self.last.max(cell.last);
        self.seconds += 1;
        self.syns += syns;
        self.peak = self.peak.max(syns);
        self.mirrored += u64::from(cell.syns);
        self.answered += u64::from(cell.answered);
        self.completed += u64::from(cell.completed);
        self.known_shed += known_shed;
    }

    fn told(&self, who: Endpoint, point: u8) -> Anomaly {
        let lasted = self.last.since(self.first).max(Nanos::MS);
        let rate = (self.syns as f64 * 1e9 / lasted as f64).round() as u64;
        let Episode { syns, mirrored, answered, completed, known_shed, .. } = *self;
        let whole = syns == mirrored;
        let of = if whole { String::new() } else { format!(" of the {mirrored} that were mirrored") };
        let more = if self.began < self.first {
            format!(", and it has gone on for {}", duration(self.last.since(self.began)))
        } else {
            String::new()
        };
        let kept = match known_shed {
            0 => "no packet of a known connection was shed",
            _ => "packets of known connections were shed as well",
        };
        let summary = format!(
            "a flood of {}{syns} SYNs to {} within {}, {rate} a second{more}:{of} {answered} were answered and \
             {completed} led to a connection; {kept}",
            if whole { "" } else { "about " },
            endpoint(who),
            duration(lasted),
        );
        let facts = vec![
            ("responder", Fact::Str(endpoint(who).into())),
            ("syns_per_second", Fact::U64(rate)),
            ("answered", Fact::U64(answered)),
            ("completed", Fact::U64(completed)),
            ("syns", Fact::U64(syns)),
            ("mirrored", Fact::U64(mirrored)),
            ("peak_per_second", Fact::U64(self.peak)),
            ("lasts_ms", Fact::U64(self.last.since(self.began) / Nanos::MS)),
            ("known_shed", Fact::U64(known_shed)),
        ];
        Anomaly {
            severity: Severity::Error,
            verdict: Verdict::Originator,
            certainty: Certainty::Likely,
            count: syns,
            point: Some(point),
            facts,
            ..Anomaly::new(Kind::SynFlood, summary, self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Addr;

    const BEGIN: u64 = 1_700_000_000;

    fn server(n: u8) -> Endpoint {
        Endpoint { addr: Addr::v4([192, 0, 2, n]), port: 443 }
    }

    fn at(ms: u64) -> Nanos {
        Nanos(BEGIN * Nanos::SEC + ms * Nanos::MS)
    }

    fn fact(a: &Anomaly, name: &str) -> u64 {
        match a.facts.iter().find(|f| f.0 == name) {
            Some((_, Fact::U64(n))) => *n,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// `per_ms` SYNs a millisecond to each of these, from `from` up to `to`.
    fn syns(f: &mut Floods, to: &[(u8, u32)], point: u8, ms: std::ops::Range<u64>) -> Vec<Anomaly> {
        let mut told = Vec::new();
        for ms in ms {
            f.pass(at(ms), &mut |a| told.push(a));
            for (n, count) in to {
                (0..*count).for_each(|_| f.syn(server(*n), point, at(ms)));
            }
        }
        told
    }

    #[test]
    fn what_was_shed_is_put_on_responders_in_the_proportion_of_what_was_seen() {
        let mut f = Floods::default();
        // 100 and 300 SYNs a second are seen of a hundred times as many; the looks do not keep to seconds.
        let mut told = Vec::new();
        for look in 0..5u64 {
            for ms in (look * 1_000 + 300)..(look * 1_000 + 1_300) {
                f.pass(at(ms), &mut |a| told.push(a));
                if ms % 10 == 0 {
                    f.syn(server(1), 0, at(ms));
                    (0..3).for_each(|_| f.syn(server(2), 0, at(ms)));
                }
            }
            f.counted(0, 40_000, 400, u64::from(look == 2) * 7);
        }
        assert!(told.is_empty(), "they go on");
        f.finish(&mut |a| told.push(a));
        let mut all: Vec<_> =
            told.iter().map(|a| [fact(a, "syns"), fact(a, "mirrored"), fact(a, "known_shed")]).collect();
        all.sort_unstable();
        assert_eq!(all, [[50_000, 500, 7], [150_000, 1_500, 7]], "{told:#?}");
        assert!(told.iter().all(|a| fact(a, "answered") == 0 && fact(a, "peak_per_second") <= 30_000));
    }

    #[test]
    fn one_flood_on_both_sides_of_a_gateway_is_counted_once() {
        let mut f = Floods::default();
        let mut told = Vec::new();
        for ms in 0..3_000 {
            f.pass(at(ms), &mut |a| told.push(a));
            for point in [0, 1] {
                (0..2).for_each(|_| f.syn(server(1), point, at(ms)));
            }
        }
        f.finish(&mut |a| told.push(a));
        assert_eq!(told.iter().map(|a| fact(a, "syns")).collect::<Vec<_>>(), [6_000]);
    }

    #[test]
    fn a_flood_before_a_long_silence_is_told_and_so_is_the_next() {
        let mut f = Floods::default();
        let mut told = syns(&mut f, &[(1, 3)], 0, 0..1_500);
        told.extend(syns(&mut f, &[(1, 2)], 0, 5_000_000..5_002_000));
        f.finish(&mut |a| told.push(a));
        assert_eq!(told.iter().map(|a| fact(a, "syns")).collect::<Vec<_>>(), [4_500, 4_000], "{told:#?}");
    }

    #[test]
    fn neighbours_that_serve_one_port_have_places_of_their_own() {
        let places: std::collections::HashSet<_> = (0..64).map(|n| place_of(&server(n), PLACES)).collect();
        assert!(places.len() > 56, "{}", places.len());
    }

    #[test]
    fn a_burst_that_is_accepted_later_is_none() {
        let mut f = Floods::default();
        let mut told = syns(&mut f, &[(1, 100)], 0, 980..1_000);
        for _ in 0..1_900 {
            f.answered(server(1), 0, at(990));
            f.completed(server(1), 0, at(990));
        }
        told.extend(syns(&mut f, &[(1, 0)], 0, 1_000..9_000));
        f.finish(&mut |a| told.push(a));
        assert!(told.is_empty(), "{told:#?}");
    }
}
