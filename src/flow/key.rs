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
    pub(super) fn ordered([a, b]: [Addr; 2], [a_port, b_port]: [u16; 2], point: u8) -> FlowKey {
        FlowKey { a, b, a_port, b_port, point }
    }

    /// The addresses of ends A and B.
    #[inline]
    pub(super) fn addresses(&self) -> [&Addr; 2] {
        [&self.a, &self.b]
    }

    /// The ports of ends A and B.
    #[inline]
    pub(super) fn ports(&self) -> [u16; 2] {
        [self.a_port, self.b_port]
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
        if let Some(narrow) = Narrow::of(self) {
            return narrow.hash(seed);
        }
        let word = |a: &Addr, at: usize| {
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
        let x = fold(word(&self.a, 0) ^ seed.0[0], word(&self.a, 8) ^ seed.0[1]);
        let y = fold(word(&self.b, 0) ^ seed.0[2], word(&self.b, 8) ^ seed.0[3]);
        fold(x ^ ports(self.a_port, self.b_port, self.point) ^ seed.0[1], y ^ seed.0[0])
    }
}

#[inline]
fn ports(a: u16, b: u16, point: u8) -> u64 {
    u64::from(a) << 32 | u64::from(b) << 16 | u64::from(point)
}

/// The key of a flow over IPv4: the same as its [`FlowKey`], in 16 bytes. Nearly all flows are, and each packet of them looks one up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Narrow {
    pub(super) a: u32,
    pub(super) b: u32,
    pub(super) a_port: u16,
    pub(super) b_port: u16,
    pub(super) point: u8,
}

impl Narrow {
    /// As [`FlowKey::new`], from addresses in host order and ports.
    #[inline]
    pub fn new(src: (u32, u16), dst: (u32, u16), point: u8) -> (Narrow, Side) {
        let place = |e: (u32, u16)| u64::from(e.0) << 16 | u64::from(e.1);
        let turned = place(src) > place(dst);
        let (a, b) = if turned { (dst, src) } else { (src, dst) };
        let side = if turned { Side::Resp } else { Side::Orig };
        (Narrow { a: a.0, b: b.0, a_port: a.1, b_port: b.1, point }, side)
    }

    /// `None` for IPv6.
    #[inline]
    pub fn of(key: &FlowKey) -> Option<Narrow> {
        let FlowKey { a, b, a_port, b_port, point } = *key;
        (a.is_v4() && b.is_v4()).then(|| Narrow { a: v4(&a), b: v4(&b), a_port, b_port, point })
    }

    /// As [`FlowKey::hash`].
    #[inline]
    pub fn hash(&self, seed: Seed) -> u64 {
        let addresses = u64::from(self.a) << 32 | u64::from(self.b);
        let x = fold(addresses ^ seed.0[0], ports(self.a_port, self.b_port, self.point) ^ seed.0[1]);
        fold(x ^ seed.0[2], addresses ^ seed.0[3])
    }
}

impl From<Narrow> for FlowKey {
    #[inline]
    fn from(n: Narrow) -> FlowKey {
        let [a, b] = [n.a, n.b].map(|a| Addr::v4(a.to_be_bytes()));
        FlowKey { a, b, a_port: n.a_port, b_port: n.b_port, point: n.point }
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
            let plain = [src, dst].map(|(a, port)| (0xc000_0200 | u32::from(a), port));
            let ((key, side), (narrow, end)) =
                (FlowKey::new(ends[0], ends[1], 3), Narrow::new(plain[0], plain[1], 3));
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
