//! Silence in the middle, and ends that do not end.

use super::evidence::{Finding, View, duration, endpoint, ms};
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict, storms};
use crate::flow::Side;
use crate::track::{Step, note, seen};
use crate::wire::{Nanos, Segment};

/// Transmissions of the same bytes into silence that make a black hole: the first, and three after timeouts. At 5 %
/// loss each way that happens by chance once in ten thousand segments.
const UNHEARD: u16 = 3;

/// FINs sent again without an answer that are told. One or two are a peer that was slow or switched off.
const FINS: u16 = 3;

/// Looks at a step within an open flow.
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
    if step.notes & note::UNHEARD == 0 || t.unheard[me] < UNHEARD || !told(Kind::BlackHole) {
        return;
    }
    let who = if step.from == Side::Orig { "originator" } else { "responder" };
    let tuple = view.tuple(flow.orig);
    let to = endpoint(if step.from == Side::Orig { tuple.dst } else { tuple.src });
    let last = view.packets(flow.orig).iter().rev().find(|p| p.from == step.from).map(|p| p.dst_mac);
    let heard = flow.end(step.from.other()).packets > 0;
    out(view.anomaly(
        flow.orig,
        Finding {
            kind: Kind::BlackHole,
            // A view without the other direction cannot tell silence.
            severity: if heard { Severity::Warning } else { Severity::Info },
            verdict: Verdict::Network,
            certainty: if heard { Certainty::Likely } else { Certainty::Possible },
            summary: format!(
                "the {who} sent the same bytes to {to} {} times with growing gaps, the last {}, and nothing came back",
                t.unheard[me] + 1,
                duration(t.unheard_gap[me])
            ),
            first: flow.first,
            time: ts,
            facts: vec![
                ("attempts", Fact::U64(u64::from(t.unheard[me]) + 1)),
                ("last_gap_ms", Fact::F64(ms(t.unheard_gap[me]))),
                ("last_mac", last.map_or(Fact::Null, |m| Fact::Str(m.to_string().into()))),
            ],
        },
    ));
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
    view.anomaly(
        flow.orig,
        Finding {
            kind: Kind::ResetIgnored,
            severity: Severity::Warning,
            verdict: Verdict::Middlebox,
            certainty: if foreign { Certainty::Proven } else { Certainty::Likely },
            summary: format!(
                "the {who} goes on with new data after a reset in its name{ttl}: it did not send that reset"
            ),
            first: flow.closed_at,
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

/// `fin_storm` and `reset_storm`.
pub fn storm(view: &View<'_>, kind: Kind, count: u32, ts: Nanos) -> Anomaly {
    let what = if kind == Kind::FinStorm { "FINs" } else { "resets" };
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
            facts: vec![("count", Fact::U64(count.into()))],
        },
    )
}

/// Looks at a life that is over.
pub fn over(view: &View<'_>, out: &mut dyn FnMut(Anomaly)) {
    let flow = view.flow;
    if let Some(ns) = storms::stuck(flow) {
        out(view.anomaly(
            flow.orig,
            Finding {
                kind: Kind::HalfClosedStuck,
                severity: Severity::Info,
                verdict: Verdict::Unknown,
                certainty: Certainty::Likely,
                summary: format!("one direction stayed open for {} after the other had closed", duration(ns)),
                first: flow.first,
                time: flow.last,
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
