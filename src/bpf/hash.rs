//! The symmetric tuple hash of `bpf/hash.h`, number for number.
//!
//! Both directions of a tuple share it. `hash as u32 % shards` is the ring of an inline packet, and
//! [`Meta::hash`](super::Meta::hash) is its low half. A test runs the kernel's programs and compares.

use crate::wire::Addr;

const MIX_A: u64 = 0xd6e8_feb8_6659_fd93;
const MIX_B: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
const fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 32).wrapping_mul(MIX_A);
    let x = (x ^ x >> 29).wrapping_mul(MIX_B);
    x ^ x >> 32
}

#[inline]
fn half(b: &[u8]) -> u64 {
    // As the kernel side: two 32-bit loads in memory order.
    let word = |i: usize| u64::from(u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]));
    word(0) | word(4) << 32
}

#[inline]
fn endpoint(key: &[u64; 2], addr: &Addr, port: u16) -> u64 {
    let b = &addr.0;
    let (hi, lo) = if addr.is_v4() {
        (0, u64::from(u32::from_ne_bytes([b[12], b[13], b[14], b[15]])))
    } else {
        (half(&b[..8]), half(&b[8..]))
    };
    let port = u64::from(port);
    if hi == 0 && lo >> 32 == 0 {
        return mix((lo | port << 32) ^ key[0]);
    }
    let upper = (hi ^ key[1]).wrapping_add(port.wrapping_mul(key[0] | 1));
    mix(mix(upper) ^ lo ^ key[0])
}

/// The hash of a tuple; the same with source and destination exchanged.
#[inline]
pub fn tuple(key: &[u64; 2], src: &Addr, sport: u16, dst: &Addr, dport: u16) -> u64 {
    mix(endpoint(key, src, sport).wrapping_add(endpoint(key, dst, dport)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

    fn addr(s: &str) -> Addr {
        s.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn both_directions_have_one_hash_and_swapped_ports_another() {
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")] {
            let (a, b) = (addr(a), addr(b));
            assert_eq!(tuple(&KEY, &a, 1000, &b, 80), tuple(&KEY, &b, 80, &a, 1000));
            assert_ne!(tuple(&KEY, &a, 1000, &b, 80), tuple(&KEY, &a, 80, &b, 1000));
        }
    }

    #[test]
    fn neighbouring_tuples_spread_evenly_over_rings() {
        let (client, server) = (addr("10.77.0.11"), addr("198.51.100.2"));
        for shards in [2u32, 3, 8] {
            let mut hits = vec![0u32; shards as usize];
            for port in 1024..64512 {
                hits[(tuple(&KEY, &client, port, &server, 443) as u32 % shards) as usize] += 1;
            }
            let fair = (64512 - 1024) / shards;
            for h in hits {
                assert!(h.abs_diff(fair) < fair / 20, "{h} of {fair}");
            }
        }
    }

    #[test]
    fn another_key_gives_other_hashes() {
        let (a, b) = (addr("10.0.0.1"), addr("10.0.0.2"));
        assert_ne!(tuple(&KEY, &a, 1, &b, 2), tuple(&[KEY[0] ^ 1, KEY[1]], &a, 1, &b, 2));
    }
}
