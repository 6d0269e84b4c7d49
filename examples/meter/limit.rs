//! What memory alone costs: random updates of one cache line each, 32 prefetched together.
//!
//! Unsafe invariants:
//! - U1: a range given to `madvise` is memory of this program's own.
//! - U2: a prefetch reads nothing, whatever the address.
#![allow(unsafe_code)]

use std::hint::black_box;

use super::thread;

/// A flow's cache line.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u64; 8]);

/// Updates under way together: as many as a core has line-fill buffers for, or twice that.
const TOGETHER: usize = 32;

/// Asks for huge pages, and takes every page.
fn lines(count: usize) -> Vec<Line> {
    let mut lines = Vec::<Line>::with_capacity(count);
    // SAFETY: U1: the vector's own memory, of the length it has. That it is refused only costs speed.
    unsafe {
        let at = lines.as_mut_ptr().cast::<u8>();
        let page = at.align_offset(4096);
        let len = count * size_of::<Line>();
        if len > page {
            libc::madvise(at.add(page).cast(), len - page, libc::MADV_HUGEPAGE);
        }
    }
    lines.resize(count, Line([1; 8]));
    lines
}

#[inline(always)]
fn prefetch(line: &Line) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: U2.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>((&raw const *line).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    black_box(line.0[0]);
}

/// Nanoseconds an update, the best of a few runs, over `2^bits` lines.
pub fn ns_an_update(bits: u32) -> f64 {
    let mut lines = lines(1 << bits);
    let mask = (1usize << bits) - 1;
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut at = [0usize; TOGETHER];
    let rounds = 4_000_000 / TOGETHER;
    let mut runs = Vec::new();
    for _ in 0..5 {
        let start = thread::cpu_ns();
        for round in 0..rounds {
            for place in &mut at {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *place = (random >> 20) as usize & mask;
                prefetch(&lines[*place]);
            }
            for place in at {
                let line = &mut lines[place].0;
                line[0] = line[0].wrapping_mul(3).wrapping_add(round as u64);
                line[7] ^= line[0];
            }
        }
        runs.push((thread::cpu_ns() - start) as f64 / (rounds * TOGETHER) as f64);
    }
    black_box(&lines);
    thread::least(&runs)
}
