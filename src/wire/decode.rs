//! From the first byte of a frame to a [`Decoded`].

use super::{
    Addr, Arp, Body, Decoded, LinkType, Mac, Malformed, OffloadedVlan, Segment, Seq, TcpFlags, TcpOptions,
    Vlans, icmp, tunnel,
};

/// EtherTypes.
pub(super) mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
    pub const VLAN: u16 = 0x8100;
    pub const QINQ: u16 = 0x88a8;
    pub const QINQ_OLD: u16 = 0x9100;
    pub const MPLS: u16 = 0x8847;
    pub const MPLS_MULTICAST: u16 = 0x8848;
    pub const PPPOE_SESSION: u16 = 0x8864;
    /// Transparent Ethernet bridging, inside GRE and Geneve.
    pub const ETHERNET: u16 = 0x6558;
    /// ERSPAN type II, and III.
    pub const ERSPAN: u16 = 0x88be;
    pub const ERSPAN_III: u16 = 0x22eb;
}

/// Tunnels in tunnels that are looked into.
pub(super) const DEPTH: u8 = 4;

/// Big-endian 16 bits at `at`, if they are there.
pub(super) fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*b.get(at)?, *b.get(at + 1)?]))
}

fn mac(b: &[u8], at: usize) -> Mac {
    b.get(at..at + 6).and_then(|m| m.try_into().ok()).map_or_else(Mac::default, Mac)
}

/// Decodes one packet. Never fails: what cannot be read is [`Body::Malformed`].
pub fn decode(link: LinkType, bytes: &[u8], wire_len: u32, offloaded: OffloadedVlan) -> Decoded {
    let mut d = Decoded::NOTHING;
    let cut = (wire_len as usize) > bytes.len();
    if offloaded.tpid != 0 {
        d.vlans = Vlans { tci: [offloaded.tci, 0], count: 1 };
    }
    let short = |m: Malformed| Body::Malformed(if cut { Malformed::SnapLength } else { m });
    let (ether, at) = match link {
        LinkType::Ethernet => {
            d.body = ethernet(&mut d, bytes, wire_len, 0);
            return d;
        }
        LinkType::LinuxSll => {
            let Some(kind) = be16(bytes, 14) else {
                d.body = short(Malformed::LinkTruncated);
                return d;
            };
            if be16(bytes, 4) == Some(6) {
                d.src_mac = mac(bytes, 6);
            }
            (kind, 16)
        }
        LinkType::LinuxSll2 => {
            if bytes.len() < 20 {
                d.body = short(Malformed::LinkTruncated);
                return d;
            }
            if bytes[11] == 6 {
                d.src_mac = mac(bytes, 12);
            }
            (be16(bytes, 0).unwrap_or(0), 20)
        }
        LinkType::Nflog => {
            d.body = nflog(&mut d, bytes, wire_len);
            return d;
        }
        LinkType::RawIp | LinkType::BsdLoopback => {
            let at = if link == LinkType::BsdLoopback { 4 } else { 0 };
            match bytes.get(at).map(|b| b >> 4) {
                Some(4) => (ethertype::IPV4, at),
                Some(6) => (ethertype::IPV6, at),
                Some(_) => {
                    d.body = Body::Malformed(Malformed::IpVersion);
                    return d;
                }
                None => {
                    d.body = short(Malformed::LinkTruncated);
                    return d;
                }
            }
        }
    };
    let rest = &bytes[at.min(bytes.len())..];
    d.body = payload(&mut d, ether, rest, wire_len.saturating_sub(at as u32), 0);
    d
}

/// Type-length-value options in host byte order after four bytes of header; type 9 is the packet. Written on
/// little-endian machines as a rule, and read as such.
fn nflog(d: &mut Decoded, b: &[u8], wire: u32) -> Body {
    let cut = wire as usize > b.len();
    let mut at = 4;
    while let Some(&[l0, l1, t0, t1]) = b.get(at..at + 4) {
        let (len, kind) = (usize::from(u16::from_le_bytes([l0, l1])), u16::from_le_bytes([t0, t1]));
        if len < 4 {
            break;
        }
        if kind == 9 {
            let rest = &b[at + 4..];
            let left = (len - 4) as u32;
            return match rest.first().map(|v| v >> 4) {
                Some(4) => ipv4(d, rest, left, 0),
                Some(6) => ipv6(d, rest, left, 0),
                _ => Body::Malformed(Malformed::IpVersion),
            };
        }
        at += len.next_multiple_of(4);
    }
    Body::Malformed(if cut { Malformed::SnapLength } else { Malformed::LinkTruncated })
}

/// An Ethernet frame, the outermost or one inside a tunnel.
pub(super) fn ethernet(d: &mut Decoded, b: &[u8], wire: u32, depth: u8) -> Body {
    let cut = wire as usize > b.len();
    let Some(kind) = be16(b, 12) else {
        return Body::Malformed(if cut { Malformed::SnapLength } else { Malformed::LinkTruncated });
    };
    d.dst_mac = mac(b, 0);
    d.src_mac = mac(b, 6);
    // A length instead of a type: 802.3 with LLC, and only SNAP with a zero organisation carries an EtherType.
    if kind <= 1500 {
        return match b.get(14..22) {
            Some([0xaa, 0xaa, 3, 0, 0, 0, hi, lo]) => {
                payload(d, u16::from_be_bytes([*hi, *lo]), &b[22..], wire.saturating_sub(22), depth)
            }
            _ => Body::Other,
        };
    }
    payload(d, kind, &b[14..], wire.saturating_sub(14), depth)
}

/// What an EtherType announces. `wire` is the length of `b` before it was cut.
pub(super) fn payload(d: &mut Decoded, ether: u16, b: &[u8], wire: u32, depth: u8) -> Body {
    let cut = wire as usize > b.len();
    let short = |m: Malformed| Body::Malformed(if cut { Malformed::SnapLength } else { m });
    let (mut ether, mut at) = (ether, 0);
    while matches!(ether, ethertype::VLAN | ethertype::QINQ | ethertype::QINQ_OLD) {
        let (Some(tci), Some(inner)) = (be16(b, at), be16(b, at + 2)) else {
            return short(Malformed::VlanTruncated);
        };
        if usize::from(d.vlans.count) < d.vlans.tci.len() {
            d.vlans.tci[usize::from(d.vlans.count)] = tci;
            d.vlans.count += 1;
        }
        (ether, at) = (inner, at + 4);
    }
    let rest = b.get(at..).unwrap_or_default();
    let left = wire.saturating_sub(at as u32);
    match ether {
        ethertype::IPV4 => ipv4(d, rest, left, depth),
        ethertype::IPV6 => ipv6(d, rest, left, depth),
        ethertype::ARP => arp(rest, cut),
        ethertype::MPLS | ethertype::MPLS_MULTICAST => mpls(d, rest, left, depth),
        ethertype::PPPOE_SESSION => match be16(rest, 6) {
            // PPP protocol numbers (RFC 1332, RFC 5072).
            Some(0x0021) => ipv4(d, &rest[8..], left.saturating_sub(8), depth),
            Some(0x0057) => ipv6(d, &rest[8..], left.saturating_sub(8), depth),
            Some(_) => Body::Other,
            None => short(Malformed::Tunnel),
        },
        _ => Body::Other,
    }
}

/// Labels up to the bottom of the stack (RFC 3032); what follows has no type, its first nibble tells.
fn mpls(d: &mut Decoded, b: &[u8], wire: u32, depth: u8) -> Body {
    let cut = wire as usize > b.len();
    let mut at = 0;
    for _ in 0..8 {
        let Some(label) = b.get(at..at + 4) else {
            return Body::Malformed(if cut { Malformed::SnapLength } else { Malformed::Tunnel });
        };
        at += 4;
        if label[2] & 1 != 0 {
            let (rest, left) = (&b[at..], wire.saturating_sub(at as u32));
            return match rest.first().map(|n| n >> 4) {
                Some(4) => ipv4(d, rest, left, depth),
                Some(6) => ipv6(d, rest, left, depth),
                _ => Body::Other,
            };
        }
    }
    Body::Other
}

pub(super) fn ipv4(d: &mut Decoded, b: &[u8], wire: u32, depth: u8) -> Body {
    let cut = wire as usize > b.len();
    if b.len() < 20 {
        return Body::Malformed(if cut { Malformed::SnapLength } else { Malformed::Ipv4Header });
    }
    if b[0] >> 4 != 4 {
        return Body::Malformed(Malformed::IpVersion);
    }
    let header = usize::from(b[0] & 15) * 4;
    if header < 20 {
        return Body::Malformed(Malformed::Ipv4Header);
    }
    // A total length of 0 is left to the NIC by segmentation offload: then the frame tells.
    let total = match u16::from_be_bytes([b[2], b[3]]) {
        0 => wire,
        n => u32::from(n),
    };
    if (total as usize) < header {
        return Body::Malformed(Malformed::IpLength);
    }
    let fragment = u16::from_be_bytes([b[6], b[7]]);
    if fragment & 0x1fff != 0 {
        return Body::LaterFragment;
    }
    d.first_fragment = fragment & 0x2000 != 0;
    let Some(inner) = b.get(header..) else {
        return Body::Malformed(if cut { Malformed::SnapLength } else { Malformed::Ipv4Header });
    };
    let mut seg = Segment {
        src: Addr::v4([b[12], b[13], b[14], b[15]]),
        dst: Addr::v4([b[16], b[17], b[18], b[19]]),
        ttl: b[8],
        ip_id: u16::from_be_bytes([b[4], b[5]]),
        ..Segment::default()
    };
    let left = total - header as u32;
    match b[9] {
        6 => tcp(inner, left, &mut seg),
        1 => icmp::v4(inner, seg.src),
        protocol => tunnel::inside(d, protocol, inner, left, (seg.src, seg.dst), depth),
    }
}

pub(super) fn ipv6(d: &mut Decoded, b: &[u8], wire: u32, depth: u8) -> Body {
    let cut = wire as usize > b.len();
    let short = |m| Body::Malformed(if cut { Malformed::SnapLength } else { m });
    if b.len() < 40 {
        return short(Malformed::Ipv6Header);
    }
    if b[0] >> 4 != 6 {
        return Body::Malformed(Malformed::IpVersion);
    }
    let address = |at: usize| {
        let mut a = [0; 16];
        a.copy_from_slice(&b[at..at + 16]);
        Addr(a)
    };
    // 0 means a jumbogram or segmentation offload.
    let length = match u16::from_be_bytes([b[4], b[5]]) {
        0 => wire.saturating_sub(40),
        n => u32::from(n),
    };
    let mut seg = Segment { src: address(8), dst: address(24), ttl: b[7], ..Segment::default() };
    let (mut next, mut at) = (b[6], 40usize);
    for _ in 0..8 {
        let rest = b.get(at..).unwrap_or_default();
        let left = length.saturating_sub(at as u32 - 40);
        match next {
            6 => return tcp(rest, left, &mut seg),
            58 => {
                return match icmp::v6(rest, seg.src) {
                    Body::Other => neighbour(b, at, seg.src, seg.ttl, cut),
                    found => found,
                };
            }
            0 | 43 | 60 | 51 => {
                let (Some(&n), Some(&len)) = (b.get(at), b.get(at + 1)) else {
                    return short(Malformed::Ipv6Extensions);
                };
                at += if next == 51 { (usize::from(len) + 2) * 4 } else { (usize::from(len) + 1) * 8 };
                next = n;
            }
            44 => {
                let (Some(&n), Some(field)) = (b.get(at), be16(b, at + 2)) else {
                    return short(Malformed::Ipv6Extensions);
                };
                if field & 0xfff8 != 0 {
                    return Body::LaterFragment;
                }
                d.first_fragment = field & 1 != 0;
                seg.ip_id = be16(b, at + 6).unwrap_or(0);
                next = n;
                at += 8;
            }
            59 => return Body::Other,
            protocol => return tunnel::inside(d, protocol, rest, left, (seg.src, seg.dst), depth),
        }
    }
    Body::Malformed(Malformed::Ipv6Extensions)
}

/// `b` begins with the TCP header, `len` is what the IP header leaves for it.
fn tcp(b: &[u8], len: u32, seg: &mut Segment) -> Body {
    if len < 20 {
        return Body::Malformed(Malformed::TcpTruncated);
    }
    let Some(h) = b.first_chunk::<20>() else {
        return Body::Malformed(Malformed::SnapLength);
    };
    let header = u32::from(h[12] >> 4) * 4;
    if header < 20 || header > len {
        return Body::Malformed(Malformed::TcpOffset);
    }
    seg.sport = u16::from_be_bytes([h[0], h[1]]);
    seg.dport = u16::from_be_bytes([h[2], h[3]]);
    seg.seq = Seq(u32::from_be_bytes([h[4], h[5], h[6], h[7]]));
    seg.ack = Seq(u32::from_be_bytes([h[8], h[9], h[10], h[11]]));
    seg.flags = TcpFlags(u16::from(h[12] & 1) << 8 | u16::from(h[13]));
    seg.win = u16::from_be_bytes([h[14], h[15]]);
    seg.urgent = u16::from_be_bytes([h[18], h[19]]);
    seg.payload = len - header;
    let end = (header as usize).min(b.len());
    seg.options = options(&b[20..end], end < header as usize);
    let text = &b[end..(end + seg.text.len()).min(b.len()).min((header + seg.payload) as usize).max(end)];
    seg.text[..text.len()].copy_from_slice(text);
    seg.text_len = text.len() as u8;
    Body::Tcp(*seg)
}

fn options(mut b: &[u8], cut: bool) -> TcpOptions {
    let mut o = TcpOptions { cut, ..TcpOptions::default() };
    let mut row = 0u8;
    while let Some((&kind, rest)) = b.split_first() {
        match kind {
            0 => break,
            1 => {
                row += 1; // Forty at most.
                o.nop_row = o.nop_row.max(row);
                b = rest;
                continue;
            }
            _ => row = 0,
        }
        let Some(len) = rest.first().map(|&l| usize::from(l)) else {
            o.broken |= !cut;
            break;
        };
        let Some(option) = b.get(..len).filter(|_| len >= 2) else {
            o.broken |= len < 2 || !cut;
            break;
        };
        match (kind, option) {
            (2, [_, _, a, b]) => o.mss = Some(u16::from_be_bytes([*a, *b])),
            (3, [_, _, shift]) => o.wscale = Some(*shift),
            (4, [_, _]) => o.sack_permitted = true,
            (8, [_, _, a, b, c, d, e, f, g, h]) => {
                o.ts = Some((u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h])));
            }
            (5, [_, _, blocks @ ..]) if blocks.len() % 8 == 0 => {
                let right = |b: &[u8]| Seq(u32::from_be_bytes([b[4], b[5], b[6], b[7]]));
                let further = |a: Seq, b: Seq| if b.after(a) { b } else { a };
                o.sack = blocks.chunks_exact(8).map(right).reduce(further);
            }
            // A request for a cookie, or one of 4 to 16 bytes (RFC 7413 section 4.1.1).
            (34, [_, _, cookie @ ..]) if matches!(cookie.len(), 0 | 4..=16) && cookie.len() % 2 == 0 => {
                o.fast_open = true;
            }
            (254, [_, _, 0xf9, 0x89, ..]) => o.fast_open = true,
            // MPTCP: the subtype is in the high half of the third byte; this one carries the other end's key.
            (30, [_, _, 0x70..=0x7f, _, key @ ..]) if key.len() == 8 => o.fast_close = true,
            // MD5 signatures have 16 bytes (RFC 2385), TCP-AO at least two numbers (RFC 5925 section 2.2).
            (19, option) if option.len() == 18 => {}
            (29, option) if option.len() >= 4 => {}
            (2 | 3 | 4 | 5 | 8 | 19 | 29 | 34, _) => o.broken = true,
            _ => {}
        }
        b = &b[len..];
    }
    o
}

fn arp(b: &[u8], cut: bool) -> Body {
    let Some(p) = b.first_chunk::<28>() else {
        return Body::Malformed(if cut { Malformed::SnapLength } else { Malformed::Arp });
    };
    let op = u16::from_be_bytes([p[6], p[7]]);
    if p[..6] != [0, 1, 8, 0, 6, 4] || !matches!(op, 1 | 2) {
        return Body::Malformed(Malformed::Arp);
    }
    let sender_ip = Addr::v4([p[14], p[15], p[16], p[17]]);
    let target_ip = Addr::v4([p[24], p[25], p[26], p[27]]);
    Body::Arp(Arp {
        request: op == 1,
        sender_ip,
        sender_mac: mac(p, 8),
        target_ip,
        target_mac: mac(p, 18),
        ipv6: false,
        solicited: op == 2 && sender_ip != target_ip,
        yields: false,
    })
}

/// Neighbour solicitation and advertisement (RFC 4861 sections 4.3, 4.4); other ICMPv6 is nothing to track.
fn neighbour(b: &[u8], at: usize, src: Addr, hops: u8, cut: bool) -> Body {
    let kind = b.get(at).copied().unwrap_or(0);
    if !matches!(kind, 135 | 136) || hops != 255 {
        return Body::Other;
    }
    let Some(p) = b.get(at..at + 24) else {
        return Body::Malformed(if cut { Malformed::SnapLength } else { Malformed::Neighbour });
    };
    let mut target = [0; 16];
    target.copy_from_slice(&p[8..24]);
    let mut link = Mac::default();
    let mut options = &b[at + 24..];
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        if len == 0 || len > options.len() {
            break;
        }
        if matches!(kind, 1 | 2) {
            link = mac(options, 2);
        }
        options = &options[len..];
    }
    let request = kind == 135;
    Body::Arp(Arp {
        request,
        sender_ip: if request { src } else { Addr(target) },
        sender_mac: link,
        target_ip: if request { Addr(target) } else { Addr::default() },
        target_mac: Mac::default(),
        ipv6: true,
        solicited: !request && p[4] & 0x40 != 0,
        yields: !request && p[4] & 0x20 == 0,
    })
}
