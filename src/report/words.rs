//! Packets in tcpdump's words, facts and times for people.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::OwnLoss;
use crate::record::{PacketRecord, Record, rfc3339};
use crate::wire::Nanos;

/// A count stops here: no honest one comes near, and a few hundred of them can still be added up.
const MOST: u64 = 1 << 55;

/// What a report's words mean.
pub const WORDS: &[(&str, &str)] = &[
    ("originator, responder", "the end that sent the first SYN, and the end that it was sent to"),
    (
        "tuple",
        "address and port of both ends; a connection is known by it, and it can be used again for another one",
    ),
    ("ISN", "the sequence number that a connection begins with"),
    (
        "TIME_WAIT",
        "for 60 s after a close the end that closed first goes on knowing the tuple, to tell late packets of that connection from a new one",
    ),
    (
        "inside, outside",
        "the sides of the tapped gateway: where the originators are, and where it translates to",
    ),
    (
        "hurt",
        "connections that failed, were reset or opened late, by milliseconds (a refused SYN that was tried again on another port) or \
         by seconds, as far as records tell; seen at several places one is counted once; one that two causes hurt counts for both",
    ),
    (
        "took, for",
        "an attempt took from its first SYN to its SYN-ACK; a connection was hurt for as long as its originator waited, by however many attempts",
    ),
    ("times", "sightings: each interface at which one was seen counts, and a record may stand for many"),
    (
        "attempt, failed",
        "the SYNs of one tuple with one ISN; an attempt that was refused, given up or replaced by another, and not answered after all. A gateway that \
         tries again on another port makes two attempts outside of one inside",
    ),
    ("whose doing", "the end or device at which the cause is; not always the one that sent the packet"),
    ("network", "a doing of neither end nor the gateway: what is between, or the segment itself"),
    ("middlebox", "a device in between that answers or changes packets"),
    (
        "proven, likely, possible",
        "no other cause makes these packets; other causes are unusual; there are others",
    ),
    ("part of", "the same trouble as that cause: a sign of it, or what set it off; it goes away with it"),
    ("p95, p99", "what 95 or 99 of 100 did not exceed"),
];

/// Adds to a count whatever a record claims.
pub(super) fn plus(sum: &mut u64, n: u64) {
    *sum = sum.saturating_add(n).min(MOST);
}

/// A moment to the second.
pub fn time(ns: u64) -> String {
    rfc3339(Nanos(ns / Nanos::SEC * Nanos::SEC)).replace(".000000000", "")
}

/// Seconds as people say a stretch of time, cut to whole units.
pub(super) fn span_words(s: u64) -> String {
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} days", s / 86_400),
    }
}

/// That records were written with filters; `None` if they were not.
pub fn chosen_words(filters: &BTreeSet<String>) -> Option<String> {
    let list = filters.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
    let text = format!(
        "Recorded with filters ({list}): what did not pass them is not here, and its absence means nothing."
    );
    (!filters.is_empty()).then_some(text)
}

/// What figures tell of the time after a moment at an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since<'a> {
    /// The interface.
    pub at: &'a str,
    /// Connections that were tried there.
    pub tried: u64,
    /// For how long it was recorded, ns: runs may have ended and begun.
    pub recorded_ns: u64,
    /// The longest stretch that one record of figures is about, ns.
    pub stretch_ns: u64,
}

/// Whether it goes on, as far as records tell that end at `end_ns`. Silence is a cure only where somebody listens and still connects.
pub(super) fn quiet_since(last_ns: u64, end_ns: u64, since: Option<Since<'_>>) -> String {
    let silent_ns = end_ns.saturating_sub(last_ns);
    if silent_ns < Nanos::SEC {
        return "it goes on when the records end".to_owned();
    }
    let span = |ns: u64| span_words(ns / Nanos::SEC);
    let quiet = format!("none in the {} after it until the records end", span(silent_ns));
    let Some(Since { at, tried, recorded_ns, stretch_ns }) = since.filter(|s| s.stretch_ns > 0) else {
        return quiet;
    };
    // Figures are of whole stretches.
    let quiet = match recorded_ns + stretch_ns < silent_ns {
        true => format!("{quiet}, of which {} are recorded at {at}", span(recorded_ns)),
        false => quiet,
    };
    let tried = match tried {
        _ if recorded_ns < 2 * stretch_ns => ", too soon to tell whether it is over".to_owned(),
        0 => format!(", but nobody tried to connect at {at} any more either: it may be there still"),
        1 => format!(", in which 1 connection was tried at {at}"),
        n => format!(", in which {n} connections were tried at {at}"),
    };
    quiet + &tried
}

/// `1 record`, `2 records`.
pub fn many(n: u64, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}

/// What syntap lost or shed by one cause at one place, in a sentence without its end.
pub fn lost_words(cause: &str, place: &str, own: &OwnLoss) -> String {
    let times = match own.times {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    let what = match cause {
        "budget_shed" => format!("{} shed to stay within the budget", many(own.count, "packet")),
        "disk_full" => format!("{} not written into {place} ({cause})", many(own.count, "record")),
        "copies_dropped" => {
            format!("{} missing in the mirror file only ({cause})", many(own.count, "packet"))
        }
        "hook_removed" => format!("somebody took the hooks off {place} ({cause})"),
        "interface_gone" => format!("{place} was gone ({cause})"),
        "flow_table_full" => {
            format!("{} given up for room in the flow table ({cause})", many(own.count, "flow"))
        }
        _ => format!("{} lost at {place} ({cause})", many(own.count, "packet")),
    };
    format!("{what}, {times}, {} to {}", time(own.first_ns), time(own.last_ns))
}

/// A fact's value.
pub fn fact_text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(s) => s.clone(),
        Value::Array(list) => list.iter().map(fact_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A packet as tcpdump prints it, with absolute numbers, the interface and the direction in front.
pub fn packet_line(p: &PacketRecord, r: &Record) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(p.ts_ns))
        .map_or_else(|_| p.ts_ns.to_string(), |t| t.strftime("%H:%M:%S%.6f").to_string());
    let end = |ip: Option<IpAddr>, port: Option<u16>| match ip {
        // tcpdump joins address and port with a dot.
        Some(ip) => format!("{ip}.{}", port.unwrap_or(0)),
        None => "?".into(),
    };
    let (orig, resp) = match &p.tuple {
        Some(t) => (end(Some(t.src_ip), Some(t.src_port)), end(Some(t.dst_ip), Some(t.dst_port))),
        None => (end(r.src_ip, r.src_port), end(r.dst_ip, r.dst_port)),
    };
    let (from, to) = if p.from == "orig" { (orig, resp) } else { (resp, orig) };
    let way = match p.direction.as_deref() {
        Some("ingress") => " In ",
        Some("egress") => " Out",
        _ => "",
    };
    let first = p.tuple.as_ref().map(|t| t.src_ip).or(r.src_ip);
    let family = if first.is_some_and(|ip| ip.is_ipv6()) { "IP6" } else { "IP" };
    let seq = match p.len {
        _ if p.flags == "." && p.len == 0 => String::new(),
        0 => format!(", seq {}", p.seq),
        n => format!(", seq {}:{}", p.seq, p.seq.wrapping_add(n)),
    };
    let ack = if p.flags.contains('.') { format!(", ack {}", p.ack) } else { String::new() };
    let mut options = Vec::new();
    options.extend(p.mss.map(|m| format!("mss {m}")));
    options.extend(p.tsval.zip(p.tsecr).map(|(v, e)| format!("TS val {v} ecr {e}")));
    options.extend(p.wscale.map(|w| format!("wscale {w}")));
    let options =
        if options.is_empty() { String::new() } else { format!(", options [{}]", options.join(",")) };
    format!(
        "{time} {}{way} {family} {from} > {to}: Flags [{}]{seq}{ack}, win {}{options}, length {}",
        p.interface, p.flags, p.win, p.len
    )
}
