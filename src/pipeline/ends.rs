//! Whose a packet is, before it is looked up: for those who share packets out to workers.

use crate::capture::Packet;
use crate::flow::Endpoint;
use crate::wire::{self, Body, Brief};

/// Both ends of the tuple that a packet belongs to, its own or the one that it quotes; `None` if it belongs to none.
pub(super) fn ends_of(p: &Packet<'_>) -> Option<(Endpoint, Endpoint)> {
    let mut brief = Brief::default();
    if wire::brief(p.link, p.bytes, p.vlan, &mut brief) {
        let [src, dst] = brief.addresses();
        return Some((
            Endpoint { addr: src, port: brief.sport() },
            Endpoint { addr: dst, port: brief.dport() },
        ));
    }
    match &wire::decode(p.link, p.bytes, p.wire_len, p.vlan).body {
        Body::Tcp(s) => {
            Some((Endpoint { addr: s.src, port: s.sport }, Endpoint { addr: s.dst, port: s.dport }))
        }
        Body::Icmp(e) => {
            Some((Endpoint { addr: e.src, port: e.sport }, Endpoint { addr: e.dst, port: e.dport }))
        }
        _ => None,
    }
}
