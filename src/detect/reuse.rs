//! A tuple used again while the responder still holds its previous life.
//!
//! The kernel's rule (`tcp_timewait_state_process()` in `net/ipv4/tcp_minisocks.c`, after RFC 6191): in TIME_WAIT a SYN
//! is accepted if both lives have timestamps and its TSval is newer; or, when they are equal or either lacks them, if
//! its ISN lies after `rcv_nxt`, that is `(s32)(rcv_nxt - isn) < 0`. Otherwise it gets the old life's last ACK. In
//! FIN_WAIT2 and on a live connection a SYN outside the window gets a challenge ACK whatever its numbers (RFC 5961
//! section 4). All of these answers acknowledge something else than ISN+1, and nothing else does while an originator
//! has sent only SYNs.
//!
//! Peers: DeepFlow "Client Port Reuse" is the nearest; Wireshark's `reused_ports` and Suricata's
//! `shutdown_syn_resend` see the SYN and not the answer.

use super::evidence::{Finding, View, duration, endpoint, ms};
use super::{Anomaly, Certainty, Fact, Facts, Kind, Severity, Verdict};
use crate::flow::Side;
use crate::track::{Attempt, Ended, OldState, Outcome};
use crate::wire::{Nanos, Seq};

/// How long a Linux responder holds a closed tuple (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT: u64 = 60 * Nanos::SEC;

/// How far beyond the old life's `snd_nxt` Linux starts the SYN-ACK of an accepted reuse
/// (`tcp_timewait_state_process()`: `tw_snd_nxt + 65535 + 2`).
const LINUX_REUSE_STEP: u32 = 65_537;

/// Which condition of the rule refused the SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// No timestamps to compare, or equal ones, and the ISN is not after `rcv_nxt`.
    IsnNotAfter,
    /// The SYN's TSval is older than the newest one the responder saw (PAWS, RFC 7323 section 5).
    TimestampOlder,
    /// By these numbers TIME_WAIT would have accepted it: another state, or another device, answered.
    None,
}

impl Rule {
    /// The kernel's decision, from the same numbers.
    pub fn of(isn: Seq, rcv_nxt: Seq, tsval: Option<u32>, ts_recent: Option<u32>) -> Rule {
        let by_isn = if rcv_nxt.before(isn) { Rule::None } else { Rule::IsnNotAfter };
        match (tsval, ts_recent) {
            (Some(val), Some(recent)) => match val.wrapping_sub(recent) as i32 {
                0 => by_isn,
                newer if newer > 0 => Rule::None,
                _ => Rule::TimestampOlder,
            },
            _ => by_isn,
        }
    }

    fn name(self) -> Fact {
        match self {
            Rule::IsnNotAfter => Fact::Str("isn_not_after".into()),
            Rule::TimestampOlder => Fact::Str("timestamp_older".into()),
            Rule::None => Fact::Null,
        }
    }
}

/// What answered the SYN: seen, or told by the originator's own reset (rule 1b).
struct Refusal {
    rcv_nxt: Seq,
    ts_recent: Option<u32>,
    seen: bool,
}

fn refusal(a: &Attempt) -> Option<Refusal> {
    if let Some(s) = a.stale {
        return Some(Refusal { rcv_nxt: s.ack, ts_recent: s.tsecr, seen: true });
    }
    // Data of the old connection, which the originator then resets, is an answer of the old connection too.
    if let Some(s) = a.stale_data.filter(|_| a.stray_rst.is_some()) {
        return Some(Refusal { rcv_nxt: s.ack, ts_recent: s.tsecr, seen: true });
    }
    // Only the originator is seen: a reset whose number fits neither the SYN nor its successor can only echo an
    // acknowledgement it got, and the same SYN after it says that it still wants to open.
    let rst = a.stray_rst.filter(|_| a.syn_after_rst)?;
    Some(Refusal { rcv_nxt: rst, ts_recent: None, seen: false })
}

/// `tuple_reuse_refused`, if this attempt was refused by the tuple's past.
///
/// Peers: DeepFlow ClientSourcePortReuse "Client Port Reuse" is the nearest; nobody reports the challenge ACK.
pub fn refused(view: &View<'_>, ended: &Ended) -> Option<Anomaly> {
    let a = &ended.attempt;
    let r = refusal(a)?;
    if ended.outcome == Outcome::OldLifeWentOn {
        return None;
    }
    // One SYN, and it was accepted: the old ACK before that was on its way already, and answered something else.
    if ended.outcome == Outcome::Accepted && a.syns == 1 {
        return None;
    }
    let past = &ended.past;
    let (o, held) = (a.from as usize, past.held_by(a.from.other()));
    // TIME_WAIT's ts_recent is what its stale ACK echoes; without that packet, what the old life showed.
    let ts_recent = if r.seen { r.ts_recent } else { past.tsval[o] };
    let rule = Rule::of(a.isn, r.rcv_nxt, a.tsval, ts_recent);
    // The numbers of the remembered life: its FIN's end is what the stale ACK acknowledges.
    let remembered = past.known && past.next[o] == r.rcv_nxt;
    let held = if past.known && !remembered && held != OldState::Unknown && past.fin[o] {
        OldState::Unknown // It acknowledges bytes of some other life.
    } else {
        held
    };
    // Whoever sends data on it believes that the connection is alive.
    let held = if a.stale.is_none() && a.stale_data.is_some() { OldState::HalfOpen } else { held };
    let since_close = (past.known && past.closed_at.0 != 0 && held == OldState::TimeWait)
        .then(|| a.first.since(past.closed_at));
    let distance = a.isn.distance(r.rcv_nxt);
    let then = match (ended.outcome, a.stray_rst) {
        (Outcome::Accepted, _) => Fact::Str("recovered".into()),
        (Outcome::Refused, _) => Fact::Str("rst".into()),
        (Outcome::Aborted, _) => Fact::Str("gave_up".into()),
        (_, Some(_)) => Fact::Str("rst".into()),
        (Outcome::Unfinished, None) => Fact::Null,
        _ => Fact::Str("gave_up".into()),
    };
    let closed_first = past.closed_first.filter(|_| held != OldState::Unknown && past.known);
    let facts: Facts = vec![
        ("isn", Fact::U64(a.isn.0.into())),
        ("rcv_nxt", Fact::U64(r.rcv_nxt.0.into())),
        ("distance", Fact::I64(distance.into())),
        ("tsval", a.tsval.map_or(Fact::Null, |t| Fact::U64(t.into()))),
        ("ts_recent", ts_recent.map_or(Fact::Null, |t| Fact::U64(t.into()))),
        ("rule", if matches!(held, OldState::HalfOpen) { Fact::Null } else { rule.name() }),
        ("old_state", Fact::Str(held.name().into())),
        ("since_close_ms", since_close.map_or(Fact::Null, |ns| Fact::F64(ms(ns)))),
        ("closed_first", closed_first.map_or(Fact::Null, |end| Fact::Str(role_word(end, a.from).into()))),
        ("syns", Fact::U64(a.syns.into())),
        ("stale_acks", Fact::U64(a.stale_acks.into())),
        ("then", then),
    ];
    let consistent = match held {
        // Both challenge a SYN outside their window whatever the rule of TIME_WAIT says.
        OldState::HalfOpen | OldState::FinWait2 => true,
        _ => rule != Rule::None,
    };
    let certainty = match (remembered && held != OldState::Unknown, r.seen, consistent) {
        (true, true, true) => Certainty::Proven,
        (_, _, false) => Certainty::Possible,
        _ => Certainty::Likely,
    };
    let hurt = ended.outcome != Outcome::Accepted || ended.at.since(a.first) >= Nanos::SEC;
    let summary = summary(view, ended, &r, rule, held, since_close, ts_recent);
    Some(view.anomaly(
        a.from,
        Finding {
            kind: Kind::TupleReuseRefused,
            severity: if hurt { Severity::Error } else { Severity::Warning },
            verdict: Verdict::Originator,
            certainty,
            summary,
            first: a.first,
            time: ended.at,
            facts,
        },
    ))
}

#[allow(clippy::too_many_arguments)]
fn summary(
    view: &View<'_>,
    ended: &Ended,
    r: &Refusal,
    rule: Rule,
    held: OldState,
    since_close: Option<u64>,
    ts_recent: Option<u32>,
) -> String {
    let a = &ended.attempt;
    let responder = endpoint(view.tuple(a.from).dst);
    let what = match held {
        OldState::TimeWait => match since_close {
            Some(ns) => format!("still holds this tuple in TIME_WAIT, closed {} before", duration(ns)),
            None => "still holds this tuple in TIME_WAIT".to_owned(),
        },
        OldState::FinWait2 => "still holds this tuple in FIN_WAIT2 (the originator never closed)".to_owned(),
        OldState::HalfOpen => "believes that the tuple's previous connection is alive".to_owned(),
        OldState::Unknown => "still holds a previous connection of this tuple".to_owned(),
    };
    let why = why(rule, held, a, r.rcv_nxt, ts_recent);
    let answered = if r.seen && a.stale.is_none() {
        "data of that connection came instead of an answer".to_owned()
    } else if r.seen {
        format!("{} of {} SYNs were answered with the old connection's last ACK", a.stale_acks, a.syns)
    } else {
        "the old connection's last ACK shows in the originator's reset".to_owned()
    };
    let end = match (ended.outcome, a.stray_rst) {
        (Outcome::Accepted, _) => format!("opened after {}", duration(ended.at.since(a.first))),
        (Outcome::Refused, _) => "then the responder reset".to_owned(),
        (Outcome::Aborted, _) => {
            format!("the originator gave up after {}", duration(ended.at.since(a.first)))
        }
        (Outcome::Replaced, Some(_)) => {
            format!(
                "the originator reset that; {} after it began, another attempt took the tuple",
                duration(ended.at.since(a.first))
            )
        }
        (_, Some(_)) => "the originator reset that and sent no other SYN on this tuple".to_owned(),
        (Outcome::Unfinished, None) => "still unanswered when the capture ended".to_owned(),
        _ => format!("no further SYN after {}", duration(a.last.since(a.first))),
    };
    format!("SYN refused by {responder}, which {what}: {why}; {answered}; {end}")
}

/// Why the SYN was refused, from the responder's numbers.
fn why(rule: Rule, held: OldState, a: &Attempt, rcv_nxt: Seq, ts_recent: Option<u32>) -> String {
    let distance = a.isn.distance(rcv_nxt);
    let far = distance.unsigned_abs();
    match (rule, held) {
        (_, OldState::HalfOpen) => format!("it expects sequence {rcv_nxt}"),
        (Rule::IsnNotAfter, _) => {
            let stamps = match (a.tsval, ts_recent) {
                (Some(_), Some(_)) => "timestamps are equal",
                (None, None) => "there are no timestamps",
                (None, _) => "the SYN has no timestamp",
                (_, None) => "the old connection had no timestamps",
            };
            match distance {
                0 => format!("the new ISN is exactly the {rcv_nxt} it expects next and {stamps}"),
                _ => {
                    format!("the new ISN {} lies {far} before the {rcv_nxt} it expects and {stamps}", a.isn)
                }
            }
        }
        (Rule::TimestampOlder, _) => {
            let (val, recent) = (a.tsval.unwrap_or(0), ts_recent.unwrap_or(0));
            // They are compared as RFC 7323 has it: half of the numbers are older than any.
            let wrapped = if val > recent { " (modulo 2^32)" } else { "" };
            format!(
                "the SYN's timestamp {val} is {} older than the {recent} it has seen{wrapped}, so its ISN does not matter",
                recent.wrapping_sub(val)
            )
        }
        // No SYN is accepted there: one in the window is reset, and whatever its timestamp any other is challenged.
        (Rule::None, OldState::FinWait2) => {
            let side = if distance < 0 { "before" } else { "after" };
            format!("the new ISN {} lies {far} {side} the {rcv_nxt} it expects, outside its window", a.isn)
        }
        (Rule::None, _) => {
            format!("it expects sequence {rcv_nxt}, though its rule would have accepted this SYN")
        }
    }
}

/// `tuple_reuse_accepted`: the tuple was closed less than 60 s before, and the responder took it again.
///
/// Peers: tshark `reused_ports`; Suricata counter `flow.tcp_reuse`, `shutdown_syn_resend`; Zeek `premature_connection_reuse`,
/// `SYN_after_close`.
pub fn accepted(view: &View<'_>, ended: &Ended, syn_ack_seq: Option<Seq>) -> Option<Anomaly> {
    let (a, past) = (&ended.attempt, &ended.past);
    if ended.outcome != Outcome::Accepted || a.stale_acks > 0 || !past.known || past.closed_at.0 == 0 {
        return None;
    }
    let since = a.first.since(past.closed_at);
    let fins = past.fin[0] && past.fin[1];
    if since >= TIME_WAIT || !fins {
        return None;
    }
    let linux = syn_ack_seq.map(|s| s == past.next[a.from.other() as usize].add(LINUX_REUSE_STEP));
    let closed_first = past.closed_first.map_or("both at once", |end| role_word(end, a.from));
    Some(view.anomaly(
        a.from,
        Finding {
            kind: Kind::TupleReuseAccepted,
            severity: Severity::Info,
            verdict: Verdict::Unknown,
            certainty: Certainty::Proven,
            summary: format!(
                "tuple used again {} after its close ({closed_first} closed first), and accepted by {}",
                duration(since),
                endpoint(view.tuple(a.from).dst)
            ),
            first: a.first,
            time: ended.at,
            facts: vec![
                ("since_close_ms", Fact::F64(ms(since))),
                (
                    "closed_first",
                    past.closed_first.map_or(Fact::Null, |end| Fact::Str(role_word(end, a.from).into())),
                ),
                ("from_time_wait", linux.map_or(Fact::Null, Fact::Bool)),
            ],
        },
    ))
}

/// `syn_on_live_flow`: a SYN with another ISN on a flow that was not closed.
///
/// Peers: Zeek `active_connection_reuse`; Snort 129:1 "SYN on established"; Suricata `est_syn_resend_diff_seq`, `est_syn_toclient`.
pub fn on_live_flow(view: &View<'_>, ended: &Ended) -> Option<Anomaly> {
    let a = &ended.attempt;
    let (state, idle_ns) = a.on_live?;
    if a.stale_acks > 0 && ended.outcome != Outcome::OldLifeWentOn {
        return None; // Told as a refused reuse.
    }
    let answer = match ended.outcome {
        Outcome::Accepted => "syn_ack",
        Outcome::Refused => "rst",
        Outcome::OldLifeWentOn if a.stale_acks > 0 => "challenge_ack",
        _ => "none",
    };
    // A responder that answers with SYN-ACK had closed or forgotten the old life, only the end of it was not seen.
    let severity = if answer == "syn_ack" { Severity::Info } else { Severity::Warning };
    Some(view.anomaly(
        a.from,
        Finding {
            kind: Kind::SynOnLiveFlow,
            severity,
            verdict: Verdict::Originator,
            certainty: if answer == "syn_ack" { Certainty::Possible } else { Certainty::Likely },
            summary: format!(
                "SYN with a new ISN {} on a connection to {} that was {} and silent for {}; answer: {}",
                a.isn,
                endpoint(view.tuple(a.from).dst),
                state.name(),
                duration(idle_ns),
                answer.replace('_', " ")
            ),
            first: a.first,
            time: ended.at,
            facts: vec![
                ("state", Fact::Str(state.name().into())),
                ("idle_ms", Fact::F64(ms(idle_ns))),
                ("answer", Fact::Str(answer.into())),
            ],
        },
    ))
}

/// An end of the key as a role of the attempt that came `from` one of them.
fn role_word(end: Side, from: Side) -> &'static str {
    if end == from { "originator" } else { "responder" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the measured table: (tsval - ts_recent or none, isn - rcv_nxt) and whether TIME_WAIT accepts.
    #[test]
    fn the_rule_decides_each_cell_as_the_kernel_was_measured_to() {
        const NXT: Seq = Seq(0xffff_ff00);
        let at = |d: i64| Seq(NXT.0.wrapping_add(d as u32));
        for (ts, isn, expected) in [
            // Both have timestamps: newer accepts whatever the ISN.
            (Some(1), -76_936_438, Rule::None),
            (Some(1), 0, Rule::None),
            (Some(0x7fff_ffff), -1, Rule::None),
            // Equal: the ISN decides.
            (Some(0), 1, Rule::None),
            (Some(0), 0, Rule::IsnNotAfter),
            (Some(0), -1, Rule::IsnNotAfter),
            // Older: refused whatever the ISN.
            (Some(-1), 1_000_000, Rule::TimestampOlder),
            (Some(-1), -1_000_000, Rule::TimestampOlder),
            (Some(i32::MIN), 5, Rule::TimestampOlder),
            // Either lacks timestamps: the ISN decides.
            (None, -76_936_438, Rule::IsnNotAfter),
            (None, 0, Rule::IsnNotAfter),
            (None, 1, Rule::None),
            (None, 1 << 31, Rule::None),
            (None, (1 << 31) + 1, Rule::IsnNotAfter),
        ] {
            const RECENT: u32 = 0xffff_fff0;
            let tsval = ts.map(|d: i32| RECENT.wrapping_add(d as u32));
            assert_eq!(Rule::of(at(isn), NXT, tsval, ts.map(|_| RECENT)), expected, "ts {ts:?} isn {isn}");
            if ts.is_none() {
                assert_eq!(
                    Rule::of(at(isn), NXT, Some(7), None),
                    expected,
                    "only the SYN has one, isn {isn}"
                );
                assert_eq!(
                    Rule::of(at(isn), NXT, None, Some(7)),
                    expected,
                    "only the old life had one, isn {isn}"
                );
            }
        }
    }

    #[test]
    fn a_responder_in_fin_wait2_is_never_said_to_accept_what_lies_outside_its_window() {
        const NXT: Seq = Seq(5_000);
        let why_of = |isn, tsval, held| {
            let a = Attempt { isn: Seq(isn), tsval, ..Attempt::default() };
            let recent = tsval.map(|_| 10);
            why(Rule::of(a.isn, NXT, tsval, recent), held, &a, NXT, recent)
        };
        assert_eq!(
            why_of(1_005_000, None, OldState::FinWait2),
            "the new ISN 1005000 lies 1000000 after the 5000 it expects, outside its window"
        );
        assert_eq!(
            why_of(4_000, Some(11), OldState::FinWait2),
            "the new ISN 4000 lies 1000 before the 5000 it expects, outside its window"
        );
        // In TIME_WAIT these would have been accepted, so something else answered.
        assert!(why_of(4_000, Some(11), OldState::TimeWait).contains("would have accepted"));
    }
}
