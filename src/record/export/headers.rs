//! The headers of an evidence packet, rebuilt from what its record keeps: Ethernet, VLAN, IPv4 or IPv6, TCP.
//!
//! What a record does not keep is not made up: the payload is missing (the length on the wire says how much it was), and so are a
//! tunnel's outer headers, IP options and extension headers, the type of service, the fragment bits, the urgent pointer and the TCP
//! options other than MSS, window scale and timestamps. The TCP checksum stands only where there is no payload that it would cover.

use std::net::IpAddr;

use crate::record::{Nat, PacketRecord, Record};
use crate::wire::{LinkType, TcpFlags};

/// Bytes of headers at most: Ethernet with a tag 18, IPv6 40, TCP with its options 40.
const MOST: usize = 18 + 40 + 60;

/// A packet as it was captured, headers only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Ethernet, or raw IP where the packet had no link addresses and no tag.
    pub link: LinkType,
    /// Its headers.
    pub bytes: Vec<u8>,
    /// Bytes on the wire, with the payload.
    pub wire_len: u32,
}

/// Rebuilds a packet of a record; `None` without a tuple, or with one of two address families.
pub fn rebuild(r: &Record, p: &PacketRecord) -> Option<Rebuilt> {
    let own =
        || Some(Nat { src_ip: r.src_ip?, src_port: r.src_port?, dst_ip: r.dst_ip?, dst_port: r.dst_port? });
    let t = p.tuple.clone().or_else(own)?;
    let (orig, resp) = ((t.src_ip, t.src_port), (t.dst_ip, t.dst_port));
    let (src, dst) = if p.from == "orig" { (orig, resp) } else { (resp, orig) };
    let macs = p.src_mac.as_deref().and_then(mac).zip(p.dst_mac.as_deref().and_then(mac));
    let mut bytes = Vec::with_capacity(MOST);
    let ether: u16 = if src.0.is_ipv4() { 0x0800 } else { 0x86dd };
    let link = if macs.is_some() || r.vlan.is_some() { LinkType::Ethernet } else { LinkType::RawIp };
    if link == LinkType::Ethernet {
        let (src, dst) = macs.unwrap_or_default();
        bytes.extend(dst);
        bytes.extend(src);
        if let Some(vlan) = r.vlan {
            bytes.extend(0x8100u16.to_be_bytes());
            bytes.extend(vlan.to_be_bytes());
        }
        bytes.extend(ether.to_be_bytes());
    }
    let tcp = tcp(p, src.1, dst.1);
    let segment = tcp.len() as u32 + p.len;
    // A packet larger than its field can say has a 0 there, as the kernel writes it.
    let fits = |n: u32| u16::try_from(n).unwrap_or(0).to_be_bytes();
    let at = bytes.len();
    match (src.0, dst.0) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            bytes.extend([0x45, 0]);
            bytes.extend(fits(20 + segment));
            bytes.extend(p.ip_id.to_be_bytes());
            bytes.extend([0, 0, p.ttl, 6, 0, 0]);
            bytes.extend(s.octets());
            bytes.extend(d.octets());
            let sum = checksum(&bytes[at..], 0);
            bytes[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(fits(segment));
            bytes.extend([6, p.ttl]);
            bytes.extend(s.octets());
            bytes.extend(d.octets());
        }
        _ => return None,
    }
    let addresses = if src.0.is_ipv4() { at + 12 } else { at + 8 };
    let tcp_at = bytes.len();
    bytes.extend(tcp);
    if p.len == 0 {
        // The pseudo header: both addresses, the protocol and the length.
        let sum = checksum(&bytes[addresses..], 6 + segment);
        bytes[tcp_at + 16..tcp_at + 18].copy_from_slice(&sum.to_be_bytes());
    }
    let wire_len = bytes.len() as u32 + p.len;
    Some(Rebuilt { link, bytes, wire_len })
}

/// The TCP header with its options, the checksum left open.
fn tcp(p: &PacketRecord, src: u16, dst: u16) -> Vec<u8> {
    const NOP: u8 = 1;
    let mut h = Vec::with_capacity(40);
    h.extend(src.to_be_bytes());
    h.extend(dst.to_be_bytes());
    h.extend(p.seq.to_be_bytes());
    h.extend(p.ack.to_be_bytes());
    h.extend([0, 0]);
    h.extend(p.win.to_be_bytes());
    h.extend([0; 4]);
    if let Some(mss) = p.mss {
        h.extend([2, 4]);
        h.extend(mss.to_be_bytes());
    }
    if let Some((value, echo)) = p.tsval.zip(p.tsecr) {
        h.extend([NOP, NOP, 8, 10]);
        h.extend(value.to_be_bytes());
        h.extend(echo.to_be_bytes());
    }
    if let Some(scale) = p.wscale {
        h.extend([NOP, 3, 3, scale]);
    }
    let flags = TcpFlags::from_letters(&p.flags).0;
    let words = (h.len() / 4) as u16;
    h[12..14].copy_from_slice(&(words << 12 | flags).to_be_bytes());
    h
}

/// RFC 1071, over an even number of bytes, `more` added.
fn checksum(bytes: &[u8], more: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum = more + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}
