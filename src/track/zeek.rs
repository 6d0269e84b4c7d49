//! Zeek's view of a connection: its `history` letters and its `conn_state`.
//!
//! Zeek keeps a small state for each end (what it has sent) and reads `conn_state` off the pair; its rules differ from
//! this tracker's on purpose (it believes every RST, and takes any packet for a beginning), so that pair is kept
//! beside the tracker's own state, and only records and `--connections` read it. Behaviour after the documentation of
//! `conn.log` and the TCP session adapter of Zeek 7.

use crate::flow::Side;
use crate::wire::{Seq, TcpFlags};

/// What an end has sent, as Zeek sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
enum Sent {
    /// Nothing.
    #[default]
    Nothing,
    /// Its SYN.
    Syn,
    /// A SYN-ACK as the first packet of the originator.
    SynAck,
    /// Packets of a connection whose opening was not seen.
    Partial,
    /// Its part of the handshake.
    Established,
    /// A FIN.
    Closed,
    /// A reset.
    Reset,
}

/// Letters that stand once for each end.
mod once {
    pub const SYN: u16 = 1;
    pub const FIN: u16 = 2;
    pub const RST: u16 = 4;
    pub const DATA: u16 = 8;
    pub const ACK: u16 = 16;
    pub const MULTI: u16 = 32;
    pub const FIN_RST: u16 = 64;
}

#[derive(Clone, Copy, Debug, Default)]
struct End {
    sent: Sent,
    before: Sent,
    once: u16,
    last_syn: Seq,
    last_fin: Seq,
    last_rst: Seq,
    /// First number and one after the highest, for retransmissions; known with anything sent.
    start: Seq,
    last: Seq,
    /// Counters of the letters that come in powers of ten.
    again: u32,
    zero_windows: u32,
}

impl End {
    fn go(&mut self, to: Sent) {
        if self.sent != to {
            self.before = self.sent;
            self.sent = to;
        }
    }
}

/// Longest history kept.
const MAX: usize = 24;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zeek {
    ends: [End; 2],
    letters: [u8; MAX],
    len: u8,
    /// An end closed while nothing was seen of the other: Zeek has done with such a connection.
    alone: bool,
}

/// One segment in the words this needs.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Flags.
    pub flags: TcpFlags,
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgement.
    pub ack: Seq,
    /// Payload bytes.
    pub len: u32,
    /// Window field.
    pub win: u16,
}

impl Zeek {
    /// The letters, as text.
    pub fn history(&self) -> &str {
        std::str::from_utf8(&self.letters[..usize::from(self.len)]).unwrap_or("")
    }

    /// True if an end closed while nothing had been seen of the other.
    pub fn closed_alone(&self) -> bool {
        self.alone
    }

    /// True if the originator has sent data or ACKs: it has heard an answer, or was picked up in mid-stream.
    pub fn went_on(&self) -> bool {
        self.ends[0].once & (once::DATA | once::ACK) != 0
    }

    /// True if the originator has sent its SYN and nothing was seen of the responder.
    pub fn attempted(&self) -> bool {
        self.ends[0].sent == Sent::Syn && self.ends[1].sent == Sent::Nothing
    }

    fn push(&mut self, letter: u8, role: Side) {
        if usize::from(self.len) < MAX {
            self.letters[usize::from(self.len)] =
                if role == Side::Orig { letter } else { letter.to_ascii_lowercase() };
            self.len += 1;
        }
    }

    /// Marks that the roles were exchanged because the opening SYN was missing.
    pub fn turned(&mut self) {
        self.push(b'^', Side::Orig);
    }

    /// Adds a letter once an end; true if it was there already.
    fn first(&mut self, role: Side, mask: u16, letter: u8) -> bool {
        let end = &mut self.ends[role as usize];
        if end.once & mask != 0 {
            return true;
        }
        end.once |= mask;
        self.push(letter, role);
        false
    }

    /// Adds a letter at its 1st, 10th, 100th ... time.
    fn scaled(&mut self, role: Side, count: u32, letter: u8) {
        if count > 0 && 10u32.checked_pow(count.ilog10()) == Some(count) {
            self.push(letter, role);
        }
    }

    /// Takes a segment of the end with this role.
    pub fn segment(&mut self, s: Seen, role: Side) {
        self.start(s, role);
        self.letters_of(s, role);
        self.windows(s, role);
        let (me, peer) = (role as usize, role.other() as usize);
        if s.flags.any(TcpFlags::ACK) && self.ends[peer].sent == Sent::Nothing {
            // Numbered as if its SYN had been seen.
            self.ends[peer].start = s.ack.add(u32::MAX);
            self.ends[peer].last = s.ack.add(u32::MAX);
        }
        self.advance(s, role);
        let unheard = self.ends[peer].sent == Sent::Nothing;
        match self.ends[me].sent {
            Sent::Nothing => self.after_nothing(s, role),
            Sent::Syn | Sent::SynAck => self.after_syn(s, role),
            Sent::Established | Sent::Partial => self.after_established(s, role),
            Sent::Closed => {
                if s.flags.any(TcpFlags::RST) && self.ends[peer].sent != Sent::Closed {
                    self.ends[me].go(Sent::Reset);
                }
            }
            Sent::Reset => {}
        }
        self.alone |= unheard && s.flags.any(TcpFlags::FIN | TcpFlags::RST);
    }

    fn start(&mut self, s: Seen, role: Side) {
        let end = &mut self.ends[role as usize];
        let syn = s.flags.any(TcpFlags::SYN);
        match end.sent {
            Sent::Nothing => {
                end.start = if syn { s.seq } else { s.seq.add(u32::MAX) };
                end.last = if syn { s.seq.add(seq_len(s)) } else { s.seq };
            }
            Sent::Syn | Sent::SynAck | Sent::Established | Sent::Partial if syn && s.seq != end.start => {
                end.start = s.seq;
                end.last = s.seq.add(seq_len(s));
            }
            Sent::Reset if syn && end.before == Sent::Nothing => {
                end.start = s.seq;
                end.last = s.seq.add(seq_len(s));
            }
            _ => {}
        }
    }

    /// S and H, F, R again with another number stand again; everything else once.
    fn letters_of(&mut self, s: Seen, role: Side) {
        let (syn, fin, rst) =
            (s.flags.any(TcpFlags::SYN), s.flags.any(TcpFlags::FIN), s.flags.any(TcpFlags::RST));
        match u8::from(syn) + u8::from(fin) + u8::from(rst) {
            0 if s.len > 0 => {
                self.first(role, once::DATA, b'D');
            }
            0 if s.flags.any(TcpFlags::ACK) => {
                self.first(role, once::ACK, b'A');
            }
            0 => {}
            1 => {
                let me = role as usize;
                // Numbers count from the end's first, which a SYN with another number moves.
                let rel = Seq(s.seq.0.wrapping_sub(self.ends[me].start.0));
                if syn {
                    let letter = if s.flags.any(TcpFlags::ACK) { b'H' } else { b'S' };
                    if self.first(role, once::SYN, letter) && self.ends[me].last_syn != rel {
                        self.push(letter, role);
                    }
                    self.ends[me].last_syn = rel;
                } else if fin {
                    let at = rel.add(s.len);
                    if self.first(role, once::FIN, b'F') && self.ends[me].last_fin != at {
                        self.push(b'F', role);
                    }
                    self.ends[me].last_fin = at;
                } else {
                    if self.first(role, once::RST, b'R') && self.ends[me].last_rst != rel {
                        self.push(b'R', role);
                    }
                    self.ends[me].last_rst = rel;
                }
            }
            _ if fin && rst => {
                self.first(role, once::FIN_RST, b'I');
            }
            _ => {
                self.first(role, once::MULTI, b'Q');
            }
        }
    }

    fn windows(&mut self, s: Seen, role: Side) {
        let (me, peer) = (role as usize, role.other() as usize);
        if s.win == 0
            && !s.flags.any(TcpFlags::RST)
            && self.ends[peer].sent != Sent::Closed
            && self.ends[me].sent != Sent::Reset
        {
            self.ends[me].zero_windows += 1;
            self.scaled(role, self.ends[me].zero_windows, b'W');
        }
    }

    /// Moves the highest number on; bytes at or below it are a retransmission.
    fn advance(&mut self, s: Seen, role: Side) {
        let end = &mut self.ends[role as usize];
        let to = s.seq.add(seq_len(s));
        let delta = to.distance(end.last);
        let far = delta.unsigned_abs() > 1 << 20;
        if s.flags.any(TcpFlags::SYN | TcpFlags::RST) && far {
            return;
        }
        if s.flags.any(TcpFlags::FIN) && end.last == end.start.add(1) {
            end.last = to;
        } else if end.sent == Sent::Reset {
            // Nothing after a reset is believed.
        } else if delta > 0 {
            end.last = to;
        } else if s.len > 0 {
            end.again += 1;
            let count = end.again;
            self.scaled(role, count, b'T');
        }
    }

    fn after_nothing(&mut self, s: Seen, role: Side) {
        let (me, peer) = (role as usize, role.other() as usize);
        let f = s.flags;
        if f.any(TcpFlags::SYN) {
            if role == Side::Orig {
                self.ends[me].go(if f.any(TcpFlags::ACK) { Sent::SynAck } else { Sent::Syn });
            } else {
                if self.ends[peer].sent == Sent::Syn {
                    self.ends[peer].go(Sent::Established);
                }
                self.ends[me].go(Sent::Established);
            }
        }
        if f.any(TcpFlags::FIN) {
            self.ends[me].go(Sent::Closed);
        }
        if f.any(TcpFlags::RST) {
            self.ends[me].go(Sent::Reset);
        }
        if self.ends[me].sent != Sent::Nothing {
            return;
        }
        if role == Side::Resp && s.len == 0 && self.ends[peer].sent == Sent::Syn {
            // An acknowledgement before the SYN-ACK begins nothing.
        } else if f.any(TcpFlags::ACK) && self.ends[peer].sent == Sent::Established {
            self.ends[me].go(Sent::Established);
        } else {
            self.ends[me].go(Sent::Partial);
        }
    }

    fn after_syn(&mut self, s: Seen, role: Side) {
        let me = role as usize;
        if s.flags.any(TcpFlags::FIN) {
            self.ends[me].go(Sent::Closed);
        }
        if s.flags.any(TcpFlags::RST) {
            self.ends[me].go(Sent::Reset);
        }
    }

    fn after_established(&mut self, s: Seen, role: Side) {
        let (me, peer) = (role as usize, role.other() as usize);
        let f = s.flags;
        if f.any(TcpFlags::SYN)
            && !f.any(TcpFlags::ACK)
            && self.ends[me].sent == Sent::Partial
            && self.ends[peer].sent == Sent::Nothing
        {
            self.ends[me].go(Sent::Syn);
        }
        if f.any(TcpFlags::FIN) && !f.any(TcpFlags::RST) {
            self.ends[me].go(Sent::Closed);
            if self.ends[peer].sent == Sent::Reset && self.ends[peer].before == Sent::Closed {
                // FIN, then RST, then our FIN: a normal end.
                self.ends[peer].go(Sent::Closed);
            }
        }
        if f.any(TcpFlags::RST) {
            self.ends[me].go(Sent::Reset);
        }
    }

    /// The word of `conn_state`.
    pub fn conn_state(&self) -> &'static str {
        let (o, r) = (self.ends[0].sent, self.ends[1].sent);
        let silent = |s| matches!(s, Sent::Nothing | Sent::Partial);
        let no_data = |e: &End| e.once & once::DATA == 0;
        match (o, r) {
            (Sent::Syn | Sent::SynAck, Sent::Reset) => "REJ",
            (Sent::Reset, Sent::Reset) if self.ends.iter().all(no_data) => "REJ",
            (o, Sent::Reset) => {
                if silent(o) {
                    "RSTRH"
                } else {
                    "RSTR"
                }
            }
            // A reset after a SYN takes that back; one out of nowhere tells nothing.
            (Sent::Reset, r) if silent(r) && self.ends[0].before == Sent::Syn => "RSTOS0",
            (Sent::Reset, r) if silent(r) => "OTH",
            (Sent::Reset, _) => "RSTO",
            (Sent::Closed, Sent::Closed) => "SF",
            (Sent::Closed, r) => {
                if silent(r) {
                    "SH"
                } else {
                    "S2"
                }
            }
            (o, Sent::Closed) => {
                if silent(o) {
                    "SHR"
                } else {
                    "S3"
                }
            }
            (Sent::Syn, Sent::Nothing) => "S0",
            (Sent::Established, Sent::Established) => "S1",
            _ => "OTH",
        }
    }
}

/// Sequence space of a segment as Zeek counts it: data of a reset does not count.
fn seq_len(s: Seen) -> u32 {
    let data = if s.flags.any(TcpFlags::RST) { 0 } else { s.len };
    data + u32::from(s.flags.any(TcpFlags::SYN)) + u32::from(s.flags.any(TcpFlags::FIN))
}
