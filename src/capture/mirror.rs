//! Writes packets as pcapng: what the tap mirrored, for a replay or for other tools.
//!
//! Nanosecond times, an interface block with name and role for each tap point, the direction of each packet, a VLAN
//! tag that the kernel had taken out put back into the bytes, and at the end a statistics block that says when the
//! capture ended: a replay can then tell silence from the end of the file.

use std::io::{self, Write};

use super::Packet;
use crate::wire::{LinkType, Nanos, Origin, PacketBlock, PcapngWriter};

/// An open capture file.
pub struct MirrorWriter<W: Write> {
    to: PcapngWriter<W>,
    interfaces: u32,
}

impl<W: Write> MirrorWriter<W> {
    /// Writes the header for interfaces given as name and role.
    pub fn new(to: W, interfaces: &[(&str, Option<&str>)]) -> io::Result<MirrorWriter<W>> {
        let mut to = PcapngWriter::new(to);
        to.section(&Origin::default())?;
        for (name, role) in interfaces {
            to.interface(LinkType::Ethernet, name, *role)?;
        }
        Ok(MirrorWriter { to, interfaces: interfaces.len() as u32 })
    }

    /// What it writes to.
    pub fn get_ref(&self) -> &W {
        self.to.get_ref()
    }

    /// The same, to change it: between blocks only.
    pub fn get_mut(&mut self) -> &mut W {
        self.to.get_mut()
    }

    /// Writes one packet. Only Ethernet comes from a tap; anything else is refused.
    pub fn write(&mut self, p: &Packet<'_>) -> io::Result<()> {
        if p.link != LinkType::Ethernet || u32::from(p.point.0) >= self.interfaces {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a packet of an unknown interface"));
        }
        let (head, rest) = p.bytes.split_at(p.bytes.len().min(12));
        let mut tag = [0; 4];
        tag[..2].copy_from_slice(&p.vlan.tpid.to_be_bytes());
        tag[2..].copy_from_slice(&p.vlan.tci.to_be_bytes());
        let tag = if p.vlan.tpid != 0 { &tag[..] } else { &[] };
        let block = PacketBlock {
            interface: p.point.0.into(),
            ts: p.ts,
            way: p.way,
            wire_len: p.wire_len + tag.len() as u32,
            parts: [head, tag, rest],
        };
        self.to.packet(&block, [])
    }

    /// Writes when the capture ended, and flushes.
    pub fn finish(&mut self, at: Nanos) -> io::Result<()> {
        (0..self.interfaces).try_for_each(|interface| self.to.ended(interface, at))?;
        self.get_mut().flush()
    }
}
