//! Connections through tunnels, tapped on the interface under them: chosen by what is inside.

mod net;
mod reference;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use net::tap::{Seen, config_by, drain, ping, send_raw, serve, transfer, with_both};
use net::{FAR_IP, NEAR_IP, Namespace, Wire, skip};
use reference::build;
use syntap::bpf::abi::{CARRY_MAX, RECORD_LARGE, reason};
use syntap::bpf::{Counter, hash};
use syntap::capture::tap::{Mode, Tap, TapConfig};
use syntap::capture::{TapStats, Transport};
use syntap::wire::{Addr, Body, LinkType, OffloadedVlan, Segment, Tunnel, TunnelKind, Way, decode};

const INNER_NEAR: &str = "10.8.0.1";
const INNER_FAR: &str = "10.8.0.2";

/// The kinds that this kernel may know: name, what `ip link add` wants, the kind and identifier that are decoded.
const TUNNELS: [(&str, &str, TunnelKind, u32); 6] = [
    ("vxlan", "vxlan id 4242 dstport 4789", TunnelKind::Vxlan, 4242),
    ("vxlan on linux' port", "vxlan id 7 dstport 8472", TunnelKind::Vxlan, 7),
    ("geneve", "geneve id 77", TunnelKind::Geneve, 77),
    ("gretap", "gretap key 9", TunnelKind::Gre, 9),
    ("gre", "gre", TunnelKind::Gre, 0),
    ("ipip", "ipip", TunnelKind::IpIp, 0),
];

/// A tunnel between both ends of the wire, `more` at the end of its making; false, said aloud, without such a device.
fn tunnel(wire: &Wire, name: &str, what: &str, more: &str) -> bool {
    let ends = [(&wire.near, NEAR_IP, FAR_IP, INNER_NEAR), (&wire.far, FAR_IP, NEAR_IP, INNER_FAR)];
    for (ns, local, remote, inner) in ends {
        let device = ["vxlan", "gre", "ipip"].iter().any(|k| what.starts_with(k));
        let local = if device { format!("local {local}") } else { String::new() };
        let line = format!("ip -n {} link add t0 type {what} remote {remote} {local}", ns.name);
        let out = Command::new("sh").args(["-c", &line]).output().expect("a shell");
        if !out.status.success() {
            let why = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            println!("skipped: no {name} device here: {why}");
            return false;
        }
        ns.ip(&format!("link set t0 {more} up"));
        ns.ip(&format!("addr add {inner}/24 dev t0"));
    }
    true
}

fn address(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

/// What user space makes of a mirrored packet.
fn inside(seen: &Seen) -> (Tunnel, Segment) {
    let vlan = OffloadedVlan { tpid: seen.vlan.0, tci: seen.vlan.1 };
    let d = decode(LinkType::Ethernet, &seen.bytes, seen.meta.wire_len, vlan);
    let Body::Tcp(segment) = d.body else { panic!("{:?} of {seen:?}", d.body) };
    (d.tunnel, segment)
}

/// The connections, by their ports, of which a packet with this reason went this way. A busy machine sends some again.
fn connections(seen: &[Seen], way: Way, bit: u16) -> HashSet<(u16, u16)> {
    let found = seen.iter().filter(|s| s.way == way && s.meta.reason & bit != 0);
    found.map(|s| inside(s).1).map(|s| (s.sport, s.dport)).collect()
}

fn sums_hold(stats: &TapStats, seen: usize) {
    let total = stats.total();
    assert_eq!((total.failed(), stats.carrier_drops), (0, 0), "{stats:#?}");
    assert_eq!(
        total.selected(),
        total.get(Counter::Mirrored) + total.get(Counter::TunnelLarge),
        "{stats:#?}"
    );
    assert_eq!(total.get(Counter::Mirrored), seen as u64 + stats.ring_total().lost(), "{stats:#?}");
    assert_eq!(total.malformed(), 0, "{stats:#?}");
}

#[test]
fn a_connection_in_a_tunnel_is_mirrored_under_the_tunnel() {
    if skip("a_connection_in_a_tunnel_is_mirrored_under_the_tunnel") {
        return;
    }
    with_both(|transport| {
        let mut tried = 0;
        for (name, what, kind, id) in TUNNELS {
            let wire = Wire::new();
            if !tunnel(&wire, name, what, "") {
                continue;
            }
            tried += 1;
            let (tap, mut sources) = wire
                .near
                .run(|| {
                    Tap::open(&TapConfig {
                        shards: 3,
                        ..config_by(transport, "near", Some(Mode::Inline), "8080")
                    })
                })
                .unwrap();
            let key = *tap.key();
            let server = format!("{INNER_NEAR}:8080");
            let mut locals = Vec::new();
            serve(&wire.near, &server, 5, || wire.far.run(|| locals.extend((0..5).map(|_| ping(&server)))));
            let seen = drain(&mut sources);
            sums_hold(&tap.close().unwrap(), seen.len());

            let (client, server) = (address(INNER_FAR), address(INNER_NEAR));
            for local in locals {
                let want = hash::tuple(&key, &client, local.port(), &server, 8080) as u32;
                let mine: Vec<_> = seen.iter().filter(|s| s.is_tcp() && s.meta.hash == want).collect();
                let count = |bit: u16| mine.iter().filter(|s| s.meta.reason & bit != 0).count();
                assert!(count(reason::SYN) >= 2 && count(reason::FIN) >= 2, "{name}: {mine:#?}");
                assert!(count(reason::WATCH) >= 3, "{name}: {mine:#?}");
                assert_eq!((mine[0].way, mine[1].way), (Way::Ingress, Way::Egress), "the SYN and its answer");
                for s in mine {
                    assert_eq!(s.source, (want % 3) as usize, "one ring");
                    assert_ne!(s.meta.reason & reason::TUNNEL, 0);
                    let (tunnel, segment) = inside(s);
                    assert_eq!((tunnel.kind, tunnel.id), (kind, id), "{name}");
                    let ends = [(segment.src, segment.sport), (segment.dst, segment.dport)];
                    assert!(
                        ends.contains(&(client, local.port())) && ends.contains(&(server, 8080)),
                        "{ends:?}"
                    );
                }
            }
            // Frames bring the neighbour packets of the overlay along.
            if ["vxlan", "geneve", "gretap"].iter().any(|k| what.starts_with(k)) {
                let arp = reason::ARP | reason::TUNNEL;
                assert!(seen.iter().any(|s| s.meta.reason == arp), "{name}");
            }
        }
        assert!(tried > 0, "a kernel without any tunnel");
    });
}

#[test]
fn a_long_transfer_in_a_tunnel_arrives_whole_and_its_data_is_mirrored_or_counted() {
    if skip("a_long_transfer_in_a_tunnel_arrives_whole_and_its_data_is_mirrored_or_counted") {
        return;
    }
    with_both(|transport| {
        const TIMES: u32 = 5;
        // With offload, and in packets of the underlay's full MTU.
        for more in ["", "gso_max_segs 1"] {
            let wire = Wire::new();
            if !tunnel(&wire, "vxlan", "vxlan id 4242 dstport 4789", more) {
                return;
            }
            let (tap, mut sources) = wire
                .near
                .run(|| Tap::open(&config_by(transport, "near", Some(Mode::Inline), "8081-8099")))
                .unwrap();
            // Read after each: the ring of 512 frames is short.
            let mut seen = Vec::new();
            for i in 0..TIMES {
                transfer(&wire, &format!("{INNER_NEAR}:{}", 8081 + i as u16), 2 << 20);
                seen.extend(drain(&mut sources));
            }
            let stats = tap.close().unwrap();
            sums_hold(&stats, seen.len());
            let tcp: Vec<_> = seen.iter().filter(|s| s.is_tcp()).collect();
            for s in &tcp {
                assert!(s.bytes.len() <= CARRY_MAX as usize);
                assert_eq!(inside(s).0.id, 4242);
            }
            // Each transfer is a connection; both ends begin and finish it.
            let count = |way, bit| connections(&seen, way, bit).len() as u32;
            for way in [Way::Ingress, Way::Egress] {
                assert_eq!(
                    (count(way, reason::SYN), count(way, reason::FIN)),
                    (TIMES, TIMES),
                    "{more} {way:?}"
                );
                assert_eq!(count(way, reason::WATCH), TIMES, "{more} {way:?}");
            }
            // One that was cut out of a large packet is the segment that has the flag.
            let fins = tcp.iter().filter(|s| s.meta.reason & reason::FIN != 0);
            let with_data = fins.map(|s| inside(s).1).filter(|s| {
                assert_eq!(s.flags.0 & 1, 1, "{s:?}");
                s.payload > 0
            });
            let with_data = with_data.count();
            let total = stats.total();
            assert_eq!(total.get(Counter::PiecesLost), 0, "{stats:#?}");
            let large = total.get(Counter::TunnelLarge);
            let longest = tcp.iter().map(|s| s.bytes.len()).max().unwrap();
            println!(
                "'{more}': {} mirrored, the longest {longest} bytes, {with_data} FINs with data; {large} too large",
                tcp.len()
            );
            if transport == Transport::Ringbuf {
                assert_eq!(large, 0, "headers are copied, whatever the packet's length");
                assert!(longest <= RECORD_LARGE, "{longest}");
                let joined = tcp.iter().any(|s| s.meta.gso_segs > 1 && s.meta.reason & reason::WATCH != 0);
                assert_eq!(joined, more.is_empty(), "data that offload has joined is mirrored");
            } else if more.is_empty() {
                assert!(large > 0, "offload makes packets that cannot be shortened");
            } else {
                assert_eq!((large, longest), (0, 1514), "a full packet goes as it is");
            }
        }
    });
}

/// `from` sends `len` bytes and closes while `to` does not read yet: the FIN joins data that waits.
fn send_and_close(from: &Namespace, to: &Namespace, server: &str, len: usize) {
    let (ready, is_ready) = mpsc::channel();
    let (closed, is_closed) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            to.run(move || {
                let listener = TcpListener::bind(server).unwrap();
                ready.send(()).unwrap();
                let (mut peer, _) = listener.accept().unwrap();
                is_closed.recv().unwrap();
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                assert!(all == vec![7; len], "every byte");
            });
        });
        is_ready.recv().unwrap();
        from.run(|| {
            let mut peer = TcpStream::connect(server).unwrap();
            peer.write_all(&vec![7; len]).unwrap();
            drop(peer);
            closed.send(()).unwrap();
        });
    });
}

#[test]
fn a_fin_on_a_large_packet_in_a_tunnel_is_mirrored_as_the_segment_that_it_is_on() {
    if skip("a_fin_on_a_large_packet_in_a_tunnel_is_mirrored_as_the_segment_that_it_is_on") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::new();
        if !tunnel(&wire, "vxlan", "vxlan id 4242 dstport 4789", "") {
            return;
        }
        // An inner MTU of 1,500 over a larger underlay has the longest segments that are common.
        wire.near.ip("link set near mtu 1600");
        wire.far.ip("link set far mtu 1600");
        for ns in [&wire.near, &wire.far] {
            ns.ip("link set t0 mtu 1500");
            // The sender may hold all of it, the receiver's window a part of it.
            ns.sh("sysctl -qw net.ipv4.tcp_wmem='4096 1000000 1000000' net.ipv4.tcp_rmem='4096 65536 65536'");
        }
        let (tap, mut sources) =
            wire.near.run(|| Tap::open(&config_by(transport, "near", Some(Mode::Inline), "8081"))).unwrap();
        let mut seen = Vec::new();
        const TIMES: usize = 10;
        for _ in 0..TIMES {
            for (from, to, ip) in [(&wire.near, &wire.far, INNER_FAR), (&wire.far, &wire.near, INNER_NEAR)] {
                send_and_close(from, to, &format!("{ip}:8081"), 300_000);
                seen.extend(drain(&mut sources));
            }
        }
        let stats = tap.close().unwrap();
        sums_hold(&stats, seen.len());
        assert_eq!(stats.total().get(Counter::PiecesLost), 0, "{stats:#?}");
        let fins = |way: Way| -> Vec<(&Seen, Segment)> {
            let all = seen.iter().filter(|s| s.way == way && s.meta.reason & reason::FIN != 0);
            all.map(|s| (s, inside(s).1)).collect()
        };
        for (way, census) in
            [(Way::Ingress, &stats.points[0].ingress_census), (Way::Egress, &stats.points[0].egress_census)]
        {
            let fins = fins(way);
            let ends = connections(&seen, way, reason::FIN).len();
            assert_eq!(ends, 2 * TIMES, "each end of each connection: {fins:#?}");
            let cells = census.0.iter().enumerate().filter(|(flags, _)| flags & 1 != 0);
            let (packets, segments) = cells.fold((0, 0), |n, (_, c)| (n.0 + c.packets, n.1 + c.segments));
            assert!(segments > packets, "{way:?}: some came on large packets: {segments} in {packets}");
            for (s, segment) in &fins {
                assert_eq!(segment.flags.0 & 1, 1, "{segment:?}");
                if transport == Transport::Afxdp {
                    assert!(segment.payload <= 1460, "one segment of it: {segment:?}");
                    assert_eq!(s.meta.gso_segs, 1);
                    assert_eq!(s.meta.wire_len as usize, s.bytes.len());
                }
            }
            if transport == Transport::Ringbuf {
                // Once each, as the packet that it is on: the FIN is behind all of its payload.
                assert_eq!(fins.len() as u64, packets, "{way:?}");
                let joined = fins.iter().filter(|(s, _)| s.meta.gso_segs > 1);
                assert!(joined.clone().count() > 0, "{way:?}: {fins:#?}");
                joined.for_each(|(s, segment)| {
                    assert!(segment.payload > 1460 && segment.payload < s.meta.wire_len, "{segment:?}");
                });
            }
            println!("{way:?}: {packets} packets with FIN stood for {segments} segments");
        }
    });
}

/// Frames of each kind, whatever devices the kernel has.
fn frames() -> Vec<(&'static str, usize, Vec<u8>)> {
    let segment = [build::tcp(40000, 80, 2, 40), vec![7; 1200]].concat();
    let packet = build::ipv4(6, 0, 0, &segment);
    let frame = build::ethernet(&[], 0x0800, &packet);
    let six = build::ipv6(6, &[(0, build::extension(0))], &segment);
    let four = |protocol, payload: &[u8]| build::ethernet(&[], 0x0800, &build::ipv4(protocol, 0, 0, payload));
    vec![
        ("vxlan", 50, four(17, &build::vxlan(4789, 8, &frame))),
        ("geneve", 50 + 60, four(17, &build::geneve(0, 15, 0x6558, &frame))),
        ("gre", 34 + 8, four(47, &build::gre(0x2000, 0x0800, &packet))),
        ("gretap", 34 + 16, four(47, &build::gre(0xb000, 0x6558, &frame))),
        ("ipip", 34, four(4, &packet)),
        ("6in4", 34, four(41, &six)),
        ("4in6", 54, build::ethernet(&[], 0x86dd, &build::ipv6(4, &[], &packet))),
        ("6in6", 54, build::ethernet(&[], 0x86dd, &build::ipv6(41, &[], &six))),
    ]
}

#[test]
fn the_snap_length_counts_from_a_tunnels_inside_in_both_modes() {
    if skip("the_snap_length_counts_from_a_tunnels_inside_in_both_modes") {
        return;
    }
    with_both(|transport| {
        for mode in [Mode::Inline, Mode::Span] {
            let wire = Wire::bare();
            let (tap, mut sources) =
                wire.near.run(|| Tap::open(&config_by(transport, "near", Some(mode), "80"))).unwrap();
            for (name, before, frame) in frames() {
                send_raw(&wire, std::slice::from_ref(&frame));
                let seen = drain(&mut sources);
                assert_eq!(seen.len(), 1, "{name} {mode:?}");
                assert_eq!(seen[0].meta.reason, reason::SYN | reason::TUNNEL, "{name} {mode:?}");
                assert_eq!(seen[0].bytes, frame[..before + 256], "{name} {mode:?}");
                let (_, segment) = inside(&seen[0]);
                assert_eq!((segment.sport, segment.payload), (40000, 1200), "{name} {mode:?}");
            }
            sums_hold(&tap.close().unwrap(), frames().len());
        }
    });
}
