//! The end of what is remembered of a flow: what is told of it, to the rules and to the kernel side.

use super::{Speaker, Worker, failed};
use crate::detect::{View, rules};
use crate::flow::{FlowId, FlowKey};
use crate::pipeline::event::{LifeOver, Outlet, What};
use crate::track::{Ended, Flow, seen};
use crate::wire::Nanos;

impl Worker {
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
