//! Netlink attributes, and messages of links without those that nobody here reads.
//!
//! What a link's driver says of it is open-ended: dozens of kinds of device, each with attributes of its own, more with every kernel. A library
//! that knows them all also trusts their lengths, and one of another length than it expects ends the program. So a message of a link is
//! cut down to what is read before it is given to it.

/// Attributes in a row: number and value. Ends at the first that does not fit.
pub(super) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let [a, b, c, d] = *self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if length < 4 || length > self.0.len() {
            return None;
        }
        let value = &self.0[4..length];
        self.0 = &self.0[length.next_multiple_of(4).min(self.0.len())..];
        // The upper two bits say "nested" and "network order".
        Some((u16::from_ne_bytes([c, d]) & 0x3fff, value))
    }
}

/// `RTM_NEWLINK`, `RTM_DELLINK` and all else that the library takes for a link's message, though no kernel sends it: `RTM_GETLINK`,
/// `RTM_SETLINK`, `RTM_NEWLINKPROP`, `RTM_DELLINKPROP`, from linux/rtnetlink.h.
const LINKS: [u16; 6] = [16, 17, 18, 19, 108, 109];

/// What a kind of link is called: the kernel's longest is a dozen bytes.
const NAME: usize = 64;

/// Bytes of `struct nlmsghdr`, and of `struct ifinfomsg` behind it.
const HEADER: usize = 16;
const IFINFO: usize = 16;

/// `IFLA_LINKINFO`, of which `IFLA_INFO_KIND` is read.
const LINKINFO: u16 = 18;
const INFO_KIND: u16 = 1;

/// Attributes of a link that are read, and how long their values are, from linux/if_link.h: address, name, MTU, link, master,
/// statistics, queues, namespace of the link, XDP. 0 is any length.
const READ: [(u16, usize); 10] =
    [(1, 0), (3, 0), (4, 4), (5, 4), (10, 4), (23, 0), (31, 4), (32, 4), (37, 4), (43, 0)];

/// The message, or what is left of it if it is a link's.
pub(super) fn lean(message: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let kind = message.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    let Some(attributes) =
        message.get(HEADER + IFINFO..).filter(|_| kind.is_some_and(|k| LINKS.contains(&k)))
    else {
        return message.into();
    };
    let mut lean = message[..HEADER + IFINFO].to_vec();
    for (kind, value) in Attributes(attributes) {
        if READ.iter().any(|(k, length)| *k == kind && (*length == 0 || *length == value.len())) {
            put(&mut lean, kind, value);
        }
        let name = Attributes(value).find(|(k, _)| kind == LINKINFO && *k == INFO_KIND);
        if let Some((_, name)) = name.filter(|(_, name)| name.len() <= NAME) {
            let mut nested = Vec::with_capacity(name.len() + 8);
            put(&mut nested, INFO_KIND, name);
            put(&mut lean, LINKINFO, &nested);
        }
    }
    let length = lean.len() as u32;
    lean[..4].copy_from_slice(&length.to_ne_bytes());
    lean.into()
}

fn put(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend((value.len() as u16 + 4).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};

    /// A new link with these attributes.
    fn link(attributes: &[u8]) -> Vec<u8> {
        let mut m = vec![0; HEADER + IFINFO];
        m[4..6].copy_from_slice(&16u16.to_ne_bytes());
        m[20..24].copy_from_slice(&7u32.to_ne_bytes());
        m.extend(attributes);
        let length = m.len() as u32;
        m[..4].copy_from_slice(&length.to_ne_bytes());
        m
    }

    #[test]
    fn a_link_is_cut_down_to_what_is_read_and_a_drivers_own_attributes_do_no_harm() {
        let (mut attributes, mut info, mut data) = (Vec::new(), Vec::new(), Vec::new());
        // Of a bareudp device: the least source port, in three bytes where two belong.
        put(&mut data, 3, &[1, 2, 3]);
        put(&mut info, INFO_KIND, b"bareudp\0");
        put(&mut info, 2, &data);
        put(&mut attributes, 3, b"udp0\0");
        put(&mut attributes, 4, &1_400u32.to_ne_bytes());
        // A master in six bytes, and something that nobody reads.
        put(&mut attributes, 10, &[0; 6]);
        put(&mut attributes, 7, &[9; 40]);
        put(&mut attributes, 0x8000 | LINKINFO, &info);
        let message = link(&attributes);
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(read)) =
            NetlinkMessage::<RouteNetlinkMessage>::deserialize(&lean(&message)).expect("a message").payload
        else {
            panic!("it is a link")
        };
        assert_eq!(read.header.index, 7);
        let bareudp = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::BareUdp)]);
        assert_eq!(
            read.attributes,
            [LinkAttribute::IfName("udp0".into()), LinkAttribute::Mtu(1_400), bareudp]
        );
        // Whatever the library takes for a link's message.
        let whole = message.len();
        for kind in 0..=u8::MAX {
            let mut other = message.clone();
            other[4] = kind;
            let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&lean(&other));
            let link = read.is_ok_and(|m| format!("{m:?}").contains("IfName(\"udp0\")"));
            assert!(!link || lean(&other).len() < whole, "{kind}");
        }
    }

    #[test]
    fn other_messages_and_stumps_stay_as_they_are() {
        for n in 0..HEADER + IFINFO {
            let stump = &link(&[])[..n];
            assert_eq!(&*lean(stump), stump);
        }
        let mut neighbour = link(&[1; 40]);
        neighbour[4] = 28;
        assert_eq!(&*lean(&neighbour), neighbour);
    }
}
