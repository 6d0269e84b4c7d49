//! What every rule needs to turn a flow into an anomaly: its packets, its tuple, its letters.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;

use super::{Anomaly, Certainty, Facts, Kind, Severity, Verdict};
use crate::flow::{Digest, Endpoint, FlowKey, Recorder, Side, Tunnels, Tuple};
use crate::track::Flow;
use crate::wire::{Nanos, TcpFlags, Way};

/// Packets shown with a record: the story's whole refusal, with the life before it, has 17.
pub const EVIDENCE: usize = 24;

/// A flow at the moment a rule looks at it.
pub struct View<'a> {
    /// Its key.
    pub key: &'a FlowKey,
    /// Its state.
    pub flow: &'a Flow,
    /// The flight recorder that holds its packets.
    pub recorder: &'a Recorder,
    /// The tunnels that flows travel in.
    pub tunnels: &'a Tunnels,
}

/// What a rule concluded; the rest of the anomaly comes from the flow.
pub struct Finding {
    /// What was seen.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// Whose doing.
    pub verdict: Verdict,
    /// How well proven.
    pub certainty: Certainty,
    /// One sentence.
    pub summary: String,
    /// First packet of the episode.
    pub first: Nanos,
    /// When the rule could be sure.
    pub time: Nanos,
    /// The kind's own numbers.
    pub facts: Facts,
}

impl View<'_> {
    /// The tuple as seen from `orig`, an end of the key.
    pub fn tuple(&self, orig: Side) -> Tuple {
        let t = self.key.tuple();
        if orig == Side::Orig { t } else { t.reversed() }
    }

    /// The newest packets, oldest first, with senders by role under originator `orig`.
    pub fn packets(&self, orig: Side) -> Vec<Digest> {
        let mut packets = self.recorder.chain(self.flow.newest, EVIDENCE);
        for p in &mut packets {
            p.from = if p.from == orig { Side::Orig } else { Side::Resp };
        }
        packets
    }

    /// Makes the anomaly; `orig` is the end of the key whose SYN or life it is about.
    pub fn anomaly(&self, orig: Side, finding: Finding) -> Anomaly {
        let packets = self.packets(orig);
        // The decisive direction is the originator's: a SYN's, else its newest packet's.
        let of_orig = || packets.iter().rev().filter(|p| p.from == Side::Orig);
        let syn = of_orig().find(|p| p.flags.any(TcpFlags::SYN));
        let way = syn.or_else(|| of_orig().next()).map_or(Way::Unknown, |p| p.way);
        Anomaly {
            kind: finding.kind,
            severity: finding.severity,
            verdict: finding.verdict,
            certainty: finding.certainty,
            summary: finding.summary,
            time: finding.time,
            first: finding.first,
            last: finding.time,
            count: 1,
            point: Some(self.key.point()),
            way,
            tuple: Some(self.tuple(orig)),
            vlan: self.flow.vlan.checked_sub(1),
            tunnel: self.tunnels.get(self.flow.tunnel),
            history: self.flow.history().to_owned(),
            conn_state: self.flow.conn_state(),
            facts: finding.facts,
            packets,
            tuples: Vec::new(),
        }
    }
}

/// A duration in words: milliseconds below a second, seconds with one digit above.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} us", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / Nanos::MS),
        _ => seconds(ns),
    }
}

/// Seconds with one digit, as `{:.1}` has it of a float. That takes a thousand instructions, and is asked only where it decides: halfway
/// between two digits, and where so many nanoseconds are no float any more.
fn seconds(ns: u64) -> String {
    const TENTH: u64 = Nanos::SEC / 10;
    if ns % TENTH == TENTH / 2 || ns >= 1 << 50 {
        return format!("{:.1} s", ns as f64 / 1e9);
    }
    let tenths = (ns + TENTH / 2) / TENTH;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

/// Nanoseconds as milliseconds with three digits, as facts carry them.
pub fn ms(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

/// `address:port`, IPv6 in brackets: made into text where it is written, since most of what is looked at is not.
pub fn endpoint(e: Endpoint) -> Shown {
    Shown(e)
}

/// See [`endpoint`].
#[derive(Clone, Copy)]
pub struct Shown(Endpoint);

impl Display for Shown {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.0.addr.ip(), self.0.port).fmt(f)
    }
}

impl From<Shown> for Cow<'static, str> {
    fn from(shown: Shown) -> Self {
        shown.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_as_floats_are() {
        for base in [1, 9, 10, 59, 3_600, 86_400, 1_000_000, 1_125_898, 1_125_900, 1_000_000_000] {
            for part in (0..Nanos::SEC).step_by(50_000_000).chain([1, 999_999_999]) {
                for ns in [0, 1, 2].map(|n| (base * Nanos::SEC + part + n).saturating_sub(1)) {
                    assert_eq!(seconds(ns), format!("{:.1} s", ns as f64 / 1e9), "{ns}");
                }
            }
        }
    }
}
