//! Silence in the middle, and ends that do not end.

use super::evidence::{Finding, View, duration, endpoint, ms};
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict, opening, storms};
use crate::flow::Side;
use crate::track::{Step, note, seen};
use crate::wire::{IcmpError, Nanos, Segment, TcpFlags};

/// Transmissions of the same bytes into silence that make a black hole: the first, and three after timeouts. At 5 %
/// loss each way that happens by chance once in ten thousand segments. With short timeouts all that is over in a second or
/// two, and paths come back after that: so one transmission more, or a silence that people call an outage.
const UNHEARD: u16 = 3;
const OUTAGE: u64 = 5 * Nanos::SEC;

/// FINs sent again without an answer that are told. One or two are a peer that was slow or switched off.
const FINS: u16 = 3;

/// `black_hole`: looks at a step within an open flow.
///
/// Peers: Wireshark shows the retransmissions one by one; DeepFlow "Transfer - Timeout"; nobody gives the verdict.
pub fn silence(
    view: &View<'_>,
    step: &Step,
    ts: Nanos,
    told: &mut dyn FnMut(Kind) -> bool,
    out: &mut dyn FnMut(Anomaly),
) {
    let flow = view.flow;
    let me = step.from as usize;
    let t = &flow.tallies;
    let silent = ts.since(t.unheard_first[me]);
    let long = t.unheard[me] > UNHEARD || t.unheard[me] == UNHEARD && silent >= OUTAGE;
    if step.notes & note::UNHEARD == 0 || !long || !told(Kind::BlackHole) {
        return;
    }
    // A peer that has sent its FIN has said all it had to say; what it does not take any more, it may have closed on.
    let peer_closed = flow.end(step.from.other()).has(seen::FIN);
    let who = if step.from == Side::Orig { "originator" } else { "responder" };
    let tuple = view.tuple(flow.orig);
    let to = endpoint(if step.from == Side::Orig { tuple.dst } else { tuple.src });
    let packets = view.packets(flow.orig);
    let sent: Vec<_> = packets.iter().filter(|p| p.from == step.from && p.len > 0).collect();
    let last = sent.last().map(|p| p.dst_mac);
    // The transmissions of the bytes that the newest one carries.
    let seq = sent.last().map(|p| p.seq);
    let same: Vec<Nanos> = sent.iter().filter(|p| Some(p.seq) == seq).map(|p| p.ts).collect();
    let gaps = same.windows(2).map(|w| Fact::F64(ms(w[1].since(w[0])))).collect();
    let heard = flow.end(step.from.other()).packets > 0;
    // A listener with a full accept queue drops what completes a handshake; with SYN cookies (tcp_conn_request() under a full
    // queue) it does not even repeat its SYN-ACK, and so looks like a path that was lost.
    let answered_only =
        step.from == Side::Orig && t.syn_acks > 0 && flow.end(Side::Resp).packets <= u32::from(t.syn_acks);
    let queue = if answered_only {
        "; it has never sent more than its SYN-ACK: a full accept queue behind SYN cookies looks like this too"
    } else {
        ""
    };
    out(view.anomaly(
        flow.orig,
        Finding {
            kind: Kind::BlackHole,
            // A view without the other direction cannot tell silence.
            severity: if heard && !peer_closed { Severity::Warning } else { Severity::Info },
            verdict: if answered_only { Verdict::Unknown } else { Verdict::Network },
            certainty: if heard && !answered_only { Certainty::Likely } else { Certainty::Possible },
            summary: format!(
                "the {who} sent the same bytes to {to} {} times with growing gaps, the last {}, and nothing came back{queue}",
                t.unheard[me] + 1,
                duration(t.unheard_gap[me])
            ),
            first: flow.first,
            time: ts,
            facts: vec![
                ("attempts", Fact::U64(u64::from(t.unheard[me]) + 1)),
                ("gaps_ms", Fact::List(gaps)),
                ("last_mac", last.map_or(Fact::Null, |m| Fact::Str(m.to_string().into()))),
                ("icmp_errors", Fact::U64(t.icmp_errors.into())),
            ],
        },
    ));
}

/// Which of two packets in one end's name is not its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Odd {
    Reset,
    /// What came after the reset.
    Rest,
}

/// What the packets tell of it: one has the TTL of the end's packets before, the other has not; or what came after lacks the timestamps
/// that its segments must have (RFC 7323 section 3.2). A SYN-ACK that acknowledges the SYN is worth more than a reset that does not.
/// An IP identification tells nothing: Linux' resets have one of their own (`tcp_v4_send_reset()`).
fn not_its_own(view: &View<'_>, step: &Step, seg: &Segment) -> Option<Odd> {
    let t = &view.flow.tallies;
    let before = t.reset_usual[0] != 0;
    let usual = |ttl: u8| before && t.reset_usual.contains(&ttl);
    let bare = view.flow.end(step.from).has(seen::TS) && seg.options.ts.is_none();
    match (usual(t.reset_ttl), usual(seg.ttl)) {
        (false, true) if before && !bare => Some(Odd::Reset),
        (true, false) => Some(Odd::Rest),
        (true, true) if bare => Some(Odd::Rest),
        _ if t.unbelieved && seg.flags.any(TcpFlags::SYN) => Some(Odd::Reset),
        _ => None,
    }
}

/// `reset_ignored`: the end in whose name the reset came sends new data.
///
/// Peers: Suricata `suspected_rst_inject`, Zeek `data_after_reset`, Snort 129:8 and 129:18.
pub fn reset_ignored(view: &View<'_>, step: &Step, seg: &Segment, ts: Nanos) -> Anomaly {
    let flow = view.flow;
    let t = &flow.tallies;
    let who = if step.from == Side::Orig { "originator" } else { "responder" };
    let foreign = t.reset_ttl != seg.ttl;
    let ttl = if foreign { format!(" (TTL {} there, {} here)", t.reset_ttl, seg.ttl) } else { String::new() };
    let (with, what) = if seg.flags.any(TcpFlags::SYN) {
        ("accepts the SYN", "the SYN-ACK is")
    } else {
        ("goes on with new data", "the data are")
    };
    let odd = not_its_own(view, step, seg);
    let says = match odd {
        Some(Odd::Reset) => "it did not send that reset".to_owned(),
        Some(Odd::Rest) => format!("the reset is like its other packets, {what} not its own"),
        None => format!("the reset is not its own, or {what} not"),
    };
    view.anomaly(
        flow.orig,
        Finding {
            kind: Kind::ResetIgnored,
            severity: Severity::Warning,
            verdict: Verdict::Middlebox,
            // Two TTLs prove two senders.
            certainty: if foreign && odd != Some(Odd::Rest) { Certainty::Proven } else { Certainty::Likely },
            summary: format!("the {who} {with} after a reset in its name{ttl}: {says}"),
            first: if flow.closed_at.0 == 0 { flow.first } else { flow.closed_at },
            time: ts,
            facts: vec![
                ("ttl", Fact::U64(t.reset_ttl.into())),
                ("usual_ttl", Fact::U64(seg.ttl.into())),
                ("packets_after", Fact::U64(t.after_reset.into())),
            ],
        },
    )
}

/// `reset_with_text` (info): what a reset says in words.
///
/// Peers: Suricata `rst_with_data`; tcpdump prints it.
pub fn reset_with_text(view: &View<'_>, step: &Step, seg: &Segment, ts: Nanos) -> Anomaly {
    let bytes = &seg.text[..usize::from(seg.text_len)];
    let text: String =
        bytes.iter().map(|&b| if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '.' }).collect();
    let (who, verdict) = match step.from {
        Side::Orig => ("originator", Verdict::Originator),
        Side::Resp => ("responder", Verdict::Responder),
    };
    view.anomaly(
        view.flow.orig,
        Finding {
            kind: Kind::ResetWithText,
            severity: Severity::Info,
            verdict,
            certainty: Certainty::Proven,
            summary: format!("the {who}'s reset carries {} bytes: \"{text}\"", seg.payload),
            first: ts,
            time: ts,
            facts: vec![("text", Fact::Str(text.into())), ("bytes", Fact::U64(seg.payload.into()))],
        },
    )
}

/// `fin_out_of_window` (info): the receiver drops it.
///
/// Peers: Suricata `fin_out_of_window`, `fin_invalid_ack`; Snort 129:16.
pub fn fin_out_of_window(view: &View<'_>, step: &Step, seg: &Segment, ts: Nanos) -> Anomaly {
    let who = if step.from == Side::Orig { "originator" } else { "responder" };
    let (me, peer) = (view.flow.end(step.from), view.flow.end(step.from.other()));
    // Before the other end has acknowledged anything, what it has is the SYN.
    let expected = if peer.has(seen::ACK) { peer.ack } else { me.isn.add(1) };
    let distance = seg.end().distance(expected);
    view.anomaly(
        view.flow.orig,
        Finding {
            kind: Kind::FinOutOfWindow,
            severity: Severity::Info,
            verdict: Verdict::Unknown,
            certainty: Certainty::Likely,
            summary: format!(
                "a FIN of the {who} ends at {} and its receiver expects {expected} next: it drops that FIN",
                seg.end()
            ),
            first: ts,
            time: ts,
            facts: vec![
                ("seq", Fact::U64(seg.seq.0.into())),
                ("expected", Fact::U64(expected.0.into())),
                ("distance", Fact::I64(distance.into())),
            ],
        },
    )
}

/// `icmp_error` (info): what a device on the way says of an open connection, once a flow. "Too big" is how the path MTU is found and
/// does no harm by itself; an "unreachable" is only advice to an open connection (RFC 1122 4.2.3.9).
///
/// Peers: Zeek and Suricata decode these errors; none ties them to the connection.
pub fn icmp_error(view: &View<'_>, error: &IcmpError, ts: Nanos) -> Anomaly {
    let mtu = if error.mtu > 0 { format!(", MTU {}", error.mtu) } else { String::new() };
    let by = error.name();
    view.anomaly(
        view.flow.orig,
        Finding {
            kind: Kind::IcmpError,
            severity: Severity::Info,
            verdict: Verdict::Network,
            certainty: Certainty::Proven,
            summary: format!("{} says of a packet of this open connection: {by}{mtu}", error.from),
            first: ts,
            time: ts,
            facts: vec![
                ("by", Fact::Str(by.into())),
                ("from", Fact::Str(error.from.to_string().into())),
                ("mtu", if error.mtu > 0 { Fact::U64(error.mtu.into()) } else { Fact::Null }),
                ("seq", Fact::U64(error.seq.0.into())),
            ],
        },
    )
}

/// `fin_storm` and `reset_storm`.
///
/// Peers: Zeek `FIN_storm` and `RST_storm`, from a thousand on (`tcp_storm_thresh`).
pub fn storm(view: &View<'_>, kind: Kind, count: u32, ts: Nanos) -> Anomaly {
    let (what, flag) =
        if kind == Kind::FinStorm { ("FINs", TcpFlags::FIN) } else { ("resets", TcpFlags::RST) };
    // The rate of those that are remembered: the flow may have been quiet before for long.
    let packets = view.packets(view.flow.orig);
    let of_storm: Vec<Nanos> = packets.iter().filter(|p| p.flags.any(flag)).map(|p| p.ts).collect();
    let per_second = match (of_storm.first(), of_storm.last()) {
        (Some(first), Some(last)) if last > first => {
            let rate = (of_storm.len() - 1) as f64 * 1e9 / last.since(*first) as f64;
            Fact::F64((rate * 10.0).round() / 10.0)
        }
        _ => Fact::Null, // All within one tick of the clock.
    };
    view.anomaly(
        view.flow.orig,
        Finding {
            kind,
            severity: Severity::Warning,
            verdict: Verdict::Unknown,
            certainty: Certainty::Proven,
            summary: format!("{count} {what} on one connection, one after the other"),
            first: view.flow.first,
            time: ts,
            facts: vec![("per_second", per_second), ("count", Fact::U64(count.into()))],
        },
    )
}

/// SYN-ACKs without an acknowledgement that are told when the flow is over.
const NEVER_ACKED: u16 = 2;

/// Looks at a life that is over at `at`. Four kinds rest on what did not come until then; beside `synack_unsolicited`:
///
/// | kind | peers |
/// | --- | --- |
/// | `synack_unacknowledged` | DeepFlow ServerSynAckRepeat "Client ACK Miss"; Zeek `S1` without an ACK, `SH` |
/// | `half_closed_stuck` | Zeek `S2` and `S3`; DeepFlow ClientHalfClose and ServerHalfClose |
/// | `fin_unanswered` | Wireshark "TCP Retransmission" on a FIN |
pub fn over(view: &View<'_>, at: Nanos, out: &mut dyn FnMut(Anomaly)) {
    let flow = view.flow;
    let t = &flow.tallies;
    let responder = endpoint(view.tuple(flow.orig).dst);
    if t.unsolicited {
        out(view.anomaly(flow.orig, opening::unsolicited(view, flow.last)));
    }
    let one_syn_ack_seen_twice = t.twice > 0 && t.syn_acks == NEVER_ACKED;
    let waited = t.syn_ack_last.since(t.syn_ack_first);
    if t.syn_acks >= NEVER_ACKED
        && t.syn_ack_late()
        && t.acked_at.0 == 0
        && flow.end(Side::Orig).packets > 0
        && !one_syn_ack_seen_twice
    {
        let text = format!(
            "{responder} sent its SYN-ACK {} times in {}, and no acknowledgement ever passed",
            t.syn_acks,
            duration(waited)
        );
        let facts = vec![("attempts", Fact::U64(t.syn_acks.into())), ("acknowledged_after_ms", Fact::Null)];
        out(view.anomaly(
            flow.orig,
            Finding {
                kind: Kind::SynackUnacknowledged,
                severity: Severity::Info,
                verdict: Verdict::Originator,
                certainty: Certainty::Possible,
                summary: text,
                first: t.syn_ack_first,
                time: flow.last,
                facts,
            },
        ));
    }
    if let Some(ns) = storms::stuck(flow, at) {
        out(view.anomaly(
            flow.orig,
            Finding {
                kind: Kind::HalfClosedStuck,
                severity: Severity::Info,
                verdict: Verdict::Unknown,
                certainty: Certainty::Likely,
                summary: format!(
                    "one direction stayed open and silent for {} after the other had closed",
                    duration(ns)
                ),
                first: flow.first,
                time: at,
                facts: vec![("for_ms", Fact::F64(ms(ns)))],
            },
        ));
    }
    for role in [Side::Orig, Side::Resp] {
        let (me, peer) = (flow.end(role), flow.end(role.other()));
        let again = flow.tallies.fins_again[role as usize];
        let unanswered =
            me.has(seen::FIN) && !me.has(seen::FIN_ACKED) && peer.packets > 0 && peer.last < me.last;
        if again < FINS || !unanswered {
            continue;
        }
        let who = if role == Side::Orig { "originator" } else { "responder" };
        out(view.anomaly(
            flow.orig,
            Finding {
                kind: Kind::FinUnanswered,
                severity: Severity::Info,
                verdict: Verdict::Unknown,
                certainty: Certainty::Possible,
                summary: format!(
                    "the {who} sent its FIN {} times and never got an acknowledgement",
                    again + 1
                ),
                first: me.last,
                time: flow.last,
                facts: vec![("attempts", Fact::U64(u64::from(again) + 1))],
            },
        ));
    }
}
