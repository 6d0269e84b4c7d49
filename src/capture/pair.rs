//! The carrier: a private veth pair that clones of live packets travel through on their way to the rings.
//!
//! The near end is in the tapped interfaces' namespace, where a clone can be sent to it; the far end is in an
//! anonymous namespace, and takes the near end with it when the process goes, however it goes.

use std::fs;
use std::io;
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::interface::Rtnetlink;
use super::netns::Netns;
use super::tap_error::TapError;
use crate::bpf::abi::{CARRY_MAX, META_LEN};

/// The longest clone with its metadata in front: a VXLAN packet of a full 1,500 bytes cannot be shortened on the way.
const MTU: u32 = CARRY_MAX + META_LEN as u32;

/// Name of the far end, alone in its namespace.
pub(super) const FAR_NAME: &str = "syntap";

/// The veth pair and the namespace of its far end.
#[derive(Debug)]
pub(super) struct Pair {
    pub near_name: String,
    pub near: u32,
    pub far: u32,
    pub namespace: Netns,
    /// Of the near end's namespace, wherever the owner goes.
    rtnetlink: Mutex<Rtnetlink>,
}

/// True for a name that `make` gives.
pub fn is_carrier(name: &str) -> bool {
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("st").and_then(|rest| rest.split_once('n')).is_some_and(|(a, b)| number(a) && number(b))
}

fn failed(operation: &'static str, object: &str) -> impl Fn(io::Error) -> TapError {
    move |source| TapError::System { operation, object: object.to_owned(), source }
}

impl Pair {
    /// Makes the pair with `queues` queues and sets it up.
    pub fn open(queues: u32) -> Result<Pair, TapError> {
        let namespace = Netns::anonymous().map_err(failed("make", "a private network namespace"))?;
        let mut rtnetlink = Rtnetlink::open().map_err(failed("open", "an rtnetlink socket"))?;
        let near_name = make(&mut rtnetlink, &namespace, queues)?;
        let near = rtnetlink.index(&near_name).map_err(failed("find", &near_name))?;
        // From here on, dropping the value takes the pair down.
        let mut pair = Pair { near_name, near, far: 0, namespace, rtnetlink: Mutex::new(rtnetlink) };
        let name = &pair.near_name;
        let rtnetlink = pair.rtnetlink.get_mut().expect("nobody else has it");

        // Neither end may speak: no address, no router solicitation, no ARP. Without IPv6 there is nothing to
        // forbid, and a read-only /proc leaves the first of the two.
        let _ = rtnetlink.silence(near);
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        pair.far = pair
            .namespace
            .run(|| {
                let mut far = Rtnetlink::open()?;
                let index = far.index(FAR_NAME)?;
                far.set_up(index)?;
                Ok(index)
            })
            .and_then(|done| done)
            .map_err(failed("set up", FAR_NAME))?;
        rtnetlink.set_up(near).map_err(failed("set up", name))?;
        Ok(pair)
    }

    /// Packets that the near end dropped: the far end's ring of 256 packets a queue was full.
    pub fn drops(&self) -> io::Result<u64> {
        let mut rtnetlink = self.rtnetlink.lock().map_err(|_| io::Error::other("a thread panicked"))?;
        rtnetlink.transmit_drops(self.near)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // The namespace would do it as well, some milliseconds later.
        if let Ok(rtnetlink) = self.rtnetlink.get_mut() {
            let _ = rtnetlink.delete(self.near);
        }
    }
}

/// Makes the pair under a name nobody has. The process id makes a collision unlikely; a process in a container
/// that shares the network may still have the same.
fn make(rtnetlink: &mut Rtnetlink, namespace: &Netns, queues: u32) -> Result<String, TapError> {
    use std::os::fd::AsRawFd;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut last = io::Error::from_raw_os_error(libc::EEXIST);
    for _ in 0..16 {
        // "st", at most seven digits, and at most three: within the 15 characters of a name.
        let name = format!("st{}n{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed) % 1000);
        match rtnetlink.add_veth(&name, FAR_NAME, namespace.as_raw_fd(), queues, MTU) {
            Ok(()) => return Ok(name),
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => last = e,
            Err(e) => return Err(failed("make", "the private veth pair")(e)),
        }
    }
    Err(failed("make", "the private veth pair")(last))
}

#[cfg(test)]
mod tests {
    use super::is_carrier;

    #[test]
    fn carriers_are_known_by_their_names() {
        assert!(is_carrier("st1234n0") && is_carrier("st4194304n999"));
        for name in ["eth0", "st0", "stn", "st1n", "stan1", "nst1n1"] {
            assert!(!is_carrier(name), "{name}");
        }
    }
}
