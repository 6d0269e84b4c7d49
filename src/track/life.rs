//! What is remembered of a flow: each end's numbers, the attempt to open, and the tuple's previous life.

use super::middle::TIMEOUT;
use super::state::State;
use super::zeek::Zeek;
use crate::flow::{Mark, Side, TunnelId};
use crate::wire::{Nanos, Segment, Seq};

/// What has been seen of one end. Bits of [`End::seen`].
pub mod seen {
    /// Its SYN (or SYN-ACK): `isn` is known.
    pub const SYN: u16 = 1;
    /// Its FIN: `fin_end` is known.
    pub const FIN: u16 = 2;
    /// The other end acknowledged its FIN.
    pub const FIN_ACKED: u16 = 4;
    /// Its RST.
    pub const RST: u16 = 8;
    /// A segment with the ACK flag: `ack` is known.
    pub const ACK: u16 = 16;
    /// Payload.
    pub const DATA: u16 = 32;
    /// Timestamps: `tsval` is known.
    pub const TS: u16 = 64;
    /// Any packet at all: `next` is known.
    pub const ANY: u16 = 128;
    /// A window scale on its SYN or SYN-ACK.
    pub const WSCALE: u16 = 256;
    /// A window was offered to it: `limit` is known.
    pub const LIMIT: u16 = 512;
    /// A timestamp that the other end took: `ts_recent` is known.
    pub const TS_RECENT: u16 = 1024;
}

/// One end of a flow in one life.
#[derive(Clone, Copy, Debug, Default)]
pub struct End {
    /// Initial sequence number.
    pub isn: Seq,
    /// One after the highest sequence number it sent, or that the other end acknowledged.
    pub next: Seq,
    /// Its highest acknowledgement: what it expects next (`rcv_nxt`).
    pub ack: Seq,
    /// One after its FIN.
    pub fin_end: Seq,
    /// Up to where the other end offered to take data (`td_maxend` of nf_conntrack).
    pub limit: Seq,
    /// The largest window it offered itself, bytes (`td_maxwin`).
    pub max_win: u32,
    /// Its newest TSval.
    pub tsval: u32,
    /// The TSval that the other end holds of it, at least (`TS.Recent` of RFC 7323): the newest on a segment that was in order there.
    pub ts_recent: u32,
    /// Which of the above are known, and more: [`seen`].
    pub seen: u16,
    /// Its last window field.
    pub win: u16,
    /// Its window scale; 0 if it sent none.
    pub wscale: u8,
    /// TTL of its last packet that was not an RST: what a forged RST does not know.
    pub ttl: u8,
    /// TTL of its first packet: some hosts answer SYNs by another way than they send data.
    pub ttl_first: u8,
    /// Packets seen.
    pub packets: u32,
    /// Of these, new data: segments with payload beyond all before.
    pub data: u16,
    /// Time of its last packet.
    pub last: Nanos,
}

impl End {
    /// True if any of `bits` was seen.
    #[inline]
    pub const fn has(&self, bits: u16) -> bool {
        self.seen & bits != 0
    }

    /// Payload bytes it sent so far, from sequence numbers alone (so packets that were not captured count too):
    /// `next - isn`, less its SYN and FIN. `None` if its SYN was not seen.
    pub fn bytes(&self) -> Option<u64> {
        if !self.has(seen::SYN) {
            return None;
        }
        let fin = u32::from(self.has(seen::FIN) && !self.fin_end.after(self.next));
        Some(u64::from(self.next.0.wrapping_sub(self.isn.0)).saturating_sub(1 + u64::from(fin)))
    }
}

/// What a responder that still holds a tuple's previous life is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OldState {
    /// No previous life was seen, or one that should have left nothing behind.
    #[default]
    Unknown,
    /// Neither end's close was seen: it believes the connection is alive.
    HalfOpen,
    /// It has closed, the originator has not.
    FinWait2,
    /// It closed first, both FINs passed: it waits 60 s for stragglers.
    TimeWait,
}

impl OldState {
    /// The word in `facts`.
    pub const fn name(self) -> &'static str {
        match self {
            OldState::Unknown => "unknown",
            OldState::HalfOpen => "half_open",
            OldState::FinWait2 => "fin_wait2",
            OldState::TimeWait => "time_wait",
        }
    }
}

/// The tuple's life before the present attempt. Indexed by the fixed ends of the key, not by role: the next life
/// may go the other way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past {
    /// Whether there was one.
    pub known: bool,
    /// Its state when the new SYN came.
    pub state: State,
    /// What each end had sent.
    pub next: [Seq; 2],
    /// Each end's newest TSval.
    pub tsval: [Option<u32>; 2],
    /// Whose FINs were seen.
    pub fin: [bool; 2],
    /// Whose FINs were acknowledged.
    pub fin_acked: [bool; 2],
    /// The end whose FIN came first.
    pub closed_first: Option<Side>,
    /// When both FINs were acknowledged, or the reset came; zero if neither.
    pub closed_at: Nanos,
    /// Its last packet.
    pub last: Nanos,
}

impl Past {
    /// What the end `responder` of that life must still hold, if anything.
    pub fn held_by(&self, responder: Side) -> OldState {
        let (r, o) = (responder as usize, responder.other() as usize);
        if !self.known || self.state == State::Reset {
            return OldState::Unknown;
        }
        match (self.fin[r], self.fin[o]) {
            (true, true) if self.closed_first == Some(responder) => OldState::TimeWait,
            // The other end closed first, so this one was in LAST_ACK and forgot everything at the last ACK; unless
            // the FINs crossed, and then both wait. Crossing shows as a FIN not acknowledged by the other's FIN,
            // which the tracker stores as no first closer.
            (true, true) if self.closed_first.is_none() => OldState::TimeWait,
            (true, true) => OldState::Unknown,
            (true, false) if self.fin_acked[r] => OldState::FinWait2,
            _ => OldState::HalfOpen,
        }
    }
}

/// The first answer to a SYN that was not one: a pure ACK with another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleAck {
    /// Its sequence number: the old life's `snd_nxt`.
    pub seq: Seq,
    /// Its acknowledgement: the old life's `rcv_nxt`.
    pub ack: Seq,
    /// Its TSecr: the old life's `ts_recent`, if it had timestamps.
    pub tsecr: Option<u32>,
    /// When.
    pub at: Nanos,
}

impl StaleAck {
    /// Of the segment that answered.
    pub fn of(seg: &Segment, at: Nanos) -> StaleAck {
        StaleAck { seq: seg.seq, ack: seg.ack, tsecr: seg.options.ts.map(|t| t.1), at }
    }
}

/// An attempt to open: one ISN, from its first SYN until it is answered, given up or replaced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempt {
    /// Whether it waits for an answer.
    pub pending: bool,
    /// Whether a record was already written for it.
    pub told: bool,
    /// The end (of the key) that sent the SYN.
    pub from: Side,
    /// Its initial sequence number.
    pub isn: Seq,
    /// The ISN of the attempt whose place it took before that was answered.
    pub replaced: Option<Seq>,
    /// TSval of its first SYN.
    pub tsval: Option<u32>,
    /// Payload of its SYN (TCP Fast Open).
    pub payload: u32,
    /// IPv4 identification of its first SYN.
    pub ip_id: u16,
    /// First SYN.
    pub first: Nanos,
    /// Newest SYN.
    pub last: Nanos,
    /// Time between the last two SYNs, ns; 0 with one.
    pub gap: u64,
    /// SYNs seen.
    pub syns: u16,
    /// Stale ACKs that answered them.
    pub stale_acks: u16,
    /// The first of those.
    pub stale: Option<StaleAck>,
    /// Data of another connection that came instead of an answer.
    pub stale_data: Option<StaleAck>,
    /// Sequence number of a reset by the originator that fits neither the SYN nor its successor: it answers a stale
    /// ACK (RFC 9293 3.10.7.3: seq = the offending ack).
    pub stray_rst: Option<Seq>,
    /// The same SYN came again after that reset.
    pub syn_after_rst: bool,
    /// A flow was open under this tuple when the SYN came: its state, and for how long it had been silent (ns).
    pub on_live: Option<(State, u64)>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A SYN-ACK acknowledged it, this long after the newest SYN (ns).
    Accepted,
    /// The responder reset it.
    Refused,
    /// An ICMP error came for it.
    RefusedOnTheWay,
    /// The originator reset it itself.
    Aborted,
    /// No further SYN came in time.
    Expired,
    /// A SYN with another ISN took its place.
    Replaced,
    /// The old life went on, as if there had been no SYN.
    OldLifeWentOn,
    /// The capture ended while it waited.
    Unfinished,
}

/// What is counted of one life beyond each end's numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tallies {
    /// SYN-ACKs, and the times of the first and the newest.
    pub syn_acks: u16,
    /// First SYN-ACK.
    pub syn_ack_first: Nanos,
    /// Newest SYN-ACK.
    pub syn_ack_last: Nanos,
    /// When the originator first acknowledged it; zero before.
    pub acked_at: Nanos,
    /// SYN-ACKs that came again a while after that.
    pub syn_acks_after_ack: u16,
    /// Initial sequence numbers tried on one attempt.
    pub isns: u16,
    /// FINs sent again without an answer, by role.
    pub fins_again: [u16; 2],
    /// Times the same bytes were sent again with growing gaps and nothing back, by role; the last gap, ns.
    pub unheard: [u16; 2],
    /// The gap before the newest of these.
    pub unheard_gap: [u64; 2],
    /// The first transmission of the bytes that are not acknowledged.
    pub unheard_first: [Nanos; 2],
    /// The newest transmission of the bytes that are not acknowledged.
    pub unheard_last: [Nanos; 2],
    /// Who reset the life, and what that reset's TTL was.
    pub reset_by: Option<Side>,
    /// TTL of the reset.
    pub reset_ttl: u8,
    /// TTL of the last and of the first packet of its sender before it; 0 without any.
    pub reset_usual: [u8; 2],
    /// Its sequence number: what its sender had sent up to there was on its way before it.
    pub reset_seq: Seq,
    /// Segments of the reset's sender after it.
    pub after_reset: u16,
    /// A reset came that a waiting originator does not believe (RFC 9293 3.10.7.3).
    pub unbelieved: bool,
    /// A SYN-ACK was the first packet, and the SYN may have been captured behind it.
    pub unsolicited: bool,
    /// Who asked the other end for a reset, to close at once (MPTCP's fast close).
    pub fast_close: Option<Side>,
    /// The final ACK of the handshake did not fit.
    pub final_ack_wrong: bool,
    /// Two SYN-ACKs differed.
    pub differed: bool,
    /// ICMP errors that quote it.
    pub icmp_errors: u16,
    /// Packets seen a second time on their way through a hop.
    pub twice: u32,
    /// What was told of this life already: a bit a kind.
    pub told: u64,
}

impl Tallies {
    /// True if the SYN-ACK was sent again after a timeout, of either end: sooner only a duplicate of the SYN draws another one.
    pub fn syn_ack_late(&self) -> bool {
        self.syn_acks > 1 && self.syn_ack_last.since(self.syn_ack_first) >= TIMEOUT
    }
}

/// One tuple's flow.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// Where the present life stands.
    pub state: State,
    /// Which end of the key is the originator.
    pub orig: Side,
    /// The ends by role: originator, responder.
    pub ends: [End; 2],
    /// First packet of this life.
    pub first: Nanos,
    /// Last packet of this life.
    pub last: Nanos,
    /// The role whose FIN came first; `None` before, and when the FINs crossed.
    pub closed_first: Option<Side>,
    /// When both FINs were acknowledged, or the reset came; zero before.
    pub closed_at: Nanos,
    /// When both ends had closed, or the reset came: the last ACK may be missing. Zero before.
    pub over_at: Nanos,
    /// This life began without a SYN.
    pub picked_up: bool,
    /// The attempt to open.
    pub attempt: Attempt,
    /// The life before.
    pub past: Past,
    /// The same life in Zeek's words.
    pub zeek: Zeek,
    /// More of this life.
    pub tallies: Tallies,
    /// Packets of this life by class: SYN, SYN-ACK, FIN, RST.
    pub counts: [u32; 4],
    /// Newest digest in the flight recorder.
    pub newest: Mark,
    /// VLAN identifier of its first packet plus 1; 0 without a tag.
    pub vlan: u16,
    /// The tunnel around its first packet.
    pub tunnel: TunnelId,
    /// Until when nothing needs to be done; the worker keeps the wheel armed for it.
    pub deadline: Nanos,
}

impl Flow {
    /// The role of an end of the key.
    #[inline]
    pub fn role(&self, end: Side) -> Side {
        if end == self.orig { Side::Orig } else { Side::Resp }
    }

    /// Zeek's history letters so far.
    pub fn history(&self) -> &str {
        self.zeek.history()
    }

    /// Zeek's word for this life so far.
    pub fn conn_state(&self) -> &'static str {
        self.zeek.conn_state()
    }

    /// The end by role.
    #[inline]
    pub fn end(&self, role: Side) -> &End {
        &self.ends[role as usize]
    }

    /// This life, to be remembered while the next is tried.
    pub fn as_past(&self) -> Past {
        let by_key = |f: &dyn Fn(&End) -> bool| {
            let [o, r] = [f(&self.ends[0]), f(&self.ends[1])];
            if self.orig == Side::Orig { [o, r] } else { [r, o] }
        };
        let pair = |o, r| if self.orig == Side::Orig { [o, r] } else { [r, o] };
        let ts = |e: &End| e.has(seen::TS).then_some(e.tsval);
        Past {
            known: true,
            state: self.state,
            next: pair(self.ends[0].next, self.ends[1].next),
            tsval: if self.orig == Side::Orig {
                [ts(&self.ends[0]), ts(&self.ends[1])]
            } else {
                [ts(&self.ends[1]), ts(&self.ends[0])]
            },
            fin: by_key(&|e| e.has(seen::FIN)),
            fin_acked: by_key(&|e| e.has(seen::FIN_ACKED)),
            closed_first: self
                .closed_first
                .map(|role| if role == Side::Orig { self.orig } else { self.orig.other() }),
            closed_at: self.closed_at,
            last: self.last,
        }
    }
}
