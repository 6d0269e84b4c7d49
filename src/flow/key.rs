//! The key under which both directions of a tuple meet, and its keyed hash.

use super::{Endpoint, Side, Tuple};
use crate::wire::Addr;

/// Both ends of a tuple in an order that does not depend on the direction (end A is the smaller one), and the
/// tap point: the same tuple seen at two points is two flows, because routing shows each packet at both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    a: Addr,
    b: Addr,
    a_port: u16,
    b_port: u16,
    point: u8,
}

impl FlowKey {
    /// The key of a packet from `src` to `dst`, and which end sent it (`Orig` stands for end A here).
    #[inline]
    pub fn new(src: Endpoint, dst: Endpoint, point: u8) -> (FlowKey, Side) {
        let place = |e: &Endpoint| (u128::from_be_bytes(e.addr.0), e.port);
        if place(&src) <= place(&dst) {
            (FlowKey { a: src.addr, b: dst.addr, a_port: src.port, b_port: dst.port, point }, Side::Orig)
        } else {
            (FlowKey { a: dst.addr, b: src.addr, a_port: dst.port, b_port: src.port, point }, Side::Resp)
        }
    }

    /// End A to end B.
    pub fn tuple(&self) -> Tuple {
        Tuple {
            src: Endpoint { addr: self.a, port: self.a_port },
            dst: Endpoint { addr: self.b, port: self.b_port },
        }
    }

    /// Of ends that are in order already.
    #[inline]
    pub(super) fn ordered([a, b]: [Addr; 2], ports: u32, point: u8) -> FlowKey {
        FlowKey { a, b, a_port: (ports >> 16) as u16, b_port: ports as u16, point }
    }

    /// The addresses of ends A and B.
    #[inline]
    pub(super) fn addresses(&self) -> [&Addr; 2] {
        [&self.a, &self.b]
    }

    /// The ports of ends A and B, A's in the high half.
    #[inline]
    pub(super) fn ports(&self) -> u32 {
        both(self.a_port, self.b_port)
    }

    /// The tap point.
    #[inline]
    pub fn point(&self) -> u8 {
        self.point
    }

    /// A 64-bit hash keyed by `seed`. Tuples are chosen by whoever is on the wire, so an unkeyed hash would let them
    /// fill one bucket. Folded 64x64 multiplications (as in wyhash), three of them, and two for IPv4; not a MAC, and it
    /// need not be one, since its values never leave the process.
    #[inline]
    pub fn hash(&self, seed: Seed) -> u64 {
        match Narrow::of(self) {
            Some(narrow) => narrow.hash(seed),
            None => self.hash_wide(seed),
        }
    }

    /// The same of a key that is known to be no [`Narrow`] one.
    #[inline]
    pub(super) fn hash_wide(&self, seed: Seed) -> u64 {
        let half = |a: &Addr, at: usize| {
            u64::from_le_bytes([
                a.0[at],
                a.0[at + 1],
                a.0[at + 2],
                a.0[at + 3],
                a.0[at + 4],
                a.0[at + 5],
                a.0[at + 6],
                a.0[at + 7],
            ])
        };
        let x = fold(half(&self.a, 0) ^ seed.0[0], half(&self.a, 8) ^ seed.0[1]);
        let y = fold(half(&self.b, 0) ^ seed.0[2], half(&self.b, 8) ^ seed.0[3]);
        fold(x ^ word(both(self.a_port, self.b_port), self.point) ^ seed.0[1], y ^ seed.0[0])
    }
}

/// Two ports in a word, the first in the high half.
#[inline]
pub(super) fn both(a: u16, b: u16) -> u32 {
    u32::from(a) << 16 | u32::from(b)
}

#[inline]
fn word(ports: u32, point: u8) -> u64 {
    u64::from(ports) << 16 | u64::from(point)
}

/// The key of a flow over IPv4: the same as its [`FlowKey`], in 16 bytes, as words. Nearly all flows are, and each packet of them looks one up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Narrow {
    /// The addresses of ends A and B, A in the high half.
    pub(super) pair: u64,
    /// Their ports, likewise.
    pub(super) ports: u32,
    pub(super) point: u8,
}

impl Narrow {
    /// As [`FlowKey::new`], from addresses and ports in host order, the source's in the high half: as they stand in the headers.
    #[inline]
    pub fn new(pair: u64, ports: u32, point: u8) -> (Narrow, Side) {
        let (back, ports_back) = (pair.rotate_left(32), ports.rotate_left(16));
        // Half of all packets go this way and half that one: no branch, which would be guessed wrongly every other time.
        let turned = (pair > back) | ((pair == back) & (ports > ports_back));
        let turn = u32::from(turned);
        let side = if turned { Side::Resp } else { Side::Orig };
        (Narrow { pair: pair.rotate_left(32 * turn), ports: ports.rotate_left(16 * turn), point }, side)
    }

    /// `None` for IPv6.
    #[inline]
    pub fn of(key: &FlowKey) -> Option<Narrow> {
        let FlowKey { a, b, a_port, b_port, point } = *key;
        let pair = u64::from(v4(&a)) << 32 | u64::from(v4(&b));
        (a.is_v4() && b.is_v4()).then_some(Narrow { pair, ports: both(a_port, b_port), point })
    }

    /// As [`FlowKey::hash`].
    #[inline]
    pub fn hash(&self, seed: Seed) -> u64 {
        let x = fold(self.pair ^ seed.0[0], word(self.ports, self.point) ^ seed.0[1]);
        fold(x ^ seed.0[2], self.pair ^ seed.0[3])
    }
}

impl From<Narrow> for FlowKey {
    #[inline]
    fn from(n: Narrow) -> FlowKey {
        let [a, b] = [(n.pair >> 32) as u32, n.pair as u32].map(|a| Addr::v4(a.to_be_bytes()));
        FlowKey { a, b, a_port: (n.ports >> 16) as u16, b_port: n.ports as u16, point: n.point }
    }
}

#[inline]
fn v4(a: &Addr) -> u32 {
    u32::from_be_bytes([a.0[12], a.0[13], a.0[14], a.0[15]])
}

/// The secret of the hash.
#[derive(Clone, Copy, Debug)]
pub struct Seed(pub [u64; 4]);

impl Seed {
    /// A seed that is the same in each run: for replays, which must be repeatable. The digits are those of pi.
    pub const FIXED: Seed =
        Seed([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89]);

    /// A seed nobody on the wire can know, from the standard library's random hash keys.
    pub fn random() -> Seed {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let state = RandomState::new();
        Seed(std::array::from_fn(|i| {
            let mut h = state.build_hasher();
            h.write_usize(i);
            h.finish() | 1
        }))
    }
}

/// The 128-bit product of two words, folded.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let p = u128::from(a) * u128::from(b);
    (p as u64) ^ ((p >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(last: u8, port: u16) -> Endpoint {
        Endpoint { addr: Addr::v4([192, 0, 2, last]), port }
    }

    #[test]
    fn both_directions_have_one_key_and_opposite_ends() {
        let (k1, s1) = FlowKey::new(end(1, 4000), end(2, 80), 0);
        let (k2, s2) = FlowKey::new(end(2, 80), end(1, 4000), 0);
        assert_eq!(k1, k2);
        assert_eq!(s1, s2.other());
        assert_eq!(k1.hash(Seed::FIXED), k2.hash(Seed::FIXED));
    }

    #[test]
    fn one_address_talking_to_itself_is_ordered_by_port() {
        let (k1, s1) = FlowKey::new(end(1, 4000), end(1, 80), 0);
        let (k2, s2) = FlowKey::new(end(1, 80), end(1, 4000), 0);
        assert_eq!((k1, s1), (k2, s2.other()));
    }

    #[test]
    fn a_narrow_key_is_the_flows_key() {
        for (src, dst) in [((1, 4000), (2, 80)), ((2, 80), (1, 4000)), ((7, 9), (7, 8)), ((7, 8), (7, 8))] {
            let ends = [src, dst].map(|(a, port): (u8, u16)| end(a, port));
            let address = |end: (u8, u16)| 0xc000_0200 | u64::from(end.0);
            let (pair, ports) = (address(src) << 32 | address(dst), both(src.1, dst.1));
            let ((key, side), (narrow, end)) =
                (FlowKey::new(ends[0], ends[1], 3), Narrow::new(pair, ports, 3));
            assert_eq!((FlowKey::from(narrow), end, Narrow::of(&key)), (key, side, Some(narrow)));
            assert_eq!(narrow.hash(Seed::FIXED), key.hash(Seed::FIXED));
        }
    }

    #[test]
    fn the_seed_and_the_point_change_the_hash() {
        let (k, _) = FlowKey::new(end(1, 4000), end(2, 80), 0);
        let (k1, _) = FlowKey::new(end(1, 4000), end(2, 80), 1);
        assert_ne!(k.hash(Seed::FIXED), k1.hash(Seed::FIXED));
        assert_ne!(k.hash(Seed::random()), k.hash(Seed::random()));
    }
}
