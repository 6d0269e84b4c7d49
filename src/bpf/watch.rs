//! The watch of `bpf/select.h`, from user space: tuples whose next packets are wanted although no SYN, FIN or RST of theirs came.

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::hash;
use crate::wire::Addr;

/// `SYNTAP_WATCH_WAYS` entries of `struct syntap_watch_entry` in a bucket.
const WAYS: usize = 4;
const ENTRY: usize = 16;

/// Puts tuples under watch. Can go to another thread.
#[derive(Debug)]
pub struct Watch {
    pub(super) map: MapHandle,
    pub(super) key: [u64; 2],
    /// Buckets - 1.
    pub(super) mask: u32,
    /// How long a tuple stays, and how many plain packets of it are mirrored meanwhile.
    pub(super) ns: u64,
    pub(super) packets: u32,
}

impl Watch {
    /// Another handle to the same watch.
    pub(super) fn again(&self) -> Result<Watch, libbpf_rs::Error> {
        let Watch { key, mask, ns, packets, .. } = *self;
        Ok(Watch { map: MapHandle::try_from(&self.map)?, key, mask, ns, packets })
    }

    /// Puts a tuple, either way round, under watch from `monotonic_ns` on. The bucket is read and written as a whole: what the kernel
    /// side changes in between is lost, which costs a neighbour some packets at most, as its own races do.
    pub fn arm(
        &self,
        (src, sport): (Addr, u16),
        (dst, dport): (Addr, u16),
        monotonic_ns: u64,
    ) -> Result<(), libbpf_rs::Error> {
        let hash = hash::tuple(&self.key, &src, sport, &dst, dport);
        let bucket = ((hash >> 32) as u32 & self.mask).to_ne_bytes();
        let Some(mut bytes) = self.map.lookup(&bucket, MapFlags::ANY)? else { return Ok(()) };
        let tag = if hash as u32 == 0 { 1 } else { hash as u32 };
        put(&mut bytes, tag, self.packets, monotonic_ns + self.ns);
        self.map.update(&bucket, &bytes, MapFlags::ANY)
    }
}

/// `watch_arm()`: in the tuple's own entry, else in the one that ends first.
fn put(bucket: &mut [u8], tag: u32, packets: u32, expires_ns: u64) {
    let rank = |e: &[u8]| {
        let (own, rest) = e.split_at(4);
        let expires = rest[4..12].try_into().map_or(u64::MAX, u64::from_ne_bytes);
        if own == tag.to_ne_bytes() { (0, 0) } else { (1, expires) }
    };
    let entries = bucket.chunks_exact_mut(ENTRY).take(WAYS);
    if let Some(e) = entries.min_by_key(|e| rank(e)) {
        e[..4].copy_from_slice(&tag.to_ne_bytes());
        e[4..8].copy_from_slice(&packets.to_ne_bytes());
        e[8..].copy_from_slice(&expires_ns.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_takes_its_own_entry_else_the_one_that_ends_first() {
        let mut bucket = [0; WAYS * ENTRY];
        let tags = |b: &[u8]| -> Vec<u8> { b.chunks_exact(ENTRY).map(|e| e[0].max(e[3])).collect() };
        let mut arm = |tag, at| {
            put(&mut bucket, tag, 16, at);
            tags(&bucket)
        };
        arm(1, 10);
        arm(2, 20);
        arm(3, 30);
        assert_eq!(arm(4, 40), [1, 2, 3, 4]);
        assert_eq!(arm(1, 50), [1, 2, 3, 4], "its own");
        assert_eq!(arm(5, 60), [1, 5, 3, 4], "the one that ends first");
    }
}
