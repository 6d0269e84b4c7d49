//! The common packet, decoded in a few nanoseconds: a whole TCP header with usual options behind Ethernet, at most one VLAN tag, and
//! an IPv4 header without options or an IPv6 header without extensions.
//!
//! [`brief`] answers for those only, and what it says is what [`super::decode`] would say; a test holds the two against each other.
//! Everything else, also what is malformed, a reset or a mixture of flags, takes the long way.

use super::{Addr, Digest, LinkType, OffloadedVlan, Segment, Seq, TcpFlags, TcpOptions};

/// A TCP segment of the common form: what is kept of it, and whose it is. Half of a [`Segment`], and none of its options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brief {
    /// What the bytes say, as it is kept. Time, tap point, way and sender are left for who knows them; flags are without URG and RST.
    pub digest: Digest,
    /// IPv4 addresses in host order, the source's in the high half; meaningless if `six`.
    pub four: u64,
    /// IPv6 addresses of source and destination; meaningful if `six`.
    pub pair: [Addr; 2],
    /// Ports, the source's in the high half.
    pub ports: u32,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Its addresses are IPv6.
    pub six: bool,
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
    let d = &mut seg.digest;
    d.dst_mac.0 = [front[0], front[1], front[2], front[3], front[4], front[5]];
    d.src_mac.0 = [front[6], front[7], front[8], front[9], front[10], front[11]];
    d.vlan = if offloaded.tpid == 0 { 0 } else { (offloaded.tci & 0x0fff) + 1 };
    let mut kind = [front[12], front[13]];
    let mut at = ETHERNET;
    if kind == VLAN && offloaded.tpid == 0 {
        d.vlan = (u16::from_be_bytes([front[14], front[15]]) & 0x0fff) + 1;
        kind = [front[16], front[17]];
        at += TAG;
    }
    match kind {
        [0x08, 0x00] => ipv4(&b[at..], seg),
        [0x86, 0xdd] => ipv6(&b[at..], seg),
        _ => false,
    }
}

/// Addresses and ports, as in [`Brief::four`] and [`Brief::ports`], of a TCP segment over IPv4 that is framed as those of [`brief`] are,
/// whatever its flags and options: for who shares packets out by tuple, and what it says is what [`super::decode`] would say. `None` tells nothing.
#[inline]
pub fn brief_ends(link: LinkType, b: &[u8], offloaded: OffloadedVlan) -> Option<(u64, u32)> {
    let front = b.first_chunk::<{ ETHERNET + TAG }>().filter(|_| link == LinkType::Ethernet)?;
    let tagged = [front[12], front[13]] == VLAN && offloaded.tpid == 0;
    let (kind, at) = match tagged {
        true => ([front[16], front[17]], ETHERNET + TAG),
        false => ([front[12], front[13]], ETHERNET),
    };
    let h = b[at..].first_chunk::<{ IPV4 + TCP }>()?;
    let total = u32::from(u16::from_be_bytes([h[2], h[3]]));
    let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff;
    let header = u32::from(h[32] >> 4) * 4;
    let usual = kind == [0x08, 0x00] && h[0] == 0x45 && h[9] == 6 && fragment == 0;
    if !usual || header < TCP as u32 || total < IPV4 as u32 + header {
        return None;
    }
    let four = u64::from_be_bytes([h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19]]);
    Some((four, u32::from_be_bytes([h[20], h[21], h[22], h[23]])))
}

#[inline(always)]
fn ipv4(b: &[u8], seg: &mut Brief) -> bool {
    let Some(h) = b.first_chunk::<{ IPV4 + TCP }>() else { return false };
    let total = u32::from(u16::from_be_bytes([h[2], h[3]]));
    let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff;
    // A length of 0 is for the frame to tell.
    if h[0] != 0x45 || h[9] != 6 || fragment != 0 || total < (IPV4 + TCP) as u32 {
        return false;
    }
    seg.four = u64::from_be_bytes([h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19]]);
    seg.six = false;
    seg.digest.ttl = h[8];
    seg.digest.ip_id = u16::from_be_bytes([h[4], h[5]]);
    tcp(&b[IPV4..], total - IPV4 as u32, seg)
}

#[inline(always)]
fn ipv6(b: &[u8], seg: &mut Brief) -> bool {
    let Some(h) = b.first_chunk::<{ IPV6 + TCP }>() else { return false };
    let length = u32::from(u16::from_be_bytes([h[4], h[5]]));
    if h[0] >> 4 != 6 || h[6] != 6 || length < TCP as u32 {
        return false;
    }
    seg.pair[0].0.copy_from_slice(&h[8..24]);
    seg.pair[1].0.copy_from_slice(&h[24..40]);
    seg.six = true;
    seg.digest.ttl = h[7];
    seg.digest.ip_id = 0;
    tcp(&b[IPV6..], length, seg)
}

/// `len` is what the IP header leaves, header included.
#[inline(always)]
fn tcp(b: &[u8], len: u32, seg: &mut Brief) -> bool {
    let Some(h) = b.first_chunk::<TCP>() else { return false };
    // The header's length, three bits that are reserved, and the flags.
    let word = u16::from_be_bytes([h[12], h[13]]);
    let header = usize::from(word >> 12) * 4;
    let unusual = word & (TcpFlags::AE | TcpFlags::RST | TcpFlags::URG) | u16::from_be_bytes([h[18], h[19]]);
    if header as u32 > len || unusual != 0 {
        return false;
    }
    seg.ports = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
    seg.sack_permitted = false;
    let d = &mut seg.digest;
    d.flags = TcpFlags(word & 0xff);
    d.seq = Seq(u32::from_be_bytes([h[4], h[5], h[6], h[7]]));
    d.ack = Seq(u32::from_be_bytes([h[8], h[9], h[10], h[11]]));
    d.win = u16::from_be_bytes([h[14], h[15]]);
    d.len = len - header as u32;
    (d.mss, d.wscale) = (0, 0);
    // What every stack sends after the handshake.
    if header == TCP + 12
        && let Some(t) = b.first_chunk::<{ TCP + 12 }>()
        && t[TCP..TCP + 4] == TIMESTAMPS
        && !d.flags.any(TcpFlags::SYN)
    {
        times(d, [t[24], t[25], t[26], t[27]], [t[28], t[29], t[30], t[31]]);
        return true;
    }
    d.has_ts = false;
    (d.tsval, d.tsecr) = (0, 0);
    if d.flags.any(TcpFlags::SYN) {
        return b.get(TCP..header).is_some_and(|options| syn_options(options, seg));
    }
    header == TCP
}

#[inline]
fn times(d: &mut Digest, value: [u8; 4], echo: [u8; 4]) {
    d.has_ts = true;
    (d.tsval, d.tsecr) = (u32::from_be_bytes(value), u32::from_be_bytes(echo));
}

/// The options of a SYN or SYN-ACK that a stack sends: an MSS, if there is any option at all, and each of the others once at most.
fn syn_options(mut b: &[u8], seg: &mut Brief) -> bool {
    // What Linux sends: MSS, SACK permitted, timestamps, a NOP and the window scale.
    if let [2, 4, m0, m1, 4, 2, 8, 10, v0, v1, v2, v3, e0, e1, e2, e3, 1, 3, 3, shift] = *b
        && shift <= 14
    {
        times(&mut seg.digest, [v0, v1, v2, v3], [e0, e1, e2, e3]);
        (seg.digest.mss, seg.sack_permitted, seg.digest.wscale) =
            (u16::from_be_bytes([m0, m1]), true, shift + 1);
        return seg.digest.mss != 0;
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
            [2, 4, hi, lo, ..] if seg.digest.mss == 0 => {
                seg.digest.mss = u16::from_be_bytes([hi, lo]);
                b = &b[4..];
            }
            [3, 3, shift, ..] if seg.digest.wscale == 0 && shift <= 14 => {
                seg.digest.wscale = shift + 1;
                b = &b[3..];
            }
            [4, 2, ..] => {
                seg.sack_permitted = true;
                b = &b[2..];
            }
            [8, 10, v0, v1, v2, v3, e0, e1, e2, e3, ..] if !seg.digest.has_ts => {
                times(&mut seg.digest, [v0, v1, v2, v3], [e0, e1, e2, e3]);
                b = &b[10..];
            }
            _ => return false,
        }
        nops = 0;
    }
    none || seg.digest.mss != 0
}

impl Brief {
    /// The same as a [`Segment`], without the first bytes of its payload.
    pub fn segment(&self) -> Segment {
        let [src, dst] = self.addresses();
        let kept = self.digest.segment();
        let options = TcpOptions { sack_permitted: self.sack_permitted, ..kept.options };
        Segment { src, dst, sport: self.sport(), dport: self.dport(), options, ..kept }
    }

    /// Source port.
    #[inline]
    pub fn sport(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// Destination port.
    #[inline]
    pub fn dport(&self) -> u16 {
        self.ports as u16
    }

    /// Source and destination address.
    #[inline]
    pub fn addresses(&self) -> [Addr; 2] {
        let four = |a: u32| Addr::v4(a.to_be_bytes());
        if self.six { self.pair } else { [four((self.four >> 32) as u32), four(self.four as u32)] }
    }
}
