//! What one packet says, decoded: values only, no checks beyond what the types hold.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::seq::Seq;

/// A time in nanoseconds since the Unix epoch. Live packets are stamped on the monotonic clock and
/// moved to the epoch once, at capture; everything after that reads this one line of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// One millisecond.
    pub const MS: u64 = 1_000_000;
    /// One second.
    pub const SEC: u64 = 1_000_000_000;

    /// What [`Nanos::coarse`] leaves out: bits, a millisecond.
    pub const COARSE: u32 = 20;

    /// The last multiple of 2^20 ns, a millisecond early at most: as far as a flow knows its beginning in the end.
    #[inline]
    pub const fn coarse(self) -> Nanos {
        Nanos(self.0 >> Nanos::COARSE << Nanos::COARSE)
    }

    /// `self - earlier` in nanoseconds; 0 if `earlier` is later (captures are not always in order).
    #[inline]
    pub const fn since(self, earlier: Nanos) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self + ns`, saturating.
    #[inline]
    #[allow(clippy::should_implement_trait)]
    pub const fn add(self, ns: u64) -> Nanos {
        Nanos(self.0.saturating_add(ns))
    }
}

/// Which way a packet went through its tap point, as records name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Way {
    /// Into the machine.
    Ingress = 0,
    /// Out of the machine.
    Egress = 1,
    /// The capture does not say.
    #[default]
    Unknown = 2,
}

impl Way {
    /// The word in records, or `None` where the capture does not say.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Way::Ingress => Some("ingress"),
            Way::Egress => Some("egress"),
            Way::Unknown => None,
        }
    }
}

/// What the first byte of a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// Ethernet II or 802.3.
    #[default]
    Ethernet,
    /// Linux cooked capture, version 1 (`any` of older tcpdump).
    LinuxSll,
    /// Linux cooked capture, version 2.
    LinuxSll2,
    /// An IP header at once.
    RawIp,
    /// Linux netfilter log: a header of options, one of which is the IP packet.
    Nflog,
    /// BSD loopback: four bytes of address family, either byte order.
    BsdLoopback,
}

/// A VLAN tag that the NIC or the kernel took out of the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffloadedVlan {
    /// EtherType of the tag (0x8100 or 0x88a8); 0 without a tag.
    pub tpid: u16,
    /// Tag control information.
    pub tci: u16,
}

/// An IP address of either family in 16 bytes; IPv4 is held as `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// From four IPv4 bytes in network order.
    #[inline]
    pub const fn v4(b: [u8; 4]) -> Addr {
        Addr([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, b[0], b[1], b[2], b[3]])
    }

    /// True for an address that came from an IPv4 header.
    #[inline]
    pub fn is_v4(&self) -> bool {
        u128::from_be_bytes(self.0) >> 32 == 0xffff
    }

    /// As the standard library's type.
    pub fn ip(&self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15]))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.0))
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Addr {
        match ip {
            IpAddr::V4(v4) => Addr::v4(v4.octets()),
            IpAddr::V6(v6) => Addr(v6.octets()),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

/// An Ethernet address; all zero where the link has none.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// True where the link layer had no address.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An interface's name, as the kernel has it: 15 bytes at most (`IFNAMSIZ`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct IfName([u8; 16]);

impl From<&str> for IfName {
    fn from(name: &str) -> IfName {
        let mut all = [0; 16];
        all.iter_mut().zip(name.bytes().take(15)).for_each(|(to, b)| *to = b);
        IfName(all)
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        f.write_str(&String::from_utf8_lossy(&self.0[..end]))
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The 8 classic TCP flag bits, in wire order (bit 0 is FIN), plus AE (bit 8, RFC 9768).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct TcpFlags(pub u16);

impl TcpFlags {
    /// From tcpdump's letters, as it displays itself; what is no letter of a flag is passed over.
    pub fn from_letters(letters: &str) -> TcpFlags {
        let bits = letters.bytes().map(|b| match b {
            b'F' => TcpFlags::FIN,
            b'S' => TcpFlags::SYN,
            b'R' => TcpFlags::RST,
            b'P' => TcpFlags::PSH,
            b'.' => TcpFlags::ACK,
            b'U' => TcpFlags::URG,
            b'E' => TcpFlags::ECE,
            b'W' => TcpFlags::CWR,
            b'e' if letters != "none" => TcpFlags::AE,
            _ => 0,
        });
        TcpFlags(bits.fold(0, |all, bit| all | bit))
    }

    /// No more data from the sender.
    pub const FIN: u16 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u16 = 0x02;
    /// Reset the connection.
    pub const RST: u16 = 0x04;
    /// Push.
    pub const PSH: u16 = 0x08;
    /// The acknowledgement field is valid.
    pub const ACK: u16 = 0x10;
    /// The urgent pointer is valid.
    pub const URG: u16 = 0x20;
    /// ECN echo.
    pub const ECE: u16 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u16 = 0x80;
    /// Accurate ECN.
    pub const AE: u16 = 0x100;

    /// True if any of `bits` is set.
    #[inline]
    pub const fn any(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// True if all of `bits` are set.
    #[inline]
    pub const fn all(self, bits: u16) -> bool {
        self.0 & bits == bits
    }
}

/// As tcpdump writes them: `S`, `F`, `R`, `P`, `.` for ACK, `U`, `E`, `W`, `e`; `none` without any.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(u16, &str); 9] = [
            (TcpFlags::FIN, "F"),
            (TcpFlags::SYN, "S"),
            (TcpFlags::RST, "R"),
            (TcpFlags::PSH, "P"),
            (TcpFlags::ACK, "."),
            (TcpFlags::URG, "U"),
            (TcpFlags::ECE, "E"),
            (TcpFlags::CWR, "W"),
            (TcpFlags::AE, "e"),
        ];
        if self.0 & 0x1ff == 0 {
            return f.write_str("none");
        }
        for (bit, name) in NAMES {
            if self.any(bit) {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

/// The VLAN tags of a frame, outermost first; `count` of them (0 to 2) are meaningful.
/// A tag is its TCI: priority, DEI and the 12-bit identifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vlans {
    /// Tag control information, outermost first.
    pub tci: [u16; 2],
    /// How many tags.
    pub count: u8,
}

impl Vlans {
    /// The innermost VLAN identifier (12 bits), or `None` without a tag.
    pub fn id(&self) -> Option<u16> {
        match self.count {
            0 => None,
            n => Some(self.tci[usize::from(n) - 1] & 0x0fff),
        }
    }

    /// The broadcast domain that these tags name, as a number: 0 without a tag, or with one that names none (a priority tag).
    pub fn segment(&self) -> u32 {
        let tags = &self.tci[..usize::from(self.count).min(self.tci.len())];
        tags.iter().fold(0, |all, tci| all << 12 | u32::from(tci & 0x0fff))
    }
}

/// TCP options that the rules read. A malformed list keeps what stood before the fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// Maximum segment size (kind 2), bytes.
    pub mss: Option<u16>,
    /// Window scale (kind 3), as sent: values over 14 are kept.
    pub wscale: Option<u8>,
    /// SACK permitted (kind 4).
    pub sack_permitted: bool,
    /// Timestamps (kind 8): TSval, TSecr.
    pub ts: Option<(u32, u32)>,
    /// The rightmost edge of the SACK blocks (kind 5).
    pub sack: Option<Seq>,
    /// TCP Fast Open cookie (kind 34) or the experimental form (kind 254 with magic 0xf989).
    pub fast_open: bool,
    /// MPTCP's request to close all of a connection at once (kind 30, MP_FASTCLOSE of RFC 8684 section 3.5).
    pub fast_close: bool,
    /// The longest row of NOPs (kind 1).
    pub nop_row: u8,
    /// The list could not be read to its end: a length of 0 or 1, or one past the header.
    pub broken: bool,
    /// The header was cut by the snap length before the options ended.
    pub cut: bool,
}

/// One TCP segment with what its headers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number of the first byte (or of SYN).
    pub seq: Seq,
    /// Acknowledgement number, as on the wire even when the ACK flag is absent.
    pub ack: Seq,
    /// Flags, raw: odd combinations are what this project looks for.
    pub flags: TcpFlags,
    /// Window field, unscaled.
    pub win: u16,
    /// Payload bytes, from the IP header's length (not from the captured length); from the frame where
    /// the IP length is 0 (BIG TCP, segmentation offload).
    pub payload: u32,
    /// First bytes of the payload that were captured, at most 32 (an RST may carry its reason in words).
    pub text: [u8; 32],
    /// How many bytes of `text` are meaningful.
    pub text_len: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification; 0 for IPv6 without a fragment header.
    pub ip_id: u16,
    /// Options.
    pub options: TcpOptions,
    /// Urgent pointer.
    pub urgent: u16,
}

impl Segment {
    /// Sequence space the segment takes: payload, plus one each for SYN and FIN.
    #[inline]
    pub fn seq_len(&self) -> u32 {
        self.payload
            .wrapping_add(u32::from(self.flags.any(TcpFlags::SYN)))
            .wrapping_add(u32::from(self.flags.any(TcpFlags::FIN)))
    }

    /// The sequence number after the segment.
    #[inline]
    pub fn end(&self) -> Seq {
        self.seq.add(self.seq_len())
    }

    /// True for a segment with the ACK flag only (PSH and ECN bits aside) and no payload.
    #[inline]
    pub fn is_pure_ack(&self) -> bool {
        self.flags.any(TcpFlags::ACK)
            && !self.flags.any(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
            && self.payload == 0
    }
}

/// An ARP packet for IPv4 over Ethernet, or an IPv6 neighbour solicitation or advertisement in the same words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// True for a request (ARP operation 1, neighbour solicitation), false for an answer.
    pub request: bool,
    /// The sender's protocol address (for an advertisement, the target it speaks for). All zero in a probe.
    pub sender_ip: Addr,
    /// The sender's hardware address as the packet body gives it; zero if it gives none.
    pub sender_mac: Mac,
    /// The protocol address asked for, or in an ARP answer the asker's.
    pub target_ip: Addr,
    /// The target hardware address in the body; zero in requests.
    pub target_mac: Mac,
    /// A neighbour advertisement or solicitation instead of ARP.
    pub ipv6: bool,
    /// The advertisement's solicited flag; true for every ARP answer that is not gratuitous.
    pub solicited: bool,
    /// True for an advertisement that does not ask to be believed over another one: of an anycast address, or a proxy's (no override flag;
    /// RFC 4861 sections 7.2.7 and 7.2.8).
    pub yields: bool,
}

/// Why a packet could not be decoded; counted one by one, and often itself a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Malformed {
    /// The link-layer header is cut.
    LinkTruncated,
    /// More than two VLAN tags, or a tag that is cut.
    VlanTruncated,
    /// The IPv4 header is cut, or its length field says less than 20 bytes.
    Ipv4Header,
    /// The IPv6 header is cut.
    Ipv6Header,
    /// The IP version field is neither 4 nor 6, or disagrees with the EtherType.
    IpVersion,
    /// The IP total length is smaller than its header.
    IpLength,
    /// An IPv6 extension header is cut or the chain is longer than eight.
    Ipv6Extensions,
    /// The TCP header is cut by the packet's own length (in a first fragment: a sign in itself).
    TcpTruncated,
    /// The TCP data offset says less than 20 bytes, or more than the packet has.
    TcpOffset,
    /// The ARP packet is cut or not IPv4 over Ethernet.
    Arp,
    /// The neighbour message is cut or its options are.
    Neighbour,
    /// A tunnel header is cut or its lengths do not fit.
    Tunnel,
    /// The capture's snap length cut the headers: nothing wrong with the packet.
    SnapLength,
}

impl Malformed {
    /// Number of variants.
    pub const COUNT: usize = 13;

    /// All variants, in order of their numbers.
    pub const ALL: [Malformed; Malformed::COUNT] = [
        Malformed::LinkTruncated,
        Malformed::VlanTruncated,
        Malformed::Ipv4Header,
        Malformed::Ipv6Header,
        Malformed::IpVersion,
        Malformed::IpLength,
        Malformed::Ipv6Extensions,
        Malformed::TcpTruncated,
        Malformed::TcpOffset,
        Malformed::Arp,
        Malformed::Neighbour,
        Malformed::Tunnel,
        Malformed::SnapLength,
    ];

    /// The name in counters and records.
    pub const fn name(self) -> &'static str {
        match self {
            Malformed::LinkTruncated => "link_truncated",
            Malformed::VlanTruncated => "vlan_truncated",
            Malformed::Ipv4Header => "ipv4_header",
            Malformed::Ipv6Header => "ipv6_header",
            Malformed::IpVersion => "ip_version",
            Malformed::IpLength => "ip_length",
            Malformed::Ipv6Extensions => "ipv6_extensions",
            Malformed::TcpTruncated => "tcp_truncated",
            Malformed::TcpOffset => "tcp_offset",
            Malformed::Arp => "arp",
            Malformed::Neighbour => "neighbour",
            Malformed::Tunnel => "tunnel",
            Malformed::SnapLength => "snap_length",
        }
    }
}

/// What a tunnel in front of the inner packet was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// No tunnel.
    #[default]
    None,
    /// VXLAN (RFC 7348).
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
    /// GRE (RFC 2784, 2890), Ethernet or IP inside.
    Gre,
    /// IPv4 in IPv4 (RFC 2003).
    IpIp,
    /// IPv6 in IPv4 (RFC 4213).
    SixInFour,
    /// IPv4 or IPv6 in IPv6 (RFC 2473).
    InIpv6,
    /// Teredo: IPv6 in UDP (RFC 4380).
    Teredo,
}

/// The outermost tunnel header of a packet, where there was one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// What it is.
    pub kind: TunnelKind,
    /// Outer source address.
    pub src: Addr,
    /// Outer destination address.
    pub dst: Addr,
    /// VXLAN or Geneve network identifier, or the GRE key; 0 without one.
    pub id: u32,
}

impl TunnelKind {
    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            TunnelKind::None => "none",
            TunnelKind::Vxlan => "vxlan",
            TunnelKind::Geneve => "geneve",
            TunnelKind::Gre => "gre",
            TunnelKind::IpIp => "ipip",
            TunnelKind::SixInFour => "6in4",
            TunnelKind::InIpv6 => "ip6tnl",
            TunnelKind::Teredo => "teredo",
        }
    }
}

impl IcmpError {
    /// Protocol, type and code as records name them, with the words of RFC 792, RFC 1812 and RFC 4443 for the usual ones.
    pub fn name(&self) -> String {
        let words = match (self.ipv6, self.icmp_type, self.code) {
            (false, 3, 0) | (true, 1, 0) => " (network unreachable)",
            (false, 3, 1) | (true, 1, 3) => " (host unreachable)",
            (false, 3, 2) => " (protocol unreachable)",
            (false, 3, 3) | (true, 1, 4) => " (port unreachable)",
            (false, 3, 4) | (true, 2, _) => " (too big)",
            (false, 3, 9 | 10 | 13) | (true, 1, 1 | 5) => " (prohibited)",
            (false, 11, _) | (true, 3, _) => " (time exceeded)",
            _ => "",
        };
        let protocol = if self.ipv6 { "icmp6" } else { "icmp" };
        format!("{protocol} {}/{}{words}", self.icmp_type, self.code)
    }
}

/// A TCP tuple quoted in an ICMP or ICMPv6 error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Who sent the error.
    pub from: Addr,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub code: u8,
    /// True for ICMPv6.
    pub ipv6: bool,
    /// Quoted source (the sender of the packet that failed).
    pub src: Addr,
    /// Quoted destination.
    pub dst: Addr,
    /// Quoted source port.
    pub sport: u16,
    /// Quoted destination port.
    pub dport: u16,
    /// Quoted sequence number.
    pub seq: Seq,
    /// Next-hop MTU of "fragmentation needed" or "packet too big"; 0 otherwise.
    pub mtu: u32,
}

/// What a packet turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A TCP segment.
    Tcp(Segment),
    /// ARP or IPv6 neighbour discovery.
    Arp(Arp),
    /// An ICMP error that quotes a TCP tuple.
    Icmp(IcmpError),
    /// A fragment that is not the first: no ports.
    LaterFragment,
    /// Anything else; nothing to track.
    Other,
    /// Not decodable.
    Malformed(Malformed),
}

/// One decoded packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Source MAC of the outermost Ethernet header (of the inner one where a tunnel carries Ethernet).
    pub src_mac: Mac,
    /// Destination MAC, likewise.
    pub dst_mac: Mac,
    /// VLAN tags.
    pub vlans: Vlans,
    /// The outermost tunnel.
    pub tunnel: Tunnel,
    /// Whether this is a first fragment of several.
    pub first_fragment: bool,
    /// The rest.
    pub body: Body,
}

impl Decoded {
    /// A packet of which nothing is known.
    pub const NOTHING: Decoded = Decoded {
        src_mac: Mac([0; 6]),
        dst_mac: Mac([0; 6]),
        vlans: Vlans { tci: [0; 2], count: 0 },
        tunnel: Tunnel { kind: TunnelKind::None, src: Addr([0; 16]), dst: Addr([0; 16]), id: 0 },
        first_fragment: false,
        body: Body::Other,
    };
}
