//! Packets made by hand, and captures of them.

use std::net::Ipv4Addr;

/// TCP over IPv4 over Ethernet.
#[derive(Clone, Debug)]
pub struct Tcp {
    pub src: (Ipv4Addr, u16),
    pub dst: (Ipv4Addr, u16),
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub win: u16,
    pub options: Vec<u8>,
    pub payload: usize,
    pub ttl: u8,
    pub id: u16,
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// The Internet checksum.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let sum = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

impl Tcp {
    /// The SYN of one of many clients, from 10.`net`.x.y to 192.0.2.1:443: each `n` below 2^24 has an address and port of its own.
    pub fn syn_of(net: u8, n: u64) -> Tcp {
        Tcp {
            src: (Ipv4Addr::new(10, net, (n >> 16) as u8, (n >> 8) as u8), 1_024 + n as u16 % 256),
            dst: (Ipv4Addr::new(192, 0, 2, 1), 443),
            flags: SYN,
            seq: n as u32,
            ack: 0,
            win: 64_240,
            options: vec![],
            payload: 0,
            ttl: 64,
            id: 0,
        }
    }

    /// The frame, MAC addresses made from the last byte of each address.
    pub fn frame(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut tcp = Vec::new();
        tcp.extend(self.src.1.to_be_bytes());
        tcp.extend(self.dst.1.to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.push((((20 + options.len()) / 4) << 4) as u8);
        tcp.push(self.flags);
        tcp.extend(self.win.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(std::iter::repeat_n(b'x', self.payload));
        let mut ip = vec![0x45, 0];
        ip.extend((20 + tcp.len() as u16).to_be_bytes());
        ip.extend(self.id.to_be_bytes());
        ip.extend([0x40, 0, self.ttl, 6, 0, 0]);
        ip.extend(self.src.0.octets());
        ip.extend(self.dst.0.octets());
        let sum = checksum(&[&ip]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let sum = checksum(&[&ip[12..20], &[0, 6], &(tcp.len() as u16).to_be_bytes(), &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mac = |a: Ipv4Addr| [2, 0, 0, 0, 0, a.octets()[3]];
        [&mac(self.dst.0)[..], &mac(self.src.0), &[8, 0], &ip, &tcp].concat()
    }
}

/// A classic capture with microseconds.
pub fn pcap(packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(0xa1b2_c3d4u32.to_le_bytes());
    out.extend([2, 0, 4, 0]);
    out.extend([0; 8]);
    out.extend(262_144u32.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    for (us, frame) in packets {
        out.extend(((us / 1_000_000) as u32).to_le_bytes());
        out.extend(((us % 1_000_000) as u32).to_le_bytes());
        out.extend((frame.len() as u32).to_le_bytes());
        out.extend((frame.len() as u32).to_le_bytes());
        out.extend(frame);
    }
    out
}

/// The MAC address that frames of `addr` come from.
pub fn mac(addr: Ipv4Addr) -> [u8; 6] {
    [2, 0, 0, 0, 0, addr.octets()[3]]
}

/// The frame with other Ethernet addresses.
pub fn with_macs(mut frame: Vec<u8>, src: [u8; 6], dst: [u8; 6]) -> Vec<u8> {
    frame[..6].copy_from_slice(&dst);
    frame[6..12].copy_from_slice(&src);
    frame
}

/// The frame with VLAN tags, outermost first.
pub fn vlan(mut frame: Vec<u8>, ids: &[u16]) -> Vec<u8> {
    let tags: Vec<u8> = ids.iter().flat_map(|id| [0x81, 0, (id >> 8) as u8, *id as u8]).collect();
    frame.splice(12..12, tags);
    frame
}

/// An IPv4 packet in an Ethernet frame.
pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend((20 + body.len() as u16).to_be_bytes());
    ip.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
    ip.extend(src.octets());
    ip.extend(dst.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&mac(dst)[..], &mac(src), &[8, 0], &ip, body].concat()
}

/// The frame in a VXLAN tunnel between two machines.
pub fn vxlan(frame: &[u8], src: Ipv4Addr, dst: Ipv4Addr, vni: u32) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend(50_000u16.to_be_bytes());
    udp.extend(4_789u16.to_be_bytes());
    udp.extend((16 + frame.len() as u16).to_be_bytes());
    udp.extend([0, 0, 8, 0, 0, 0]);
    udp.extend((vni << 8).to_be_bytes());
    udp.extend(frame);
    ipv4(src, dst, 17, &udp)
}

/// An ICMP error that quotes a frame's IPv4 header and 8 bytes more, as RFC 792 asks for at least. `mtu` is 0 but for type
/// 3 code 4.
pub fn icmp(from: Ipv4Addr, to: Ipv4Addr, (kind, code): (u8, u8), mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, code, 0, 0, 0, 0];
    body.extend(mtu.to_be_bytes());
    body.extend(&quoted[14..14 + 28]);
    let sum = checksum(&[&body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, 1, &body)
}

/// An ARP packet: who speaks (MAC and address in the body), whom it asks or answers, and its Ethernet addresses. A request
/// goes to all.
pub fn arp(request: bool, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let to = if request { [0xff; 6] } else { target.0 };
    let asked = if request { [0; 6] } else { target.0 };
    let op = if request { 1 } else { 2 };
    [
        &to[..],
        &sender.0,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, op],
        &sender.0,
        &sender.1.octets(),
        &asked,
        &target.1.octets(),
    ]
    .concat()
}

/// The IPv6 address that stands for an IPv4 one here.
pub fn v6(addr: Ipv4Addr) -> [u8; 16] {
    let mut a = [0; 16];
    a[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    a[12..].copy_from_slice(&addr.octets());
    a
}

fn ipv6(macs: ([u8; 6], [u8; 6]), ends: ([u8; 16], [u8; 16]), next: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u16).to_be_bytes();
    [&macs.1[..], &macs.0, &[0x86, 0xdd, 0x60, 0, 0, 0], &len, &[next, hops], &ends.0, &ends.1, body].concat()
}

/// A neighbour advertisement (RFC 4861 section 4.4): `mac` has `owner`, said to `asker`, because it asked.
pub fn advertisement(mac: [u8; 6], owner: Ipv4Addr, asker: Ipv4Addr) -> Vec<u8> {
    let body = [&[136, 0, 0, 0, 0x60, 0, 0, 0], &v6(owner)[..], &[2, 1], &mac].concat();
    ipv6((mac, self::mac(asker)), (v6(owner), v6(asker)), 58, 255, &body)
}

/// A neighbour solicitation (RFC 4861 section 4.3): `asker` wants to know who has `owner`.
pub fn solicitation(asker: Ipv4Addr, owner: Ipv4Addr) -> Vec<u8> {
    let mac = self::mac(asker);
    let body = [&[135, 0, 0, 0, 0, 0, 0, 0], &v6(owner)[..], &[1, 1], &mac].concat();
    ipv6((mac, self::mac(owner)), (v6(asker), v6(owner)), 58, 255, &body)
}

impl Tcp {
    /// The same segment over IPv6.
    pub fn frame6(&self) -> Vec<u8> {
        let four = self.frame();
        let macs = (mac(self.src.0), mac(self.dst.0));
        ipv6(macs, (v6(self.src.0), v6(self.dst.0)), 6, self.ttl, &four[34..])
    }

    /// The frame with words instead of the payload.
    pub fn frame_saying(&self, words: &str) -> Vec<u8> {
        let tcp = Tcp { payload: words.len(), ..self.clone() };
        let mut frame = tcp.frame();
        let at = frame.len() - words.len();
        frame[at..].copy_from_slice(words.as_bytes());
        frame
    }
}

/// A pcapng capture of one interface, with the direction of each packet as a tap saw it: 1 in, 2 out, 0 unknown.
pub fn pcapng(packets: &[(u64, u32, Vec<u8>)]) -> Vec<u8> {
    pcapng_by("", packets)
}

/// The same, of the application that says that it wrote it.
pub fn pcapng_by(application: &str, packets: &[(u64, u32, Vec<u8>)]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let len = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    };
    let mut by = Vec::new();
    if !application.is_empty() {
        by.extend([4, 0, application.len() as u8, 0]);
        by.extend(application.as_bytes());
        by.resize(by.len().next_multiple_of(4), 0);
        by.extend([0; 4]);
    }
    let mut out =
        block(0x0a0d_0d0a, &[&0x1a2b_3c4du32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8], &by].concat());
    out.extend(block(1, &[1, 0, 0, 0, 0, 0, 4, 0]));
    for (us, way, frame) in packets {
        let mut body = Vec::new();
        for word in [0, (us >> 32) as u32, *us as u32, frame.len() as u32, frame.len() as u32] {
            body.extend(word.to_le_bytes());
        }
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend([2, 0, 4, 0]);
        body.extend(way.to_le_bytes());
        body.extend([0; 4]);
        out.extend(block(6, &body));
    }
    out
}
