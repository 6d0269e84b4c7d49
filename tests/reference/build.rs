//! Frames, built from the inside out.

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

/// The identifier of the tunnels that have one.
pub const OVERLAY: u32 = 0x0a_bcde;

/// A UDP datagram.
pub fn udp(dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = 50_000u16.to_be_bytes().to_vec();
    b.extend(dport.to_be_bytes());
    b.extend((8 + payload.len() as u16).to_be_bytes());
    b.extend([0, 0]);
    b.extend(payload);
    b
}

/// VXLAN behind UDP.
pub fn vxlan(dport: u16, flags: u8, frame: &[u8]) -> Vec<u8> {
    let header = [&[flags, 0, 0, 0][..], &(OVERLAY << 8).to_be_bytes()].concat();
    udp(dport, &[&header, frame].concat())
}

/// Geneve behind UDP, with `words` words of options.
pub fn geneve(version: u8, words: u8, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = vec![version << 6 | words, 0];
    b.extend(kind.to_be_bytes());
    b.extend((OVERLAY << 8).to_be_bytes());
    b.resize(8 + 4 * usize::from(words), 0x5a);
    b.extend(payload);
    udp(6081, &b)
}

/// GRE, with the fields that the flags ask for.
pub fn gre(flags: u16, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = flags.to_be_bytes().to_vec();
    b.extend(kind.to_be_bytes());
    for (bit, field) in [(0x8000, 0xffff_0000), (0x2000, OVERLAY), (0x1000, 7u32)] {
        if flags & bit != 0 {
            b.extend(field.to_be_bytes());
        }
    }
    b.extend(payload);
    b
}
