//! What the kernel side ought to choose, said a second time in plain Rust: no cursor, no bounds games, one
//! question after the other. And frames to ask about.

#![allow(dead_code)]

pub mod budget;
pub mod build;
pub mod shapes;

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
    /// Bytes of tunnel in front of the inside; 0 outside of one.
    pub inside: usize,
}

const NOTHING: Choice = Choice { counter: Counter::NotTcp, reason: 0, tuple: None, inside: 0 };

fn no(counter: Counter) -> Choice {
    Choice { counter, ..NOTHING }
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
    ethernet(frame, false, chosen)
}

fn ethernet(frame: &[u8], inside: bool, chosen: &dyn Fn(u16) -> bool) -> Choice {
    if frame.len() < 14 {
        return no(Counter::LinkCut);
    }
    payload(be16(frame, 12), frame, 14, inside, chosen)
}

/// What an EtherType announces at `at`. `inside` a tunnel no other is looked into.
fn payload(
    mut kind: usize,
    frame: &[u8],
    mut at: usize,
    inside: bool,
    chosen: &dyn Fn(u16) -> bool,
) -> Choice {
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
            return Choice { counter: Counter::SelectedNeighbour, reason: reason::ARP, ..NOTHING };
        }
        0x0800 => ipv4(&frame[at..], false),
        0x86dd => ipv6(&frame[at..], false),
        _ => Err(Counter::NotIp),
    };
    let ip = match ip {
        Ok(ip) => ip,
        Err(counter) => return no(counter),
    };
    let rest = ip.packet.get(ip.transport..).unwrap_or(&[]);
    let mut choice = match ip.protocol {
        6 => tcp(&ip, rest, chosen),
        1 if kind == 0x0800 => icmp(rest, false, chosen),
        58 if kind == 0x86dd => icmp(rest, true, chosen),
        protocol if !inside => {
            let mut choice = tunnel(protocol, rest, chosen);
            if choice.inside != 0 {
                choice.inside += at + ip.transport;
            }
            choice
        }
        _ => no(Counter::NotTcp),
    };
    if choice.reason != 0 && ip.first_fragment {
        choice.reason |= reason::FRAGMENT;
    }
    choice
}

/// What the transport protocols that are tunnels carry: EtherType and first byte of the inside.
fn tunnel(protocol: u8, rest: &[u8], chosen: &dyn Fn(u16) -> bool) -> Choice {
    let entered = match protocol {
        4 => Ok((0x0800, 0)),
        41 => Ok((0x86dd, 0)),
        47 => gre(rest),
        17 if rest.len() >= 4 => match be16(rest, 2) {
            4789 | 8472 | 6081 if rest.len() < 16 => Err(Counter::TunnelBad),
            4789 | 8472 if rest[8] & 8 != 0 => Ok((0x6558, 16)),
            6081 if rest[8] >> 6 == 0 => Ok((be16(rest, 10), 16 + 4 * usize::from(rest[8] & 63))),
            _ => Err(Counter::NotTcp),
        },
        _ => Err(Counter::NotTcp),
    };
    let (kind, at) = match entered {
        Ok((_, at)) if at > rest.len() => return no(Counter::TunnelBad),
        Ok(entered) => entered,
        Err(counter) => return no(counter),
    };
    let inner = &rest[at..];
    let mut choice =
        if kind == 0x6558 { ethernet(inner, true, chosen) } else { payload(kind, inner, 0, true, chosen) };
    if choice.reason != 0 {
        choice.reason |= reason::TUNNEL;
        choice.inside = at;
    }
    choice
}

fn gre(header: &[u8]) -> Result<(usize, usize), Counter> {
    if header.len() < 4 {
        return Err(Counter::TunnelBad);
    }
    let flags = be16(header, 0);
    if flags & 0x4007 != 0 {
        return Err(Counter::NotTcp);
    }
    let fields = [0x8000, 0x2000, 0x1000].iter().filter(|bit| flags & **bit != 0).count();
    Ok((be16(header, 2), 4 + 4 * fields))
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
    Choice { counter, reason: bits, tuple, ..NOTHING }
}

fn icmp(message: &[u8], six: bool, chosen: &dyn Fn(u16) -> bool) -> Choice {
    if message.len() < 8 {
        return no(Counter::NotTcp);
    }
    if six && [135, 136].contains(&message[0]) {
        return Choice { counter: Counter::SelectedNeighbour, reason: reason::NEIGHBOUR, ..NOTHING };
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
    Choice { counter: Counter::SelectedIcmp, reason: reason::ICMP, tuple, ..NOTHING }
}
