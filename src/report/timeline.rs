//! When things happened: equal stretches of the clock that grow as the time does that they cover.

use std::collections::BTreeMap;

use super::words::plus;
use crate::wire::Nanos;

/// Cells of a timeline at most.
pub const CELLS: u64 = 120;

/// Lengths of a cell in seconds. Each is a multiple of the one before, so that cells can be joined whole, and round, so that people
/// can read an axis: up to four weeks, a year of them, ten.
const STEPS: [u64; 16] = [
    1,
    5,
    10,
    30,
    60,
    300,
    600,
    1_800,
    3_600,
    10_800,
    43_200,
    86_400,
    604_800,
    2_419_200,
    31_449_600,
    314_496_000,
];

/// What a cell holds.
pub trait Cell: Clone + Default {
    /// Adds all of another.
    fn merge(&mut self, other: &Self);
}

impl Cell for u64 {
    fn merge(&mut self, other: &u64) {
        plus(self, *other);
    }
}

/// See the module. Its cells begin at multiples of their length since the epoch, so two of them can be added whatever came into
/// each, and in whatever order.
#[derive(Clone, Debug)]
pub struct Timeline<C> {
    step: usize,
    cells: BTreeMap<u64, C>,
}

impl<C> Default for Timeline<C> {
    fn default() -> Self {
        Timeline { step: 0, cells: BTreeMap::new() }
    }
}

fn length(step: usize) -> u64 {
    STEPS[step] * Nanos::SEC
}

impl<C: Cell> Timeline<C> {
    /// The cell of a moment, ns since the epoch.
    pub fn at(&mut self, ns: u64) -> &mut C {
        let first = self.cells.first_key_value().map_or(u64::MAX, |c| *c.0);
        let last = self.cells.last_key_value().map_or(0, |c| *c.0);
        let fits = |step| {
            let (own, here) = (length(self.step), length(step));
            let at = ns / here;
            let (first, last) = (first.saturating_mul(own) / here, last.saturating_mul(own) / here);
            last.max(at) - first.min(at) < CELLS
        };
        let step = (self.step..STEPS.len()).find(|&s| self.cells.is_empty() || fits(s));
        self.coarsen(step.unwrap_or(STEPS.len() - 1));
        self.cells.entry(ns / length(self.step)).or_default()
    }

    fn coarsen(&mut self, step: usize) {
        if step <= self.step {
            return;
        }
        let ratio = STEPS[step] / STEPS[self.step];
        for (n, cell) in std::mem::take(&mut self.cells) {
            self.cells.entry(n / ratio).or_default().merge(&cell);
        }
        self.step = step;
    }

    /// Adds all of another.
    pub fn merge(&mut self, mut other: Timeline<C>) {
        let step = self.step.max(other.step);
        self.coarsen(step);
        other.coarsen(step);
        let own = length(step);
        for (n, cell) in other.cells {
            // The cell's own beginning, in whatever length this one has come to.
            self.at(n.saturating_mul(own)).merge(&cell);
        }
    }

    /// True if nothing happened.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Its cells that begin at or after that moment, ns since the epoch.
    pub fn since(&self, ns: u64) -> impl Iterator<Item = &C> {
        self.cells.range(ns.div_ceil(length(self.step))..).map(|(_, cell)| cell)
    }

    /// Its cells on an axis: one for each of the axis's, empty ones too. What is coarser than the axis stands at its beginning.
    pub fn on(&self, axis: Axis) -> Vec<C> {
        let mut all = vec![C::default(); axis.count as usize];
        for (n, cell) in &self.cells {
            let at = n.saturating_mul(length(self.step)) / axis.length_ns();
            let place = at.saturating_sub(axis.first).min(axis.count - 1);
            all[place as usize].merge(cell);
        }
        all
    }
}

/// Equal cells over a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    step: usize,
    first: u64,
    /// How many cells; at least one.
    pub count: u64,
}

impl Axis {
    /// The finest one with at most `most` cells (at least one, at most [`CELLS`]), none shorter than `shortest_ns`.
    pub fn over(first_ns: u64, last_ns: u64, most: u64, shortest_ns: u64) -> Axis {
        let last_ns = last_ns.max(first_ns);
        let axis = |step| {
            let first = first_ns / length(step);
            Axis { step, first, count: last_ns / length(step) - first + 1 }
        };
        let fits = |a: &Axis| a.count <= most.clamp(1, CELLS) && length(a.step) >= shortest_ns;
        let steps = (0..STEPS.len()).map(axis);
        let coarsest = Axis { count: 1, ..axis(STEPS.len() - 1) };
        steps.into_iter().find(fits).unwrap_or(coarsest)
    }

    /// Length of a cell.
    pub fn length_ns(&self) -> u64 {
        length(self.step)
    }

    /// When a cell begins.
    pub fn begins(&self, cell: u64) -> u64 {
        (self.first + cell).saturating_mul(self.length_ns())
    }

    /// The length of a cell in words.
    pub fn cell_words(&self) -> String {
        match STEPS[self.step] {
            s @ 0..=59 => format!("{s} s"),
            s @ 60..=3_599 => format!("{} min", s / 60),
            s @ 3_600..=86_399 => format!("{} h", s / 3_600),
            86_400 => "1 day".into(),
            s @ 86_401..=2_419_200 => format!("{} days", s / 86_400),
            s => format!("{} weeks", s / 604_800),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_step_is_a_multiple_of_the_one_before() {
        assert!(STEPS.windows(2).all(|w| w[1] % w[0] == 0 && w[1] > w[0]));
    }

    #[test]
    fn a_timeline_keeps_every_count_when_it_grows() {
        let mut t = Timeline::default();
        for s in 0..10_000u64 {
            *t.at(s * Nanos::SEC) += 1;
        }
        let axis = Axis::over(0, 9_999 * Nanos::SEC, CELLS, 0);
        assert_eq!((axis.length_ns(), axis.count), (300 * Nanos::SEC, 34));
        let cells: Vec<u64> = t.on(axis);
        assert_eq!(cells.iter().sum::<u64>(), 10_000);
        assert_eq!(cells[0], 300);
    }

    proptest! {
        /// Whatever came in whatever order and by how many hands: the sum is the same, and so are the cells.
        #[test]
        fn the_order_of_what_came_does_not_matter(mut times in prop::collection::vec(any::<u64>(), 1..50), cut in 0usize..50) {
            let sum = |times: &[u64]| {
                let mut t = Timeline::<u64>::default();
                times.iter().for_each(|&at| *t.at(at) += 1);
                t
            };
            let whole = sum(&times);
            let cut = cut.min(times.len());
            let mut halves = sum(&times[cut..]);
            halves.merge(sum(&times[..cut]));
            prop_assert_eq!(&whole.cells, &halves.cells);
            prop_assert!(whole.cells.len() as u64 <= CELLS);
            let (first, last) = (times.iter().min().copied().unwrap_or(0), times.iter().max().copied().unwrap_or(0));
            let axis = Axis::over(first, last, CELLS, 0);
            prop_assert_eq!(whole.on(axis).iter().sum::<u64>(), times.len() as u64);
            times.reverse();
            prop_assert_eq!(&whole.cells, &sum(&times).cells);
        }
    }
}
