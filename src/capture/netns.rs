//! A private network namespace that nothing but this process's descriptors keeps alive.
//!
//! When they close, also by a kill, the kernel takes the namespace down with every interface in it; a veth pair
//! with one end there is gone with it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace without a name.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// Makes one, with IPv6 switched off so that interfaces in it stay silent.
    pub fn anonymous() -> io::Result<Netns> {
        // On a thread of its own: the caller must not change its namespace, and a dead thread's is free again.
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let ns = File::open("/proc/thread-self/ns/net")?;
            for scope in ["all", "default"] {
                // Absent where the kernel has no IPv6: then there is nothing to switch off.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
            Ok(Netns(ns.into()))
        };
        on_a_thread(make)?
    }

    /// Runs `work` inside the namespace, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("syntap-netns".into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("the namespace thread panicked"))
    })
}
