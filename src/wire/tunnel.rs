//! Packets inside packets: IP in IP, GRE, and the tunnels over UDP. Only the outermost tunnel is remembered; what is
//! found inside replaces addresses and, where there is an inner frame, its MACs.

use super::decode::{DEPTH, be16, ethernet, ethertype, ipv4, ipv6, payload};
use super::{Addr, Body, Decoded, Malformed, Tunnel, TunnelKind};

/// UDP ports of the tunnels.
mod port {
    pub const TEREDO: u16 = 3544;
    pub const VXLAN: u16 = 4789;
    pub const GENEVE: u16 = 6081;
    /// Linux' own default for VXLAN before RFC 7348.
    pub const VXLAN_LINUX: u16 = 8472;
}

fn enter(d: &mut Decoded, kind: TunnelKind, ends: (Addr, Addr), id: u32) {
    if d.tunnel.kind == TunnelKind::None {
        d.tunnel = Tunnel { kind, src: ends.0, dst: ends.1, id };
    }
}

/// What an IP protocol other than TCP and ICMP carries, if it is a tunnel. `wire` is the length by the outer header.
pub(super) fn inside(
    d: &mut Decoded,
    protocol: u8,
    b: &[u8],
    wire: u32,
    ends: (Addr, Addr),
    depth: u8,
) -> Body {
    if depth >= DEPTH {
        return Body::Other;
    }
    match protocol {
        4 => {
            enter(d, if ends.0.is_v4() { TunnelKind::IpIp } else { TunnelKind::InIpv6 }, ends, 0);
            ipv4(d, b, wire, depth + 1)
        }
        41 => {
            enter(d, if ends.0.is_v4() { TunnelKind::SixInFour } else { TunnelKind::InIpv6 }, ends, 0);
            ipv6(d, b, wire, depth + 1)
        }
        47 => gre(d, b, wire, ends, depth),
        17 => udp(d, b, wire, ends, depth),
        _ => Body::Other,
    }
}

/// GRE (RFC 2784, RFC 2890) and what it carries: IP, frames, ERSPAN.
fn gre(d: &mut Decoded, b: &[u8], wire: u32, ends: (Addr, Addr), depth: u8) -> Body {
    let cut = wire as usize > b.len();
    let short = Body::Malformed(if cut { Malformed::SnapLength } else { Malformed::Tunnel });
    let (Some(flags), Some(protocol)) = (be16(b, 0), be16(b, 2)) else { return short };
    // Version 1 is PPTP's, with PPP inside.
    if flags & 7 != 0 {
        return Body::Other;
    }
    let has = |bit: u16| flags & bit != 0;
    let mut at = 4;
    if has(0x8000) || has(0x4000) {
        at += 4; // checksum and offset
    }
    let key = if has(0x2000) { be16(b, at).zip(be16(b, at + 2)) } else { None };
    at += if has(0x2000) { 4 } else { 0 };
    let sequenced = has(0x1000);
    at += if sequenced { 4 } else { 0 };
    let id = key.map_or(0, |(hi, lo)| u32::from(hi) << 16 | u32::from(lo));
    // ERSPAN: type I has neither sequence number nor header of its own.
    at += match protocol {
        ethertype::ERSPAN if sequenced => 8,
        ethertype::ERSPAN_III => 12,
        _ => 0,
    };
    let Some(inner) = b.get(at..) else { return short };
    let left = wire.saturating_sub(at as u32);
    enter(d, TunnelKind::Gre, ends, id);
    match protocol {
        ethertype::ETHERNET | ethertype::ERSPAN | ethertype::ERSPAN_III => {
            ethernet(d, inner, left, depth + 1)
        }
        other => payload(d, other, inner, left, depth + 1),
    }
}

fn udp(d: &mut Decoded, b: &[u8], wire: u32, ends: (Addr, Addr), depth: u8) -> Body {
    let (Some(sport), Some(dport)) = (be16(b, 0), be16(b, 2)) else { return Body::Other };
    let Some(inner) = b.get(8..) else { return Body::Other };
    let left = wire.saturating_sub(8);
    match (sport, dport) {
        (_, port::VXLAN | port::VXLAN_LINUX) => vxlan(d, inner, left, ends, depth),
        (_, port::GENEVE) => geneve(d, inner, left, ends, depth),
        (port::TEREDO, _) | (_, port::TEREDO) => teredo(d, inner, left, ends, depth),
        // Between a client and a relay neither port is known; the addresses inside are.
        _ if inner.get(8..12) == Some(&TEREDO_PREFIX) || inner.get(24..28) == Some(&TEREDO_PREFIX) => {
            teredo(d, inner, left, ends, depth)
        }
        _ => Body::Other,
    }
}

/// 2001::/32, the addresses of Teredo clients (RFC 4380 section 2.6).
const TEREDO_PREFIX: [u8; 4] = [0x20, 0x01, 0, 0];

/// VXLAN (RFC 7348): flags with the I bit, 24 bits of identifier, a frame.
fn vxlan(d: &mut Decoded, b: &[u8], wire: u32, ends: (Addr, Addr), depth: u8) -> Body {
    match b {
        [flags, _, _, _, hi, mid, lo, _, inner @ ..] if flags & 0x08 != 0 => {
            enter(d, TunnelKind::Vxlan, ends, u32::from_be_bytes([0, *hi, *mid, *lo]));
            ethernet(d, inner, wire.saturating_sub(8), depth + 1)
        }
        _ => Body::Other,
    }
}

/// Geneve (RFC 8926): version 0, options, an EtherType.
fn geneve(d: &mut Decoded, b: &[u8], wire: u32, ends: (Addr, Addr), depth: u8) -> Body {
    let (Some(&first), Some(protocol), Some(id)) = (b.first(), be16(b, 2), b.get(4..7)) else {
        return Body::Other;
    };
    let at = 8 + usize::from(first & 0x3f) * 4;
    let Some(inner) = b.get(at..).filter(|_| first >> 6 == 0) else { return Body::Other };
    enter(d, TunnelKind::Geneve, ends, u32::from_be_bytes([0, id[0], id[1], id[2]]));
    let left = wire.saturating_sub(at as u32);
    match protocol {
        ethertype::ETHERNET => ethernet(d, inner, left, depth + 1),
        other => payload(d, other, inner, left, depth + 1),
    }
}

/// Teredo (RFC 4380 section 5.1.1): optional authentication and origin indications, then an IPv6 packet whose length
/// must fit exactly, so that other traffic on the port is not taken for one.
fn teredo(d: &mut Decoded, mut b: &[u8], mut wire: u32, ends: (Addr, Addr), depth: u8) -> Body {
    for _ in 0..2 {
        let skip = match b {
            [0, 1, id, auth, ..] => 13 + usize::from(*id) + usize::from(*auth),
            [0, 0, ..] => 8,
            _ => 0,
        };
        let Some(rest) = b.get(skip..) else { return Body::Other };
        b = rest;
        wire = wire.saturating_sub(skip as u32);
    }
    let fits =
        b.first().is_some_and(|v| v >> 4 == 6) && be16(b, 4).is_some_and(|l| u32::from(l) + 40 == wire);
    if !fits {
        return Body::Other;
    }
    enter(d, TunnelKind::Teredo, ends, 0);
    ipv6(d, b, wire, depth + 1)
}
