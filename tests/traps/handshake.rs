//! The nearest innocent case of each rule about handshakes.

use super::*;

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
