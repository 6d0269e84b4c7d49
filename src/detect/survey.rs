//! The rules that look over all flows: what shows only in many connections, at a service, at a tap point.
//!
//! One survey sees the sights of all workers in the order of time, so that what it says does not depend on how flows
//! are spread over workers.

use super::reset::WithoutFlow;
use super::shape::Shape;
use super::slow::Slow;
use super::storms::Storms;
use super::{Anomaly, ArpWatch, Kind, Services, Sight};
use crate::wire::Nanos;

/// A SYN-ACK this early in the view of a tap point may answer a SYN from before it: the longest wait for one in use.
const SETTLED: u64 = 3 * Nanos::SEC;

/// See the module. Fixed tables throughout; taken at start.
#[derive(Default)]
pub struct Survey {
    services: Services,
    storms: Storms,
    slow: Slow,
    shape: Shape,
    without_flow: WithoutFlow,
    arp: ArpWatch,
}

impl Survey {
    /// Takes a sight, seen at `at`.
    pub fn sight(&mut self, sight: &Sight, at: Nanos, out: &mut dyn FnMut(Anomaly)) {
        self.shape.seen(sight.point(), at);
        self.arp.release(at, out);
        match sight {
            Sight::Syn(s) => self.storms.syn(s.tuple.dst, s.digest.point, at, out),
            Sight::SynAck(_) => {}
            Sight::Answered { tuple, point, latency_ns, syns } => {
                self.services.answered(tuple.dst, at);
                self.storms.answer(tuple.dst);
                if *syns == 1 {
                    self.slow.handshake(tuple, *latency_ns, *point, at, out);
                }
            }
            Sight::Reset { tuple, point, idle_ns, cut } => {
                let idle_ns = if *cut { *idle_ns } else { 0 };
                self.storms.reset(tuple.dst, idle_ns, *point, at, out);
            }
            Sight::Stray(s) => {
                if let Some(told) = self.without_flow.count(s.digest.point, s.tuple, s.digest) {
                    out(told);
                }
            }
            Sight::Probe { originator, point } => self.storms.probe(*originator, *point, at, out),
            Sight::Over(life) => {
                self.shape.over(life, out);
                self.storms.over(life, out);
            }
            Sight::Arp { arp, src_mac, point, way } => {
                self.arp.packet(arp, *src_mac, *point, *way, at, out);
            }
            Sight::Malformed { reason, point } => self.shape.malformed(*point, *reason, at, out),
        }
    }

    /// Adds to an anomaly of one flow what is known of its responder; false if its tap point sees one direction only
    /// and the anomaly rests on an answer that did not come.
    pub fn judge(&self, anomaly: &mut Anomaly) -> bool {
        let at_point = |judge: &dyn Fn(u8) -> bool| anomaly.point.is_some_and(judge);
        let needs_both = matches!(anomaly.kind, Kind::SynUnanswered | Kind::SynackUnacknowledged);
        if needs_both && at_point(&|p| self.shape.one_sided(p)) {
            return false;
        }
        // What began before the tap did is not unsolicited.
        let unsolicited = anomaly.kind == Kind::SynackUnsolicited;
        if unsolicited && at_point(&|p| self.shape.began_before(p, anomaly.time, SETTLED)) {
            return false;
        }
        self.services.judge(anomaly);
        true
    }

    /// What was counted and not told.
    pub fn finish(&mut self, out: &mut dyn FnMut(Anomaly)) {
        self.without_flow.finish(out);
        self.arp.finish(out);
        self.shape.finish(out);
    }
}
