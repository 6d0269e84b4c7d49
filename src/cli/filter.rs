//! Which records: the filters of `show`, `replay` and all that reads records.

use std::net::IpAddr;

use clap::Args;

use super::Fail;
use super::net::{Net, parse_net};
use super::values::span_of_time;
use crate::detect::{Certainty, Kind, Severity, Verdict};
use crate::record::{ConnectionRecord, FIGURES, Record};
use crate::report::Line;
use crate::wire::Nanos;

/// Which records, of those that come.
#[derive(Clone, Debug, Default, Args)]
pub struct Choice {
    /// Kinds: commas and repeats add more (`syntap explain` lists them; `figures` is what else is stored: counts and latencies).
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = parse_kind)]
    kind: Vec<&'static str>,

    /// At least this severe: info, warning, error.
    #[arg(long, value_name = "SEVERITY", value_parser = parse_severity)]
    severity: Option<Severity>,

    /// Whose doing: responder, originator, gateway, network, middlebox, unknown.
    #[arg(long, value_name = "WHO", value_delimiter = ',', value_parser = parse_verdict)]
    verdict: Vec<Verdict>,

    /// At least this certain: possible, likely, proven.
    #[arg(long, value_name = "CERTAINTY", value_parser = parse_certainty)]
    certainty: Option<Certainty>,

    /// Addresses or address:port that must be an end of the tuple; each one given must be there.
    #[arg(long, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = parse_end)]
    tuple: Vec<(IpAddr, Option<u16>)>,

    /// Nets (10.0.0.0/8, 2001:db8::/32) of which one must hold an end of the tuple.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = parse_net)]
    net: Vec<Net>,

    /// Community ID.
    #[arg(long, value_name = "ID", value_parser = parse_community_id)]
    community_id: Option<String>,
}

/// Which records, of those that are there.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    #[command(flatten)]
    choice: Choice,

    /// Interfaces where it was seen: commas and repeats add more.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    interface: Vec<String>,

    /// From this time on: RFC 3339, a date (its midnight, UTC), or how long ago (30s, 10m, 2h, 3d).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Nanos>,

    /// Until this time, likewise.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Nanos>,
}

impl From<Choice> for Filter {
    fn from(choice: Choice) -> Filter {
        Filter { choice, ..Filter::default() }
    }
}

/// What a record is asked.
struct Asked<'a> {
    kind: &'a str,
    severity: &'a str,
    verdict: &'a str,
    certainty: &'a str,
    src: Option<(IpAddr, u16)>,
    dst: Option<(IpAddr, u16)>,
    interface: Option<&'a str>,
    community_id: Option<&'a str>,
    time: (u64, u64),
}

fn parse_kind(name: &str) -> Result<&'static str, Fail> {
    let kind = Kind::from_name(name).map(Kind::name);
    kind.or((name == FIGURES).then_some(FIGURES))
        .ok_or_else(|| Fail::new("no such kind").hint(super::explain::near(name)))
}

fn parse_community_id(text: &str) -> Result<String, Fail> {
    // SHA-1 in base64.
    let is_hash = |hash: &str| {
        let digits = hash.strip_suffix('=').unwrap_or_default();
        digits.len() == 27 && digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
    };
    match text.strip_prefix("1:") {
        Some(hash) if is_hash(hash) => Ok(text.to_owned()),
        _ => Err(Fail::new("no Community ID")
            .hint("write it as records have it: 1: and 28 characters, the last of them =")),
    }
}

fn parse_severity(name: &str) -> Result<Severity, String> {
    Severity::from_name(name).ok_or_else(|| "one of info, warning, error".into())
}

fn parse_verdict(name: &str) -> Result<Verdict, String> {
    Verdict::from_name(name)
        .ok_or_else(|| "one of responder, originator, gateway, network, middlebox, unknown".into())
}

fn parse_certainty(name: &str) -> Result<Certainty, String> {
    Certainty::from_name(name).ok_or_else(|| "one of possible, likely, proven".into())
}

fn parse_end(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((ip, None));
    }
    let end = text.parse::<std::net::SocketAddr>();
    end.map(|e| (e.ip(), Some(e.port()))).map_err(|_| "an address, address:port or [address]:port".into())
}

impl Filter {
    /// True if the record passes.
    pub fn passes(&self, r: &Record) -> bool {
        self.passes_all(&Asked {
            kind: &r.kind,
            severity: &r.severity,
            verdict: &r.verdict,
            certainty: &r.certainty,
            src: r.src_ip.zip(r.src_port),
            dst: r.dst_ip.zip(r.dst_port),
            interface: r.interface.as_deref(),
            community_id: r.community_id.as_deref(),
            time: (r.first_ns, r.last_ns),
        })
    }

    /// True if the record passes, for a report: figures of the chosen time belong to it unless something else than a time is chosen,
    /// for they are of all connections.
    pub fn passes_line(&self, r: &Line<'_>) -> bool {
        let time = (r.first_ns, r.last_ns);
        if r.kind.0 == FIGURES {
            let chosen = Filter { since: None, until: None, ..self.clone() };
            return chosen.given().is_none() && self.is_within(time.0, time.1);
        }
        self.passes_all(&Asked {
            kind: &r.kind.0,
            severity: &r.severity.0,
            verdict: &r.verdict.0,
            certainty: &r.certainty.0,
            src: r.src_ip.zip(r.src_port),
            dst: r.dst_ip.zip(r.dst_port),
            interface: r.interface.as_ref().map(|i| i.0.as_ref()),
            community_id: r.community_id.as_ref().map(|c| c.0.as_ref()),
            time,
        })
    }

    fn passes_all(&self, r: &Asked<'_>) -> bool {
        // Figures are thousands a day: shown to those who ask for them.
        (self.choice.kind.contains(&r.kind) || self.choice.kind.is_empty() && r.kind != FIGURES)
            && self.choice.severity.is_none_or(|s| Severity::from_name(r.severity).is_some_and(|x| x >= s))
            && (self.choice.verdict.is_empty() || self.choice.verdict.iter().any(|v| v.name() == r.verdict))
            && self.choice.certainty.is_none_or(|c| Certainty::from_name(r.certainty).is_some_and(|x| x >= c))
            && self.is_end_of(r.src, r.dst)
            && self.is_in_net(r.src, r.dst)
            && self.is_at(r.interface)
            && self.choice.community_id.as_deref().is_none_or(|id| r.community_id == Some(id))
            && self.is_within(r.time.0, r.time.1)
    }

    /// True if the connection passes: by its ends and its time.
    pub fn passes_connection(&self, c: &ConnectionRecord) -> bool {
        let (src, dst) = (Some((c.src_ip, c.src_port)), Some((c.dst_ip, c.dst_port)));
        self.is_end_of(src, dst)
            && self.is_in_net(src, dst)
            && self.is_at(Some(&c.interface))
            && self.choice.community_id.as_ref().is_none_or(|id| c.community_id == *id)
            && self.is_within(c.first_ns, c.last_ns)
    }

    /// An error where nothing can pass.
    pub fn makes_sense(&self) -> Result<(), Fail> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since > until => Err(Fail::new("--since is later than --until")
                .hint("30s, 10m, 2h, 3d are how long ago: --since 2h --until 1h")),
            _ => Ok(()),
        }
    }

    /// The first option given that a connection, which is no anomaly, cannot be asked for.
    pub fn of_anomalies_only(&self) -> Option<&'static str> {
        let given = [
            (!self.choice.kind.is_empty(), "--kind"),
            (self.choice.severity.is_some(), "--severity"),
            (!self.choice.verdict.is_empty(), "--verdict"),
            (self.choice.certainty.is_some(), "--certainty"),
        ];
        given.into_iter().find(|g| g.0).map(|g| g.1)
    }

    /// The first option given.
    pub fn given(&self) -> Option<&'static str> {
        let others = [
            (!self.choice.tuple.is_empty(), "--tuple"),
            (!self.choice.net.is_empty(), "--net"),
            (!self.interface.is_empty(), "--interface"),
            (self.choice.community_id.is_some(), "--community-id"),
            (self.since.is_some(), "--since"),
            (self.until.is_some(), "--until"),
        ];
        self.of_anomalies_only().or_else(|| others.into_iter().find(|g| g.0).map(|g| g.1))
    }

    /// What was asked for beside a time, as options; empty if nothing.
    pub fn words(&self) -> String {
        let list =
            |name: &str, all: Vec<String>| (!all.is_empty()).then(|| format!("--{name} {}", all.join(",")));
        let end = |(ip, port): &(IpAddr, Option<u16>)| match port {
            Some(port) => std::net::SocketAddr::new(*ip, *port).to_string(),
            None => ip.to_string(),
        };
        let words = [
            list("kind", self.choice.kind.iter().map(|k| (*k).to_owned()).collect()),
            list("severity", self.choice.severity.iter().map(|s| s.name().to_owned()).collect()),
            list("verdict", self.choice.verdict.iter().map(|v| v.name().to_owned()).collect()),
            list("certainty", self.choice.certainty.iter().map(|c| c.name().to_owned()).collect()),
            list("tuple", self.choice.tuple.iter().map(end).collect()),
            list("net", self.choice.net.iter().map(Net::to_string).collect()),
            list("interface", self.interface.clone()),
            list("community-id", self.choice.community_id.iter().cloned().collect()),
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// Whether figures of this time and place are of what was asked for. They are of all connections there.
    pub fn passes_figures(&self, r: &Record) -> bool {
        self.is_at(r.interface.as_deref()) && self.is_within(r.first_ns, r.last_ns)
    }

    /// The option of time that was given, if one was.
    pub fn of_time(&self) -> Option<&'static str> {
        self.since.map(|_| "--since").or(self.until.map(|_| "--until"))
    }

    fn is_end_of(&self, src: Option<(IpAddr, u16)>, dst: Option<(IpAddr, u16)>) -> bool {
        let is = |end: Option<(IpAddr, u16)>, (ip, port): &(IpAddr, Option<u16>)| {
            end.is_some_and(|e| e.0 == *ip && port.is_none_or(|p| e.1 == p))
        };
        self.choice.tuple.iter().all(|e| is(src, e) || is(dst, e))
    }

    fn is_in_net(&self, src: Option<(IpAddr, u16)>, dst: Option<(IpAddr, u16)>) -> bool {
        let holds = |net: &Net| [src, dst].into_iter().flatten().any(|(ip, _)| net.holds(ip));
        self.choice.net.is_empty() || self.choice.net.iter().any(holds)
    }

    fn is_at(&self, interface: Option<&str>) -> bool {
        self.interface.is_empty() || interface.is_some_and(|at| self.interface.iter().any(|i| i == at))
    }

    /// The time that records must touch, ns since the epoch.
    pub fn within(&self) -> (u64, u64) {
        (self.since.map_or(0, |t| t.0), self.until.map_or(u64::MAX, |t| t.0))
    }

    fn is_within(&self, first_ns: u64, last_ns: u64) -> bool {
        self.since.is_none_or(|t| last_ns >= t.0) && self.until.is_none_or(|t| first_ns <= t.0)
    }
}

/// RFC 3339, a date or a time without a zone (UTC), or a length of time before now.
fn parse_time(text: &str) -> Result<Nanos, Fail> {
    let text = text.trim();
    let epoch = |t: jiff::Timestamp| u64::try_from(t.as_nanosecond()).ok().map(Nanos);
    let utc = |t: jiff::civil::DateTime| t.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp());
    let time = text
        .parse::<jiff::Timestamp>()
        .ok()
        .or_else(|| text.parse::<jiff::civil::DateTime>().ok().and_then(utc))
        .or_else(|| text.parse::<jiff::civil::Date>().ok().and_then(|d| utc(d.at(0, 0, 0, 0))))
        .or_else(|| jiff::Timestamp::now().checked_sub(ago(text)?).ok())
        .and_then(epoch);
    time.ok_or_else(|| {
        Fail::new("no time that can be read")
            .hint("write 2026-11-24, 2026-11-24T14:17:52Z, or how long ago: 30s, 10m, 2h, 3d")
    })
}

/// `10m`, `1h30m`, `2h ago`.
fn ago(text: &str) -> Option<jiff::SignedDuration> {
    span_of_time(text.strip_suffix("ago").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_a_moment_or_some_time_ago() {
        let at = |text: &str| parse_time(text).unwrap_or_else(|e| panic!("{text}: {e}")).0 / 1_000_000_000;
        assert_eq!(at("2026-11-24"), 1_795_478_400);
        assert_eq!(at("2026-11-24T14:17:52Z"), 1_795_529_872);
        assert_eq!(at("2026-11-24T15:17:52+01:00"), 1_795_529_872);
        assert_eq!(at("2026-11-24 14:17:52"), 1_795_529_872);
        let now = jiff::Timestamp::now().as_second() as u64;
        for (text, seconds) in [("10m", 600), ("2h", 7_200), ("2h ago", 7_200), ("1d 30s", 86_430), ("0s", 0)]
        {
            assert!(at(text).abs_diff(now - seconds) <= 2, "{text}");
        }
        for nonsense in ["", "soon", "10", "m", "10x", "ago", "-5m", "2026-13-01", "99999999999999999999d"] {
            let said = parse_time(nonsense).expect_err(nonsense).to_string();
            assert!(said.contains("\nhint: "), "{nonsense}: {said}");
        }
    }
}
