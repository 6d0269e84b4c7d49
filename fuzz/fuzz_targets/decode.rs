//! Any bytes, any link type: no panic, and nothing claimed that the bytes cannot hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syntap::wire::{Body, LinkType, OffloadedVlan, decode};

const LINKS: [LinkType; 6] = [
    LinkType::Ethernet,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::RawIp,
    LinkType::BsdLoopback,
    LinkType::Nflog,
];

fuzz_target!(|data: &[u8]| {
    let [link, extra, bytes @ ..] = data else { return };
    let wire = bytes.len() as u32 + u32::from(*extra) * 16;
    let vlan = OffloadedVlan::default();
    let whole = decode(LINKS[usize::from(*link) % LINKS.len()], bytes, wire, vlan);
    assert!(whole.vlans.count <= 2);
    if let Body::Tcp(s) = whole.body {
        assert!(usize::from(s.text_len) <= s.text.len() && u32::from(s.text_len) <= s.payload);
        // The same packet cut by a snap length says the same of its addresses, ports and numbers, or nothing.
        let cut = decode(LINKS[usize::from(*link) % LINKS.len()], &bytes[..bytes.len() / 2], wire, vlan);
        if let Body::Tcp(c) = cut.body {
            assert_eq!((c.src, c.dst, c.sport, c.dport), (s.src, s.dst, s.sport, s.dport));
            assert_eq!((c.seq, c.ack, c.flags, c.payload), (s.seq, s.ack, s.flags, s.payload));
        }
    }
});
