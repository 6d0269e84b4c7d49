//! Captures of a real gateway in its lab, each with a known truth.

mod common;

use common::{above_info, corpus, of_kind, replay};

fn records(name: &str) -> Option<Vec<serde_json::Value>> {
    let path = corpus(&format!("lab/{name}.pcap"))?;
    Some(replay(&[path.to_str().expect("a path")]))
}

#[test]
fn healthy_traffic_gives_nothing_above_info() {
    for side in ["inside", "outside"] {
        let Some(r) = records(&format!("healthy-{side}")) else { return };
        assert_eq!(above_info(&r), 0, "{side}: {r:?}");
    }
}

#[test]
fn harmless_oddities_give_nothing_above_info() {
    for side in ["inside", "outside"] {
        let Some(r) = records(&format!("benign_odd-{side}")) else { return };
        assert_eq!(above_info(&r), 0, "{side}");
    }
}

#[test]
fn every_refusal_that_was_counted_is_found_and_no_other() {
    for (side, count) in [("inside", 62), ("outside", 69)] {
        let Some(r) = records(&format!("time_wait_reuse-{side}")) else { return };
        let refused = of_kind(&r, "tuple_reuse_refused");
        assert_eq!(refused.len(), count, "{side}");
        let odd = |state| refused.iter().filter(|r| r["facts"]["old_state"] == state).count();
        assert_eq!(odd("half_open") + odd("fin_wait2"), 4, "{side}");
        assert!(refused.iter().all(|r| r["certainty"] != "possible"), "{side}");
    }
}

#[test]
fn loss_is_called_loss_and_never_a_refusal() {
    for side in ["inside", "outside"] {
        let Some(r) = records(&format!("lossy-{side}")) else { return };
        assert!(of_kind(&r, "tuple_reuse_refused").is_empty(), "{side}");
        for r in r.iter().filter(|r| r["severity"] != "info") {
            assert!(r["verdict"] == "unknown" || r["verdict"] == "network", "{r}");
        }
        assert!(of_kind(&r, "syn_unanswered").len() >= 90, "{side}: 195 of 2,000 connections were slow");
    }
}

#[test]
fn the_duel_of_two_arp_answers_is_counted_whole() {
    let Some(r) = records("arp_duel-inside") else { return };
    let count: u64 =
        of_kind(&r, "arp_two_answers").iter().map(|r| r["count"].as_u64().expect("a count")).sum();
    assert_eq!(count, 405);
    assert!(of_kind(&r, "address_conflict").is_empty());
}

#[test]
fn the_race_shows_as_a_lost_syn_inside_and_as_nothing_outside() {
    let Some(inside) = records("snat_race-inside") else { return };
    assert_eq!(of_kind(&inside, "syn_unanswered").len(), 37);
    let Some(outside) = records("snat_race-outside") else { return };
    assert_eq!(above_info(&outside), 0);
}
