//! The tuples that user space knows to be open, for the kernel side to keep when it sheds (`tuple_known()` in
//! `bpf/select.h`). Writers are the workers: no lock, no system call, one cache line a call.
//!
//! A bucket of sixteen 32-bit tags is found by the upper half of the tuple hash, the tag is its lower half. With room
//! for twice as many tags as there are flows, one flow in some thousands finds its bucket full when all of them are
//! open; it is counted and treated as if it were not known. A tuple that is not known passes for one if it meets the
//! tag of another in its bucket: with eight tags in each, once in 500 million.
//!
//! Unsafe invariants:
//! - U1: the mapping is `buckets * 64` bytes, readable, writable and page-aligned, and lasts as long as its owner; all
//!   access to it is by 32-bit atomics.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::hash;
use crate::wire::Addr;

/// `SYNTAP_KNOWN_WAYS`.
pub(super) const WAYS: usize = 16;

type Bucket = [AtomicU32; WAYS];

struct Mapping {
    at: NonNull<Bucket>,
    buckets: usize,
    /// Tuples that found their bucket full.
    refused: AtomicU64,
}

// SAFETY: U1: shared memory that is only accessed by atomics.
unsafe impl Send for Mapping {}
// SAFETY: U1, as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: U1: it is unmapped once, by its owner.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.buckets * size_of::<Bucket>()) };
    }
}

/// See the module. Clones share one set.
#[derive(Clone)]
pub struct Known {
    mapping: Arc<Mapping>,
    key: [u64; 2],
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("buckets", &self.mapping.buckets).finish_non_exhaustive()
    }
}

impl Known {
    /// Buckets for this many flows: a power of two, 64 KiB at least, 128 MiB at most.
    pub fn buckets(flows: usize) -> u32 {
        (flows.saturating_mul(2) / WAYS).clamp(1 << 10, 1 << 21).next_power_of_two() as u32
    }

    /// Over the kernel side's map of `buckets` buckets, a power of two.
    pub(super) fn over(map: BorrowedFd<'_>, buckets: u32, key: [u64; 2]) -> io::Result<Known> {
        Known::map(buckets, key, libc::MAP_SHARED, map.as_raw_fd())
    }

    /// One that no kernel side reads.
    pub fn apart(flows: usize, key: [u64; 2]) -> io::Result<Known> {
        Known::map(Known::buckets(flows), key, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn map(buckets: u32, key: [u64; 2], flags: i32, fd: i32) -> io::Result<Known> {
        assert!(buckets.is_power_of_two());
        let len = buckets as usize * size_of::<Bucket>();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: U1: a new mapping at a place of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).expect("no mapping is at 0");
        let mapping = Mapping { at, buckets: buckets as usize, refused: AtomicU64::new(0) };
        Ok(Known { mapping: Arc::new(mapping), key })
    }

    /// The tuple's bucket, and its tag at a tap point.
    fn place(&self, (src, sport): (Addr, u16), (dst, dport): (Addr, u16), point: u8) -> (&Bucket, u32) {
        let hash = hash::tuple(&self.key, &src, sport, &dst, dport);
        let tag = hash as u32 ^ u32::from(point).wrapping_mul(0x7f4a_7c15);
        let bucket = (hash >> 32) as usize & (self.mapping.buckets - 1);
        // SAFETY: U1: the mask keeps it within the mapping.
        let bucket = unsafe { self.mapping.at.add(bucket).as_ref() };
        (bucket, if tag == 0 { 1 } else { tag })
    }

    /// A tuple, either way round, is open at this tap point.
    pub fn insert(&self, src: (Addr, u16), dst: (Addr, u16), point: u8) {
        let (bucket, tag) = self.place(src, dst, point);
        if bucket.iter().any(|t| t.load(Ordering::Relaxed) == tag) {
            return;
        }
        // Another worker may take a place that was free a moment ago.
        let take = |t: &AtomicU32| t.compare_exchange(0, tag, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !bucket.iter().any(take) {
            self.mapping.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It is open no more.
    pub fn remove(&self, src: (Addr, u16), dst: (Addr, u16), point: u8) {
        let (bucket, tag) = self.place(src, dst, point);
        for t in bucket {
            // Who else writes here writes other tags, but for one tuple in billions, which is forgotten too early.
            let _ = t.compare_exchange(tag, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether the kernel side takes the tuple for open at this tap point.
    pub fn contains(&self, src: (Addr, u16), dst: (Addr, u16), point: u8) -> bool {
        let (bucket, tag) = self.place(src, dst, point);
        bucket.iter().any(|t| t.load(Ordering::Relaxed) == tag)
    }

    /// Tuples that found no place, and are treated as if nothing were known of them.
    pub fn refused(&self) -> u64 {
        self.mapping.refused.load(Ordering::Relaxed)
    }

    /// Tags in the set.
    pub fn len(&self) -> usize {
        // SAFETY: U1.
        let all = unsafe { std::slice::from_raw_parts(self.mapping.at.as_ptr(), self.mapping.buckets) };
        all.iter().flatten().filter(|t| t.load(Ordering::Relaxed) != 0).count()
    }

    /// True without a tag.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(n: u32) -> (Addr, u16) {
        (Addr::v4((n / 60_000 + 0x0a00_0000).to_be_bytes()), (n % 60_000) as u16)
    }

    const SERVER: (Addr, u16) = (Addr::v4([192, 0, 2, 1]), 443);

    #[test]
    fn a_tuple_is_known_either_way_round_at_its_tap_point_until_it_is_removed() {
        let known = Known::apart(64, [1, 2]).unwrap();
        known.insert(end(7), SERVER, 0);
        known.insert(SERVER, end(7), 0);
        assert_eq!(known.len(), 1, "once");
        assert!(known.contains(SERVER, end(7), 0) && !known.contains(end(7), SERVER, 1));
        assert!(!known.contains(end(8), SERVER, 0));
        known.insert(end(7), SERVER, 1);
        known.remove(end(7), SERVER, 0);
        assert!(!known.contains(end(7), SERVER, 0) && known.contains(end(7), SERVER, 1));
        known.remove(end(7), SERVER, 1);
        assert!(known.is_empty());
    }

    #[test]
    fn a_full_table_of_open_flows_leaves_few_out_and_lets_no_stranger_in() {
        const FLOWS: u32 = 262_144;
        let known = Known::apart(FLOWS as usize, [3, 4]).unwrap();
        (0..FLOWS).for_each(|n| known.insert(end(n), SERVER, 0));
        // Sixteen places and eight tags a bucket on average: the tail of Poisson(8) beyond 16 is 0.0007 of them.
        assert!(known.refused() < u64::from(FLOWS) / 1_000, "{} refused", known.refused());
        let strangers = (FLOWS..4 * FLOWS).filter(|&n| known.contains(end(n), SERVER, 0)).count();
        assert!(strangers <= 1, "{strangers}");
        (0..FLOWS).for_each(|n| known.remove(end(n), SERVER, 0));
        assert!(known.is_empty());
    }

    #[test]
    fn two_workers_in_one_bucket_lose_nothing_of_each_other() {
        let known = Known::apart(1, [5, 6]).unwrap();
        // Forty or so tuples of one bucket: more than fit. Each worker puts in and takes out its own.
        let bucket = |n: u32| known.place(end(n), SERVER, 0).0.as_ptr();
        let shared: Vec<u32> = (0..60_000).filter(|&n| std::ptr::eq(bucket(n), bucket(0))).collect();
        let (mine, theirs) = shared[..14].split_at(7);
        std::thread::scope(|scope| {
            for part in [mine, theirs] {
                let known = &known;
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        part.iter().for_each(|&n| known.insert(end(n), SERVER, 0));
                        assert!(part.iter().all(|&n| known.contains(end(n), SERVER, 0)));
                        part.iter().for_each(|&n| known.remove(end(n), SERVER, 0));
                    }
                });
            }
        });
        assert!(known.is_empty() && known.refused() == 0);
        shared.iter().for_each(|&n| known.insert(end(n), SERVER, 0));
        assert_eq!((known.len(), known.refused() as usize), (WAYS, shared.len() - WAYS));
    }
}
