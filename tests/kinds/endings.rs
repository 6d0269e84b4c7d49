//! Kinds of resets and of ends.

use super::*;

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
