//! Traps that captures set.

use super::*;

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
