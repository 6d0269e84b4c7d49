//! Flows that are kept in their lines alone: the short way of the common packet, and the ways from a line to a whole flow and back.

use super::{Lookup, Speaker, Worker, covered, fetch, rank, toward};
use crate::capture::Packet;
use crate::detect::{Life, Listener, Seen, Sight};
use crate::flow::{Class, Digest, FlowId, FlowKey, Line, Mark, Phase, Side, bit};
use crate::memory::prefetch_all;
use crate::pipeline::event::Outlet;
use crate::track::Coverage;
use crate::track::fold::{self, Folded};
use crate::wire::Nanos;

/// VLANs that flows in lines may have: more distinct ones than a gateway has at work. Flows in others are whole.
pub(super) const LABELS: usize = 256;

/// Packets of a line that are looked at to make it whole. One that has more was quiet and in order for all of them.
pub(super) const UNFOLDED: usize = 512;

impl Worker {
    /// The common packet on a flow that is kept in its line alone, or that may be: false for any other, and nothing was done.
    #[inline]
    pub(super) fn quick(&mut self, i: usize, p: &Packet<'_>, out: &mut dyn Outlet) -> bool {
        let Lookup { narrow, hash, end, guess, wide, .. } = self.lookups[i];
        let found = if wide {
            let key = &self.keys[i];
            guess.filter(|id| self.table.is_wide(*id, key)).or_else(|| self.table.find_wide(key, hash))
        } else {
            guess
                .filter(|id| self.table.is_narrow(*id, &narrow))
                .or_else(|| self.table.find_narrow(&narrow, hash))
        };
        let Some(id) = found else { return self.begin(i, p, out) };
        let d = &self.briefs[i].digest;
        let line = self.table.line_mut(id);
        if line.phase == Phase::Whole {
            return false;
        }
        let before = line.phase;
        let Some(folded) = fold::step(line, d, p.now) else { return false };
        let (role, phase) = (fold::role(line, end), line.phase);
        let mark = self.recorder.push(line.mark(self.recorder.next()), d);
        line.packet(role, p.ts, mark, d.len > 0);
        if line.armed == 0 {
            self.wheel.arm(id, fold::deadline(line, p.now), &mut line.armed);
        }
        if fold::class(phase) != fold::class(before) {
            self.table.set_class(id, fold::class(phase));
        }
        self.counters.packets += 1;
        self.counters.segments += 1;
        if folded != Folded::Quiet {
            self.tell(i, folded, id, p, out);
        }
        true
    }

    /// What others want to know of a step on a line.
    #[inline(always)]
    fn tell(&mut self, i: usize, folded: Folded, id: FlowId, p: &Packet<'_>, out: &mut dyn Outlet) {
        let (key, Lookup { hash, end, .. }) = (self.key(i), self.lookups[i]);
        match folded {
            Folded::Quiet => {}
            Folded::Completed { after, all } => {
                self.interval.acks.record(after);
                let (orig, asked) = (self.table.line(id).orig(), Nanos(p.ts.0.saturating_sub(all)));
                self.completed(&key, orig, asked, p, out);
            }
            Folded::Answered(ns) => {
                let digest = Digest { from: Side::Resp, ..self.briefs[i].digest };
                self.answered(&key, hash, Seen { tuple: toward(&key, end.other()), digest }, ns, out);
            }
        }
    }

    /// The SYN-ACK of a connection in its line.
    pub(super) fn answered(
        &mut self,
        key: &FlowKey,
        hash: u64,
        seen: Seen,
        latency_ns: u64,
        out: &mut dyn Outlet,
    ) {
        self.counters.attempts += 1;
        self.counters.handshakes += 1;
        self.interval.syn_acks.record(latency_ns);
        let here = self.interval.at(key.point());
        here.attempts += 1;
        here.syn_acks.record(latency_ns);
        self.figure(key, &seen.tuple.dst, Some(latency_ns), false);
        let (tuple, point) = (seen.tuple, key.point());
        let mut to = Speaker { out, at: seen.digest.ts, age: Nanos(0), lane: hash, events: &mut self.events };
        to.sight(Sight::SynAck(seen));
        to.sight(Sight::Answered { tuple, point, latency_ns, syns: 1 });
    }

    /// The final ACK of a connection in its line, which began at `asked`.
    pub(super) fn completed(
        &mut self,
        key: &FlowKey,
        orig: Side,
        asked: Nanos,
        p: &Packet<'_>,
        out: &mut dyn Outlet,
    ) {
        self.tell_known(key, true);
        let responder = toward(key, orig).dst;
        let lane = self.table.hash(key);
        let mut to = Speaker { out, at: p.ts, age: Nanos(0), lane, events: &mut self.events };
        to.sight(Sight::Completed { responder, point: key.point(), asked });
    }

    /// The first packet of a tuple: a connection that may be kept in a line alone begins with a SYN.
    pub(super) fn begin(&mut self, i: usize, p: &Packet<'_>, out: &mut dyn Outlet) -> bool {
        let Lookup { narrow, hash, end, wide, .. } = self.lookups[i];
        let key = self.key(i);
        let digest = self.briefs[i].digest;
        let Some(label) = self.label(digest.vlan).filter(|_| fold::begins(&digest)) else { return false };
        self.make_room(hash, p.ts, out);
        self.counters.packets += 1;
        self.counters.segments += 1;
        self.counters.flows += 1;
        let id = if wide { self.table.insert(key, hash) } else { self.table.insert_narrow(narrow, hash) };
        if let Some(next) = self.table.vacant() {
            fetch(&self.table, next);
        }
        let mark = self.recorder.push(Mark::default(), &digest);
        let line = self.table.line_mut(id);
        fold::begin(line, &digest);
        line.label = label;
        line.packet(Side::Orig, p.ts, mark, false);
        self.wheel.arm(id, fold::deadline(line, p.ts), &mut line.armed);
        let mut to = Speaker { out, at: p.ts, age: Nanos(0), lane: hash, events: &mut self.events };
        to.sight(Sight::Syn(Seen {
            tuple: toward(&key, end),
            digest: Digest { from: Side::Orig, ..digest },
        }));
        true
    }

    /// The label of a VLAN; `None` if there are too many.
    #[inline]
    pub(super) fn label(&mut self, vlan: u16) -> Option<u8> {
        if vlan == 0 {
            return Some(0);
        }
        let known = self.labels.iter().position(|&v| v == vlan);
        if known.is_none() && self.labels.len() < LABELS {
            self.labels.push(vlan);
            return Some((self.labels.len() - 1) as u8);
        }
        known.map(|n| n as u8)
    }

    /// Makes a flow whole, if it is not: from its packets in the recorder, or from its line where they are overwritten.
    pub(super) fn unfold(&mut self, id: FlowId, now: Nanos, out: &mut dyn Outlet) {
        if self.table.is_whole(id) {
            return;
        }
        self.make_room_for_a_whole(now, out);
        let line = *self.table.line(id);
        let newest = line.mark(self.recorder.next());
        let all = !line.has(bit::FOLDED) && self.gather(&line);
        let flow = self.table.make_whole(id);
        if all {
            let coverage = self.chain.first().map_or(Coverage::All, |d| covered(self.selected, d.point));
            fold::unfold(&self.chain, coverage, flow);
        } else {
            *flow = fold::unfold_line(&line, now);
        }
        flow.newest = newest;
        flow.vlan = self.labels[usize::from(line.label)];
        let rank = rank(flow);
        self.table.set_rank(id, rank);
    }

    /// Collects the packets of a line, oldest first; false if some are overwritten, or nobody knows how many there are.
    pub(super) fn gather(&mut self, line: &Line) -> bool {
        let Some(most) = self.logged(line) else { return false };
        self.chain.clear();
        let mut mark = line.mark(self.recorder.next());
        while !mark.is_none() && self.chain.len() < most {
            let Some((digest, older)) = self.recorder.get(mark) else { return false };
            self.chain.push(digest);
            mark = older;
        }
        self.chain.reverse();
        mark.is_none() || line.has(bit::REBORN)
    }

    /// A connection that has just opened as connections do is kept in its line alone, though its tuple had a life before: that is told
    /// by now.
    pub(super) fn settle_in_line(&mut self, id: FlowId) {
        let flow = self.table.get(id);
        if !self.lines || !fold::opened_well(flow) || !flow.tunnel.is_none() || flow.tallies.told != 0 {
            return;
        }
        let (mut line, vlan) = (*self.table.line(id), flow.vlan);
        if !fold::fold(flow, &mut line) {
            return;
        }
        let Some(label) = self.label(vlan) else { return };
        line.bits = line.bits & !bit::FOLDED | bit::REBORN;
        line.label = label;
        if self.gather(&line) {
            self.chain.iter().for_each(|d| {
                line.same_mac(fold::role(&line, d.from), d.src_mac);
            });
            self.table.give_back(id);
            *self.table.line_mut(id) = line;
        }
    }

    /// If no more flows can be whole, one that is becomes a line with what fits there; if none can, one is given up.
    pub(super) fn make_room_for_a_whole(&mut self, now: Nanos, out: &mut dyn Outlet) {
        while let Some(id) = self.table.crowded() {
            let (vlan, plain) = {
                let flow = self.table.get(id);
                (flow.vlan, flow.tunnel.is_none())
            };
            let label = if plain { self.label(vlan) } else { None };
            let mut line = *self.table.line(id);
            let folds = label.is_some() && fold::fold(self.table.get(id), &mut line);
            if folds {
                self.table.give_back(id);
                line.label = label.unwrap_or(0);
                *self.table.line_mut(id) = line;
            } else {
                self.count_evicted(id);
                self.forget(id, now, Nanos(0), out);
            }
            // Where one has no room the next has none, and what it waits for then is memory.
            let (flow, id) = self.table.next_crowded();
            prefetch_all(flow);
            fetch(&self.table, id);
        }
    }

    pub(super) fn count_evicted(&mut self, id: FlowId) {
        let class = self.table.class(id);
        self.counters.evicted += 1;
        self.counters.evicted_early += u64::from(class != Some(Class::Closed));
        self.counters.evicted_open += u64::from(class == Some(Class::Open));
    }

    /// The end of a flow that is kept in its line alone and in whose life nothing is missing.
    pub(super) fn over(&mut self, id: FlowId, at: Nanos, age: Nanos, out: &mut dyn Outlet) {
        let (key, line) = (self.table.key(id), *self.table.line(id));
        let met = line.has(bit::MET);
        let life = Life {
            tuple: toward(&key, line.orig()),
            point: key.point(),
            first: line.first(at),
            last: line.last(at),
            packets: [line.packets(Side::Orig).into(), line.packets(Side::Resp).into()],
            went_on: line.phase >= Phase::Established,
            opened: line.phase > Phase::SynSent && !met,
            closed: line.phase >= Phase::FinWait,
            reset: false,
            requests: line.requests().into(),
        };
        let lane = self.table.hash(&key);
        let mut to = Speaker { out, at, age, lane, events: &mut self.events };
        to.sight(Sight::Over(life));
        if line.phase >= Phase::Established {
            self.tell_known(&key, false);
        }
        self.table.remove(id);
    }

    /// Packets of this line that the recorder had, all that its chain has if that is less; `None` if nobody knows.
    pub(super) fn logged(&self, line: &Line) -> Option<usize> {
        match line.counted() {
            _ if line.has(bit::FOLDED) => None,
            None if line.has(bit::REBORN) => None,
            counted => Some(counted.unwrap_or(UNFOLDED)),
        }
    }

    /// True if nothing that a rule looks for can be missing when this line ends: neither an answer nor the other end's FIN.
    pub(super) fn ends_well(&self, id: FlowId) -> bool {
        use Phase::{Established, FinWait, LastAck, TimeWait};
        matches!(self.table.line(id).phase, Established | FinWait | LastAck | TimeWait)
    }
}
