//! What a gateway itself does to connections, told from what is seen on both sides of it: made by hand, inside and outside of a gateway
//! that translates sources. What it does to SYNs and mappings by the real kernel is in `lab_joined` and `root_lab`.

mod common;

use std::net::Ipv4Addr;

use common::packet::{ACK, PSH, RST, SYN, Tcp};
use common::talk::{Capture, Talk};
use common::{of_kind, replay};
use serde_json::Value;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// Both sides of the gateway, at one clock.
#[derive(Default)]
struct Sides {
    inside: Capture,
    outside: Capture,
}

/// A connection from inside to the server.
fn talk(port: u16) -> Talk {
    let mut talk = Talk::to((CLIENT, port), (SERVER, 443));
    talk.ttl = [64, 60];
    talk
}

impl Sides {
    /// A client's packet that comes in, and leaves 10 us later if it is `forwarded`.
    fn up(&mut self, ms: f64, p: Tcp, forwarded: bool) {
        self.inside.after(ms, p.frame());
        self.outside.pass(ms + 0.01);
        if forwarded {
            self.outside.after(0.0, Tcp { src: (GATEWAY, p.src.1), ttl: p.ttl - 1, ..p }.frame());
        }
        self.inside.pass(0.01);
    }

    /// A server's packet that comes in outside, and is forwarded.
    fn down(&mut self, ms: f64, p: Tcp) {
        self.outside.after(ms, Tcp { dst: (GATEWAY, p.dst.1), ..p.clone() }.frame());
        self.inside.after(ms + 0.01, Tcp { ttl: p.ttl - 1, ..p }.frame());
        self.outside.pass(0.01);
    }

    /// A packet in the server's name that is seen inside alone.
    fn own(&mut self, ms: f64, p: Tcp, ttl: u8) {
        self.inside.after(ms, Tcp { ttl, ..p }.frame());
        self.outside.pass(ms);
    }

    fn open(&mut self, t: &mut Talk) {
        self.up(5.0, t.client(SYN, 0), true);
        self.down(5.0, t.server(SYN | ACK, 0));
        self.up(5.0, t.client(ACK, 0), true);
        self.up(5.0, t.client(PSH | ACK, 100), true);
        self.down(5.0, t.server(PSH | ACK, 50));
        self.up(5.0, t.client(ACK, 0), true);
    }

    fn records(&self) -> Vec<Value> {
        let dir = tempfile::tempdir().expect("a directory");
        let named = [("inside", &self.inside), ("outside", &self.outside)].map(|(side, capture)| {
            let path = dir.path().join(format!("{side}.pcap"));
            std::fs::write(&path, capture.bytes()).expect("written");
            format!("{side}:{side}={}", path.display())
        });
        replay(&[&named[0], &named[1]])
    }
}

fn only<'a>(records: &'a [Value], kind: &str, interface: &str) -> &'a Value {
    let of: Vec<_> = of_kind(records, kind).into_iter().filter(|r| r["interface"] == interface).collect();
    assert_eq!(of.len(), 1, "{records:#?}");
    of[0]
}

fn judged(r: &Value, severity: &str, verdict: &str, certainty: &str) {
    let said = [&r["severity"], &r["verdict"], &r["certainty"]].map(|v| v.as_str().expect("a word"));
    assert_eq!(said, [severity, verdict, certainty], "{}", r["summary"]);
}

#[test]
fn a_syn_that_is_refused_and_never_left_was_refused_by_the_gateway() {
    for (crosses, verdict) in [(false, "gateway"), (true, "responder")] {
        let mut s = Sides::default();
        for port in 40_000..40_012 {
            s.open(&mut talk(port));
        }
        let mut t = talk(41_000);
        s.up(50.0, t.client(SYN, 0), crosses);
        let refusal = Tcp { seq: 0, ..t.server(RST | ACK, 0) };
        if crosses {
            s.down(0.2, refusal)
        } else {
            s.own(0.04, refusal, 64)
        }
        s.inside.quiet(100.0);
        let all = s.records();
        let r = only(&all, "syn_refused", "inside");
        judged(r, "warning", verdict, "proven");
        let words = r["summary"].as_str().expect("text").contains("the gateway itself refused");
        assert_eq!(words, !crosses, "{}", r["summary"]);
    }
    // One hop less than any stack begins with: it came from elsewhere, by a way out that is not tapped.
    let mut s = Sides::default();
    s.open(&mut talk(40_000));
    let mut t = talk(41_000);
    s.up(50.0, t.client(SYN, 0), false);
    s.own(3.0, Tcp { seq: 0, ..t.server(RST | ACK, 0) }, 63);
    s.inside.quiet(100.0);
    let all = s.records();
    assert_eq!(only(&all, "syn_refused", "inside")["verdict"], "responder");
}

#[test]
fn a_reset_inside_that_did_not_come_in_outside_is_the_gateways() {
    let (mut s, mut t) = (Sides::default(), talk(40_000));
    s.open(&mut t);
    let p = t.client(PSH | ACK, 100);
    s.up(1_000.0, p, false);
    s.own(0.05, t.server(RST, 0), 64);
    let all = s.records();
    let r = only(&all, "reset_mid_flow", "inside");
    judged(r, "warning", "gateway", "proven");
    assert!(r["summary"].as_str().expect("text").contains("by the gateway itself"), "{}", r["summary"]);

    // The server's own comes in first; and one that has lost hops was sent elsewhere.
    let (mut s, mut t) = (Sides::default(), talk(40_000));
    s.open(&mut t);
    s.up(1_000.0, t.client(PSH | ACK, 100), true);
    s.down(5.0, t.server(RST | ACK, 0));
    let all = s.records();
    assert_eq!(only(&all, "reset_mid_flow", "inside")["verdict"], "responder");
    let (mut s, mut t) = (Sides::default(), talk(40_000));
    s.open(&mut t);
    s.up(1_000.0, t.client(PSH | ACK, 100), true);
    s.own(5.0, t.server(RST | ACK, 0), 59);
    let all = s.records();
    assert_eq!(only(&all, "reset_mid_flow", "inside")["verdict"], "responder");
}

#[test]
fn a_final_ack_that_did_not_leave_is_no_full_accept_queue() {
    for dropped in [true, false] {
        let (mut s, mut t) = (Sides::default(), talk(40_000));
        s.up(5.0, t.client(SYN, 0), true);
        let answer = t.server(SYN | ACK, 0);
        s.down(5.0, answer.clone());
        s.up(5.0, t.client(ACK, 0), !dropped);
        s.up(1.0, t.client(PSH | ACK, 10), !dropped);
        for ms in [1_000.0, 2_000.0, 4_000.0] {
            s.down(ms, answer.clone());
            s.up(0.1, Tcp { seq: t.next[0].wrapping_sub(10), ..t.client(PSH | ACK, 0) }, !dropped);
        }
        s.inside.quiet(100.0);
        let all = s.records();
        let (kind, other, verdict) = match dropped {
            true => ("synack_unacknowledged", "accept_queue_overflow", "gateway"),
            false => ("accept_queue_overflow", "synack_unacknowledged", "responder"),
        };
        judged(only(&all, kind, "inside"), "warning", verdict, "likely");
        assert!(of_kind(&all, other).iter().all(|r| r["interface"] == "outside"), "{all:#?}");
    }
}
