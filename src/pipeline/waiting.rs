//! Events that wait for their turn: what several workers tell comes in any order, and is wanted in that of its places.
//!
//! Nearly all of it comes nearly in order, so events are laid into slices of time as they come, and a slice is put in
//! order once, when its turn has come. An event is laid down once and looked at where it lies; a heap would move it a dozen times.

use std::collections::BTreeMap;

use super::event::{Event, Outlet, Place};
use crate::wire::Nanos;

/// Length of a slice as a power of two: a millisecond holds some hundred events of a busy gateway, which fit a cache.
const SLICE: u32 = 20;

/// From how many events of one moment on they are sorted as numbers, and the bits in these for which event it is, which leave 64 for
/// its age and 40 for its lane.
const MANY: usize = 4_096;
const INDEX: u32 = 24;

/// Empty slices kept for later.
const SPARE: usize = 1024;

#[derive(Debug, Default)]
struct Slice {
    number: u64,
    events: Vec<Event>,
    /// Those that wait: when within the slice (high half) and which event (low half). The earliest last if `sorted`.
    order: Vec<u64>,
    sorted: bool,
}

impl Slice {
    /// Puts in order what waits. By time first, in one word; few happened at the same moment. Most of it lies in order already, which the
    /// standard library's stable sort makes use of.
    fn sort(&mut self) {
        let Slice { events, order, sorted, .. } = self;
        order.sort_by(|a, b| b.cmp(a));
        let at = |n: u64| events[n as u32 as usize].place;
        // Most of what happened at one moment is what one packet told, and lies in order already.
        let unsorted = |same: &&mut [u64]| !same.is_sorted_by(|&a, &b| at(a) >= at(b));
        for same in order.chunk_by_mut(|a, b| a >> 32 == b >> 32).filter(unsorted) {
            if same.len() > MANY && same.len() < 1 << INDEX {
                sort_many(same, events);
                continue;
            }
            let place = |&n: &u64| (at(n), n);
            let mut places: Vec<_> = same.iter().map(place).collect();
            places.sort_unstable_by(|a, b| b.cmp(a));
            same.iter_mut().zip(places).for_each(|(to, (_, n))| *to = n);
        }
        *sorted = true;
    }
}

/// At the end of a capture every flow that lives ends at one moment. So many places are sorted as numbers: a flow's age, its lane, and
/// which event it is, for a flow's own events come in their order.
fn sort_many(same: &mut [u64], events: &[Event]) {
    let number = |&n: &u64| {
        let place = &events[n as u32 as usize].place;
        u128::from(place.age.0) << 64 | u128::from(place.lane >> INDEX) << INDEX | u128::from(n as u32)
    };
    let mut numbers: Vec<_> = same.iter().map(number).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let when = same[0] >> 32 << 32;
    same.iter_mut().zip(numbers).for_each(|(to, n)| *to = when | n as u64 & ((1 << INDEX) - 1));
}

/// See the module.
#[derive(Debug, Default)]
pub struct Waiting {
    slices: BTreeMap<u64, Slice>,
    /// The number of the first of them, if there is one.
    earliest: Option<u64>,
    /// The slice that the event before went to, or came from.
    hand: Slice,
    spare: Vec<Slice>,
    len: usize,
}

impl Waiting {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Takes one.
    #[inline]
    pub fn push(&mut self, event: Event) {
        let number = event.place.at.0 >> SLICE;
        if self.hand.number != number || self.hand.order.is_empty() {
            self.lay_down();
            let fresh = || Slice { number, ..self.spare.pop().unwrap_or_default() };
            self.hand = self.slices.remove(&number).unwrap_or_else(fresh);
            self.earliest = self.slices.first_key_value().map(|(number, _)| *number);
        }
        let slice = &mut self.hand;
        let when = event.place.at.0 & ((1 << SLICE) - 1);
        slice.order.push(when << 32 | slice.events.len() as u64);
        slice.events.push(event);
        slice.sorted = false;
        self.len += 1;
    }

    /// Puts the slice in hand to the others, or to the spare ones if nothing in it waits.
    fn lay_down(&mut self) {
        let mut slice = std::mem::take(&mut self.hand);
        if !slice.order.is_empty() {
            self.earliest = self.earliest.map_or(Some(slice.number), |n| Some(n.min(slice.number)));
            self.slices.insert(slice.number, slice);
        } else if self.spare.len() < SPARE {
            slice.events.clear();
            self.spare.push(slice);
        }
    }

    /// The earliest, if it is not later than `horizon`. Of two at one place the one that came first. It stands where it was laid
    /// until the next call, to be looked at there.
    #[inline]
    pub fn pop(&mut self, horizon: Nanos) -> Option<&mut Event> {
        self.place(horizon)?;
        self.take()
    }

    /// The place of the earliest, if it is not later than `horizon`. It is in hand then, for [`Waiting::take`].
    #[inline]
    pub fn place(&mut self, horizon: Nanos) -> Option<Place> {
        let in_hand = !self.hand.order.is_empty() && self.earliest.is_none_or(|n| self.hand.number < n);
        if !in_hand {
            self.lay_down();
            let first = self.slices.first_entry().filter(|s| *s.key() <= horizon.0 >> SLICE)?;
            self.hand = first.remove();
            self.earliest = self.slices.first_key_value().map(|(number, _)| *number);
        }
        let slice = &mut self.hand;
        if !slice.sorted {
            slice.sort();
        }
        let first = *slice.order.last()? as u32 as usize;
        Some(slice.events[first].place).filter(|place| place.at <= horizon)
    }

    /// Gives the one whose place [`Waiting::place`] has just told.
    #[inline]
    pub fn take(&mut self) -> Option<&mut Event> {
        let first = self.hand.order.pop()? as u32 as usize;
        self.len -= 1;
        Some(&mut self.hand.events[first])
    }
}

impl Outlet for Waiting {
    #[inline]
    fn event(&mut self, event: Event) {
        self.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Sight;
    use crate::pipeline::{Place, What};
    use crate::wire::Malformed;
    use proptest::prelude::*;

    fn event(at: u64, lane: u64, count: u64) -> Event {
        let sight = Sight::Malformed { reason: Malformed::ALL[0], point: 0 };
        let place = Place { at: Nanos(at), age: Nanos(0), lane, count };
        Event { place, what: What::Sight(sight) }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u64, u64),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..20_000_000u64, 0..3u64).prop_map(|(at, lane)| Step::Push(at, lane)),
            4 => (0..4u64, 0..3u64).prop_map(|(at, lane)| Step::Push(at << SLICE, lane)),
            1 => (0..22_000_000u64).prop_map(Step::Advance),
        ]
    }

    #[test]
    fn many_that_live_when_a_capture_ends_are_told_by_age_then_lane_in_their_own_order() {
        let mut waiting = Waiting::default();
        let mut plain = Vec::new();
        for count in 0..2 * MANY as u64 {
            let mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut e = event(5, mixed >> 61 << 40, count);
            e.place.age = Nanos(1_700_000_000 * Nanos::SEC + (mixed >> 30) % 1_000);
            plain.push(e.place);
            waiting.push(e);
        }
        plain.sort();
        for place in plain {
            assert_eq!(waiting.pop(Nanos(5)).map(|e| e.place), Some(place));
        }
    }

    proptest! {
        #[test]
        fn events_come_in_the_order_of_their_places_as_far_as_the_horizon(
            steps in proptest::collection::vec(step(), 0..300),
        ) {
            let (mut waiting, mut plain) = (Waiting::default(), Vec::new());
            for (n, step) in steps.into_iter().chain([Step::Advance(u64::MAX)]).enumerate() {
                match step {
                    Step::Push(at, lane) => {
                        let e = event(at, lane, n as u64);
                        plain.push(e.place);
                        waiting.push(e);
                    }
                    Step::Advance(to) => {
                        plain.sort();
                        let due = plain.iter().take_while(|p| p.at.0 <= to).count();
                        for place in plain.drain(..due) {
                            prop_assert_eq!(waiting.pop(Nanos(to)).map(|e| e.place), Some(place));
                        }
                        prop_assert!(waiting.pop(Nanos(to)).is_none());
                    }
                }
                prop_assert_eq!(waiting.len(), plain.len());
            }
        }
    }
}
