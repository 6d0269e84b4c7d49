//! Interfaces over rtnetlink: what one is, and the private pair that clones travel through.

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::RawFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::attributes::lean;

/// An rtnetlink socket of the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Rtnetlink {
    socket: Socket,
    sequence: u32,
}

/// What the tap must know of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// Frames begin with an Ethernet header.
    pub ethernet: bool,
    /// The loopback.
    pub loopback: bool,
    /// Administratively up.
    pub up: bool,
    /// The bridge, bond or team it belongs to.
    pub master: Option<String>,
    /// VLANs, macvlans and the like on top of it.
    pub uppers: Vec<String>,
    /// Its addresses, IPv6 link-local ones left out: any interface that is up has one.
    pub addresses: Vec<IpAddr>,
    /// Receive queues it was made with.
    pub receive_queues: u32,
    /// MTU.
    pub mtu: u32,
}

/// Name, index and state of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// Frames begin with an Ethernet header.
    pub ethernet: bool,
    /// Up, and its cable is plugged in.
    pub running: bool,
    /// Id of the XDP program on it.
    pub xdp: Option<u32>,
}

impl Interface {
    /// Why the interface carries traffic of this machine, in words; `None` if nothing says so. Routes are those of the
    /// calling thread's namespace.
    pub fn live_because(&self) -> io::Result<Option<String>> {
        if let Some(address) = self.addresses.first() {
            return Ok(Some(format!("it has the address {address}")));
        }
        if let Some(master) = &self.master {
            return Ok(Some(format!("it belongs to {master}")));
        }
        if let Some(upper) = self.uppers.first() {
            return Ok(Some(format!("{upper} is on top of it")));
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            if let Some(route) = route_over(self.index, family)? {
                return Ok(Some(match route.as_str() {
                    "default" => "the default route leads over it".into(),
                    route => format!("the route to {route} leads over it"),
                }));
            }
        }
        Ok(None)
    }
}

impl Rtnetlink {
    /// Opens a socket.
    pub fn open() -> io::Result<Rtnetlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Rtnetlink { socket, sequence: 0 })
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Answers until the kernel says that was all or acknowledges, or `each` has had enough. Messages that cannot be
    /// read (attributes of a newer kernel) are left out, and so is what is left of an answer before.
    fn answers(&mut self, each: &mut dyn FnMut(RouteNetlinkMessage) -> ControlFlow<()>) -> io::Result<()> {
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while let Some(length) = rest.first_chunk::<4>() {
                let length = u32::from_ne_bytes(*length) as usize;
                if length < 16 || length > rest.len() {
                    break;
                }
                let of = u32::from_ne_bytes([rest[8], rest[9], rest[10], rest[11]]);
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&lean(&rest[..length]));
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                let Ok(message) = message else { continue };
                if of != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(e) => {
                        return match e.code {
                            None => Ok(()),
                            Some(code) => Err(io::Error::from_raw_os_error(code.get().abs())),
                        };
                    }
                    NetlinkPayload::InnerMessage(inner) => {
                        let enough = each(inner).is_break();
                        if enough {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// All that the kernel has to say to a request.
    pub(super) fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_DUMP)?;
        let mut all = Vec::new();
        self.answers(&mut |m| {
            all.push(m);
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        self.answers(&mut |_| ControlFlow::Continue(()))
    }

    fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let all = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(all
            .into_iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .collect())
    }

    /// Names and states of all interfaces, and nothing more: cheap enough for every second.
    pub fn states(&mut self) -> io::Result<Vec<LinkState>> {
        let state = |link: &LinkMessage| LinkState {
            name: name_of(link),
            index: link.header.index,
            ethernet: is_ethernet(link),
            running: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            xdp: xdp_of(link),
        };
        Ok(self.links()?.iter().map(state).collect())
    }

    /// All interfaces.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let links = self.links()?;
        let names: Vec<(u32, String)> = links.iter().map(|l| (l.header.index, name_of(l))).collect();
        let name = |index: u32| names.iter().find(|n| n.0 == index).map(|n| n.1.clone());
        let mut out: Vec<Interface> = links
            .iter()
            .map(|link| {
                let mut interface = Interface {
                    name: name_of(link),
                    index: link.header.index,
                    ethernet: is_ethernet(link),
                    loopback: link.header.link_layer_type == LinkLayerType::Loopback,
                    up: link.header.flags.contains(LinkFlags::Up),
                    receive_queues: 1,
                    ..Interface::default()
                };
                for attribute in &link.attributes {
                    match attribute {
                        LinkAttribute::Controller(index) => {
                            interface.master = name(*index)
                                .or_else(|| Some(format!("interface {index}")))
                                .filter(|_| *index != 0);
                        }
                        LinkAttribute::NumRxQueues(n) => interface.receive_queues = *n,
                        LinkAttribute::Mtu(n) => interface.mtu = *n,
                        _ => {}
                    }
                }
                interface
            })
            .collect();
        for link in &links {
            let peer_elsewhere = link.attributes.iter().any(|a| matches!(a, LinkAttribute::LinkNetNsId(_)));
            let lower = link.attributes.iter().find_map(|a| match a {
                // A veth names its peer the same way as a VLAN its parent.
                LinkAttribute::Link(index) if !peer_elsewhere && !is_veth(link) => Some(*index),
                _ => None,
            });
            if let Some(lower) = out.iter_mut().find(|i| Some(i.index) == lower) {
                lower.uppers.push(name_of(link));
            }
        }
        for message in self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            let RouteNetlinkMessage::NewAddress(message) = message else { continue };
            let address = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            let Some(address) = address.filter(|ip| !is_link_local(ip)) else { continue };
            if let Some(interface) = out.iter_mut().find(|i| i.index == message.header.index) {
                interface.addresses.push(address);
            }
        }
        Ok(out)
    }

    /// Makes a veth pair with `queues` queues at both ends, `name` here and `peer` in `namespace`. Neither end
    /// will get an IPv6 address of its own, and neither answers ARP.
    pub fn add_veth(
        &mut self,
        name: &str,
        peer: &str,
        namespace: RawFd,
        queues: u32,
        mtu: u32,
    ) -> io::Result<()> {
        let mut far = LinkMessage::default();
        far.header.flags = LinkFlags::Noarp;
        far.attributes = vec![
            LinkAttribute::IfName(peer.into()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::NumTxQueues(queues),
            LinkAttribute::NumRxQueues(queues),
            LinkAttribute::NetNsFd(namespace),
        ];
        let mut near = LinkMessage::default();
        near.header.flags = LinkFlags::Noarp;
        near.header.change_mask = LinkFlags::Noarp;
        near.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::NumTxQueues(queues),
            LinkAttribute::NumRxQueues(queues),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
            ]),
        ];
        self.change(RouteNetlinkMessage::NewLink(near), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Forbids an interface to give itself an IPv6 address.
    pub fn silence(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes =
            vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
                In6AddrGenMode::None,
            )])])];
        self.change(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Sets an interface up, without ARP.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up | LinkFlags::Noarp;
        link.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
        self.change(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Removes an interface.
    pub fn delete(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.change(RouteNetlinkMessage::DelLink(link), 0)
    }

    /// Index of an interface by its name.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        let links = self.links()?;
        let found = links.iter().find(|l| name_of(l) == name).map(|l| l.header.index);
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Packets that an interface dropped on transmission.
    pub fn transmit_drops(&mut self, index: u32) -> io::Result<u64> {
        let links = self.links()?;
        let link = links.iter().find(|l| l.header.index == index);
        let drops = link.and_then(|l| {
            l.attributes.iter().find_map(|a| match a {
                LinkAttribute::Stats64(stats) => Some(stats.tx_dropped),
                _ => None,
            })
        });
        drops.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }
}

/// The first XDP program on an interface.
fn xdp_of(link: &LinkMessage) -> Option<u32> {
    let attributes = link.attributes.iter().filter_map(|a| match a {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    attributes.flatten().find_map(|xdp| match xdp {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id).filter(|id| *id != 0)
        }
        _ => None,
    })
}

fn name_of(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// The destination of a route over an interface, in any table; routes that every interface gets by itself left out. The
/// kernel picks by interface and is asked for no more than the first, however many routes there are.
fn route_over(index: u32, family: AddressFamily) -> io::Result<Option<String>> {
    // A socket of its own: what is not read of the answer goes with it.
    let mut asked = Rtnetlink::open()?;
    asked.socket.set_netlink_get_strict_chk(true)?;
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.attributes.push(RouteAttribute::Oif(index));
    asked.send(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
    let mut found = None;
    asked.answers(&mut |m| {
        if let RouteNetlinkMessage::NewRoute(route) = m {
            found = carries(&route);
        }
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

/// Where the route leads, unless it is one that says nothing about traffic.
fn carries(route: &RouteMessage) -> Option<String> {
    use RouteType::{Anycast, Broadcast, Local, Multicast};
    let local = route.header.table == libc::RT_TABLE_LOCAL
        || matches!(route.header.kind, Local | Broadcast | Anycast | Multicast);
    let destination = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let length = route.header.destination_prefix_length;
    match destination {
        _ if local => None,
        None => Some("default".into()),
        Some(IpAddr::V6(ip)) if ip.is_multicast() || is_link_local(&ip.into()) => None,
        Some(ip) => Some(format!("{ip}/{length}")),
    }
}

fn is_ethernet(link: &LinkMessage) -> bool {
    matches!(link.header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Loopback)
}

fn is_veth(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|a| match a {
        LinkAttribute::LinkInfo(info) => info.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    })
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
}
