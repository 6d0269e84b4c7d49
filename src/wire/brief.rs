//! The common packet, decoded in a few nanoseconds: a whole TCP header with usual options behind Ethernet, at most one VLAN tag, and
//! an IPv4 header without options or an IPv6 header without extensions.
//!
//! [`brief`] answers for those only, and what it says is what [`super::decode`] would say; a test holds the two against each other.
//! Everything else, also what is malformed, a reset or a mixture of flags, gets `None` and takes the long way.

use super::{Addr, LinkType, Mac, OffloadedVlan, Segment, Seq, TcpFlags, TcpOptions};

/// A TCP segment of the common form. Half of a [`Segment`], and none of its options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brief {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgement number.
    pub ack: Seq,
    /// TSval; meaningful if `has_ts`.
    pub tsval: u32,
    /// TSecr; meaningful if `has_ts`.
    pub tsecr: u32,
    /// Payload bytes, by the IP header.
    pub payload: u32,
    /// Flags, without URG and RST.
    pub flags: TcpFlags,
    /// Window field, unscaled.
    pub win: u16,
    /// IPv4 identification; 0 for IPv6.
    pub ip_id: u16,
    /// MSS option; 0 without.
    pub mss: u16,
    /// VLAN identifier plus 1; 0 without a tag.
    pub vlan: u16,
    /// Window scale option plus 1; 0 without.
    pub wscale: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether there are timestamps.
    pub has_ts: bool,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Ethernet source.
    pub src_mac: Mac,
    /// Ethernet destination.
    pub dst_mac: Mac,
}

/// Length of an Ethernet header, of a VLAN tag, of a plain IPv4, IPv6 and TCP header.
const ETHERNET: usize = 14;
const TAG: usize = 4;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;

/// What every stack puts on a segment that is no SYN: two NOPs and the timestamps (RFC 7323 appendix A).
const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];

const VLAN: [u8; 2] = [0x81, 0x00];

/// Reads the common packet; `None` for any other. See the module.
#[inline]
pub fn brief(link: LinkType, b: &[u8], offloaded: OffloadedVlan) -> Option<Brief> {
    let front = b.first_chunk::<{ ETHERNET + TAG }>()?;
    if link != LinkType::Ethernet {
        return None;
    }
    let mut seg = Brief::default();
    seg.dst_mac.0.copy_from_slice(&front[..6]);
    seg.src_mac.0.copy_from_slice(&front[6..12]);
    let mut kind = [front[12], front[13]];
    let mut at = ETHERNET;
    if offloaded.tpid != 0 {
        seg.vlan = (offloaded.tci & 0x0fff) + 1;
    }
    if kind == VLAN && offloaded.tpid == 0 {
        seg.vlan = (u16::from_be_bytes([front[14], front[15]]) & 0x0fff) + 1;
        kind = [front[16], front[17]];
        at += TAG;
    }
    match kind {
        [0x08, 0x00] => ipv4(b.get(at..)?, seg),
        [0x86, 0xdd] => ipv6(b.get(at..)?, seg),
        _ => None,
    }
}

#[inline]
fn ipv4(b: &[u8], mut seg: Brief) -> Option<Brief> {
    let h = b.first_chunk::<{ IPV4 + TCP }>()?;
    let total = u32::from(u16::from_be_bytes([h[2], h[3]]));
    let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff;
    // A length of 0 is for the frame to tell.
    if h[0] != 0x45 || h[9] != 6 || fragment != 0 || total < (IPV4 + TCP) as u32 {
        return None;
    }
    seg.src = Addr::v4([h[12], h[13], h[14], h[15]]);
    seg.dst = Addr::v4([h[16], h[17], h[18], h[19]]);
    seg.ttl = h[8];
    seg.ip_id = u16::from_be_bytes([h[4], h[5]]);
    tcp(&b[IPV4..], total - IPV4 as u32, seg)
}

#[inline]
fn ipv6(b: &[u8], mut seg: Brief) -> Option<Brief> {
    let h = b.first_chunk::<{ IPV6 + TCP }>()?;
    let length = u32::from(u16::from_be_bytes([h[4], h[5]]));
    if h[0] >> 4 != 6 || h[6] != 6 || length < TCP as u32 {
        return None;
    }
    seg.src.0.copy_from_slice(&h[8..24]);
    seg.dst.0.copy_from_slice(&h[24..40]);
    seg.ttl = h[7];
    tcp(&b[IPV6..], length, seg)
}

/// `len` is what the IP header leaves, header included.
#[inline]
fn tcp(b: &[u8], len: u32, mut seg: Brief) -> Option<Brief> {
    let h = b.first_chunk::<TCP>()?;
    let header = usize::from(h[12] >> 4) * 4;
    let options = b.get(TCP..header)?;
    seg.flags = TcpFlags(u16::from(h[13]));
    let usual = h[12] & 1 == 0 && !seg.flags.any(TcpFlags::RST | TcpFlags::URG) && h[18] | h[19] == 0;
    if header as u32 > len || !usual {
        return None;
    }
    seg.sport = u16::from_be_bytes([h[0], h[1]]);
    seg.dport = u16::from_be_bytes([h[2], h[3]]);
    seg.seq = Seq(u32::from_be_bytes([h[4], h[5], h[6], h[7]]));
    seg.ack = Seq(u32::from_be_bytes([h[8], h[9], h[10], h[11]]));
    seg.win = u16::from_be_bytes([h[14], h[15]]);
    seg.payload = len - header as u32;
    if seg.flags.any(TcpFlags::SYN) {
        return syn_options(options, seg);
    }
    if let Some(t) = options.first_chunk::<12>() {
        if options.len() != 12 || t[..4] != TIMESTAMPS {
            return None;
        }
        times(&mut seg, [t[4], t[5], t[6], t[7]], [t[8], t[9], t[10], t[11]]);
    } else if !options.is_empty() {
        return None;
    }
    Some(seg)
}

#[inline]
fn times(seg: &mut Brief, value: [u8; 4], echo: [u8; 4]) {
    seg.has_ts = true;
    (seg.tsval, seg.tsecr) = (u32::from_be_bytes(value), u32::from_be_bytes(echo));
}

/// The options of a SYN or SYN-ACK that a stack sends: an MSS, if there is any option at all, and each of the others once at most.
#[inline]
fn syn_options(mut b: &[u8], mut seg: Brief) -> Option<Brief> {
    let none = b.is_empty();
    let mut nops = 0;
    loop {
        match *b {
            [] | [0, ..] => break,
            // Three pad to a word; more stand where an option was.
            [1, ..] if nops < 3 => {
                nops += 1;
                b = &b[1..];
                continue;
            }
            [2, 4, hi, lo, ..] if seg.mss == 0 => {
                seg.mss = u16::from_be_bytes([hi, lo]);
                b = &b[4..];
            }
            [3, 3, shift, ..] if seg.wscale == 0 && shift <= 14 => {
                seg.wscale = shift + 1;
                b = &b[3..];
            }
            [4, 2, ..] => {
                seg.sack_permitted = true;
                b = &b[2..];
            }
            [8, 10, v0, v1, v2, v3, e0, e1, e2, e3, ..] if !seg.has_ts => {
                times(&mut seg, [v0, v1, v2, v3], [e0, e1, e2, e3]);
                b = &b[10..];
            }
            _ => return None,
        }
        nops = 0;
    }
    (none || seg.mss != 0).then_some(seg)
}

impl Brief {
    /// The same as a [`Segment`], without the first bytes of its payload.
    pub fn segment(&self) -> Segment {
        Segment {
            src: self.src,
            dst: self.dst,
            sport: self.sport,
            dport: self.dport,
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            win: self.win,
            payload: self.payload,
            ttl: self.ttl,
            ip_id: self.ip_id,
            options: TcpOptions {
                mss: (self.mss != 0).then_some(self.mss),
                wscale: self.wscale.checked_sub(1),
                sack_permitted: self.sack_permitted,
                ts: self.has_ts.then_some((self.tsval, self.tsecr)),
                ..TcpOptions::default()
            },
            ..Segment::default()
        }
    }

    /// The sequence number after the segment.
    #[inline]
    pub fn end(&self) -> Seq {
        let flags = u32::from(self.flags.any(TcpFlags::SYN)) + u32::from(self.flags.any(TcpFlags::FIN));
        self.seq.add(self.payload.wrapping_add(flags))
    }
}
