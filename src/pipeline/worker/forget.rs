//! The end of what is remembered of a flow: what is told of it, to the rules and to the kernel side.

use super::{Speaker, Worker, failed, fetch};
use crate::detect::{View, rules};
use crate::flow::{FlowId, FlowKey};
use crate::memory::prefetch;
use crate::pipeline::event::{LifeOver, Outlet, What};
use crate::track::{Ended, Flow, seen};
use crate::wire::Nanos;

impl Worker {
    /// Concludes everything at `now`, the end of a recording; another may follow.
    pub fn finish(&mut self, now: Nanos, out: &mut dyn Outlet) {
        let now = now.max(self.now);
        self.settle(now, out);
        let mut from = 0;
        while let Some(id) = self.table.first(from) {
            from = id.0;
            self.conclude(id, now, out);
        }
        self.rewind();
    }

    /// The flows that are left at `now`, and when the last packet of each came.
    pub(in crate::pipeline) fn left(&self, now: Nanos) -> impl Iterator<Item = (Nanos, FlowId)> {
        let (mut from, now) = (0, now.max(self.now));
        std::iter::from_fn(move || {
            let id = self.table.first(from)?;
            from = id.0 + 1;
            Some((self.last(id, now), id))
        })
    }

    fn last(&self, id: FlowId, now: Nanos) -> Nanos {
        if self.table.is_whole(id) { self.table.get(id).last } else { self.table.line(id).last(now) }
    }

    /// The lane of a flow's events.
    pub(in crate::pipeline) fn lane(&self, id: FlowId) -> u64 {
        self.table.hash_of(id)
    }

    /// Has the line of one of them fetched.
    pub(in crate::pipeline) fn fetch(&self, id: FlowId) {
        fetch(&self.table, id);
    }

    /// Has the buckets of one of them fetched, whose line is there.
    pub(in crate::pipeline) fn fetch_buckets(&self, id: FlowId) {
        self.table.buckets(self.table.hash_of(id)).into_iter().for_each(prefetch);
    }

    /// Concludes one of them at `now`, unless it had to make room for another.
    pub(in crate::pipeline) fn conclude(&mut self, id: FlowId, now: Nanos, out: &mut dyn Outlet) {
        if self.table.class(id).is_none() {
            return;
        }
        let now = now.max(self.now);
        let age = self.last(id, now);
        if !self.table.is_whole(id) && self.ends_well(id) {
            return self.over(id, now, age, out);
        }
        self.unfold(id, now, out);
        if let Some(ended) = self.table.get_mut(id).finish(now) {
            self.silence(id, &ended, now, age, out);
        }
        self.forget(id, now, age, out);
    }

    /// Begins anew when all is concluded: another recording may follow, with times of its own.
    pub(in crate::pipeline) fn rewind(&mut self) {
        self.counters.live = 0;
        self.now = Nanos(0);
        self.wheel.rewind();
    }

    pub(super) fn silence(&mut self, id: FlowId, ended: &Ended, at: Nanos, age: Nanos, out: &mut dyn Outlet) {
        self.counters.attempts += 1;
        self.counters.failed += u64::from(failed(ended));
        let key = self.table.key(id);
        let here = self.interval.at(key.point());
        here.attempts += 1;
        here.failed += u64::from(failed(ended));
        self.figures(&key, ended);
        let flow = self.table.get(id);
        let view = View { key: &key, flow, recorder: &self.recorder, tunnels: &self.tunnels };
        let mut to = Speaker { out, at, age, lane: self.table.hash(&key), events: &mut self.events };
        rules::silence(&view, ended, &mut to);
    }

    pub(super) fn forget(&mut self, id: FlowId, at: Nanos, age: Nanos, out: &mut dyn Outlet) {
        let (key, flow) = (self.table.key(id), self.table.get(id));
        let view = View { key: &key, flow, recorder: &self.recorder, tunnels: &self.tunnels };
        let mut to = Speaker { out, at, age, lane: self.table.hash(&key), events: &mut self.events };
        rules::over(&view, at, &mut to);
        if self.lives {
            let tunnel = self.tunnels.get(flow.tunnel);
            to.say(What::Life(Box::new(LifeOver { key, flow: flow.clone(), tunnel })));
        }
        if is_known(flow) {
            self.tell_known(&key, false);
        }
        self.table.remove(id);
    }

    /// Tells the kernel side that a tuple is open, or that nothing is known of it any more.
    pub(super) fn tell_known(&self, key: &FlowKey, open: bool) {
        let Some(known) = &self.known else { return };
        let tuple = key.tuple();
        let (src, dst) = ((tuple.src.addr, tuple.src.port), (tuple.dst.addr, tuple.dst.port));
        if open { known.insert(src, dst, key.point()) } else { known.remove(src, dst, key.point()) }
    }
}

/// Whether both ends have shown that they are there: the originator has the responder's initial sequence number, or each has
/// sent data. A forged SYN, answered or not, shows neither.
pub(super) fn is_known(flow: &Flow) -> bool {
    let t = &flow.tallies;
    let completed = t.acked_at.0 != 0 && !t.final_ack_wrong && !t.differed;
    completed || flow.ends.iter().all(|e| e.has(seen::DATA))
}
