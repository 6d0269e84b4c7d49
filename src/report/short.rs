//! The report in a few sentences: each cause once, in words that need no manual, with what to do about it.
//!
//! What follows from another cause has no sentence of its own: a record that names it (`link`), a kind that is nothing but
//! its sign, a reset on the very responder whose translation was lost or which the gateway reset. It is listed, never left out.

use std::fmt::Display;
use std::hash::Hash;

use super::{Cause, Ranked, Report, Top};
use crate::detect::explain::explain;
use crate::detect::{Kind, Verdict};

/// More sentences than this are no short answer.
pub const SENTENCES: usize = 6;

/// A cause in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The cause's kind.
    pub kind: Kind,
    /// What happened, and what to do.
    pub text: String,
}

/// Causes in sentences, and what came of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Short {
    /// One for each cause, the worst first.
    pub sentences: Vec<Sentence>,
    /// Kinds that follow from those causes, with their counts.
    pub consequences: Vec<(Kind, u64)>,
    /// Causes for which there was no room.
    pub more: usize,
}

impl Short {
    /// Of all that is above info, losses of syntap itself apart.
    pub fn of(report: &Report) -> Short {
        let ranked = report.ranked();
        let causes: Vec<&Cause> = ranked.iter().map(|r| r.cause).collect();
        let mut short = Short::default();
        for Ranked { cause: c, follows, .. } in ranked {
            if follows.is_some() {
                short.consequences.push((c.kind, c.count));
            } else if short.sentences.len() < SENTENCES {
                let (what, cure) = told(c, &causes);
                short.sentences.push(Sentence { kind: c.kind, text: format!("{what}: {cure}.") });
            } else {
                short.more += 1;
            }
        }
        short
    }
}

/// True if all of `c` is part of the trouble `root`: its sign, or what set it off.
pub(super) fn follows(c: &Cause, root: &Cause) -> bool {
    let sign = matches!(
        (c.kind, root.kind),
        (Kind::NatPortPressure, Kind::TupleReuseRefused)
            | (Kind::UntranslatedPacket | Kind::NatRemapped, Kind::NatMappingLost)
            | (Kind::MacMoved, Kind::ArpTwoAnswers | Kind::AddressConflict)
            | (Kind::AddressFlapping | Kind::MacChangedInFlow, Kind::AddressConflict)
    );
    let own_flows = match (c.kind, root.kind) {
        (Kind::ResetByGateway, Kind::NatMappingLost) => {
            c.count <= root.count || c.responders.names().all(|r| root.responders.has(r))
        }
        (
            Kind::ResetMidFlow | Kind::ResetIgnored | Kind::BlackHole,
            Kind::NatMappingLost | Kind::ResetByGateway,
        ) => !c.responders.is_empty() && c.responders.names().all(|r| root.responders.has(r)),
        (Kind::NextHopChanged, Kind::NatMappingLost) => c.count <= root.count && just_before(c, root),
        (Kind::FrameLoop, Kind::ArpTwoAnswers) => {
            !c.responders.is_empty() && c.responders.names().all(|r| root.subjects.has(&r.ip().to_string()))
        }
        _ => false,
    };
    let tied = c.linked.count_of(root.kind.name());
    sign || own_flows || (tied > 0 && tied == c.count)
}

/// What came first and may have led to the other within this time, ns: an ARP entry is asked for anew after some 30 s.
const LEADS_TO: u64 = 60_000_000_000;

fn just_before(c: &Cause, root: &Cause) -> bool {
    // The incident's first sign can be the very packet that went to the old address.
    c.first_ns.saturating_sub(root.first_ns) <= LEADS_TO
        && root.first_ns.saturating_sub(c.first_ns) <= LEADS_TO
}

/// The first of them, and how many others there are.
fn named<K: Clone + Eq + Hash + Ord + Display>(top: &Top<K>) -> String {
    let (rows, _) = top.rows(1);
    let Some((first, _)) = rows.first() else { return "several places".into() };
    match top.len() - 1 {
        0 => first.to_string(),
        1 => format!("{first} and another one"),
        n => format!("{first} and {n} others"),
    }
}

/// What happened, and what to do about it.
pub(super) fn told(c: &Cause, all: &[&Cause]) -> (String, String) {
    let n = c.connections();
    let many = |one: &str, more: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {more}") };
    let at = named(&c.responders);
    let mostly = c.mostly();
    let by_gateway = mostly == Verdict::Gateway;
    let of_gateway = |o: &Cause| o.verdicts().iter().any(|v| v.0 == Verdict::Gateway);
    let reuse_too = all.iter().any(|o| o.kind == Kind::TupleReuseRefused && of_gateway(o));
    let (what, cure): (String, &str) = match c.kind {
        Kind::TupleReuseRefused => {
            let clients = c.verdicts().iter().find(|v| v.0 == Verdict::Originator).map_or(0, |v| v.1);
            let (who, cure) = if by_gateway {
                let others = match clients {
                    0 => String::new(),
                    n => format!(
                        " (in {n} of {} sightings the client did so itself: `syntap show --kind tuple_reuse_refused --verdict originator`)",
                        c.count
                    ),
                };
                (
                    format!("the gateway passes its few source ports on too early{others}"),
                    "keep connections open between requests, or give the gateway more ports or addresses towards that server",
                )
            } else {
                (
                    "the clients take their source ports again too early".to_owned(),
                    "keep connections open between requests, or let the clients close first",
                )
            };
            let refused = many("new connection", "new connections");
            let what = format!(
                "{at} refused {refused} because it had not yet forgotten the last one from the same address and port: {who}"
            );
            (what, cure)
        }
        Kind::SnatCollision => {
            let cure = if reuse_too {
                "give it more outside addresses first (SNAT to a range of them), then add --random-fully: with few ports that alone makes early reuse worse"
            } else {
                "add --random-fully to its MASQUERADE or SNAT rule"
            };
            let what = format!(
                "The gateway dropped {} to {at}, a second's wait each time, because two clients used one source port at the \
                 same moment and it gave both the same port outside",
                many("SYN", "SYNs")
            );
            (what, cure)
        }
        Kind::NatMappingLost => {
            let [_, likely, proven] = c.certainties;
            if likely + proven == 0 {
                let what = format!(
                    "The gateway reset {} to {at}: it lost their translation, or a rule of its own rejects with a reset",
                    many("open connection", "open connections")
                );
                let cure =
                    "look for such a rule first; with --conntrack on the gateway syntap tells the two apart";
                return (what, cure.to_owned());
            }
            let hurt = if n == 1 { "it hangs or is reset" } else { "they hang or are reset" };
            let (why, cure) = mapping_lost(c, all);
            let lost = many("open connection", "open connections");
            return (format!("The gateway lost the translation of {lost} to {at}{why}, and {hurt}"), cure);
        }
        Kind::ArpTwoAnswers => return two_answers(c, all),
        Kind::AddressConflict => (
            format!(
                "Two machines ({}) use the address {}, and connections reach one or the other by chance",
                c.fact_list("macs").join(" and "),
                named(&c.subjects)
            ),
            "take it off one of them",
        ),
        Kind::SnatPortsExhausted => (
            format!(
                "The gateway has no port left towards {at}, so {} failed",
                many("connection", "connections")
            ),
            "give it more ports or addresses",
        ),
        Kind::SynLostInGateway => {
            let (why, cure) = if table_was_full(c) {
                (
                    ", as its connection tracking had no room for another entry",
                    "raise net.netfilter.nf_conntrack_max there, or find what fills its table (`conntrack -L`); `dmesg` says \"table full\"",
                )
            } else {
                ("", "look at its firewall rules and queues")
            };
            let lost = many("SYN", "SYNs");
            (format!("The gateway took {lost} to {at} in and did not send them on{why}"), cure)
        }
        Kind::SynRefused if by_gateway => (
            format!("The gateway itself refused {} to {at} and did not send them on", many("SYN", "SYNs")),
            "look for the rule of its firewall that rejects them",
        ),
        Kind::ResetMidFlow if by_gateway => (
            format!("The gateway itself reset {} to {at}", many("open connection", "open connections")),
            "look for the rule of its firewall that rejects their packets, and whether its connection tracking had forgotten them",
        ),
        Kind::SynUnanswered if mostly == Verdict::Network => (
            format!("{} to {at} left the gateway and got no answer in time", many("SYN", "SYNs")),
            "look for the loss beyond the gateway, not in it",
        ),
        _ => {
            let text = explain(c.kind);
            let times = if n == 1 { "once".to_owned() } else { format!("{n} times") };
            let at = if c.responders.is_empty() { String::new() } else { format!(", at {at}") };
            let what = format!("{} ({times}{at})", text.one_line.trim_end_matches('.'));
            (what, text.remedy.first().copied().unwrap_or(""))
        }
    };
    (what, cure.to_owned())
}

/// True if the kernel dropped packets for want of an entry when the SYN was lost. It counts a collision under both names
/// (`nf_ct_resolve_clash()`), and under `drop` alone what it could make no entry for (`nf_conntrack_in()`): with a full table, or without
/// memory.
fn table_was_full(c: &Cause) -> bool {
    c.fact_number("drop_delta") > c.fact_number("insert_failed_delta")
}

/// Two ports that answer for one machine.
fn two_answers(c: &Cause, all: &[&Cause]) -> (String, String) {
    let ports = c.fact_list("interfaces");
    let two = if ports.len() > 1 { format!(" ({})", ports.join(" and ")) } else { String::new() };
    let tied = all.iter().filter(|o| follows(o, c) && o.kind == Kind::SynUnanswered);
    let silent = match tied.map(|o| o.connections()).max().unwrap_or(c.fact_number("silent_flows")) {
        0 => "will be out of reach".to_owned(),
        1 => "is out of reach, as it was for 1 connection".to_owned(),
        n => format!("is out of reach, as it was for {n} connections"),
    };
    let address = named(&c.subjects);
    let mac = c.fact_text("mac").map_or_else(String::new, |mac| format!(" with its MAC address {mac}"));
    let what = format!(
        "Two ports of one bridge{two} answer ARP for {address}{mac}: the machine itself, and a proxy in its stead; whenever the \
         bridge follows the proxy that machine {silent}"
    );
    // A VXLAN device with `proxy` as a rule. What it is called is the only sign of which of them that is.
    let one = c.subjects.len() == 1;
    let mut tunnels = ports.iter().filter(|p| p.starts_with("vx"));
    let device = tunnels.next().filter(|_| tunnels.next().is_none()).copied().unwrap_or("DEVICE");
    let address = if one { address } else { "ADDRESS".into() };
    let cure = format!(
        "take its entry out of the proxy, where it stays until somebody does (`ip neigh del {address} dev {device}` on the tapped host), let \
         the machine send something, from which the bridge learns its port again, and find what wrote the entry"
    );
    (what, cure)
}

/// Why a translation was lost, as far as the record or another one says, and what to do about it.
fn mapping_lost(c: &Cause, all: &[&Cause]) -> (String, String) {
    let (why, cure) = mapping_lost_by(c, all);
    // Its responder has given it up.
    let dead = c.fact_number("gateway_resets") > 0;
    (why, if dead { cure + "; what is hit does not recover: its client must connect anew" } else { cure })
}

fn mapping_lost_by(c: &Cause, all: &[&Cause]) -> (String, String) {
    let before = c.fact_text("mac_before");
    let bridge = before.is_some() && before != c.fact_text("mac_after");
    let hop = all.iter().find(|o| o.kind == Kind::NextHopChanged && follows(o, c));
    match c.fact_text("path") {
        _ if bridge || hop.is_some() => {
            // The interface that was seen to change is the bridge, or lies behind it. Any address that is set stays; the present one
            // disturbs nobody.
            let of = hop.filter(|o| o.interfaces.len() == 1).map(|o| named(&o.interfaces));
            let mac = c.fact_text("mac_after").or_else(|| hop?.fact_text("after"));
            let cure = match (of, mac) {
                (Some(bridge), Some(mac)) => format!(
                    "give the bridge {bridge} a MAC address of its own, the present one for instance (`ip link set {bridge} address {mac}`)"
                ),
                (Some(bridge), None) => format!("give the bridge {bridge} a MAC address of its own"),
                (None, _) => "give the bridge a MAC address of its own".into(),
            };
            let port = hop.and_then(|o| Some((o.fact_text("port")?, o.fact("port_left")?.as_bool()?)));
            let port = match port {
                Some((name, true)) => format!(" as {name} left it"),
                Some((name, false)) => format!(" as {name} joined it"),
                None => String::new(),
            };
            let why = format!(
                " when its bridge took another MAC address{port}, for what is still sent to the old one goes the bridge's own way, \
                 without translation"
            );
            (why, cure)
        }
        Some("uplink") => {
            (" when its uplink changed".into(), "close such connections when the uplink changes".into())
        }
        Some("flush") => (
            " because their entries were deleted".into(),
            "find what deletes them (`conntrack -E -e DESTROY`)".into(),
        ),
        _ => (String::new(), "see `syntap explain nat_mapping_lost`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::tool::{Gap, Unit, capture_gap};
    use crate::record::{Context, Record};
    use crate::wire::Nanos;

    fn record(kind: Kind, responder: &str, role: &str, facts: serde_json::Value) -> Record {
        let gap = Gap {
            cause: "ring_full",
            source: "r",
            first: Nanos(1),
            last: Nanos(2),
            count: Some(1),
            unit: Unit::Packets,
        };
        let mut r = Record::from_anomaly(&capture_gap(&gap), &Context::default(), None);
        (r.kind, r.severity, r.verdict) = (kind.name().into(), "warning".into(), "gateway".into());
        r.role = (!role.is_empty()).then(|| role.to_owned());
        if let Ok(at) = responder.parse::<std::net::SocketAddr>() {
            (r.dst_ip, r.dst_port) = (Some(at.ip()), Some(at.port()));
        }
        r.facts = facts.as_object().expect("facts").clone();
        r
    }

    fn short(records: Vec<Record>) -> Short {
        let mut report = Report::default();
        records.iter().for_each(|r| report.add(r));
        Short::of(&report)
    }

    #[test]
    fn each_cause_is_a_sentence_and_its_signs_are_not() {
        use serde_json::json;
        let duel = json!({ "request": "10.0.0.3", "interfaces": ["vB1", "vxlan1"], "silent_flows": 5 });
        let s = short(vec![
            record(Kind::TupleReuseRefused, "192.0.2.1:80", "inside", json!({})),
            record(Kind::TupleReuseRefused, "192.0.2.1:80", "outside", json!({})),
            record(Kind::NatPortPressure, "", "outside", json!({})),
            record(Kind::SnatCollision, "192.0.2.1:80", "inside", json!({})),
            record(
                Kind::NatMappingLost,
                "192.0.2.1:6783",
                "",
                json!({ "mac_before": "a", "mac_after": "b" }),
            ),
            record(Kind::ResetMidFlow, "192.0.2.1:6783", "outside", json!({})),
            record(Kind::NextHopChanged, "", "inside", json!({ "before": "a", "after": "b" })),
            record(Kind::ArpTwoAnswers, "", "", duel),
            record(Kind::SynUnanswered, "10.0.0.3:80", "", json!({ "link": "arp_two_answers" })),
            record(Kind::FrameLoop, "10.0.0.3:80", "", json!({})),
        ]);
        assert_eq!(s.sentences.len(), 4, "{s:#?}");
        for words in [
            "192.0.2.1:80 refused 1 new connection because",
            "--random-fully",
            "give the bridge a MAC address of its own",
            "(vB1 and vxlan1) answer ARP for 10.0.0.3: the machine itself, and a proxy in its stead; whenever the bridge follows \
             the proxy that machine is out of reach, as it was for 1 connection: take its entry out of the proxy, where it stays until \
             somebody does (`ip neigh del 10.0.0.3 dev vxlan1` on the tapped host)",
        ] {
            assert_eq!(s.sentences.iter().filter(|t| t.text.contains(words)).count(), 1, "{words}: {s:#?}");
        }
        assert_eq!(s.consequences.len(), 5, "{s:#?}");
    }

    #[test]
    fn a_reset_by_the_gateway_is_a_lost_translation_only_where_that_is_shown() {
        use serde_json::json;
        let reset = || record(Kind::ResetByGateway, "192.0.2.1:80", "outside", json!({}));
        let ignored = || record(Kind::ResetIgnored, "192.0.2.1:80", "outside", json!({}));
        let lost = |certainty: &str| {
            let mut r = record(Kind::NatMappingLost, "192.0.2.1:80", "inside", json!({}));
            r.certainty = certainty.to_owned().into();
            r
        };
        let texts = |records| short(records).sentences.into_iter().map(|s| s.text).collect::<Vec<_>>();
        let alone = texts(vec![reset(), ignored()]);
        assert_eq!(alone.len(), 1, "{alone:#?}");
        assert!(alone[0].contains("look for a rule on it that rejects with a reset"), "{alone:#?}");
        let possible = texts(vec![reset(), lost("possible"), ignored()]);
        assert_eq!(possible.len(), 1, "{possible:#?}");
        assert!(
            possible[0].contains("or a rule of its own rejects with a reset: look for such a rule first"),
            "{possible:#?}"
        );
        let proven = texts(vec![reset(), lost("proven"), ignored()]);
        assert!(
            proven.len() == 1 && proven[0].starts_with("The gateway lost the translation"),
            "{proven:#?}"
        );
        // One of another responder's explains nothing.
        let other = record(Kind::NatMappingLost, "192.0.2.9:80", "inside", json!({}));
        assert_eq!(texts(vec![reset(), reset(), other]).len(), 2);
    }

    #[test]
    fn syns_lost_to_a_full_table_of_connections_are_told_so() {
        use serde_json::json;
        let text = |failed: u64, dropped: Option<u64>| {
            let facts = json!({ "insert_failed_delta": failed, "drop_delta": dropped });
            short(vec![record(Kind::SynLostInGateway, "192.0.2.1:80", "inside", facts)])
                .sentences
                .remove(0)
                .text
        };
        assert!(text(0, Some(25)).contains("net.netfilter.nf_conntrack_max"), "{}", text(0, Some(25)));
        for (failed, dropped) in [(0, Some(0)), (0, None), (25, Some(25))] {
            assert!(
                text(failed, dropped).contains("look at its firewall rules and queues"),
                "{failed} {dropped:?}"
            );
        }
    }

    #[test]
    fn what_follows_from_nothing_known_is_a_cause_of_its_own() {
        use serde_json::json;
        let s = short(vec![
            record(Kind::NatMappingLost, "192.0.2.1:6783", "", json!({})),
            record(Kind::ResetMidFlow, "192.0.2.1:80", "", json!({})),
            record(Kind::FrameLoop, "10.0.0.3:80", "", json!({})),
        ]);
        assert_eq!((s.sentences.len(), s.consequences.len()), (3, 0), "{s:#?}");
        // And the rest is counted.
        let s = short(Kind::ALL.iter().map(|&k| record(k, "192.0.2.1:80", "", json!({}))).collect());
        assert_eq!(s.sentences.len(), SENTENCES);
        assert!(
            s.more > 20 && s.sentences.iter().all(|t| t.text.ends_with('.') && !t.text.contains("  ")),
            "{s:#?}"
        );
    }
}
