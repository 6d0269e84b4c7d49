//! The timer wheel: when a flow is to be looked at again though no packet of it comes. Driven by packet time, so that a replay fires
//! what the live run fired.
//!
//! Coarse on purpose: it only wakes flows on which no packet comes. A flow that gets a packet after its deadline is
//! woken by its worker before the packet is looked at, with the deadline as the time; so what fires does not depend
//! on the tick.
//!
//! A tick is a chain of chunks of flow numbers, so arming writes one number behind the one before, and no other flow is touched.
//! Nothing is ever taken out: a flow says itself, in its line, which tick it waits for, and what another tick says of it is stale.

use super::FlowId;
use crate::wire::Nanos;

/// Ticks in one turn.
const SLOTS: usize = 1024;

/// A flow is looked at again after this many ticks, a minute, also if nothing is due before: so a deadline that moves nearer, which
/// those of a minute and more do, needs no second entry.
const FURTHEST: u64 = 600;

/// Flows in a chunk, which is a cache line.
const MEMBERS: usize = 14;

const NONE: u32 = u32::MAX;

/// Ticks are named in a line by 16 bits, of which 0 says "none".
const NAMES: u64 = 0xffff;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Chunk {
    flows: [u32; MEMBERS],
    len: u32,
    next: u32,
}

/// See the module. Memory: 7 bytes a flow and 64 KiB.
pub struct Wheel {
    heads: Box<[u32]>,
    chunks: Box<[Chunk]>,
    free: u32,
    /// The tick up to which everything has fired; `None` before the first packet.
    now: Option<u64>,
    /// The end of that tick, ns; 0 before the first packet.
    idle_until: u64,
    /// Entries, stale ones included.
    entries: u64,
    /// Flows for which there was no room.
    unarmed: u64,
}

impl Wheel {
    /// Length of a tick. Deadlines are seconds long; a tenth of a second late is early enough for a record.
    pub const TICK_NS: u64 = 100 * Nanos::MS;

    /// A wheel for `capacity` flows. There is room for three entries for two flows: each has one, and in some ticks a stale one more
    /// while it opens.
    pub fn new(capacity: usize) -> Wheel {
        let chunks = (capacity * 3 / 2).div_ceil(MEMBERS) + SLOTS;
        let chunk = |n: usize| {
            let next = if n + 1 < chunks { n as u32 + 1 } else { NONE };
            Chunk { flows: [0; MEMBERS], len: 0, next }
        };
        Wheel {
            heads: vec![NONE; SLOTS].into_boxed_slice(),
            chunks: (0..chunks).map(chunk).collect(),
            free: 0,
            now: None,
            idle_until: 0,
            entries: 0,
            unarmed: 0,
        }
    }

    /// Forgets what time it is, and all entries.
    pub fn rewind(&mut self) {
        self.now = None;
        self.idle_until = 0;
        for slot in 0..SLOTS {
            while self.pop(slot).is_some() {}
        }
    }

    /// Times that a flow found no room: it is looked at when its next packet comes.
    pub fn unarmed(&self) -> u64 {
        self.unarmed
    }

    fn name(tick: u64) -> u16 {
        (tick % NAMES) as u16 + 1
    }

    /// Makes sure that `id` is offered by [`Wheel::advance`] once `deadline` has passed, or in a minute. `armed` is the tick that the
    /// flow waits for; one that is earlier stays: the flow is offered early and its owner arms it again.
    #[inline]
    pub fn arm(&mut self, id: FlowId, deadline: Nanos, armed: &mut u16) {
        let now = *self.now.get_or_insert(deadline.0 / Self::TICK_NS);
        // Rounded up, so that an offered flow's deadline has passed, and never in the tick being emptied.
        let tick = (deadline.0 / Self::TICK_NS + 1).clamp(now + 1, now + FURTHEST);
        if *armed != 0 {
            let waits = (u64::from(*armed) + NAMES - u64::from(Self::name(now))) % NAMES;
            if now + waits <= tick {
                return;
            }
        }
        if self.push((tick % SLOTS as u64) as usize, id.0) {
            self.entries += 1;
            *armed = Self::name(tick);
        } else {
            self.unarmed += 1;
        }
    }

    fn push(&mut self, slot: usize, flow: u32) -> bool {
        let head = self.heads[slot];
        if let Some(chunk) = self.chunks.get_mut(head as usize)
            && (chunk.len as usize) < MEMBERS
        {
            chunk.flows[chunk.len as usize] = flow;
            chunk.len += 1;
            return true;
        }
        let fresh = self.free;
        let Some(chunk) = self.chunks.get_mut(fresh as usize) else { return false };
        self.free = chunk.next;
        (chunk.flows[0], chunk.len, chunk.next) = (flow, 1, head);
        self.heads[slot] = fresh;
        true
    }

    fn pop(&mut self, slot: usize) -> Option<u32> {
        let head = self.heads[slot];
        let chunk = self.chunks.get_mut(head as usize)?;
        chunk.len -= 1;
        self.entries -= 1;
        let flow = chunk.flows[chunk.len as usize];
        if chunk.len == 0 {
            self.heads[slot] = chunk.next;
            chunk.next = self.free;
            self.free = head;
        }
        Some(flow)
    }

    /// Moves time on to `now` and pops one flow whose tick has passed, with the name of that tick: if the flow waits for another one,
    /// it is stale. Call until `None`. Time never goes back.
    #[inline]
    pub fn advance(&mut self, now: Nanos) -> Option<(FlowId, u16)> {
        // Nothing is armed for the tick that is passing.
        if self.is_idle_at(now) { None } else { self.move_on(now.0 / Self::TICK_NS) }
    }

    /// Whether [`Wheel::advance`] has nothing to do at this time.
    #[inline]
    pub fn is_idle_at(&self, now: Nanos) -> bool {
        now.0 < self.idle_until
    }

    fn move_on(&mut self, target: u64) -> Option<(FlowId, u16)> {
        let mut tick = self.now.unwrap_or(target);
        loop {
            if let Some(flow) = self.pop((tick % SLOTS as u64) as usize) {
                self.now = Some(tick);
                return Some((FlowId(flow), Self::name(tick)));
            }
            if tick >= target {
                self.now = Some(tick);
                self.idle_until = (tick + 1) * Self::TICK_NS;
                return None;
            }
            // After a jump of more than a turn the slots are gone through once, each under the name of the tick it was filled for.
            tick = if target - tick > SLOTS as u64 && self.entries == 0 { target } else { tick + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(x: f64) -> Nanos {
        Nanos((x * 1e9) as u64)
    }

    struct Flows {
        wheel: Wheel,
        armed: [u16; 8],
    }

    impl Flows {
        fn at(now: f64) -> Flows {
            let mut wheel = Wheel::new(8);
            assert_eq!(wheel.advance(s(now)), None);
            Flows { wheel, armed: [0; 8] }
        }

        fn arm(&mut self, id: u32, deadline: f64) {
            self.wheel.arm(FlowId(id), s(deadline), &mut self.armed[id as usize]);
        }

        fn due(&mut self, now: f64) -> Vec<u32> {
            let mut due = Vec::new();
            while let Some((FlowId(id), tick)) = self.wheel.advance(s(now)) {
                if self.armed[id as usize] == tick {
                    self.armed[id as usize] = 0;
                    due.push(id);
                }
            }
            due.sort_unstable();
            due
        }
    }

    #[test]
    fn a_flow_is_offered_after_its_deadline_and_never_before() {
        let mut f = Flows::at(1000.0);
        f.arm(1, 1003.0);
        f.arm(2, 1003.05);
        assert_eq!(f.due(1002.99), [0u32; 0]);
        assert_eq!(f.due(1003.2), [1, 2]);
        assert_eq!(f.due(1009.0), [0u32; 0]);
    }

    #[test]
    fn an_earlier_deadline_moves_a_flow_and_a_later_one_does_not() {
        let mut f = Flows::at(1.0);
        f.arm(1, 50.0);
        f.arm(1, 3.0);
        f.arm(1, 55.0);
        assert_eq!(f.due(3.2), [1]);
        assert_eq!(f.due(100.0), [0u32; 0], "the entry for 50 s was stale");
    }

    #[test]
    fn far_deadlines_are_offered_in_a_minute_and_jumps_past_a_turn_miss_nothing() {
        let mut f = Flows::at(1.0);
        f.arm(1, 10_000.0);
        f.arm(2, 5.0);
        assert_eq!(f.due(59.0), [2]);
        assert_eq!(f.due(61.2), [1], "the owner arms it again");
        f.arm(1, 100.0);
        assert_eq!(f.due(100_000.0), [1]);
        f.arm(3, 100_001.0);
        assert_eq!(f.due(300_000.0), [3]);
        assert_eq!(f.due(1e9), [0u32; 0]);
    }

    #[test]
    fn without_room_a_flow_stays_unarmed_and_is_counted() {
        let mut f = Flows::at(1.0);
        let room = f.wheel.chunks.len() * MEMBERS;
        for n in 0..room + 10 {
            let mut armed = 0;
            f.wheel.arm(FlowId(0), s(2.0 + (n % 3) as f64), &mut armed);
        }
        assert!((10..10 + 3 * MEMBERS as u64).contains(&f.wheel.unarmed()), "{}", f.wheel.unarmed());
        while f.wheel.advance(s(9.0)).is_some() {}
        f.arm(1, 12.0);
        assert_eq!(f.due(13.0), [1]);
    }
}
