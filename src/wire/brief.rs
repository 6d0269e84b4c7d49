//! The common packet, decoded in a few nanoseconds: a whole TCP header with usual options behind Ethernet, at most one VLAN tag, and
//! an IPv4 header without options or an IPv6 header without extensions.
//!
//! [`brief`] answers for those only, and what it says is what [`super::decode`] would say; a test holds the two against each other.
//! Everything else, also what is malformed, a reset or a mixture of flags, takes the long way.

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
    /// Its addresses are IPv6.
    pub six: bool,
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

/// Reads the common packet into `seg`; false for any other, and then `seg` means nothing. See the module.
#[inline]
pub fn brief(link: LinkType, b: &[u8], offloaded: OffloadedVlan, seg: &mut Brief) -> bool {
    let Some(front) = b.first_chunk::<{ ETHERNET + TAG }>() else { return false };
    if link != LinkType::Ethernet {
        return false;
    }
    seg.dst_mac.0 = [front[0], front[1], front[2], front[3], front[4], front[5]];
    seg.src_mac.0 = [front[6], front[7], front[8], front[9], front[10], front[11]];
    seg.vlan = if offloaded.tpid == 0 { 0 } else { (offloaded.tci & 0x0fff) + 1 };
    let mut kind = [front[12], front[13]];
    let mut at = ETHERNET;
    if kind == VLAN && offloaded.tpid == 0 {
        seg.vlan = (u16::from_be_bytes([front[14], front[15]]) & 0x0fff) + 1;
        kind = [front[16], front[17]];
        at += TAG;
    }
    match kind {
        [0x08, 0x00] => ipv4(&b[at..], seg),
        [0x86, 0xdd] => ipv6(&b[at..], seg),
        _ => false,
    }
}

#[inline]
fn ipv4(b: &[u8], seg: &mut Brief) -> bool {
    let Some(h) = b.first_chunk::<{ IPV4 + TCP }>() else { return false };
    let total = u32::from(u16::from_be_bytes([h[2], h[3]]));
    let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff;
    // A length of 0 is for the frame to tell.
    if h[0] != 0x45 || h[9] != 6 || fragment != 0 || total < (IPV4 + TCP) as u32 {
        return false;
    }
    seg.src = Addr::v4([h[12], h[13], h[14], h[15]]);
    seg.dst = Addr::v4([h[16], h[17], h[18], h[19]]);
    seg.six = false;
    seg.ttl = h[8];
    seg.ip_id = u16::from_be_bytes([h[4], h[5]]);
    tcp(&b[IPV4..], total - IPV4 as u32, seg)
}

#[inline]
fn ipv6(b: &[u8], seg: &mut Brief) -> bool {
    let Some(h) = b.first_chunk::<{ IPV6 + TCP }>() else { return false };
    let length = u32::from(u16::from_be_bytes([h[4], h[5]]));
    if h[0] >> 4 != 6 || h[6] != 6 || length < TCP as u32 {
        return false;
    }
    seg.src.0.copy_from_slice(&h[8..24]);
    seg.dst.0.copy_from_slice(&h[24..40]);
    seg.six = true;
    seg.ttl = h[7];
    seg.ip_id = 0;
    tcp(&b[IPV6..], length, seg)
}

/// `len` is what the IP header leaves, header included.
#[inline]
fn tcp(b: &[u8], len: u32, seg: &mut Brief) -> bool {
    let Some(h) = b.first_chunk::<TCP>() else { return false };
    let header = usize::from(h[12] >> 4) * 4;
    seg.flags = TcpFlags(u16::from(h[13]));
    let unusual = h[12] & 1 != 0 || seg.flags.any(TcpFlags::RST | TcpFlags::URG) || h[18] | h[19] != 0;
    if header as u32 > len || unusual {
        return false;
    }
    seg.sport = u16::from_be_bytes([h[0], h[1]]);
    seg.dport = u16::from_be_bytes([h[2], h[3]]);
    seg.seq = Seq(u32::from_be_bytes([h[4], h[5], h[6], h[7]]));
    seg.ack = Seq(u32::from_be_bytes([h[8], h[9], h[10], h[11]]));
    seg.win = u16::from_be_bytes([h[14], h[15]]);
    seg.payload = len - header as u32;
    (seg.mss, seg.wscale, seg.has_ts, seg.sack_permitted) = (0, 0, false, false);
    (seg.tsval, seg.tsecr) = (0, 0);
    if seg.flags.any(TcpFlags::SYN) {
        return b.get(TCP..header).is_some_and(|options| syn_options(options, seg));
    }
    match header {
        // What every stack sends after the handshake.
        32 => match b.first_chunk::<32>() {
            Some(t) if t[20..24] == TIMESTAMPS => {
                times(seg, [t[24], t[25], t[26], t[27]], [t[28], t[29], t[30], t[31]]);
                true
            }
            _ => false,
        },
        header => header == TCP,
    }
}

#[inline]
fn times(seg: &mut Brief, value: [u8; 4], echo: [u8; 4]) {
    seg.has_ts = true;
    (seg.tsval, seg.tsecr) = (u32::from_be_bytes(value), u32::from_be_bytes(echo));
}

/// The options of a SYN or SYN-ACK that a stack sends: an MSS, if there is any option at all, and each of the others once at most.
fn syn_options(mut b: &[u8], seg: &mut Brief) -> bool {
    // What Linux sends: MSS, SACK permitted, timestamps, a NOP and the window scale.
    if let [2, 4, m0, m1, 4, 2, 8, 10, v0, v1, v2, v3, e0, e1, e2, e3, 1, 3, 3, shift] = *b
        && shift <= 14
    {
        times(seg, [v0, v1, v2, v3], [e0, e1, e2, e3]);
        (seg.mss, seg.sack_permitted, seg.wscale) = (u16::from_be_bytes([m0, m1]), true, shift + 1);
        return seg.mss != 0;
    }
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
                times(seg, [v0, v1, v2, v3], [e0, e1, e2, e3]);
                b = &b[10..];
            }
            _ => return false,
        }
        nops = 0;
    }
    none || seg.mss != 0
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

    /// The IPv4 addresses and the ports of source and destination, in host order.
    #[inline]
    pub fn narrow(&self) -> [(u32, u16); 2] {
        let four = |a: &Addr| u32::from_be_bytes([a.0[12], a.0[13], a.0[14], a.0[15]]);
        [(four(&self.src), self.sport), (four(&self.dst), self.dport)]
    }

    /// The sequence number after the segment.
    #[inline]
    pub fn end(&self) -> Seq {
        let flags = u32::from(self.flags.any(TcpFlags::SYN)) + u32::from(self.flags.any(TcpFlags::FIN));
        self.seq.add(self.payload.wrapping_add(flags))
    }
}
