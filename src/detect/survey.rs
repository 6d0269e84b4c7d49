//! The rules that look over all flows: what shows only in many connections, at a service, at a tap point.
//!
//! One survey sees the sights of all workers in the order of time, so that what it says does not depend on how flows
//! are spread over workers.

use super::flood::Floods;
use super::gateway::Gateway;
use super::link::Links;
use super::reset::WithoutFlow;
use super::shape::Shape;
use super::slow::Slow;
use super::storms::Storms;
use super::{Anomaly, ArpAt, ArpWatch, Kind, Role, Services, Sight};
use crate::flow::Tuple;
use crate::wire::Nanos;

/// A SYN-ACK this early in the view of a tap point may answer a SYN from before it: the longest wait for one in use.
const SETTLED: u64 = 3 * Nanos::SEC;

/// See the module. Fixed tables throughout; taken at start.
pub struct Survey {
    gateway: Gateway,
    services: Services,
    storms: Storms,
    floods: Floods,
    slow: Slow,
    shape: Shape,
    without_flow: WithoutFlow,
    arp: ArpWatch,
    links: Links,
}

impl Survey {
    /// For tap points with these roles.
    pub fn new(roles: Vec<Role>) -> Survey {
        Survey {
            gateway: Gateway::new(roles),
            services: Services::default(),
            storms: Storms::default(),
            floods: Floods::default(),
            slow: Slow::default(),
            shape: Shape::default(),
            without_flow: WithoutFlow::default(),
            arp: ArpWatch::default(),
            links: Links::default(),
        }
    }

    /// The tuple on the other side of the gateway, if it is another one.
    pub fn nat(&self, point: u8, tuple: &Tuple) -> Option<Tuple> {
        self.gateway.join.nat(point, tuple)
    }

    /// How long the gateway held SYNs, us.
    pub fn held(&self) -> &hdrhistogram::Histogram<u32> {
        &self.gateway.join.held
    }

    /// Takes a sight, seen at `at`.
    pub fn sight(&mut self, sight: &Sight, at: Nanos, out: &mut dyn FnMut(Anomaly)) {
        if let Some(point) = sight.point() {
            self.shape.seen(point, at);
        }
        self.arp.release(at, out);
        self.gateway.release(at, out);
        self.floods.pass(at, out);
        if let Some((mac, point, way)) = sight.came_from() {
            let join = &self.gateway.join;
            let alike = |a, b| join.role(a) == join.role(b);
            self.links.came(mac, point, way, at, &alike, out);
        }
        match sight {
            Sight::Syn(s) => {
                self.links.syn(&s.digest);
                self.gateway.join.syn(s);
                self.floods.syn(s.tuple.dst, s.digest.point, at);
            }
            Sight::SynAck(s) => self.gateway.join.syn_ack(s),
            Sight::Rst { seen, provoked, foreign } => self.gateway.rst(seen, *provoked, *foreign),
            Sight::Met(s) => self.gateway.met(s, out),
            Sight::Unheard(s) => self.gateway.unheard(s),
            Sight::Answered { tuple, point, latency_ns, syns } => {
                self.services.answered(tuple.dst, at);
                self.floods.answered(tuple.dst, *point, Nanos(at.0.saturating_sub(*latency_ns)));
                if *syns == 1 {
                    self.slow.handshake(tuple, *latency_ns, *point, at, out);
                }
            }
            Sight::Completed { responder, point, asked } => {
                self.floods.completed(*responder, *point, *asked);
                self.gateway.completed(*responder, *point, *asked);
            }
            Sight::Counted { point, syns, mirrored, known_shed } => {
                self.floods.counted(*point, *syns, *mirrored, *known_shed);
            }
            Sight::Reset { tuple, point, idle_ns, cut, foreign } => {
                let idle_ns = if *cut { *idle_ns } else { 0 };
                self.storms.reset(tuple.dst, (idle_ns, *foreign), *point, at, out);
            }
            Sight::Stray(s) => {
                if let Some(told) = self.without_flow.count(s.digest.point, s.tuple, s.digest) {
                    out(told);
                }
            }
            // The desk looks for the reset.
            Sight::FinAfterReset(_) => {}
            Sight::Probe { originator, point } => self.storms.probe(*originator, *point, at, out),
            Sight::Over(life) => {
                self.shape.over(life, out);
                self.storms.over(life, out);
            }
            Sight::Arp { arp, src_mac, point, segment, way } => {
                let at = ArpAt { point: *point, segment: *segment, way: *way, ts: at };
                self.arp.packet(arp, *src_mac, at, out);
            }
            Sight::Malformed { reason, point } => self.shape.malformed(*point, *reason, at, out),
            Sight::Conntrack(entry) => self.gateway.entry(entry, at),
            Sight::LinkChanged { point, before, after } => {
                self.gateway.link_changed(*point, [*before, *after], at);
                self.links.changed(*point, [*before, *after], at, out);
            }
            Sight::BridgePort { point, name, left } => self.links.port(*point, *name, *left, at),
            Sight::FdbMoved { mac, from_point, to_point } => {
                let join = &self.gateway.join;
                let alike = |a, b| join.role(a) == join.role(b);
                self.links.learned(*mac, [*from_point, *to_point], at, &alike, out);
            }
            Sight::ConntrackStats { deltas, first, last } => self.gateway.counted(*first, *last, *deltas),
        }
    }

    /// Adds to an anomaly of one flow what is known of its responder; false if its tap point sees one direction only
    /// and the anomaly rests on an answer that did not come.
    pub fn judge(&mut self, anomaly: &mut Anomaly, out: &mut dyn FnMut(Anomaly)) -> bool {
        let at_point = |judge: &dyn Fn(u8) -> bool| anomaly.point.is_some_and(judge);
        let needs_both =
            matches!(anomaly.kind, Kind::SynUnanswered | Kind::SynackUnacknowledged | Kind::SynFlood);
        if needs_both && at_point(&|p| self.shape.one_sided(p)) {
            return false;
        }
        // What began before the tap did is not unsolicited.
        let unsolicited = anomaly.kind == Kind::SynackUnsolicited;
        if unsolicited && at_point(&|p| self.shape.began_before(p, anomaly.time, SETTLED)) {
            return false;
        }
        self.gateway.judge(anomaly, out);
        if anomaly.kind == Kind::MacChangedInFlow {
            self.arp.flow_moved(anomaly, out);
        }
        self.links.finding(anomaly);
        if anomaly.kind == Kind::NextHopChanged {
            self.gateway.next_hop_changed(anomaly);
        }
        self.services.judge(anomaly);
        self.links.silence(anomaly);
        true
    }

    /// What was counted and not told.
    pub fn finish(&mut self, out: &mut dyn FnMut(Anomaly)) {
        self.gateway.finish(out);
        self.floods.finish(out);
        self.without_flow.finish(out);
        self.arp.finish(out);
        self.shape.finish(out);
    }
}
