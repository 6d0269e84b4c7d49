//! Kinds of the link layer.

use super::*;

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
