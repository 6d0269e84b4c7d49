//! Capture files: pcap (micro- and nanoseconds, either byte order, and the variants that are met in practice) and pcapng,
//! memory-mapped and read in place.

#![allow(unsafe_code)]
// U1: the map is private to this process and read-only. A file that another process cuts short while it is read would
//     raise SIGBUS; captures that are still written to grow, and growth is not seen by the map.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::wire::{LinkType, Nanos, Way};

/// One packet of a capture.
#[derive(Clone, Debug)]
pub struct RawPacket {
    /// When.
    pub ts: Nanos,
    /// Link type of its interface.
    pub link: LinkType,
    /// Length on the wire.
    pub wire_len: u32,
    /// Which way, if the capture says.
    pub way: Way,
    /// Interface number within the file.
    pub interface: u32,
    /// Where its bytes stand: [`CaptureFile::bytes`].
    pub range: Range<usize>,
}

/// Why a capture cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// It cannot be opened or mapped.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// It is not a capture, or one that this version does not read.
    #[error("cannot read {path}: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The way out, if there is one.
        hint: Option<&'static str>,
    },
}

impl CaptureError {
    /// The way out, if one is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            CaptureError::Open { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => {
                    Some("look at the path; a capture is given as FILE or NAME=FILE")
                }
                std::io::ErrorKind::PermissionDenied => Some("read it as its owner, or copy it"),
                _ => None,
            },
            CaptureError::Format { hint, .. } => *hint,
        }
    }
}

#[derive(Clone, Copy)]
struct Order {
    big: bool,
}

impl Order {
    fn u16(self, b: &[u8], at: usize) -> Option<u16> {
        let b: [u8; 2] = b.get(at..at + 2)?.try_into().ok()?;
        Some(if self.big { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) })
    }

    fn words(self, b: &[u8; 16]) -> [u32; 4] {
        let (words, _) = b.as_chunks::<4>();
        let word = |n: usize| match self.big {
            true => u32::from_be_bytes(words[n]),
            false => u32::from_le_bytes(words[n]),
        };
        [word(0), word(1), word(2), word(3)]
    }

    fn u32(self, b: &[u8], at: usize) -> Option<u32> {
        let b: [u8; 4] = b.get(at..at + 4)?.try_into().ok()?;
        Some(if self.big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) })
    }
}

#[derive(Clone, Debug)]
struct Iface {
    link: Option<LinkType>,
    linktype: u16,
    name: Option<String>,
    role: Option<String>,
    /// Ticks of its clock in a second, and seconds added to them.
    ticks: u64,
    offset: i64,
    snaplen: u32,
    skipped: u64,
}

#[derive(Clone, Copy)]
enum Format {
    Pcap { order: Order, nano: bool, record_header: usize, swapped: bool },
    Pcapng { order: Order, first_of_section: usize },
}

/// An open capture. See the module.
pub struct CaptureFile {
    map: Option<Mmap>,
    reader: Reader,
}

/// How far a capture was read and what was met in it; its bytes are handed in, so that packets can lie in them meanwhile.
pub(super) struct Reader {
    path: PathBuf,
    at: usize,
    format: Format,
    ifaces: Vec<Iface>,
    ours: bool,
    packets: u64,
    end: Option<Nanos>,
    bad_times: u64,
    notes: Vec<String>,
}

const CUT: &str = "the disk may have been full, or the capture never begun; record it again";
const DAMAGED: &str = "the file is damaged or of a newer format; `file FILE` and `capinfos FILE` tell more";

/// Longest packet believed: what Wireshark accepts (`WTAP_MAX_PACKET_SIZE_STANDARD` 262,144), doubled for BIG TCP.
const MAX_PACKET: u32 = 524_288;

fn link_of(number: u16) -> Option<LinkType> {
    Some(match number {
        1 => LinkType::Ethernet,
        113 => LinkType::LinuxSll,
        239 => LinkType::Nflog,
        276 => LinkType::LinuxSll2,
        12 | 14 | 101 | 228 | 229 => LinkType::RawIp,
        0 | 108 => LinkType::BsdLoopback,
        _ => return None,
    })
}

impl CaptureFile {
    /// Opens a capture and reads its header.
    pub fn open(path: &Path) -> Result<CaptureFile, CaptureError> {
        let opened = |source| CaptureError::Open { path: path.into(), source };
        CaptureFile::of(&File::open(path).map_err(opened)?, path)
    }

    /// The same of an open file; `path` is what messages call it.
    pub fn of(file: &File, path: &Path) -> Result<CaptureFile, CaptureError> {
        let opened = |source| CaptureError::Open { path: path.into(), source };
        let meta = file.metadata().map_err(opened)?;
        if !meta.is_file() {
            return Err(bad(
                path,
                "it is not a regular file",
                Some("`syntap replay -` reads a stream from standard input"),
            ));
        }
        let map = match meta.len() {
            0 => None,
            // SAFETY: U1.
            _ => Some(unsafe { Mmap::map(file) }.map_err(opened)?),
        };
        let b: &[u8] = map.as_deref().unwrap_or_default();
        let Some(magic) = b.first_chunk::<4>() else {
            return Err(bad(path, "it is too short to be a capture", Some(CUT)));
        };
        let order = Order { big: matches!(magic, [0xa1, ..] | [0x1a, 0x2b, ..]) };
        let mut reader =
            Reader::new(path, 0, Format::Pcapng { order: Order { big: false }, first_of_section: 0 });
        match u32::from_be_bytes(*magic) {
            0xa1b2_c3d4 | 0xd4c3_b2a1 => reader.pcap_header(b, order, false, 16)?,
            0xa1b2_3c4d | 0x4d3c_b2a1 => reader.pcap_header(b, order, true, 16)?,
            // Alexey Kuznetsov's variant: each record header has 8 bytes more.
            0xa1b2_cd34 | 0x34cd_b2a1 => reader.pcap_header(b, order, false, 24)?,
            0x0a0d_0d0a => {
                reader.section(b, 0).map_err(|why| bad(path, &why, Some(DAMAGED)))?;
            }
            0x1f8b_0800..=0x1f8b_08ff => {
                return Err(bad(
                    path,
                    "it is compressed with gzip",
                    Some("unpack it first: zcat FILE > FILE.pcap"),
                ));
            }
            0x28b5_2ffd => {
                return Err(bad(path, "it is compressed with zstd", Some("unpack it first: zstd -d FILE")));
            }
            _ => {
                return Err(bad(
                    path,
                    "it is neither pcap nor pcapng",
                    Some("`file FILE` tells what it is; `editcap` converts other capture formats"),
                ));
            }
        }
        Ok(CaptureFile { map, reader })
    }

    /// The interfaces that are tap points of their own, by name and role: those of a pcapng that stand before its first
    /// packet. None for a capture that knows nothing of interfaces.
    pub fn interfaces(&self) -> Vec<(Option<String>, Option<String>)> {
        let Format::Pcapng { .. } = self.reader.format else { return Vec::new() };
        // They stand right behind the section header; read ahead to the first packet.
        let mut ahead = Reader::new(&self.reader.path, self.reader.at, self.reader.format);
        let _ = ahead.next(self.map.as_deref().unwrap_or_default());
        ahead.ifaces.into_iter().map(|i| (i.name.filter(|n| !n.is_empty()), i.role)).collect()
    }

    /// Whether syntap wrote it.
    pub fn is_own(&self) -> bool {
        self.reader.ours
    }

    /// The bytes of a packet of this file.
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.map.as_deref().and_then(|map| map.get(range.clone())).unwrap_or_default()
    }

    /// The next packet, or `None` at the end or where the file is cut.
    pub fn next_packet(&mut self) -> Option<RawPacket> {
        let (bytes, reader) = self.parts();
        reader.next(bytes)
    }

    /// All its bytes, and what reads them.
    pub(super) fn parts(&mut self) -> (&[u8], &mut Reader) {
        (self.map.as_deref().unwrap_or_default(), &mut self.reader)
    }

    /// When the capture says that it ended, if it does. Complete once all packets were read.
    pub fn end_time(&self) -> Option<Nanos> {
        self.reader.end
    }

    /// What a person should know about the file. Complete once all packets were read.
    pub fn notes(&self) -> Vec<String> {
        self.reader.notes()
    }
}

impl Reader {
    fn new(path: &Path, at: usize, format: Format) -> Reader {
        Reader {
            path: path.into(),
            at,
            format,
            ifaces: Vec::new(),
            ours: false,
            packets: 0,
            end: None,
            bad_times: 0,
            notes: Vec::new(),
        }
    }

    fn pcap_header(
        &mut self,
        b: &[u8],
        order: Order,
        nano: bool,
        record_header: usize,
    ) -> Result<(), CaptureError> {
        let path = self.path.clone();
        let (Some(major), Some(minor), Some(snaplen), Some(network)) =
            (order.u16(b, 4), order.u16(b, 6), order.u32(b, 16), order.u32(b, 20))
        else {
            return Err(bad(&path, "its file header is cut", Some(CUT)));
        };
        if major != 2 {
            return Err(bad(&path, &format!("pcap version {major}.{minor} is unknown"), Some(DAMAGED)));
        }
        // Bits 16 to 27 are reserved, 28 to 31 tell about frame check sequences.
        if network & 0x0fff_0000 != 0 {
            let why = format!("reserved bits of its link type are set ({network:#010x})");
            return Err(bad(&path, &why, Some(DAMAGED)));
        }
        let linktype = network as u16;
        let Some(link) = link_of(linktype) else {
            let why = format!("link type {linktype} is not supported");
            return Err(bad(&path, &why, Some("Ethernet, Linux cooked, raw IP and BSD loopback are")));
        };
        self.ifaces.push(Iface {
            link: Some(link),
            linktype,
            name: None,
            role: None,
            ticks: if nano { 1_000_000_000 } else { 1_000_000 },
            offset: 0,
            snaplen,
            skipped: 0,
        });
        // Version 2.2 and older had the two lengths of a record the other way round.
        self.format = Format::Pcap { order, nano, record_header, swapped: minor < 3 };
        self.at = 24;
        Ok(())
    }

    /// Reads a section header block; returns the place after it.
    fn section(&mut self, b: &[u8], at: usize) -> Result<(), String> {
        let order = match b.get(at + 8..at + 12) {
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => Order { big: true },
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => Order { big: false },
            Some(_) => return Err("its byte-order magic is wrong".into()),
            None => return Err("its section header is cut".into()),
        };
        let len = order.u32(b, at + 4).unwrap_or(0) as usize;
        let (Some(major), Some(minor)) = (order.u16(b, at + 12), order.u16(b, at + 14)) else {
            return Err("its section header is cut".into());
        };
        if major != 1 || !matches!(minor, 0 | 2) {
            return Err(format!("pcapng version {major}.{minor} is unknown"));
        }
        if len < 28 || !len.is_multiple_of(4) || at + len > b.len() {
            return Err(format!("its section header claims {len} bytes"));
        }
        let mut ours = false;
        options(order, &b[at + 24..at + len - 4], |code, value| {
            ours |= code == 4 && value.starts_with(b"syntap ");
        })?;
        self.ours |= ours;
        self.format = Format::Pcapng { order, first_of_section: self.ifaces.len() };
        self.at = at + len;
        Ok(())
    }

    /// The next packet among `b`, the file's bytes; `None` at the end or where the file is cut.
    #[inline]
    pub(super) fn next(&mut self, b: &[u8]) -> Option<RawPacket> {
        let found = match self.format {
            Format::Pcap { order, nano, record_header, swapped } => {
                self.next_pcap(b, order, nano, record_header, swapped)
            }
            Format::Pcapng { .. } => self.next_pcapng(b),
        };
        self.packets += u64::from(found.is_some());
        found
    }

    fn next_pcap(
        &mut self,
        b: &[u8],
        order: Order,
        nano: bool,
        record_header: usize,
        swapped: bool,
    ) -> Option<RawPacket> {
        let at = self.at;
        let rest = b.get(at..).filter(|rest| !rest.is_empty())?;
        let Some(header) = rest.first_chunk::<16>().filter(|_| rest.len() >= record_header) else {
            return self.cut(rest.len(), "in a record header");
        };
        let [sec, sub, mut caplen, mut len] = order.words(header);
        if swapped && caplen > len {
            std::mem::swap(&mut caplen, &mut len);
        }
        if caplen > MAX_PACKET {
            self.notes.push(format!(
                "{}: stopped after {} packets: the next one claims {caplen} captured bytes",
                self.path.display(),
                self.packets
            ));
            self.at = b.len();
            return None;
        }
        let start = at + record_header;
        let end = start + caplen as usize;
        if end > b.len() {
            return self.cut(rest.len(), "in a packet");
        }
        self.at = end;
        let unit: u64 = if nano { 1 } else { 1_000 };
        if u64::from(sub) * unit >= Nanos::SEC {
            self.bad_times += 1;
        }
        let ts = Nanos(u64::from(sec) * Nanos::SEC + u64::from(sub) * unit);
        let link = self.ifaces[0].link.unwrap_or_default();
        Some(RawPacket {
            ts,
            link,
            wire_len: len.max(caplen),
            way: Way::Unknown,
            interface: 0,
            range: start..end,
        })
    }

    fn next_pcapng(&mut self, b: &[u8]) -> Option<RawPacket> {
        loop {
            let at = self.at;
            if at >= b.len() {
                return None;
            }
            let Format::Pcapng { order, first_of_section } = self.format else { return None };
            let (Some(kind), Some(len)) = (order.u32(b, at), order.u32(b, at + 4)) else {
                return self.cut(b.len() - at, "in a block header");
            };
            if kind == 0x0a0d_0d0a {
                if let Err(why) = self.section(b, at) {
                    self.notes.push(format!("{}: stopped at a section: {why}", self.path.display()));
                    self.at = b.len();
                    return None;
                }
                continue;
            }
            let len = len as usize;
            if len < 12 || !len.is_multiple_of(4) {
                self.notes.push(format!(
                    "{}: stopped after {} packets: a block claims {len} bytes",
                    self.path.display(),
                    self.packets
                ));
                self.at = b.len();
                return None;
            }
            if at + len > b.len() {
                return self.cut(b.len() - at, "in a block");
            }
            self.at = at + len;
            let body = &b[at + 8..at + len - 4];
            let found = match kind {
                1 => {
                    self.interface(order, body);
                    None
                }
                // Enhanced and obsolete packet blocks.
                2 | 6 => self.packet(order, body, first_of_section),
                3 => self.simple_packet(order, body, first_of_section),
                5 => {
                    self.statistics(order, body, first_of_section);
                    None
                }
                _ => None,
            };
            if let Some(mut packet) = found {
                packet.range = at + 8 + packet.range.start..at + 8 + packet.range.end;
                return Some(packet);
            }
        }
    }

    fn interface(&mut self, order: Order, body: &[u8]) {
        let linktype = order.u16(body, 0).unwrap_or(u16::MAX);
        let mut iface = Iface {
            link: link_of(linktype),
            linktype,
            name: None,
            role: None,
            ticks: 1_000_000,
            offset: 0,
            snaplen: order.u32(body, 4).unwrap_or(0),
            skipped: 0,
        };
        let read = options(order, body.get(8..).unwrap_or_default(), |code, value| match (code, value) {
            (2, name) => iface.name = Some(String::from_utf8_lossy(name).into_owned()),
            (3, text) => {
                let text = String::from_utf8_lossy(text);
                iface.role = text.strip_prefix("role ").map(str::to_owned);
            }
            (9, [r, ..]) => {
                let exponent = u32::from(r & 0x7f);
                let base: u64 = if r & 0x80 != 0 { 2 } else { 10 };
                iface.ticks = base.checked_pow(exponent).unwrap_or(1_000_000).max(1);
            }
            (14, value) => {
                if let (Some(a), Some(b)) = (order.u32(value, 0), order.u32(value, 4)) {
                    let (low, high) = if order.big { (b, a) } else { (a, b) };
                    iface.offset = (u64::from(high) << 32 | u64::from(low)) as i64;
                }
            }
            _ => {}
        });
        if let Err(why) = read {
            self.notes.push(format!("{}: interface {}: {why}", self.path.display(), self.ifaces.len()));
        }
        self.ifaces.push(iface);
    }

    fn time(&self, iface: &Iface, high: u32, low: u32) -> Nanos {
        let ticks = u128::from(u64::from(high) << 32 | u64::from(low));
        let ns = ticks * 1_000_000_000 / u128::from(iface.ticks);
        let ns = i128::try_from(ns).unwrap_or(0) + i128::from(iface.offset) * 1_000_000_000;
        Nanos(u64::try_from(ns).unwrap_or(0))
    }

    /// Enhanced and obsolete packet blocks: both have 20 bytes of fields before the packet.
    fn packet(&mut self, order: Order, body: &[u8], first: usize) -> Option<RawPacket> {
        let fields = 20;
        let word = |n| order.u32(body, n);
        let index = first + word(0)? as usize;
        let (high, low, caplen, len) = (word(4)?, word(8)?, word(12)? as usize, word(16)?);
        let end = fields + caplen;
        if end > body.len() {
            return None;
        }
        let iface = self.ifaces.get_mut(index)?;
        let Some(link) = iface.link else {
            iface.skipped += 1;
            return None;
        };
        let mut way = Way::Unknown;
        let padded = fields + caplen.next_multiple_of(4);
        let _ = options(order, body.get(padded..).unwrap_or_default(), |code, value| {
            if code == 2 {
                way = match order.u32(value, 0).unwrap_or(0) & 3 {
                    1 => Way::Ingress,
                    2 => Way::Egress,
                    _ => Way::Unknown,
                };
            }
        });
        let ts = self.time(&self.ifaces[index], high, low);
        Some(RawPacket { ts, link, wire_len: len, way, interface: index as u32, range: fields..end })
    }

    fn simple_packet(&mut self, order: Order, body: &[u8], first: usize) -> Option<RawPacket> {
        let len = order.u32(body, 0)?;
        let iface = self.ifaces.get_mut(first)?;
        let Some(link) = iface.link else {
            iface.skipped += 1;
            return None;
        };
        let snap = if iface.snaplen == 0 { len } else { iface.snaplen.min(len) };
        let end = 4 + (snap as usize).min(body.len() - 4);
        // A simple packet block has no time: it is as late as the packets before it.
        let ts = self.end.unwrap_or_default();
        Some(RawPacket { ts, link, wire_len: len, way: Way::Unknown, interface: first as u32, range: 4..end })
    }

    /// Interface statistics: syntap's own captures say there when they ended.
    fn statistics(&mut self, order: Order, body: &[u8], first: usize) {
        let Some(index) = order.u32(body, 0).map(|i| first + i as usize) else { return };
        let Some(iface) = self.ifaces.get(index) else { return };
        let mut end = None;
        let _ = options(order, body.get(12..).unwrap_or_default(), |code, value| {
            if code == 3 {
                end = order.u32(value, 0).zip(order.u32(value, 4));
            }
        });
        if let Some((high, low)) = end {
            let at = self.time(iface, high, low);
            self.end = self.end.max(Some(at));
        }
    }

    fn cut(&mut self, left: usize, place: &str) -> Option<RawPacket> {
        self.notes.push(format!(
            "{}: the file is cut {place}: {} packets were read, the last {left} bytes were not",
            self.path.display(),
            self.packets
        ));
        self.at = self.at.saturating_add(left);
        None
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        for (n, i) in self.ifaces.iter().enumerate().filter(|(_, i)| i.skipped > 0) {
            notes.push(format!(
                "{}: {} packets of interface {n} were passed over: link type {} is not supported",
                self.path.display(),
                i.skipped,
                i.linktype
            ));
        }
        if self.bad_times > 0 {
            notes.push(format!(
                "{}: {} packets have a time with more than a second below the second",
                self.path.display(),
                self.bad_times
            ));
        }
        notes
    }
}

/// Calls `each` for each option of a pcapng block.
fn options(order: Order, mut b: &[u8], mut each: impl FnMut(u16, &[u8])) -> Result<(), String> {
    while b.len() >= 4 {
        let (Some(code), Some(len)) = (order.u16(b, 0), order.u16(b, 2)) else { break };
        if code == 0 {
            break;
        }
        let len = usize::from(len);
        let Some(value) = b.get(4..4 + len) else {
            return Err(format!("an option claims {len} bytes, {} are left", b.len() - 4));
        };
        each(code, value);
        b = b.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

fn bad(path: &Path, why: &str, hint: Option<&'static str>) -> CaptureError {
    CaptureError::Format { path: path.into(), why: why.into(), hint }
}
