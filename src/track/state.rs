//! The state table: what a segment of a class does to a flow in a state, by who sent it.
//!
//! After the table of `net/netfilter/nf_conntrack_proto_tcp.c` in purpose, not in its cells: that one decides what
//! a firewall lets through, this one what an observer between the ends may conclude. An observer may have missed
//! any packet, so no cell is an error; [`Next::Odd`] says "this does not belong here, remember it" and leaves the
//! state as it is.

use crate::flow::Side;
use crate::wire::TcpFlags;

/// Where a flow stands, seen from the middle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Nothing seen yet.
    #[default]
    New = 0,
    /// The originator's SYN, no answer.
    SynSent = 1,
    /// SYNs both ways: a simultaneous open.
    SynCrossed = 2,
    /// The responder's SYN-ACK.
    SynRecv = 3,
    /// The handshake is complete, or the flow was picked up in mid-stream.
    Established = 4,
    /// One end has sent its FIN.
    FinWait = 5,
    /// That FIN is acknowledged; the other direction is still open.
    HalfClosed = 6,
    /// Both ends have sent FINs.
    LastAck = 7,
    /// Both FINs are acknowledged.
    TimeWait = 8,
    /// Reset.
    Reset = 9,
}

impl State {
    /// Number of states.
    pub const COUNT: usize = 10;

    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            State::New => "new",
            State::SynSent => "syn_sent",
            State::SynCrossed => "syn_crossed",
            State::SynRecv => "syn_recv",
            State::Established => "established",
            State::FinWait => "fin_wait",
            State::HalfClosed => "half_closed",
            State::LastAck => "last_ack",
            State::TimeWait => "time_wait",
            State::Reset => "reset",
        }
    }

    /// True for a flow that is over: a SYN on it opens the next life of the tuple and breaks nothing.
    pub const fn is_over(self) -> bool {
        matches!(self, State::LastAck | State::TimeWait | State::Reset)
    }

    /// True once the handshake is complete and before both ends have closed.
    pub const fn is_open(self) -> bool {
        matches!(self, State::Established | State::FinWait | State::HalfClosed)
    }
}

/// What the flags make of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SegClass {
    /// SYN without ACK.
    Syn = 0,
    /// SYN with ACK.
    SynAck = 1,
    /// FIN, without SYN or RST.
    Fin = 2,
    /// ACK, with or without data, and nothing of the above.
    Ack = 3,
    /// RST, whatever else is set but SYN.
    Rst = 4,
    /// A mixture that no TCP sends: none of SYN, FIN, RST and ACK, or SYN together with FIN or RST.
    Odd = 5,
}

impl SegClass {
    /// Number of classes.
    pub const COUNT: usize = 6;

    /// The class of these flags. PSH, URG and the ECN bits do not matter.
    #[inline]
    pub const fn of(flags: TcpFlags) -> SegClass {
        let f = flags.0 & (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::FIN | TcpFlags::RST);
        const SYN: u16 = TcpFlags::SYN;
        const SYN_ACK: u16 = TcpFlags::SYN | TcpFlags::ACK;
        const ACK: u16 = TcpFlags::ACK;
        const FIN: u16 = TcpFlags::FIN;
        const FIN_ACK: u16 = TcpFlags::FIN | TcpFlags::ACK;
        match f {
            SYN => SegClass::Syn,
            SYN_ACK => SegClass::SynAck,
            FIN | FIN_ACK => SegClass::Fin,
            ACK => SegClass::Ack,
            _ if f & TcpFlags::RST != 0 && f & TcpFlags::SYN == 0 => SegClass::Rst,
            _ => SegClass::Odd,
        }
    }
}

/// True for a combination of flags that no TCP sends: all but those of `tcp_valid_flags` in
/// `net/netfilter/nf_conntrack_proto_tcp.c`, which leaves PSH and the ECN bits out of account. Every segment after the
/// first SYN carries ACK (RFC 9293 3.1), but for a reset that has nothing to acknowledge: so a FIN without it is odd too.
pub const fn is_odd(flags: TcpFlags) -> bool {
    const SYN: u16 = TcpFlags::SYN;
    const ACK: u16 = TcpFlags::ACK;
    const FIN: u16 = TcpFlags::FIN;
    const RST: u16 = TcpFlags::RST;
    const URG: u16 = TcpFlags::URG;
    let f = flags.0 & (SYN | ACK | FIN | RST | URG);
    let plain = f & !URG;
    let urgent_too = matches!(plain, SYN | ACK) || plain == FIN | ACK;
    !(urgent_too || f == SYN | ACK || f == RST || f == RST | ACK)
}

/// What a cell of the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The flow goes to this state.
    Go(State),
    /// Expected here; the state stays.
    Stay,
    /// A SYN that may open the next life of the tuple; the present one goes on until it is answered.
    Attempt,
    /// A SYN on a flow that is over: the next life begins.
    Begin,
    /// Not expected here; the state stays and the packet is looked at by the rules.
    Odd,
}

use Next::{Attempt as At, Begin as Bg, Go, Odd as Od, Stay as St};
use State::{Established as Es, FinWait as Fw, Reset as Rs};
use State::{SynCrossed as Sx, SynRecv as Sr, SynSent as Ss};

/// `TABLE[side][class][state]`. Columns, in the order of [`State`]:
/// new, syn_sent, syn_crossed, syn_recv, established, fin_wait, half_closed, last_ack, time_wait, reset.
/// Whether a FIN is acknowledged (half_closed, time_wait) is decided by sequence numbers in `step`, not here.
#[rustfmt::skip]
const TABLE: [[[Next; State::COUNT]; SegClass::COUNT]; 2] = [
    [ // from the originator
        // SYN: the same one again stays (step compares ISNs before it comes here); another one on an open flow is
        // an attempt that the responder's answer decides (RFC 9293 3.10.7.4: a challenge ACK; RFC 6191 in TIME_WAIT).
        // With both FINs seen the flow is over even if the last ACK was not: nothing can be broken any more.
        [Go(Ss), St, St, At, At, At, At, Bg, Bg, Bg],
        // SYN-ACK: only the second half of a simultaneous open (RFC 9293 figure 8) sends one from here.
        [Go(Sr), Od, Go(Sr), Od, Od, Od, Od, Od, Od, Od],
        // FIN: before the SYN-ACK was seen it is a scan, or the answer went another way. After the first FIN: again,
        // or the second end's, and then last_ack; that is decided in `middle` by who has sent one.
        [Go(Fw), Go(Fw), Go(Fw), Go(Fw), Go(Fw), St, St, St, St, Od],
        // ACK: completes the handshake. In syn_sent the SYN-ACK was missed.
        [Go(Es), Go(Es), Go(Es), Go(Es), St, St, St, St, St, Od],
        // RST.
        [Go(Rs), Go(Rs), Go(Rs), Go(Rs), Go(Rs), Go(Rs), Go(Rs), Go(Rs), St, St],
        // Mixtures.
        [Od, Od, Od, Od, Od, Od, Od, Od, Od, Od],
    ],
    [ // from the responder
        // SYN: crossing SYNs; after that as from the originator, with the roles to be exchanged.
        [Go(Ss), Go(Sx), St, Od, At, At, At, Bg, Bg, Bg],
        // SYN-ACK: the answer; again when the last ACK was lost; on a flow that is over: very late, or another life's.
        [Go(Sr), Go(Sr), Go(Sr), St, St, Od, Od, Od, Od, Od],
        // FIN: in syn_recv of an accept-and-close server whose ACK was missed.
        [Go(Fw), Go(Fw), Go(Fw), Go(Fw), Go(Fw), St, St, St, St, Od],
        // ACK: in syn_sent it answers the SYN with something else than a SYN-ACK (a challenge ACK).
        [Go(Es), Od, St, St, St, St, St, St, St, Od],
        // RST: refuses in syn_sent.
        [Go(Rs), Go(Rs), Go(Rs), Go(Rs), Go(Rs), Go(Rs), Go(Rs), Go(Rs), St, St],
        // Mixtures.
        [Od, Od, Od, Od, Od, Od, Od, Od, Od, Od],
    ],
];

/// What a segment of `class` from `side` does in `state`.
#[inline]
pub const fn next(side: Side, class: SegClass, state: State) -> Next {
    TABLE[side as usize][class as usize][state as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_combination_has_a_class_and_rst_wins_over_fin_and_ack() {
        for bits in 0..512u16 {
            let class = SegClass::of(TcpFlags(bits));
            let f = TcpFlags(bits);
            let (syn, rst, fin, ack) =
                (f.any(TcpFlags::SYN), f.any(TcpFlags::RST), f.any(TcpFlags::FIN), f.any(TcpFlags::ACK));
            let expected = match (syn, rst, fin, ack) {
                (true, false, false, false) => SegClass::Syn,
                (true, false, false, true) => SegClass::SynAck,
                (true, ..) => SegClass::Odd,
                (false, true, ..) => SegClass::Rst,
                (false, false, true, _) => SegClass::Fin,
                (false, false, false, true) => SegClass::Ack,
                (false, false, false, false) => SegClass::Odd,
            };
            assert_eq!(class, expected, "flags {bits:#x}");
        }
    }

    #[test]
    fn the_odd_combinations_are_those_that_nf_conntrack_calls_invalid() {
        use TcpFlags as T;
        // tcp_valid_flags, as the kernel writes it.
        let valid = [
            T::SYN,
            T::SYN | T::URG,
            T::SYN | T::ACK,
            T::RST,
            T::RST | T::ACK,
            T::FIN | T::ACK,
            T::FIN | T::ACK | T::URG,
            T::ACK,
            T::ACK | T::URG,
        ];
        for bits in 0..512u16 {
            let counted = bits & !(T::PSH | T::ECE | T::CWR | T::AE);
            assert_eq!(is_odd(TcpFlags(bits)), !valid.contains(&counted), "flags {bits:#x}");
        }
    }

    #[test]
    fn a_whole_connection_walks_through_the_table() {
        let mut s = State::New;
        for (side, class, expected) in [
            (Side::Orig, SegClass::Syn, State::SynSent),
            (Side::Resp, SegClass::SynAck, State::SynRecv),
            (Side::Orig, SegClass::Ack, State::Established),
            (Side::Resp, SegClass::Ack, State::Established),
            (Side::Resp, SegClass::Fin, State::FinWait),
        ] {
            s = match next(side, class, s) {
                Next::Go(n) => n,
                _ => s,
            };
            assert_eq!(s, expected);
        }
    }

    #[test]
    fn only_a_syn_begins_a_new_life_of_a_flow_that_is_over() {
        for side in [Side::Orig, Side::Resp] {
            for state in [State::LastAck, State::TimeWait, State::Reset] {
                assert_eq!(next(side, SegClass::Syn, state), Next::Begin);
                if state == State::LastAck {
                    continue; // The last ACK, or a reset instead of it, is still to come.
                }
                for class in [SegClass::SynAck, SegClass::Fin, SegClass::Ack, SegClass::Rst, SegClass::Odd] {
                    assert!(!matches!(next(side, class, state), Next::Go(_) | Next::Begin | Next::Attempt));
                }
            }
        }
    }
}
