//! Packets that overtake one another, and packets of which one cannot be true: nothing is said that they do not show.
//!
//! Each case stands beside its nearest true one.

mod common;

use common::of_kind;
use common::packet::{ACK, FIN, PSH, RST, SYN, Tcp};
use common::talk::{Capture, OPTIONS, Talk};
use serde_json::{Value, json};

/// Nothing at all.
#[track_caller]
fn nothing(c: &Capture) {
    let all = c.records();
    assert!(all.is_empty(), "{all:#?}");
}

/// The only record there is.
#[track_caller]
fn one(c: &Capture, kind: &str) -> Value {
    let all = c.records();
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0]["kind"], kind, "{all:#?}");
    all[0].clone()
}

#[track_caller]
fn judged(r: &Value, severity: &str, verdict: &str, certainty: &str) {
    assert_eq!([&r["severity"], &r["verdict"], &r["certainty"]], [severity, verdict, certainty], "{r:#}");
}

#[track_caller]
fn says(r: &Value, words: &str) {
    let summary = r["summary"].as_str().expect("a summary");
    assert!(summary.contains(words), "{summary}");
}

/// The segment with timestamps.
fn at(tcp: Tcp, value: u32) -> Tcp {
    let stamps = [&[1, 1, 8, 10][..], &value.to_be_bytes(), &7u32.to_be_bytes()].concat();
    Tcp { options: [&tcp.options[..], &stamps].concat(), ..tcp }
}

/// A connection with timestamps that was opened and used: the client's clock stands at 130, the server's at 540.
fn opened() -> (Capture, Talk) {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    c.after(5.0, at(t.client(SYN, 0), 100).frame());
    c.after(5.0, at(t.server(SYN | ACK, 0), 500).frame());
    c.after(5.0, at(t.client(ACK, 0), 110).frame());
    c.after(5.0, at(t.client(PSH | ACK, 100), 120).frame());
    c.after(5.0, at(t.server(PSH | ACK, 100), 540).frame());
    c.after(5.0, at(t.client(ACK, 0), 130).frame());
    (c, t)
}

// ---- Overtaken

#[test]
fn a_fin_that_a_later_packet_of_its_sender_overtook_closes_all_the_same() {
    // Its acknowledgement is captured behind it, or before it.
    for acknowledged_first in [false, true] {
        let (mut c, mut t) = opened();
        let fin = at(t.client(FIN | ACK, 0), 150);
        let later = at(t.client(ACK, 0), 152);
        let taken = at(t.server(ACK, 0), 555);
        if acknowledged_first {
            c.after(5.0, taken.frame());
            c.after(0.1, later.frame());
            c.after(0.1, fin.frame());
        } else {
            c.after(5.0, later.frame());
            c.after(0.1, fin.frame());
            c.after(5.0, taken.frame());
        }
        c.after(5.0, at(t.server(FIN | ACK, 0), 560).frame());
        // The client acknowledges it and its copy; the server knows the connection no more.
        c.after(5.0, at(t.client(ACK, 0), 170).frame());
        c.after(5.0, at(t.client(ACK, 0), 171).frame());
        c.after(0.1, t.server(RST, 0).frame());
        c.quiet(400_000.0);
        nothing(&c);
    }
}

#[test]
fn a_reset_after_a_fin_that_was_overtaken_is_after_a_fin() {
    let (mut c, mut t) = opened();
    let fin = at(t.client(FIN | ACK, 0), 150);
    c.after(5.0, at(t.client(ACK, 0), 152).frame());
    c.after(0.1, fin.frame());
    c.after(5.0, t.server(RST | ACK, 0).frame());
    let r = one(&c, "reset_mid_flow");
    judged(&r, "info", "responder", "likely");
    assert_eq!(r["facts"]["after_fin"], true);
}

#[test]
fn a_fin_that_is_older_than_what_its_receiver_holds_closes_nothing() {
    // Of the tuple's life before, by its timestamp: the receiver drops it (RFC 7323 section 5.3), and the reset cuts the client off.
    let (mut c, mut t) = opened();
    c.after(5.0, at(t.clone().client(FIN | ACK, 0), 90).frame());
    c.after(5.0, at(t.server(RST | ACK, 0), 560).frame());
    let r = one(&c, "reset_mid_flow");
    judged(&r, "warning", "responder", "likely");
    assert_eq!((&r["facts"]["after_fin"], &r["facts"]["state"]), (&json!(false), &json!("established")));
}

#[test]
fn data_that_overtake_one_another_leave_the_clock_where_the_newest_put_it() {
    let (mut c, mut t) = opened();
    let [first, second, third] = [150, 151, 152].map(|value| at(t.client(PSH | ACK, 100), value));
    for overtaken in [third, first, second] {
        c.after(0.1, overtaken.frame());
    }
    c.after(5.0, at(t.server(ACK, 0), 560).frame());
    t.close(&mut c);
    nothing(&c);
}

/// A SYN-ACK, and behind it the SYN with `sent` bytes of data of which it takes `taken`.
fn fast_open(sent: usize, taken: u32) -> Capture {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    t.options = [&OPTIONS[..], &[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]].concat();
    let isn = t.next[0];
    let syn = t.client(SYN, sent);
    t.next[0] = isn + 1 + taken;
    c.after(0.0, Tcp { options: OPTIONS.to_vec(), ..t.server(SYN | ACK, 0) }.frame());
    c.after(0.1, syn.frame());
    c.after(1.0, t.client(ACK, sent - taken as usize).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    c
}

#[test]
fn a_syn_ack_that_was_captured_before_the_data_in_the_syn_answers_it() {
    for taken in [300, 200] {
        nothing(&fast_open(300, taken));
    }
    let r = one(&fast_open(300, 0), "tfo_refused");
    judged(&r, "info", "responder", "proven");
    // One that acknowledges more than the SYN has is no answer to it.
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    let syn = t.client(SYN, 300);
    t.next[0] += 1;
    c.after(0.0, t.server(SYN | ACK, 0).frame());
    c.after(0.1, syn.frame());
    c.quiet(30_000.0);
    assert_eq!(of_kind(&c.records(), "syn_on_live_flow").len(), 1);
}

#[test]
fn a_syn_that_was_captured_behind_the_whole_handshake_attacks_nobody() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    let syn = t.client(SYN, 0);
    c.after(0.0, t.server(SYN | ACK, 0).frame());
    c.after(0.1, t.client(ACK, 0).frame());
    c.after(0.1, syn.frame());
    t.exchange(&mut c);
    t.close(&mut c);
    let all = c.records();
    assert!(all.iter().all(|r| r["severity"] == "info"), "{all:#?}");
    assert!(of_kind(&all, "syn_on_live_flow").is_empty(), "{all:#?}");
    // Another's is a SYN on a connection that is open.
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    let syn = Tcp { seq: 77, ..t.client(SYN, 0) };
    c.after(0.0, t.server(SYN | ACK, 0).frame());
    c.after(0.1, t.client(ACK, 0).frame());
    c.after(0.1, syn.frame());
    t.exchange(&mut c);
    assert_eq!(of_kind(&c.records(), "syn_on_live_flow").len(), 1);
}

#[test]
fn a_syn_that_comes_once_more_after_the_close_opens_nothing() {
    for stamps in [true, false] {
        for (later, reset) in [(3.0, false), (3.0, true), (20_000.0, false)] {
            let stamp = |tcp: Tcp, value| if stamps { at(tcp, value) } else { tcp };
            let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
            let syn = stamp(t.client(SYN, 0), 100);
            c.after(5.0, syn.frame());
            c.after(5.0, stamp(t.server(SYN | ACK, 0), 500).frame());
            c.after(5.0, stamp(t.client(ACK, 0), 110).frame());
            c.after(5.0, stamp(t.client(PSH | ACK, 100), 120).frame());
            c.after(5.0, stamp(t.server(FIN | ACK, 0), 540).frame());
            let mut told = 0;
            if reset {
                c.after(5.0, t.client(RST | ACK, 0).frame());
                told = 1;
            } else {
                c.after(5.0, stamp(t.client(FIN | ACK, 0), 130).frame());
                c.after(5.0, stamp(t.server(ACK, 0), 550).frame());
            }
            // The server still holds the connection; who sent the SYN does not.
            c.after(later, syn.frame());
            c.after(5.0, stamp(t.server(ACK, 0), 560).frame());
            c.after(5.0, Tcp { seq: t.next[0], ..t.client(RST, 0) }.frame());
            c.quiet(30_000.0);
            let all = c.records();
            let told = told + usize::from(later > 5_000.0); // What is so late is a stray's, and reset as such.
            assert!(
                all.len() <= told && all.iter().all(|r| r["severity"] == "info"),
                "{stamps} {later}: {all:#?}"
            );
        }
    }
    // With a newer timestamp, or another identification, it is an attempt that is refused.
    for stamps in [true, false] {
        let stamp = |tcp: Tcp, value| if stamps { at(tcp, value) } else { tcp };
        let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
        let syn = t.client(SYN, 0);
        c.after(5.0, stamp(syn.clone(), 100).frame());
        c.after(5.0, stamp(t.server(SYN | ACK, 0), 500).frame());
        c.after(5.0, stamp(t.client(ACK, 0), 110).frame());
        c.after(5.0, stamp(t.server(FIN | ACK, 0), 540).frame());
        c.after(5.0, stamp(t.client(FIN | ACK, 0), 130).frame());
        c.after(5.0, stamp(t.server(ACK, 0), 550).frame());
        c.after(2_000.0, stamp(Tcp { id: 9, ..syn }, 2_130).frame());
        c.after(5.0, stamp(t.server(ACK, 0), 2_560).frame());
        c.after(5.0, Tcp { seq: t.next[0], ..t.client(RST, 0) }.frame());
        c.quiet(30_000.0);
        assert_eq!(of_kind(&c.records(), "tuple_reuse_refused").len(), 1, "{stamps}");
    }
}

// ---- Closed at once

/// MPTCP's fast close with the other end's key, of RFC 8684 section 3.5.
const FAST_CLOSE: [u8; 12] = [30, 12, 0x70, 0, 1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn a_reset_that_a_fast_close_asks_for_is_a_close_by_who_asked() {
    for client in [true, false] {
        let (mut c, mut t) = opened();
        let ask = if client { t.client(ACK, 0) } else { t.server(ACK, 0) };
        c.after(
            5.0,
            Tcp { options: [&at(ask.clone(), 600).options[..], &FAST_CLOSE].concat(), ..ask }.frame(),
        );
        let reset = if client { t.server(RST | ACK, 0) } else { t.client(RST | ACK, 0) };
        c.after(5.0, reset.frame());
        let r = one(&c, "reset_mid_flow");
        judged(&r, "info", if client { "originator" } else { "responder" }, "likely");
        says(&r, "closed at once (MPTCP fast close)");
    }
    // The other subtypes of the option ask for nothing, nor does the reset's own sender.
    let (mut c, mut t) = opened();
    let other = t.client(ACK, 0);
    c.after(5.0, Tcp { options: vec![30, 12, 0x20, 1, 1, 2, 3, 4, 5, 6, 7, 8], ..other }.frame());
    let own = Tcp { options: FAST_CLOSE.to_vec(), ..t.server(RST | ACK, 0) };
    c.after(5.0, own.frame());
    judged(&one(&c, "reset_mid_flow"), "warning", "responder", "likely");
}

// ---- Counted, and said to have come

#[test]
fn an_answer_that_was_not_seen_is_not_said_to_have_come() {
    for seen in [false, true] {
        let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
        let syn = t.client(SYN, 0);
        c.after(0.0, syn.frame());
        c.after(1_000.0, Tcp { id: 7, ..syn }.frame());
        let answer = t.server(SYN | ACK, 0);
        if seen {
            c.after(100.0, answer.frame());
        }
        c.after(100.0, t.client(ACK, 0).frame());
        t.exchange(&mut c);
        t.close(&mut c);
        let r = one(&c, "syn_unanswered");
        says(
            &r,
            if seen { "the SYN-ACK came 1.1 s after the first" } else { "an answer came that was not seen" },
        );
    }
}

#[test]
fn each_syn_ack_that_a_syn_drew_is_counted() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    let (syn, answer) = (t.client(SYN, 0), t.server(SYN | ACK, 0));
    for (n, ms) in [0.0, 1_000.0, 0.5].into_iter().enumerate() {
        c.after(ms, Tcp { id: n as u16 + 1, ..syn.clone() }.frame());
        c.after(8.0, Tcp { id: n as u16 + 1, ..answer.clone() }.frame());
    }
    c.after(0.5, t.client(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    let r = one(&c, "synack_unacknowledged");
    assert_eq!(r["facts"]["attempts"], 3);
    judged(&r, "warning", "network", "likely");
}

#[test]
fn a_duplicate_of_a_syn_and_its_answer_make_nobody_wait() {
    for goes_on in [true, false] {
        let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
        let (syn, answer) = (t.client(SYN, 0), t.server(SYN | ACK, 0));
        for id in [1, 2] {
            c.after(1.0, Tcp { id, ..syn.clone() }.frame());
            c.after(8.0, Tcp { id, ..answer.clone() }.frame());
        }
        if goes_on {
            c.after(0.5, t.client(ACK, 0).frame());
            t.exchange(&mut c);
            t.close(&mut c);
        } else {
            c.quiet(140_000.0);
        }
        nothing(&c);
    }
}

// ---- One of two is not its own

/// A server's reset and its new data after it, with their TTLs; its packets before have 57.
fn both(reset: u8, data: u8, stamped: bool) -> Value {
    let (mut c, mut t) = opened();
    c.after(5.0, Tcp { ttl: reset, ..t.server(RST | ACK, 0) }.frame());
    let new = Tcp { ttl: data, ..t.server(PSH | ACK, 100) };
    c.after(500.0, if stamped { at(new, 600).frame() } else { new.frame() });
    let all = c.records();
    let of = of_kind(&all, "reset_ignored");
    assert_eq!(of.len(), 1, "{all:#?}");
    of[0].clone()
}

#[test]
fn which_of_a_reset_and_what_follows_it_is_forged_is_said_if_something_tells() {
    for (reset, data, stamped, certainty, words) in [
        (61, 57, true, "proven", "it did not send that reset"),
        (57, 61, true, "likely", "the reset is like its other packets, the data are not its own"),
        // A segment without the timestamps that were agreed upon.
        (57, 57, false, "likely", "the reset is like its other packets, the data are not its own"),
        (57, 57, true, "likely", "the reset is not its own, or the data are not"),
        (61, 62, true, "proven", "the reset is not its own, or the data are not"),
        (61, 57, false, "proven", "the reset is not its own, or the data are not"),
    ] {
        let r = both(reset, data, stamped);
        judged(&r, "warning", "middlebox", certainty);
        says(&r, words);
    }
}

#[test]
fn of_a_refusal_and_an_answer_nobody_knows_which_is_forged() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    c.after(0.0, t.client(SYN, 0).frame());
    c.after(5.0, Tcp { ttl: 60, ..t.clone().server(RST | ACK, 0) }.frame());
    c.after(5.0, t.server(SYN | ACK, 0).frame());
    let all = c.records();
    let r = of_kind(&all, "reset_ignored");
    judged(r[0], "warning", "middlebox", "proven");
    says(
        r[0],
        "accepts the SYN after a reset in its name (TTL 60 there, 57 here): the reset is not its own, or the SYN-ACK is not",
    );
}
