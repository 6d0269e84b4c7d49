//! One test for each kind that one tap point can show: a capture goes in, and the record is what it must be.
//!
//! `corpus` is a capture that others made, `shipped` one of this project, `made` packets made by hand because no capture shows
//! it. `live` says that `root_kinds` shows it by the real kernel as well. The nearest innocent cases are in `traps`. The kinds
//! that need both sides of a gateway are in `lab_joined`.
//!
//! | kind | capture |
//! | --- | --- |
//! | syn_unanswered | corpus `ndpi__KakaoTalk_chat` |
//! | syn_refused | corpus `deepflow__server-reset`; by ICMP made, live |
//! | tuple_reuse_refused | corpus `lab/time_wait_reuse-outside`, `arkime__tcp_handshake_synthetic`; shipped (`story`) |
//! | tuple_reuse_accepted | corpus `lab/time_wait_reuse-inside` |
//! | syn_on_live_flow | corpus `lab/time_wait_reuse-inside`; made |
//! | synack_unacknowledged | corpus `ppa3__synscan`, live |
//! | accept_queue_overflow | corpus `deepflow__server-queue-lack`, live |
//! | synack_wrong_ack | made |
//! | synack_unsolicited | corpus `zeek__one-sided-2745` |
//! | synack_differs | corpus `deepflow__tcp-n-syn-ack`; in its ack made |
//! | isn_changed_while_opening | corpus `suriv__bug-7657-01` |
//! | synack_from_originator | corpus `arkime__tcp_handshake_synthetic` |
//! | simultaneous_open | corpus `suriv__tcp-split-handshake-01`; made |
//! | split_handshake | corpus `suriv__tcp-split-handshake-01` |
//! | probe_reset | corpus `lab/benign_odd-inside` |
//! | options_altered | corpus `deepflow__tcp-one-syn`, `deepflow__syn-retrans`, `suriv__bug-6244`; scale made |
//! | final_ack_wrong | corpus `arkime__tcp_handshake_synthetic` |
//! | tfo_refused | corpus `suriv__tcp-fastopen-11`, live |
//! | slow_handshake | made |
//! | reset_mid_flow | corpus `zeek__get-to-ssh-server`, `lab/nat_mapping_lost-outside`, live |
//! | reset_without_flow | corpus `zeek__single-rst` |
//! | reset_after_idle | made |
//! | reset_ignored | corpus `zeek__rst-inject-rae`; mid-flow made |
//! | reset_with_text | corpus `ppa2__gnutella` |
//! | reset_out_of_window | corpus `zeek__rst-inject-rae`; mid-flow made |
//! | fin_out_of_window | corpus `zeek__fin_retransmission`; mid-flow made |
//! | icmp_error | corpus `ndpi__6in4tunnel`, live |
//! | fin_unanswered | made |
//! | half_closed_stuck | corpus `ppa2__evilprogram` |
//! | fin_storm, reset_storm | made |
//! | black_hole | corpus `lab/nat_mapping_lost-inside`, live |
//! | mac_changed_in_flow | corpus `ppa3__sessionhijacking`, live |
//! | seen_twice | corpus `arkime__http-post-upload` |
//! | arp_two_answers | corpus `lab/arp_duel-b1`; IPv6 made; live |
//! | address_conflict | made, live |
//! | address_flapping | made |
//! | address_moved | corpus `lab/nat_mapping_lost-inside` |
//! | arp_spoof_sign | corpus `suriv__detect-arp-03-vlan`, `ppa3__arppoison` |
//! | frame_loop | made |
//! | syn_flood, reset_rate_shift | made |
//! | no_keepalive | corpus `lab/healthy-inside` |
//! | invalid_flags | corpus `suriv__issue-3341-tcphdr-01`, `zeek__fin_retransmission`, live |
//! | malformed | corpus `suriv__bug-6887` |
//! | one_sided_view | corpus `zeek__ssh.client-side-half-duplex` |
//! | asymmetric_hash | made, through the threads of a live run |
//! | capture_gap, budget_shed | the desk; live in `root_endings` |

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use common::packet::{
    ACK, FIN, PSH, RST, SYN, Tcp, advertisement, arp, icmp, ipv4, mac, solicitation, vlan, vxlan, with_macs,
};
use common::talk::{CLIENT, Capture, ROUTER, SERVER, Talk};
use common::{corpus, of_kind, replay};
use serde_json::{Value, json};
use syntap::detect::Kind;
use syntap::detect::explain::explain;

/// The records of a capture of the corpus.
fn found(file: &str) -> Option<Vec<Value>> {
    Some(replay(&[corpus(file)?.to_str().expect("a path")]))
}

/// The only record of a kind.
#[track_caller]
fn only<'a>(records: &'a [Value], kind: &str) -> &'a Value {
    let of = of_kind(records, kind);
    assert_eq!(of.len(), 1, "{kind}: {records:#?}");
    of[0]
}

/// The record of a kind and originator's port.
#[track_caller]
fn at<'a>(records: &'a [Value], kind: &str, port: u16) -> &'a Value {
    let of: Vec<_> = of_kind(records, kind).into_iter().filter(|r| r["src_port"] == port).collect();
    assert_eq!(of.len(), 1, "{kind} of {port}: {of:#?}");
    of[0]
}

/// Severity, verdict and certainty.
#[track_caller]
fn judged(r: &Value, severity: &str, verdict: &str, certainty: &str) {
    let words = [&r["severity"], &r["verdict"], &r["certainty"]];
    assert_eq!(words, [severity, verdict, certainty], "{}", r["summary"]);
}

/// The tuple, as `show` writes it.
#[track_caller]
fn between(r: &Value, tuple: &str) {
    let text = |f: &str| r[f].as_str().map_or_else(|| r[f].to_string(), str::to_owned);
    let [a, b] = [("src_ip", "src_port"), ("dst_ip", "dst_port")].map(|(ip, port)| {
        let ip = text(ip);
        if ip.contains(':') { format!("[{ip}]:{}", text(port)) } else { format!("{ip}:{}", text(port)) }
    });
    assert_eq!(format!("{a} > {b}"), tuple, "{}", r["summary"]);
}

/// Facts, all of them and in their order.
#[track_caller]
fn says(r: &Value, facts: Value) {
    assert_eq!(r["facts"], facts, "{}", r["summary"]);
    let keys = |v: &Value| v.as_object().expect("facts").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&r["facts"]), keys(&facts), "their order");
}

/// Names of the facts.
fn names(r: &Value) -> Vec<&str> {
    r["facts"].as_object().expect("facts").keys().map(String::as_str).collect()
}

// ---- Handshake

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

// ---- Resets and ends

const RESET_FACTS: [&str; 10] = [
    "by",
    "state",
    "idle_ms",
    "bytes_orig",
    "bytes_resp",
    "distance",
    "in_window",
    "after_fin",
    "ttl",
    "usual_ttl",
];

#[test]
fn a_reset_by_the_responder_is_told_with_bytes_idle_time_and_window() {
    let Some(all) = found("zeek__get-to-ssh-server.pcap") else { return };
    let r = only(&all, "reset_mid_flow");
    judged(r, "warning", "responder", "likely");
    between(r, "136.216.42.40:44338 > 130.74.164.231:22");
    assert_eq!(names(r), RESET_FACTS);
    says(
        r,
        json!({"by": "resp", "state": "established", "idle_ms": 1.28, "bytes_orig": 605, "bytes_resp": 21,
            "distance": null, "in_window": true, "after_fin": false, "ttl": 59, "usual_ttl": 59}),
    );
}

#[test]
fn a_reset_whose_ttl_is_not_its_senders_points_at_a_device_in_between() {
    let Some(all) = found("lab/nat_mapping_lost-outside.pcap") else { return };
    let r = only(&all, "reset_mid_flow");
    judged(r, "warning", "middlebox", "possible");
    let f = &r["facts"];
    assert_eq!((&f["by"], &f["ttl"], &f["usual_ttl"]), (&json!("orig"), &json!(64), &json!(63)));
}

#[test]
fn a_lone_reset_is_counted() {
    let Some(all) = found("zeek__single-rst.pcap") else { return };
    let r = only(&all, "reset_without_flow");
    judged(r, "info", "unknown", "possible");
    between(r, "10.0.0.10:48777 > 10.0.0.80:80");
    says(r, json!({"count": 1}));
    let mut c = Capture::default();
    for n in 0..5 {
        c.after(100.0, Talk::new(40_000 + n).server(RST, 0).frame());
    }
    let all = c.records();
    let r = only(&all, "reset_without_flow");
    assert_eq!((&r["count"], &r["facts"]["count"], &r["src_ip"]), (&json!(5), &json!(5), &Value::Null));
}

#[test]
fn resets_after_the_same_silence_are_a_timeout() {
    // The responder's own, or that of a device in between, which counts hops of its own.
    for (ttl, judgement) in
        [(None, ("info", "responder", "possible")), (Some(97), ("warning", "middlebox", "likely"))]
    {
        resets_after_silence(ttl, judgement);
    }
}

fn resets_after_silence(ttl: Option<u8>, (severity, verdict, certainty): (&str, &str, &str)) {
    let mut c = Capture::default();
    for n in 0..3u16 {
        let mut t = Talk::new(20_000 + n);
        t.open(&mut c);
        t.exchange(&mut c);
        c.after(60_000.0 + f64::from(n) * 300.0, t.client(ACK, 320).frame());
        c.after(1.0, Tcp { ack: 0, ..t.server(RST, 0) }.frame());
        c.after(1.0, t.clone().client(ACK, 0).frame());
    }
    let mut t = Talk::new(20_100);
    for n in 0..3u16 {
        t = Talk::new(20_100 + n);
        t.open(&mut c);
        t.exchange(&mut c);
        let reset = t.server(RST | ACK, 0);
        c.after(60_000.0 + f64::from(n) * 300.0, Tcp { ttl: ttl.unwrap_or(reset.ttl), ..reset }.frame());
    }
    let all = c.records();
    let r = only(&all, "reset_after_idle");
    judged(r, severity, verdict, certainty);
    let responder = format!("{SERVER}:{}", t.server.1);
    says(r, json!({"responder": responder, "idle_ms": 60_600, "cluster": 3}));
}

#[test]
fn an_end_that_goes_on_after_a_reset_in_its_name_did_not_send_it() {
    if let Some(all) = found("zeek__rst-inject-rae.pcap") {
        let r = only(&all, "reset_ignored");
        judged(r, "warning", "middlebox", "proven");
        between(r, "1.2.0.2:2527 > 1.2.0.3:6649");
        says(r, json!({"ttl": 46, "usual_ttl": 49, "packets_after": 0}));
    }
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    t.open(&mut c);
    t.exchange(&mut c);
    c.after(5.0, Tcp { ttl: 61, ..t.server(RST, 0) }.frame());
    c.after(5.0, t.server(ACK, 500).frame());
    let all = c.records();
    let r = only(&all, "reset_ignored");
    judged(r, "warning", "middlebox", "proven");
    says(r, json!({"ttl": 61, "usual_ttl": 57, "packets_after": 1}));
    judged(only(&all, "reset_mid_flow"), "warning", "middlebox", "possible");
}

#[test]
fn a_reset_with_words_in_it_is_told_with_them() {
    let Some(all) = found("ppa2__gnutella.pcap") else { return };
    let of = of_kind(&all, "reset_with_text");
    assert_eq!(of.len(), 12);
    let r = of.iter().find(|r| r["src_port"] == 3_691).expect("it is among them");
    judged(r, "info", "responder", "proven");
    between(r, "10.1.4.176:3691 > 24.45.10.102:6346");
    says(r, json!({"text": "No listener", "bytes": 11}));
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    t.open(&mut c);
    c.after(5.0, t.server(RST | ACK, 0).frame_saying("go away\u{7}"));
    let all = c.records();
    says(only(&all, "reset_with_text"), json!({"text": "go away.", "bytes": 8}));
}

#[test]
fn a_reset_that_its_receiver_does_not_believe_is_nobodys() {
    if let Some(all) = found("zeek__rst-inject-rae.pcap") {
        let r = only(&all, "reset_out_of_window");
        judged(r, "info", "unknown", "likely");
        between(r, "1.2.0.2:2527 > 1.2.0.3:6649");
        assert_eq!(names(r), ["by", "state", "distance", "ttl"]);
    }
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    t.open(&mut c);
    t.exchange(&mut c);
    let behind = t.next[1].wrapping_sub(1_000_000);
    c.after(5.0, Tcp { seq: behind, ..t.clone().server(RST, 0) }.frame());
    t.exchange(&mut c);
    t.close(&mut c);
    let all = c.records();
    let r = only(&all, "reset_out_of_window");
    judged(r, "info", "unknown", "likely");
    assert_eq!(names(r), RESET_FACTS);
    assert_eq!((&r["facts"]["distance"], &r["facts"]["in_window"]), (&json!(-1_000_000), &json!(false)));
    assert_eq!(all.len(), 1, "the connection went on and was closed: {all:#?}");
}

#[test]
fn a_fin_that_its_receiver_has_behind_it_is_told() {
    if let Some(all) = found("zeek__fin_retransmission.pcap") {
        let r = only(&all, "fin_out_of_window");
        judged(r, "info", "unknown", "likely");
        between(r, "10.1.30.117:55344 > 17.167.193.62:443");
        says(r, json!({"seq": 2_187_051_757u32, "expected": 2_187_051_758u32, "distance": 0}));
    }
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    t.open(&mut c);
    t.exchange(&mut c);
    let seq = t.next[0] - 200;
    c.after(5.0, Tcp { seq, ..t.clone().client(FIN | ACK, 0) }.frame());
    t.exchange(&mut c);
    t.close(&mut c);
    let all = c.records();
    let r = only(&all, "fin_out_of_window");
    says(r, json!({"seq": seq, "expected": seq + 200, "distance": -199}));
    assert_eq!(all.len(), 1, "{all:#?}");
}

#[test]
fn an_icmp_error_about_an_open_connection_names_its_sender_and_the_mtu() {
    if let Some(all) = found("ndpi__6in4tunnel.pcap") {
        let r = only(&all, "icmp_error");
        judged(r, "info", "network", "proven");
        let client = "2001:470:1f17:13f:3e97:eff:fe73:4dec";
        between(r, &format!("[{client}]:53234 > [2a03:2880:1010:6f03:face:b00c:0:2]:443"));
        assert_eq!((&r["facts"]["by"], &r["facts"]["mtu"]), (&json!("icmp6 2/0 (too big)"), &json!(1460)));
    }
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    t.open(&mut c);
    let large = t.client(ACK, 1_460).frame();
    c.after(5.0, large.clone());
    c.after(1.0, icmp(ROUTER, CLIENT, (3, 4), 1_400, &large));
    let all = c.records();
    let r = only(&all, "icmp_error");
    let seq = t.next[0] - 1_460;
    says(r, json!({"by": "icmp 3/4 (too big)", "from": "192.0.2.254", "mtu": 1400, "seq": seq}));
}

#[test]
fn a_fin_without_an_answer_is_told_with_its_attempts() {
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    t.open(&mut c);
    t.exchange(&mut c);
    let fin = t.client(FIN | ACK, 0);
    for ms in [5.0, 200.0, 400.0, 800.0, 1_600.0] {
        c.after(ms, fin.frame());
    }
    c.quiet(400_000.0);
    let all = c.records();
    let r = only(&all, "fin_unanswered");
    judged(r, "info", "unknown", "possible");
    between(r, "192.0.2.1:40000 > 192.0.2.2:443");
    says(r, json!({"attempts": 5}));
}

#[test]
fn a_connection_that_one_end_never_closes_is_stuck() {
    let Some(all) = found("ppa2__evilprogram.pcap") else { return };
    let r = only(&all, "half_closed_stuck");
    judged(r, "info", "unknown", "likely");
    between(r, "24.6.125.19:1050 > 209.123.150.14:80");
    says(r, json!({"for_ms": 300_000.0}));
    assert_eq!((&r["history"], &r["conn_state"]), (&json!("ShADadf"), &json!("S3")));
}

#[test]
fn fins_and_resets_without_end_are_storms() {
    for (kind, flags, others) in [("fin_storm", FIN | ACK, 0), ("reset_storm", RST, 1)] {
        let mut c = Capture::default();
        let mut t = Talk::new(40_000);
        t.open(&mut c);
        t.exchange(&mut c);
        let again = t.client(flags, 0);
        for n in 0..120u16 {
            // The other end answers each of them.
            c.after(10.0, Tcp { id: 5_000 + n, ..again.clone() }.frame());
        }
        let all = c.records();
        let r = only(&all, kind);
        judged(r, "warning", "unknown", "proven");
        says(r, json!({"per_second": 100.0, "count": 100}));
        assert!(of_kind(&all, "reset_mid_flow").len() == others, "{all:#?}");
    }
}

#[test]
fn the_same_bytes_into_silence_are_a_black_hole() {
    let Some(all) = found("lab/nat_mapping_lost-inside.pcap") else { return };
    let r = only(&all, "black_hole");
    judged(r, "warning", "network", "likely");
    between(r, "10.77.0.11:37536 > 198.51.100.2:6783");
    let gaps = json!([209.859, 211.997, 432.021, 828.009, 1663.99]);
    says(r, json!({"attempts": 5, "gaps_ms": gaps, "last_mac": "3a:a4:1b:bf:23:96", "icmp_errors": 0}));
}

// ---- Link layer

#[test]
fn a_mac_that_changes_within_a_connection_is_told_with_both() {
    let Some(all) = found("ppa3__sessionhijacking.pcapng") else { return };
    let r = only(&all, "mac_changed_in_flow");
    judged(r, "info", "unknown", "likely");
    between(r, "172.16.16.164:60434 > 172.16.16.181:80");
    says(r, json!({"side": "orig", "before": "f8:16:54:f8:91:ac", "after": "78:31:c1:cb:b2:56"}));
}

#[test]
fn a_tap_point_that_sees_both_sides_of_a_hop_says_so_once() {
    let Some(all) = found("arkime__http-post-upload.pcap") else { return };
    let r = only(&all, "seen_twice");
    judged(r, "info", "unknown", "proven");
    between(r, "192.168.8.97:11371 > 192.168.57.14:8080");
    says(r, json!({"ttl_delta": 1, "gap_us": 192}));
    assert_eq!(all.len(), 1, "and nothing else");
}

#[test]
fn two_answers_to_one_request_are_a_duel() {
    if let Some(all) = found("lab/arp_duel-b1.pcap") {
        let r = only(&all, "arp_two_answers");
        judged(r, "warning", "network", "likely");
        let b1 = "arp_duel-b1";
        says(
            r,
            json!({"request": "10.0.0.6", "gap_us": 1, "per_minute": 1.0, "mac": "02:42:0a:00:00:06",
                "interfaces": [b1], "last_interface": b1, "silent_flows": 0}),
        );
    }
    // A neighbour advertisement is an answer as well.
    let mut c = Capture::default();
    c.after(0.0, solicitation(CLIENT, SERVER));
    c.after(0.1, advertisement(mac(SERVER), SERVER, CLIENT));
    c.after(0.02, advertisement(mac(SERVER), SERVER, CLIENT));
    let all = c.records();
    let r = only(&all, "arp_two_answers");
    assert_eq!((&r["facts"]["request"], &r["facts"]["gap_us"]), (&json!("2001:db8::c000:202"), &json!(20)));
}

const OTHER: [u8; 6] = [2, 0, 0, 0, 9, 9];

#[test]
fn two_answers_with_different_macs_are_two_machines() {
    let mut c = Capture::default();
    c.after(0.0, arp(true, (mac(CLIENT), CLIENT), ([0; 6], SERVER)));
    c.after(0.1, arp(false, (mac(SERVER), SERVER), (mac(CLIENT), CLIENT)));
    c.after(0.02, arp(false, (OTHER, SERVER), (mac(CLIENT), CLIENT)));
    c.quiet(2_000.0);
    let all = c.records();
    let r = only(&all, "address_conflict");
    judged(r, "error", "network", "proven");
    assert_eq!(r["facts"]["macs"], json!(["02:00:00:00:00:02", "02:00:00:00:09:09"]));
    assert_eq!(
        names(r),
        ["request", "gap_us", "per_minute", "macs", "interfaces", "last_interface", "silent_flows"]
    );
}

#[test]
fn an_address_that_goes_and_comes_back_flaps() {
    let mut c = Capture::default();
    let announce = |mac| arp(true, (mac, SERVER), ([0; 6], SERVER));
    c.after(0.0, announce(mac(SERVER)));
    c.after(5_000.0, announce(OTHER));
    c.after(4_000.0, announce(mac(SERVER)));
    let all = c.records();
    let r = only(&all, "address_flapping");
    judged(r, "warning", "network", "likely");
    let macs = json!(["02:00:00:00:09:09", "02:00:00:00:00:02"]);
    assert_eq!((&r["facts"]["macs"], &r["facts"]["moves"]), (&macs, &json!(2)));
    judged(only(&all, "address_moved"), "info", "network", "likely");
}

#[test]
fn an_address_that_moves_once_is_only_worth_knowing() {
    let Some(all) = found("lab/benign_odd-inside.pcap") else { return };
    let moved = of_kind(&all, "address_moved");
    assert!(!moved.is_empty());
    moved.iter().for_each(|r| judged(r, "info", "network", "likely"));
}

#[test]
fn a_next_hop_that_changes_under_a_connection_is_more_than_a_move() {
    let Some(all) = found("lab/nat_mapping_lost-inside.pcap") else { return };
    let r = only(&all, "next_hop_changed");
    judged(r, "warning", "network", "likely");
    assert_eq!(r["facts"]["macs"], json!(["3a:a4:1b:bf:23:96", "56:70:1e:fc:91:9e"]));
    assert_eq!(r["facts"]["flows"], 1);
    assert!(of_kind(&all, "address_moved").is_empty());
}

#[test]
fn an_arp_packet_in_anothers_name_is_a_sign_and_one_that_moves_flows_a_warning() {
    if let Some(all) = found("suriv__detect-arp-03-vlan__input.pcap") {
        let of = of_kind(&all, "arp_spoof_sign");
        judged(of[0], "info", "network", "likely");
        assert_eq!(of[0]["facts"]["request"], "10.204.1.5");
        assert_eq!(of[0]["facts"]["macs"], json!(["00:01:02:03:04:05", "18:60:24:8d:97:ba"]));
    }
    if let Some(all) = found("ppa3__arppoison.pcapng") {
        let r = of_kind(&all, "arp_spoof_sign")[0];
        judged(r, "warning", "network", "likely");
        assert_eq!(
            (&r["facts"]["request"], &r["facts"]["gap_us"]),
            (&json!("172.16.0.1"), &json!(1_946_981))
        );
        assert_eq!(r["facts"]["macs"], json!(["00:26:0b:31:07:33", "00:25:b3:bf:91:ee"]));
    }
}

#[test]
fn a_frame_that_goes_out_and_comes_back_in_is_a_loop() {
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    let syn = t.client(SYN, 0).frame();
    c.way(0.0, 2, syn.clone());
    c.way(0.2, 1, syn);
    c.way(5.0, 1, t.server(SYN | ACK, 0).frame());
    c.way(5.0, 2, t.client(ACK, 0).frame());
    let all = c.records();
    let r = only(&all, "frame_loop");
    judged(r, "warning", "network", "proven");
    between(r, "192.0.2.1:40000 > 192.0.2.2:443");
    says(r, json!({"gap_us": 200}));
    assert_eq!(all.len(), 1, "{all:#?}");
}

// ---- Shape

#[test]
fn a_thousand_syns_a_second_without_answers_are_a_flood() {
    let mut c = Capture::default();
    for n in 0..3_000u16 {
        c.after(0.5, Talk::new(10_000 + n).client(SYN, 0).frame());
    }
    let all = c.records();
    let r = only(&all, "syn_flood");
    judged(r, "error", "originator", "likely");
    let rate = r["facts"]["syns_per_second"].as_u64().expect("a rate");
    assert!((1_990..=2_010).contains(&rate), "{rate}");
    let peak = r["facts"]["peak_per_second"].as_u64().expect("a rate");
    assert!((1_500..=2_000).contains(&peak), "of whole seconds: {peak}");
    says(
        r,
        json!({"responder": "192.0.2.2:443", "syns_per_second": rate, "answered": 0, "completed": 0,
            "syns": 3000, "mirrored": 3000, "peak_per_second": peak, "lasts_ms": 1499, "known_shed": 0}),
    );
}

#[test]
fn syns_that_are_answered_and_lead_to_nothing_are_a_flood_beside_connections_that_do() {
    let mut c = Capture::default();
    for n in 0..24_000u16 {
        let mut t = Talk::new(10_000 + n);
        c.after(0.25, t.client(SYN, 0).frame());
        c.after(0.25, t.server(SYN | ACK, 0).frame());
        if n % 50 == 0 {
            c.after(0.0, t.client(ACK, 0).frame());
        }
    }
    let all = c.records();
    let told = of_kind(&all, "syn_flood");
    let sum = |fact: &str| told.iter().map(|r| r["facts"][fact].as_u64().expect("a count")).sum::<u64>();
    assert_eq!((sum("syns"), sum("answered"), sum("completed")), (24_000, 24_000, 480), "{told:#?}");
    assert_eq!(told.len(), 2, "after ten seconds, and at its end");
    assert_eq!(told[1]["facts"]["lasts_ms"], 11_999);
}

/// Connections of which some are reset by the server.
fn connections(c: &mut Capture, from: u16, count: u16, every: u16) {
    for n in 0..count {
        let mut t = Talk::new(from + n);
        t.open(c);
        t.exchange(c);
        t.exchange(c);
        if n % every == 0 {
            c.after(5.0, t.server(RST | ACK, 0).frame());
        } else {
            t.close(c);
        }
        c.pass(20.0);
    }
}

#[test]
fn resets_that_become_frequent_are_a_shift() {
    let mut c = Capture::default();
    connections(&mut c, 10_000, 400, 100);
    connections(&mut c, 12_000, 400, 4);
    c.quiet(400_000.0);
    let all = c.records();
    let r = only(&all, "reset_rate_shift");
    judged(r, "warning", "unknown", "likely");
    assert_eq!(names(r), ["responder", "resets", "connections", "resets_before", "connections_before"]);
    assert!(r["facts"]["resets"].as_u64().expect("a count") >= 40, "{r}");
}

#[test]
fn connections_that_carry_one_request_each_are_told_once_a_responder() {
    let Some(all) = found("lab/healthy-inside.pcap") else { return };
    let of = of_kind(&all, "no_keepalive");
    for r in &of {
        judged(r, "info", "originator", "likely");
        assert_eq!(names(r), ["responder", "used_once", "connections"]);
    }
    let responders: BTreeSet<_> = of.iter().map(|r| r["facts"]["responder"].to_string()).collect();
    assert_eq!(responders.len(), of.len());
    assert!(responders.contains("\"198.51.100.2:8080\""));
}

#[test]
fn flags_that_no_stack_sends_are_named() {
    if let Some(all) = found("suriv__issue-3341-tcphdr-01__urgent11_cve_2019_12260.pcap") {
        says(only(&all, "invalid_flags"), json!({"flags": "FSU", "name": "syn_fin"}));
    }
    if let Some(all) = found("zeek__fin_retransmission.pcap") {
        let r = only(&all, "invalid_flags");
        judged(r, "info", "originator", "proven");
        between(r, "10.1.30.117:55344 > 17.167.193.62:443");
        says(r, json!({"flags": "F", "name": "fin"}));
    }
    const URG: u8 = 32;
    for (flags, name) in [
        (0, "null"),
        (FIN | PSH | URG, "xmas"),
        (FIN, "fin"),
        (SYN | FIN, "syn_fin"),
        (SYN | RST, "syn_rst"),
        (FIN | RST | ACK, "mixture"),
    ] {
        let mut c = Capture::default();
        c.after(0.0, Talk::new(40_000).client(flags, 0).frame());
        let all = c.records();
        let r = only(&all, "invalid_flags");
        assert_eq!(r["facts"]["name"], name);
        judged(r, "info", "originator", "proven");
    }
    // The responder's are the responder's.
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    t.open(&mut c);
    c.after(5.0, t.server(FIN | PSH | URG, 0).frame());
    let all = c.records();
    let r = only(&all, "invalid_flags");
    judged(r, "info", "responder", "proven");
    assert_eq!(r["packets"][0]["from"], "resp");
}

#[test]
fn headers_that_contradict_themselves_are_counted_by_reason() {
    let Some(all) = found("suriv__bug-6887-defrag-eth-vlan-ipv4-tcp-syn__frag-eth-vlan-ip-tcp-syn.pcap")
    else {
        return;
    };
    let r = only(&all, "malformed");
    judged(r, "info", "unknown", "proven");
    says(r, json!({"reason": "tcp_truncated", "count": 1}));
    let mut c = Capture::default();
    for _ in 0..7 {
        let mut frame = Talk::new(40_000).client(SYN, 0).frame();
        frame[14 + 20 + 12] = 0x40;
        c.after(10.0, frame);
    }
    let all = c.records();
    says(only(&all, "malformed"), json!({"reason": "tcp_offset", "count": 7}));
    assert_eq!(all.len(), 1);
}

// ---- The tool itself

#[test]
fn a_view_of_one_direction_says_so() {
    let Some(all) = found("zeek__ssh.client-side-half-duplex.pcap") else { return };
    let r = only(&all, "one_sided_view");
    judged(r, "info", "unknown", "proven");
    says(r, json!({"one_way": 10, "both_ways": 0}));
    assert_eq!(all.len(), 1, "and of missing answers nothing: {all:#?}");
}

mod rings {
    use std::io;

    use syntap::capture::{Packet, Point, Polled, PortSet, Source, SourceError};
    use syntap::detect::Anomaly;
    use syntap::flow::Seed;
    use syntap::pipeline::{Desk, Pipeline, Plan, RecordSink, Ticking, WorkerConfig};
    use syntap::record::{Context, Record};
    use syntap::wire::Nanos;

    use super::*;

    /// Gives what it holds, once.
    struct Ring(Vec<(u64, Vec<u8>)>);

    impl Source for Ring {
        fn poll(&mut self, _wait: u32, each: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
            let packets: Vec<Packet<'_>> = self
                .0
                .iter()
                .map(|(us, bytes)| Packet {
                    ts: Nanos(us * 1_000),
                    now: Nanos(us * 1_000),
                    point: Point(0),
                    wire_len: bytes.len() as u32,
                    bytes,
                    ..Packet::NONE
                })
                .collect();
            if packets.is_empty() {
                return Ok(Polled::End);
            }
            for batch in packets.chunks(syntap::capture::BATCH) {
                each(batch);
            }
            let n = packets.len();
            self.0.clear();
            Ok(Polled::Packets(n))
        }
    }

    struct Sink(Arc<Mutex<Vec<Value>>>);

    impl RecordSink for Sink {
        fn record(&mut self, record: &Record) -> io::Result<()> {
            self.0.lock().unwrap().push(serde_json::to_value(record).expect("it is JSON"));
            Ok(())
        }
    }

    impl Ticking for Sink {
        fn tick(&mut self) -> io::Result<Option<Anomaly>> {
            Ok(None)
        }
    }

    /// What a live run finds whose packets come over these rings.
    pub fn run(rings: Vec<Vec<(u64, Vec<u8>)>>) -> Vec<Value> {
        let records = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink(records.clone());
        let sources = rings.into_iter().map(|r| Box::new(Ring(r)) as Box<dyn Source + Send>).collect();
        let plan = Plan {
            worker: WorkerConfig {
                max_flows: 4_096,
                recorder: 4_096,
                seed: Seed::FIXED,
                ports: PortSet::all(),
                lives: false,
                ..WorkerConfig::default()
            },
            cpus: &[],
            clock: Arc::new(|| Nanos(2_000_000_000_000_000_000)),
            copies: None,
            conntrack: None,
            link: None,
            hand_over: Default::default(),
        };
        let desk = move || Ok(Desk::new(Context::default(), sink));
        let mut pipeline = Pipeline::start(sources, desk, plan).expect("it starts");
        let _ = pipeline.drain(&mut Default::default());
        pipeline.finish().written.expect("it ends");
        std::mem::take(&mut *records.lock().unwrap())
    }
}

/// Handshakes: client's packets and server's packets apart.
fn two_directions(count: u16) -> [Vec<(u64, Vec<u8>)>; 2] {
    let mut out = [Vec::new(), Vec::new()];
    for n in 0..count {
        let mut t = Talk::new(20_000 + n);
        let at = 1_700_000_000_000_000 + u64::from(n) * 1_000;
        out[0].push((at, t.client(SYN, 0).frame()));
        out[1].push((at + 100, t.server(SYN | ACK, 0).frame()));
        out[0].push((at + 200, t.client(ACK, 0).frame()));
    }
    out
}

#[test]
fn two_directions_on_two_rings_are_an_asymmetric_hash() {
    let [client, server] = two_directions(50);
    let all = rings::run(vec![client, server]);
    let r = only(&all, "asymmetric_hash");
    judged(r, "warning", "unknown", "proven");
    says(r, json!({"split": 10, "whole": 0, "rings": [0, 1]}));
    // Each flow on one ring: nothing.
    let [mut one, server] = two_directions(50);
    one.extend(server);
    one.sort_by_key(|p| p.0);
    let all = rings::run(vec![one, Vec::new()]);
    assert!(of_kind(&all, "asymmetric_hash").is_empty(), "{all:#?}");
}

#[test]
fn what_the_tool_lost_or_shed_is_told_with_its_cause_and_time() {
    use syntap::detect::tool::{Gap, Shed, Unit, budget_shed, capture_gap};
    use syntap::record::{Context, Record};
    use syntap::wire::Nanos;
    let record =
        |a| serde_json::to_value(Record::from_anomaly(&a, &Context::default(), None)).expect("it is JSON");
    let (first, last) = (Nanos(5_000_000_000), Nanos(6_000_000_000));
    let gap = Gap { cause: "ring_full", source: "ring 0", first, last, count: Some(7), unit: Unit::Packets };
    let r = record(capture_gap(&gap));
    judged(&r, "warning", "unknown", "proven");
    says(&r, json!({"cause": "ring_full", "source": "ring 0", "count": 7}));
    assert_eq!((&r["first_ns"], &r["last_ns"]), (&json!(first.0), &json!(last.0)));
    let shed = Shed {
        kept: Some(0.25),
        packets: [800, 50, 40, 7, 3],
        hard: 3,
        known: 2,
        budget_pps: 1_000,
        budget_share: Some(250_000),
        first,
        last,
        ..Shed::default()
    };
    let r = record(budget_shed(&shed));
    judged(&r, "warning", "unknown", "proven");
    says(
        &r,
        json!({"threshold": 0.25, "tuples": null, "packets": 900, "packets_of_broken_tuples": 3,
            "threshold_known": null, "packets_of_known_tuples": 2, "syn": 800, "control": 50, "watch": 40,
            "neighbour": 7, "icmp": 3, "budget_pps": 1000, "budget_share": 0.25}),
    );
}

// ---- What every kind has

/// The kinds that the joining of inside and outside, or of several ports, brings.
const JOINED: &[&str] = &[
    "syn_lost_in_gateway",
    "snat_collision",
    "snat_ports_exhausted",
    "reset_by_gateway",
    "mac_moved",
    "next_hop_changed",
];

#[test]
fn every_kind_of_the_vocabulary_that_one_tap_point_can_show_exists() {
    let vocabulary = "
        syn_unanswered syn_lost_in_gateway snat_collision snat_ports_exhausted syn_refused tuple_reuse_refused
        tuple_reuse_accepted syn_on_live_flow synack_unacknowledged accept_queue_overflow synack_wrong_ack
        synack_unsolicited synack_differs isn_changed_while_opening synack_from_originator split_handshake
        simultaneous_open options_altered probe_reset slow_handshake
        reset_mid_flow reset_after_idle reset_by_gateway reset_ignored reset_with_text reset_out_of_window
        reset_without_flow fin_storm reset_storm fin_unanswered half_closed_stuck black_hole
        arp_two_answers address_conflict address_flapping address_moved mac_moved mac_changed_in_flow next_hop_changed
        arp_spoof_sign seen_twice frame_loop
        syn_flood reset_rate_shift no_keepalive invalid_flags malformed
        one_sided_view asymmetric_hash capture_gap budget_shed";
    for name in vocabulary.split_whitespace().filter(|n| !JOINED.contains(n)) {
        assert!(Kind::from_name(name).is_some(), "{name}");
    }
    // One bit a kind remembers what was told of a flow.
    assert!(Kind::ALL.len() <= 64, "{}", Kind::ALL.len());
}

#[test]
fn every_kind_has_a_test_in_the_table_above_or_needs_both_sides_of_a_gateway() {
    let table: String = include_str!("kinds.rs")
        .lines()
        .take_while(|l| l.starts_with("//!"))
        .filter(|l| l.starts_with("//! | "))
        .map(|l| l.split('|').nth(1).expect("a cell").to_owned() + ",")
        .collect();
    let listed: BTreeSet<_> = table.split(',').map(str::trim).collect();
    for kind in Kind::ALL {
        let name = kind.name();
        let of_gateway = JOINED.contains(&name)
            || name.starts_with("nat_")
            || matches!(name, "untranslated_packet" | "conntrack_event_loss");
        assert!(listed.contains(name) != of_gateway, "{name}");
    }
}

#[test]
fn every_explanation_names_its_source_and_its_peers() {
    for kind in Kind::ALL {
        let e = explain(*kind);
        let out = common::run(common::syntap().args(["explain", kind.name()]));
        let text = String::from_utf8(out.stdout).expect("text");
        let words = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [e.meaning, e.rule, e.peers].into_iter().chain(e.causes.iter().copied()) {
            assert!(words(&text).contains(&words(part)), "{}: {part}", kind.name());
        }
    }
}

#[test]
fn a_record_says_through_which_vlan_or_tunnel_its_connection_runs() {
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    let syn = t.client(SYN, 0);
    let refusal = t.server(RST | ACK, 0);
    for (n, frame) in [&syn, &refusal].into_iter().enumerate() {
        c.after(n as f64, vlan(frame.frame(), &[7]));
    }
    let all = c.records();
    assert_eq!(only(&all, "syn_refused")["vlan"], 7);

    let mut c = Capture::default();
    let (one, two) = (std::net::Ipv4Addr::new(10, 0, 0, 1), std::net::Ipv4Addr::new(10, 0, 0, 2));
    c.after(0.0, vxlan(&syn.frame(), one, two, 42));
    c.after(1.0, vxlan(&refusal.frame(), two, one, 42));
    let all = c.records();
    let r = only(&all, "syn_refused");
    between(r, "192.0.2.1:40000 > 192.0.2.2:443");
    assert_eq!((&r["tunnel"]["kind"], &r["tunnel"]["id"]), (&json!("vxlan"), &json!(42)));

    let mut c = Capture::default();
    c.after(0.0, syn.frame6());
    c.after(1.0, refusal.frame6());
    c.after(1.0, with_macs(ipv4(CLIENT, SERVER, 17, &[0; 8]), OTHER, OTHER));
    let all = c.records();
    between(only(&all, "syn_refused"), "[2001:db8::c000:201]:40000 > [2001:db8::c000:202]:443");
}
