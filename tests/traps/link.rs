//! The nearest innocent case of each rule about the link layer.

use super::*;

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
