//! Writes the blocks of a pcapng file (draft-ietf-opsawg-pcapng): what the tap mirrors and what records are exported to.
//!
//! Little-endian, one section, nanosecond times. Each block is written by calls of its own, whole blocks in one go each; the order of
//! blocks is the caller's. Text longer than an option holds is cut.

use std::io::{self, Write};

use super::{LinkType, Nanos, Way};

/// Options by number.
mod option {
    pub const COMMENT: u16 = 1;
    pub const HARDWARE: u16 = 2;
    pub const OS: u16 = 3;
    pub const USERAPPL: u16 = 4;
    pub const IF_NAME: u16 = 2;
    pub const IF_DESCRIPTION: u16 = 3;
    pub const IF_TSRESOL: u16 = 9;
    pub const EPB_FLAGS: u16 = 2;
    pub const ISB_ENDTIME: u16 = 3;
}

/// Bytes that an option holds at most.
const OPTION_BYTES: usize = 0xfff0;

/// What the section header says of where a file comes from; empty texts are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// Of the whole file.
    pub comment: &'a str,
    /// The machine that wrote it.
    pub hardware: &'a str,
    /// Its operating system.
    pub os: &'a str,
}

/// One packet, in parts that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct PacketBlock<'a> {
    /// Number of its interface, in the order in which they were written.
    pub interface: u32,
    /// When.
    pub ts: Nanos,
    /// Which way it went.
    pub way: Way,
    /// Bytes on the wire.
    pub wire_len: u32,
    /// The bytes kept.
    pub parts: [&'a [u8]; 3],
}

/// Blocks on their way to a file.
pub struct PcapngWriter<W: Write> {
    to: W,
    block: Vec<u8>,
}

impl<W: Write> PcapngWriter<W> {
    /// Nothing is written yet: [`PcapngWriter::section`] comes first.
    pub fn new(to: W) -> PcapngWriter<W> {
        PcapngWriter { to, block: Vec::with_capacity(2048) }
    }

    /// What it writes to.
    pub fn get_ref(&self) -> &W {
        &self.to
    }

    /// The same, to change it: between blocks only.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.to
    }

    /// The section header, with this program as the one that wrote it.
    pub fn section(&mut self, origin: &Origin<'_>) -> io::Result<()> {
        self.block.extend(0x1a2b_3c4d_u32.to_le_bytes());
        self.block.extend([1, 0, 0, 0]); // version 1.0
        self.block.extend(u64::MAX.to_le_bytes()); // section length: unknown
        self.text(option::COMMENT, origin.comment);
        self.text(option::HARDWARE, origin.hardware);
        self.text(option::OS, origin.os);
        self.text(option::USERAPPL, concat!("syntap ", env!("CARGO_PKG_VERSION")));
        self.end(0x0a0d_0d0a)
    }

    /// An interface with its name and role. Its number is how many came before. Only Ethernet and raw IP are written.
    pub fn interface(&mut self, link: LinkType, name: &str, role: Option<&str>) -> io::Result<()> {
        let number: u16 = match link {
            LinkType::Ethernet => 1,
            LinkType::RawIp => 101,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "a link type that is not written")),
        };
        self.block.extend(number.to_le_bytes());
        self.block.extend([0; 2]); // reserved
        self.block.extend(0u32.to_le_bytes()); // no snap length of its own
        self.text(option::IF_NAME, name);
        if let Some(role) = role {
            self.text(option::IF_DESCRIPTION, &format!("role {role}"));
        }
        self.option(option::IF_TSRESOL, &[9]);
        self.end(1)
    }

    /// A packet, each comment as an option of its own.
    pub fn packet<'a>(
        &mut self,
        p: &PacketBlock<'_>,
        comments: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<()> {
        let captured: usize = p.parts.iter().map(|part| part.len()).sum();
        self.block.extend(p.interface.to_le_bytes());
        self.time(p.ts);
        self.block.extend((captured as u32).to_le_bytes());
        self.block.extend(p.wire_len.to_le_bytes());
        for part in p.parts {
            self.block.extend_from_slice(part);
        }
        self.pad(captured);
        comments.into_iter().for_each(|c| self.text(option::COMMENT, c));
        let direction: u32 = match p.way {
            Way::Ingress => 1,
            Way::Egress => 2,
            Way::Unknown => 0,
        };
        self.option(option::EPB_FLAGS, &direction.to_le_bytes());
        self.end(6)
    }

    /// When the capture at an interface ended.
    pub fn ended(&mut self, interface: u32, at: Nanos) -> io::Result<()> {
        self.block.extend(interface.to_le_bytes());
        self.time(at);
        let (high, low) = ((at.0 >> 32) as u32, at.0 as u32);
        self.option(option::ISB_ENDTIME, &[high.to_le_bytes(), low.to_le_bytes()].concat());
        self.end(5)
    }

    fn time(&mut self, at: Nanos) {
        self.block.extend(((at.0 >> 32) as u32).to_le_bytes());
        self.block.extend((at.0 as u32).to_le_bytes());
    }

    fn pad(&mut self, len: usize) {
        self.block.extend(std::iter::repeat_n(0, len.next_multiple_of(4) - len));
    }

    fn text(&mut self, code: u16, text: &str) {
        let cut = (0..=text.len().min(OPTION_BYTES)).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
        if cut > 0 {
            self.option(code, &text.as_bytes()[..cut]);
        }
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
