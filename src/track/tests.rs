//! Whole conversations through the tracker, segment by segment.

use super::*;
use crate::flow::Side;
use crate::wire::{Nanos, Segment, Seq, TcpFlags, TcpOptions};

const O: Side = Side::Orig;
const R: Side = Side::Resp;

/// A flow fed by hand: times in milliseconds, flags in tcpdump's letters.
struct Talk {
    flow: Flow,
    coverage: Coverage,
    ended: Vec<Ended>,
    resets: Vec<ResetSeen>,
    over: Vec<&'static str>,
}

fn at(ms: u64) -> Nanos {
    Nanos(1_000 * Nanos::SEC + ms * Nanos::MS)
}

impl Talk {
    fn new() -> Talk {
        Talk { flow: Flow::default(), coverage: Coverage::All, ended: vec![], resets: vec![], over: vec![] }
    }

    /// Where data may pass unseen.
    fn selected() -> Talk {
        Talk { coverage: Coverage::Selected, ..Talk::new() }
    }

    fn say(&mut self, ms: u64, end: Side, flags: &str, seq: u32, ack: u32, len: u32) -> &mut Talk {
        self.say_ts(ms, end, flags, seq, ack, len, None)
    }

    #[allow(clippy::too_many_arguments)]
    fn say_ts(
        &mut self,
        ms: u64,
        end: Side,
        flags: &str,
        seq: u32,
        ack: u32,
        len: u32,
        ts: Option<(u32, u32)>,
    ) -> &mut Talk {
        let bits = flags.chars().map(|c| match c {
            'S' => TcpFlags::SYN,
            'F' => TcpFlags::FIN,
            'R' => TcpFlags::RST,
            'P' => TcpFlags::PSH,
            _ => TcpFlags::ACK,
        });
        let seg = Segment {
            seq: Seq(seq),
            ack: Seq(ack),
            flags: TcpFlags(bits.fold(0, |a, b| a | b)),
            payload: len,
            win: 1_000,
            ttl: 64,
            options: TcpOptions { ts, ..TcpOptions::default() },
            ..Segment::default()
        };
        while self.flow.deadline.0 != 0 && self.flow.deadline <= at(ms) {
            let now = at(ms);
            match self.flow.timer(now) {
                Some(step) => self.ended.extend(step.ended),
                None => self.flow = Flow::default(),
            }
        }
        let over = &mut self.over;
        let step = self.flow.step(&seg, end, at(ms), self.coverage, |old| over.push(old.conn_state()));
        self.ended.extend(step.ended);
        self.resets.extend(step.reset);
        self
    }

    /// SYN 100, SYN-ACK 500, ACK, 10 bytes each way.
    fn open(&mut self) -> &mut Talk {
        self.say(0, O, "S", 100, 0, 0)
            .say(1, R, "S.", 500, 101, 0)
            .say(2, O, ".", 101, 501, 0)
            .say(3, O, "P.", 101, 501, 10)
            .say(4, R, "P.", 501, 111, 10)
    }

    /// Closed by the responder first, both FINs acknowledged at 13 ms.
    fn closed_by_responder(&mut self) -> &mut Talk {
        self.open()
            .say(10, R, "F.", 511, 111, 0)
            .say(11, O, ".", 111, 512, 0)
            .say(12, O, "F.", 111, 512, 0)
            .say(13, R, ".", 512, 112, 0)
    }

    fn last(&self) -> &Ended {
        self.ended.last().expect("an attempt ended")
    }
}

#[test]
fn a_connection_opens_closes_and_is_remembered() {
    let mut t = Talk::new();
    t.closed_by_responder();
    assert_eq!(t.flow.state, State::TimeWait);
    assert_eq!(t.flow.closed_first, Some(R));
    assert_eq!(t.flow.closed_at, at(13));
    assert_eq!(t.flow.history(), "ShADdfFa");
    assert_eq!(t.flow.conn_state(), "SF");
    assert_eq!((t.flow.ends[0].bytes(), t.flow.ends[1].bytes()), (Some(10), Some(10)));
    assert_eq!(t.last().outcome, Outcome::Accepted);
    assert_eq!(t.flow.as_past().held_by(R), OldState::TimeWait);
    assert_eq!(t.flow.as_past().held_by(O), OldState::Unknown);
}

#[test]
fn a_refused_reuse_keeps_the_numbers_of_the_life_before() {
    let mut t = Talk::new();
    t.closed_by_responder();
    for n in 0..3 {
        t.say(55_000 + 1_000 * n, O, "S", 50, 0, 0).say(55_001 + 1_000 * n, R, ".", 512, 112, 0);
    }
    t.say(58_000, O, "R.", 51, 0, 0);
    let e = t.last();
    assert_eq!(e.outcome, Outcome::Aborted);
    assert_eq!((e.attempt.syns, e.attempt.stale_acks), (3, 3));
    let stale = e.attempt.stale.expect("a stale ACK was seen");
    assert_eq!((stale.seq, stale.ack), (Seq(512), Seq(112)));
    assert_eq!(e.past.held_by(R), OldState::TimeWait);
    assert_eq!(e.past.next[0], Seq(112));
    assert_eq!(t.over, ["SF"]);
}

#[test]
fn a_linux_client_resets_the_stale_ack_and_comes_through() {
    let mut t = Talk::new();
    t.closed_by_responder();
    t.say(30_000, O, "S", 50, 0, 0).say(30_001, R, ".", 512, 112, 0).say(30_002, O, "R", 112, 0, 0);
    assert_eq!(t.flow.state, State::SynSent, "the reset kills TIME_WAIT and not the attempt");
    t.say(30_014, O, "S", 50, 0, 0).say(30_015, R, "S.", 900, 51, 0);
    let e = t.last();
    assert_eq!((e.outcome, e.attempt.syns, e.attempt.stale_acks), (Outcome::Accepted, 2, 1));
    assert_eq!(e.attempt.stray_rst, Some(Seq(112)));
}

#[test]
fn a_syn_on_a_live_flow_waits_for_the_answer_before_the_old_life_ends() {
    let mut t = Talk::new();
    t.open().say(9_000, O, "S", 77_000, 0, 0);
    assert_eq!(t.flow.state, State::Established);
    // The responder challenges, the originator goes on as before: a forged or a late SYN.
    t.say(9_001, R, ".", 511, 111, 0).say(9_100, O, "P.", 111, 511, 5);
    assert_eq!(t.last().outcome, Outcome::OldLifeWentOn);
    assert!(t.over.is_empty());
    // Another one, and this time the responder has forgotten.
    t.say(20_000, O, "S", 88_000, 0, 0).say(20_001, R, "S.", 6_000, 88_001, 0);
    assert_eq!(t.last().outcome, Outcome::Accepted);
    assert_eq!(t.over, ["S1"]);
    assert_eq!((t.flow.state, t.flow.history()), (State::SynRecv, "Sh"));
}

#[test]
fn a_syn_without_an_answer_is_given_up_after_twice_its_last_gap() {
    let mut t = Talk::new();
    t.say(0, O, "S", 100, 0, 0).say(1_000, O, "S", 100, 0, 0).say(3_000, O, "S", 100, 0, 0);
    t.say(7_000, O, "S", 100, 0, 0);
    assert!(t.ended.is_empty(), "the timer doubles: 4 s is not silence");
    t.say(15_000, O, "S", 100, 0, 0);
    assert!(t.ended.is_empty());
    let step = t.flow.timer(at(15_000 + 17_000)).expect("the flow is kept");
    assert_eq!(step.ended.expect("given up").outcome, Outcome::Expired);
    // The same SYN after that is the same episode.
    t.say(40_000, O, "S", 100, 0, 0);
    assert!(!t.flow.attempt.pending);
}

#[test]
fn a_reset_on_an_open_flow_is_noted_once_with_its_window() {
    let mut t = Talk::new();
    t.open().say(5, O, ".", 111, 511, 0).say(100, R, "R.", 511, 111, 0).say(101, R, "R.", 511, 111, 0);
    assert_eq!(t.resets.len(), 1);
    assert_eq!(t.resets[0].in_window, Some(true));
    let mut t = Talk::new();
    t.open().say(5, O, ".", 111, 511, 0).say(100, R, "R", 400_000, 0, 0);
    assert_eq!(t.resets[0].in_window, None, "beyond: packets may have been missed");
    assert_eq!(t.flow.state, State::Reset);
    let mut t = Talk::new();
    t.open().say(5, O, ".", 111, 511, 0).say(100, R, "R", 501, 0, 0);
    assert_eq!(t.resets[0].in_window, Some(false), "behind: its receiver drops it");
    assert_eq!(t.flow.state, State::Established);
}

/// Sequence numbers this far on look as if they were behind (RFC 9293 section 3.4).
const UNSEEN: u32 = 2_700_000_000;

#[test]
fn where_data_may_have_passed_unseen_a_reset_that_looks_behind_is_believed() {
    let reset = |mut t: Talk, ms: u64| {
        t.open().say(5, O, ".", 111, 511, 0).say(ms, R, "R.", 511 + UNSEEN, 111, 0);
        (t.resets[0].in_window, t.flow.state, t.flow.end(R).bytes())
    };
    assert_eq!(reset(Talk::selected(), 1_400), (None, State::Reset, Some(10 + u64::from(UNSEEN))));
    // 2.7 GB take 216 ms at 100 Gbit/s.
    assert_eq!(reset(Talk::selected(), 200), (Some(false), State::Established, Some(10)));
    assert_eq!(reset(Talk::selected(), 225).0, None);
    // Where every packet is seen it is forged, or of another life.
    assert_eq!(reset(Talk::new(), 1_400), (Some(false), State::Established, Some(10)));
}

#[test]
fn what_was_just_seen_of_either_end_leaves_no_time_for_unseen_data() {
    for end in [O, R] {
        let mut t = Talk::selected();
        t.open().say(5, O, ".", 111, 511, 0);
        let (seq, ack) = if end == O { (111, 511) } else { (511, 111) };
        t.say(1_400, end, ".", seq, ack, 0).say(1_405, R, "R.", 511 + UNSEEN, 111, 0);
        assert_eq!((t.resets[0].in_window, t.flow.state), (Some(false), State::Established), "{end:?}");
    }
}

#[test]
fn fins_behind_unseen_data_close_and_the_tuple_is_free() {
    let fins = |mut t: Talk| {
        t.open().say(5, O, ".", 111, 511, 0).say(1_400, R, "F.", 511 + UNSEEN, 111, 0);
        t.say(1_401, O, "F.", 111, 512 + UNSEEN, 0).say(1_402, R, ".", 512 + UNSEEN, 112, 0);
        let closed = (t.flow.state, t.flow.closed_first, t.flow.end(R).bytes());
        // The next life.
        t.say(1_600, O, "S", 9_000, 0, 0);
        (closed, t.flow.state, t.flow.attempt.on_live.is_some())
    };
    let closed = (State::TimeWait, Some(R), Some(10 + u64::from(UNSEEN)));
    assert_eq!(fins(Talk::selected()), (closed, State::SynSent, false));
    let (one_sided, _, on_live) = fins(Talk::new());
    assert_eq!((one_sided.0, on_live), (State::FinWait, true), "with every packet seen that FIN is none");
}

#[test]
fn numbers_go_on_from_what_is_seen_after_unseen_data() {
    let far = 511 + UNSEEN;
    let mut t = Talk::selected();
    t.open().say(5, O, ".", 111, 511, 0);
    // The one who acknowledges is seen first, then who sends.
    t.say(1_400, O, ".", 111, far, 0).say(1_401, R, "P.", far, 111, 10).say(1_402, O, ".", 111, far + 10, 0);
    let [o, r] = &t.flow.ends;
    assert_eq!((r.next, o.ack), (Seq(far + 10), Seq(far + 10)));
    assert_eq!(t.flow.tallies.unheard, [0, 0]);
    t.say(1_403, R, "R.", far + 10, 111, 0);
    assert_eq!(t.resets[0].in_window, Some(true));
    // A retransmission and a keep-alive after a silence are what they are everywhere.
    let mut t = Talk::selected();
    t.open().say(5, O, ".", 111, 511, 0).say(3_000, R, ".", 510, 111, 0).say(6_000, R, "P.", 501, 111, 10);
    assert_eq!(t.flow.end(R).next, Seq(511));
}

#[test]
fn an_answer_that_comes_late_still_answers_its_syn() {
    let mut t = Talk::new();
    t.say(0, O, "S", 100, 0, 0).say(1_000, O, "S", 100, 0, 0).say(3_000, O, "S", 100, 0, 0);
    t.say(7_000, O, "S", 100, 0, 0).say(7_050, R, "S.", 500, 101, 0).say(7_051, O, ".", 101, 501, 0);
    assert_eq!(t.ended.len(), 1);
    assert_eq!((t.ended[0].outcome, t.ended[0].attempt.syns), (Outcome::Accepted, 4));
    assert_eq!(t.flow.state, State::Established);
    let mut t = Talk::new();
    t.say(0, O, "S", 100, 0, 0).say(6_000, R, "R.", 0, 101, 0);
    assert_eq!(t.ended[0].outcome, Outcome::Refused);
    assert_eq!(t.over, [""; 0], "one life");
}

#[test]
fn a_fin_sent_again_does_not_close_the_other_direction() {
    let mut t = Talk::new();
    t.open().say(10, O, "F.", 111, 511, 0).say(11, R, ".", 511, 112, 0).say(300, O, "F.", 111, 511, 0);
    assert_eq!(t.flow.state, State::HalfClosed);
    t.say(400, R, "F.", 511, 112, 0);
    assert_eq!(t.flow.state, State::LastAck);
}

#[test]
fn an_acknowledgement_of_data_that_was_not_captured_is_no_refusal() {
    // The SYN-ACK and the first data are missing; the responder echoes the SYN's own timestamp.
    let mut t = Talk::new();
    t.say_ts(0, O, "S", 1_000, 0, 0, Some((777, 0))).say_ts(2, R, ".", 5_001, 1_321, 0, Some((900, 777)));
    assert_eq!(t.ended[0].outcome, Outcome::Accepted);
    assert_eq!(t.ended[0].attempt.stale_acks, 0);
    // Without timestamps: a little after the ISN.
    let mut t = Talk::new();
    t.say(0, O, "S", 1_000, 0, 0).say(2, R, ".", 5_001, 1_321, 0);
    assert_eq!(t.ended[0].outcome, Outcome::Accepted);
    // An old timestamp is that of an old life.
    let mut t = Talk::new();
    t.say_ts(0, O, "S", 1_000, 0, 0, Some((777, 0))).say_ts(2, R, ".", 5_001, 1_321, 0, Some((900, 500)));
    assert_eq!(t.flow.attempt.stale_acks, 1);
}

#[test]
fn a_timestamp_that_is_only_a_little_newer_than_the_syns_is_still_that_of_an_old_life() {
    // Measured: another client of the gateway had the tuple before, its clock 17 minutes ahead.
    let mut t = Talk::new();
    t.say_ts(0, O, "S", 1_132_306_996, 0, 0, Some((2_512_233_567, 0)));
    t.say_ts(1, R, ".", 7, 3_957_877_118, 0, Some((9, 2_513_251_666)));
    assert!(t.ended.is_empty());
    assert_eq!(t.flow.attempt.stale_acks, 1);
    // By the number alone the originator could have sent so much; its clock cannot have come so far.
    let mut t = Talk::new();
    t.say_ts(0, O, "S", 1_000, 0, 0, Some((777, 0))).say_ts(1, R, ".", 5_001, 9_000, 0, Some((900, 3_777)));
    assert_eq!(t.flow.attempt.stale_acks, 1);
    // In three seconds it can.
    let mut t = Talk::new();
    t.say_ts(0, O, "S", 1_000, 0, 0, Some((777, 0)));
    t.say_ts(2_900, R, ".", 5_001, 9_000, 0, Some((900, 3_600)));
    assert_eq!(t.ended[0].outcome, Outcome::Accepted);
    // A number before the ISN is not of this SYN, whatever the clock.
    let mut t = Talk::new();
    t.say_ts(0, O, "S", 9_000, 0, 0, Some((777, 0))).say_ts(1, R, ".", 5_001, 1_000, 0, Some((900, 778)));
    assert_eq!(t.flow.attempt.stale_acks, 1);
    // Nor is an answer with a timestamp to a SYN without.
    let mut t = Talk::new();
    t.say(0, O, "S", 1_000, 0, 0).say_ts(1, R, ".", 5_001, 1_321, 0, Some((900, 778)));
    assert_eq!(t.flow.attempt.stale_acks, 1);
}

#[test]
fn a_reset_that_a_waiting_originator_does_not_believe_ends_nothing() {
    for (flags, ack) in [("R", 0), ("R.", 100)] {
        let mut t = Talk::new();
        t.say(0, O, "S", 100, 0, 0).say(1, R, flags, 0, ack, 0).say(2, R, "S.", 500, 101, 0);
        assert_eq!(t.ended[0].outcome, Outcome::Accepted);
        // One without an acknowledgement may be the responder's own, of the life before.
        assert_eq!(t.flow.tallies.unbelieved, ack != 0);
    }
    // Linux asks for its own timestamp first.
    let mut t = Talk::new();
    t.say_ts(0, O, "S", 100, 0, 0, Some((5_000, 0))).say_ts(1, R, "R.", 0, 101, 0, Some((1, 100)));
    assert!(t.ended.is_empty());
}

#[test]
fn a_third_packet_that_does_not_fit_opens_nothing() {
    let mut t = Talk::new();
    t.say(0, O, "S", 100, 0, 0).say(1, R, "S.", 500, 101, 0).say(2, O, ".", 101, 900_000, 0);
    assert_eq!(t.flow.state, State::SynRecv);
    assert_eq!(t.flow.end(Side::Resp).bytes(), Some(0), "it does not say what the responder sent");
    t.say(3, O, ".", 101, 501, 0);
    assert_eq!(t.flow.state, State::Established);
}

#[test]
fn odd_flags_do_not_settle_who_called_twice() {
    // A null scan: the answering reset is the responder's.
    let mut t = Talk::new();
    t.say(0, O, "P", 100, 0, 0).say(1, R, "R.", 0, 100, 0);
    assert_eq!((t.flow.conn_state(), t.flow.history()), ("RSTRH", "r"));
}

#[test]
fn a_syn_ack_captured_before_its_syn_is_one_handshake() {
    let mut t = Talk::new();
    t.say(1, R, "S.", 500, 101, 0).say(1, O, "S", 100, 0, 0).say(2, O, ".", 101, 501, 0);
    assert_eq!(t.flow.state, State::Established);
    assert!(t.over.is_empty() && !t.flow.attempt.pending);
}

#[test]
fn a_refusal_must_acknowledge_the_syn() {
    let mut t = Talk::new();
    t.say(0, O, "S", 100, 0, 0).say(1, R, "R.", 0, 777, 0);
    assert!(t.ended.is_empty(), "a reset with a wrong ack is ignored by SYN_SENT");
    t.say(2, R, "R.", 0, 101, 0);
    assert_eq!(t.last().outcome, Outcome::Refused);
    assert_eq!(t.flow.conn_state(), "REJ");
}

#[test]
fn fins_that_cross_leave_both_ends_waiting() {
    let mut t = Talk::new();
    t.open().say(10, R, "F.", 511, 111, 0).say(10, O, "F.", 111, 511, 0);
    t.say(11, R, ".", 512, 112, 0).say(11, O, ".", 112, 512, 0);
    assert_eq!((t.flow.state, t.flow.closed_first), (State::TimeWait, None));
    assert_eq!(t.flow.as_past().held_by(R), OldState::TimeWait);
    assert_eq!(t.flow.as_past().held_by(O), OldState::TimeWait);
}

#[test]
fn a_syn_in_the_window_of_fin_wait2_is_reset_and_the_tuple_is_free() {
    let mut t = Talk::new();
    t.open().say(10, R, "F.", 511, 111, 0).say(11, O, ".", 111, 512, 0);
    assert_eq!(t.flow.as_past().held_by(R), OldState::FinWait2);
    t.say(500, O, "S", 1_111, 0, 0).say(501, R, "R.", 0, 1_112, 0);
    let e = t.last();
    assert_eq!((e.outcome, e.attempt.stale_acks), (Outcome::Refused, 0));
    assert_eq!(e.attempt.on_live.map(|(state, _)| state), Some(State::HalfClosed));
    assert!(t.resets.is_empty(), "the reset is the SYN's answer, and not one of the old connection");
    t.say(900, O, "S", 1_111, 0, 0).say(901, R, "S.", 8_000, 1_112, 0);
    assert_eq!((t.last().outcome, t.last().attempt.on_live), (Outcome::Accepted, None));
}
