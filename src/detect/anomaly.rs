//! A rule that fired, with its evidence: what the detectors hand to the records.

use std::borrow::Cow;

use super::{Certainty, Kind, Severity, Verdict};
use crate::flow::{Digest, Tuple};
use crate::wire::{Nanos, Tunnel, Way};

/// One of a kind's own numbers or words. Becomes a JSON value of the record's `facts`.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// Not known, or does not apply.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A count, a sequence number, milliseconds.
    U64(u64),
    /// A signed distance.
    I64(i64),
    /// A figure with a fraction.
    F64(f64),
    /// A word or an address.
    Str(Cow<'static, str>),
    /// Several.
    List(Vec<Fact>),
}

/// A kind's own numbers, in the order they are written.
pub type Facts = Vec<(&'static str, Fact)>;

/// A rule that fired.
#[derive(Clone, Debug, PartialEq)]
pub struct Anomaly {
    /// What was seen.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// Whose doing.
    pub verdict: Verdict,
    /// How well proven.
    pub certainty: Certainty,
    /// One sentence with the numbers in it.
    pub summary: String,
    /// When the rule could be sure.
    pub time: Nanos,
    /// First packet of the episode.
    pub first: Nanos,
    /// Last packet of the episode.
    pub last: Nanos,
    /// How many times within this record.
    pub count: u64,
    /// Tap point number; `None` for what belongs to the tool itself.
    pub point: Option<u8>,
    /// Which way the decisive packet went.
    pub way: Way,
    /// Originator to responder; `None` for link-layer and tool records.
    pub tuple: Option<Tuple>,
    /// VLAN identifier.
    pub vlan: Option<u16>,
    /// The tunnel its packets travel in, as the flow's first packet showed it.
    pub tunnel: Option<Tunnel>,
    /// Zeek's history letters so far.
    pub history: String,
    /// Zeek's connection state so far, or empty.
    pub conn_state: &'static str,
    /// The kind's own numbers.
    pub facts: Facts,
    /// The packets that prove it, oldest first.
    pub packets: Vec<Digest>,
    /// The tuple that each of them had, originator to responder, where not all have `tuple`; else empty.
    pub tuples: Vec<Tuple>,
}

impl Anomaly {
    /// True if it rests on something that was not seen. A lost translation does, unless connection tracking told of it or the packets
    /// themselves show it: that a tuple was never opened outside, or that no reset came in inside.
    pub fn rests_on_absence(&self) -> bool {
        let lost = matches!(self.kind, Kind::NatRemapped | Kind::NatMappingLost);
        // That it was the gateway shows in what did not come in, or leave, on its other side.
        let own =
            matches!(self.kind, Kind::SynRefused | Kind::ResetMidFlow) && self.verdict == Verdict::Gateway;
        self.kind.rests_on_absence() || own || lost && self.certainty < Certainty::Proven
    }

    /// One that belongs to no flow: what it says, its first moment and its last, which is also when the rule could be sure. The rest
    /// is for the caller to set where it differs: `info`, nobody's doing, proven, once, nowhere in particular.
    pub fn new(kind: Kind, summary: String, first: Nanos, last: Nanos) -> Anomaly {
        Anomaly {
            kind,
            severity: Severity::Info,
            verdict: Verdict::Unknown,
            certainty: Certainty::Proven,
            summary,
            time: last,
            first,
            last,
            count: 1,
            point: None,
            way: Way::Unknown,
            tuple: None,
            vlan: None,
            tunnel: None,
            history: String::new(),
            conn_state: "",
            facts: Facts::new(),
            packets: Vec::new(),
            tuples: Vec::new(),
        }
    }
}
