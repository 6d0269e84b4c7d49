//! What is an answer too many, and what is none.

use super::*;

const US: u64 = 1_000;
const OWNER: Mac = Mac([2, 0, 0, 0, 0, 3]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);
const ASKER: Addr = Addr::v4([10, 0, 0, 1]);
const ASKED: Addr = Addr::v4([10, 0, 0, 3]);

fn request() -> Arp {
    Arp {
        request: true,
        sender_ip: ASKER,
        sender_mac: Mac([2, 0, 0, 0, 0, 1]),
        target_ip: ASKED,
        target_mac: Mac::default(),
        ipv6: false,
        solicited: false,
        yields: false,
    }
}

fn answer(mac: Mac) -> Arp {
    Arp {
        request: false,
        sender_ip: ASKED,
        sender_mac: mac,
        target_ip: ASKER,
        target_mac: mac,
        ipv6: false,
        solicited: true,
        yields: false,
    }
}

fn run(packets: &[(u64, Arp, Way)]) -> Vec<Anomaly> {
    let mut w = ArpWatch::default();
    let mut out = Vec::new();
    for (at, arp, way) in packets {
        let ts = Nanos(1_000 * Nanos::SEC + at * US);
        w.packet(arp, arp.sender_mac, ArpAt { point: 0, segment: 0, way: *way, ts }, &mut |a| out.push(a));
    }
    w.finish(&mut |a| out.push(a));
    out
}

#[test]
fn two_answers_with_one_mac_are_a_duel_and_with_two_macs_a_conflict() {
    let i = Way::Ingress;
    let duel = run(&[(0, request(), i), (30, answer(OWNER), i), (36, answer(OWNER), i)]);
    assert_eq!(duel.len(), 1);
    assert_eq!((duel[0].kind, duel[0].count), (Kind::ArpTwoAnswers, 1));
    assert_eq!(duel[0].facts[1], ("gap_us", Fact::U64(6)));
    let conflict = run(&[(0, request(), i), (30, answer(OWNER), i), (44, answer(OTHER), i)]);
    assert_eq!(conflict[0].kind, Kind::AddressConflict);
}

#[test]
fn one_address_in_two_vlans_is_two_machines() {
    let (mut w, mut out) = (ArpWatch::default(), Vec::new());
    for n in 0..6 {
        // The same asker and the same asked in both, at the same moment.
        for (segment, mac, us) in [(10, OWNER, 0), (20, OTHER, 50)] {
            let ts = Nanos((1_000 + 10 * n) * Nanos::SEC + us * US);
            let at = ArpAt { point: 0, segment, way: Way::Ingress, ts };
            w.packet(&request(), Mac([2, 0, 0, 0, 0, 1]), at, &mut |a| out.push(a));
            let at = ArpAt { ts: ts.add(100 * US), ..at };
            w.packet(&answer(mac), mac, at, &mut |a| out.push(a));
        }
    }
    w.finish(&mut |a| out.push(a));
    assert!(out.is_empty(), "{out:?}");
    // In one of them it is a conflict, and says where.
    for (mac, us) in [(OWNER, 30), (OTHER, 60)] {
        let ts = Nanos(2_000 * Nanos::SEC + us * US);
        let at = ArpAt { point: 0, segment: 10, way: Way::Ingress, ts };
        if us == 30 {
            w.packet(&request(), Mac([2, 0, 0, 0, 0, 1]), at, &mut |a| out.push(a));
        }
        w.packet(&answer(mac), mac, ArpAt { ts: ts.add(US), ..at }, &mut |a| out.push(a));
    }
    w.finish(&mut |a| out.push(a));
    assert!(out.iter().any(|a| (a.kind, a.vlan) == (Kind::AddressConflict, Some(10))), "{out:?}");
}

#[test]
fn several_may_answer_for_an_anycast_address() {
    let i = Way::Ingress;
    let yields = |mac| Arp { ipv6: true, yields: true, ..answer(mac) };
    let told =
        run(&[(0, request(), i), (300, yields(OWNER), i), (700, yields(OTHER), i), (900, yields(OWNER), i)]);
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn one_answer_a_request_is_quiet_however_often_it_is_asked_or_seen() {
    let i = Way::Ingress;
    assert!(run(&[(0, request(), i), (30, answer(OWNER), i)]).is_empty());
    // Asked twice, answered late, once each.
    let late = [
        (0, request(), i),
        (1_002_000, request(), i),
        (1_900_000, answer(OWNER), i),
        (1_900_100, answer(OWNER), i),
    ];
    assert!(run(&late).is_empty());
    // Asked again, answered again.
    let again =
        [(0, request(), i), (30, answer(OWNER), i), (900_000, request(), i), (900_030, answer(OWNER), i)];
    assert!(run(&again).is_empty());
    // A tap that sees both sides of a hop: each packet twice.
    let twice = [(0, request(), i), (2, request(), i), (30, answer(OWNER), i), (33, answer(OWNER), i)];
    assert!(run(&twice).is_empty());
    // The same answer in and out of the port.
    let through = [(0, request(), i), (30, answer(OWNER), i), (31, answer(OWNER), Way::Egress)];
    assert!(run(&through).is_empty());
    // An answer long after its request is no second answer; that the address moved is worth knowing.
    let late = run(&[(0, request(), i), (30, answer(OWNER), i), (3_000_000, answer(OTHER), i)]);
    assert_eq!(late.iter().map(|a| a.kind).collect::<Vec<_>>(), [Kind::AddressMoved]);
}

#[test]
fn a_bridge_that_passes_on_in_its_own_name_makes_no_conflict() {
    let i = Way::Ingress;
    let relayed = Arp { sender_mac: OTHER, ..request() };
    // The conflict shows first, the sign that it is none comes later.
    let told = run(&[
        (0, request(), i),
        (30, answer(OWNER), i),
        (34, answer(OTHER), i),
        (500_000, Arp { target_ip: Addr::v4([10, 0, 0, 9]), ..request() }, i),
        (500_003, Arp { target_ip: Addr::v4([10, 0, 0, 9]), ..relayed }, i),
    ]);
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn an_address_that_goes_back_and_forth_flaps_and_one_that_a_bridge_repeats_does_not() {
    let i = Way::Ingress;
    let gratuitous = |mac| Arp { target_ip: ASKED, solicited: false, ..answer(mac) };
    let s = 1_000_000;
    let flaps =
        run(&[(0, gratuitous(OWNER), i), (5 * s, gratuitous(OTHER), i), (9 * s, gratuitous(OWNER), i)]);
    let kinds: Vec<Kind> = flaps.iter().map(|a| a.kind).collect();
    assert_eq!(kinds, [Kind::AddressMoved, Kind::AddressFlapping]);
    // A wireless bridge asks again in its own name, at once.
    let bridged = |mac| Arp { sender_mac: mac, ..request() };
    let mut packets = Vec::new();
    for n in 0..5 {
        packets.push((n * s, bridged(OWNER), i));
        packets.push((n * s + 2_000, bridged(OTHER), i));
    }
    assert!(run(&packets).is_empty());
}

#[test]
fn a_duel_that_lasts_is_told_once_a_minute_with_its_count() {
    let mut packets = Vec::new();
    for n in 0..200u64 {
        let at = n * 500_000;
        packets.extend([
            (at, request(), Way::Ingress),
            (at + 30, answer(OWNER), Way::Ingress),
            (at + 36, answer(OWNER), Way::Ingress),
        ]);
    }
    let told = run(&packets);
    assert_eq!(told.iter().map(|a| a.count).collect::<Vec<_>>(), [1, 120, 79]);
}
