//! The kernel side: the compiled programs, the types they share with user space, loading and attaching.
//!
//! The programs themselves are in `bpf/`; `bpf/syntap.h` is the contract. Nothing here knows sockets or frames:
//! [`crate::capture`] binds the rings.

pub mod abi;
pub mod attach;
mod budget;
pub mod classic;
pub mod hash;
mod known;
pub mod load;
mod watch;

pub use abi::{Counter, Meta};
pub use budget::{Budget, Kept};
pub use known::Known;
pub use load::{Kernel, LoadError, Options, Program};
pub use watch::Watch;
