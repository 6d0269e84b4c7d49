//! Translations of every sort, and what must not be taken for one.

use super::Kind;
use super::gateway::Gateway;
use super::join::{Join, Role};
use super::sight::Seen;
use crate::flow::{Digest, Endpoint, Side, Tuple};
use crate::wire::{Addr, Nanos, Seq, TcpFlags, Way};

const US: u64 = 1_000;

fn end(a: [u8; 4], port: u16) -> Endpoint {
    Endpoint { addr: Addr::v4(a), port }
}

fn tuple(src: Endpoint, dst: Endpoint) -> Tuple {
    Tuple { src, dst }
}

/// A SYN of `t` with this ISN at a tap point (0 inside, 1 outside), `us` after the start.
fn syn(t: Tuple, isn: u32, point: u8, us: u64) -> Seen {
    let ts = Nanos(1_000 * Nanos::SEC + us * US);
    let digest = Digest {
        ts,
        seq: Seq(isn),
        point,
        win: 64_240,
        wscale: 8,
        has_ts: true,
        tsval: 7,
        ..Digest::default()
    };
    Seen { tuple: t, digest }
}

fn join() -> Join {
    Join::new(vec![Role::Inside, Role::Outside])
}

const CLIENT: [u8; 4] = [10, 0, 0, 5];
const GATEWAY: [u8; 4] = [198, 51, 100, 1];
const SERVER: [u8; 4] = [203, 0, 113, 9];
const HIDDEN: [u8; 4] = [10, 0, 1, 80];

#[test]
fn source_and_destination_translation_both_at_once_and_routing_are_joined() {
    let cases = [
        ("source", (CLIENT, SERVER), (GATEWAY, SERVER), 0),
        ("destination", (SERVER, HIDDEN), (SERVER, GATEWAY), 1),
        ("both", (GATEWAY, HIDDEN), (SERVER, GATEWAY), 1),
        ("routing", (CLIENT, SERVER), (CLIENT, SERVER), 0),
    ];
    for (name, inside, outside, from) in cases {
        let mut j = join();
        let ports = if name == "routing" { [40_000, 40_000] } else { [40_000, 50_000] };
        let t = [
            tuple(end(inside.0, ports[0]), end(inside.1, 80)),
            tuple(end(outside.0, ports[1]), end(outside.1, 443)),
        ];
        let t = if name == "routing" { [t[0]; 2] } else { t };
        j.syn(&syn(t[from], 77, from as u8, 0));
        j.syn(&syn(t[1 - from], 77, 1 - from as u8, 20));
        let expected = (t[0] != t[1]).then_some(t[1]);
        assert_eq!(j.nat(0, &t[0]), expected, "{name}");
        assert_eq!(j.nat(1, &t[1]), expected.map(|_| t[0]), "{name}");
        assert_eq!(j.nat(0, &t[0].reversed()), expected.map(Tuple::reversed), "{name}: from the other end");
        assert_eq!(j.crossed, 1, "{name}");
    }
}

#[test]
fn what_comes_too_late_or_looks_otherwise_is_another_syn() {
    let inside = tuple(end(CLIENT, 40_000), end(SERVER, 80));
    let outside = tuple(end(GATEWAY, 50_000), end(SERVER, 80));
    let mut late = join();
    late.syn(&syn(inside, 77, 0, 0));
    late.syn(&syn(outside, 77, 1, 60_000));
    assert_eq!(late.nat(0, &inside), None);
    let mut other = join();
    other.syn(&syn(inside, 77, 0, 0));
    let mut seen = syn(outside, 77, 1, 20);
    seen.digest.win = 1_000;
    other.syn(&seen);
    assert_eq!(other.nat(0, &inside), None);
    let mut isn = join();
    isn.syn(&syn(inside, 77, 0, 0));
    isn.syn(&syn(outside, 78, 1, 20));
    assert_eq!(isn.nat(0, &inside), None);
}

#[test]
fn a_retry_that_leaves_by_another_port_is_the_same_connection() {
    let inside = tuple(end(CLIENT, 40_000), end(SERVER, 80));
    let outside = |port| tuple(end(GATEWAY, port), end(SERVER, 80));
    let mut j = join();
    j.syn(&syn(inside, 77, 0, 0));
    j.syn(&syn(outside(50_000), 77, 1, 20));
    j.syn(&syn(inside, 77, 0, 9_000));
    j.syn(&syn(outside(50_001), 77, 1, 9_020));
    assert_eq!(j.nat(0, &inside), Some(outside(50_001)));
    assert_eq!(j.nat(1, &outside(50_000)), Some(inside), "its first port too");
    let c = j.crossing(0, &inside).expect("joined");
    assert_eq!(c.outsides.iter().map(|g| g.outside).collect::<Vec<_>>(), [outside(50_000), outside(50_001)]);
    assert!(c.tries.iter().all(|t| t.at[0].is_some() && t.at[1].is_some()));
}

#[test]
fn an_attempt_remembers_who_had_its_tuples_before_whoever_gets_them_afterwards() {
    let inside = |port| tuple(end(CLIENT, port), end(SERVER, 80));
    let outside = tuple(end(GATEWAY, 50_000), end(SERVER, 80));
    let mut j = join();
    for (n, port) in [40_000, 40_001, 40_002].into_iter().enumerate() {
        let (isn, us) = (77 + n as u32, 1_000 * n as u64);
        j.syn(&syn(inside(port), isn, 0, us));
        j.syn(&syn(outside, isn, 1, us + 20));
    }
    let before = |port| j.crossing(0, &inside(port)).expect("joined").outsides[0].before;
    assert_eq!(before(40_000), None);
    assert_eq!(before(40_001), Some(inside(40_000)));
    assert_eq!(before(40_002), Some(inside(40_001)));
}

#[test]
fn two_taps_of_one_side_see_one_syn() {
    let mut j = Join::new(vec![Role::Inside, Role::Outside, Role::Inside]);
    let inside = tuple(end(CLIENT, 40_000), end(SERVER, 80));
    let outside = tuple(end(GATEWAY, 50_000), end(SERVER, 80));
    j.syn(&syn(inside, 77, 2, 0));
    j.syn(&syn(inside, 77, 0, 5));
    j.syn(&syn(outside, 77, 1, 20));
    let c = j.crossing(0, &inside).expect("joined");
    assert_eq!(c.tries.len(), 1, "{:?}", c.tries);
    assert!(c.tries[0].at[1].is_some());
}

#[test]
fn a_rival_comes_from_the_same_port_within_microseconds_and_crosses() {
    let a = tuple(end(CLIENT, 10_000), end(SERVER, 80));
    let b = tuple(end([10, 0, 0, 6], 10_000), end(SERVER, 80));
    let c = tuple(end([10, 0, 0, 7], 10_001), end(SERVER, 80));
    let mut j = join();
    j.syn(&syn(a, 1, 0, 0));
    j.syn(&syn(b, 2, 0, 4));
    j.syn(&syn(c, 3, 0, 6));
    j.syn(&syn(tuple(end(GATEWAY, 10_000), end(SERVER, 80)), 1, 1, 42));
    j.syn(&syn(tuple(end(GATEWAY, 10_001), end(SERVER, 80)), 3, 1, 44));
    let at = syn(b, 2, 0, 4).digest.ts;
    let rival = j.rival(&b, Seq(2), at).expect("a took its port");
    assert_eq!((rival.inside, rival.gap_ns), (a, 4 * US));
    assert!(j.rival(&c, Seq(3), syn(c, 3, 0, 6).digest.ts).is_none(), "another port");
    assert!(j.is_reached(&end(SERVER, 80).addr, at));
    assert!(!j.is_reached(&end(HIDDEN, 80).addr, at));
}

#[test]
fn fifty_thousand_translated_handshakes_are_joined_all_and_memory_stays() {
    let mut j = join();
    let mut isn = 1u32;
    for n in 0..50_000u32 {
        isn = isn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let client = end([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 1_024 + (n % 60_000) as u16);
        let inside = tuple(client, end(SERVER, 80));
        let outside = tuple(end(GATEWAY, 1_024 + (n * 7 % 60_000) as u16), end(SERVER, 80));
        let at = u64::from(n) * 20;
        j.syn(&syn(inside, isn, 0, at));
        j.syn(&syn(outside, isn, 1, at + 15));
        assert_eq!(j.nat(0, &inside), Some(outside));
    }
    assert_eq!(j.crossed, 50_000);
}

#[test]
fn a_service_of_the_gateway_itself_is_no_loss_and_many_answers_without_a_crossing_are_a_proxy() {
    let mut j = join();
    for n in 0..8u8 {
        let service = end([203, 0, 113, n], 443);
        let t = tuple(end(CLIENT, 40_000 + u16::from(n)), service);
        j.syn(&syn(t, 100 + u32::from(n), 0, u64::from(n) * 1_000));
        let mut answer = syn(t, 9, 0, u64::from(n) * 1_000 + 10);
        answer.digest.ack = Seq(101 + u32::from(n));
        j.syn_ack(&answer);
        if n > 3 {
            // The gateway opens a connection of its own, after it has answered.
            let own = tuple(end(GATEWAY, 50_000 + u16::from(n)), service);
            j.syn(&syn(own, 7_000 + u32::from(n), 1, u64::from(n) * 1_000 + 30));
        }
        assert!(j.answers_without(&service));
        assert_eq!(j.is_proxied(), n == 7);
        assert_eq!(j.pattern(), if n > 3 { "syn_proxy" } else { "proxy" });
    }
    let mut j = join();
    j.syn(&syn(tuple(end(CLIENT, 40_000), end(SERVER, 80)), 1, 0, 0));
    j.syn(&syn(tuple(end(GATEWAY, 40_000), end(SERVER, 80)), 999, 1, 20));
    assert_eq!(j.pattern(), "isn_rewritten");
}

/// A gateway whose client opened a connection on a tuple outside, and what it makes of resets: outside of `to`, then inside.
fn remapped(answered: bool, flags: u16, seq: u32, to: Tuple) -> Vec<Kind> {
    let inside = tuple(end(CLIENT, 40_000), end(SERVER, 80));
    let outside = tuple(end(GATEWAY, 50_000), end(SERVER, 80));
    let mut g = Gateway::new(vec![Role::Inside, Role::Outside]);
    g.join.syn(&syn(inside, 77, 0, 0));
    g.join.syn(&syn(outside, 77, 1, 20));
    if answered {
        for (t, point) in [(outside, 1), (inside, 0)] {
            let mut seen = syn(t, 500, point, 40);
            (seen.digest.ack, seen.digest.from) = (Seq(78), Side::Resp);
            g.join.syn_ack(&seen);
        }
    }
    for (t, point, way) in [(to, 1, Way::Ingress), (inside, 0, Way::Egress)] {
        let mut seen = syn(t, seq, point, 60 + 10 * u64::from(1 - point));
        (seen.digest.flags, seen.digest.from, seen.digest.way) = (TcpFlags(flags), Side::Resp, way);
        g.rst(&seen, None, false);
    }
    let mut told = Vec::new();
    g.finish(&mut |a| told.push(a.kind));
    told
}

#[test]
fn a_refusal_of_another_tuple_is_no_change_of_translation() {
    let other = tuple(end(GATEWAY, 50_001), end(SERVER, 80));
    let both = [Kind::NatRemapped, Kind::NatMappingLost];
    // The responder knows nothing of the tuple that an open connection went on with.
    assert_eq!(remapped(true, TcpFlags::RST, 501, other), both);
    // Refusals of SYNs have the number 0, all of them: the other one is another client's, whose SYN was not seen outside.
    assert_eq!(remapped(true, TcpFlags::RST | TcpFlags::ACK, 0, other), []);
    assert_eq!(remapped(false, TcpFlags::RST | TcpFlags::ACK, 0, other), []);
    // What was never answered was not open.
    assert_eq!(remapped(false, TcpFlags::RST, 501, other), []);
    assert_eq!(remapped(true, TcpFlags::RST, 501, tuple(end(GATEWAY, 50_000), end(SERVER, 80))), []);
}
