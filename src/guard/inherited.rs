//! Descriptors that whoever started this process left open, knowingly or not: a file, a socket, a terminal of his.
//!
//! A tap needs none but standard output and error, and what it does not hold nobody can take from it.
//!
//! Unsafe invariants:
//! - U1: nothing of this process owns a descriptor above 2 yet.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

/// Closes all descriptors but standard input, output and error. To be called before anything is opened.
pub fn close_inherited() -> io::Result<()> {
    // By number: the C library has a name for it only since 2.34.
    // SAFETY: U1.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts `/dev/null` in the place of standard input, which a run does not read: what is there may be somebody's terminal, or a file of his.
/// Not a mere close: the next descriptor would be number 0.
pub(super) fn let_input_go() -> io::Result<()> {
    nix::unistd::dup2_stdin(File::open("/dev/null")?).map_err(io::Error::from)
}
