//! The nearest innocent case of each rule about resets and ends.

use super::*;

#[test]
fn a_reset_after_both_fins_is_the_end_and_no_record() {
    let (mut c, mut t) = opened();
    c.after(5.0, t.client(FIN | ACK, 0).frame());
    c.after(5.0, t.server(FIN | ACK, 0).frame());
    c.after(5.0, t.client(RST, 0).frame());
    nothing(&c);
}

#[test]
fn fins_that_cross_are_an_ordinary_end() {
    let (mut c, mut t) = opened();
    let ack = t.next[0];
    c.after(5.0, t.client(FIN | ACK, 0).frame());
    c.after(0.1, Tcp { ack, ..t.server(FIN | ACK, 0) }.frame());
    c.after(5.0, t.server(ACK, 0).frame());
    c.after(0.1, t.client(ACK, 0).frame());
    c.quiet(400_000.0);
    nothing(&c);
}

#[test]
fn a_reset_by_the_client_or_of_an_idle_connection_hurts_nobody() {
    let (mut c, mut t) = opened();
    c.after(5.0, t.client(RST | ACK, 0).frame());
    let mut idle = Talk::new(40_001);
    idle.open(&mut c);
    idle.exchange(&mut c);
    c.after(30_000.0, idle.server(RST | ACK, 0).frame());
    let all = c.records();
    only(&all, &[("reset_mid_flow", 2)]);
    assert!(all.iter().all(|r| r["severity"] == "info"), "{all:#?}");
}

#[test]
fn a_responder_that_has_forgotten_an_idle_connection_does_not_tidy_up() {
    // Without an acknowledgement it answers somebody who still uses it (RFC 9293 3.10.7.1).
    let (mut c, mut t) = opened();
    c.after(30_000.0, t.server(RST, 0).frame());
    let all = c.records();
    only(&all, &[("reset_mid_flow", 1)]);
    assert_eq!(
        (&all[0]["severity"], &all[0]["verdict"]),
        (&"warning".into(), &"responder".into()),
        "{all:#?}"
    );
    assert!(
        all[0]["summary"].as_str().expect("text").ends_with("it knew no such connection any more"),
        "{all:#?}"
    );
    let (mut c, mut t) = opened();
    c.after(30_000.0, t.client(RST, 0).frame());
    assert_eq!(c.records()[0]["severity"], "info", "the originator's own");
}

#[test]
fn one_that_answers_that_it_knows_no_such_connection_is_not_to_blame() {
    for (flags, verdict) in [(RST, "unknown"), (RST | ACK, "responder")] {
        let mut c = Capture::default();
        let mut t = Talk::new(40_000);
        // Opened before the capture, or on another tuple.
        c.after(5.0, t.client(PSH | ACK, 100).frame());
        let reset = t.server(flags, 0);
        c.after(5.0, Tcp { seq: t.next[1], ..reset }.frame());
        let all = c.records();
        only(&all, &[("reset_mid_flow", 1)]);
        assert_eq!((&all[0]["verdict"], &all[0]["severity"]), (&verdict.into(), &"info".into()), "{all:#?}");
    }
}

#[test]
fn who_began_is_not_guessed_from_two_high_ports() {
    for (port, severity, verdict, certainty) in
        [(5_432, "info", "unknown", "possible"), (443, "info", "originator", "likely")]
    {
        let (mut c, mut t) = (Capture::default(), Talk::to((CLIENT, 40_000), (SERVER, port)));
        // Opened before the capture; the first packet of it is the server's, and the client aborts.
        for _ in 0..2 {
            c.after(5.0, t.server(PSH | ACK, 100).frame());
            c.after(5.0, t.client(ACK, 0).frame());
        }
        c.after(5.0, t.client(RST | ACK, 0).frame());
        let all = c.records();
        only(&all, &[("reset_mid_flow", 1)]);
        let r = &all[0];
        assert_eq!(
            [&r["severity"], &r["verdict"], &r["certainty"]],
            [severity, verdict, certainty],
            "{port}: {all:#?}"
        );
    }
}

#[test]
fn a_reuse_whose_only_syn_is_accepted_was_not_refused() {
    let (mut c, mut t) = opened();
    t.exchange(&mut c);
    t.close(&mut c);
    let old = t.next[0];
    let mut next = t.again(5);
    c.after(5.0, next.client(SYN, 0).frame());
    // On its way since before; the client resets it, and the SYN is answered all the same.
    c.after(0.1, Tcp { ack: old, ..t.server(ACK, 0) }.frame());
    c.after(0.1, Tcp { seq: old, ack: 0, flags: RST, ..t.client(ACK, 0) }.frame());
    c.after(0.1, next.server(SYN | ACK, 0).frame());
    c.after(0.1, next.client(ACK, 0).frame());
    let all = c.records();
    assert!(of_kind(&all, "tuple_reuse_refused").is_empty(), "{all:#?}");
}

#[test]
fn where_originators_alone_are_seen_nobody_floods() {
    // The answers take another way: a second of 1,500 connections, of which each goes on past its SYN.
    for (one_way, floods) in [(true, false), (false, true)] {
        let mut c = Capture::default();
        for n in 0..4_500u16 {
            let mut t = Talk::new(10_000 + n);
            c.after(0.2, t.client(SYN, 0).frame());
            if one_way {
                t.server(SYN | ACK, 0);
                c.after(0.2, t.client(ACK, 0).frame());
                c.after(0.2, t.client(FIN | ACK, 0).frame());
            } else {
                c.after(0.4, Talk::new(9).client(ACK, 0).frame());
            }
        }
        let all = c.records();
        assert_eq!(!of_kind(&all, "syn_flood").is_empty(), floods, "{:#?}", of_kind(&all, "syn_flood"));
    }
}

#[test]
fn a_reset_that_the_originators_fin_crosses_cuts_nobody_off() {
    // Windows' directory servers end so what their clients end: everything is acknowledged, and the client closes as well.
    for (ms, severity) in [(0.004, "info"), (200.0, "info"), (400.0, "warning")] {
        let (mut c, mut t) = opened();
        c.after(5.0, t.client(PSH | ACK, 43).frame());
        c.after(0.1, t.server(RST | ACK, 0).frame());
        c.after(ms, t.client(FIN | ACK, 0).frame());
        let all = c.records();
        only(&all, &[("reset_mid_flow", 1)]);
        assert_eq!(
            (&all[0]["severity"], &all[0]["verdict"]),
            (&severity.into(), &"responder".into()),
            "{all:#?}"
        );
    }
    // One that goes on was cut off.
    let (mut c, mut t) = opened();
    c.after(5.0, t.client(PSH | ACK, 43).frame());
    c.after(0.1, t.server(RST | ACK, 0).frame());
    c.after(0.1, t.client(PSH | ACK, 43).frame());
    assert_eq!(of_kind(&c.records(), "reset_mid_flow")[0]["severity"], "warning");
}

#[test]
fn resets_after_different_silences_or_all_at_one_moment_are_no_timeout() {
    let mut c = Capture::default();
    for (n, idle) in [15_000.0, 40_000.0, 90_000.0, 200_000.0].into_iter().enumerate() {
        let mut t = Talk::new(20_000 + n as u16);
        t.open(&mut c);
        t.exchange(&mut c);
        c.after(idle, t.server(RST | ACK, 0).frame());
    }
    // A restart of the server.
    let mut open: Vec<Talk> = (0..5).map(|n| Talk::new(30_000 + n)).collect();
    for t in &mut open {
        t.open(&mut c);
        t.exchange(&mut c);
    }
    c.pass(60_000.0);
    for t in &mut open {
        c.after(1.0, t.server(RST | ACK, 0).frame());
    }
    let all = c.records();
    assert!(of_kind(&all, "reset_after_idle").is_empty(), "{all:#?}");
}

#[test]
fn data_that_was_on_its_way_when_the_reset_came_does_not_disown_it() {
    let (mut c, mut t) = opened();
    let first = t.server(ACK, 500);
    let second = t.server(ACK, 500);
    c.after(5.0, first.frame());
    // Behind the second segment in sequence, before it in the capture.
    c.after(0.1, t.server(RST | ACK, 0).frame());
    c.after(0.1, second.frame());
    let all = c.records();
    assert!(of_kind(&all, "reset_ignored").is_empty(), "{all:#?}");
    // Nor does the next life of the tuple.
    let (mut c, mut t) = opened();
    c.after(5.0, t.server(RST | ACK, 0).frame());
    let mut next = t.again(5);
    next.open(&mut c);
    next.exchange(&mut c);
    next.close(&mut c);
    only(&c.records(), &[("reset_mid_flow", 1)]);
}

#[test]
fn a_reset_within_the_window_is_believed() {
    for ahead in [0, 1, 20_000] {
        let (mut c, mut t) = opened();
        let seq = t.next[1] + ahead;
        c.after(5.0, Tcp { seq, ..t.server(RST | ACK, 0) }.frame());
        let all = c.records();
        only(&all, &[("reset_mid_flow", 1)]);
        assert_eq!(all[0]["facts"]["in_window"], true);
    }
}

#[test]
fn a_fin_sent_again_with_or_without_its_data_is_in_its_place() {
    let (mut c, mut t) = opened();
    let fin = t.client(FIN | PSH | ACK, 100);
    c.after(5.0, fin.frame());
    c.after(210.0, Tcp { id: 7, ..fin.clone() }.frame());
    c.after(5.0, t.server(ACK, 0).frame());
    // The FIN alone, after its data were acknowledged.
    c.after(5.0, Tcp { seq: fin.seq + 100, payload: 0, id: 8, ..fin }.frame());
    c.after(5.0, t.server(FIN | ACK, 0).frame());
    c.after(5.0, t.client(ACK, 0).frame());
    nothing(&c);
}

#[test]
fn a_ping_and_an_error_about_nobodys_packet_are_no_icmp_error() {
    let (mut c, mut t) = opened();
    let other = Talk::new(50_000).client(ACK, 100).frame();
    c.after(1.0, icmp(ROUTER, CLIENT, (3, 1), 0, &other));
    c.after(1.0, ipv4(CLIENT, SERVER, 1, &[8, 0, 0, 0, 0, 1, 0, 1]));
    t.close(&mut c);
    // After the end nobody needs it.
    let last = t.client(ACK, 0).frame();
    c.after(1.0, icmp(ROUTER, CLIENT, (3, 1), 0, &last));
    nothing(&c);
}

#[test]
fn a_fin_that_is_acknowledged_late_or_sent_three_times_is_not_unanswered() {
    let (mut c, mut t) = opened();
    let fin = t.client(FIN | ACK, 0);
    for (n, ms) in [5.0, 200.0, 400.0, 800.0, 1_600.0].into_iter().enumerate() {
        c.after(ms, Tcp { id: n as u16, ..fin.clone() }.frame());
    }
    c.after(5.0, t.server(FIN | ACK, 0).frame());
    c.after(5.0, t.client(ACK, 0).frame());
    c.quiet(400_000.0);
    nothing(&c);
    let (mut c, mut t) = opened();
    let fin = t.client(FIN | ACK, 0);
    for (n, ms) in [5.0, 200.0, 400.0].into_iter().enumerate() {
        c.after(ms, Tcp { id: n as u16, ..fin.clone() }.frame());
    }
    c.quiet(400_000.0);
    nothing(&c);
}

#[test]
fn a_half_close_on_purpose_is_not_stuck_while_the_answer_still_comes() {
    let (mut c, mut t) = opened();
    c.after(5.0, t.client(FIN | ACK, 0).frame());
    c.after(5.0, t.server(ACK, 0).frame());
    for _ in 0..6 {
        c.after(50_000.0, t.server(ACK, 1_000).frame());
        c.after(5.0, t.client(ACK, 0).frame());
    }
    c.after(5.0, t.server(FIN | ACK, 0).frame());
    c.after(5.0, t.client(ACK, 0).frame());
    c.quiet(400_000.0);
    nothing(&c);
    // Nor when the capture ends in the middle of it.
    let (mut c, mut t) = opened();
    c.after(5.0, t.client(FIN | ACK, 0).frame());
    c.after(5.0, t.server(ACK, 0).frame());
    c.after(100_000.0, t.server(ACK, 1_000).frame());
    c.after(5.0, t.client(ACK, 0).frame());
    c.quiet(30_000.0);
    nothing(&c);
}

#[test]
fn fins_and_resets_that_take_their_time_are_no_storm() {
    for flags in [FIN | ACK, RST] {
        let (mut c, mut t) = opened();
        let again = t.client(flags, 0);
        for n in 0..120u16 {
            c.after(1_500.0, Tcp { id: 5_000 + n, ..again.clone() }.frame());
        }
        let all = c.records();
        assert!(of_kind(&all, "fin_storm").is_empty() && of_kind(&all, "reset_storm").is_empty());
    }
}

#[test]
fn a_path_that_comes_back_is_no_black_hole_nor_are_probes_and_fast_retransmissions() {
    // Two timeouts, then the acknowledgement.
    let (mut c, mut t) = opened();
    let data = t.client(ACK, 1_000);
    for (n, ms) in [5.0, 250.0, 500.0].into_iter().enumerate() {
        c.after(ms, Tcp { id: n as u16, ..data.clone() }.frame());
    }
    c.after(5.0, t.server(ACK, 0).frame());
    t.close(&mut c);
    nothing(&c);
    // Fast retransmissions: many, at once.
    let (mut c, mut t) = opened();
    let data = t.client(ACK, 1_000);
    for n in 0..8 {
        c.after(3.0, Tcp { id: n, ..data.clone() }.frame());
    }
    c.after(5.0, t.server(ACK, 0).frame());
    t.close(&mut c);
    nothing(&c);
    // Keep-alives into silence, each with a byte, further and further apart.
    let (mut c, mut t) = opened();
    let alive = Tcp { seq: t.next[0] - 1, payload: 1, ..t.clone().client(ACK, 0) };
    for (n, ms) in [10_000.0, 20_000.0, 40_000.0, 80_000.0, 160_000.0].into_iter().enumerate() {
        c.after(ms, Tcp { id: n as u16, ..alive.clone() }.frame());
    }
    t.exchange(&mut c);
    t.close(&mut c);
    nothing(&c);
    // Probes of a closed window, which the other end answers.
    let (mut c, mut t) = opened();
    c.after(5.0, Tcp { win: 0, ..t.server(ACK, 0) }.frame());
    let probe = Tcp { payload: 1, ..t.clone().client(ACK, 0) };
    for (n, ms) in [200.0, 400.0, 800.0, 1_600.0, 3_200.0].into_iter().enumerate() {
        c.after(ms, Tcp { id: n as u16, ..probe.clone() }.frame());
        c.after(1.0, Tcp { win: 0, ..t.server(ACK, 0) }.frame());
    }
    c.after(5.0, t.server(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    nothing(&c);
}

/// Data that a tap did not mirror: beyond half the sequence space, what is ahead looks as if it were behind.
const UNSEEN: u32 = 2_700_000_000;

#[test]
fn a_reset_behind_data_that_was_not_mirrored_is_believed() {
    let (mut c, mut t) = opened();
    t.next[1] = t.next[1].wrapping_add(UNSEEN);
    c.after(1_400.0, t.server(RST | ACK, 0).frame());
    c.after(200.0, t.again(7_000).client(SYN, 0).frame());
    let all = c.mirrored();
    let resets: Vec<_> = all.iter().filter(|r| r["kind"] == "reset_mid_flow").collect();
    assert_eq!(resets.len(), 1, "{all:#?}");
    assert_eq!(
        (&resets[0]["verdict"], &resets[0]["facts"]["in_window"]),
        (&json!("responder"), &Value::Null)
    );
    assert_eq!(resets[0]["facts"]["bytes_resp"], json!(u64::from(UNSEEN) + 270));
    assert!(of_kind(&all, "syn_on_live_flow").is_empty(), "{all:#?}");
    // A capture shows all there was: this one is forged, or of another life.
    let all = c.records();
    assert_eq!(of_kind(&all, "reset_out_of_window").len(), 1, "{all:#?}");
    assert_eq!(of_kind(&all, "reset_mid_flow").len(), 0, "{all:#?}");
}

#[test]
fn a_fin_behind_data_that_was_not_mirrored_closes() {
    let (mut c, mut t) = opened();
    t.next[1] = t.next[1].wrapping_add(UNSEEN);
    c.pass(1_400.0);
    t.close_by_server(&mut c);
    let mut next = t.again(t.next[0] + 1_000_000);
    c.pass(200.0);
    next.open(&mut c);
    next.close(&mut c);
    only(&c.mirrored(), &[("tuple_reuse_accepted", 1)]);
    let all = c.records();
    only(&all, &[("fin_out_of_window", 1), ("syn_on_live_flow", 1)]);
}

#[test]
fn a_reset_that_comes_at_once_has_no_unseen_data_before_it() {
    let (mut c, mut t) = opened();
    let behind = t.next[1].wrapping_sub(1_000_000);
    c.after(100.0, Tcp { seq: behind, ..t.clone().server(RST, 0) }.frame());
    t.exchange(&mut c);
    t.close(&mut c);
    only(&c.mirrored(), &[("reset_out_of_window", 1)]);
}
