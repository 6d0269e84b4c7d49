//! What workers and their sources tell the processor and the kernel of their memory: what it will read soon, and that large pages are welcome.
//!
//! Unsafe invariants:
//! - U1: a prefetch reads nothing that a program could see, and never faults; its address lies in what a reference is to.
//! - U2: advice is about whole pages within a range that its owner has allocated; the kernel may follow it or not, and changes no byte.
#![allow(unsafe_code)]

/// Has the cache line of `at` fetched, and does not wait for it. Nothing on processors that this has no word for.
#[inline(always)]
pub fn prefetch<T>(at: &T) {
    fetch_line(std::ptr::from_ref(at).cast());
}

/// The same of all that `at` takes.
#[inline]
pub fn prefetch_all<T>(at: &T) {
    let start = std::ptr::from_ref(at).cast::<u8>();
    for line in (0..size_of::<T>()).step_by(64) {
        fetch_line(start.wrapping_add(line));
    }
    // It may begin within a line, and end in one more.
    fetch_line(start.wrapping_add(size_of::<T>().saturating_sub(1)));
}

#[inline(always)]
fn fetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: U1.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: U1.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// Bytes of a huge page.
pub const HUGE: usize = 2 << 20;

/// Asks for huge pages under a range: random reads over gigabytes miss the TLB with every page of 4 KiB. True if the kernel has them.
pub fn huge_pages((start, len): (usize, usize)) -> bool {
    let first = start.next_multiple_of(HUGE);
    let Some(len) = (start + len).checked_sub(first).map(|n| n / HUGE * HUGE).filter(|&n| n > 0) else {
        return false;
    };
    // SAFETY: U2: it lies within the range.
    unsafe { libc::madvise(first as *mut libc::c_void, len, libc::MADV_HUGEPAGE) == 0 }
}
