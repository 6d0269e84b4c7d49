//! Events that wait for their turn: what several workers tell comes in any order, and is wanted in that of its places.
//!
//! Nearly all of it comes nearly in order, so events are laid into slices of time as they come, and a slice is put in
//! order once, when its turn has come. An event is moved once in and once out; a heap would move it a dozen times.

use std::collections::BTreeMap;

use super::event::{Event, Place};
use crate::wire::Nanos;

/// Length of a slice as a power of two: a millisecond holds some hundred events of a busy gateway, which fit a cache.
const SLICE: u32 = 20;

/// Empty slices kept for later.
const SPARE: usize = 1024;

#[derive(Debug, Default)]
struct Slice {
    number: u64,
    events: Vec<Option<Event>>,
    /// Those that wait, the earliest last if `sorted`.
    order: Vec<(Place, u32)>,
    sorted: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Waiting {
    slices: BTreeMap<u64, Slice>,
    /// The slice that the event before went to, if it has events: most follow it there.
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
    pub fn push(&mut self, event: Event) {
        let number = event.place.at.0 >> SLICE;
        if self.hand.number != number || self.hand.events.is_empty() {
            self.lay_down();
            let fresh = || Slice { number, ..self.spare.pop().unwrap_or_default() };
            self.hand = self.slices.remove(&number).unwrap_or_else(fresh);
        }
        let slice = &mut self.hand;
        slice.order.push((event.place, slice.events.len() as u32));
        slice.events.push(Some(event));
        slice.sorted = false;
        self.len += 1;
    }

    fn lay_down(&mut self) {
        let slice = std::mem::take(&mut self.hand);
        if !slice.events.is_empty() {
            self.slices.insert(slice.number, slice);
        }
    }

    /// The earliest, if it is not later than `horizon`. Of two at one place the one that came first.
    pub fn pop(&mut self, horizon: Nanos) -> Option<Event> {
        self.lay_down();
        let mut first = self.slices.first_entry().filter(|s| *s.key() <= horizon.0 >> SLICE)?;
        let slice = first.get_mut();
        if !slice.sorted {
            slice.order.sort_by(|a, b| b.cmp(a));
            slice.sorted = true;
        }
        let &(place, n) = slice.order.last()?;
        if place.at > horizon {
            return None;
        }
        slice.order.pop();
        let event = slice.events[n as usize].take();
        self.len -= 1;
        if slice.order.is_empty() {
            let mut slice = first.remove();
            slice.events.clear();
            if self.spare.len() < SPARE {
                self.spare.push(slice);
            }
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Sight;
    use crate::pipeline::What;
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
