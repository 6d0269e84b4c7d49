//! The tap on real traffic, between network namespaces.

mod net;

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::query::ProgInfoIter;
use net::tap::{
    RawSender, Seen, config, config_by, drain, foreign, ifindex, ping, send_raw, serve, transfer, with_both,
};
use net::{FAR_IP, NEAR_IP, Namespace, Wire, pin, skip};
use syntap::bpf::abi::{RECORD_SMALL, reason};
use syntap::bpf::attach::{self, TcxHook, XdpMode};
use syntap::bpf::{Budget, Counter, hash};
use syntap::capture::tap::{Mode, Tap, TapError, TapInterface};
use syntap::capture::{LiveSource, Transport};
use syntap::wire::{Addr, Way};

#[test]
fn an_inline_tap_sees_a_handshake_in_order_and_lets_it_through() {
    if skip("an_inline_tap_sees_a_handshake_in_order_and_lets_it_through") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::new();
        let mut config = config_by(transport, "near", None, "8080");
        config.shards = 4;
        let (tap, mut sources) = wire.near.run(|| Tap::open(&config)).expect("the tap opens");
        assert_eq!(tap.points()[0].mode, Mode::Inline);
        assert_eq!(sources.len(), 4);

        let mut local = None;
        let server = format!("{NEAR_IP}:8080");
        serve(&wire.near, &server, 1, || local = Some(wire.far.run(|| ping(&server))));
        let seen = drain(&mut sources);
        let stats = tap.close().unwrap();

        let tcp: Vec<_> = seen.iter().filter(|s| s.is_tcp()).collect();
        let words: Vec<_> = tcp.iter().map(|s| (s.way, s.meta.reason)).take(3).collect();
        let syn = reason::SYN;
        assert_eq!(
            words,
            [(Way::Ingress, syn), (Way::Egress, syn), (Way::Ingress, reason::WATCH)],
            "{tcp:#?}"
        );
        assert!(tcp.iter().filter(|s| s.meta.reason & reason::FIN != 0).count() == 2, "{tcp:#?}");
        assert!(tcp.windows(2).all(|w| w[0].ts <= w[1].ts), "in the order of their stamps");

        let client: Addr = FAR_IP.parse::<std::net::IpAddr>().unwrap().into();
        let server: Addr = NEAR_IP.parse::<std::net::IpAddr>().unwrap().into();
        let want = hash::tuple(&[0; 2], &client, local.unwrap().port(), &server, 8080);
        assert_ne!(want, 0);
        for s in &tcp {
            assert_eq!(s.source, (s.meta.hash % 4) as usize, "the ring is the hash");
            assert_eq!(s.meta.hash, tcp[0].meta.hash, "one tuple, one hash");
            assert_eq!(s.bytes[12..14], [8, 0], "the bytes begin with the Ethernet header");
            shows_its_headers(s, transport, s.meta.wire_len as usize);
        }
        let total = stats.total();
        assert_eq!(total.selected(), total.get(Counter::Mirrored), "{stats:#?}");
        assert_eq!(total.get(Counter::Mirrored), seen.len() as u64);
        assert_eq!(total.get(Counter::Stray), 0, "nobody else speaks in the carrier");
    });
}

/// A TCP packet over IPv4 is shown up to `len` bytes; from a ring buffer its headers do, where no more lies at hand.
fn shows_its_headers(s: &Seen, transport: Transport, len: usize) {
    let headers = 14 + 20 + usize::from(s.bytes[46] >> 4) * 4;
    match transport {
        Transport::Afxdp => assert_eq!(s.bytes.len(), len, "{s:?}"),
        Transport::Ringbuf => assert!((headers..=len.min(RECORD_SMALL)).contains(&s.bytes.len()), "{s:?}"),
    }
}

/// After everything was read: each frame is the kernel's, and no room of a ring buffer is taken.
fn nothing_is_held(source: &mut LiveSource) {
    match source {
        LiveSource::Xsk(xsk) => {
            let frames = xsk.frame_count();
            assert_eq!((frames.received, frames.spare, frames.total), (0, 0, 64));
            assert_eq!(frames.fill + frames.in_kernel(), 64, "{frames:?}");
        }
        LiveSource::Ring(ring) => assert_eq!(ring.held(), 0),
    }
}

/// Segments that either end sent again because acknowledgements told of a gap. Probes and timeouts are left out: a
/// machine that is busy with other tests makes them without a loss.
fn gaps(wire: &Wire) -> u64 {
    let one = |ns: &Namespace| -> u64 {
        let text = ns.sh("cat /proc/net/netstat");
        let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:"));
        let at = lines.next().unwrap().split_whitespace().position(|w| w == "TCPFastRetrans").unwrap();
        lines.next().unwrap().split_whitespace().nth(at).unwrap().parse().unwrap()
    };
    one(&wire.near) + one(&wire.far)
}

#[test]
fn both_directions_of_many_tuples_meet_in_one_ring_each() {
    if skip("both_directions_of_many_tuples_meet_in_one_ring_each") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::new();
        let mut config = config_by(transport, "near", None, "8080");
        config.shards = 3;
        let (tap, mut sources) = wire.near.run(|| Tap::open(&config)).unwrap();
        let key = *tap.key();
        let server = format!("{NEAR_IP}:8080");
        let mut locals = Vec::new();
        serve(&wire.near, &server, 60, || wire.far.run(|| locals.extend((0..60).map(|_| ping(&server)))));
        let seen = drain(&mut sources);
        tap.close().unwrap();
        let addr = |ip: &str| -> Addr { ip.parse::<std::net::IpAddr>().unwrap().into() };
        let mut used = [0; 3];
        for local in locals {
            let want = hash::tuple(&key, &addr(FAR_IP), local.port(), &addr(NEAR_IP), 8080) as u32;
            let port = local.port().to_be_bytes();
            // The client's port is the source one way and the destination the other.
            let mine: Vec<_> = seen
                .iter()
                .filter(|s| s.is_tcp() && (s.bytes[34..36] == port || s.bytes[36..38] == port))
                .collect();
            assert!(mine.len() >= 5, "{mine:?}");
            assert!(mine.iter().all(|s| s.meta.hash == want && s.source == (want % 3) as usize), "{mine:?}");
            assert!(mine.iter().any(|s| s.way == Way::Ingress) && mine.iter().any(|s| s.way == Way::Egress));
            used[(want % 3) as usize] += 1;
        }
        assert!(used.iter().all(|n| *n > 5), "{used:?}");
    });
}

#[test]
fn a_vlan_tag_travels_beside_the_bytes_and_does_not_shift_them() {
    if skip("a_vlan_tag_travels_beside_the_bytes_and_does_not_shift_them") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::new();
        let tagged = |tags: &[u8]| {
            let mut frame = raw_tcp(8080, 2, 0);
            frame.splice(12..12, tags.iter().copied());
            frame
        };
        let (tap, mut sources) =
            wire.near.run(|| Tap::open(&config_by(transport, "near", None, "8080"))).unwrap();
        // The stack takes the outer tag of what comes in into its own metadata; an inner one stays in the bytes.
        send_raw(
            &wire,
            &[tagged(&[0x81, 0, 0xa0, 7]), tagged(&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 8]), tagged(&[])],
        );
        let seen: Vec<_> = drain(&mut sources).into_iter().filter(Seen::is_tcp).collect();
        let tags: Vec<_> = seen.iter().map(|s| s.vlan).collect();
        assert_eq!(tags, [(0x8100, 0xa007), (0x88a8, 9), (0, 0)]);
        assert_eq!(seen[0].bytes, tagged(&[]));
        assert_eq!(seen[1].bytes, tagged(&[0x81, 0, 0, 8]));
        assert_eq!(seen[2].bytes, tagged(&[]));
        tap.close().unwrap();
    });
}

#[test]
fn a_large_offloaded_packet_is_cut_to_its_headers_and_counted_as_its_segments() {
    if skip("a_large_offloaded_packet_is_cut_to_its_headers_and_counted_as_its_segments") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::new();
        let (tap, mut sources) =
            wire.near.run(|| Tap::open(&config_by(transport, "near", None, "8081"))).unwrap();
        transfer(&wire, &format!("{NEAR_IP}:8081"), 4 << 20);
        let seen = drain(&mut sources);
        let stats = tap.close().unwrap();
        let large: Vec<_> = seen.iter().filter(|s| s.meta.gso_segs > 1).collect();
        assert!(!large.is_empty(), "a bulk transfer over veth is offloaded");
        for s in &large {
            assert!(s.meta.wire_len > 1514, "{s:?}");
            shows_its_headers(s, transport, 256);
        }
        let total = stats.total();
        assert_eq!(total.failed(), 0, "{stats:#?}");
        assert_eq!(total.get(Counter::Mirrored), seen.len() as u64);
        // SYN and FIN arm sixteen packets each: a transfer costs a bounded number of clones.
        assert!(total.get(Counter::SelectedWatch) <= 64, "{stats:#?}");
        let cells = &stats.points[0].ingress_census.0;
        let (packets, segments) = cells.iter().fold((0, 0), |sum, c| (sum.0 + c.packets, sum.1 + c.segments));
        assert!(segments > 4 * packets, "{segments} segments in {packets} packets");
        assert!(segments * 1460 >= 4 << 20, "enough to hold what was sent: {segments}");
    });
}

#[test]
fn a_tap_that_nobody_reads_does_not_hold_traffic_up() {
    if skip("a_tap_that_nobody_reads_does_not_hold_traffic_up") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::new();
        let mut config = config_by(transport, "near", None, "1-65535");
        config.frames = 64;
        let (tap, mut sources) = wire.near.run(|| Tap::open(&config)).unwrap();
        let server = format!("{NEAR_IP}:8080");
        serve(&wire.near, &server, 300, || {
            wire.far.run(|| {
                (0..300).for_each(|_| {
                    ping(&server);
                })
            });
        });
        transfer(&wire, &format!("{NEAR_IP}:8082"), 8 << 20);
        assert_eq!(gaps(&wire), 0);
        let seen = drain(&mut sources);
        // Every frame is somewhere, and every packet was either seen or is counted as lost.
        nothing_is_held(&mut sources[0]);
        let stats = tap.close().unwrap();
        let (total, rings) = (stats.total(), stats.ring_total());
        assert_eq!(total.get(Counter::Mirrored), seen.len() as u64 + rings.lost(), "{stats:#?}");
        assert_eq!(total.selected(), total.get(Counter::Mirrored) + total.failed(), "{stats:#?}");
        let full = total.get(Counter::RingFull);
        assert!(rings.lost() + full > 0, "64 frames cannot hold 1,500 packets");
        assert_eq!(full > 0, transport == Transport::Ringbuf, "each loses at its own place: {stats:#?}");
        assert_eq!(rings.invalid, 0);
        assert_eq!(stats.carrier_drops, total.get(Counter::CloneFailed));
    });
}

#[test]
fn frames_are_conserved_over_many_times_their_number() {
    if skip("frames_are_conserved_over_many_times_their_number") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::new();
        let mut config = config_by(transport, "near", None, "8080");
        config.frames = 64;
        let (tap, mut sources) = wire.near.run(|| Tap::open(&config)).unwrap();
        let server = format!("{NEAR_IP}:8080");
        let (read, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let (read, done, sources) = (&read, &done, &mut sources);
            scope.spawn(move || {
                // Debug builds also check that no frame comes twice or goes back twice.
                while !done.load(Ordering::Relaxed) {
                    sources[0]
                        .poll_with_meta(5, &mut |packets, _| {
                            read.fetch_add(packets.len(), Ordering::Relaxed);
                        })
                        .expect("the ring is alive");
                }
                read.fetch_add(drain(sources).len(), Ordering::Relaxed);
            });
            // As many rounds as it takes: on a busy machine the reader gets little of what is sent.
            for _ in 0..40 {
                serve(&wire.near, &server, 500, || {
                    wire.far.run(|| {
                        (0..500).for_each(|_| {
                            ping(&server);
                        })
                    });
                });
                if read.load(Ordering::Relaxed) > config.frames as usize * 20 {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let seen = read.into_inner();
        nothing_is_held(&mut sources[0]);
        let stats = tap.close().unwrap();
        assert!(seen > config.frames as usize * 20, "{seen} {stats:#?}");
        let mirrored = stats.total().get(Counter::Mirrored);
        assert_eq!(mirrored, seen as u64 + stats.ring_total().lost(), "{stats:#?}");
    });
}

#[test]
fn busy_polling_reads_the_same_packets() {
    if skip("busy_polling_reads_the_same_packets") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::new();
        let mut config = config_by(transport, "near", None, "8080");
        config.busy_poll = true;
        let (tap, mut sources) = wire.near.run(|| Tap::open(&config)).unwrap();
        let server = format!("{NEAR_IP}:8080");
        serve(&wire.near, &server, 5, || {
            wire.far.run(|| {
                (0..5).for_each(|_| {
                    ping(&server);
                })
            });
        });
        let seen = drain(&mut sources);
        assert_eq!(tap.close().unwrap().total().get(Counter::Mirrored), seen.len() as u64);
        assert_eq!(seen.iter().filter(|s| s.meta.reason == reason::SYN).count(), 10);
    });
}

/// A broadcast TCP frame, so that the stack would count it whatever its address.
fn raw_tcp(dport: u16, flags: u8, payload: usize) -> Vec<u8> {
    let mut b = vec![0xff; 6];
    b.extend([2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
    b.extend((40 + payload as u16).to_be_bytes());
    b.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 1, 1, 1, 10, 1, 1, 2]);
    b.extend(40000u16.to_be_bytes());
    b.extend(dport.to_be_bytes());
    b.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    b.resize(b.len() + payload, 0xaa);
    b
}

fn received_by_the_stack(ns: &Namespace) -> u64 {
    let text = ns.sh("cat /proc/net/snmp");
    let line = text.lines().filter(|l| l.starts_with("Ip:")).nth(1).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[test]
fn a_span_tap_takes_what_is_selected_and_drops_the_rest() {
    if skip("a_span_tap_takes_what_is_selected_and_drops_the_rest") {
        return;
    }
    let wire = Wire::bare();
    let frames = [raw_tcp(8080, 2, 0), raw_tcp(8080, 0x10, 1000), raw_tcp(9, 2, 0), raw_tcp(8080, 4, 1000)];
    // The stack counts what it gets, before there is a tap.
    let before = received_by_the_stack(&wire.near);
    send_raw(&wire, &frames);
    assert_eq!(received_by_the_stack(&wire.near), before + 4);

    // Nothing says that the interface carries traffic.
    let (tap, mut sources) = wire.near.run(|| Tap::open(&config("near", None, "8080"))).unwrap();
    let point = &tap.points()[0];
    assert_eq!(point.mode, Mode::Span);
    assert_eq!(point.xdp, Some((XdpMode::Native, None)));
    assert!(point.zero_copy.is_err(), "veth has none, and says so: {point:?}");
    let before = received_by_the_stack(&wire.near);
    send_raw(&wire, &frames);
    let seen = drain(&mut sources);
    let stats = tap.close().unwrap();
    assert_eq!(received_by_the_stack(&wire.near), before, "nothing reaches the stack");
    let got: Vec<_> = seen.iter().map(|s| (s.meta.reason, s.meta.wire_len, s.bytes.len())).collect();
    assert_eq!(got, [(reason::SYN, 54, 54), (reason::WATCH, 1054, 256), (reason::RST, 1054, 256)]);
    assert!(seen.iter().all(|s| s.way == Way::Ingress && frames.iter().any(|f| f.starts_with(&s.bytes))));
    assert_eq!(stats.total().get(Counter::PortNotChosen), 1);
    assert_eq!(stats.total().get(Counter::Mirrored), 3);

    // And gives the interface back.
    send_raw(&wire, &frames);
    assert_eq!(received_by_the_stack(&wire.near), before + 4);
}

#[test]
fn an_interface_with_an_address_is_not_tapped_as_span_unless_forced() {
    if skip("an_interface_with_an_address_is_not_tapped_as_span_unless_forced") {
        return;
    }
    let wire = Wire::new();
    let mut config = config("near", Some(Mode::Span), "8080");
    let refused = wire.near.run(|| Tap::open(&config)).err().expect("refused");
    assert!(
        matches!(&refused, TapError::Live { name, because } if name == "near" && because.contains(NEAR_IP))
    );
    assert!(refused.hint().unwrap().contains("--force"));
    let index = ifindex(&wire.near, "near");
    assert_eq!(wire.near.run(|| attach::xdp_state(index)).unwrap().attached, None);

    config.force = true;
    let (tap, _sources) = wire.near.run(|| Tap::open(&config)).unwrap();
    assert_eq!(tap.points()[0].mode, Mode::Span);
    drop(tap);

    // A bridge's port as well.
    let wire = Wire::bare();
    wire.near.ip("link add name br0 type bridge");
    wire.near.ip("link set near master br0");
    config.force = false;
    let refused = wire.near.run(|| Tap::open(&config)).err().expect("refused");
    assert!(matches!(&refused, TapError::Live { because, .. } if because.contains("br0")), "{refused}");
}

#[test]
fn a_foreign_xdp_program_is_named_and_stays() {
    if skip("a_foreign_xdp_program_is_named_and_stays") {
        return;
    }
    let wire = Wire::bare();
    wire.near.ip("link add other type veth peer name other2");
    wire.near.ip("link set other up");
    let index = ifindex(&wire.near, "near");
    let program = foreign(libbpf_sys::BPF_PROG_TYPE_XDP, "somebodys", 2);
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let link = wire.near.run(|| attach::xdp(&program, index, mode)).unwrap();
        // An interface that can be tapped comes first: the error must take it back.
        let mut config = config("other", Some(Mode::Span), "8080");
        config.interfaces.push(TapInterface { name: "near".into(), mode: Some(Mode::Span) });
        let refused = wire.near.run(|| Tap::open(&config)).err().expect("refused");
        assert!(
            matches!(&refused, TapError::ForeignXdp { program, .. } if program.name == "somebodys"),
            "{refused}"
        );
        assert!(refused.to_string().contains("somebodys"), "{refused}");
        let state = wire.near.run(|| attach::xdp_state(index)).unwrap();
        assert_eq!(state.attached.unwrap().name, "somebodys");
        let other = ifindex(&wire.near, "other");
        assert_eq!(wire.near.run(|| attach::xdp_state(other)).unwrap().attached, None, "taken back");
        drop(link);
    }
    // Inline does without XDP on the interface.
    let _link = wire.near.run(|| attach::xdp(&program, index, XdpMode::Native)).unwrap();
    wire.near.run(|| Tap::open(&config("near", Some(Mode::Inline), "8080"))).expect("inline");
}

#[test]
fn foreign_tcx_programs_and_a_second_tap_go_on_beside_the_tap() {
    if skip("foreign_tcx_programs_and_a_second_tap_go_on_beside_the_tap") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::new();
        let index = ifindex(&wire.near, "near");
        // Ends the chain with "pass": whoever comes behind it sees nothing.
        let program = foreign(libbpf_sys::BPF_PROG_TYPE_SCHED_CLS, "passes", 0);
        let _ingress = wire.near.run(|| attach::tcx(&program, index, TcxHook::Ingress)).unwrap();
        let _egress = wire.near.run(|| attach::tcx(&program, index, TcxHook::Egress)).unwrap();
        let (first, mut first_sources) =
            wire.near.run(|| Tap::open(&config_by(transport, "near", None, "8080"))).unwrap();
        let (second, mut second_sources) =
            wire.near.run(|| Tap::open(&config_by(transport, "near", None, "8080"))).unwrap();
        let names = |hook| -> Vec<String> {
            wire.near.run(|| attach::tcx_programs(index, hook)).unwrap().into_iter().map(|p| p.name).collect()
        };
        assert_eq!(names(TcxHook::Ingress), ["syntap_ingress", "syntap_ingress", "passes"]);
        assert_eq!(names(TcxHook::Egress), ["syntap_egress", "syntap_egress", "passes"]);
        let server = format!("{NEAR_IP}:8080");
        serve(&wire.near, &server, 3, || {
            wire.far.run(|| {
                (0..3).for_each(|_| {
                    ping(&server);
                })
            });
        });
        for sources in [&mut first_sources, &mut second_sources] {
            assert_eq!(drain(sources).iter().filter(|s| s.meta.reason == reason::SYN).count(), 6);
        }
        drop((first, second));
        assert_eq!(names(TcxHook::Ingress), ["passes"]);
        assert_eq!(names(TcxHook::Egress), ["passes"]);
    });
}

#[test]
fn a_foreign_program_that_drops_does_not_hide_the_packet_from_the_tap() {
    if skip("a_foreign_program_that_drops_does_not_hide_the_packet_from_the_tap") {
        return;
    }
    let wire = Wire::new();
    let index = ifindex(&wire.near, "near");
    let program = foreign(libbpf_sys::BPF_PROG_TYPE_SCHED_CLS, "drops", 2);
    let _ingress = wire.near.run(|| attach::tcx(&program, index, TcxHook::Ingress)).unwrap();
    let (_tap, mut sources) = wire.near.run(|| Tap::open(&config("near", None, "8080"))).unwrap();
    send_raw(&wire, &[raw_tcp(8080, 2, 0)]);
    let seen = drain(&mut sources);
    assert_eq!(seen.iter().filter(|s| s.meta.reason == reason::SYN).count(), 1);
}

#[test]
fn what_cannot_be_tapped_is_said_before_anything_is_touched() {
    if skip("what_cannot_be_tapped_is_said_before_anything_is_touched") {
        return;
    }
    let ns = Namespace::new();
    ns.ip("link add name d0 type veth peer name d1");
    ns.ip("tuntap add mode tun t0");
    let open = |names: &[(&str, Option<Mode>)]| {
        let mut config = config("x", None, "80");
        config.interfaces = names.iter().map(|(n, m)| TapInterface { name: (*n).into(), mode: *m }).collect();
        ns.run(|| Tap::open(&config)).map(drop).expect_err("refused")
    };
    assert!(matches!(open(&[]), TapError::NoInterface));
    let unknown = open(&[("nope", None)]);
    assert_eq!(unknown.to_string(), "there is no interface nope");
    assert!(unknown.hint().unwrap().contains("d0"), "{:?}", unknown.hint());
    assert!(matches!(open(&[("lo", None), ("lo", None)]), TapError::Twice(_)));
    assert!(matches!(open(&[("d0", Some(Mode::Span))]), TapError::Down(_)));
    assert!(matches!(open(&[("t0", None)]), TapError::NotEthernet(_)));
    assert!(matches!(open(&vec![("lo", None); 17]), TapError::TooMany { .. }));
    assert_eq!(ns.ip("-o link").lines().count(), 4, "no private pair was made");
}

#[test]
fn a_span_source_whose_interface_goes_says_so_and_ends() {
    if skip("a_span_source_whose_interface_goes_says_so_and_ends") {
        return;
    }
    use syntap::capture::{Polled, Source};
    let wire = Wire::bare();
    let (tap, mut sources) = wire.near.run(|| Tap::open(&config("near", Some(Mode::Span), "80"))).unwrap();
    assert!(matches!(sources[0].poll(0, &mut |_| ()), Ok(Polled::Idle)));
    wire.near.ip("link del near");
    let start = Instant::now();
    let error = loop {
        match sources[0].poll(100, &mut |_| ()) {
            Ok(Polled::Idle) if start.elapsed() < Duration::from_secs(5) => {}
            Ok(other) => panic!("{other:?}"),
            Err(e) => break e,
        }
    };
    assert!(error.to_string().contains("near queue 0"), "{error}");
    assert!(matches!(sources[0].poll(0, &mut |_| ()), Ok(Polled::End)));
    drop(tap);
}

/// Mean cost of a mirrored packet by the newest tap's own meter, ns.
fn charged() -> u32 {
    use libbpf_rs::{MapCore, MapFlags, MapHandle, query::MapInfoIter};
    let newest = MapInfoIter::default().filter(|m| m.name == c"budget").map(|m| m.id).max().unwrap();
    let cpus =
        MapHandle::from_map_id(newest).unwrap().lookup_percpu(&[0; 4], MapFlags::ANY).unwrap().unwrap();
    let cost = |b: &Vec<u8>| u32::from_ne_bytes(b[44..48].try_into().unwrap()) / 64;
    cpus.iter().map(cost).max().unwrap()
}

/// Not a test of anything: prints what a packet costs on its whole way, with one CPU doing all of it.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_clone() {
    const COUNT: usize = 200_000;
    if skip("cost_of_a_clone") {
        return;
    }
    pin();
    let syns: Vec<_> = (0..1000u16)
        .map(|i| {
            let mut frame = raw_tcp(8080, 2, 0);
            frame[34..36].copy_from_slice(&(10_000 + i).to_be_bytes());
            frame
        })
        .collect();
    let (copied, cloned) = (Transport::Ringbuf, Transport::Afxdp);
    #[allow(clippy::type_complexity)]
    let runs: [(&str, Option<(Mode, Transport, &str, bool)>); 9] = [
        ("untapped", None),
        ("inline, port not chosen", Some((Mode::Inline, copied, "9", false))),
        ("inline, copied, not read", Some((Mode::Inline, copied, "8080", false))),
        ("inline, copied, read", Some((Mode::Inline, copied, "8080", true))),
        ("inline, cloned, not read", Some((Mode::Inline, cloned, "8080", false))),
        ("inline, cloned, read", Some((Mode::Inline, cloned, "8080", true))),
        ("the same, time metered", Some((Mode::Inline, cloned, "8080", true))),
        ("span, port not chosen", Some((Mode::Span, cloned, "9", false))),
        ("span, redirected, read", Some((Mode::Span, cloned, "8080", true))),
    ];
    for (name, tapped) in runs {
        let wire = Wire::bare();
        let mut opened = tapped.map(|(mode, transport, ports, _)| {
            let mut config = config_by(transport, "near", Some(mode), ports);
            config.frames = 4096;
            let share = if name.ends_with("metered") { 1_000_000 } else { 0 };
            config.budget = Budget { pps: 100_000_000, share };
            wire.near.run(|| Tap::open(&config)).unwrap()
        });
        let sender = RawSender::new(&wire);
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..COUNT / 1000 {
                syns.iter().for_each(|f| sender.send(f));
                if let (Some((_, sources)), Some((.., true))) = (&mut opened, tapped) {
                    while !matches!(
                        sources[0].poll_with_meta(0, &mut |_, _| ()),
                        Ok(syntap::capture::Polled::Idle)
                    ) {}
                }
            }
            best = best.min(start.elapsed().as_nanos() as f64 / COUNT as f64);
        }
        println!("{name:28} {best:6.0} ns a packet");
        if name.ends_with("metered") {
            println!("{:28} {:6} ns of these are charged to the budget", "", charged());
        }
        if let Some((tap, _)) = opened {
            let stats = tap.close().unwrap();
            let total = stats.total();
            println!(
                "{:28} mirrored {}, failed {}, lost at the ring {}",
                "",
                total.get(Counter::Mirrored),
                total.failed(),
                stats.ring_total().lost()
            );
        }
    }
}

/// Not a test by itself: what `a_killed_tap_leaves_nothing_behind` starts and kills.
#[test]
fn child_that_taps_until_it_is_killed() {
    let Some(transport) = env::var_os("SYNTAP_TEST_TAP") else { return };
    let transport = if transport == "afxdp" { Transport::Afxdp } else { Transport::Ringbuf };
    let mut config = config_by(transport, "near", None, "1-65535");
    config.interfaces.push(TapInterface { name: "bare".into(), mode: Some(Mode::Span) });
    let (_tap, _sources) = Tap::open(&config).unwrap();
    let mine: Vec<_> = ProgInfoIter::default()
        .filter(|p| p.name.to_string_lossy().starts_with("syntap_"))
        .map(|p| p.id)
        .collect();
    println!("\ntapping {mine:?}");
    // Nothing is read, as by a program that is stopped.
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_tap_leaves_nothing_behind_and_loses_no_packet_of_the_traffic() {
    if skip("a_killed_tap_leaves_nothing_behind_and_loses_no_packet_of_the_traffic") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::new();
        wire.near.ip("link add bare type veth peer name bare2");
        wire.near.ip("link set bare up");
        let before: Vec<u32> = ProgInfoIter::default().map(|p| p.id).collect();
        let mut child = Command::new("ip")
            .args(["netns", "exec", &wire.near.name])
            .arg(env::current_exe().unwrap())
            .args(["child_that_taps_until_it_is_killed", "--exact", "--nocapture"])
            .env("SYNTAP_TEST_TAP", transport.name())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line =
            lines.by_ref().map(Result::unwrap).find(|l| l.starts_with("tapping")).expect("the child taps");
        // `ip netns exec` becomes the child, so this is its process.
        let carrier = format!("st{}n", child.id());
        assert_eq!(wire.near.ip("-o link").contains(&carrier), transport == Transport::Afxdp);
        let index = ifindex(&wire.near, "near");
        let tcx = |hook| wire.near.run(|| attach::tcx_programs(index, hook)).unwrap();
        assert_eq!(tcx(TcxHook::Ingress).len(), 1);
        assert!(wire.near.ip("link show bare").contains("xdp"));
        let ids: Vec<u32> = line
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok())
            .filter(|id| !before.contains(id))
            .collect();
        // Both hooks and the span's; with clones the carrier's and the ring's as well.
        let own = if transport == Transport::Afxdp { 5 } else { 3 };
        assert!(ids.len() >= own, "{line}");

        thread::scope(|scope| {
            let traffic = scope.spawn(|| transfer(&wire, &format!("{NEAR_IP}:8083"), 64 << 20));
            thread::sleep(Duration::from_millis(30));
            child.kill().unwrap();
            child.wait().unwrap();
            traffic.join().unwrap();
        });
        assert_eq!(gaps(&wire), 0, "not one packet was lost");

        assert_eq!(tcx(TcxHook::Ingress).len() + tcx(TcxHook::Egress).len(), 0);
        assert!(!wire.near.ip("link show bare").contains("xdp"));
        // The kernel takes namespaces down on a worker of its own.
        let start = Instant::now();
        loop {
            let link = wire.near.ip("-o link").contains(&carrier);
            let others: Vec<u32> = ProgInfoIter::default().map(|p| p.id).collect();
            let programs = ids.iter().filter(|id| others.contains(id)).count();
            // Other tests of this process load programs meanwhile; the child's own must go.
            if !link && programs + own <= ids.len() {
                break;
            }
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "link left: {link}, programs left: {programs}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    });
}
