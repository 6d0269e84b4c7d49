//! ctnetlink messages: bytes to events, and the few requests.
//!
//! Read by hand, without allocation: an event is a walk over nested attributes, and only those that a rule or a person reads are
//! looked at. Whatever is truncated, nested wrongly or not TCP is `None`, never a panic.

use super::super::attributes::Attributes;
use crate::wire::Addr;

/// `NFNL_SUBSYS_CTNETLINK`, the upper half of a message type.
pub(super) const CTNETLINK: u8 = 1;
/// `IPCTNL_MSG_CT_NEW`: a new entry, a changed one, an entry of a dump.
pub(super) const CT_NEW: u8 = 0;
/// `IPCTNL_MSG_CT_GET`: asks for a dump.
pub(super) const CT_GET: u8 = 1;
/// `IPCTNL_MSG_CT_DELETE`: an entry is gone.
pub(super) const CT_DELETE: u8 = 2;
/// `IPCTNL_MSG_CT_GET_STATS_CPU`: asks for, and is, a CPU's counters.
pub(super) const CT_STATS_CPU: u8 = 4;

/// Bytes of `struct nlmsghdr` and `struct nfgenmsg`; attributes follow.
pub(super) const HEADERS: usize = 20;

/// Attributes, from linux/netfilter/nfnetlink_conntrack.h.
pub(super) mod cta {
    pub const TUPLE_ORIG: u16 = 1;
    pub const TUPLE_REPLY: u16 = 2;
    pub const STATUS: u16 = 3;
    pub const PROTOINFO: u16 = 4;
    pub const TIMEOUT: u16 = 7;
    pub const MARK: u16 = 8;
    pub const ZONE: u16 = 18;
    pub const FILTER: u16 = 25;
    pub const TIMESTAMP_EVENT: u16 = 27;
    pub const TUPLE_IP: u16 = 1;
    pub const TUPLE_PROTO: u16 = 2;
    pub const IP_V4_SRC: u16 = 1;
    pub const IP_V4_DST: u16 = 2;
    pub const IP_V6_SRC: u16 = 3;
    pub const IP_V6_DST: u16 = 4;
    pub const PROTO_NUM: u16 = 1;
    pub const PROTO_SRC_PORT: u16 = 2;
    pub const PROTO_DST_PORT: u16 = 3;
    pub const PROTOINFO_TCP: u16 = 1;
    pub const TCP_STATE: u16 = 1;
    pub const FILTER_ORIG_FLAGS: u16 = 1;
}

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was confirmed: its first packet went through.
    New,
    /// It changed.
    Update,
    /// It is gone.
    Destroy,
    /// It was there at a dump.
    Found,
}

/// An entry's TCP state (`enum tcp_conntrack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing yet.
    None,
    /// A SYN.
    SynSent,
    /// And its SYN-ACK.
    SynRecv,
    /// Open, or picked up in mid-stream.
    Established,
    /// One FIN.
    FinWait,
    /// And its acknowledgement.
    CloseWait,
    /// The other FIN.
    LastAck,
    /// And its acknowledgement.
    TimeWait,
    /// Reset.
    Close,
    /// SYNs both ways.
    SynSent2,
}

impl TcpState {
    const ALL: [TcpState; 10] = [
        TcpState::None,
        TcpState::SynSent,
        TcpState::SynRecv,
        TcpState::Established,
        TcpState::FinWait,
        TcpState::CloseWait,
        TcpState::LastAck,
        TcpState::TimeWait,
        TcpState::Close,
        TcpState::SynSent2,
    ];

    fn of(number: u8) -> Option<TcpState> {
        TcpState::ALL.get(usize::from(number)).copied()
    }

    /// As `conntrack -L` writes it.
    pub const fn name(self) -> &'static str {
        match self {
            TcpState::None => "NONE",
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait => "FIN_WAIT",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close => "CLOSE",
            TcpState::SynSent2 => "SYN_SENT2",
        }
    }
}

/// One direction of an entry: what its packets carry when they come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CtTuple {
    /// Source address and port.
    pub src: (Addr, u16),
    /// Destination address and port.
    pub dst: (Addr, u16),
}

/// `IPS_SEEN_REPLY` and `IPS_ASSURED` of the status.
const SEEN_REPLY: u32 = 1 << 1;
const ASSURED: u32 = 1 << 2;

/// What the kernel says of one TCP entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtEvent {
    /// What happened.
    pub change: Change,
    /// From the one who opened it.
    pub original: CtTuple,
    /// From the one who answers; translation shows in the difference.
    pub reply: CtTuple,
    /// Its state, where the message has one.
    pub state: Option<TcpState>,
    /// Status bits, `IPS_*`.
    pub status: u32,
    /// Zone; 0 where none is set up.
    pub zone: u16,
    /// Mark; 0 if none.
    pub mark: u32,
    /// Seconds it had left. A destroyed entry has them only if it was taken away before its time: by somebody's command, with an
    /// interface or its address, to make room.
    pub timeout_s: Option<u32>,
    /// A destroyed entry: the netlink port of the program that deleted it, its process id as a rule; 0 if the kernel did.
    pub by: u32,
    /// When it happened, ns since the epoch on the realtime clock; only with `net.netfilter.nf_conntrack_timestamp` on a kernel that
    /// stamps events (6.14).
    pub realtime_ns: Option<u64>,
}

impl CtEvent {
    /// Both directions had packets.
    pub fn seen_reply(&self) -> bool {
        self.status & SEEN_REPLY != 0
    }

    /// It is past its handshake, and not given up to make room.
    pub fn assured(&self) -> bool {
        self.status & ASSURED != 0
    }
}

/// What conntrack counts, on all CPUs of a network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtCounters {
    /// Entries that could not be confirmed, another one having taken their tuple meanwhile.
    pub insert_failed: u64,
    /// Packets dropped because an entry could not be made or confirmed.
    pub drop: u64,
    /// Entries given up to make room in a full table.
    pub early_drop: u64,
    /// Packets that belong to no entry and may not make one.
    pub invalid: u64,
    /// Lookups begun anew because the table was resized under them.
    pub search_restart: u64,
    /// Colliding entries that could be merged (never for TCP).
    pub clash_resolve: u64,
}

impl CtCounters {
    /// Names as `conntrack -S` prints them, with their values.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("insert_failed", self.insert_failed),
            ("drop", self.drop),
            ("early_drop", self.early_drop),
            ("invalid", self.invalid),
            ("search_restart", self.search_restart),
            ("clash_resolve", self.clash_resolve),
        ]
    }

    fn values(&mut self) -> [&mut u64; 6] {
        [
            &mut self.insert_failed,
            &mut self.drop,
            &mut self.early_drop,
            &mut self.invalid,
            &mut self.search_restart,
            &mut self.clash_resolve,
        ]
    }

    /// What was added since an earlier reading. The kernel counts in 32 bits, which wrap.
    pub fn since(mut self, earlier: CtCounters) -> CtCounters {
        for (now, (_, before)) in self.values().into_iter().zip(earlier.named()) {
            *now = u64::from((*now as u32).wrapping_sub(before as u32));
        }
        self
    }

    /// Adds another's figures.
    pub fn add(&mut self, other: CtCounters) {
        for (sum, (_, more)) in self.values().into_iter().zip(other.named()) {
            *sum += more;
        }
    }

    /// Adds a CPU's figures, summed in the 32 bits that they have.
    fn add_cpu(&mut self, attributes: &[u8]) {
        // CTA_STATS_*, in the order of `values`.
        for (sum, number) in self.values().into_iter().zip([9, 10, 11, 4, 13, 14]) {
            let value = attribute(attributes, number).and_then(be32).unwrap_or(0);
            *sum = u64::from((*sum as u32).wrapping_add(value));
        }
    }
}

/// One netlink message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// Subsystem and message, 0 and a control type for netlink's own.
    pub kind: (u8, u8),
    pub flags: u16,
    pub sequence: u32,
    pub port: u32,
    /// After the netlink header.
    pub payload: &'a [u8],
}

/// The messages of a datagram.
pub(super) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32::from_ne_bytes(*self.0.first_chunk()?) as usize;
        if length < 16 || length > self.0.len() {
            return None;
        }
        let (message, _) = self.0.split_at(length);
        self.0 = &self.0[length.next_multiple_of(4).min(self.0.len())..];
        let half = |at: usize| u16::from_ne_bytes([message[at], message[at + 1]]);
        let word =
            |at: usize| u32::from_ne_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]]);
        let [kind, subsystem] = half(4).to_le_bytes();
        Some(Message {
            kind: (subsystem, kind),
            flags: half(6),
            sequence: word(8),
            port: word(12),
            payload: &message[16..],
        })
    }
}

fn attribute(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    Attributes(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn be16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.try_into().ok()?))
}

fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// A tuple, if it is TCP's.
fn tuple(attributes: &[u8]) -> Option<CtTuple> {
    let ip = attribute(attributes, cta::TUPLE_IP)?;
    let proto = attribute(attributes, cta::TUPLE_PROTO)?;
    if attribute(proto, cta::PROTO_NUM)? != [6] {
        return None;
    }
    let address = |v4: u16, v6: u16| match attribute(ip, v4) {
        Some(value) => Some(Addr::v4(value.try_into().ok()?)),
        None => Some(Addr(attribute(ip, v6)?.try_into().ok()?)),
    };
    Some(CtTuple {
        src: (address(cta::IP_V4_SRC, cta::IP_V6_SRC)?, be16(attribute(proto, cta::PROTO_SRC_PORT)?)?),
        dst: (address(cta::IP_V4_DST, cta::IP_V6_DST)?, be16(attribute(proto, cta::PROTO_DST_PORT)?)?),
    })
}

/// A message about an entry; `None` for what is none, is not TCP's, or cannot be read. `dumped`: it answers a dump.
pub(super) fn event(message: &Message<'_>, dumped: bool) -> Option<CtEvent> {
    let created = message.flags & libc::NLM_F_CREATE as u16 != 0;
    let change = match message.kind {
        (CTNETLINK, CT_NEW) if dumped => Change::Found,
        (CTNETLINK, CT_NEW) if created => Change::New,
        (CTNETLINK, CT_NEW) => Change::Update,
        (CTNETLINK, CT_DELETE) => Change::Destroy,
        _ => return None,
    };
    let attributes = message.payload.get(HEADERS - 16..)?;
    let mut event = CtEvent {
        change,
        original: tuple(attribute(attributes, cta::TUPLE_ORIG)?)?,
        reply: tuple(attribute(attributes, cta::TUPLE_REPLY)?)?,
        state: None,
        status: 0,
        zone: 0,
        mark: 0,
        timeout_s: None,
        by: if change == Change::Destroy { message.port } else { 0 },
        realtime_ns: None,
    };
    for (kind, value) in Attributes(attributes) {
        match kind {
            cta::STATUS => event.status = be32(value).unwrap_or(0),
            cta::MARK => event.mark = be32(value).unwrap_or(0),
            cta::ZONE => event.zone = be16(value).unwrap_or(0),
            cta::TIMEOUT => event.timeout_s = be32(value),
            cta::TIMESTAMP_EVENT => {
                event.realtime_ns = value.try_into().ok().map(u64::from_be_bytes);
            }
            cta::PROTOINFO => {
                let state =
                    attribute(value, cta::PROTOINFO_TCP).and_then(|tcp| attribute(tcp, cta::TCP_STATE));
                event.state = state.and_then(<[u8]>::first).and_then(|n| TcpState::of(*n));
            }
            _ => {}
        }
    }
    Some(event)
}

/// A CPU's counters, added to `sum`; false for another message.
pub(super) fn add_cpu(message: &Message<'_>, sum: &mut CtCounters) -> bool {
    if message.kind != (CTNETLINK, CT_STATS_CPU) {
        return false;
    }
    sum.add_cpu(message.payload.get(HEADERS - 16..).unwrap_or_default());
    true
}

/// A request for a dump of `kind`, of TCP's entries alone if so `filtered`: kernels before 5.8 refuse to filter.
pub(super) fn dump_request(kind: u8, sequence: u32, filtered: bool) -> Vec<u8> {
    // CTA_FILTER_F_CTA_PROTO_NUM of net/netfilter/nf_internals.h.
    const BY_PROTOCOL: u32 = 1 << 3;
    let mut attributes = Vec::new();
    if filtered {
        let proto = nested(cta::TUPLE_PROTO, &plain(cta::PROTO_NUM, &[6]));
        attributes.extend(nested(cta::TUPLE_ORIG, &proto));
        attributes.extend(nested(cta::FILTER, &plain(cta::FILTER_ORIG_FLAGS, &BY_PROTOCOL.to_ne_bytes())));
    }
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    request(kind, flags, sequence, &attributes)
}

fn request(kind: u8, flags: u16, sequence: u32, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADERS + attributes.len()) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(u16::from_le_bytes([kind, CTNETLINK]).to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    // Any port; family, version and resource id are zero: all of them.
    bytes.extend([0; 8]);
    bytes.extend(attributes);
    bytes
}

fn plain(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, inner: &[u8]) -> Vec<u8> {
    plain(kind | 0x8000, inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    /// A datagram of a real kernel.
    fn real(name: &str) -> Vec<u8> {
        let line = include_str!("linux-6.18.txt").lines().find_map(|l| l.strip_prefix(&format!("{name} ")));
        let hex = line.expect("it is in the file");
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")).collect()
    }

    fn events(bytes: &[u8], dumped: bool) -> Vec<CtEvent> {
        Messages(bytes).filter_map(|m| event(&m, dumped)).collect()
    }

    fn one(name: &str) -> CtEvent {
        let all = events(&real(name), false);
        assert_eq!(all.len(), 1, "{name}");
        all[0]
    }

    fn tuple_of(src: &str, sport: u16, dst: &str, dport: u16) -> CtTuple {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().expect("an address"));
        CtTuple { src: (addr(src), sport), dst: (addr(dst), dport) }
    }

    // The bytes are those of a little-endian machine.
    #[cfg(target_endian = "little")]
    #[test]
    fn what_a_real_kernel_says_is_read() {
        let new = one("new_marked");
        assert_eq!((new.change, new.state), (Change::New, Some(TcpState::SynSent)));
        assert_eq!(new.original, tuple_of("10.77.0.11", 33_333, "198.51.100.2", 8082));
        assert_eq!(new.reply, tuple_of("198.51.100.2", 8082, "198.51.100.1", 33_333), "behind MASQUERADE");
        assert_eq!((new.mark, new.zone, new.timeout_s), (42, 0, Some(120)));
        assert!(!new.seen_reply() && !new.assured());
        assert_eq!(new.realtime_ns, Some(0x18eb_db3e_da45_e109));

        let answered = one("syn_recv");
        assert_eq!((answered.change, answered.state), (Change::Update, Some(TcpState::SynRecv)));
        assert!(answered.seen_reply() && !answered.assured());
        assert_eq!(one("close").state, Some(TcpState::Close));
        assert_eq!((one("status_only").change, one("status_only").state), (Change::Update, None));

        let deleted = one("deleted_by_28308");
        assert_eq!((deleted.change, deleted.state), (Change::Destroy, Some(TcpState::Established)));
        assert_eq!((deleted.by, deleted.timeout_s), (28_308, Some(431_999)));
        assert!(deleted.assured());
        let reset = one("reset_by_kernel");
        assert_eq!((reset.change, reset.state, reset.by), (Change::Destroy, Some(TcpState::Close), 0));

        let picked_up = one("picked_up");
        assert_eq!((picked_up.change, picked_up.state), (Change::New, Some(TcpState::Established)));
        assert!(!picked_up.seen_reply());
        assert_eq!(one("new_in_zone_7").zone, 7);
        let v6 = one("new_v6");
        assert_eq!(v6.original, tuple_of("2001:db8::1", 0x8174, "2001:db8::2", 9200));
        assert!(events(&real("udp_new"), false).is_empty());
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_dump_and_the_counters_are_read() {
        let dump = real("dump");
        let found = events(&dump, true);
        assert_eq!(found.len(), 2, "and one of UDP");
        let zones: Vec<(Change, u16)> = found.iter().map(|e| (e.change, e.zone)).collect();
        assert!(zones.contains(&(Change::Found, 7)) && zones.contains(&(Change::Found, 0)), "{zones:?}");
        let mut sum = CtCounters::default();
        assert!(Messages(&real("stats")).all(|m| add_cpu(&m, &mut sum)));
        assert_eq!(sum, CtCounters { invalid: 8, ..CtCounters::default() });
    }

    #[test]
    fn counters_are_summed_over_cpus_and_wrap_at_32_bits() {
        let cpu = |value: u32| plain(9, &value.to_be_bytes());
        let mut sum = CtCounters::default();
        [cpu(u32::MAX), cpu(3)].iter().for_each(|a| sum.add_cpu(a));
        assert_eq!(sum.insert_failed, 2);
        let before = CtCounters { insert_failed: u64::from(u32::MAX), drop: 7, ..CtCounters::default() };
        let now = CtCounters { insert_failed: 2, drop: 9, ..CtCounters::default() };
        assert_eq!(now.since(before), CtCounters { insert_failed: 3, drop: 2, ..CtCounters::default() });
        let mut total = now;
        total.add(before);
        assert_eq!(total.drop, 16);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn no_truncation_and_no_flipped_byte_makes_it_panic_or_read_past_the_end() {
        for line in include_str!("linux-6.18.txt").lines().filter(|l| !l.starts_with('#')) {
            let whole = real(line.split(' ').next().expect("a name"));
            for length in 0..whole.len() {
                assert!(events(&whole[..length], false).len() <= 3);
            }
            for at in 0..whole.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut torn = whole.clone();
                    torn[at] ^= flip;
                    let _ = events(&torn, false);
                    Messages(&torn).for_each(|m| {
                        add_cpu(&m, &mut CtCounters::default());
                    });
                }
            }
        }
    }
}
