//! One test for each kind that one tap point can show: a capture goes in, and the record is what it must be.
//!
//! `corpus` is a capture that others made, `shipped` one of this project, `made` packets made by hand because no capture shows
//! it. `live` says that `root_kinds` shows it by the real kernel as well. The nearest innocent cases are in `traps`. The kinds
//! that need both sides of a gateway are in `lab_joined`.
//!
//! | kind | capture |
//! | --- | --- |
//! | syn_unanswered | corpus `ndpi__KakaoTalk_chat` |
//! | syn_refused | corpus `deepflow__server-reset`; by ICMP made, live |
//! | tuple_reuse_refused | corpus `lab/time_wait_reuse-outside`, `arkime__tcp_handshake_synthetic`; shipped (`story`) |
//! | tuple_reuse_accepted | corpus `lab/time_wait_reuse-inside` |
//! | syn_on_live_flow | corpus `lab/time_wait_reuse-inside`; made |
//! | synack_unacknowledged | corpus `ppa3__synscan`, live |
//! | accept_queue_overflow | corpus `deepflow__server-queue-lack`, live |
//! | synack_wrong_ack | made |
//! | synack_unsolicited | corpus `zeek__one-sided-2745` |
//! | synack_differs | corpus `deepflow__tcp-n-syn-ack`; in its ack made |
//! | isn_changed_while_opening | corpus `suriv__bug-7657-01` |
//! | synack_from_originator | corpus `arkime__tcp_handshake_synthetic` |
//! | simultaneous_open | corpus `suriv__tcp-split-handshake-01`; made |
//! | split_handshake | corpus `suriv__tcp-split-handshake-01` |
//! | probe_reset | corpus `lab/benign_odd-inside` |
//! | options_altered | corpus `deepflow__tcp-one-syn`, `deepflow__syn-retrans`, `suriv__bug-6244`; scale made |
//! | final_ack_wrong | corpus `arkime__tcp_handshake_synthetic` |
//! | tfo_refused | corpus `suriv__tcp-fastopen-11`, live |
//! | slow_handshake | made |
//! | reset_mid_flow | corpus `zeek__get-to-ssh-server`, `lab/nat_mapping_lost-outside`, live |
//! | reset_without_flow | corpus `zeek__single-rst` |
//! | reset_after_idle | made |
//! | reset_ignored | corpus `zeek__rst-inject-rae`; mid-flow made |
//! | reset_with_text | corpus `ppa2__gnutella` |
//! | reset_out_of_window | corpus `zeek__rst-inject-rae`; mid-flow made |
//! | fin_out_of_window | corpus `zeek__fin_retransmission`; mid-flow made |
//! | icmp_error | corpus `ndpi__6in4tunnel`, live |
//! | fin_unanswered | made |
//! | half_closed_stuck | corpus `ppa2__evilprogram` |
//! | fin_storm, reset_storm | made |
//! | black_hole | corpus `lab/nat_mapping_lost-inside`, live |
//! | mac_changed_in_flow | corpus `ppa3__sessionhijacking`, live |
//! | seen_twice | corpus `arkime__http-post-upload` |
//! | arp_two_answers | corpus `lab/arp_duel-b1`; IPv6 made; live |
//! | address_conflict | made, live |
//! | address_flapping | made |
//! | address_moved | corpus `lab/nat_mapping_lost-inside` |
//! | arp_spoof_sign | corpus `suriv__detect-arp-03-vlan`, `ppa3__arppoison` |
//! | frame_loop | made |
//! | syn_flood, reset_rate_shift | made |
//! | no_keepalive | corpus `lab/healthy-inside` |
//! | invalid_flags | corpus `suriv__issue-3341-tcphdr-01`, `zeek__fin_retransmission`, live |
//! | malformed | corpus `suriv__bug-6887` |
//! | one_sided_view | corpus `zeek__ssh.client-side-half-duplex` |
//! | asymmetric_hash | made, through the threads of a live run |
//! | capture_gap, budget_shed | the desk; live in `root_endings` |

#[path = "../common/mod.rs"]
mod common;

mod endings;
mod every;
mod handshake;
mod link;
mod shape;
mod tool;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use common::packet::{
    ACK, FIN, PSH, RST, SYN, Tcp, advertisement, arp, icmp, ipv4, mac, solicitation, vlan, vxlan, with_macs,
};
use common::talk::{CLIENT, Capture, ROUTER, SERVER, Talk};
use common::{corpus, of_kind, replay};
use serde_json::{Value, json};
use syntap::detect::Kind;
use syntap::detect::explain::explain;

/// The MAC address of a machine that is none of the capture's.
const OTHER: [u8; 6] = [2, 0, 0, 0, 9, 9];

/// The records of a capture of the corpus.
fn found(file: &str) -> Option<Vec<Value>> {
    Some(replay(&[corpus(file)?.to_str().expect("a path")]))
}

/// The only record of a kind.
#[track_caller]
fn only<'a>(records: &'a [Value], kind: &str) -> &'a Value {
    let of = of_kind(records, kind);
    assert_eq!(of.len(), 1, "{kind}: {records:#?}");
    of[0]
}

/// The record of a kind and originator's port.
#[track_caller]
fn at<'a>(records: &'a [Value], kind: &str, port: u16) -> &'a Value {
    let of: Vec<_> = of_kind(records, kind).into_iter().filter(|r| r["src_port"] == port).collect();
    assert_eq!(of.len(), 1, "{kind} of {port}: {of:#?}");
    of[0]
}

/// Severity, verdict and certainty.
#[track_caller]
fn judged(r: &Value, severity: &str, verdict: &str, certainty: &str) {
    let words = [&r["severity"], &r["verdict"], &r["certainty"]];
    assert_eq!(words, [severity, verdict, certainty], "{}", r["summary"]);
}

/// The tuple, as `show` writes it.
#[track_caller]
fn between(r: &Value, tuple: &str) {
    let text = |f: &str| r[f].as_str().map_or_else(|| r[f].to_string(), str::to_owned);
    let [a, b] = [("src_ip", "src_port"), ("dst_ip", "dst_port")].map(|(ip, port)| {
        let ip = text(ip);
        if ip.contains(':') { format!("[{ip}]:{}", text(port)) } else { format!("{ip}:{}", text(port)) }
    });
    assert_eq!(format!("{a} > {b}"), tuple, "{}", r["summary"]);
}

/// Facts, all of them and in their order.
#[track_caller]
fn says(r: &Value, facts: Value) {
    assert_eq!(r["facts"], facts, "{}", r["summary"]);
    let keys = |v: &Value| v.as_object().expect("facts").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&r["facts"]), keys(&facts), "their order");
}

/// Names of the facts.
fn names(r: &Value) -> Vec<&str> {
    r["facts"].as_object().expect("facts").keys().map(String::as_str).collect()
}
