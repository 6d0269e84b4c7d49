//! What must not fire: the traps that real captures set, and for each rule the nearest innocent case.
//!
//! The captures are in the corpus. The innocent cases are made by hand, each as near to its rule's condition as it can be without
//! being the thing; `kinds` has the cases that are. Those of the ARP rules alone are in `src/detect/arp.rs`.

#[path = "../common/mod.rs"]
mod common;

mod captures;
mod endings;
mod handshake;
mod link;
mod shape;

use std::collections::BTreeMap;

use common::packet::{ACK, FIN, PSH, RST, SYN, Tcp, arp, icmp, ipv4, mac, vlan, with_macs};
use common::talk::{CLIENT, Capture, ROUTER, SERVER, Talk};
use common::{corpus, json_lines, of_kind, replay, run, syntap};
use serde_json::{Value, json};

/// The records of a capture of the corpus.
fn found(file: &str) -> Option<Vec<Value>> {
    Some(replay(&[corpus(file)?.to_str().expect("a path")]))
}

/// Its connections.
fn lives(file: &str) -> Option<Vec<Value>> {
    let path = corpus(file)?;
    Some(json_lines(&run(syntap().args(["replay", "--connections"]).arg(path))))
}

/// Kinds with how often.
fn kinds(records: &[Value]) -> BTreeMap<&str, usize> {
    let mut count = BTreeMap::new();
    for r in records {
        *count.entry(r["kind"].as_str().expect("a kind")).or_default() += 1;
    }
    count
}

/// The only kinds found, with how often.
#[track_caller]
fn only(records: &[Value], expected: &[(&str, usize)]) {
    assert_eq!(kinds(records), expected.iter().copied().collect(), "{records:#?}");
}

/// Nothing at all.
#[track_caller]
fn nothing(c: &Capture) {
    let all = c.records();
    assert!(all.is_empty(), "{all:#?}");
}

/// A capture in which a connection was opened and used.
fn opened() -> (Capture, Talk) {
    let (mut c, mut t) = (Capture::default(), Talk::new(40_000));
    t.open(&mut c);
    t.exchange(&mut c);
    (c, t)
}
