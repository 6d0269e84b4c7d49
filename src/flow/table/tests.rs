//! The table against a plain map, at its bounds and beyond.

use super::*;
use crate::flow::Endpoint;
use crate::wire::Addr;
use proptest::prelude::*;
use std::collections::HashMap;

fn key(n: u16) -> FlowKey {
    let src = Endpoint { addr: Addr::v4([10, 0, (n >> 8) as u8, n as u8]), port: n };
    FlowKey::new(src, Endpoint { addr: Addr::v4([192, 0, 2, 1]), port: 80 }, 0).0
}

/// Inserts with eviction, as the worker does; returns the keys that had to go.
fn put(t: &mut Table<u16>, n: u16) -> Vec<u16> {
    let k = key(n);
    let h = t.hash(&k);
    let mut gone = Vec::new();
    while let Some(v) = t.victim(h, Nanos(90 * Nanos::SEC)) {
        gone.push(*t.get(v));
        t.remove(v);
    }
    let id = t.insert(k, h);
    *t.make_whole(id) = n;
    gone
}

#[test]
fn tags_are_found_wherever_they_stand() {
    for n in 0..1u32 << WAYS {
        let tags =
            std::array::from_fn(
                |way| if n >> way & 1 == 1 { 0x8001 } else { [0, 1, 0x8000, 0x7fff][way % 4] },
            );
        assert_eq!(Bucket { tags, ..EMPTY }.matching(0x8001), n);
    }
    assert_eq!(EMPTY.matching(0), (1 << WAYS) - 1);
}

#[test]
fn a_table_takes_as_many_flows_as_it_has_room_for() {
    let capacity = 60_000;
    let mut t: Table<u16> = Table::new(capacity, Seed::FIXED);
    let many = |n: u32| {
        let client = Endpoint { addr: Addr::v4((0x0a00_0000 + n).to_be_bytes()), port: 4_000 };
        FlowKey::new(client, Endpoint { addr: Addr::v4([192, 0, 2, 1]), port: 80 }, 0).0
    };
    for n in 0..capacity as u32 {
        let hash = t.hash(&many(n));
        assert_eq!(t.victim(hash, Nanos(0)), None, "{n}");
        t.insert(many(n), hash);
    }
    let first = (0..capacity as u32).filter(|&n| {
        let hash = t.hash(&many(n));
        assert!(t.find(&many(n), hash).is_some(), "{n}");
        let [first, _] = t.places(hash);
        t.buckets[first as usize].ids.contains(&n)
    });
    let share = first.count() * 100 / capacity;
    assert!(share >= 75, "{share} % are in their first bucket");
}

#[test]
fn open_flows_stay_while_there_is_anything_else() {
    let mut t: Table<u16> = Table::new(16, Seed::FIXED);
    for n in 0..16 {
        put(&mut t, n);
        let id = t.find(&key(n), t.hash(&key(n))).unwrap();
        t.set_class(id, [Class::Open, Class::Closed, Class::HalfOpen][n as usize % 3]);
    }
    let mut gone = Vec::new();
    for n in 100..116 {
        gone.extend(put(&mut t, n));
        let id = t.find(&key(n), t.hash(&key(n))).unwrap();
        t.set_class(id, Class::Open);
    }
    assert!(gone[..10].iter().all(|g| g % 3 != 0), "half-open and closed ones first: {gone:?}");
    assert!(gone[10..].iter().all(|g| g % 3 == 0 || *g >= 100), "then open ones: {gone:?}");
    assert_eq!(t.len(), 16);
}

#[test]
fn handshakes_under_way_stay_unless_there_are_more_than_closed_flows() {
    let now = Nanos(90 * Nanos::SEC);
    let mut t: Table<u16> = Table::new(16, Seed::FIXED);
    for n in 0..16 {
        put(&mut t, n);
        let id = t.find(&key(n), t.hash(&key(n))).unwrap();
        t.set_class(id, if n % 3 == 0 { Class::HalfOpen } else { Class::Closed });
        t.line_mut(id).set_times(now, if n == 4 { Nanos(80 * Nanos::SEC) } else { now });
    }
    let mut order = Vec::new();
    while let Some(id) = t.victim(t.hash(&key(500)), now).filter(|id| t.class(*id) != Some(Class::Open)) {
        order.push(t.key(id).ports() >> 16);
        t.set_class(id, Class::Open); // Takes it out of the choice.
    }
    assert_eq!(order.len(), 16, "{order:?}");
    assert_eq!(order[0], 4, "the one that was quiet longest of the first four");
    assert!(
        order[..4].iter().all(|n| n % 3 != 0),
        "six half-open ones, and ten to seven that are closed: {order:?}"
    );
    assert!(
        order[5..10].iter().any(|n| n % 3 == 0),
        "six half-open ones, and fewer that are closed: {order:?}"
    );
}

proptest! {
    #[test]
    fn the_table_agrees_with_a_plain_map(ops in proptest::collection::vec((0u8..3, 0u16..200), 1..400)) {
        let mut t: Table<u16> = Table::new(64, Seed::FIXED);
        let mut model: HashMap<u16, ()> = HashMap::new();
        for (op, n) in ops {
            let k = key(n);
            let h = t.hash(&k);
            match (op, t.find(&k, h)) {
                (0 | 1, None) => {
                    prop_assert!(!model.contains_key(&n));
                    for gone in put(&mut t, n) {
                        prop_assert!(model.remove(&gone).is_some());
                    }
                    model.insert(n, ());
                }
                (_, Some(id)) => {
                    prop_assert!(model.contains_key(&n));
                    prop_assert_eq!(*t.get(id), n);
                    if op == 2 {
                        t.remove(id);
                        model.remove(&n);
                    } else {
                        t.set_class(id, [Class::HalfOpen, Class::Closed, Class::Open][n as usize % 3]);
                    }
                }
                _ => {}
            }
            prop_assert_eq!(t.len(), model.len());
            prop_assert!(t.len() <= 64);
        }
        while let Some(id) = t.first(0) {
            prop_assert!(model.remove(t.get(id)).is_some());
            t.remove(id);
        }
        prop_assert!(model.is_empty());
    }
}
