//! A frame of every shape that the kernel side tells apart.

use super::build::*;

/// A frame of every shape that the kernel side tells apart, with a name.
pub fn shapes() -> Vec<(String, Vec<u8>)> {
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
    all.extend(tunnels());
    all
}

/// The same of tunnels.
fn tunnels() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, frame: Vec<u8>| all.push((name.to_owned(), frame));
    let four = |protocol: u8, payload: &[u8]| ethernet(&[], 0x0800, &ipv4(protocol, 0, 0, payload));
    let six = |protocol: u8, payload: &[u8]| ethernet(&[], 0x86dd, &ipv6(protocol, &[], payload));
    let syn = tcp(40000, 80, 2, 20);
    let packet = ipv4(6, 0, 0, &syn);
    let packet6 = ipv6(6, &[(0, extension(0)), (60, extension(1))], &syn);
    let frame = ethernet(&[], 0x0800, &packet);

    // What a frame in a tunnel may hold, in the commonest of them.
    let quote = ipv4(6, 4, 0x4000, &syn[..8]);
    let quote6 = ipv6(6, &[(60, extension(0))], &syn[..8]);
    let insides = [
        ("syn", frame.clone()),
        ("fin and payload", {
            let segment = [tcp(80, 40000, 0x11, 12), vec![7; 300]].concat();
            ethernet(&[], 0x0800, &ipv4(6, 0, 0, &segment))
        }),
        ("plain ack", ethernet(&[], 0x0800, &ipv4(6, 0, 0, &tcp(40000, 80, 0x10, 12)))),
        ("port not chosen", ethernet(&[], 0x0800, &ipv4(6, 0, 0, &tcp(40000, 81, 2, 0)))),
        ("options of ip", ethernet(&[], 0x0800, &ipv4(6, 40, 0, &syn))),
        ("first fragment", ethernet(&[], 0x0800, &ipv4(6, 0, 0x2000, &syn))),
        ("later fragment", ethernet(&[], 0x0800, &ipv4(6, 0, 0x2001, &syn))),
        ("padded", [ethernet(&[], 0x0800, &ipv4(6, 0, 0, &tcp(40000, 80, 4, 0))), vec![0; 6]].concat()),
        ("a tag", ethernet(&[0x8100], 0x0800, &packet)),
        ("two tags", ethernet(&[0x88a8, 0x8100], 0x86dd, &packet6)),
        ("three tags", ethernet(&[0x88a8, 0x8100, 0x8100], 0x0800, &packet)),
        ("syn over ipv6", ethernet(&[], 0x86dd, &packet6)),
        ("fragment over ipv6", ethernet(&[], 0x86dd, &ipv6(6, &[(44, fragment(1))], &syn))),
        ("arp", ethernet(&[], 0x0806, &[0; 28])),
        ("neighbour", ethernet(&[], 0x86dd, &ipv6(58, &[], &icmp(135, &[0; 16])))),
        ("icmp error", ethernet(&[], 0x0800, &ipv4(1, 0, 0, &icmp(3, &quote)))),
        ("icmpv6 error", ethernet(&[], 0x86dd, &ipv6(58, &[], &icmp(2, &quote6)))),
        ("udp", ethernet(&[], 0x0800, &ipv4(17, 0, 0, &udp(53, &[0; 20])))),
        ("mpls", ethernet(&[], 0x8847, &[0; 30])),
        ("data offset too large", {
            let mut segment = syn.clone();
            segment[12] = 0xf0;
            ethernet(&[], 0x0800, &ipv4(6, 0, 0, &segment))
        }),
        // One level is looked into.
        ("vxlan", four(17, &vxlan(4789, 8, &frame))),
        ("ip in ip", four(4, &packet)),
        ("gre", six(47, &gre(0, 0x0800, &packet))),
    ];
    for (name, inside) in &insides {
        add(&format!("vxlan: {name}"), four(17, &vxlan(4789, 8, inside)));
    }

    add("vxlan on linux' port", four(17, &vxlan(8472, 8, &frame)));
    add("vxlan with all flags", four(17, &vxlan(4789, 0xff, &frame)));
    add("vxlan without identifier", four(17, &vxlan(4789, 0xf7, &frame)));
    add("vxlan over ipv6 behind tags", {
        let outer = ipv6(17, &[(60, extension(0))], &vxlan(4789, 8, &ethernet(&[0x8100], 0x86dd, &packet6)));
        ethernet(&[0x88a8, 0x8100], 0x86dd, &outer)
    });
    add("vxlan behind options of ip", ethernet(&[], 0x0800, &ipv4(17, 24, 0, &vxlan(4789, 8, &frame))));
    add("vxlan from the port, not to it", {
        let mut datagram = vxlan(4789, 8, &frame);
        datagram.swap(0, 2);
        datagram.swap(1, 3);
        four(17, &datagram)
    });
    add("vxlan, first fragment", ethernet(&[], 0x0800, &ipv4(17, 0, 0x2000, &vxlan(4789, 8, &frame))));
    add("vxlan, later fragment", ethernet(&[], 0x0800, &ipv4(17, 0, 0x2001, &vxlan(4789, 8, &frame))));
    add("vxlan in a first fragment over ipv6", {
        let outer = ipv6(17, &[(44, fragment(1))], &vxlan(4789, 8, &frame));
        ethernet(&[], 0x86dd, &outer)
    });
    add("vxlan cut by the outer length", {
        let mut outer = ipv4(17, 0, 0, &vxlan(4789, 8, &frame));
        outer[2..4].copy_from_slice(&[0, 20 + 16 + 14 + 20 + 12]);
        ethernet(&[], 0x0800, &outer)
    });

    for words in [0, 1, 2, 63] {
        add(&format!("geneve, {words} words of options"), four(17, &geneve(0, words, 0x6558, &frame)));
    }
    add("geneve with ipv4", four(17, &geneve(0, 3, 0x0800, &packet)));
    add("geneve with ipv6", six(17, &geneve(0, 0, 0x86dd, &packet6)));
    add("geneve with something else", four(17, &geneve(0, 0, 0x8847, &packet)));
    add("geneve with options beyond its end", four(17, &geneve(0, 40, 0x0800, &[])[..60]));
    add("geneve of version 1", four(17, &geneve(1, 0, 0x6558, &frame)));

    for flags in [0, 0x8000, 0x2000, 0x1000, 0xa000, 0x3000, 0xb000, 0x0800] {
        add(&format!("gre {flags:04x}"), four(47, &gre(flags, 0x0800, &packet)));
    }
    add("gre with ipv6", six(47, &gre(0x2000, 0x86dd, &packet6)));
    add("gre with a frame", four(47, &gre(0x2000, 0x6558, &frame)));
    add("gre with a tag", four(47, &gre(0, 0x8100, &[&[0, 5, 8, 0][..], &packet].concat())));
    add("gre with arp", four(47, &gre(0, 0x0806, &[0; 28])));
    add("gre keepalive", four(47, &gre(0, 0, &[])));
    add("gre with routing", four(47, &gre(0x4000, 0x0800, &[&[0; 4][..], &packet].concat())));
    add("pptp", four(47, &gre(0x3001, 0x880b, &packet)));

    add("ip in ip", four(4, &packet));
    add("ip in ip, fragments of both", {
        ethernet(&[], 0x0800, &ipv4(4, 0, 0x2000, &ipv4(6, 0, 0x2000, &syn)))
    });
    add("ip in ip that is none", four(4, &packet6));
    add("six in four", four(41, &packet6));
    add("four in six", six(4, &packet));
    add("six in six", ethernet(&[], 0x86dd, &ipv6(41, &[(43, extension(2))], &packet6)));
    add("ip in ip in ip", four(4, &ipv4(4, 0, 0, &packet)));
    all
}
