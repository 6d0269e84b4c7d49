//! Writes packets as pcapng: what the tap mirrored, for a replay or for other tools.
//!
//! Nanosecond times, an interface block with name and role for each tap point, the direction of each packet, a VLAN
//! tag that the kernel had taken out put back into the bytes, and at the end a statistics block that says when the
//! capture ended: a replay can then tell silence from the end of the file.

use std::io::{self, Write};

use super::Packet;
use crate::wire::{LinkType, Nanos, Way};

/// Options by number (draft-ietf-opsawg-pcapng).
mod option {
    pub const USERAPPL: u16 = 4;
    pub const IF_NAME: u16 = 2;
    pub const IF_DESCRIPTION: u16 = 3;
    pub const IF_TSRESOL: u16 = 9;
    pub const EPB_FLAGS: u16 = 2;
    pub const ISB_ENDTIME: u16 = 3;
}

/// An open capture file.
pub struct MirrorWriter<W: Write> {
    to: W,
    interfaces: u32,
    block: Vec<u8>,
}

impl<W: Write> MirrorWriter<W> {
    /// Writes the header for interfaces given as name and role.
    pub fn new(to: W, interfaces: &[(&str, Option<&str>)]) -> io::Result<MirrorWriter<W>> {
        let mut w = MirrorWriter { to, interfaces: 0, block: Vec::with_capacity(2048) };
        w.block.extend(0x1a2b_3c4d_u32.to_le_bytes());
        w.block.extend([1, 0, 0, 0]); // version 1.0
        w.block.extend(u64::MAX.to_le_bytes()); // section length: unknown
        let version = concat!("syntap ", env!("CARGO_PKG_VERSION"));
        w.option(option::USERAPPL, version.as_bytes());
        w.end(0x0a0d_0d0a)?;
        for (name, role) in interfaces {
            w.block.extend([1, 0, 0, 0]); // Ethernet, reserved
            w.block.extend(0u32.to_le_bytes()); // no snap length of its own
            w.option(option::IF_NAME, name.as_bytes());
            if let Some(role) = role {
                w.option(option::IF_DESCRIPTION, format!("role {role}").as_bytes());
            }
            w.option(option::IF_TSRESOL, &[9]);
            w.end(1)?;
            w.interfaces += 1;
        }
        Ok(w)
    }

    /// What it writes to.
    pub fn get_ref(&self) -> &W {
        &self.to
    }

    /// The same, to change it: between blocks only.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.to
    }

    /// Writes one packet. Only Ethernet comes from a tap; anything else is refused.
    pub fn write(&mut self, p: &Packet<'_>) -> io::Result<()> {
        if p.link != LinkType::Ethernet || u32::from(p.point.0) >= self.interfaces {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a packet of an unknown interface"));
        }
        let (head, rest) = p.bytes.split_at(p.bytes.len().min(12));
        let tag: &[u8] = if p.vlan.tpid != 0 {
            &[p.vlan.tpid.to_be_bytes(), p.vlan.tci.to_be_bytes()].concat()
        } else {
            &[]
        };
        let captured = p.bytes.len() + tag.len();
        self.block.extend(u32::from(p.point.0).to_le_bytes());
        self.time(p.ts);
        self.block.extend((captured as u32).to_le_bytes());
        self.block.extend((p.wire_len + tag.len() as u32).to_le_bytes());
        for part in [head, tag, rest] {
            self.block.extend_from_slice(part);
        }
        self.pad(captured);
        let direction: u32 = match p.way {
            Way::Ingress => 1,
            Way::Egress => 2,
            Way::Unknown => 0,
        };
        self.option(option::EPB_FLAGS, &direction.to_le_bytes());
        self.end(6)
    }

    /// Writes when the capture ended, and flushes.
    pub fn finish(&mut self, at: Nanos) -> io::Result<()> {
        for interface in 0..self.interfaces {
            self.block.extend(interface.to_le_bytes());
            self.time(at);
            let (high, low) = ((at.0 >> 32) as u32, at.0 as u32);
            self.option(option::ISB_ENDTIME, &[high.to_le_bytes(), low.to_le_bytes()].concat());
            self.end(5)?;
        }
        self.to.flush()
    }

    fn time(&mut self, at: Nanos) {
        self.block.extend(((at.0 >> 32) as u32).to_le_bytes());
        self.block.extend((at.0 as u32).to_le_bytes());
    }

    fn pad(&mut self, len: usize) {
        self.block.extend(std::iter::repeat_n(0, len.next_multiple_of(4) - len));
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.block.extend(code.to_le_bytes());
        self.block.extend((value.len() as u16).to_le_bytes());
        self.block.extend_from_slice(value);
        self.pad(value.len());
    }

    fn end(&mut self, kind: u32) -> io::Result<()> {
        self.block.extend([0; 4]); // end of options
        let len = (self.block.len() as u32 + 12).to_le_bytes();
        self.to.write_all(&kind.to_le_bytes())?;
        self.to.write_all(&len)?;
        self.to.write_all(&self.block)?;
        self.to.write_all(&len)?;
        self.block.clear();
        Ok(())
    }
}
