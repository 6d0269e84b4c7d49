//! ICMP and ICMPv6 errors that quote a TCP header: the quoted tuple, never a flow of its own.

use super::decode::be16;
use super::{Addr, Body, IcmpError, Seq};

/// ICMP types whose body quotes the packet that failed (RFC 792): unreachable, source quench, time exceeded, parameter
/// problem.
const V4_ERRORS: [u8; 4] = [3, 4, 11, 12];

/// ICMPv6 errors are the types below 128 (RFC 4443); those in use: unreachable, too big, time exceeded, parameter.
const V6_ERRORS: std::ops::RangeInclusive<u8> = 1..=4;

fn be32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(be16(b, at)?) << 16 | u32::from(be16(b, at + 2)?))
}

/// The quoted ports and sequence number: the first 8 bytes of the TCP header, which every error must carry.
fn quote(error: IcmpError, tcp: &[u8]) -> Option<Body> {
    let (sport, dport, seq) = (be16(tcp, 0)?, be16(tcp, 2)?, Seq(be32(tcp, 4)?));
    Some(Body::Icmp(IcmpError { sport, dport, seq, ..error }))
}

/// ICMP for IPv4. `b` begins with its header.
pub(super) fn v4(b: &[u8], from: Addr) -> Body {
    let found = || {
        let (kind, code) = (*b.first()?, *b.get(1)?);
        let ip = b.get(8..).filter(|_| V4_ERRORS.contains(&kind))?;
        let header = usize::from(ip.first()? & 15) * 4;
        let tcp = ip.get(header..).filter(|_| header >= 20 && ip[0] >> 4 == 4 && ip.get(9) == Some(&6))?;
        let address = |at: usize| Some(Addr::v4(ip.get(at..at + 4)?.try_into().ok()?));
        // "Fragmentation needed" has the next hop's MTU in the last half of the unused word (RFC 1191).
        let mtu = if (kind, code) == (3, 4) { u32::from(be16(b, 6)?) } else { 0 };
        let error = IcmpError {
            from,
            icmp_type: kind,
            code,
            ipv6: false,
            src: address(12)?,
            dst: address(16)?,
            sport: 0,
            dport: 0,
            seq: Seq(0),
            mtu,
        };
        quote(error, tcp)
    };
    found().unwrap_or(Body::Other)
}

/// ICMPv6. `b` begins with its header. Extension headers in the quoted packet are not skipped.
pub(super) fn v6(b: &[u8], from: Addr) -> Body {
    let found = || {
        let (kind, code) = (*b.first()?, *b.get(1)?);
        let ip = b.get(8..).filter(|_| V6_ERRORS.contains(&kind))?;
        let tcp = ip.get(40..).filter(|_| ip[0] >> 4 == 6 && ip[6] == 6)?;
        let address = |at: usize| Some(Addr(ip.get(at..at + 16)?.try_into().ok()?));
        let error = IcmpError {
            from,
            icmp_type: kind,
            code,
            ipv6: true,
            src: address(8)?,
            dst: address(24)?,
            sport: 0,
            dport: 0,
            seq: Seq(0),
            mtu: if kind == 2 { be32(b, 4)? } else { 0 },
        };
        quote(error, tcp)
    };
    found().unwrap_or(Body::Other)
}
