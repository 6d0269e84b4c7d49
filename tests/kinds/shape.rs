//! Kinds of the shape of all traffic, and of single packets.

use super::*;

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

#[test]
fn resets_that_become_frequent_are_a_shift() {
    let mut c = Capture::default();
    c.connections(10_000, 400, 100, 20.0);
    c.connections(12_000, 400, 4, 20.0);
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
