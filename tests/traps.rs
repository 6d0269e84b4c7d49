//! What must not fire: the traps that real captures set, and for each rule the nearest innocent case.
//!
//! The captures are in the corpus. The innocent cases are made by hand, each as near to its rule's condition as it can be without
//! being the thing; `kinds` has the cases that are. Those of the ARP rules alone are in `src/detect/arp.rs`.

mod common;

use std::collections::BTreeMap;

use common::packet::{ACK, FIN, PSH, RST, SYN, Tcp, arp, icmp, ipv4, mac, vlan, with_macs};
use common::talk::{CLIENT, Capture, ROUTER, SERVER, Talk};
use common::{corpus, json_lines, of_kind, replay, run, syntap};
use serde_json::{Value, json};

/// The records of a capture of the corpus.
fn found(file: &str) -> Option<Vec<Value>> {
    Some(replay(&[corpus(file)?.to_str().expect("a path")]))
}

/// Its connections.
fn lives(file: &str) -> Option<Vec<Value>> {
    let path = corpus(file)?;
    Some(json_lines(&run(syntap().args(["replay", "--connections"]).arg(path))))
}

/// Kinds with how often.
fn kinds(records: &[Value]) -> BTreeMap<&str, usize> {
    let mut count = BTreeMap::new();
    for r in records {
        *count.entry(r["kind"].as_str().expect("a kind")).or_default() += 1;
    }
    count
}

/// The only kinds found, with how often.
#[track_caller]
fn only(records: &[Value], expected: &[(&str, usize)]) {
    assert_eq!(kinds(records), expected.iter().copied().collect(), "{records:#?}");
}

/// Nothing at all.
#[track_caller]
fn nothing(c: &Capture) {
    let all = c.records();
    assert!(all.is_empty(), "{all:#?}");
}

/// A capture in which a connection was opened and used.
fn opened() -> (Capture, Talk) {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    t.open(&mut c);
    t.exchange(&mut c);
    (c, t)
}

// ---- Traps that captures set

#[test]
fn packets_seen_on_both_sides_of_a_hop_are_neither_retransmissions_nor_a_hijack() {
    for (file, kinds) in [
        ("arkime__http-post-upload.pcap", &[("seen_twice", 1)][..]),
        ("ppa2__double-vision.pcap", &[("seen_twice", 2), ("syn_refused", 1), ("reset_mid_flow", 1)][..]),
        ("ndpi__mongodb.pcap", &[("seen_twice", 3)][..]),
    ] {
        let Some(all) = found(file) else { return };
        only(&all, kinds);
        assert!(all.iter().all(|r| r["severity"] == "info"), "{file}");
    }
}

#[test]
fn an_interposed_host_changes_the_mac_once_and_is_no_second_sight() {
    let Some(all) = found("ppa3__sessionhijacking.pcapng") else { return };
    only(&all, &[("mac_changed_in_flow", 1), ("half_closed_stuck", 1)]);
}

#[test]
fn frames_that_hardware_doubled_are_one_record() {
    let Some(all) = found("tcptrace__hardware_dups.pcap") else { return };
    only(&all, &[("seen_twice", 1)]);
}

#[test]
fn a_wireless_bridge_that_asks_and_answers_for_others_is_no_conflict() {
    let Some(all) = found("elcabezzonn__mimikatz_rpc.pcap") else { return };
    only(&all, &[("syn_refused", 3), ("reset_mid_flow", 1)]);
    assert!(all.iter().all(|r| r["severity"] == "info"));
}

#[test]
fn poisoning_shows_in_the_traffic_where_no_earlier_arp_does() {
    let Some(all) = found("ppa3__arppoison.pcapng") else { return };
    only(&all, &[("arp_spoof_sign", 2), ("mac_changed_in_flow", 2)]);
}

#[test]
fn a_syn_ack_captured_before_its_syn_is_an_answer_and_turns_nothing_round() {
    let Some(all) = found("zeek__handshake-reorder.pcap") else { return };
    only(&all, &[]);
    let lives = lives("zeek__handshake-reorder.pcap").expect("it is there");
    assert_eq!((lives.len(), &lives[0]["syn"], &lives[0]["syn_ack"]), (1, &json!(1), &json!(1)));
    let Some(all) = found("arkime__tcp_handshake_synthetic.pcap") else { return };
    assert!(of_kind(&all, "synack_unsolicited").is_empty(), "{all:#?}");
}

#[test]
fn one_tuple_on_several_vlans_is_the_same_packets_once_more() {
    let Some(all) = found("zeek__vlan-collisions.pcap") else { return };
    only(&all, &[("seen_twice", 1)]);
}

#[test]
fn a_connection_tagged_in_one_direction_only_is_one_connection() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    for n in 0..3 {
        let (flags, back) = [(SYN, SYN | ACK), (ACK, ACK), (FIN | ACK, FIN | ACK)][n];
        c.after(5.0, vlan(t.client(flags, 0).frame(), &[42]));
        c.after(5.0, t.server(back, 0).frame());
    }
    c.after(5.0, vlan(t.client(ACK, 0).frame(), &[42]));
    nothing(&c);
}

#[test]
fn a_fast_open_that_is_refused_is_no_wrong_acknowledgement() {
    let file = "suriv__tcp-fastopen-11-reject-syn-data__tlpw-tcp-tfo-data-on-syn-nack.pcap";
    let Some(all) = found(file) else { return };
    only(&all, &[("tfo_refused", 1)]);
}

#[test]
fn an_injected_reset_before_the_real_answer_is_no_reuse_of_ports() {
    let Some(all) = found("zeek__rst-inject-rae.pcap") else { return };
    only(&all, &[("reset_ignored", 1), ("reset_mid_flow", 1), ("reset_out_of_window", 1)]);
}

#[test]
fn two_dozen_isns_on_one_tuple_are_one_attempt() {
    let Some(all) = found("suriv__bug-7657-01__input.pcap") else { return };
    only(&all, &[("isn_changed_while_opening", 1), ("options_altered", 1)]);
}

#[test]
fn packets_cut_by_the_snap_length_are_measured_by_their_ip_header() {
    let Some(all) = found("tcptrace__fast_reuse.pcap") else { return };
    // Its server's SYN-ACKs have timestamps that end two bytes beyond their header.
    only(&all, &[("options_altered", 17)]);
    let lives = lives("tcptrace__fast_reuse.pcap").expect("it is there");
    assert_eq!(lives.len(), 18);
    assert!(
        lives.iter().any(|l| l["orig_bytes"].as_u64().is_some_and(|n| n > 10_000)),
        "lengths on the wire"
    );
}

#[test]
fn a_jumbo_packet_without_a_length_is_measured_by_its_frame() {
    let Some(lives) = lives("tcpdump__bigtcp-ipv6-hbh.pcap") else { return };
    assert_eq!(lives.len(), 1);
    only(&found("tcpdump__bigtcp-ipv6-hbh.pcap").expect("it is there"), &[]);
}

#[test]
fn the_same_tuple_hours_later_is_a_new_connection_and_breaks_none() {
    let (mut c, t) = opened();
    let mut next = t.again(777_000_000);
    c.pass(3.0 * 3_600_000.0);
    next.open(&mut c);
    next.exchange(&mut c);
    next.close(&mut c);
    nothing(&c);
}

#[test]
fn headers_that_icmp_errors_quote_are_no_connections() {
    for (file, count) in [("snort3demo__reject_expected.pcap", 1), ("ndpi__6in4tunnel.pcap", 0)] {
        let Some(lives) = lives(file) else { return };
        if count > 0 {
            assert_eq!(lives.len(), count, "{file}");
        }
        // A connection of a quoted header would have one packet, of one end.
        assert!(lives.iter().all(|l| l["orig_packets"] != 0), "{file}: {lives:#?}");
    }
    let Some(all) = found("snort3demo__reject_expected.pcap") else { return };
    only(&all, &[("reset_mid_flow", 1)]);
    let mut c = Capture::default();
    let syn = Talk::new(40_000).client(SYN, 0).frame();
    c.after(1.0, icmp(ROUTER, CLIENT, (3, 1), 0, &syn));
    nothing(&c);
}

#[test]
fn ordinary_captures_of_others_give_nothing() {
    for file in [
        "deepflow__http.pcap",
        "pktvisor__dns_ipv6_tcp.pcap",
        "tcpdump__mptcp-aa-v1.pcap",
        "zeek__globus-url-copy.pcap",
        "zeek__wikipedia.pcap",
        "arkime__http-500-head.pcap",
        "deepflow__client-keep-alive.pcap",
        "zeek__syn-synack.pcap",
        "zeek__syn-then-rst.pcap",
        "zeek__missing-syn.pcap",
        "zeek__localhost-bad-chksum.pcap",
        "tcpflow__test7-three-flows.pcap",
    ] {
        let Some(all) = found(file) else { return };
        assert!(all.is_empty(), "{file}: {all:#?}");
    }
}

// ---- The nearest innocent case: handshake

#[test]
fn a_syn_that_still_waits_when_the_capture_ends_is_not_unanswered() {
    let mut c = Capture::default();
    c.after(0.0, Talk::new(40_000).client(SYN, 0).frame());
    c.quiet(2_500.0);
    nothing(&c);
}

#[test]
fn a_syn_whose_answer_shows_only_in_what_follows_is_not_unanswered() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    c.after(0.0, t.client(SYN, 0).frame());
    let _ = t.server(SYN | ACK, 0);
    c.after(200.0, t.client(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    nothing(&c);
}

#[test]
fn a_view_of_one_direction_tells_of_no_missing_answer() {
    let mut c = Capture::default();
    for n in 0..12 {
        let mut t = Talk::new(20_000 + n);
        c.after(5.0, t.client(SYN, 0).frame());
        let _ = t.server(SYN | ACK, 0);
        c.after(5.0, t.client(ACK, 320).frame());
        c.after(5.0, t.client(FIN | ACK, 0).frame());
    }
    c.pass(400_000.0);
    let syn = Talk::new(30_000).client(SYN, 0);
    for ms in [0.0, 1_000.0, 2_000.0] {
        c.after(ms, syn.frame());
    }
    c.quiet(30_000.0);
    only(&c.records(), &[("one_sided_view", 1)]);
}

#[test]
fn an_originator_that_gives_up_at_once_was_not_refused() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    c.after(0.0, t.client(SYN, 0).frame());
    c.after(300.0, t.client(RST, 0).frame());
    c.quiet(30_000.0);
    nothing(&c);
}

#[test]
fn an_icmp_error_for_another_attempt_refuses_nothing() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    let old = Tcp { seq: 1, ..t.clone().client(SYN, 0) }.frame();
    c.after(0.0, t.client(SYN, 0).frame());
    c.after(1.0, icmp(ROUTER, CLIENT, (3, 1), 0, &old));
    c.after(1.0, t.server(SYN | ACK, 0).frame());
    c.after(1.0, t.client(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    nothing(&c);
}

#[test]
fn a_tuple_used_again_after_a_minute_or_after_a_reset_is_not_worth_a_word() {
    let (mut c, mut t) = opened();
    t.close_by_server(&mut c);
    let mut next = t.again(900_000_000);
    c.pass(61_000.0);
    next.open(&mut c);
    next.exchange(&mut c);
    next.close(&mut c);
    nothing(&c);
    // Zeek's SYN_after_reset: a normal retry.
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    t.open(&mut c);
    c.after(5.0, t.client(ACK, 320).frame());
    c.after(5.0, t.client(RST | ACK, 0).frame());
    let mut next = t.again(900_000_000);
    next.open(&mut c);
    next.close(&mut c);
    only(&c.records(), &[("reset_mid_flow", 1)]);
}

#[test]
fn a_late_duplicate_of_the_syn_that_opened_a_connection_attacks_nobody() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    let syn = t.clone().client(SYN, 0);
    t.open(&mut c);
    t.exchange(&mut c);
    c.after(50.0, Tcp { id: 9, ..syn }.frame());
    c.after(1.0, t.server(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    nothing(&c);
}

#[test]
fn a_keep_alive_ack_of_the_responder_behind_a_syn_that_is_answered_is_no_refusal() {
    // The plain ACK of the SYN itself, as a SYN proxy sends it, then the SYN-ACK.
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    c.after(0.0, t.client(SYN, 0).frame());
    c.after(5.0, t.clone().server(ACK, 0).frame());
    c.after(5.0, t.server(SYN | ACK, 0).frame());
    c.after(5.0, t.client(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    let all = c.records();
    assert!(of_kind(&all, "tuple_reuse_refused").is_empty(), "{all:#?}");
}

#[test]
fn an_old_ack_on_its_way_when_the_tuple_is_used_again_refuses_nothing() {
    let (mut c, mut t) = opened();
    t.close_by_server(&mut c);
    let mut next = t.again(900_000_000);
    c.after(2_000.0, next.client(SYN, 0).frame());
    // Answers the last ACK of the old life, sent again before the SYN.
    c.after(0.2, t.server(ACK, 0).frame());
    c.after(0.2, next.server(SYN | ACK, 0).frame());
    c.after(5.0, next.client(ACK, 0).frame());
    next.exchange(&mut c);
    next.close(&mut c);
    let all = c.records();
    assert!(of_kind(&all, "tuple_reuse_refused").is_empty(), "{all:#?}");
    assert!(all.iter().all(|r| r["severity"] == "info"), "{all:#?}");
}

#[test]
fn an_answer_to_the_syn_before_a_new_one_acknowledges_nothing_wrong() {
    let mut c = Capture::default();
    let mut one = Talk::new(40_000);
    let mut two = one.again(900_000_000);
    c.after(0.0, one.client(SYN, 0).frame());
    c.after(50.0, two.client(SYN, 0).frame());
    c.after(1.0, one.server(SYN | ACK, 0).frame());
    c.after(1.0, two.server(SYN | ACK, 0).frame());
    c.after(1.0, two.client(ACK, 0).frame());
    two.exchange(&mut c);
    two.close(&mut c);
    only(&c.records(), &[("isn_changed_while_opening", 1)]);
}

#[test]
fn a_syn_ack_that_crosses_the_final_ack_is_no_full_queue() {
    // A round trip of 900 ms: the timer of the responder runs out while the final ACK is on its way past the tap.
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    c.after(0.0, t.client(SYN, 0).frame());
    let answer = t.server(SYN | ACK, 0);
    c.after(5.0, answer.frame());
    c.after(1.0, t.client(ACK, 0).frame());
    c.after(400.0, Tcp { id: 7, ..answer.clone() }.frame());
    c.after(1.0, t.client(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    nothing(&c);
}

#[test]
fn one_lost_final_ack_is_no_full_queue_if_the_connection_goes_on() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    c.after(0.0, t.client(SYN, 0).frame());
    let answer = t.server(SYN | ACK, 0);
    c.after(5.0, answer.frame());
    c.after(1.0, t.client(ACK, 0).frame());
    c.after(1_000.0, Tcp { id: 7, ..answer.clone() }.frame());
    c.after(1.0, t.client(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    nothing(&c);
}

#[test]
fn a_syn_ack_that_takes_all_or_a_part_of_the_data_in_the_syn_is_right() {
    for taken in [500, 200] {
        let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
        let isn = t.next[0];
        c.after(0.0, t.client(SYN, 500).frame());
        t.next[0] = isn + 1 + taken;
        c.after(5.0, t.server(SYN | ACK, 0).frame());
        c.after(5.0, t.client(ACK, 500 - taken as usize).frame());
        t.exchange(&mut c);
        t.close(&mut c);
        nothing(&c);
    }
}

#[test]
fn the_same_syn_ack_again_differs_from_nothing_nor_does_the_next_lifes() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    c.after(0.0, t.client(SYN, 0).frame());
    let answer = t.server(SYN | ACK, 0);
    c.after(5.0, answer.frame());
    c.after(20.0, Tcp { id: 7, ..answer }.frame());
    c.after(5.0, t.client(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    let mut next = t.again(5_000);
    next.next[1] = 99;
    c.pass(70_000.0);
    next.open(&mut c);
    next.close(&mut c);
    nothing(&c);
}

#[test]
fn a_syn_ack_at_the_beginning_of_a_capture_answers_a_syn_from_before_it() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    let _ = t.client(SYN, 0);
    c.after(500.0, t.server(SYN | ACK, 0).frame());
    c.after(5.0, t.client(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    nothing(&c);
}

#[test]
fn another_isn_after_a_refusal_is_the_next_attempt() {
    let mut c = Capture::default();
    for isn in [1_000, 2_000, 3_000] {
        let mut t = Talk::new(40_000).again(isn);
        c.after(500.0, t.client(SYN, 0).frame());
        c.after(1.0, t.server(RST | ACK, 0).frame());
    }
    only(&c.records(), &[("syn_refused", 3)]);
}

#[test]
fn two_connections_that_are_reset_at_once_are_no_health_check_nor_are_those_that_were_used() {
    let mut c = Capture::default();
    for n in 0..2 {
        let mut t = Talk::new(20_000 + n);
        c.after(5.0, t.client(SYN, 0).frame());
        c.after(5.0, t.server(SYN | ACK, 0).frame());
        c.after(5.0, t.client(RST, 0).frame());
    }
    for n in 0..5 {
        let mut t = Talk::new(30_000 + n);
        t.open(&mut c);
        t.exchange(&mut c);
        c.after(5.0, t.client(RST | ACK, 0).frame());
    }
    let all = c.records();
    assert!(of_kind(&all, "probe_reset").is_empty(), "{all:#?}");
}

#[test]
fn options_that_stacks_do_send_are_not_altered() {
    let stacks: &[&[u8]] = &[
        // None at all: small and old stacks.
        &[],
        // Linux, Windows, FreeBSD, macOS, Solaris.
        &[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7],
        &[2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2],
        &[2, 4, 5, 180, 1, 3, 3, 6, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
        &[2, 4, 5, 180, 1, 3, 3, 5, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 4, 2, 0, 0],
        &[1, 3, 3, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 2, 4, 5, 180, 1, 1, 4, 2],
        // Padding of a whole word, and nothing missing (a real FreeBSD, zeek__ipv6 94).
        &[2, 4, 5, 160, 1, 3, 3, 6, 4, 2, 1, 1, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
        // The largest scale; a Fast Open cookie; an option from the future.
        &[2, 4, 5, 180, 1, 3, 3, 14],
        &[2, 4, 5, 180, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0],
        &[2, 4, 5, 180, 77, 4, 0, 0],
    ];
    for options in stacks {
        let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
        t.options = options.to_vec();
        t.open(&mut c);
        t.exchange(&mut c);
        t.close(&mut c);
        nothing(&c);
    }
}

#[test]
fn a_third_packet_that_follows_data_which_was_not_captured_is_not_wrong() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    c.after(0.0, t.client(SYN, 0).frame());
    c.after(5.0, t.server(SYN | ACK, 0).frame());
    let _ = (t.client(ACK, 0), t.client(ACK, 1_400), t.server(ACK, 2_800));
    c.after(50.0, t.client(ACK, 0).frame());
    t.exchange(&mut c);
    t.close(&mut c);
    nothing(&c);
    if let Some(all) = found("arkime__no-syn-ack.pcap") {
        assert!(of_kind(&all, "final_ack_wrong").is_empty());
    }
}

#[test]
fn a_handshake_that_lost_its_syn_is_not_slow_and_a_far_responder_neither() {
    let mut c = Capture::default();
    for n in 0..220u16 {
        let mut t = Talk::new(20_000 + n);
        let syn = t.client(SYN, 0);
        c.after(20.0, syn.frame());
        if n == 210 {
            c.after(1_000.0, Tcp { id: 3, ..syn }.frame());
        }
        c.after(20.0, t.server(SYN | ACK, 0).frame());
        c.after(1.0, t.client(ACK, 0).frame());
    }
    only(&c.records(), &[("syn_unanswered", 1)]);
}

// ---- Resets and ends

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

// ---- Link layer

#[test]
fn a_mac_that_changes_between_two_lives_or_of_the_other_direction_is_no_change_in_a_flow() {
    let (mut c, mut t) = opened();
    t.close(&mut c);
    let mut next = t.again(900_000_000);
    c.pass(70_000.0);
    let moved = |tcp: Tcp| with_macs(tcp.frame(), [2, 9, 9, 9, 9, 9], mac(SERVER));
    c.after(5.0, moved(next.client(SYN, 0)));
    c.after(5.0, next.server(SYN | ACK, 0).frame());
    c.after(5.0, moved(next.client(ACK, 0)));
    let all = c.records();
    assert!(of_kind(&all, "mac_changed_in_flow").is_empty(), "{all:#?}");
}

#[test]
fn a_failover_that_announces_itself_to_all_moves_an_address_and_spoofs_nothing() {
    let (mut c, mut t) = opened();
    let (old, new) = ([2, 0, 0, 0, 7, 1], [2, 0, 0, 0, 7, 2]);
    let from = |router, tcp: Tcp| with_macs(tcp.frame(), router, mac(CLIENT));
    c.after(5.0, from(old, t.server(ACK, 10)));
    c.after(1.0, arp(true, (mac(CLIENT), CLIENT), ([0; 6], ROUTER)));
    c.after(1.0, arp(false, (old, ROUTER), (mac(CLIENT), CLIENT)));
    // Gratuitous: its own address asked for, and answered, to all.
    c.after(9_000.0, arp(true, (new, ROUTER), ([0; 6], ROUTER)));
    c.after(1.0, arp(false, (new, ROUTER), ([0xff; 6], ROUTER)));
    c.after(1.0, from(new, t.server(ACK, 10)));
    let all = c.records();
    assert!(of_kind(&all, "arp_spoof_sign").is_empty(), "{all:#?}");
    assert!(of_kind(&all, "address_conflict").is_empty(), "{all:#?}");
    assert_eq!(of_kind(&all, "address_moved").len(), 1, "{all:#?}");
}

#[test]
fn a_machine_that_asks_for_its_new_router_is_not_spoofed() {
    let (mut c, mut t) = opened();
    let new = [2, 0, 0, 0, 7, 2];
    c.after(1.0, arp(true, (mac(CLIENT), CLIENT), ([0; 6], ROUTER)));
    c.after(1.0, arp(false, (new, ROUTER), (mac(CLIENT), CLIENT)));
    c.after(1.0, with_macs(t.server(ACK, 10).frame(), new, mac(CLIENT)));
    only(&c.records(), &[("mac_changed_in_flow", 1)]);
}

#[test]
fn a_retransmission_has_an_identification_of_its_own_and_is_no_second_sight() {
    let (mut c, mut t) = opened();
    let data = t.client(ACK, 1_000);
    c.after(5.0, data.frame());
    c.after(8.0, Tcp { id: data.id + 1, ..data }.frame());
    c.after(5.0, t.server(ACK, 0).frame());
    t.close(&mut c);
    nothing(&c);
}

#[test]
fn a_packet_that_a_router_sends_back_out_of_the_same_port_is_no_loop() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    let syn = t.client(SYN, 0);
    c.way(0.0, 1, syn.frame());
    c.way(0.1, 2, with_macs(Tcp { ttl: 63, ..syn }.frame(), mac(ROUTER), mac(SERVER)));
    c.way(5.0, 1, t.server(SYN | ACK, 0).frame());
    only(&c.records(), &[("seen_twice", 1)]);
    // The same SYN out, and sent again a second later: nothing came back in.
    let mut c = Capture::default();
    let mut t = Talk::new(40_000);
    let syn = t.client(SYN, 0);
    c.way(0.0, 2, syn.frame());
    c.way(5.0, 1, t.server(SYN | ACK, 0).frame());
    nothing(&c);
}

// ---- Shape

#[test]
fn a_busy_service_that_answers_is_not_flooded() {
    let mut c = Capture::default();
    for n in 0..3_000u16 {
        let mut t = Talk::new(10_000 + n);
        c.after(0.3, t.client(SYN, 0).frame());
        // One of five gets no answer: 80 % do.
        if n % 5 != 0 {
            c.after(0.1, t.server(SYN | ACK, 0).frame());
        }
    }
    let all = c.records();
    assert!(of_kind(&all, "syn_flood").is_empty(), "{:?}", kinds(&all));
}

/// Connections with two requests each, of which the server resets one in `every`.
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
    }
}

#[test]
fn a_share_of_resets_that_stays_is_no_shift_however_the_load_changes() {
    let mut c = Capture::default();
    connections(&mut c, 10_000, 300, 10);
    c.pass(600_000.0);
    // A burst, in which the resets come long before the first of its connections is forgotten.
    connections(&mut c, 20_000, 2_000, 10);
    c.quiet(400_000.0);
    let all = c.records();
    assert!(of_kind(&all, "reset_rate_shift").is_empty(), "{:?}", kinds(&all));
    assert!(of_kind(&all, "no_keepalive").is_empty(), "two requests each");
}

#[test]
fn flags_that_stacks_do_send_are_valid() {
    const URG: u8 = 32;
    const ECE: u8 = 64;
    const CWR: u8 = 128;
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    // ECN is negotiated (RFC 3168 section 6.1.1), then urgent data, then a FIN with the last of it.
    c.after(0.0, t.client(SYN | ECE | CWR, 0).frame());
    c.after(5.0, t.server(SYN | ACK | ECE, 0).frame());
    c.after(5.0, t.client(ACK, 0).frame());
    c.after(5.0, t.client(ACK | PSH | URG, 20).frame());
    c.after(5.0, t.server(ACK | ECE, 0).frame());
    c.after(5.0, t.client(ACK | CWR, 20).frame());
    c.after(5.0, t.client(FIN | PSH | ACK | URG, 20).frame());
    c.after(5.0, t.server(FIN | ACK, 0).frame());
    c.after(5.0, t.client(ACK, 0).frame());
    nothing(&c);
}

#[test]
fn padding_and_snap_lengths_are_nothing_malformed() {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    let mut padded = |tcp: Tcp| {
        let mut frame = tcp.frame();
        frame.resize(frame.len().max(60) + 6, 0xaa);
        c.after(5.0, frame);
    };
    padded(t.client(SYN, 0));
    padded(t.server(SYN | ACK, 0));
    padded(t.client(ACK, 0));
    padded(t.client(FIN | ACK, 0));
    padded(t.server(FIN | ACK, 0));
    padded(t.client(ACK, 0));
    nothing(&c);
}

#[test]
fn a_few_connections_of_which_one_direction_was_missed_make_no_one_sided_view() {
    let mut c = Capture::default();
    for n in 0..30 {
        let mut t = Talk::new(20_000 + n);
        if n % 3 == 0 {
            t.open(&mut c);
            t.exchange(&mut c);
            t.exchange(&mut c);
            t.close(&mut c);
        } else {
            c.after(5.0, t.client(SYN, 0).frame());
            let _ = t.server(SYN | ACK, 0);
            c.after(5.0, t.client(ACK, 0).frame());
            c.after(5.0, t.client(RST | ACK, 0).frame());
        }
    }
    c.quiet(400_000.0);
    let all = c.records();
    assert!(of_kind(&all, "one_sided_view").is_empty(), "{:?}", kinds(&all));
}
