//! `bpf/syntap.h` in Rust: what crosses between the kernel side and user space.
//!
//! Values are read field by field in host byte order at the offsets of the C structs, so no memory is
//! reinterpreted. The tests compare every offset, size and constant with the BTF that the compiler put into the
//! object: the two cannot drift apart unseen.

/// Goes up with any change of the metadata.
pub const VERSION: u8 = 1;
/// Second mark of a frame of ours.
pub const MAGIC: u8 = 0xa7;
/// Bytes of metadata in front of every mirrored packet.
pub const META_LEN: usize = 32;
/// Tap points at most.
pub const SLOTS: usize = 16;
/// Lanes: two directions a slot, and one for what belongs to none.
pub const LANES: usize = SLOTS * 2 + 1;
/// Elements of the XSKMAP.
pub const RINGS: u32 = 256;
/// The longest frame that is mirrored, metadata not counted.
pub const CARRY_MAX: u32 = 1760;
/// Bytes in front of a packet's in a record of a ring buffer.
pub const RECORD_HEAD: usize = META_LEN + 8;
/// Most bytes of a packet in a small record.
pub const RECORD_SMALL: usize = 144;
/// Most bytes of a packet in a large record.
pub const RECORD_LARGE: usize = 464;
/// The budget's window, nanoseconds.
pub const WINDOW_NS: u64 = 10_000_000;
/// What `syntap_budget.keep_new` and `keep_known` are when every tuple is mirrored.
pub const KEEP_ALL: u32 = 65_536;

/// Why a packet was mirrored: bits of [`Meta::reason`].
pub mod reason {
    /// SYN flag.
    pub const SYN: u16 = 1 << 0;
    /// FIN flag.
    pub const FIN: u16 = 1 << 1;
    /// RST flag.
    pub const RST: u16 = 1 << 2;
    /// Flags that no stack sends.
    pub const ODD: u16 = 1 << 3;
    /// A plain packet of a tuple under watch.
    pub const WATCH: u16 = 1 << 4;
    /// ARP.
    pub const ARP: u16 = 1 << 5;
    /// IPv6 neighbour solicitation or advertisement.
    pub const NEIGHBOUR: u16 = 1 << 6;
    /// An ICMP error that quotes a TCP tuple with a chosen port.
    pub const ICMP: u16 = 1 << 7;
    /// The ports can be read, the TCP header cannot.
    pub const BROKEN: u16 = 1 << 8;
    /// First fragment of several.
    pub const FRAGMENT: u16 = 1 << 9;
    /// Found inside a tunnel.
    pub const TUNNEL: u16 = 1 << 10;
}

/// What a ring buffer holds: metadata and the packet's first bytes. `None` if it is too short or not one of ours.
#[inline]
pub fn record(sample: &[u8]) -> Option<(Meta, &[u8])> {
    let meta = Meta::read(sample)?;
    let (head, bytes) = sample.split_at_checked(RECORD_HEAD)?;
    let len = u16::from_ne_bytes([head[META_LEN], head[META_LEN + 1]]);
    Some((meta, bytes.get(..usize::from(len))?))
}

/// In front of every frame: what the hook knew of the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// CLOCK_MONOTONIC at the hook, nanoseconds.
    pub time_ns: u64,
    /// Low half of the symmetric tuple hash; 0 for ARP and neighbour packets.
    pub hash: u32,
    /// Interface.
    pub ifindex: u32,
    /// Bytes at the hook, link header included.
    pub wire_len: u32,
    /// [`reason`] bits.
    pub reason: u16,
    /// Segments the packet stands for, at least 1.
    pub gso_segs: u16,
    /// EtherType of a tag that is not in the bytes; 0 without one.
    pub vlan_tpid: u16,
    /// That tag's control information.
    pub vlan_tci: u16,
    /// Tap point.
    pub slot: u8,
    /// 0 into the machine, 1 out of it.
    pub direction: u8,
}

impl Meta {
    /// Reads the metadata in front of a frame; `None` if the frame is too short or not one of ours.
    #[inline]
    pub fn read(frame: &[u8]) -> Option<Meta> {
        let b: &[u8; META_LEN] = frame.first_chunk()?;
        if b[30] != VERSION || b[31] != MAGIC {
            return None;
        }
        Some(Meta {
            time_ns: u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            hash: u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            ifindex: u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
            wire_len: u32::from_ne_bytes([b[16], b[17], b[18], b[19]]),
            reason: u16::from_ne_bytes([b[20], b[21]]),
            gso_segs: u16::from_ne_bytes([b[22], b[23]]),
            vlan_tpid: u16::from_ne_bytes([b[24], b[25]]),
            vlan_tci: u16::from_ne_bytes([b[26], b[27]]),
            slot: b[28],
            direction: b[29],
        })
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)*) => {
        /// Counters of a lane, in the order of `enum syntap_counter`.
        ///
        /// Each packet bumps `Packets` and exactly one from `NoSlot` to `ShedIcmp`; each selected packet one from
        /// `Mirrored` to `RingFull`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $variant,)* }

        impl Counter {
            /// All of them.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)*];
            /// How many.
            pub const COUNT: usize = Counter::ALL.len();

            /// The name in summaries and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)* }
            }
        }
    };
}

counters! {
    /// Everything that passed the hook.
    Packets "packets",
    /// The interface has no slot.
    NoSlot "no_slot",
    /// Neither IPv4, IPv6 nor ARP.
    NotIp "not_ip",
    /// IP, but neither TCP nor an ICMP error about TCP nor a neighbour packet.
    NotTcp "not_tcp",
    /// A fragment that is not the first: no ports.
    LaterFragment "later_fragment",
    /// TCP with neither port in the set.
    PortNotChosen "port_not_chosen",
    /// Shorter than an Ethernet header.
    LinkCut "link_cut",
    /// A VLAN tag is cut, or a third one.
    VlanBad "vlan_bad",
    /// The IPv4 header is cut or contradicts itself.
    Ipv4Bad "ipv4_bad",
    /// The IPv6 header is cut or is none.
    Ipv6Bad "ipv6_bad",
    /// Extension headers are cut or more than eight.
    Ipv6ChainBad "ipv6_chain_bad",
    /// The header of a tunnel is cut.
    TunnelBad "tunnel_bad",
    /// TCP whose ports are cut off.
    TcpCut "tcp_cut",
    /// TCP on a chosen port, plain flags, tuple not under watch.
    NotWatched "not_watched",
    /// Mirrored class: SYN without ACK.
    SelectedSyn "selected_syn",
    /// Mirrored class: SYN-ACK, FIN, RST, odd, broken.
    SelectedControl "selected_control",
    /// Mirrored class: plain packets of tuples under watch.
    SelectedWatch "selected_watch",
    /// Mirrored class: ARP and neighbour discovery.
    SelectedNeighbour "selected_neighbour",
    /// Mirrored class: ICMP errors.
    SelectedIcmp "selected_icmp",
    /// Over the budget: SYN without ACK.
    ShedSyn "shed_syn",
    /// Over the budget: SYN-ACK, FIN, RST, odd, broken.
    ShedControl "shed_control",
    /// Over the budget: plain packets of tuples under watch.
    ShedWatch "shed_watch",
    /// Over the budget: ARP and neighbour discovery.
    ShedNeighbour "shed_neighbour",
    /// Over the budget: ICMP errors.
    ShedIcmp "shed_icmp",
    /// On its way into a ring.
    Mirrored "mirrored",
    /// Plain data in a tunnel, left large by offload, whose clone the kernel does not shorten. Not mirrored and no
    /// loss: it is treated like the data behind the watch.
    TunnelLarge "tunnel_large",
    /// The clone failed: no memory, or the private pair was full.
    CloneFailed "clone_failed",
    /// The clone could not be shortened and was too long to carry.
    TrimFailed "trim_failed",
    /// The metadata could not be put in front.
    PushFailed "push_failed",
    /// No socket is bound to the queue, or the shard has no ring buffer.
    NoRing "no_ring",
    /// The ring buffer had no room: its worker is behind.
    RingFull "ring_full",
    /// Part of `shed_*` that met the hard cap: its tuples are not whole.
    ShedHard "shed_hard",
    /// Part of `shed_*` whose tuples were known to be open.
    ShedKnown "shed_known",
    /// Selected packets whose TCP header is broken.
    Broken "broken",
    /// Mirrored packets that went in pieces, of which the last did not arrive.
    PiecesLost "pieces_lost",
    /// Packets in the private pair that are not ours.
    Stray "stray",
}

/// One lane's counters, summed over CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters(pub [u64; Counter::COUNT]);

impl Default for Counters {
    fn default() -> Counters {
        Counters([0; Counter::COUNT])
    }
}

impl Counters {
    /// Bytes of `struct syntap_counters`.
    pub const LEN: usize = Counter::COUNT * 8;

    /// One counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Sum of a range of counters, ends included.
    pub fn sum(&self, first: Counter, last: Counter) -> u64 {
        self.0[first as usize..=last as usize].iter().sum()
    }

    /// Packets that were chosen and within the budget.
    pub fn selected(&self) -> u64 {
        self.sum(Counter::SelectedSyn, Counter::SelectedIcmp)
    }

    /// Packets that were chosen and over the budget.
    pub fn shed(&self) -> u64 {
        self.sum(Counter::ShedSyn, Counter::ShedIcmp)
    }

    /// Packets whose headers could not be read.
    pub fn malformed(&self) -> u64 {
        self.sum(Counter::LinkCut, Counter::TcpCut)
    }

    /// Selected packets that did not reach a ring.
    pub fn failed(&self) -> u64 {
        self.sum(Counter::CloneFailed, Counter::RingFull)
    }

    /// Adds another lane's or CPU's.
    pub fn add(&mut self, other: &Counters) {
        for (sum, n) in self.0.iter_mut().zip(other.0) {
            *sum = sum.wrapping_add(n);
        }
    }

    pub(super) fn add_bytes(&mut self, value: &[u8]) {
        for (sum, n) in self.0.iter_mut().zip(words(value)) {
            *sum = sum.wrapping_add(n);
        }
    }
}

/// Packets and segments of one combination of TCP flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CensusCell {
    /// Packets as the hook saw them.
    pub packets: u64,
    /// Segments they stand for.
    pub segments: u64,
}

/// TCP packets on chosen ports by their eight flag bits, summed over CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census(pub Box<[CensusCell; 256]>);

impl Default for Census {
    fn default() -> Census {
        Census(Box::new([CensusCell::default(); 256]))
    }
}

impl Census {
    /// Bytes of `struct syntap_census`.
    pub const LEN: usize = 256 * 16;

    pub(super) fn add_bytes(&mut self, value: &[u8]) {
        let mut words = words(value);
        for cell in self.0.iter_mut() {
            cell.packets = cell.packets.wrapping_add(words.next().unwrap_or(0));
            cell.segments = cell.segments.wrapping_add(words.next().unwrap_or(0));
        }
    }
}

fn words(value: &[u8]) -> impl Iterator<Item = u64> + '_ {
    value.chunks_exact(8).map(|c| u64::from_ne_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
}

/// `struct syntap_config`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub key: [u64; 2],
    pub watch_ns: u64,
    pub watch_packets: u32,
    pub watch_mask: u32,
    pub neighbour_budget: u32,
    pub shards: u32,
    pub snap: u32,
    pub carrier: u32,
    pub known_mask: u32,
    pub records: u32,
}

impl Config {
    pub const LEN: usize = 64;

    pub fn bytes(&self) -> [u8; Config::LEN] {
        let mut out = [0; Config::LEN];
        for (i, word) in [self.key[0], self.key[1], self.watch_ns].into_iter().enumerate() {
            out[i * 8..i * 8 + 8].copy_from_slice(&word.to_ne_bytes());
        }
        let small = [
            self.watch_packets,
            self.watch_mask,
            self.neighbour_budget,
            self.shards,
            self.snap,
            self.carrier,
            self.known_mask,
            self.records,
        ];
        for (i, word) in small.into_iter().enumerate() {
            out[24 + i * 4..28 + i * 4].copy_from_slice(&word.to_ne_bytes());
        }
        out
    }
}

/// Bytes of `struct syntap_tables`.
pub(super) const TABLES_LEN: usize = 65536 / 8 + SLOTS * 8;

/// `struct syntap_tables`: the ports' words, then interface and first ring of each slot.
pub(super) fn tables_bytes(ports: &[u64; 1024], slots: &[(u32, u32)]) -> Vec<u8> {
    let mut out: Vec<u8> = ports.iter().flat_map(|w| w.to_ne_bytes()).collect();
    for (ifindex, ring) in slots {
        out.extend(ifindex.to_ne_bytes());
        out.extend(ring.to_ne_bytes());
    }
    out.resize(TABLES_LEN, 0);
    out
}

/// `struct syntap_allowance` of every slot: packets and nanoseconds a window.
pub(super) fn allowance_bytes(slots: &[[u32; 2]; SLOTS]) -> Vec<u8> {
    slots.as_flattened().iter().flat_map(|n| n.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::budget::Kept;
    use super::*;
    use libbpf_rs::HasSize;
    use libbpf_rs::btf::{Btf, types};

    fn btf() -> Btf<'static> {
        Btf::from_raw("syntap", super::super::load::OBJECT).expect("readable").expect("has BTF")
    }

    /// Name and offset in bytes of each member.
    fn members(name: &str) -> (usize, Vec<(String, usize)>) {
        let btf = btf();
        let ty: types::Struct<'_> = btf.type_by_name(name).unwrap_or_else(|| panic!("no struct {name}"));
        let list = ty
            .iter()
            .map(|m| {
                let types::MemberAttr::Normal { offset } = m.attr else { panic!("bit field") };
                (m.name.unwrap().to_str().unwrap().to_owned(), offset as usize / 8)
            })
            .collect();
        (ty.size(), list)
    }

    fn constants(name: &str) -> Vec<(String, i64)> {
        let btf = btf();
        let ty: types::Enum<'_> = btf.type_by_name(name).unwrap_or_else(|| panic!("no enum {name}"));
        ty.iter().map(|m| (m.name.unwrap().to_str().unwrap().to_owned(), m.value)).collect()
    }

    #[test]
    fn metadata_is_where_the_kernel_side_puts_it() {
        let (size, list) = members("syntap_meta");
        assert_eq!(size, META_LEN);
        // Each field in turn is filled with ones: the reader must see exactly that field change.
        let mut seen = Vec::new();
        for (i, (name, offset)) in list.iter().enumerate() {
            let end = list.get(i + 1).map_or(size, |next| next.1);
            let mut raw = [0u8; META_LEN];
            raw[30] = VERSION;
            raw[31] = MAGIC;
            if *offset < 30 {
                raw[*offset..end].fill(0xff);
            }
            let m = Meta::read(&raw).expect("marked as ours");
            let fields = [
                ("time_ns", m.time_ns == u64::MAX),
                ("hash", m.hash == u32::MAX),
                ("ifindex", m.ifindex == u32::MAX),
                ("wire_len", m.wire_len == u32::MAX),
                ("reason", m.reason == u16::MAX),
                ("gso_segs", m.gso_segs == u16::MAX),
                ("vlan_tpid", m.vlan_tpid == u16::MAX),
                ("vlan_tci", m.vlan_tci == u16::MAX),
                ("slot", m.slot == u8::MAX),
                ("direction", m.direction == u8::MAX),
            ];
            seen.extend(fields.iter().filter(|f| f.1).map(|f| (f.0.to_owned(), name.clone())));
        }
        assert_eq!(seen.len(), 10, "every field is read from somewhere: {seen:?}");
        assert!(seen.iter().all(|(rust, c)| rust == c), "{seen:?}");
        assert_eq!(list[10], ("version".to_owned(), 30));
        assert_eq!(list[11], ("magic".to_owned(), 31));
    }

    #[test]
    fn counters_have_the_names_and_order_of_the_kernel_side() {
        let list = constants("syntap_counter");
        let names: Vec<_> =
            list.iter().map(|(n, _)| n.trim_start_matches("SYNTAP_N_").to_ascii_lowercase()).collect();
        let ours: Vec<_> = Counter::ALL.iter().map(|c| c.name().to_owned()).collect();
        assert_eq!(names[..Counter::COUNT], ours[..]);
        assert_eq!(names[Counter::COUNT], "syntap_counters");
        assert_eq!(members("syntap_counters").0, Counters::LEN);
        assert_eq!(members("syntap_census").0, Census::LEN);
    }

    #[test]
    fn reasons_and_limits_are_those_of_the_kernel_side() {
        let reasons = constants("syntap_reason");
        let ours = [
            ("SYN", reason::SYN),
            ("FIN", reason::FIN),
            ("RST", reason::RST),
            ("ODD", reason::ODD),
            ("WATCH", reason::WATCH),
            ("ARP", reason::ARP),
            ("NEIGHBOUR", reason::NEIGHBOUR),
            ("ICMP", reason::ICMP),
            ("BROKEN", reason::BROKEN),
            ("FRAGMENT", reason::FRAGMENT),
            ("TUNNEL", reason::TUNNEL),
        ];
        let ours: Vec<_> = ours.map(|(n, v)| (format!("SYNTAP_REASON_{n}"), i64::from(v))).into();
        assert_eq!(reasons, ours);

        let limits = constants("syntap_limits");
        let limit = |name: &str| limits.iter().find(|l| l.0 == format!("SYNTAP_{name}")).unwrap().1;
        assert_eq!(limit("VERSION"), i64::from(VERSION));
        assert_eq!(limit("MAGIC"), i64::from(MAGIC));
        assert_eq!(limit("META_LEN"), META_LEN as i64);
        assert_eq!(limit("SLOTS"), SLOTS as i64);
        assert_eq!(limit("LANES"), LANES as i64);
        assert_eq!(limit("RINGS"), i64::from(RINGS));
        assert_eq!(limit("CARRY_MAX"), i64::from(CARRY_MAX));
        assert_eq!(limit("RECORD_HEAD"), RECORD_HEAD as i64);
        assert_eq!(limit("RECORD_SMALL"), RECORD_SMALL as i64);
        assert_eq!(limit("RECORD_LARGE"), RECORD_LARGE as i64);
        assert_eq!(limit("WINDOW_NS"), WINDOW_NS as i64);
        assert_eq!(limit("KEEP_ALL"), i64::from(KEEP_ALL));
        assert_eq!(limit("KNOWN_WAYS"), super::super::known::WAYS as i64);
    }

    #[test]
    fn configuration_is_where_the_kernel_side_reads_it() {
        let (size, list) = members("syntap_config");
        assert_eq!(size, Config::LEN);
        let config = Config {
            key: [1, 2],
            watch_ns: 3,
            watch_packets: 4,
            watch_mask: 5,
            neighbour_budget: 6,
            shards: 7,
            snap: 8,
            carrier: 9,
            known_mask: 10,
            records: 11,
        };
        let raw = config.bytes();
        let expect = [
            ("key", 1u32),
            ("watch_ns", 3),
            ("watch_packets", 4),
            ("watch_mask", 5),
            ("neighbour_budget", 6),
            ("shards", 7),
            ("snap", 8),
            ("carrier", 9),
            ("known_mask", 10),
            ("records", 11),
            ("reserved", 0),
        ];
        assert_eq!(list.len(), expect.len());
        for ((name, offset), (want, value)) in list.iter().zip(expect) {
            assert_eq!(name, want);
            // The values are small: their first four bytes tell them apart on a little-endian machine.
            if cfg!(target_endian = "little") {
                assert_eq!(raw[*offset..offset + 4], value.to_ne_bytes(), "{name}");
            }
        }
        let (size, list) = members("syntap_tables");
        assert_eq!(size, TABLES_LEN);
        assert_eq!(list, [("ports".to_owned(), 0), ("slots".to_owned(), 8192)]);
        assert_eq!(members("syntap_slot").1, [("ifindex".to_owned(), 0), ("ring".to_owned(), 4)]);
        let allowance = allowance_bytes(&[[11, 12]; SLOTS]);
        let (size, list) = members("syntap_allowance");
        assert_eq!((allowance.len(), list), (size * SLOTS, vec![("packets".into(), 0), ("ns".into(), 4)]));
        assert_eq!(allowance[4..8], 12u32.to_ne_bytes());
    }

    #[test]
    fn the_share_that_is_kept_is_read_where_the_kernel_side_writes_it() {
        let (size, list) = members("syntap_budget");
        for member in [("window_ns", 0), ("keep_new", 28), ("keep_known", 32)] {
            assert!(list.contains(&(member.0.to_owned(), member.1)), "{list:?}");
        }
        let mut raw = vec![0u8; size];
        raw[28..32].copy_from_slice(&16_384u32.to_ne_bytes());
        raw[32..36].copy_from_slice(&32_768u32.to_ne_bytes());
        assert_eq!(Kept::read(&raw, 5), None, "no window yet");
        raw[..8].copy_from_slice(&1_000u64.to_ne_bytes());
        assert_eq!(Kept::read(&raw, 1_000 + WINDOW_NS), Some(Kept { new: 0.25, known: 0.5 }));
        assert_eq!(Kept::read(&raw, 1_000 + 10 * WINDOW_NS), None, "the next packet finds all kept again");
    }

    #[test]
    fn a_record_is_its_metadata_its_length_and_that_many_bytes() {
        let (size, list) = members("syntap_record");
        assert_eq!(size, RECORD_HEAD);
        let names: Vec<_> = list.iter().map(|(n, at)| (n.as_str(), *at)).collect();
        assert_eq!(names, [("meta", 0), ("len", 32), ("reserved", 34)]);
        assert_eq!(members("syntap_sleepers").0, RINGS as usize * 4);
        // Whole cache lines with the ring buffer's own eight bytes.
        assert_eq!(((RECORD_HEAD + RECORD_SMALL + 8) % 64, (RECORD_HEAD + RECORD_LARGE + 8) % 64), (0, 0));

        let mut raw = [0u8; RECORD_HEAD + RECORD_SMALL];
        raw[30] = VERSION;
        raw[31] = MAGIC;
        raw[32..34].copy_from_slice(&3u16.to_ne_bytes());
        raw[40..44].copy_from_slice(b"abcd");
        assert_eq!(record(&raw).map(|r| r.1), Some(&b"abc"[..]));
        raw[32..34].copy_from_slice(&(RECORD_SMALL as u16 + 1).to_ne_bytes());
        assert_eq!(record(&raw), None, "longer than it is");
        assert_eq!(record(&raw[..RECORD_HEAD - 1]), None);
        raw[31] = 0;
        assert_eq!(record(&raw), None);
    }

    #[test]
    fn a_frame_that_is_short_or_not_ours_has_no_metadata() {
        let mut raw = [0u8; META_LEN];
        assert_eq!(Meta::read(&raw), None);
        raw[30] = VERSION;
        raw[31] = MAGIC;
        assert!(Meta::read(&raw).is_some());
        assert_eq!(Meta::read(&raw[..31]), None);
        raw[30] = VERSION + 1;
        assert_eq!(Meta::read(&raw), None);
    }
}
