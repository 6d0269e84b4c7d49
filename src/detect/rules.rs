//! The rules in the order in which they look at a step.

use super::evidence::View;
use super::{Anomaly, ArpWatch, Kind, ending, handshake, opening, reset, reuse, shape, storms};
use crate::flow::{Digest, Side};
use crate::track::{Ended, SegClass, Step, note};
use crate::wire::{Arp, IcmpError, Mac, Malformed, Nanos, Segment, Seq, Way};

/// What one worker's rules remember beyond the flows.
#[derive(Default)]
pub struct Rules {
    without_flow: reset::WithoutFlow,
    arp: ArpWatch,
    shape: shape::Shape,
    storms: storms::Storms,
}

/// Remembers in the flow that a kind was told; true if it was not before.
fn once(told: &mut u64, kind: Kind) -> bool {
    let bit = 1u64 << (kind as u64 % 64);
    let new = *told & bit == 0;
    *told |= bit;
    new
}

impl Rules {
    /// Looks at a flow after `step`, made by `seg`.
    pub fn segment(
        &mut self,
        view: &View<'_>,
        step: &Step,
        seg: &Segment,
        digest: &Digest,
        told: &mut u64,
        out: &mut dyn FnMut(Anomaly),
    ) {
        let ts = digest.ts;
        let one_sided = self.shape.one_sided(view.key.point());
        if let Some(ended) = &step.ended {
            let seq = step.answered.then_some(seg.seq);
            attempt(view, ended, seq, one_sided, out);
        }
        let point = view.key.point();
        let responder = view.tuple(view.flow.orig).dst;
        let class = SegClass::of(seg.flags);
        if class == SegClass::Syn && step.from == Side::Orig {
            self.storms.syn(responder, point, ts, out);
        }
        if step.answered {
            self.storms.answer(responder);
        }
        if let Some(r) = &step.reset {
            out(reset::mid_flow(view, r, seg, step.from, ts));
            self.storms.reset(responder, r.idle_ns, point, ts, out);
        }
        if step.notes & note::PROBE != 0 {
            self.storms.probe(view.tuple(view.flow.orig).src, point, ts, out);
        }
        let mut fresh = |kind| once(told, kind);
        let (fin, rst) = (class == SegClass::Fin, class == SegClass::Rst);
        if let Some((kind, count)) = storms::storm(view.flow, fin, rst, step.since_last)
            && fresh(kind)
        {
            out(ending::storm(view, kind, count, ts));
        }
        if step.notes != 0 || SegClass::of(seg.flags) as u8 <= SegClass::SynAck as u8 {
            opening::opening(view, step, seg, ts, &mut fresh, out);
            ending::silence(view, step, ts, &mut fresh, out);
        }
        if step.notes & note::WENT_ON_AFTER_RESET != 0 && fresh(Kind::ResetIgnored) {
            out(ending::reset_ignored(view, step, seg, ts));
        }
        if SegClass::of(seg.flags) == SegClass::Rst && seg.text_len > 0 && fresh(Kind::ResetWithText) {
            out(ending::reset_with_text(view, step, seg, ts));
        }
        if step.notes & note::ODD_FLAGS != 0 && fresh(Kind::InvalidFlags) {
            out(shape::invalid_flags(view.key.point(), view.tuple(view.flow.orig), *digest));
        }
        if step.reset_without_flow
            && let Some(told) = self.without_flow.count(view.key.point(), view.tuple(view.flow.orig), *digest)
        {
            out(told);
        }
    }

    /// Looks at a flow whose attempt ended without a packet.
    pub fn silence(&mut self, view: &View<'_>, ended: &Ended, out: &mut dyn FnMut(Anomaly)) {
        let one_sided = self.shape.one_sided(view.key.point());
        attempt(view, ended, None, one_sided, out);
    }

    /// Looks at a life that is over.
    pub fn over(&mut self, view: &View<'_>, out: &mut dyn FnMut(Anomaly)) {
        self.shape.over(view.key.point(), view.flow, out);
        self.storms.over(view.tuple(view.flow.orig).dst, view.flow, view.key.point(), out);
        ending::over(view, out);
    }

    /// Looks at an attempt that an ICMP error ended.
    pub fn icmp(&mut self, view: &View<'_>, ended: &Ended, error: &IcmpError, out: &mut dyn FnMut(Anomaly)) {
        out(handshake::refused_on_the_way(view, ended, error));
    }

    /// The same packet again, on the other side of a hop: once a flow.
    pub fn twice(
        &mut self,
        view: &View<'_>,
        first: &Digest,
        second: &Digest,
        told: &mut u64,
        out: &mut dyn FnMut(Anomaly),
    ) {
        if once(told, Kind::SeenTwice) {
            out(opening::seen_twice(view, first, second));
        }
    }

    /// The same frame out of the tap point and back in.
    pub fn looped(
        &mut self,
        view: &View<'_>,
        first: &Digest,
        second: &Digest,
        told: &mut u64,
        out: &mut dyn FnMut(Anomaly),
    ) {
        if once(told, Kind::FrameLoop) {
            out(opening::frame_loop(view, first, second));
        }
    }

    /// An end's MAC is not that of its packet before.
    pub fn mac(
        &mut self,
        view: &View<'_>,
        before: &Digest,
        now: &Digest,
        told: &mut u64,
        out: &mut dyn FnMut(Anomaly),
    ) {
        let role = view.flow.role(now.from);
        if once(told, Kind::MacChangedInFlow) {
            out(opening::mac_changed(view, before, now, role));
        }
    }

    /// Counts a packet that could not be decoded.
    pub fn malformed(&mut self, point: u8, reason: Malformed, ts: Nanos, out: &mut dyn FnMut(Anomaly)) {
        self.shape.malformed(point, reason, ts, out);
    }

    /// Looks at an ARP packet or a neighbour message.
    pub fn arp(
        &mut self,
        arp: &Arp,
        src_mac: Mac,
        point: u8,
        way: Way,
        ts: Nanos,
        out: &mut dyn FnMut(Anomaly),
    ) {
        self.arp.packet(arp, src_mac, point, way, ts, out);
    }

    /// Hands over what was only counted so far.
    pub fn finish(&mut self, out: &mut dyn FnMut(Anomaly)) {
        self.without_flow.finish(out);
        self.arp.finish(out);
        self.shape.finish(out);
    }
}

/// An attempt to open is told as one thing: the first rule that knows it.
fn attempt(
    view: &View<'_>,
    ended: &Ended,
    syn_ack_seq: Option<Seq>,
    one_sided: bool,
    out: &mut dyn FnMut(Anomaly),
) {
    let told = reuse::refused(view, ended)
        .or_else(|| reuse::on_live_flow(view, ended))
        .or_else(|| handshake::refused(view, ended))
        .or_else(|| handshake::unanswered(view, ended).filter(|_| !one_sided));
    let quiet = told.is_none();
    if let Some(a) = told {
        out(a);
    }
    if quiet && let Some(a) = reuse::accepted(view, ended, syn_ack_seq) {
        out(a);
    }
}
