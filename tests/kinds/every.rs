//! What holds for every kind.

use super::*;

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
    let table: String = include_str!("main.rs")
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
