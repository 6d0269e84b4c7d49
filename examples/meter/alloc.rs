//! An allocator that counts.
//!
//! Unsafe invariants:
//! - U1: every call goes to the system's allocator with the arguments that came, so its contract is the caller's.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// Allocations of this thread so far; growing one is one more.
pub fn taken() -> u64 {
    TAKEN.with(Cell::get)
}

/// The system's allocator, counted a thread.
pub struct Counting;

fn one_more() {
    // A thread that is ending has no counter any more, and nobody to ask for it.
    let _ = TAKEN.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: U1: nothing is done but counting.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        one_more();
        // SAFETY: U1.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        one_more();
        // SAFETY: U1.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        one_more();
        // SAFETY: U1.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: U1.
        unsafe { System.dealloc(at, layout) }
    }
}
