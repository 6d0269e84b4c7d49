//! The watch of `bpf/select.h`, from user space: tuples whose next packets are wanted although no SYN, FIN or RST of theirs came.

//!
//! Unsafe invariants:
//! - U1: `marks` maps [`MARKED`] bytes for each 16 buckets or part of them; all access to it is by 32-bit atomics.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use memmap2::{MmapOptions, MmapRaw};

use super::hash;
use crate::wire::Addr;

/// `SYNTAP_WATCH_WAYS` entries of `struct syntap_watch_entry` in a bucket.
const WAYS: usize = 4;
const ENTRY: usize = 16;
/// Bytes of `struct syntap_watch_marks`: a byte for each entry of 16 buckets.
const MARKED: usize = 64;

/// Elements of `watch_marks` for a watch of this many buckets.
pub(super) fn marks_of(buckets: u32) -> u32 {
    buckets.div_ceil((MARKED / WAYS) as u32)
}

/// Puts tuples under watch. Can go to another thread.
#[derive(Debug)]
pub struct Watch {
    map: MapHandle,
    marks: Arc<MmapRaw>,
    of: Watching,
}

/// What a watch is loaded with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watching {
    /// Secret of the tuple hash.
    pub key: [u64; 2],
    /// Buckets - 1.
    pub mask: u32,
    /// How long a tuple stays, and how many plain packets of it are mirrored meanwhile.
    pub ns: u64,
    pub packets: u32,
}

impl Watch {
    /// Over the kernel side's maps of buckets and of their marks.
    pub(super) fn over(map: MapHandle, marks: &MapHandle, of: Watching) -> io::Result<Watch> {
        let len = marks_of(of.mask + 1) as usize * MARKED;
        let marks = MmapOptions::new().len(len).map_raw(marks.as_fd().as_raw_fd())?;
        Ok(Watch { map, marks: Arc::new(marks), of })
    }

    /// Another handle to the same watch.
    pub(super) fn again(&self) -> Result<Watch, libbpf_rs::Error> {
        Ok(Watch { map: MapHandle::try_from(&self.map)?, marks: self.marks.clone(), of: self.of })
    }

    /// The marks of a bucket: one byte an entry, the first one's first in memory.
    fn marks(&self, bucket: u32) -> &AtomicU32 {
        assert!(bucket <= self.of.mask);
        // SAFETY: U1: the bucket is one of those that were mapped.
        unsafe { &*self.marks.as_ptr().cast::<AtomicU32>().add(bucket as usize) }
    }

    /// Puts a tuple, either way round, under watch from `monotonic_ns` on. The bucket is read and written as a whole: what the kernel
    /// side changes in between is lost, which costs a neighbour some packets at most, as its own races do.
    pub fn arm(
        &self,
        (src, sport): (Addr, u16),
        (dst, dport): (Addr, u16),
        monotonic_ns: u64,
    ) -> Result<(), libbpf_rs::Error> {
        let hash = hash::tuple(&self.of.key, &src, sport, &dst, dport);
        let bucket = (hash >> 32) as u32 & self.of.mask;
        let key = bucket.to_ne_bytes();
        let Some(mut bytes) = self.map.lookup(&key, MapFlags::ANY)? else { return Ok(()) };
        let tag = if hash as u32 == 0 { 1 } else { hash as u32 };
        let way = put(&mut bytes, tag, self.of.packets, monotonic_ns + self.of.ns);
        self.map.update(&key, &bytes, MapFlags::ANY)?;
        let marked = |word: u32| {
            let mut bytes = word.to_ne_bytes();
            bytes[way] = mark(tag);
            Some(u32::from_ne_bytes(bytes))
        };
        let _ = self.marks(bucket).fetch_update(Ordering::Relaxed, Ordering::Relaxed, marked);
        Ok(())
    }
}

/// `watch_mark()`.
fn mark(tag: u32) -> u8 {
    ((tag >> 24) as u8).max(1)
}

/// `watch_arm()`: in the tuple's own entry, else in the one that ends first. Which one that is.
fn put(bucket: &mut [u8], tag: u32, packets: u32, expires_ns: u64) -> usize {
    let rank = |e: &[u8]| {
        let (own, rest) = e.split_at(4);
        let expires = rest[4..12].try_into().map_or(u64::MAX, u64::from_ne_bytes);
        if own == tag.to_ne_bytes() { (0, 0) } else { (1, expires) }
    };
    let entries = bucket.chunks_exact_mut(ENTRY).take(WAYS).enumerate();
    let Some((way, e)) = entries.min_by_key(|(_, e)| rank(e)) else { return 0 };
    e[..4].copy_from_slice(&tag.to_ne_bytes());
    e[4..8].copy_from_slice(&packets.to_ne_bytes());
    e[8..].copy_from_slice(&expires_ns.to_ne_bytes());
    way
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
