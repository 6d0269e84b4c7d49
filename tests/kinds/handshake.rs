//! Kinds of a handshake.

use super::*;

#[test]
fn a_syn_sent_again_is_told_with_its_attempts_and_gaps() {
    let Some(all) = found("ndpi__KakaoTalk_chat.pcap") else { return };
    let r = only(&all, "syn_unanswered");
    judged(r, "warning", "unknown", "likely");
    between(r, "10.24.82.188:35503 > 173.252.97.2:443");
    says(r, json!({"attempts": 2, "gaps_ms": [995.911], "answered_after_ms": 1037.903}));
    assert_eq!(r["packets"][0]["seq"], r["packets"][1]["seq"], "the same SYN");
}

#[test]
fn a_syn_given_up_is_told_when_the_next_retry_would_have_come() {
    let mut c = Capture::default();
    let mut others = Talk::new(40_000);
    others.open(&mut c);
    let mut t = Talk::new(40_001);
    let syn = t.client(SYN, 0);
    for ms in [5.0, 1_000.0, 2_000.0] {
        c.after(ms, syn.frame());
    }
    c.quiet(30_000.0);
    let all = c.records();
    let r = only(&all, "syn_unanswered");
    judged(r, "info", "unknown", "likely");
    between(r, "192.0.2.1:40001 > 192.0.2.2:443");
    let gaps = json!([1000.0, 2000.0]);
    says(r, json!({"attempts": 3, "gaps_ms": gaps, "answered_after_ms": null, "others_answered": 1}));
}

#[test]
fn a_lost_syn_ack_that_comes_again_just_before_the_syn_does_is_told() {
    // Both ends send again after a second; whichever passes the tap first, the connection opened a second late.
    for (first, again, told) in
        [(1_003.0, 0.01, 1), (1_003.0, 150.0, 1), (300.0, 0.01, 0), (1_003.0, 900.0, 0)]
    {
        let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
        let (syn, answer) = (t.client(SYN, 0), t.server(SYN | ACK, 0));
        c.after(5.0, syn.frame());
        c.after(first, answer.frame());
        c.after(again, syn.frame());
        c.after(0.1, answer.frame());
        c.after(0.1, t.client(ACK, 0).frame());
        t.exchange(&mut c);
        t.close(&mut c);
        let all = c.records();
        assert_eq!(of_kind(&all, "syn_unanswered").len(), told, "{first} {again}: {all:#?}");
        if again < 1.0 && told == 1 {
            let r = only(&all, "syn_unanswered");
            judged(r, "warning", "unknown", "likely");
            says(r, json!({"attempts": 2, "gaps_ms": [1003.01], "answered_after_ms": 1003.0}));
        }
    }
}

#[test]
fn a_syn_that_was_sent_again_when_the_capture_ends_is_told_and_a_single_one_waits() {
    for (syns, told) in [(1, 0), (2, 1), (5, 1)] {
        let mut c = Capture::default();
        for port in 40_000..40_012 {
            Talk::new(port).open(&mut c);
        }
        let syn = Talk::new(41_000).client(SYN, 0);
        for _ in 0..syns {
            c.after(1_000.0, syn.frame());
        }
        let all = c.records();
        assert_eq!(of_kind(&all, "syn_unanswered").len(), told, "{all:#?}");
        if told == 1 {
            judged(only(&all, "syn_unanswered"), "warning", "unknown", "likely");
        }
    }
}

#[test]
fn a_syn_refused_by_a_reset_is_the_responders_doing() {
    let Some(all) = found("deepflow__server-reset.pcap") else { return };
    let r = only(&all, "syn_refused");
    judged(r, "info", "responder", "proven");
    between(r, "192.168.0.2:1395 > 192.168.0.3:1379");
    says(r, json!({"by": "rst", "after_ms": 0.083, "attempts": 1, "others_answered": 0}));
}

#[test]
fn a_syn_refused_by_icmp_is_the_doing_of_whoever_sent_the_error() {
    for (from, verdict) in [(ROUTER, "network"), (SERVER, "responder")] {
        let mut c = Capture::default();
        for n in 0..20 {
            Talk::new(30_000 + n).open(&mut c);
        }
        let syn = Talk::new(40_000).client(SYN, 0).frame();
        c.after(5.0, syn.clone());
        c.after(3.0, icmp(from, CLIENT, (3, 13), 0, &syn));
        c.quiet(20_000.0);
        let all = c.records();
        let r = only(&all, "syn_refused");
        judged(r, "warning", verdict, "proven");
        between(r, "192.0.2.1:40000 > 192.0.2.2:443");
        assert_eq!(names(r), ["by", "from", "after_ms", "attempts", "others_answered"]);
        assert_eq!(r["facts"]["by"], "icmp 3/13 (prohibited)");
        assert_eq!((&r["facts"]["from"], &r["facts"]["after_ms"]), (&json!(from.to_string()), &json!(3.0)));
        assert!(of_kind(&all, "syn_unanswered").is_empty(), "told as one thing");
    }
}

#[test]
fn a_refused_reuse_carries_both_sides_of_the_kernels_comparison() {
    let Some(all) = found("lab/time_wait_reuse-outside.pcap") else { return };
    let refused = of_kind(&all, "tuple_reuse_refused");
    let r = refused.iter().find(|r| r["src_port"] == 40_024).expect("it was refused");
    judged(r, "warning", "originator", "proven");
    between(r, "198.51.100.1:40024 > 198.51.100.2:8080");
    says(
        r,
        json!({"isn": 13_675_164, "rcv_nxt": 3_853_480_781u32, "distance": 455_161_679,
            "tsval": 4_072_061_214u32, "ts_recent": 875_767_025, "rule": "timestamp_older",
            "old_state": "time_wait", "since_close_ms": 116.034, "closed_first": "responder", "syns": 2,
            "stale_acks": 1, "then": "recovered"}),
    );
}

#[test]
fn a_challenge_ack_to_a_syn_without_a_past_is_a_connection_that_the_responder_believes_alive() {
    let Some(all) = found("arkime__tcp_handshake_synthetic.pcap") else { return };
    let r = at(&all, "tuple_reuse_refused", 40_003);
    judged(r, "error", "originator", "proven");
    let f = &r["facts"];
    assert_eq!(
        (&f["isn"], &f["rcv_nxt"], &f["distance"]),
        (&json!(7_777_777), &json!(3_001), &json!(7_774_776))
    );
    assert_eq!((&f["old_state"], &f["rule"]), (&json!("half_open"), &Value::Null));
}

#[test]
fn a_reuse_that_is_accepted_is_only_worth_knowing() {
    let Some(all) = found("lab/time_wait_reuse-inside.pcap") else { return };
    let accepted = of_kind(&all, "tuple_reuse_accepted");
    let r = accepted.iter().find(|r| r["src_port"] == 30_004).expect("it was accepted");
    judged(r, "info", "unknown", "proven");
    between(r, "10.77.0.13:30004 > 198.51.100.2:8080");
    says(r, json!({"since_close_ms": 1505.7, "closed_first": "responder", "from_time_wait": true}));
}

#[test]
fn a_syn_on_a_connection_that_is_not_closed_tells_its_state_and_what_became_of_it() {
    if let Some(all) = found("lab/time_wait_reuse-inside.pcap") {
        let r = only(&all, "syn_on_live_flow");
        judged(r, "warning", "originator", "likely");
        between(r, "10.77.0.13:30020 > 198.51.100.2:8080");
        says(r, json!({"state": "half_closed", "idle_ms": 1504.827, "answer": "rst"}));
    }
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    t.open(&mut c);
    t.exchange(&mut c);
    // A forged SYN: the server challenges it, and the connection goes on.
    let forged = t.again(99).client(SYN, 0);
    c.after(2_000.0, forged.frame());
    c.after(1.0, t.server(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    let all = c.records();
    let r = only(&all, "syn_on_live_flow");
    judged(r, "warning", "originator", "likely");
    says(r, json!({"state": "established", "idle_ms": 2000.0, "answer": "challenge_ack"}));
}

#[test]
fn a_syn_ack_without_a_final_ack_is_half_open() {
    let Some(all) = found("ppa3__synscan.pcapng") else { return };
    let of = of_kind(&all, "synack_unacknowledged");
    assert_eq!(of.len(), 3);
    for r in of {
        judged(r, "info", "originator", "possible");
        assert_eq!(names(r), ["attempts", "acknowledged_after_ms"]);
        assert!(r["facts"]["attempts"].as_u64().expect("a count") >= 2);
        assert_eq!((&r["src_ip"], &r["dst_ip"]), (&json!("172.16.0.8"), &json!("64.13.134.52")));
    }
}

#[test]
fn a_final_ack_that_comes_late_is_the_networks() {
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    c.after(0.0, t.client(SYN, 0).frame());
    let answer = t.server(SYN | ACK, 0);
    c.after(10.0, answer.frame());
    c.after(1_000.0, answer.frame());
    c.after(10.0, t.client(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    let all = c.records();
    let r = only(&all, "synack_unacknowledged");
    judged(r, "warning", "network", "likely");
    says(r, json!({"attempts": 2, "acknowledged_after_ms": 1010.0}));
}

#[test]
fn a_syn_ack_that_comes_again_after_the_final_ack_is_a_full_accept_queue() {
    let Some(all) = found("deepflow__server-queue-lack.pcap") else { return };
    let r = only(&all, "accept_queue_overflow");
    judged(r, "warning", "responder", "likely");
    assert_eq!(names(r), ["attempts", "acked_at", "acked_after_ms"]);
    assert_eq!(r["facts"]["attempts"], 1, "and the originator's data were not heard either");
    let acked_at = r["facts"]["acked_at"].as_u64().expect("a time");
    let packets = r["packets"].as_array().expect("packets");
    assert!(packets.iter().any(|p| p["ts_ns"] == acked_at && p["from"] == "orig"), "that packet is shown");
}

#[test]
fn a_syn_ack_that_acknowledges_another_syn_is_told_with_both_numbers() {
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    let syn = t.client(SYN, 0);
    c.after(0.0, syn.frame());
    let wrong = Tcp { ack: 77, ..t.server(SYN | ACK, 0) };
    c.after(10.0, wrong.frame());
    // As RFC 9293 3.10.7.3 asks for.
    c.after(1.0, Tcp { seq: 77, ..t.clone().client(RST, 0) }.frame());
    c.quiet(30_000.0);
    let all = c.records();
    let r = only(&all, "synack_wrong_ack");
    judged(r, "info", "responder", "proven");
    between(r, "192.0.2.1:40000 > 192.0.2.2:443");
    says(r, json!({"ack": 77, "expected": syn.seq + 1}));
}

#[test]
fn a_syn_ack_without_a_syn_says_what_it_acknowledges() {
    let Some(all) = found("zeek__one-sided-2745.pcap") else { return };
    let r = only(&all, "synack_unsolicited");
    judged(r, "info", "network", "possible");
    between(r, "91.189.148.149:2745 > 245.181.165.131:281");
    says(r, json!({"ack": 315_776_070, "expected": null}));
}

#[test]
fn two_syn_acks_that_differ_are_told_with_the_numbers_of_both() {
    if let Some(all) = found("deepflow__tcp-n-syn-ack.pcap") {
        let r = only(&all, "synack_differs");
        judged(r, "info", "middlebox", "likely");
        between(r, "10.30.172.101:44312 > 10.30.10.173:443");
        says(r, json!({"both": [[104_572_381, 4_212_936_851u32], [104_572_382, 4_212_936_851u32]]}));
    }
    // Two servers behind one address: the same SYN, an answer each, which differ in what they acknowledge.
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    c.after(0.0, t.client(SYN, 0).frame());
    let one = t.server(SYN | ACK, 0);
    c.after(10.0, one.frame());
    c.after(1.0, Tcp { ack: one.ack + 9_000, ..one.clone() }.frame());
    let all = c.records();
    let r = only(&all, "synack_differs");
    says(r, json!({"both": [[one.seq, one.ack], [one.seq, one.ack + 9_000]]}));
}

#[test]
fn many_isns_on_one_attempt_are_one_record() {
    let Some(all) = found("suriv__bug-7657-01__input.pcap") else { return };
    let r = only(&all, "isn_changed_while_opening");
    judged(r, "info", "originator", "proven");
    between(r, "100.73.5.8:45511 > 100.73.2.4:80");
    says(r, json!({"isns": [1_317_897_315, 1_827_763_820]}));
}

#[test]
fn a_syn_ack_from_the_originator_is_told() {
    let Some(all) = found("arkime__tcp_handshake_synthetic.pcap") else { return };
    let r = only(&all, "synack_from_originator");
    judged(r, "info", "originator", "likely");
    between(r, "192.0.2.10:40005 > 198.51.100.5:8080");
    says(r, json!({}));
}

#[test]
fn a_split_handshake_is_told_beside_the_crossing_syns() {
    let Some(all) = found("suriv__tcp-split-handshake-01-4whs__split-handshake-4whs.pcap") else { return };
    for (kind, verdict) in [("simultaneous_open", "unknown"), ("split_handshake", "responder")] {
        let r = only(&all, kind);
        judged(r, "info", verdict, "likely");
        between(r, "1.1.1.1:12345 > 2.2.2.2:80");
        says(r, json!({}));
    }
}

#[test]
fn a_simultaneous_open_as_the_standard_draws_it_is_worth_knowing_and_no_split_handshake() {
    let mut c = Capture::default();
    let mut t = Talk::to((CLIENT, 5_000), (SERVER, 6_000));
    c.after(0.0, t.client(SYN, 0).frame());
    c.after(1.0, t.server(SYN, 0).frame());
    let [a, b] = t.next;
    c.after(1.0, Tcp { seq: a.wrapping_sub(1), ..t.client(SYN | ACK, 0) }.frame());
    c.after(1.0, Tcp { seq: b.wrapping_sub(1), ..t.server(SYN | ACK, 0) }.frame());
    t.next = [a, b];
    t.exchange(&mut c);
    t.close(&mut c);
    let all = c.records();
    judged(only(&all, "simultaneous_open"), "info", "unknown", "likely");
    assert!(of_kind(&all, "split_handshake").is_empty(), "{all:#?}");
}

#[test]
fn handshakes_that_are_reset_at_once_again_and_again_are_one_health_check() {
    let Some(all) = found("lab/benign_odd-inside.pcap") else { return };
    let r = only(&all, "probe_reset");
    judged(r, "info", "originator", "likely");
    says(r, json!({"originator": "10.77.0.11", "per_minute": 3}));
}

#[test]
fn options_that_no_stack_sends_are_named() {
    for (file, port, verdict, option, was) in [
        ("deepflow__tcp-one-syn.pcap", 1_955, "originator", "ack", "208909830 without its flag"),
        ("deepflow__syn-retrans.pcap", 80, "middlebox", "nop", "11 times in a row"),
        (
            "suriv__bug-6244-tcp-rst-with-data__tcp-rst-with-data.pcap",
            12_345,
            "middlebox",
            "mss",
            "absent, though there are later options",
        ),
    ] {
        let Some(all) = found(file) else { return };
        let r = at(&all, "options_altered", port);
        judged(r, "info", verdict, "possible");
        says(r, json!({"option": option, "was": was, "now": null}));
    }
    for (options, option, was) in [
        (vec![2, 4, 5, 180, 3, 3, 15, 0], "wscale", "15"),
        (vec![2, 4, 5, 180, 3, 9, 7, 0], "options", "that cannot be read"),
    ] {
        let mut c = Capture::default();
        let mut t = Talk::new(40_000);
        t.options = options;
        t.open(&mut c);
        let all = c.records();
        says(only(&all, "options_altered"), json!({"option": option, "was": was, "now": null}));
    }
}

#[test]
fn a_third_packet_that_does_not_fit_is_told_with_what_would() {
    let Some(all) = found("arkime__tcp_handshake_synthetic.pcap") else { return };
    let r = at(&all, "final_ack_wrong", 40_002);
    judged(r, "info", "originator", "likely");
    between(r, "192.0.2.10:40002 > 198.51.100.5:8080");
    says(r, json!({"ack": 999_999, "expected": 6_001, "seq": 2_001}));
}

#[test]
fn data_in_a_syn_that_is_not_taken_is_told_with_its_size() {
    let file = "suriv__tcp-fastopen-11-reject-syn-data__tlpw-tcp-tfo-data-on-syn-nack.pcap";
    let Some(all) = found(file) else { return };
    let r = only(&all, "tfo_refused");
    judged(r, "info", "responder", "proven");
    between(r, "192.168.0.44:57282 > 17.253.144.10:443");
    says(r, json!({"bytes": 517}));
}

#[test]
fn a_slow_handshake_is_told_against_the_responders_own_baseline() {
    let mut c = Capture::default();
    for n in 0..220u16 {
        let mut t = Talk::new(20_000 + n);
        c.after(20.0, t.client(SYN, 0).frame());
        c.after(if n == 210 { 700.0 } else { 20.0 }, t.server(SYN | ACK, 0).frame());
        c.after(1.0, t.client(ACK, 0).frame());
    }
    let all = c.records();
    let r = only(&all, "slow_handshake");
    judged(r, "info", "responder", "possible");
    between(r, "192.0.2.1:20210 > 192.0.2.2:443");
    says(r, json!({"ms": 700.0, "baseline": 32.768}));
}
