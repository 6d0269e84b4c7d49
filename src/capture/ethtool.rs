//! Three questions to a driver: its name, how many receive queues are in use, and whether its hash sends both directions of a connection to one
//! of them.
//!
//! Unsafe invariants:
//! - U1: the request's data pointer points at a live C struct of the size that its command writes.
//! - U2: the interface name in the request is NUL-terminated.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GRSSH: u32 = 0x46;
const TCP_V4_FLOW: u32 = 0x01;
const TCP_V6_FLOW: u32 = 0x05;

/// Bits of `ethtool_rxnfc.data`: what goes into the hash.
const RXH_IP: [u64; 2] = [1 << 4, 1 << 5];
const RXH_PORTS: [u64; 2] = [1 << 6, 1 << 7];

/// Of `ethtool_rxfh.hfunc`: Toeplitz.
const HASH_TOEPLITZ: u8 = 1;

/// Of `ethtool_rxfh.input_xfrm`: source and destination are folded before they are hashed.
const FOLDED: u8 = 3;

/// The longest key that is read, bytes: drivers have 40 to 52.
const KEY: usize = 256;

/// `struct ethtool_drvinfo` of linux/ethtool.h.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    erom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// The part of `struct ethtool_rxnfc` that [`ETHTOOL_GRXFH`] uses.
#[repr(C)]
#[derive(Default)]
struct HashFields {
    cmd: u32,
    flow_type: u32,
    data: u64,
}

/// `struct ethtool_rxfh`, with room for a key.
#[repr(C)]
struct HashSetting {
    cmd: u32,
    rss_context: u32,
    indir_size: u32,
    key_size: u32,
    hfunc: u8,
    input_xfrm: u8,
    reserved8: [u8; 2],
    reserved32: u32,
    key: [u8; KEY],
}

const _: () = assert!(size_of::<DriverInfo>() == 196 && size_of::<Channels>() == 36);
const _: () = assert!(size_of::<HashFields>() == 16 && std::mem::offset_of!(HashSetting, key) == 24);

/// Whether both directions of a connection come to one receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueHash {
    /// They do, by the driver's settings.
    Symmetric,
    /// They do not: every other connection is split over two queues, or more with more queues.
    Asymmetric,
    /// The driver does not tell.
    Unknown,
}

/// What the settings of a hash say. `fields` are those of TCP over IPv4 and IPv6.
fn judge(hfunc: u8, input_xfrm: u8, key: &[u8], fields: [u64; 2]) -> QueueHash {
    let both_or_none = |pair: [u64; 2], of: u64| (of & pair[0] != 0) == (of & pair[1] != 0);
    if hfunc & !HASH_TOEPLITZ != 0 {
        return QueueHash::Unknown;
    }
    if !fields.iter().all(|f| both_or_none(RXH_IP, *f) && both_or_none(RXH_PORTS, *f)) {
        return QueueHash::Asymmetric;
    }
    if input_xfrm != u8::MAX && input_xfrm & FOLDED != 0 {
        return QueueHash::Symmetric;
    }
    match key {
        // Some drivers show no key, others an empty one.
        [] | [_] => QueueHash::Unknown,
        key if key.iter().all(|b| *b == 0) => QueueHash::Unknown,
        // Toeplitz adds windows of the key, one for each bit: with a period of 16 bits those of both addresses, and of both ports, are the same.
        key if key.windows(3).all(|w| w[0] == w[2]) => QueueHash::Symmetric,
        _ => QueueHash::Asymmetric,
    }
}

fn ask<T>(interface: &str, data: &mut T) -> io::Result<()> {
    let any: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (data as *mut T).cast() },
    };
    // SAFETY: U1, U2: the name was checked to leave room for its NUL.
    match unsafe { libc::ioctl(any.as_raw_fd(), SIOCETHTOOL as _, &mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The driver's name.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo {
        cmd: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        erom: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    ask(interface, &mut info)?;
    let end = info.driver.iter().position(|b| *b == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..end]).into_owned())
}

fn hash_setting(interface: &str, key_size: u32) -> io::Result<HashSetting> {
    let mut setting = HashSetting {
        cmd: ETHTOOL_GRSSH,
        rss_context: 0,
        indir_size: 0,
        key_size,
        hfunc: 0,
        input_xfrm: 0,
        reserved8: [0; 2],
        reserved32: 0,
        key: [0; KEY],
    };
    ask(interface, &mut setting)?;
    Ok(setting)
}

/// Whether the driver's hash sends both directions of a TCP connection to one receive queue. Rules that steer single flows (`ethtool -n`), and
/// drivers that learn flows by themselves, are not looked at.
pub fn queue_hash(interface: &str) -> QueueHash {
    let told = || -> io::Result<QueueHash> {
        // The kernel gives a key to who knows its length, which it tells first.
        let length = hash_setting(interface, 0)?.key_size;
        if length as usize > KEY {
            return Ok(QueueHash::Unknown);
        }
        let setting = hash_setting(interface, length)?;
        let mut fields = [0; 2];
        for (of, flow_type) in fields.iter_mut().zip([TCP_V4_FLOW, TCP_V6_FLOW]) {
            let mut asked = HashFields { cmd: ETHTOOL_GRXFH, flow_type, data: 0 };
            ask(interface, &mut asked)?;
            *of = asked.data;
        }
        Ok(judge(setting.hfunc, setting.input_xfrm, &setting.key[..length as usize], fields))
    };
    told().unwrap_or(QueueHash::Unknown)
}

/// Receive queues in use; an error where the driver does not tell.
pub fn receive_queues(interface: &str) -> io::Result<u32> {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    ask(interface, &mut channels)?;
    Ok(channels.rx + channels.combined)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses and ports of both ends.
    const ALL: [u64; 2] = [0xf0; 2];

    #[test]
    fn a_hash_is_symmetric_by_its_key_or_by_folding_and_only_over_both_ends() {
        let repeated = [0x6d, 0x5a].repeat(20);
        let microsofts: Vec<u8> = [0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67].repeat(4);
        assert_eq!(judge(1, 0, &repeated, ALL), QueueHash::Symmetric);
        assert_eq!(judge(1, 0, &microsofts, ALL), QueueHash::Asymmetric);
        assert_eq!(judge(1, 1, &microsofts, ALL), QueueHash::Symmetric, "symmetric-xor");
        assert_eq!(judge(1, 2, &microsofts, ALL), QueueHash::Symmetric, "symmetric-or-xor");
        assert_eq!(judge(1, 0xff, &microsofts, ALL), QueueHash::Asymmetric, "folding is not known");
        assert_eq!(judge(1, 0, &repeated, [0x30; 2]), QueueHash::Symmetric, "addresses alone");
        // The source's address alone, the destination's port alone.
        assert_eq!(judge(1, 1, &repeated, [0xf0, 0xd0]), QueueHash::Asymmetric);
        assert_eq!(judge(1, 0, &repeated, [0xb0, 0xf0]), QueueHash::Asymmetric);
        for (hfunc, key) in [(1, &[][..]), (1, &[0; 40]), (4, &repeated)] {
            assert_eq!(judge(hfunc, 0, key, ALL), QueueHash::Unknown);
        }
    }

    #[test]
    fn what_has_no_hash_tells_of_none() {
        assert_eq!(queue_hash("lo"), QueueHash::Unknown);
        assert_eq!(queue_hash("no such interface"), QueueHash::Unknown);
    }
}
