//! Time without packets: what a worker does about flows on which none comes, when the wheel offers them.

use super::{Worker, fetch, rank};
use crate::flow::{FlowId, Phase, Wheel};
use crate::memory::prefetch;
use crate::pipeline::event::Outlet;
use crate::track::fold;
use crate::wire::Nanos;

/// Flows that are due and looked at together: as many lines as a core waits for at once, without more than a cache holds.
const AT_ONCE: usize = 16;

/// Time that a worker lets pass at once.
const STRIDE: u64 = 3_600 * Nanos::SEC;

impl Worker {
    /// Lets time go on without packets.
    pub fn idle(&mut self, now: Nanos, out: &mut dyn Outlet) {
        self.advance(now, out);
        self.counters.live = self.table.len() as u64;
    }

    /// Lets all that is due by `now` fire, which [`Worker::idle`] may do a tick of the wheel later.
    pub fn settle(&mut self, now: Nanos, out: &mut dyn Outlet) {
        self.advance(now, out);
        while let Some((id, tick)) = self.wheel.advance(now.add(Wheel::TICK_NS)) {
            self.due(id, tick, now, out);
        }
        self.counters.live = self.table.len() as u64;
    }

    /// Fires what is due by `now`.
    #[inline]
    pub(super) fn advance(&mut self, now: Nanos, out: &mut dyn Outlet) {
        if now <= self.now {
            return;
        }
        if self.wheel.is_idle_at(now) {
            self.now = now;
            return;
        }
        self.turn(now, out);
    }

    #[cold]
    fn turn(&mut self, now: Nanos, out: &mut dyn Outlet) {
        // A line knows its last packet's time on a circle of three days. Within a few hours every flow is forgotten.
        while now.since(self.now) > STRIDE && !self.table.is_empty() {
            self.now = self.now.add(STRIDE);
            self.fire(self.now, out);
        }
        self.now = now;
        self.fire(now, out);
    }

    /// Some at a time, so that their lines, and then what their keys lead to, are on their way from memory together.
    fn fire(&mut self, now: Nanos, out: &mut dyn Outlet) {
        let mut due = [(FlowId(0), 0); AT_ONCE];
        loop {
            let mut n = 0;
            while n < AT_ONCE
                && let Some(one) = self.wheel.advance(now)
            {
                due[n] = one;
                n += 1;
                fetch(&self.table, one.0);
                if self.table.any_wide() {
                    prefetch(self.table.wide(one.0));
                }
            }
            for (id, tick) in &due[..n] {
                let line = self.table.line(*id);
                if line.armed == *tick && line.phase != Phase::Whole {
                    for bucket in self.table.buckets(self.table.hash_of(*id)) {
                        prefetch(bucket);
                    }
                }
            }
            for (id, tick) in &due[..n] {
                self.due(*id, *tick, now, out);
            }
            if n < AT_ONCE {
                return;
            }
        }
    }

    /// A flow that the wheel offers.
    fn due(&mut self, id: FlowId, tick: u16, now: Nanos, out: &mut dyn Outlet) {
        let line = self.table.line_mut(id);
        if line.armed != tick {
            return; // Of a flow that is gone, or waits for another tick.
        }
        line.armed = 0;
        if line.phase != Phase::Whole {
            let deadline = fold::deadline(line, now);
            if deadline > now {
                self.wheel.arm(id, deadline, &mut line.armed);
                return;
            }
            if self.ends_well(id) {
                self.over(id, deadline, Nanos(0), out);
                return;
            }
            self.unfold(id, now, out);
        }
        if self.wake(id, now, out) {
            let deadline = self.table.get(id).deadline;
            self.wheel.arm(id, deadline, &mut self.table.line_mut(id).armed);
        }
    }

    /// Lets a flow's timers fire up to `now`, each at its own time; false if that was the end of it.
    pub(super) fn wake(&mut self, id: FlowId, now: Nanos, out: &mut dyn Outlet) -> bool {
        loop {
            let due = self.table.get(id).deadline;
            if due > now {
                return true;
            }
            match self.table.get_mut(id).timer(due) {
                None => {
                    self.forget(id, due, Nanos(0), out);
                    return false;
                }
                Some(step) => {
                    let rank = rank(self.table.get(id));
                    self.table.set_rank(id, rank);
                    if let Some(ended) = step.ended {
                        self.silence(id, &ended, due, Nanos(0), out);
                    }
                }
            }
        }
    }
}
