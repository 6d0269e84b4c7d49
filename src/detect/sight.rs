//! What one worker tells of a packet or a flow to those who look at all of them.

use super::Anomaly;
use super::conntrack::{Deltas, Entry};
use crate::flow::{Digest, Endpoint, Tuple};
use crate::wire::{Arp, IfName, Mac, Malformed, Nanos, Way};

/// A packet that matters beyond its flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Originator to responder.
    pub tuple: Tuple,
    /// The packet.
    pub digest: Digest,
}

/// A life of a tuple that is over, in the few numbers that the rules over many lives read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Life {
    /// Originator to responder.
    pub tuple: Tuple,
    /// Tap point.
    pub point: u8,
    /// First packet, [`Nanos::coarse`].
    pub first: Nanos,
    /// Last packet.
    pub last: Nanos,
    /// Packets by role: originator, responder.
    pub packets: [u32; 2],
    /// The originator went on past its SYN, or was met in mid-stream: it has heard an answer.
    pub went_on: bool,
    /// SYN and SYN-ACK were seen.
    pub opened: bool,
    /// Either end's FIN was seen.
    pub closed: bool,
    /// A reset ended it, after the handshake was complete.
    pub reset: bool,
    /// Segments of new data from the originator: requests.
    pub requests: u16,
}

/// One observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sight {
    /// A SYN that asks, the first time or again.
    Syn(Seen),
    /// A SYN-ACK from the end that was asked.
    SynAck(Seen),
    /// A responder accepted a connection.
    Answered {
        /// Originator to responder.
        tuple: Tuple,
        /// Tap point.
        point: u8,
        /// From the first SYN to the SYN-ACK, ns.
        latency_ns: u64,
        /// SYNs it took.
        syns: u16,
    },
    /// The originator acknowledged the SYN-ACK: the handshake is complete.
    Completed {
        /// Who accepted it.
        responder: Endpoint,
        /// Tap point.
        point: u8,
        /// When the first SYN came.
        asked: Nanos,
    },
    /// What the kernel side counted since it was last looked at; the packets seen up to then come before it.
    Counted {
        /// Tap point.
        point: u8,
        /// SYNs that passed it.
        syns: u64,
        /// Of these, mirrored: the others were shed to stay in the budget.
        mirrored: u64,
        /// Packets of known tuples that were shed.
        known_shed: u64,
    },
    /// A reset of an open flow.
    Reset {
        /// Originator to responder.
        tuple: Tuple,
        /// Tap point.
        point: u8,
        /// Silence before it, ns.
        idle_ns: u64,
        /// It cut a connection that its originator meant to keep: not the originator's own, and not after a FIN.
        cut: bool,
        /// Its TTL is none that its sender's other packets have.
        foreign: bool,
    },
    /// A reset, whatever it did.
    Rst {
        /// It.
        seen: Seen,
        /// How long before it the packet came whose acknowledgement is its sequence number, ns.
        provoked: Option<u64>,
        /// Its TTL is none that its sender's other packets have.
        foreign: bool,
    },
    /// The first packet of a connection that was met in the middle: neither SYN nor SYN-ACK.
    Met(Seen),
    /// The same bytes sent again into silence; ts and numbers are those of the newest transmission.
    Unheard(Seen),
    /// A reset on a tuple of which nothing else is known.
    Stray(Seen),
    /// An originator's FIN on a connection that was reset before.
    FinAfterReset(Seen),
    /// A handshake that its originator reset at once.
    Probe {
        /// The originator.
        originator: Endpoint,
        /// Tap point.
        point: u8,
    },
    /// A life of a tuple is over.
    Over(Life),
    /// An ARP packet or a neighbour message.
    Arp {
        /// What it says.
        arp: Arp,
        /// The Ethernet source.
        src_mac: Mac,
        /// Tap point.
        point: u8,
        /// Its broadcast domain there ([`crate::wire::Vlans::segment`]).
        segment: u32,
        /// Which way it went.
        way: Way,
    },
    /// A packet that could not be decoded.
    Malformed {
        /// Why.
        reason: Malformed,
        /// Tap point.
        point: u8,
    },
    /// The kernel's connection tracking tells of an entry.
    Conntrack(Entry),
    /// What it counted between two readings.
    ConntrackStats {
        /// The figures.
        deltas: Deltas,
        /// The reading before.
        first: Nanos,
        /// This one.
        last: Nanos,
    },
    /// The kernel says that a tapped interface, or a bridge over it, has another MAC address.
    LinkChanged {
        /// Tap point.
        point: u8,
        /// The address before.
        before: Mac,
        /// The one now.
        after: Mac,
    },
    /// The kernel says that a port has left or joined a bridge that is a tap point or over one.
    BridgePort {
        /// Tap point.
        point: u8,
        /// The port.
        name: IfName,
        /// It has left, else it has joined.
        left: bool,
    },
    /// A bridge learned a MAC address at another port than before.
    FdbMoved {
        /// The address.
        mac: Mac,
        /// The port's tap point before.
        from_point: u8,
        /// The one now.
        to_point: u8,
    },
}

impl Sight {
    /// The tap point of a packet; `None` for what the kernel tells.
    pub fn point(&self) -> Option<u8> {
        Some(match self {
            Sight::Syn(s)
            | Sight::SynAck(s)
            | Sight::Rst { seen: s, .. }
            | Sight::Met(s)
            | Sight::Unheard(s)
            | Sight::Stray(s)
            | Sight::FinAfterReset(s) => s.digest.point,
            Sight::Over(life) => life.point,
            Sight::Answered { point, .. }
            | Sight::Completed { point, .. }
            | Sight::Reset { point, .. }
            | Sight::Probe { point, .. }
            | Sight::Arp { point, .. }
            | Sight::Malformed { point, .. } => *point,
            Sight::Counted { .. }
            | Sight::Conntrack(_)
            | Sight::ConntrackStats { .. }
            | Sight::LinkChanged { .. }
            | Sight::BridgePort { .. }
            | Sight::FdbMoved { .. } => return None,
        })
    }
}

impl Sight {
    /// The source MAC of its frame, where that was seen, and which way it went.
    pub fn came_from(&self) -> Option<(Mac, u8, Way)> {
        match self {
            Sight::Syn(s)
            | Sight::SynAck(s)
            | Sight::Rst { seen: s, .. }
            | Sight::Met(s)
            | Sight::Unheard(s)
            | Sight::Stray(s)
            | Sight::FinAfterReset(s) => Some((s.digest.src_mac, s.digest.point, s.digest.way)),
            Sight::Arp { src_mac, point, way, .. } => Some((*src_mac, *point, *way)),
            _ => None,
        }
    }
}

/// Whom the rules of one flow talk to.
pub trait Listener {
    /// A rule fired.
    fn anomaly(&mut self, anomaly: Anomaly);
    /// Something that others want to know.
    fn sight(&mut self, sight: Sight);
}
