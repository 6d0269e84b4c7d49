//! How many connections there were behind sightings of them at several places.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::SocketAddr;

use super::line::Line;
use super::words::plus;

/// Tuples told apart; of further ones only the sides of the gateway are.
const TUPLES: usize = 4096;

/// Places at which one tuple is told apart.
const PLACES: usize = 8;

/// A connection passes several taps, and each that saw its trouble has a record. The tap that saw most of a tuple tells how
/// many connections of it there were; where a gateway translates, one inside of it does, if it saw any: outside each SYN of a connection may be an
/// attempt by itself. What a translation made of the tuple is known by its inside.
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    tuples: HashMap<(SocketAddr, SocketAddr), Vec<Seen>, foldhash::fast::RandomState>,
    /// Inside, outside, and elsewhere: of records without a tuple of their own, or past the bound.
    others: [u64; 3],
}

/// How often a tuple was seen at one place.
#[derive(Clone, Copy, Debug)]
struct Seen {
    place: u64,
    inside: bool,
    times: u64,
}

impl Sightings {
    /// Counts one.
    pub fn add(&mut self, r: &Line<'_>) {
        let Some(tuple) = inside(r) else { return self.add_other(r) };
        let place = place(&r.host.0, r.interface.as_ref().map_or("", |i| &i.0));
        let seen = Seen { place, inside: is(r, "inside"), times: r.count };
        if self.tuples.len() >= TUPLES && !self.tuples.contains_key(&tuple) {
            return self.add_other(r);
        }
        count(self.tuples.entry(tuple).or_default(), seen);
    }

    fn add_other(&mut self, r: &Line<'_>) {
        let side = match r.role.as_ref().map(|role| role.0.as_ref()) {
            Some("inside") => 0,
            Some("outside") => 1,
            _ => 2,
        };
        plus(&mut self.others[side], r.count);
    }

    /// Adds all of another. Tuples that find no room count as seen at one place each.
    pub fn merge(&mut self, other: Sightings) {
        self.others.iter_mut().zip(other.others).for_each(|(a, b)| plus(a, b));
        for (tuple, seen) in other.tuples {
            if self.tuples.len() >= TUPLES && !self.tuples.contains_key(&tuple) {
                plus(&mut self.others[2], most(&seen));
                continue;
            }
            let mine = self.tuples.entry(tuple).or_default();
            seen.into_iter().for_each(|s| count(mine, s));
        }
    }

    /// Tuples of both, as far as they are told apart.
    pub fn shared(&self, other: &Sightings) -> u64 {
        self.tuples.keys().filter(|t| other.tuples.contains_key(t)).count() as u64
    }

    /// How many connections of tuples that the other has none of, as far as they are told apart.
    pub fn without(&self, other: &Sightings) -> u64 {
        let mut sum = 0;
        let own = self.tuples.iter().filter(|(tuple, _)| !other.tuples.contains_key(*tuple));
        own.for_each(|(_, seen)| plus(&mut sum, most(seen)));
        sum
    }

    /// How many connections.
    pub fn connections(&self) -> u64 {
        let [inside, outside, elsewhere] = self.others;
        let mut sum = inside.max(outside);
        plus(&mut sum, elsewhere);
        self.tuples.values().for_each(|seen| plus(&mut sum, most(seen)));
        sum
    }
}

fn count(seen: &mut Vec<Seen>, one: Seen) {
    if let Some(s) = seen.iter_mut().find(|s| s.place == one.place) {
        plus(&mut s.times, one.times);
    } else if seen.len() < PLACES {
        seen.push(one);
    }
}

fn most(seen: &[Seen]) -> u64 {
    let inside = seen.iter().filter(|s| s.inside).map(|s| s.times).max();
    inside.or_else(|| seen.iter().map(|s| s.times).max()).unwrap_or(0)
}

fn is(r: &Line<'_>, role: &str) -> bool {
    r.role.as_ref().is_some_and(|own| own.0 == role)
}

/// Its tuple, as it is inside of the gateway.
fn inside(r: &Line<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let own = |ip: Option<_>, port: Option<_>| Some(SocketAddr::new(ip?, port?));
    let tuple = (own(r.src_ip, r.src_port)?, own(r.dst_ip, r.dst_port)?);
    Some(match r.nat.as_ref().filter(|_| is(r, "outside")) {
        Some(n) => (SocketAddr::new(n.src_ip, n.src_port), SocketAddr::new(n.dst_ip, n.dst_port)),
        None => tuple,
    })
}

/// A place's name as a number that is the same in every report.
fn place(host: &str, interface: &str) -> u64 {
    foldhash::fast::FixedState::default().hash_one((host, interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(port: u16, interface: &str, role: &str, nat: bool, count: u64) -> String {
        let role = if role.is_empty() { "null".into() } else { format!("\"{role}\"") };
        let nat = match nat {
            true => r#"{"src_ip":"10.0.0.1","src_port":7,"dst_ip":"192.0.2.1","dst_port":80}"#,
            false => "null",
        };
        format!(
            r#"{{"kind":"","severity":"","verdict":"","certainty":"","first_ns":0,"last_ns":0,"count":{count},"host":"h",
            "interface":"{interface}","role":{role},"src_ip":"10.0.0.1","src_port":{port},"dst_ip":"192.0.2.1","dst_port":80,
            "nat":{nat},"facts":{{}}}}"#
        )
    }

    fn connections(lines: &[String]) -> [u64; 2] {
        let (mut whole, mut halves) = (Sightings::default(), [Sightings::default(), Sightings::default()]);
        for (n, line) in lines.iter().enumerate() {
            let line = Line::read(line.as_bytes()).expect("a record");
            whole.add(&line);
            halves[n % 2].add(&line);
        }
        let [mut a, b] = halves;
        a.merge(b);
        [whole.connections(), a.connections()]
    }

    #[test]
    fn one_that_passed_several_taps_is_one_connection() {
        let ports = ["vA1", "vB1", "vxlan1"].map(|i| seen(5, i, "", false, 1));
        assert_eq!(connections(&ports), [1, 1]);
        // Outside under another tuple, twice as the gateway tried again on another port; and the same tuple hurt twice.
        let nat = [seen(7, "in0", "inside", false, 1), seen(4_444, "out0", "outside", true, 2)];
        assert_eq!(connections(&nat), [1, 1]);
        assert_eq!(connections(&nat[1..]), [2, 2]);
        assert_eq!(connections(&[seen(5, "a", "", false, 2), seen(5, "b", "", false, 1)]), [2, 2]);
        assert_eq!(connections(&[seen(5, "a", "", false, 1), seen(6, "a", "", false, 1)]), [2, 2]);
    }

    #[test]
    fn past_the_bound_nothing_is_lost() {
        let mut s = Sightings::default();
        for n in 0..2 * TUPLES {
            let text = seen(n as u16, "a", "", false, 1);
            s.add(&Line::read(text.as_bytes()).expect("a record"));
        }
        assert_eq!((s.connections(), s.tuples.len()), (2 * TUPLES as u64, TUPLES));
    }
}
