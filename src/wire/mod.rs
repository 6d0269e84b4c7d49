//! Bytes to values: Ethernet and the other link types, VLAN, IP, TCP, ARP, neighbour discovery.
//!
//! Pure: no kernel, no threads, no clock, no unsafe. Malformed input is a value, never an error or a panic.

mod brief;
mod decode;
mod digest;
mod icmp;
mod pcapng;
mod seq;
mod tunnel;
mod types;

pub use brief::{Brief, brief, brief_ends};
pub use decode::decode;
pub use digest::{Digest, Side};
pub use pcapng::{Origin, PacketBlock, PcapngWriter};
pub use seq::Seq;
pub use types::*;
