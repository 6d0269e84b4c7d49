//! The lab's captures of both sides, joined: whose doing each of the stories was.

mod common;

use std::net::Ipv4Addr;

use common::packet::{ACK, RST, SYN, pcap};
use common::talk::Talk;
use common::{corpus, of_kind, replay};
use serde_json::Value;

fn joined(scenario: &str) -> Option<Vec<Value>> {
    let side = |side: &str| {
        let path = corpus(&format!("lab/{scenario}-{side}.pcap"))?;
        Some(format!("{side}:{side}={}", path.display()))
    };
    Some(replay(&[&side("inside")?, &side("outside")?]))
}

fn loud(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|r| r["severity"] != "info").collect()
}

#[test]
fn every_syn_that_the_race_cost_is_matched_to_its_rival() {
    let Some(records) = joined("snat_race") else { return };
    let lost = of_kind(&records, "snat_collision");
    assert_eq!(lost.len(), 37, "as many as conntrack counted in insert_failed");
    for r in &lost {
        assert_eq!((r["verdict"].as_str(), r["interface"].as_str()), (Some("gateway"), Some("inside")));
        let rival = r["facts"]["rival"].as_str().expect("a rival");
        let port = r["src_port"].to_string();
        assert!(
            rival.contains(&format!(":{port} > ")) && !rival.starts_with(r["src_ip"].as_str().unwrap()),
            "{rival}"
        );
        assert!(r["facts"]["gap_us"].as_u64().expect("a gap") <= 100);
        assert_eq!(r["nat"]["src_ip"], "198.51.100.1", "the tuple of the retry that went through");
    }
    assert_eq!(loud(&records).len(), 37, "and nothing else");
}

#[test]
fn loss_beyond_the_gateway_is_never_the_gateways() {
    let Some(records) = joined("lossy") else { return };
    let unanswered = of_kind(&records, "syn_unanswered");
    assert!(unanswered.len() > 150, "{}", unanswered.len());
    for r in loud(&records) {
        // A peer that only ever sent SYN-ACKs may be one with a full accept queue: then nobody is blamed.
        assert!(["network", "unknown"].iter().any(|v| r["verdict"] == *v), "{}", r["summary"]);
    }
}

#[test]
fn a_tuple_that_the_gateway_handed_on_is_the_gateways_doing_and_the_story_the_clients() {
    let Some(records) = joined("time_wait_reuse") else { return };
    let refused = of_kind(&records, "tuple_reuse_refused");
    let by = |verdict: &str, side: &str| {
        refused.iter().filter(|r| r["verdict"] == verdict && r["interface"] == side).count()
    };
    assert_eq!((by("gateway", "inside"), by("originator", "inside")), (49, 13));
    assert_eq!((by("gateway", "outside"), by("originator", "outside")), (56, 13));
    for r in refused.iter().filter(|r| r["verdict"] == "gateway") {
        let (now, before) = (r["facts"]["inside"].as_str(), r["facts"]["inside_before"].as_str());
        assert!(now.is_some() && before.is_some() && now != before, "{}", r["summary"]);
    }
    let pressure = of_kind(&records, "nat_port_pressure");
    assert!(!pressure.is_empty() && pressure.iter().all(|r| r["severity"] == "warning"));
    // Late resets of connections that are over leave every gateway untranslated.
    let strays = of_kind(&records, "untranslated_packet");
    assert!(strays.len() == 2 && strays.iter().all(|r| r["severity"] == "info"));
}

#[test]
fn a_lost_mapping_is_one_incident() {
    let Some(records) = joined("nat_mapping_lost") else { return };
    let lost = of_kind(&records, "nat_mapping_lost");
    assert_eq!(lost.len(), 1);
    let r = lost[0];
    assert_eq!((r["src_ip"].as_str(), r["src_port"].as_u64()), (Some("10.77.0.11"), Some(37_536)));
    assert_eq!(
        (&r["facts"]["untranslated"], &r["facts"]["gateway_resets"]),
        (&Value::from(2), &Value::from(1))
    );
    let macs = (&r["facts"]["mac_before"], &r["facts"]["mac_after"]);
    assert_eq!(macs, (&"3a:a4:1b:bf:23:96".into(), &"56:70:1e:fc:91:9e".into()));
    assert_eq!(r["facts"]["outside"], "198.51.100.1:37536 > 198.51.100.2:6783");
    assert_eq!(of_kind(&records, "reset_by_gateway").len(), 1);
    assert!(of_kind(&records, "reset_mid_flow").is_empty(), "it was no middlebox");
}

#[test]
fn ordinary_traffic_of_both_sides_is_quiet_and_every_connection_has_its_other_tuple() {
    for scenario in ["healthy", "benign_odd"] {
        let Some(records) = joined(scenario) else { return };
        assert!(loud(&records).is_empty(), "{scenario}: {}", loud(&records)[0]["summary"]);
    }
    let side = |side: &str| {
        format!("{side}:{side}={}", corpus(&format!("lab/healthy-{side}.pcap")).unwrap().display())
    };
    let out =
        common::run(common::syntap().args(["replay", "--connections", &side("inside"), &side("outside")]));
    let connections = common::json_lines(&out);
    assert_eq!(connections.len(), 4_000);
    for c in &connections {
        let inside = c["interface"] == "inside";
        let expected = if inside { "198.51.100.1" } else { "10.77.0.1" };
        assert!(c["nat"]["src_ip"].as_str().is_some_and(|ip| ip.starts_with(expected)), "{c}");
    }
}

/// A gateway with this address outside resets a connection itself, in answer to what came in.
fn reset_by(gateway: Ipv4Addr) -> Vec<Value> {
    let server = (Ipv4Addr::new(192, 0, 2, 2), 443);
    let mut inside = Talk::to((Ipv4Addr::new(10, 0, 0, 5), 40_000), server);
    let mut outside = inside.clone();
    outside.client.0 = gateway;
    let mut captures = [Vec::new(), Vec::new()];
    let mut us = 1_700_000_000_000_000;
    for (from, flags, payload) in
        [(0, SYN, 0), (1, SYN | ACK, 0), (0, ACK, 0), (0, ACK, 320), (1, ACK, 270), (0, ACK, 0)]
    {
        us += 5_000;
        for (n, t) in [&mut inside, &mut outside].into_iter().enumerate() {
            let mut tcp = if from == 0 { t.client(flags, payload) } else { t.server(flags, payload) };
            // What the gateway forwards has lost a hop; its own reset below has not.
            tcp.ttl -= u8::from((from == 0) == (n == 1));
            captures[n].push((us + if (from == 0) == (n == 0) { 0 } else { 50 }, tcp.frame()));
        }
    }
    captures[1].push((us + 1_000_000, outside.server(ACK, 100).frame()));
    captures[1].push((us + 1_000_050, outside.client(RST, 0).frame()));
    let dir = tempfile::tempdir().expect("a directory");
    let files = ["inside", "outside"].map(|side| dir.path().join(side));
    for (file, packets) in files.iter().zip(&captures) {
        std::fs::write(file, pcap(packets)).expect("written");
    }
    let [a, b] = files.map(|f| f.display().to_string());
    replay(&[&format!("inside:inside={a}"), &format!("outside:outside={b}")])
}

#[test]
fn a_reset_of_the_gateway_is_told_from_the_clients_whatever_the_order_of_the_addresses() {
    for gateway in [Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(203, 0, 113, 9)] {
        let all = reset_by(gateway);
        let of: Vec<_> = all.iter().filter(|r| r["verdict"] == "gateway").collect();
        assert!(!of.is_empty(), "{gateway}: {all:#?}");
    }
}

#[test]
fn a_reset_of_the_gateway_alone_has_two_explanations() {
    let all = reset_by(Ipv4Addr::new(203, 0, 113, 9));
    let reset = of_kind(&all, "reset_by_gateway");
    assert_eq!((reset.len(), &reset[0]["certainty"]), (1, &"proven".into()), "{all:#?}");
    let said = reset[0]["summary"].as_str().expect("a summary");
    assert!(said.ends_with("none came from 10.0.0.5:40000"), "{said}");
    let lost = of_kind(&all, "nat_mapping_lost");
    assert_eq!((lost.len(), &lost[0]["certainty"]), (1, &"possible".into()), "{all:#?}");
    let said = lost[0]["summary"].as_str().expect("a summary");
    assert!(said.contains("may have lost") && said.contains("a rule of its own that rejects"), "{said}");
}
