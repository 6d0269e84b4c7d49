//! The timer wheel: one deadline a flow, driven by packet time, so that a replay fires what the live run fired.
//!
//! Coarse on purpose: it only wakes flows on which no packet comes. A flow that gets a packet after its deadline is
//! woken by its worker before the packet is looked at, with the deadline as the time; so what fires does not depend
//! on the tick.

use super::FlowId;
use crate::wire::Nanos;

/// Ticks in one turn: 410 s. Longer deadlines wait in the last tick and are put back when it comes.
const SLOTS: usize = 4096;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry {
    prev: u32,
    next: u32,
    /// Slot number; `NONE` when the flow is not in the wheel.
    slot: u32,
}

/// See the module. Memory: 12 bytes a flow and 16 KiB.
pub struct Wheel {
    heads: Box<[u32]>,
    entries: Box<[Entry]>,
    /// The tick up to which everything has fired; `None` before the first packet.
    now: Option<u64>,
}

impl Wheel {
    /// Length of a tick. Deadlines are seconds long; a tenth of a second late is early enough for a record.
    pub const TICK_NS: u64 = 100 * Nanos::MS;

    /// A wheel for flows numbered below `capacity`.
    pub fn new(capacity: usize) -> Wheel {
        Wheel {
            heads: vec![NONE; SLOTS].into_boxed_slice(),
            entries: vec![Entry { prev: NONE, next: NONE, slot: NONE }; capacity].into_boxed_slice(),
            now: None,
        }
    }

    /// Forgets what time it is. All flows must have been disarmed.
    pub fn rewind(&mut self) {
        self.now = None;
    }

    /// Makes sure that `id` is offered by [`Wheel::advance`] once `deadline` has passed. A flow that already waits
    /// for an earlier tick stays there: it is offered early and its owner arms it again.
    #[inline]
    pub fn arm(&mut self, id: FlowId, deadline: Nanos) {
        let now = *self.now.get_or_insert(deadline.0 / Self::TICK_NS);
        // Rounded up, so that an offered flow's deadline has passed, and never in the tick being emptied.
        let tick = (deadline.0 / Self::TICK_NS + 1).clamp(now + 1, now + SLOTS as u64 - 1);
        let slot = (tick % SLOTS as u64) as u32;
        let old = self.entries[id.0 as usize].slot;
        if old == slot {
            return;
        }
        if old != NONE {
            let ahead = |s: u32| (u64::from(s) + SLOTS as u64 - now % SLOTS as u64) % SLOTS as u64;
            if ahead(old) < ahead(slot) {
                return;
            }
            self.disarm(id);
        }
        let head = self.heads[slot as usize];
        self.entries[id.0 as usize] = Entry { prev: NONE, next: head, slot };
        if head != NONE {
            self.entries[head as usize].prev = id.0;
        }
        self.heads[slot as usize] = id.0;
    }

    /// Takes a flow out of the wheel.
    pub fn disarm(&mut self, id: FlowId) {
        let Entry { prev, next, slot } = self.entries[id.0 as usize];
        if slot == NONE {
            return;
        }
        match prev {
            NONE => self.heads[slot as usize] = next,
            p => self.entries[p as usize].next = next,
        }
        if next != NONE {
            self.entries[next as usize].prev = prev;
        }
        self.entries[id.0 as usize] = Entry { prev: NONE, next: NONE, slot: NONE };
    }

    /// Moves time on to `now` and pops one flow whose tick has passed; call until `None`. Time never goes back.
    pub fn advance(&mut self, now: Nanos) -> Option<FlowId> {
        let target = now.0 / Self::TICK_NS;
        let mut tick = self.now.unwrap_or(target);
        // After a jump of more than a turn every slot is due once.
        tick = tick.max(target.saturating_sub(SLOTS as u64));
        loop {
            let head = self.heads[(tick % SLOTS as u64) as usize];
            if head != NONE {
                self.now = Some(tick);
                self.disarm(FlowId(head));
                return Some(FlowId(head));
            }
            if tick >= target {
                self.now = Some(tick);
                return None;
            }
            tick += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(x: f64) -> Nanos {
        Nanos((x * 1e9) as u64)
    }

    fn due(w: &mut Wheel, now: Nanos) -> Vec<u32> {
        let mut ids: Vec<u32> = std::iter::from_fn(|| w.advance(now)).map(|f| f.0).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_flow_is_offered_after_its_deadline_and_never_before() {
        let mut w = Wheel::new(8);
        assert_eq!(w.advance(s(1000.0)), None);
        w.arm(FlowId(1), s(1003.0));
        w.arm(FlowId(2), s(1003.05));
        assert_eq!(due(&mut w, s(1002.99)), [0u32; 0]);
        assert_eq!(due(&mut w, s(1003.2)), [1, 2]);
        assert_eq!(due(&mut w, s(1009.0)), [0u32; 0]);
    }

    #[test]
    fn an_earlier_deadline_moves_a_flow_and_a_later_one_does_not() {
        let mut w = Wheel::new(8);
        assert_eq!(w.advance(s(1.0)), None);
        w.arm(FlowId(1), s(60.0));
        w.arm(FlowId(1), s(3.0));
        w.arm(FlowId(1), s(90.0));
        assert_eq!(due(&mut w, s(3.2)), [1]);
        assert_eq!(due(&mut w, s(100.0)), [0u32; 0]);
    }

    #[test]
    fn deadlines_past_one_turn_and_jumps_past_one_turn_are_offered() {
        let mut w = Wheel::new(8);
        assert_eq!(w.advance(s(1.0)), None);
        w.arm(FlowId(1), s(10_000.0));
        w.arm(FlowId(2), s(5.0));
        assert_eq!(due(&mut w, s(500.0)), [1, 2], "offered at the end of the turn; the owner arms it again");
        w.arm(FlowId(1), s(600.0));
        assert_eq!(due(&mut w, s(100_000.0)), [1]);
    }

    #[test]
    fn a_disarmed_flow_is_not_offered() {
        let mut w = Wheel::new(8);
        assert_eq!(w.advance(s(1.0)), None);
        for i in 0..4 {
            w.arm(FlowId(i), s(2.0));
        }
        w.disarm(FlowId(2));
        w.disarm(FlowId(2));
        assert_eq!(due(&mut w, s(3.0)), [0, 1, 3]);
    }
}
