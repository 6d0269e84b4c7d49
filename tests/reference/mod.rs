//! What the kernel side ought to choose, said a second time in plain Rust: no cursor, no bounds games, one
//! question after the other. And frames to ask about.

#![allow(dead_code)]

use syntap::bpf::Counter;
use syntap::bpf::abi::reason;
use syntap::wire::Addr;

/// Source and destination of a tuple.
pub type Tuple = (Addr, u16, Addr, u16);

/// What ought to become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The counter that says so.
    pub counter: Counter,
    /// Reason bits; 0 if it is not chosen.
    pub reason: u16,
    /// The tuple whose hash it carries.
    pub tuple: Option<Tuple>,
}

fn no(counter: Counter) -> Choice {
    Choice { counter, reason: 0, tuple: None }
}

fn be16(b: &[u8], at: usize) -> usize {
    usize::from(b[at]) << 8 | usize::from(b[at + 1])
}

/// An IP packet cut to its own length, its transport protocol, and where that begins.
struct Ip<'a> {
    packet: &'a [u8],
    protocol: u8,
    transport: usize,
    src: Addr,
    dst: Addr,
    first_fragment: bool,
}

fn ipv4(bytes: &[u8], quoted: bool) -> Result<Ip<'_>, Counter> {
    if bytes.len() < 20 || bytes[0] >> 4 != 4 {
        return Err(Counter::Ipv4Bad);
    }
    let header = usize::from(bytes[0] & 15) * 4;
    if header < 20 || header > bytes.len() {
        return Err(Counter::Ipv4Bad);
    }
    let total = be16(bytes, 2);
    let mut packet = bytes;
    if !quoted && total != 0 {
        if total < header {
            return Err(Counter::Ipv4Bad);
        }
        packet = &bytes[..total.min(bytes.len())];
    }
    let fragment = be16(bytes, 6);
    if fragment & 0x1fff != 0 {
        return Err(Counter::LaterFragment);
    }
    let addr = |at: usize| Addr::v4([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok(Ip {
        packet,
        protocol: bytes[9],
        transport: header,
        src: addr(12),
        dst: addr(16),
        first_fragment: fragment & 0x2000 != 0,
    })
}

fn ipv6(bytes: &[u8], quoted: bool) -> Result<Ip<'_>, Counter> {
    if bytes.len() < 40 || bytes[0] >> 4 != 6 {
        return Err(Counter::Ipv6Bad);
    }
    let payload = be16(bytes, 4);
    let packet = match payload {
        0 => bytes,
        _ if quoted => bytes,
        n => &bytes[..(40 + n).min(bytes.len())],
    };
    let mut protocol = bytes[6];
    let mut at = 40;
    let mut headers = 0;
    let mut first_fragment = false;
    while [0, 43, 44, 51, 60, 135].contains(&protocol) {
        headers += 1;
        if headers > 8 || at + 8 > packet.len() {
            return Err(Counter::Ipv6ChainBad);
        }
        let length = match protocol {
            44 => {
                let field = be16(packet, at + 2);
                if field & 0xfff8 != 0 {
                    return Err(Counter::LaterFragment);
                }
                first_fragment |= field & 1 != 0;
                8
            }
            51 => (usize::from(packet[at + 1]) + 2) * 4,
            _ => (usize::from(packet[at + 1]) + 1) * 8,
        };
        protocol = packet[at];
        at += length;
        if at > packet.len() {
            return Err(Counter::Ipv6ChainBad);
        }
    }
    let addr = |at: usize| Addr(bytes[at..at + 16].try_into().unwrap());
    Ok(Ip { packet, protocol, transport: at, src: addr(8), dst: addr(24), first_fragment })
}

fn flag_reason(flags: u8) -> u16 {
    let (fin, syn, rst, ack) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
    let mut bits = 0;
    if syn {
        bits |= reason::SYN;
    }
    if fin {
        bits |= reason::FIN;
    }
    if rst {
        bits |= reason::RST;
    }
    let odd = match (syn, fin, rst) {
        (true, true, _) | (true, _, true) | (_, true, true) => true,
        (true, ..) | (_, _, true) => false,
        _ => !ack,
    };
    if odd { bits | reason::ODD } else { bits }
}

/// The choice for a frame, if no tuple is under watch and the budget has room.
pub fn choose(frame: &[u8], chosen: &dyn Fn(u16) -> bool) -> Choice {
    if frame.len() < 14 {
        return no(Counter::LinkCut);
    }
    let mut kind = be16(frame, 12);
    let mut at = 14;
    let mut tags = 0;
    while [0x8100, 0x88a8, 0x9100].contains(&kind) {
        tags += 1;
        if tags > 2 || at + 4 > frame.len() {
            return no(Counter::VlanBad);
        }
        kind = be16(frame, at + 2);
        at += 4;
    }
    let ip = match kind {
        0x0806 => {
            return Choice { counter: Counter::SelectedNeighbour, reason: reason::ARP, tuple: None };
        }
        0x0800 => ipv4(&frame[at..], false),
        0x86dd => ipv6(&frame[at..], false),
        _ => Err(Counter::NotIp),
    };
    let ip = match ip {
        Ok(ip) => ip,
        Err(counter) => return no(counter),
    };
    let mut choice = transport(&ip, kind == 0x86dd, chosen);
    if choice.reason != 0 && ip.first_fragment {
        choice.reason |= reason::FRAGMENT;
    }
    choice
}

fn transport(ip: &Ip<'_>, six: bool, chosen: &dyn Fn(u16) -> bool) -> Choice {
    let rest = ip.packet.get(ip.transport..).unwrap_or(&[]);
    match ip.protocol {
        6 => tcp(ip, rest, chosen),
        1 if !six => icmp(rest, false, chosen),
        58 if six => icmp(rest, true, chosen),
        _ => no(Counter::NotTcp),
    }
}

fn tcp(ip: &Ip<'_>, segment: &[u8], chosen: &dyn Fn(u16) -> bool) -> Choice {
    if segment.len() < 4 {
        return no(Counter::TcpCut);
    }
    let (sport, dport) = (be16(segment, 0) as u16, be16(segment, 2) as u16);
    if !chosen(sport) && !chosen(dport) {
        return no(Counter::PortNotChosen);
    }
    let tuple = Some((ip.src, sport, ip.dst, dport));
    let (mut bits, mut broken, mut syn) = (0, true, false);
    if segment.len() >= 20 {
        let header = usize::from(segment[12] >> 4) * 4;
        broken = header < 20 || header > segment.len();
        bits = flag_reason(segment[13]);
        syn = segment[13] & 0x17 == 2;
    }
    if broken {
        bits |= reason::BROKEN;
    }
    let counter = match bits {
        0 => return no(Counter::NotWatched),
        _ if syn && !broken => Counter::SelectedSyn,
        _ => Counter::SelectedControl,
    };
    Choice { counter, reason: bits, tuple }
}

fn icmp(message: &[u8], six: bool, chosen: &dyn Fn(u16) -> bool) -> Choice {
    if message.len() < 8 {
        return no(Counter::NotTcp);
    }
    if six && [135, 136].contains(&message[0]) {
        return Choice { counter: Counter::SelectedNeighbour, reason: reason::NEIGHBOUR, tuple: None };
    }
    let error = if six { (1..=4).contains(&message[0]) } else { [3, 11, 12].contains(&message[0]) };
    if !error {
        return no(Counter::NotTcp);
    }
    let quoted = if six { ipv6(&message[8..], true) } else { ipv4(&message[8..], true) };
    let Ok(quoted) = quoted else { return no(Counter::NotTcp) };
    let ports = quoted.packet.get(quoted.transport..).unwrap_or(&[]);
    if quoted.protocol != 6 || ports.len() < 4 {
        return no(Counter::NotTcp);
    }
    let (sport, dport) = (be16(ports, 0) as u16, be16(ports, 2) as u16);
    if !chosen(sport) && !chosen(dport) {
        return no(Counter::PortNotChosen);
    }
    let tuple = Some((quoted.src, sport, quoted.dst, dport));
    Choice { counter: Counter::SelectedIcmp, reason: reason::ICMP, tuple }
}

/// Builds frames from the inside out.
pub mod build {
    /// 20 bytes of TCP header with `options` bytes more.
    pub fn tcp(sport: u16, dport: u16, flags: u16, options: usize) -> Vec<u8> {
        let mut b = vec![0; 20 + options];
        b[..2].copy_from_slice(&sport.to_be_bytes());
        b[2..4].copy_from_slice(&dport.to_be_bytes());
        b[4..8].copy_from_slice(&0x1234_5678u32.to_be_bytes());
        b[12] = ((20 + options) as u8 / 4) << 4 | (flags >> 8) as u8;
        b[13] = flags as u8;
        b
    }

    /// An IPv4 packet with `options` bytes of options and a fragment field.
    pub fn ipv4(protocol: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![0; 20 + options];
        b[0] = 0x40 | ((20 + options) as u8 / 4);
        let total = (b.len() + payload.len()) as u16;
        b[2..4].copy_from_slice(&total.to_be_bytes());
        b[6..8].copy_from_slice(&fragment.to_be_bytes());
        b[8] = 64;
        b[9] = protocol;
        b[12..16].copy_from_slice(&[10, 77, 0, 11]);
        b[16..20].copy_from_slice(&[198, 51, 100, 2]);
        b.extend(payload);
        b
    }

    /// An IPv6 packet; each extension is its kind and its bytes, whose first is set to what follows.
    pub fn ipv6(protocol: u8, extensions: &[(u8, Vec<u8>)], payload: &[u8]) -> Vec<u8> {
        let length: usize = extensions.iter().map(|e| e.1.len()).sum::<usize>() + payload.len();
        let mut b = vec![0; 40];
        b[0] = 0x60;
        b[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        b[6] = extensions.first().map_or(protocol, |e| e.0);
        b[7] = 64;
        b[8..24].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11]);
        b[24..40].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        for (i, (_, bytes)) in extensions.iter().enumerate() {
            let at = b.len();
            b.extend(bytes);
            b[at] = extensions.get(i + 1).map_or(protocol, |e| e.0);
        }
        b.extend(payload);
        b
    }

    /// An extension header of 8 + 8 * `more` bytes.
    pub fn extension(more: u8) -> Vec<u8> {
        let mut b = vec![0; 8 + 8 * usize::from(more)];
        b[1] = more;
        b
    }

    /// A fragment header.
    pub fn fragment(field: u16) -> Vec<u8> {
        let mut b = vec![0; 8];
        b[2..4].copy_from_slice(&field.to_be_bytes());
        b
    }

    /// An authentication header of 12 bytes.
    pub fn auth() -> Vec<u8> {
        let mut b = vec![0; 12];
        b[1] = 1;
        b
    }

    /// An ICMP or ICMPv6 message.
    pub fn icmp(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        b.extend(payload);
        b
    }

    /// An Ethernet frame with VLAN tags, outermost first, given by their EtherTypes.
    pub fn ethernet(tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for (i, tag) in tags.iter().enumerate() {
            b.extend(tag.to_be_bytes());
            b.extend((100 + i as u16).to_be_bytes());
        }
        b.extend(kind.to_be_bytes());
        b.extend(payload);
        b
    }
}

/// A frame of every shape that the kernel side tells apart, with a name.
pub fn shapes() -> Vec<(String, Vec<u8>)> {
    use build::*;
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, frame: Vec<u8>| all.push((name.to_owned(), frame));
    let syn = || tcp(40000, 80, 2, 20);
    let v4 = |payload: &[u8]| ipv4(6, 0, 0, payload);

    add("syn", ethernet(&[], 0x0800, &v4(&syn())));
    add("syn-ack with payload", ethernet(&[], 0x0800, &v4(&[tcp(80, 40000, 0x12, 0), vec![7; 60]].concat())));
    add("padded to 60", [ethernet(&[], 0x0800, &v4(&tcp(40000, 80, 4, 0))), vec![0; 6]].concat());
    add("plain ack", ethernet(&[], 0x0800, &v4(&tcp(40000, 80, 0x10, 12))));
    add("port not chosen", ethernet(&[], 0x0800, &v4(&tcp(40000, 81, 2, 0))));
    add("options of ip", ethernet(&[], 0x0800, &ipv4(6, 40, 0, &syn())));
    add("data offset too small", {
        let mut segment = syn();
        segment[12] = 0x40;
        ethernet(&[], 0x0800, &v4(&segment))
    });
    add("data offset too large", {
        let mut segment = tcp(40000, 80, 0x10, 0);
        segment[12] = 0xf0;
        ethernet(&[], 0x0800, &v4(&segment))
    });
    add("ip length of zero", {
        let mut packet = v4(&syn());
        packet[2..4].fill(0);
        ethernet(&[], 0x0800, &packet)
    });
    add("ip length under its header", {
        let mut packet = v4(&syn());
        packet[2..4].copy_from_slice(&[0, 19]);
        ethernet(&[], 0x0800, &packet)
    });
    add("ip length cuts the tcp header", {
        let mut packet = v4(&syn());
        packet[2..4].copy_from_slice(&[0, 30]);
        ethernet(&[], 0x0800, &packet)
    });
    add("ip version 5", {
        let mut packet = v4(&syn());
        packet[0] = 0x55;
        ethernet(&[], 0x0800, &packet)
    });
    add("ip header of 16", {
        let mut packet = v4(&syn());
        packet[0] = 0x44;
        ethernet(&[], 0x0800, &packet)
    });
    for tag in [0x8100, 0x88a8, 0x9100] {
        add(&format!("one tag {tag:x}"), ethernet(&[tag], 0x0800, &v4(&syn())));
        add(&format!("two tags {tag:x}"), ethernet(&[tag, 0x8100], 0x86dd, &ipv6(6, &[], &syn())));
        add(&format!("three tags {tag:x}"), ethernet(&[tag, 0x8100, 0x8100], 0x0800, &v4(&syn())));
    }
    add("first fragment", ethernet(&[], 0x0800, &ipv4(6, 0, 0x2000, &syn())));
    add("later fragment", ethernet(&[], 0x0800, &ipv4(6, 0, 0x2001, &syn())));
    add("last fragment", ethernet(&[], 0x0800, &ipv4(6, 0, 0x00b9, &syn())));
    add("do not fragment", ethernet(&[], 0x0800, &ipv4(6, 0, 0x4000, &syn())));
    add("udp", ethernet(&[], 0x0800, &ipv4(17, 0, 0, &[0; 20])));
    add("arp", ethernet(&[], 0x0806, &[0; 28]));
    add("arp behind a tag", ethernet(&[0x8100], 0x0806, &[0; 28]));
    add("mpls", ethernet(&[], 0x8847, &[0; 30]));
    add("802.3 length", ethernet(&[], 0x0026, &[0; 38]));

    add("syn over ipv6", ethernet(&[], 0x86dd, &ipv6(6, &[], &syn())));
    add("jumbogram", {
        let mut packet = ipv6(6, &[], &syn());
        packet[4..6].fill(0);
        ethernet(&[], 0x86dd, &packet)
    });
    add("ipv6 length cuts the tcp header", {
        let mut packet = ipv6(6, &[], &syn());
        packet[4..6].copy_from_slice(&[0, 8]);
        ethernet(&[], 0x86dd, &packet)
    });
    add("ipv6 version 4", {
        let mut packet = ipv6(6, &[], &syn());
        packet[0] = 0x40;
        ethernet(&[], 0x86dd, &packet)
    });
    for kind in [0u8, 43, 60, 135] {
        let headers = [(kind, extension(1))];
        add(&format!("extension {kind}"), ethernet(&[], 0x86dd, &ipv6(6, &headers, &syn())));
    }
    add("authentication", ethernet(&[], 0x86dd, &ipv6(6, &[(51, auth())], &syn())));
    add("encrypted", ethernet(&[], 0x86dd, &ipv6(50, &[(0, extension(0))], &[0; 32])));
    add("no next header", ethernet(&[], 0x86dd, &ipv6(59, &[], &[0; 32])));
    for n in [2, 7, 8, 9] {
        let headers: Vec<_> = (0..n).map(|i| ([0, 60, 43][i % 3], extension(0))).collect();
        add(&format!("{n} extensions"), ethernet(&[], 0x86dd, &ipv6(6, &headers, &syn())));
    }
    let mixed = [(0, extension(0)), (44, fragment(1)), (51, auth()), (60, extension(3))];
    add("first fragment over ipv6", ethernet(&[0x88a8, 0x8100], 0x86dd, &ipv6(6, &mixed, &syn())));
    add("later fragment over ipv6", ethernet(&[], 0x86dd, &ipv6(6, &[(44, fragment(0x9))], &syn())));
    add("atomic fragment", ethernet(&[], 0x86dd, &ipv6(6, &[(44, fragment(0))], &syn())));
    add("long extension", ethernet(&[], 0x86dd, &ipv6(6, &[(0, extension(40))], &syn())));

    for kind in [133u8, 135, 136, 128] {
        add(&format!("icmpv6 {kind}"), ethernet(&[], 0x86dd, &ipv6(58, &[], &icmp(kind, &[0; 24]))));
    }
    let hop = [(0, extension(0))];
    add("neighbour behind hop-by-hop", ethernet(&[], 0x86dd, &ipv6(58, &hop, &icmp(135, &[0; 16]))));
    for kind in [1u8, 2, 3, 4, 5] {
        let quote = ipv6(6, &[(60, extension(0))], &syn()[..8]);
        add(&format!("icmpv6 error {kind}"), ethernet(&[], 0x86dd, &ipv6(58, &[], &icmp(kind, &quote))));
    }
    for kind in [0u8, 3, 4, 5, 8, 11, 12] {
        let quote = ipv4(6, 4, 0x4000, &syn()[..8]);
        add(&format!("icmp {kind}"), ethernet(&[], 0x0800, &ipv4(1, 0, 0, &icmp(kind, &quote))));
    }
    let udp = ipv4(17, 0, 0, &[0; 8]);
    add("icmp error about udp", ethernet(&[], 0x0800, &ipv4(1, 0, 0, &icmp(3, &udp))));
    let other = ipv4(6, 0, 0, &tcp(40000, 81, 2, 0)[..8]);
    add("icmp error about another port", ethernet(&[], 0x0800, &ipv4(1, 0, 0, &icmp(3, &other))));
    let later = ipv4(6, 0, 1, &syn());
    add("icmp error about a later fragment", ethernet(&[], 0x0800, &ipv4(1, 0, 0, &icmp(3, &later))));
    add("icmpv6 in ipv4", ethernet(&[], 0x0800, &ipv4(58, 0, 0, &icmp(135, &[0; 24]))));
    add("icmp in ipv6", ethernet(&[], 0x86dd, &ipv6(1, &[], &icmp(3, &other))));
    all
}
