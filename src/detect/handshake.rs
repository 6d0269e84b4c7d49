//! SYNs that were not answered, and SYNs that were refused.

use super::evidence::{Finding, View, duration, endpoint, ms};
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use crate::flow::Side;
use crate::track::{Ended, Outcome, SegClass};
use crate::wire::{IcmpError, Nanos};

/// How long the capture must have gone on after the last of several SYNs, or after a single one, before silence at
/// its end means anything: the initial retransmission timeout (RFC 6298), and the older one of 3 s.
const SILENT_AFTER_SEVERAL: u64 = Nanos::SEC;
const SILENT_AFTER_ONE: u64 = 3 * Nanos::SEC;

/// A delay that people notice, and the shortest initial retransmission timeout of RFC 6298, less a tenth for clocks.
const HURT_AFTER: u64 = 900 * Nanos::MS;

/// `syn_unanswered`: a SYN sent again, or given up, to which nothing at all came back.
///
/// Peers: Zeek `S0`, DeepFlow "Server SYN Miss", tshark's retransmission on a SYN.
pub fn unanswered(view: &View<'_>, ended: &Ended) -> Option<Anomaly> {
    let a = &ended.attempt;
    if a.stale_acks > 0 || a.stray_rst.is_some() || a.on_live.is_some() {
        return None;
    }
    let silent = ended.at.since(a.last);
    let (answered, given_up) = match ended.outcome {
        Outcome::Accepted => (Some(ended.at.since(a.first)), false),
        Outcome::Expired => (None, true),
        // The originator reset its own attempt, or began another: it waited as long as it wanted to.
        Outcome::Aborted | Outcome::Replaced => (None, a.syns > 1 || ended.at.since(a.first) >= Nanos::SEC),
        Outcome::Unfinished => {
            (None, silent >= if a.syns > 1 { SILENT_AFTER_SEVERAL } else { SILENT_AFTER_ONE })
        }
        Outcome::Refused | Outcome::RefusedOnTheWay | Outcome::OldLifeWentOn => return None,
    };
    if answered.is_some() && a.syns < 2 || answered.is_none() && !given_up {
        return None;
    }
    let packets = view.packets(a.from);
    let syns: Vec<Nanos> = packets
        .iter()
        .filter(|p| p.from == Side::Orig && p.seq == a.isn && SegClass::of(p.flags) == SegClass::Syn)
        .map(|p| p.ts)
        .collect();
    let gaps = syns.windows(2).map(|w| Fact::F64(ms(w[1].since(w[0])))).collect();
    let responder = endpoint(view.tuple(a.from).dst);
    // Below a second nobody waited for a retransmission timer: the capture shows one SYN several times (two VLANs, two
    // hooks), or a stack with a short timer of its own.
    let hurt = answered.is_none_or(|ns| ns >= HURT_AFTER);
    let times = if a.syns == 1 { "once".to_owned() } else { format!("{} times", a.syns) };
    let end = match (answered, ended.outcome) {
        (Some(ns), _) if ended.answer_seen => format!("the SYN-ACK came {} after the first", duration(ns)),
        (Some(ns), _) => {
            format!(
                "{} after the first the connection went on, so an answer came that was not seen",
                duration(ns)
            )
        }
        (None, Outcome::Aborted) => format!("given up after {}", duration(ended.at.since(a.first))),
        (None, _) => format!("nothing came back in {}", duration(ended.at.since(a.first))),
    };
    Some(view.anomaly(
        a.from,
        Finding {
            kind: Kind::SynUnanswered,
            severity: if hurt { Severity::Warning } else { Severity::Info },
            verdict: Verdict::Unknown,
            certainty: if a.syns > 1 { Certainty::Likely } else { Certainty::Possible },
            summary: format!("SYN to {responder} sent {times} without an answer of any kind; {end}"),
            first: a.first,
            time: ended.at,
            facts: vec![
                ("attempts", Fact::U64(a.syns.into())),
                ("gaps_ms", Fact::List(gaps)),
                ("answered_after_ms", answered.map_or(Fact::Null, |ns| Fact::F64(ms(ns)))),
            ],
        },
    ))
}

/// `syn_refused`: a reset that acknowledges the SYN.
///
/// Peers: Zeek `REJ`, DeepFlow "Server Reset", nDPI "Connection refused (server)".
pub fn refused(view: &View<'_>, ended: &Ended) -> Option<Anomaly> {
    let a = &ended.attempt;
    if ended.outcome != Outcome::Refused || a.stale_acks > 0 || a.on_live.is_some() {
        return None;
    }
    let after = ended.at.since(a.last);
    let responder = endpoint(view.tuple(a.from).dst);
    let again = if a.syns > 1 { format!(", after {} SYNs", a.syns) } else { String::new() };
    Some(view.anomaly(
        a.from,
        Finding {
            kind: Kind::SynRefused,
            severity: Severity::Warning,
            verdict: Verdict::Responder,
            certainty: Certainty::Proven,
            summary: format!("SYN refused by {responder} with a reset after {}{again}", duration(after)),
            first: a.first,
            time: ended.at,
            facts: vec![
                ("by", Fact::Str("rst".into())),
                ("after_ms", Fact::F64(ms(after))),
                ("attempts", Fact::U64(a.syns.into())),
            ],
        },
    ))
}

/// `syn_refused` by an ICMP error that quotes the SYN.
///
/// Peers: none ties the error to the SYN; Zeek and Suricata decode it.
pub fn refused_on_the_way(view: &View<'_>, ended: &Ended, error: &IcmpError) -> Anomaly {
    let a = &ended.attempt;
    let responder = endpoint(view.tuple(a.from).dst);
    let own = view.tuple(a.from).dst.addr == error.from;
    let by = error.name();
    let after = ended.at.since(a.last);
    view.anomaly(
        a.from,
        Finding {
            kind: Kind::SynRefused,
            severity: Severity::Warning,
            verdict: if own { Verdict::Responder } else { Verdict::Network },
            certainty: Certainty::Proven,
            summary: format!(
                "SYN to {responder} refused by {} with {by} after {}",
                error.from,
                duration(after)
            ),
            first: a.first,
            time: ended.at,
            facts: vec![
                ("by", Fact::Str(by.into())),
                ("from", Fact::Str(error.from.to_string().into())),
                ("after_ms", Fact::F64(ms(after))),
                ("attempts", Fact::U64(a.syns.into())),
            ],
        },
    )
}
