//! SYNs that were not answered, and SYNs that were refused.

use super::evidence::{Finding, View, duration, endpoint, ms};
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use crate::flow::Side;
use crate::track::{Ended, Outcome, SegClass};
use crate::wire::{IcmpError, Nanos};

/// How long the capture must have gone on after a single SYN before silence at its end means anything: the older initial retransmission
/// timeout (RFC 1122). That a SYN was sent again says by itself that nothing had come for the first.
const SILENT_AFTER_ONE: u64 = 3 * Nanos::SEC;

/// A SYN that was sent again this little after its answer passed had left before that arrived.
const CROSSES: u64 = 200 * Nanos::MS;

/// A delay that people notice, and the shortest initial retransmission timeout of RFC 6298, less a tenth for clocks.
pub const HURT_AFTER: u64 = 900 * Nanos::MS;

/// `syn_unanswered`: a SYN sent again, or given up, to which nothing at all came back.
///
/// Peers: Zeek `S0`, DeepFlow "Server SYN Miss", tshark's retransmission on a SYN.
pub fn unanswered(view: &View<'_>, ended: &Ended) -> Option<Anomaly> {
    let a = &ended.attempt;
    if a.stale_acks > 0 || a.stray_rst.is_some() || a.on_live.is_some() {
        return None;
    }
    let (answered, given_up) = match ended.outcome {
        Outcome::Accepted => (Some(ended.at.since(a.first)), false),
        Outcome::Expired => (None, true),
        // The originator reset its own attempt, or began another: it waited as long as it wanted to.
        Outcome::Aborted | Outcome::Replaced => (None, a.syns > 1 || ended.at.since(a.first) >= Nanos::SEC),
        Outcome::Unfinished if a.syns > 1 => (None, ended.at.since(a.first) >= HURT_AFTER),
        Outcome::Unfinished => (None, ended.at.since(a.last) >= SILENT_AFTER_ONE),
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

/// `syn_unanswered` of a SYN that is sent again at `ts`, just after the answer passed that came when a second one was due: sender and responder
/// each wait a second (RFC 6298), so that a SYN-ACK which is lost before this tap is sent again when the SYN is, and either may pass first.
pub fn answered_late(view: &View<'_>, ts: Nanos) -> Option<Anomaly> {
    let (a, t) = (&view.flow.attempt, &view.flow.tallies);
    let after = t.syn_ack_first.since(a.first);
    if a.syns != 1 || t.syn_acks != 1 || after < HURT_AFTER || ts.since(t.syn_ack_first) > CROSSES {
        return None;
    }
    let responder = endpoint(view.tuple(a.from).dst);
    Some(view.anomaly(
        a.from,
        Finding {
            kind: Kind::SynUnanswered,
            severity: Severity::Warning,
            verdict: Verdict::Unknown,
            certainty: Certainty::Likely,
            summary: format!(
                "SYN to {responder} sent 2 times; the SYN-ACK came {} after the first, as the second was on its way: one before it was lost, or it takes that long",
                duration(after)
            ),
            first: a.first,
            time: ts,
            facts: vec![
                ("attempts", Fact::U64(2)),
                ("gaps_ms", Fact::List(vec![Fact::F64(ms(ts.since(a.first)))])),
                ("answered_after_ms", Fact::F64(ms(after))),
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
