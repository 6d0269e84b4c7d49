//! The nearest innocent case of each rule about the shape of traffic.

use super::*;

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

#[test]
fn a_share_of_resets_that_stays_is_no_shift_however_the_load_changes() {
    let mut c = Capture::default();
    c.connections(10_000, 300, 10, 0.0);
    c.pass(600_000.0);
    // A burst, in which the resets come long before the first of its connections is forgotten.
    c.connections(20_000, 2_000, 10, 0.0);
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
