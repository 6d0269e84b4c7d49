//! The decoder against packets made by hand, cut everywhere, and against noise.

mod common;

use std::net::Ipv4Addr;

use common::packet::Tcp;
use proptest::prelude::*;
use syntap::wire::{Body, Decoded, LinkType, Malformed, OffloadedVlan, Segment, decode};

fn tcp(flags: u8, options: Vec<u8>, payload: usize) -> Tcp {
    Tcp {
        src: (Ipv4Addr::new(192, 0, 2, 1), 4321),
        dst: (Ipv4Addr::new(192, 0, 2, 2), 80),
        flags,
        seq: 0xfeed_beef,
        ack: 77,
        win: 512,
        options,
        payload,
        ttl: 61,
        id: 4242,
    }
}

fn ether(bytes: &[u8], wire_len: usize) -> Decoded {
    decode(LinkType::Ethernet, bytes, wire_len as u32, OffloadedVlan::default())
}

fn segment(d: Decoded) -> Segment {
    match d.body {
        Body::Tcp(s) => s,
        other => panic!("not TCP: {other:?}"),
    }
}

#[test]
fn every_flag_combination_comes_through_unchanged() {
    for flags in 0..=255u8 {
        let frame = tcp(flags, vec![], 3).frame();
        let s = segment(ether(&frame, frame.len()));
        assert_eq!(s.flags.0, u16::from(flags));
        assert_eq!((s.src.to_string().as_str(), s.sport, s.dport), ("192.0.2.1", 4321, 80));
        assert_eq!((s.seq.0, s.ack.0, s.win, s.ttl, s.ip_id, s.payload), (0xfeed_beef, 77, 512, 61, 4242, 3));
    }
}

#[test]
fn a_packet_cut_by_the_snap_length_is_cut_and_not_malformed() {
    let options = vec![2, 4, 5, 180, 3, 3, 7, 1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8, 1];
    let whole = tcp(2, options, 100).frame();
    for cut in 0..whole.len() {
        let d = ether(&whole[..cut], whole.len());
        match d.body {
            Body::Tcp(s) => {
                assert!(cut >= 14 + 20 + 20, "cut at {cut}");
                assert_eq!(s.payload, 100, "lengths come from the IP header, cut at {cut}");
                assert_eq!(s.options.cut, cut < 14 + 20 + 40, "cut at {cut}");
                assert!(!s.options.broken, "cut at {cut}: {:?}", s.options);
            }
            Body::Malformed(Malformed::SnapLength) => assert!(cut < 14 + 20 + 20, "cut at {cut}"),
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
}

#[test]
fn a_packet_that_is_short_itself_is_malformed() {
    let whole = tcp(2, vec![], 0).frame();
    for cut in 0..whole.len() {
        let d = ether(&whole[..cut], cut);
        assert!(matches!(d.body, Body::Malformed(_)), "cut at {cut}: {:?}", d.body);
    }
    // The IP header says that there is less than a TCP header.
    for total in 20..40u8 {
        let mut frame = whole.clone();
        frame[16..18].copy_from_slice(&[0, total]);
        assert_eq!(ether(&frame, frame.len()).body, Body::Malformed(Malformed::TcpTruncated), "{total}");
    }
    for offset in 0..5u8 {
        let mut frame = whole.clone();
        frame[14 + 20 + 12] = offset << 4;
        assert_eq!(ether(&frame, frame.len()).body, Body::Malformed(Malformed::TcpOffset), "{offset}");
    }
}

#[test]
fn ethernet_padding_is_no_payload_and_a_length_of_zero_is_the_frames() {
    let mut frame = tcp(16, vec![], 0).frame();
    frame.extend([0; 6]);
    assert_eq!(segment(ether(&frame, frame.len())).payload, 0);
    let mut big = tcp(16, vec![], 500).frame();
    big[16..18].copy_from_slice(&[0, 0]);
    assert_eq!(segment(ether(&big, big.len())).payload, 500);
    assert_eq!(segment(ether(&big[..100], 14 + 40 + 70_000)).payload, 70_000);
}

#[test]
fn options_are_read_broken_or_whole() {
    let read = |options: Vec<u8>| {
        let frame = tcp(2, options, 0).frame();
        segment(ether(&frame, frame.len())).options
    };
    let o = read(vec![2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8, 1, 3, 3, 7]);
    assert_eq!(
        (o.mss, o.wscale, o.sack_permitted, o.ts, o.nop_row),
        (Some(1460), Some(7), true, Some((9, 8)), 1)
    );
    assert!(!o.broken && !o.cut);
    for broken in [vec![2, 1, 0, 0], vec![8, 0, 0, 0], vec![3, 9, 1, 1], vec![2, 3, 5, 1]] {
        assert!(read(broken.clone()).broken, "{broken:?}");
    }
    assert_eq!(read(vec![1, 1, 1, 1]).nop_row, 4);
    assert_eq!(read(vec![3, 3, 15, 0]).wscale, Some(15), "a scale over 14 is kept for the rules to see");
}

#[test]
fn tags_in_the_bytes_and_beside_them_are_both_seen() {
    let plain = tcp(2, vec![], 0).frame();
    let tagged = |tags: &[(u16, u16)]| {
        let mut frame = plain[..12].to_vec();
        for (tpid, tci) in tags {
            frame.extend(tpid.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        frame.extend(&plain[12..]);
        frame
    };
    let one = tagged(&[(0x8100, 0x6007)]);
    assert_eq!(ether(&one, one.len()).vlans.id(), Some(7));
    let two = tagged(&[(0x88a8, 100), (0x8100, 200)]);
    let d = ether(&two, two.len());
    assert_eq!((d.vlans.count, d.vlans.tci), (2, [100, 200]));
    segment(d);
    let beside = decode(LinkType::Ethernet, &one, one.len() as u32, OffloadedVlan { tpid: 0x88a8, tci: 9 });
    assert_eq!((beside.vlans.count, beside.vlans.tci), (2, [9, 0x6007]));
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), extra in 0u32..2000, link in 0..6) {
        let link = [
            LinkType::Ethernet, LinkType::LinuxSll, LinkType::LinuxSll2, LinkType::RawIp, LinkType::BsdLoopback,
            LinkType::Nflog,
        ][link as usize];
        decode(link, &bytes, bytes.len() as u32 + extra, OffloadedVlan::default());
    }

    #[test]
    fn a_damaged_packet_never_panics_nor_claims_more_than_its_length(
        at in 0usize..120, value in any::<u8>(), cut in 0usize..130,
    ) {
        let mut frame = tcp(18, vec![2, 4, 5, 180, 1, 3, 3, 7, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0], 40).frame();
        if let Some(b) = frame.get_mut(at) {
            *b = value;
        }
        frame.truncate(cut.max(1));
        if let Body::Tcp(s) = ether(&frame, frame.len()).body {
            prop_assert!(s.payload <= 65_535 && usize::from(s.text_len) <= s.text.len());
        }
    }
}
