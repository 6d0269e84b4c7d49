//! The rules of one flow, in the order in which they look at a step. They remember nothing beyond the flow.

use super::evidence::View;
use super::sight::{Life, Listener, Seen, Sight};
use super::{Anomaly, Kind, ending, handshake, opening, reset, reuse, shape, storms};
use crate::flow::{Digest, Side};
use crate::track::{Ended, SegClass, State, Step, note, seen};
use crate::wire::{IcmpError, Nanos, Segment, Seq};

/// A flow remembers what was told of it in one word.
const _: () = assert!(Kind::ALL.len() <= u64::BITS as usize);

/// Remembers in the flow that a kind was told; true if it was not before.
fn once(told: &mut u64, kind: Kind) -> bool {
    let bit = 1u64 << kind as u64;
    let new = *told & bit == 0;
    *told |= bit;
    new
}

/// Looks at a flow after `step`, made by `seg`.
pub fn segment(
    view: &View<'_>,
    step: &Step,
    seg: &Segment,
    digest: &Digest,
    told: &mut u64,
    to: &mut dyn Listener,
) {
    let ts = digest.ts;
    let point = view.key.point();
    let tuple = view.tuple(view.flow.orig);
    let class = SegClass::of(seg.flags);
    // The sender as a role, as records have it.
    let digest = &Digest { from: step.from, ..*digest };
    let syn = class == SegClass::Syn && step.from == Side::Orig;
    // A SYN that ends another attempt makes the tuple its own; what is said of that one is said before.
    let takes_over = syn && step.ended.is_some_and(|e| e.attempt.isn != seg.seq);
    if syn && !takes_over {
        to.sight(Sight::Syn(Seen { tuple, digest: *digest }));
    }
    if class == SegClass::SynAck && step.from == Side::Resp {
        to.sight(Sight::SynAck(Seen { tuple, digest: *digest }));
    }
    let me = view.flow.end(step.from);
    if view.flow.picked_up
        && view.flow.ends.iter().map(|e| e.packets).sum::<u32>() == 1
        && class != SegClass::SynAck
    {
        to.sight(Sight::Met(Seen { tuple, digest: *digest }));
    }
    if class == SegClass::Rst {
        let peer = view.flow.end(step.from.other());
        let provoked = peer.has(seen::ACK) && peer.ack == seg.seq && me.packets > 0;
        to.sight(Sight::Rst {
            seen: Seen { tuple, digest: *digest },
            provoked: provoked.then(|| ts.since(peer.last)),
            foreign: reset::foreign(view, seg, step.from),
        });
    }
    if step.notes & note::UNHEARD != 0 {
        to.sight(Sight::Unheard(Seen { tuple, digest: *digest }));
    }
    if let Some(ended) = &step.ended {
        if step.answered {
            let latency_ns = ended.at.since(ended.attempt.first);
            let syns = ended.attempt.syns;
            to.sight(Sight::Answered { tuple, point, latency_ns, syns });
        }
        let seq = step.answered.then_some(seg.seq);
        attempt(view, ended, seq, to);
    }
    if step.completed.is_some() {
        to.sight(Sight::Completed { responder: tuple.dst, point, asked: view.flow.first });
    }
    if takes_over {
        to.sight(Sight::Syn(Seen { tuple, digest: *digest }));
    }
    if let Some(r) = &step.reset {
        to.anomaly(reset::mid_flow(view, r, seg, step.from, ts));
        let fins = view.flow.ends.iter().any(|e| e.has(seen::FIN));
        let foreign = reset::foreign(view, seg, step.from);
        let own = step.from == Side::Orig && !foreign;
        let cut = !own && !fins && !reset::asked_for(view, step.from);
        to.sight(Sight::Reset { tuple, point, idle_ns: r.idle_ns, cut, foreign });
    }
    if class == SegClass::Fin && step.from == Side::Orig && view.flow.state == State::Reset {
        to.sight(Sight::FinAfterReset(Seen { tuple, digest: *digest }));
    }
    if step.notes & note::PROBE != 0 {
        to.sight(Sight::Probe { originator: tuple.src, point });
    }
    if step.notes & note::SYN_AFTER_SYN_ACK != 0
        && let Some(late) = handshake::answered_late(view, ts)
        && once(told, Kind::SynUnanswered)
    {
        to.anomaly(late);
    }
    let mut fresh = |kind| once(told, kind);
    let (fin, rst) = (class == SegClass::Fin, class == SegClass::Rst);
    if let Some((kind, count)) = storms::storm(view.flow, fin, rst, step.since_last)
        && fresh(kind)
    {
        to.anomaly(ending::storm(view, kind, count, ts));
    }
    if step.notes != 0 || class as u8 <= SegClass::SynAck as u8 {
        opening::opening(view, step, seg, ts, &mut fresh, &mut |a| to.anomaly(a));
        ending::silence(view, step, ts, &mut fresh, &mut |a| to.anomaly(a));
    }
    if step.notes & note::RST_UNBELIEVED != 0 && fresh(Kind::ResetOutOfWindow) {
        to.anomaly(reset::unbelieved(view, seg, ts));
    }
    if step.notes & note::FIN_OUT_OF_WINDOW != 0 && fresh(Kind::FinOutOfWindow) {
        to.anomaly(ending::fin_out_of_window(view, step, seg, ts));
    }
    if step.notes & note::WENT_ON_AFTER_RESET != 0 && fresh(Kind::ResetIgnored) {
        to.anomaly(ending::reset_ignored(view, step, seg, ts));
    }
    if rst && seg.text_len > 0 && fresh(Kind::ResetWithText) {
        to.anomaly(ending::reset_with_text(view, step, seg, ts));
    }
    if step.notes & note::ODD_FLAGS != 0 && fresh(Kind::InvalidFlags) {
        to.anomaly(shape::invalid_flags(point, tuple, digest));
    }
    if step.reset_without_flow {
        to.sight(Sight::Stray(Seen { tuple, digest: *digest }));
    }
}

/// Looks at a flow whose attempt ended without a packet.
pub fn silence(view: &View<'_>, ended: &Ended, to: &mut dyn Listener) {
    attempt(view, ended, None, to);
}

/// Looks at a life that is over at `at`.
pub fn over(view: &View<'_>, at: Nanos, to: &mut dyn Listener) {
    let flow = view.flow;
    let [o, r] = &flow.ends;
    to.sight(Sight::Over(Life {
        tuple: view.tuple(flow.orig),
        point: view.key.point(),
        first: flow.first.coarse(),
        last: flow.last,
        packets: [o.packets, r.packets],
        went_on: flow.zeek.went_on(),
        opened: o.has(seen::SYN) && r.has(seen::SYN),
        closed: o.has(seen::FIN) || r.has(seen::FIN),
        reset: flow.state == State::Reset && flow.tallies.acked_at.0 != 0,
        requests: o.data,
    }));
    ending::over(view, at, &mut |a| to.anomaly(a));
}

/// Looks at an attempt that an ICMP error ended.
pub fn icmp(view: &View<'_>, ended: &Ended, error: &IcmpError, to: &mut dyn Listener) {
    to.anomaly(handshake::refused_on_the_way(view, ended, error));
}

/// Looks at an ICMP error that quotes a packet of an open flow.
pub fn icmp_mid_flow(view: &View<'_>, error: &IcmpError, ts: Nanos, told: &mut u64, to: &mut dyn Listener) {
    if view.flow.state.is_open() && once(told, Kind::IcmpError) {
        to.anomaly(ending::icmp_error(view, error, ts));
    }
}

/// The same packet again, on the other side of a hop: once a flow.
pub fn twice(view: &View<'_>, first: &Digest, second: &Digest, told: &mut u64, to: &mut dyn Listener) {
    if once(told, Kind::SeenTwice) {
        to.anomaly(opening::seen_twice(view, first, second));
    }
}

/// The same frame out of the tap point and back in.
pub fn looped(view: &View<'_>, first: &Digest, second: &Digest, told: &mut u64, to: &mut dyn Listener) {
    if once(told, Kind::FrameLoop) {
        to.anomaly(opening::frame_loop(view, first, second));
    }
}

/// An end's MAC is not that of its packet before.
pub fn mac(view: &View<'_>, before: &Digest, now: &Digest, told: &mut u64, to: &mut dyn Listener) {
    let role = view.flow.role(now.from);
    if once(told, Kind::MacChangedInFlow) {
        to.anomaly(opening::mac_changed(view, before, now, role));
    }
}

/// An attempt to open is told as one thing: the first rule that knows it.
fn attempt(view: &View<'_>, ended: &Ended, syn_ack_seq: Option<Seq>, to: &mut dyn Listener) {
    let told: Option<Anomaly> = reuse::refused(view, ended)
        .or_else(|| reuse::on_live_flow(view, ended))
        .or_else(|| handshake::refused(view, ended))
        .or_else(|| handshake::unanswered(view, ended))
        .or_else(|| reuse::accepted(view, ended, syn_ack_seq));
    if let Some(a) = told {
        to.anomaly(a);
    }
}
