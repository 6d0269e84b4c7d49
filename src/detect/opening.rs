//! What goes wrong between SYN and the first data, beyond silence and refusal.

use super::evidence::{Finding, View, duration, endpoint, ms};
use super::{Anomaly, Certainty, Fact, Facts, Kind, Severity, Verdict};
use crate::flow::{Digest, Side};
use crate::track::{SegClass, Step, note};
use crate::wire::{Nanos, Segment, Seq, TcpFlags};

/// SYN-ACKs again after the final ACK passed that make a full accept queue likely. One or two can be ACKs lost behind this tap: where
/// one packet in twenty is lost, two are in one connection of four hundred. Three are not, nor is one when the originator had
/// sent this many packets (the SYN, the ACK, and data again and again) and nothing but SYN-ACKs ever came back.
const AFTER_ACK_AGAIN: u16 = 3;
const WENT_ON: u32 = 6;

/// NOPs in a row that stand where an option was: stacks pad to a word of four bytes, so they need three at most, and the MSS,
/// the option that is most often taken out, leaves four. Where no option is missing there was none.
const NOPS: u8 = 4;

/// The largest window scale (RFC 7323 section 2.3).
const SCALE_MAX: u8 = 14;

/// A kind's finding with the parts that most of these share.
fn finding(
    kind: Kind,
    verdict: Verdict,
    certainty: Certainty,
    at: Nanos,
    summary: String,
    facts: Facts,
) -> Finding {
    Finding { kind, severity: Severity::Info, verdict, certainty, summary, first: at, time: at, facts }
}

/// Looks at what the step noted; each kind is told once a life (`told` keeps the bits).
///
/// | kind | peers |
/// | --- | --- |
/// | `synack_unacknowledged` | DeepFlow ServerSynAckRepeat "Client ACK Miss", `retrans_synack` |
/// | `accept_queue_overflow` | DeepFlow ServerQueueLack "Server Queue Overflow"; Suricata `est_synack_resend` |
/// | `synack_wrong_ack` | Suricata `3whs_synack_with_wrong_ack`; Zeek `bad_SYN_ack` |
/// | `synack_differs` | Suricata `3whs_synack_resend_with_diff_seq` and `_ack`, `3whs_synack_flood` |
/// | `synack_from_originator` | Suricata `3whs_synack_in_wrong_direction`; Zeek `connection_originator_SYN_ack` |
/// | `simultaneous_open` | Zeek `simultaneous_open`; Suricata `3whs_syn_toclient_on_syn_recv` |
/// | `split_handshake` | Suricata `4whs_*`; Snort 129:13 |
/// | `isn_changed_while_opening` | Suricata `3whs_syn_resend_diff_seq_on_syn_recv`, `3whs_syn_flood`; Zeek `SYN_seq_jump` |
/// | `final_ack_wrong` | Suricata `3whs_right_seq_wrong_ack_evasion`, `3whs_wrong_seq_wrong_ack` |
/// | `tfo_refused` | Suricata `3whs_synack_tfo_data_ignored`; tshark `tfo_ignored` |
/// | `options_altered` | Suricata `pkt_broken_ack`; Zeek `TCP_scale_range`, `tcp_option_*_invalid_len`; tshark "MSS absent", "4 NOP in a row" |
pub fn opening(
    view: &View<'_>,
    step: &Step,
    seg: &Segment,
    ts: Nanos,
    told: &mut dyn FnMut(Kind) -> bool,
    out: &mut dyn FnMut(Anomaly),
) {
    let flow = view.flow;
    let responder = endpoint(view.tuple(flow.orig).dst);
    let has = |bit: u32| step.notes & bit != 0;
    let mut tell = |f: Finding| {
        if told(f.kind) {
            out(view.anomaly(flow.orig, f));
        }
    };
    let t = &flow.tallies;
    if has(note::ACKED_LATE) {
        let waited = ts.since(t.syn_ack_first);
        let text = format!(
            "{responder} sent its SYN-ACK {} times before an acknowledgement passed, {} after the first",
            t.syn_acks,
            duration(waited)
        );
        let facts = vec![
            ("attempts", Fact::U64(t.syn_acks.into())),
            ("acknowledged_after_ms", Fact::F64(ms(waited))),
        ];
        // Below a second it is a duplicate or a simultaneous retransmission: nobody waited.
        let severity = if waited >= Nanos::SEC { Severity::Warning } else { Severity::Info };
        let f = finding(Kind::SynackUnacknowledged, Verdict::Network, Certainty::Likely, ts, text, facts);
        tell(Finding { severity, first: t.syn_ack_first, ..f });
    }
    let deaf =
        flow.end(Side::Resp).packets == u32::from(t.syn_acks) && flow.end(Side::Orig).packets >= WENT_ON;
    if has(note::SYN_ACK_AFTER_ACK) && (t.syn_acks_after_ack >= AFTER_ACK_AGAIN || deaf) {
        let times = match t.syn_acks_after_ack {
            1 => "once more".to_owned(),
            n => format!("{n} times more"),
        };
        let text = format!(
            "{responder} sent its SYN-ACK {times} after the final ACK had passed: it dropped that ACK, as a listener with a full accept queue does"
        );
        let facts = vec![
            ("attempts", Fact::U64(t.syn_acks_after_ack.into())),
            ("acked_at", Fact::U64(t.acked_at.0)),
            ("acked_after_ms", Fact::F64(ms(t.acked_at.since(t.syn_ack_first)))),
        ];
        let f = finding(Kind::AcceptQueueOverflow, Verdict::Responder, Certainty::Likely, ts, text, facts);
        tell(Finding { severity: Severity::Warning, first: t.syn_ack_first, ..f });
    }
    if has(note::SYN_ACK_WRONG_ACK) {
        let expected = flow.attempt.isn.add(1);
        let text = format!("SYN-ACK from {responder} acknowledges {}, the SYN asks for {expected}", seg.ack);
        let facts = vec![("ack", Fact::U64(seg.ack.0.into())), ("expected", Fact::U64(expected.0.into()))];
        tell(finding(Kind::SynackWrongAck, Verdict::Responder, Certainty::Proven, ts, text, facts));
    }
    if has(note::SYN_ACK_UNSOLICITED) {
        tell(unsolicited(view, ts));
    }
    if has(note::SYN_ACK_DIFFERS) {
        let (seq, ack) = step.syn_ack_before;
        let text = if seq == seg.seq {
            format!("two SYN-ACKs from {responder} that acknowledge different SYNs: {ack}, then {}", seg.ack)
        } else {
            format!("two SYN-ACKs from {responder} to one SYN: sequence {seq}, then {}", seg.seq)
        };
        let numbers = |seq: Seq, ack: Seq| Fact::List(vec![Fact::U64(seq.0.into()), Fact::U64(ack.0.into())]);
        let both = vec![numbers(seq, ack), numbers(seg.seq, seg.ack)];
        let facts = vec![("both", Fact::List(both))];
        tell(finding(Kind::SynackDiffers, Verdict::Middlebox, Certainty::Likely, ts, text, facts));
    }
    if has(note::SYN_ACK_FROM_ORIGINATOR) {
        let text = format!("the end that opened the connection to {responder} sent a SYN-ACK itself");
        tell(finding(Kind::SynackFromOriginator, Verdict::Originator, Certainty::Likely, ts, text, vec![]));
    }
    if has(note::CROSSED) {
        let text = format!("SYNs crossed on the way between {responder} and its peer");
        tell(finding(Kind::SimultaneousOpen, Verdict::Unknown, Certainty::Likely, ts, text, vec![]));
    }
    if has(note::SPLIT) {
        let text =
            format!("split handshake: {responder} sent a SYN of its own and acknowledged with a plain ACK");
        tell(finding(Kind::SplitHandshake, Verdict::Responder, Certainty::Likely, ts, text, vec![]));
    }
    if has(note::ISN_CHANGED) {
        let was = step.ended.as_ref().map_or(flow.attempt.isn, |e| e.attempt.isn);
        let isn = flow.attempt.isn;
        let text = format!(
            "the originator tried another initial sequence number, {isn} after {was}, before {responder} answered"
        );
        let isns = [was, isn].map(|s| Fact::U64(s.0.into())).to_vec();
        let facts = vec![("isns", Fact::List(isns))];
        tell(finding(Kind::IsnChangedWhileOpening, Verdict::Originator, Certainty::Proven, ts, text, facts));
    }
    if has(note::FINAL_ACK_WRONG) {
        let expected = flow.end(Side::Resp).isn.add(1);
        let text = if seg.ack == expected {
            let follows = flow.end(Side::Orig).isn.add(1);
            format!(
                "the third packet of the handshake has sequence number {}, the SYN asks for {follows}",
                seg.seq
            )
        } else {
            format!(
                "the third packet of the handshake acknowledges {}, the SYN-ACK of {responder} asks for {expected}",
                seg.ack
            )
        };
        let facts = vec![
            ("ack", Fact::U64(seg.ack.0.into())),
            ("expected", Fact::U64(expected.0.into())),
            ("seq", Fact::U64(seg.seq.0.into())),
        ];
        tell(finding(Kind::FinalAckWrong, Verdict::Originator, Certainty::Likely, ts, text, facts));
    }
    if has(note::TFO_REFUSED) {
        let sent = flow.attempt.payload;
        let text =
            format!("{responder} took the SYN and not its {sent} bytes of data, which must be sent again");
        let facts = vec![("bytes", Fact::U64(sent.into()))];
        tell(finding(Kind::TfoRefused, Verdict::Responder, Certainty::Proven, ts, text, facts));
    }
    if seg.flags.any(TcpFlags::SYN)
        && let Some((option, was)) = altered(seg)
    {
        // An acknowledgement without its flag is what programs that make packets by hand leave behind.
        let (verdict, who) = match option {
            "ack" => (Verdict::Originator, "a program that makes its own packets does"),
            _ => (Verdict::Middlebox, "a device on the way may have"),
        };
        let text = format!("[{}] with {option} {was}: no stack sends that, {who}", seg.flags);
        let facts =
            vec![("option", Fact::Str(option.into())), ("was", Fact::Str(was.into())), ("now", Fact::Null)];
        tell(finding(Kind::OptionsAltered, verdict, Certainty::Possible, ts, text, facts));
    }
}

/// `synack_unsolicited`.
///
/// Peers: Zeek history `^h`, `SHR`; Suricata `3whs_synack_in_wrong_direction` is near.
pub fn unsolicited(view: &View<'_>, ts: Nanos) -> Finding {
    let responder = endpoint(view.tuple(view.flow.orig).dst);
    let text = format!("SYN-ACK from {responder} on a tuple of which no SYN was seen");
    // What it should acknowledge stood in the SYN.
    let ack = view.flow.end(Side::Resp).ack;
    let facts = vec![("ack", Fact::U64(ack.0.into())), ("expected", Fact::Null)];
    finding(Kind::SynackUnsolicited, Verdict::Network, Certainty::Possible, ts, text, facts)
}

/// An option or field of a SYN or SYN-ACK that cannot be right.
fn altered(seg: &Segment) -> Option<(&'static str, String)> {
    let o = &seg.options;
    if o.broken {
        return Some(("options", "that cannot be read".into()));
    }
    if let Some(scale) = o.wscale.filter(|&s| s > SCALE_MAX) {
        return Some(("wscale", scale.to_string()));
    }
    // A stack that knows the later options sends the first of them too (RFC 9293 3.7.1), and none pads by a whole word.
    // Without any option at all it is an old or a small stack, and no sign.
    let later = o.wscale.is_some() || o.ts.is_some() || o.sack_permitted;
    let all = o.mss.is_some() && o.wscale.is_some() && o.ts.is_some() && o.sack_permitted;
    if o.nop_row >= NOPS && !all && !o.cut {
        return Some(("nop", format!("{} times in a row", o.nop_row)));
    }
    if o.mss.is_none() && later && !o.cut {
        return Some(("mss", "absent, though there are later options".into()));
    }
    let syn_alone = SegClass::of(seg.flags) == SegClass::Syn;
    (syn_alone && seg.ack.0 != 0).then(|| ("ack", format!("{} without its flag", seg.ack)))
}

/// `mac_changed_in_flow`: the near end's MAC is not what it was. `before` is that end's last packet.
///
/// Peers: Snort 129:9 and 129:10.
pub fn mac_changed(view: &View<'_>, before: &Digest, now: &Digest, role: Side) -> Anomaly {
    let who = if role == Side::Orig { "originator" } else { "responder" };
    let text = format!(
        "packets of the {who} came from {} until now and come from {}: its next hop changed, or another machine took its place",
        before.src_mac, now.src_mac
    );
    let facts = vec![
        ("side", Fact::Str(role.name().into())),
        ("before", Fact::Str(before.src_mac.to_string().into())),
        ("after", Fact::Str(now.src_mac.to_string().into())),
    ];
    let f = finding(Kind::MacChangedInFlow, Verdict::Unknown, Certainty::Likely, now.ts, text, facts);
    view.anomaly(view.flow.orig, f)
}

/// `seen_twice`: once a flow.
///
/// Peers: none; Wireshark and others call the second sight a retransmission.
pub fn seen_twice(view: &View<'_>, first: &Digest, second: &Digest) -> Anomaly {
    let ttl = i64::from(first.ttl) - i64::from(second.ttl);
    let text = format!(
        "the same packet was seen twice, {} apart, with TTL {} and {}: this tap point sees both sides of a hop",
        duration(second.ts.since(first.ts)),
        first.ttl,
        second.ttl
    );
    let facts = vec![("ttl_delta", Fact::I64(ttl)), ("gap_us", Fact::U64(second.ts.since(first.ts) / 1_000))];
    let f = finding(Kind::SeenTwice, Verdict::Unknown, Certainty::Proven, second.ts, text, facts);
    view.anomaly(view.flow.orig, f)
}

/// `frame_loop`: the same frame out of a tap point and back in.
///
/// Peers: none; switches log the MAC that flaps.
pub fn frame_loop(view: &View<'_>, first: &Digest, second: &Digest) -> Anomaly {
    let gap = second.ts.since(first.ts);
    let text = format!("the same frame went out and came back in {} later: a loop", duration(gap));
    let facts = vec![("gap_us", Fact::U64(gap / 1_000))];
    let f = finding(Kind::FrameLoop, Verdict::Network, Certainty::Proven, second.ts, text, facts);
    view.anomaly(view.flow.orig, Finding { severity: Severity::Warning, ..f })
}
