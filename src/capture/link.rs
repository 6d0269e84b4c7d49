//! The kernel's own account of the link layer, over rtnetlink: MAC addresses of tapped interfaces, and of the bridges over them, that
//! change, and MAC addresses that a bridge learns at another port than before.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::attributes::lean;
use super::interface::Rtnetlink;
use crate::wire::{IfName, Mac};

/// Receive buffer, bytes: some thousand moves of a loop. What does not fit is made up for by a dump.
const BUFFER: usize = 1 << 20;

/// Multicast groups, from linux/rtnetlink.h: RTNLGRP_LINK and RTNLGRP_NEIGH.
const GROUPS: [u32; 2] = [1, 3];

/// Messages read in one call at most: their reader looks at the clock between calls.
const BATCH: usize = 1024;

/// MAC addresses of forwarding tables remembered; beyond that all are forgotten and learned anew.
const LEARNED: usize = 1 << 16;

/// Masters over masters that are looked at: a bond in a bridge is two.
const MASTERS: usize = 4;

/// What happened; points are numbers of tap points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A tapped interface, or a bridge over it, has another MAC address: one event for each tap point.
    Changed {
        /// Tap point.
        point: u8,
        /// It was this,
        before: Mac,
        /// and is this.
        after: Mac,
    },
    /// A port has left or joined a bridge that is a tap point or over one: one event for each of these. A bridge whose MAC address nobody set takes
    /// the least of its ports', and so may change it then.
    Port {
        /// Tap point.
        point: u8,
        /// The port.
        name: IfName,
        /// It has left, else it has joined.
        left: bool,
    },
    /// A bridge learned a MAC address at another port; both are tapped.
    Moved {
        /// The address.
        mac: Mac,
        /// It was here,
        from: u8,
        /// and is here.
        to: u8,
    },
}

/// What a call of [`LinkEvents::poll`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkHeard {
    /// This many messages; nothing waits any more.
    All(usize),
    /// This many, and more wait.
    More,
    /// The kernel had no room for some: what is there now was listed instead.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    mac: Option<Mac>,
    master: Option<u32>,
    point: Option<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct LinkEvents {
    socket: Socket,
    /// Opened with it: a confined tap makes no socket.
    asked: Rtnetlink,
    state: State,
    bytes: Vec<u8>,
}

/// What is known of links and forwarding tables.
#[derive(Debug, Default)]
struct State {
    /// Names of the tap points.
    names: Vec<String>,
    /// By index.
    links: HashMap<u32, Link>,
    /// The port of a MAC address by bridge and VLAN.
    learned: HashMap<(u32, u16, Mac), u32>,
}

impl LinkEvents {
    /// Begins to listen for tap points of these names. The namespace is the calling thread's.
    pub fn open(names: Vec<String>) -> io::Result<LinkEvents> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        let state = State { names, ..State::default() };
        let asked = Rtnetlink::open()?;
        let mut events = LinkEvents { socket, asked, state, bytes: Vec::with_capacity(64 << 10) };
        // After the subscription: nothing is missed between.
        events.state.take(listed(&mut events.asked)?, &mut |_| {});
        Ok(events)
    }

    /// Tells of what has happened, or waits up to `wait_ms` for it.
    pub fn poll(&mut self, wait_ms: u16, each: &mut dyn FnMut(LinkEvent)) -> io::Result<LinkHeard> {
        let (mut read, mut waited, mut lost) = (0, false, false);
        while read < BATCH {
            self.bytes.clear();
            match self.socket.recv(&mut self.bytes, libc::MSG_DONTWAIT) {
                Ok(_) => {
                    read += 1;
                    let mut found = Vec::new();
                    messages(&self.bytes, &mut found);
                    self.state.take(found, each);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if lost {
                        // After all that waited: what is listed is newer.
                        self.state.take(listed(&mut self.asked)?, each);
                        return Ok(LinkHeard::Lost);
                    }
                    if read > 0 || std::mem::replace(&mut waited, true) || !wait(&self.socket, wait_ms)? {
                        return Ok(LinkHeard::All(read));
                    }
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if lost {
            self.state.take(listed(&mut self.asked)?, each);
            return Ok(LinkHeard::Lost);
        }
        Ok(LinkHeard::More)
    }
}

/// All links and forwarding tables there are.
fn listed(asked: &mut Rtnetlink) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut all = asked.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let mut tables = NeighbourMessage::default();
    tables.header.family = AddressFamily::Bridge;
    all.extend(asked.dump(RouteNetlinkMessage::GetNeighbour(tables))?);
    Ok(all)
}

/// What these datagrams of the kernel's tell, one after the other, to somebody who knew nothing before.
#[doc(hidden)] // for the fuzzer
pub fn read<'a>(
    names: Vec<String>,
    datagrams: impl Iterator<Item = &'a [u8]>,
    each: &mut dyn FnMut(LinkEvent),
) {
    let mut state = State { names, ..State::default() };
    for datagram in datagrams {
        let mut found = Vec::new();
        messages(datagram, &mut found);
        state.take(found, each);
    }
}

fn wait(socket: &Socket, wait_ms: u16) -> io::Result<bool> {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(wait_ms)) {
        Ok(n) => Ok(n > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// What cannot be read (attributes of a newer kernel) is left out.
fn messages(bytes: &[u8], out: &mut Vec<RouteNetlinkMessage>) {
    let mut rest = bytes;
    while let Some(length) = rest.first_chunk::<4>() {
        let length = u32::from_ne_bytes(*length) as usize;
        if length < 16 || length > rest.len() {
            break;
        }
        if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&lean(&rest[..length]))
            && let NetlinkPayload::InnerMessage(inner) = message.payload
        {
            out.push(inner);
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
}

fn mac_of(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

/// What is read of an interface.
struct Named<'a> {
    name: Option<&'a str>,
    mac: Option<Mac>,
    master: Option<u32>,
}

fn named(message: &LinkMessage) -> Named<'_> {
    let mut all = Named { name: None, mac: None, master: None };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(n) => all.name = Some(n),
            LinkAttribute::Address(a) => all.mac = mac_of(a),
            LinkAttribute::Controller(index) => all.master = Some(*index).filter(|i| *i != 0),
            _ => {}
        }
    }
    all
}

impl State {
    fn take(&mut self, messages: Vec<RouteNetlinkMessage>, each: &mut dyn FnMut(LinkEvent)) {
        for message in messages {
            match message {
                RouteNetlinkMessage::NewLink(link) => self.link(&link, each),
                // One of the bridge family says that a port has left its bridge; the bridge's own change comes after it.
                RouteNetlinkMessage::DelLink(link)
                    if link.header.interface_family == AddressFamily::Bridge =>
                {
                    let Named { name: Some(name), master: Some(bridge), .. } = named(&link) else { continue };
                    self.port(bridge, name, true, each);
                }
                RouteNetlinkMessage::DelLink(link)
                    if link.header.interface_family == AddressFamily::Unspec =>
                {
                    self.links.remove(&link.header.index);
                    self.learned.retain(|(bridge, ..), port| {
                        *bridge != link.header.index && *port != link.header.index
                    });
                }
                RouteNetlinkMessage::NewNeighbour(entry) => self.entry(&entry, each),
                _ => {}
            }
        }
    }

    fn link(&mut self, message: &LinkMessage, each: &mut dyn FnMut(LinkEvent)) {
        if message.header.interface_family != AddressFamily::Unspec {
            return;
        }
        // Events of one attribute, as wireless ones are, have no address.
        let Named { name: Some(name), mac: Some(mac), master } = named(message) else { return };
        let index = message.header.index;
        // One that changed its name is the tap point that it was, and no other is that one meanwhile.
        let before = self.links.get(&index).and_then(|l| l.point);
        let point = before.or_else(|| {
            let named = self.names.iter().position(|n| n == name).map(|n| n as u8);
            named.filter(|n| self.links.values().all(|l| l.point != Some(*n)))
        });
        let now = Link { mac: Some(mac), master, point };
        let before = self.links.insert(index, now);
        if let Some(bridge) = master.filter(|_| before.is_some_and(|b| b.master != master)) {
            self.port(bridge, name, false, each);
        }
        if let Some(before) = before.and_then(|l| l.mac).filter(|before| *before != mac) {
            for point in self.points_under(index) {
                each(LinkEvent::Changed { point, before, after: mac });
            }
        }
    }

    fn port(&self, bridge: u32, name: &str, left: bool, each: &mut dyn FnMut(LinkEvent)) {
        for point in self.points_under(bridge) {
            each(LinkEvent::Port { point, name: name.into(), left });
        }
    }

    /// Tap points that are this interface, or have it as a master.
    fn points_under(&self, index: u32) -> Vec<u8> {
        let under = |start: u32| {
            let mut chain = std::iter::successors(Some(start), |i| self.links.get(i).and_then(|l| l.master));
            chain.by_ref().take(MASTERS).any(|i| i == index)
        };
        let mut points: Vec<u8> =
            self.links.iter().filter(|(i, _)| under(**i)).filter_map(|(_, l)| l.point).collect();
        points.sort_unstable();
        points
    }

    fn entry(&mut self, message: &NeighbourMessage, each: &mut dyn FnMut(LinkEvent)) {
        let header = &message.header;
        // Learned ones only: neither those of the devices themselves nor those that somebody set.
        let set = matches!(header.state, NeighbourState::Permanent | NeighbourState::Noarp);
        if header.family != AddressFamily::Bridge || set || header.flags.contains(NeighbourFlags::Own) {
            return;
        }
        let (mut mac, mut bridge, mut vlan) = (None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(a) => mac = mac_of(a),
                NeighbourAttribute::Controller(index) => bridge = Some(*index),
                NeighbourAttribute::Vlan(id) => vlan = *id,
                _ => {}
            }
        }
        let (Some(mac), Some(bridge)) = (mac, bridge) else { return };
        if self.learned.len() == LEARNED {
            self.learned.clear();
        }
        let Some(before) = self.learned.insert((bridge, vlan, mac), header.ifindex) else { return };
        let point = |index: u32| self.links.get(&index).and_then(|l| l.point);
        if let (Some(from), Some(to)) = (point(before), point(header.ifindex))
            && from != to
        {
            each(LinkEvent::Moved { mac, from, to });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn link(index: u32, name: &str, mac: Mac, master: u32) -> RouteNetlinkMessage {
        let mut m = LinkMessage::default();
        m.header.index = index;
        m.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::Controller(master),
        ];
        RouteNetlinkMessage::NewLink(m)
    }

    fn learned(mac: Mac, port: u32, state: NeighbourState) -> RouteNetlinkMessage {
        let mut m = NeighbourMessage::default();
        m.header.family = AddressFamily::Bridge;
        m.header.ifindex = port;
        m.header.state = state;
        m.attributes =
            vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()), NeighbourAttribute::Controller(9)];
        RouteNetlinkMessage::NewNeighbour(m)
    }

    fn told(messages: Vec<RouteNetlinkMessage>) -> Vec<LinkEvent> {
        let mut state = State { names: vec!["p0".into(), "p1".into()], ..State::default() };
        let mut out = Vec::new();
        state.take(
            vec![link(9, "br0", A, 0), link(4, "p0", A, 9), link(5, "p1", B, 9), link(6, "p2", B, 9)],
            &mut |_| {},
        );
        state.take(messages, &mut |e| out.push(e));
        out
    }

    #[test]
    fn a_bridge_that_changes_its_mac_is_told_for_each_tapped_port() {
        let changed = |point| LinkEvent::Changed { point, before: A, after: B };
        assert_eq!(told(vec![link(9, "br0", B, 0), link(9, "br0", B, 0)]), [changed(0), changed(1)]);
        assert_eq!(told(vec![link(4, "p0", B, 9)]), [changed(0)]);
        assert_eq!(told(vec![link(6, "p2", A, 9)]), [], "not tapped");
        assert_eq!(told(vec![link(10, "p0", B, 9)]), [], "another interface of that name");
    }

    #[test]
    fn a_port_that_leaves_or_joins_is_told_for_each_tap_point_of_its_bridge() {
        let port = |point, left| LinkEvent::Port { point, name: "p2".into(), left };
        let RouteNetlinkMessage::NewLink(mut gone) = link(6, "p2", B, 9) else { unreachable!() };
        gone.header.interface_family = AddressFamily::Bridge;
        let mut left = vec![RouteNetlinkMessage::DelLink(gone), link(6, "p2", B, 0)];
        assert_eq!(told(left.clone()), [port(0, true), port(1, true)]);
        left.push(link(6, "p2", B, 9));
        assert_eq!(told(left)[2..], [port(0, false), port(1, false)]);
        assert_eq!(told(vec![link(7, "new", B, 0), link(7, "new", B, 8)]), [], "another bridge");
    }

    #[test]
    fn an_interface_that_changed_its_name_is_the_tap_point_that_it_was() {
        let changed = |before, after| LinkEvent::Changed { point: 0, before, after };
        let renamed = link(4, "elsewhere", A, 9);
        assert_eq!(told(vec![renamed.clone(), link(4, "elsewhere", B, 9)]), [changed(A, B)]);
        // Another one under the old name is not it, but takes its place once it is gone.
        let (other, gone) =
            (|mac| link(11, "p0", mac, 9), RouteNetlinkMessage::DelLink(LinkMessage::default()));
        assert_eq!(told(vec![renamed.clone(), other(A), other(B)]), []);
        let RouteNetlinkMessage::DelLink(mut gone) = gone else { unreachable!() };
        gone.header.index = 4;
        let gone = RouteNetlinkMessage::DelLink(gone);
        assert_eq!(told(vec![renamed, gone, other(A), other(B)]), [changed(A, B)]);
    }

    #[test]
    fn a_mac_that_is_learned_at_another_tapped_port_moved() {
        let (at, reachable) = (Mac([2, 0, 0, 0, 0, 7]), NeighbourState::Reachable);
        let moved =
            told(vec![learned(at, 4, reachable), learned(at, 4, reachable), learned(at, 5, reachable)]);
        assert_eq!(moved, [LinkEvent::Moved { mac: at, from: 0, to: 1 }]);
        assert_eq!(
            told(vec![learned(at, 4, reachable), learned(at, 6, reachable)]),
            [],
            "to an untapped port"
        );
        let set = NeighbourState::Permanent;
        assert_eq!(told(vec![learned(at, 4, set), learned(at, 5, set)]), [], "the ports' own");
    }
}
