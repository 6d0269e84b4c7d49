//! Evidence as a capture: the packets of records, in order of time, with what the records say of them as comments.
//!
//! A packet that several records hold is written once, with the comments of all of them: a record's comment stands at its first
//! packet. Interfaces are those of one host each. Records without packets (those about ARP, and those the tool makes of itself) have
//! no place in a capture: they are counted.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use super::headers::rebuild;
use super::spool::{Scratch, Spool};
use crate::record::{PacketRecord, Record};
use crate::wire::{LinkType, Nanos, Origin, PacketBlock, PcapngWriter, Way};

/// Comments on one packet. A tuple in a storm can be in thousands of records; nobody reads more.
const COMMENTS: usize = 32;

/// Interfaces told apart: more than any fleet's evidence in one file.
const INTERFACES: usize = 65_536;

/// What was put into a capture and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Packets written.
    pub packets: u64,
    /// Times a packet was in another record already.
    pub again: u64,
    /// Records without packets, by kind.
    pub without: BTreeMap<String, u64>,
    /// Packets whose addresses no record says (written by versions that did not keep them).
    pub addressless: u64,
    /// Comments beyond those that a packet has room for.
    pub comments_cut: u64,
}

impl Captured {
    /// Adds what another capture took.
    pub fn add(&mut self, other: &Captured) {
        self.packets += other.packets;
        self.again += other.again;
        self.addressless += other.addressless;
        self.comments_cut += other.comments_cut;
        for (kind, n) in &other.without {
            *self.without.entry(kind.clone()).or_default() += n;
        }
    }
}

/// See the module.
pub struct CaptureExport {
    spool: Spool,
    /// Number of each interface, by host, name and link.
    numbers: HashMap<(String, String, LinkType), u16>,
    /// By number.
    interfaces: Vec<(String, String, LinkType)>,
    roles: HashMap<(String, String), String>,
    entry: Vec<u8>,
    records: u64,
    done: Captured,
}

impl CaptureExport {
    /// One that begins; `scratch` makes the file for what memory has no room for.
    pub fn new(scratch: Scratch) -> CaptureExport {
        CaptureExport {
            spool: Spool::new(scratch),
            numbers: HashMap::new(),
            interfaces: Vec::new(),
            roles: HashMap::new(),
            entry: Vec::new(),
            records: 0,
            done: Captured::default(),
        }
    }

    /// Takes the packets of a record.
    pub fn push(&mut self, r: &Record) -> io::Result<()> {
        self.records += 1;
        if let (Some(name), Some(role)) = (&r.interface, &r.role) {
            let place = (r.host.clone(), name.clone());
            if !self.roles.contains_key(&place) && self.roles.len() < INTERFACES {
                self.roles.insert(place, role.clone());
            }
        }
        if r.packets.is_empty() {
            *self.done.without.entry(r.kind.to_string()).or_default() += 1;
            return Ok(());
        }
        let mut comment = Some(comment(r));
        for p in &r.packets {
            let Some(built) = rebuild(r, p) else {
                self.done.addressless += 1;
                continue;
            };
            let interface = self.number(r, p, built.link)?;
            let text = comment.take().unwrap_or_default();
            self.entry.clear();
            self.entry.extend(interface.to_le_bytes());
            self.entry.push(way(p) as u8);
            self.entry.extend(built.wire_len.to_le_bytes());
            self.entry.push(built.bytes.len() as u8);
            self.entry.extend(built.bytes);
            self.entry.extend(text.as_bytes());
            self.spool.push(p.ts_ns, &self.entry)?;
        }
        Ok(())
    }

    fn number(&mut self, r: &Record, p: &PacketRecord, link: LinkType) -> io::Result<u16> {
        let place = (r.host.clone(), p.interface.clone(), link);
        if let Some(n) = self.numbers.get(&place) {
            return Ok(*n);
        }
        if self.interfaces.len() == INTERFACES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more than 65536 interfaces in one capture",
            ));
        }
        let n = self.interfaces.len() as u16;
        self.interfaces.push(place.clone());
        self.numbers.insert(place, n);
        Ok(n)
    }

    /// Writes the capture.
    pub fn finish(self, to: &mut dyn Write, machine: &Origin<'_>) -> io::Result<Captured> {
        let CaptureExport { spool, interfaces, roles, records, mut done, .. } = self;
        let mut hosts: Vec<&str> = interfaces.iter().map(|i| i.0.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let of = match hosts.len() {
            0 => String::new(),
            1..=8 => format!(" of {}", hosts.join(", ")),
            n => format!(" of {n} hosts"),
        };
        let s = if records == 1 { "" } else { "s" };
        let about = format!(
            "Evidence packets of {records} record{s}{of}: headers rebuilt from the records, payload was not kept"
        );
        let mut w = PcapngWriter::new(to);
        w.section(&Origin { comment: &about, ..*machine })?;
        for (host, name, link) in &interfaces {
            let role = roles.get(&(host.clone(), name.clone()));
            let name = if hosts.len() > 1 { format!("{host}:{name}") } else { name.clone() };
            w.interface(*link, &name, role.map(String::as_str))?;
        }
        // All packets of one nanosecond, each once.
        let mut moment: Vec<Packet> = Vec::new();
        let mut at = 0;
        spool.drain(&mut |ts, entry| {
            if ts != at {
                moment.drain(..).try_for_each(|p| p.write(at, &mut w, &mut done))?;
                at = ts;
            }
            let bytes = 8 + usize::from(entry[7]);
            let (packet, comment) = entry.split_at(bytes);
            let known = moment.iter().position(|p| p.entry == packet);
            done.again += u64::from(known.is_some());
            let n = known.unwrap_or_else(|| {
                moment.push(Packet { entry: packet.to_vec(), comments: Vec::new() });
                moment.len() - 1
            });
            let comments = &mut moment[n].comments;
            if !comment.is_empty() && !comments.iter().any(|c| c.as_bytes() == comment) {
                if comments.len() < COMMENTS {
                    comments.push(String::from_utf8_lossy(comment).into_owned());
                } else {
                    done.comments_cut += 1;
                }
            }
            Ok(())
        })?;
        moment.drain(..).try_for_each(|p| p.write(at, &mut w, &mut done))?;
        w.get_mut().flush()?;
        Ok(done)
    }
}

struct Packet {
    /// Interface, direction, length on the wire, length kept, bytes.
    entry: Vec<u8>,
    comments: Vec<String>,
}

impl Packet {
    fn write(self, ts: u64, to: &mut PcapngWriter<&mut dyn Write>, done: &mut Captured) -> io::Result<()> {
        let e = &self.entry;
        let block = PacketBlock {
            interface: u16::from_le_bytes([e[0], e[1]]).into(),
            ts: Nanos(ts),
            way: [Way::Unknown, Way::Ingress, Way::Egress][usize::from(e[2] % 3)],
            wire_len: u32::from_le_bytes([e[3], e[4], e[5], e[6]]),
            parts: [&e[8..], &[], &[]],
        };
        done.packets += 1;
        to.packet(&block, self.comments.iter().map(String::as_str))
    }
}

/// 0 not known, 1 in, 2 out.
fn way(p: &PacketRecord) -> u16 {
    match p.direction.as_deref() {
        Some("ingress") => 1,
        Some("egress") => 2,
        _ => 0,
    }
}

/// What a record says, in a few lines.
fn comment(r: &Record) -> String {
    let times = if r.count > 1 { format!(", {} times", r.count) } else { String::new() };
    let mut text = format!("{} ({}{times}): {}", r.kind, r.severity, r.summary);
    text.push_str(&format!("\nverdict {}, {}", r.verdict, r.certainty));
    if let Some(id) = &r.community_id {
        text.push_str(&format!("\ncommunity_id {id}"));
    }
    if let Some(n) = &r.nat {
        let end = |ip, port| std::net::SocketAddr::new(ip, port);
        let (src, dst) = (end(n.src_ip, n.src_port), end(n.dst_ip, n.dst_port));
        text.push_str(&format!("\non the other side of the gateway {src} > {dst}"));
    }
    if let Some(t) = &r.tunnel {
        text.push_str(&format!("\nin a tunnel: {} {} {} > {}", t.kind, t.id, t.src_ip, t.dst_ip));
    }
    text.push_str(&format!("\nrecord of {} at {}", r.time, r.host));
    text
}
