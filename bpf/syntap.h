/* SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0 */
/*
 * What the kernel side and user space say to each other. Everything that crosses is declared here and nowhere
 * else: the metadata in front of each mirrored packet, the counters, the configuration, the tables.
 *
 *   direction      what                       where
 *   kernel -> us   struct syntap_meta         first SYNTAP_META_LEN bytes of every frame in a ring
 *   kernel -> us   struct syntap_record       in a BPF ring buffer of map "records", one a shard
 *   kernel -> us   struct syntap_counters     map "counters", per CPU, one element a lane
 *   kernel -> us   struct syntap_census       map "census", per CPU, one element a lane
 *   us -> kernel   struct syntap_config       read-only data, fixed at load: the JIT folds it into the code
 *   us -> kernel   struct syntap_allowance    writable data, one a slot, may change while attached
 *   us -> kernel   struct syntap_tables       writable data, may change while attached
 *   us -> kernel   struct syntap_known_bucket map "known"
 *   both           struct syntap_sleepers     writable data, mapped
 *   both           struct syntap_watch_bucket map "watch"
 *   both           struct syntap_watch_marks  map "watch_marks"
 *
 * A lane is one direction of one tap point: slot * 2 + direction. src/bpf/abi.rs mirrors these types; a test
 * compares every member's offset with the BTF that the compiler wrote into the object.
 */
#ifndef SYNTAP_H
#define SYNTAP_H

#include <linux/types.h>

enum syntap_limits {
	/* Goes up with any change of struct syntap_meta; user space refuses a frame of another version. */
	SYNTAP_VERSION = 1,
	/* Second mark of a frame of ours, so that a stray packet in the private pair is never taken for one. */
	SYNTAP_MAGIC = 0xa7,

	/* Half a cache line; a multiple of 8, so that the packet behind it keeps the frame's alignment. */
	SYNTAP_META_LEN = 32,

	/* Tap points. Each packet scans the table, so it is short; a gateway has two to four interfaces. */
	SYNTAP_SLOTS = 16,
	/* The last lane collects what belongs to no slot (an interface that was re-created with a new index).
	 */
	SYNTAP_LANES = SYNTAP_SLOTS * 2 + 1,
	SYNTAP_LANE_STRAY = SYNTAP_SLOTS * 2,

	/* Rings over all interfaces: XSKMAP elements. 256 queues is the largest NIC in the field's use. */
	SYNTAP_RINGS = 256,

	/* 65,536 ports as 64-bit words. */
	SYNTAP_PORT_WORDS = 65536 / 64,

	/* Tags in the bytes. 802.1ad knows two; a third is either a mistake or a tunnel nobody asked for. */
	SYNTAP_VLAN_TAGS = 2,
	/* IPv6 extension headers. RFC 8200 section 4.1 lists seven places; eight lets one repeat. */
	SYNTAP_IPV6_HEADERS = 8,

	/* Four entries of 16 bytes fill a cache line: a look-up costs one miss, however it ends. */
	SYNTAP_WATCH_WAYS = 4,
	/* Buckets whose marks fill a cache line. */
	SYNTAP_WATCH_MARKED = 16,
	/* Tags of known tuples in a bucket: a cache line as well. */
	SYNTAP_KNOWN_WAYS = 16,

	/* The budget's clock. Shorter cuts bursts that a ring holds easily; longer lets one window's burst
	 * (budget / 100 packets, twice that of known tuples) outgrow the 4,096 frames of a ring: 2,000 at the
	 * default budget of 200,000/s.
	 */
	SYNTAP_WINDOW_NS = 10000000,
	/* The most that one mirrored packet is charged where time is metered: fifty times what one costs. More
	 * is an interrupt in between, or a hypervisor, and would close the window for all others.
	 */
	SYNTAP_CHARGE_MAX_NS = 100000,
	/* keep == KEEP_ALL mirrors every tuple, keep == KEEP_ALL / 4 one tuple in four. */
	SYNTAP_KEEP_ALL = 65536,

	/* The longest frame that is mirrored: what a UMEM frame of 2,048 bytes holds after 256 of XDP headroom.
	 * A clone that cannot be trimmed goes on whole up to this. The private pair's MTU leaves room for it.
	 */
	SYNTAP_CARRY_MAX = 2048 - 256 - SYNTAP_META_LEN,

	/* In front of a packet's bytes in a record. */
	SYNTAP_RECORD_HEAD = SYNTAP_META_LEN + 8,
	/* A ring buffer gives out constant sizes only, so there are two. With the 8 bytes that it puts in front
	 * they are whole cache lines: no two CPUs write to one.
	 *
	 * 144 bytes of a packet hold Ethernet, two VLAN tags, IPv6 and TCP with all of its options (14 + 8 + 40
	 * + 60). One line less would cut a TCP header with more than 26 bytes of options, which each end's SACK
	 * is; one more would be read by nobody. */
	SYNTAP_RECORD_SMALL = 192 - 8 - SYNTAP_RECORD_HEAD,
	/* 464 bytes of one that needs more than headers: a tunnel (snap bytes of 256 behind outer headers of up
	 * to 208), extension headers, a reset's text, what an ICMP error quotes. */
	SYNTAP_RECORD_LARGE = 512 - 8 - SYNTAP_RECORD_HEAD,
};

/* Why a packet was mirrored: bits of syntap_meta.reason. */
enum syntap_reason {
	SYNTAP_REASON_SYN = 1 << 0,
	SYNTAP_REASON_FIN = 1 << 1,
	SYNTAP_REASON_RST = 1 << 2,
	/* Flags that no stack sends: no ACK outside SYN and RST, or two of SYN, FIN, RST at once. */
	SYNTAP_REASON_ODD = 1 << 3,
	/* A plain packet of a tuple that a SYN, FIN or RST (or user space) put under watch. */
	SYNTAP_REASON_WATCH = 1 << 4,
	SYNTAP_REASON_ARP = 1 << 5,
	/* IPv6 neighbour solicitation or advertisement. */
	SYNTAP_REASON_NEIGHBOUR = 1 << 6,
	/* An ICMP error that quotes a TCP tuple with a chosen port. */
	SYNTAP_REASON_ICMP = 1 << 7,
	/* The ports can be read, the TCP header cannot: cut by the packet's own length, or a bad data offset.
	 */
	SYNTAP_REASON_BROKEN = 1 << 8,
	/* First fragment of several. Never alone. */
	SYNTAP_REASON_FRAGMENT = 1 << 9,
	/* Found inside a tunnel. Never alone. */
	SYNTAP_REASON_TUNNEL = 1 << 10,
};

enum syntap_direction {
	SYNTAP_INGRESS = 0,
	SYNTAP_EGRESS = 1,
};

/* Classes that the budget counts apart, most wanted first. */
enum syntap_class {
	SYNTAP_CLASS_SYN,     /* SYN without ACK */
	SYNTAP_CLASS_CONTROL, /* SYN-ACK, FIN, RST, odd, broken */
	SYNTAP_CLASS_WATCH,
	SYNTAP_CLASS_NEIGHBOUR, /* ARP and neighbour discovery */
	SYNTAP_CLASS_ICMP,
	SYNTAP_CLASSES,
};

/*
 * Counters of a lane. Each packet bumps PACKETS and exactly one counter from NO_SLOT to SHED_ICMP; each
 * selected packet bumps one from MIRRORED to RING_FULL. So
 *
 *   packets  == no_slot + ... + shed_icmp
 *   selected == mirrored + tunnel_large + clone_failed + trim_failed + push_failed + no_ring + ring_full
 *
 * and a test holds both.
 */
enum syntap_counter {
	SYNTAP_N_PACKETS,
	/* Not for us, or not readable. */
	SYNTAP_N_NO_SLOT,
	SYNTAP_N_NOT_IP,
	SYNTAP_N_NOT_TCP,
	SYNTAP_N_LATER_FRAGMENT,
	SYNTAP_N_PORT_NOT_CHOSEN,
	SYNTAP_N_LINK_CUT,
	SYNTAP_N_VLAN_BAD,
	SYNTAP_N_IPV4_BAD,
	SYNTAP_N_IPV6_BAD,
	SYNTAP_N_IPV6_CHAIN_BAD,
	SYNTAP_N_TUNNEL_BAD,
	SYNTAP_N_TCP_CUT,
	/* TCP on a chosen port, plain flags, tuple not under watch. */
	SYNTAP_N_NOT_WATCHED,
	/* Chosen, within the budget; in order of enum syntap_class. */
	SYNTAP_N_SELECTED_SYN,
	SYNTAP_N_SELECTED_CONTROL,
	SYNTAP_N_SELECTED_WATCH,
	SYNTAP_N_SELECTED_NEIGHBOUR,
	SYNTAP_N_SELECTED_ICMP,
	/* Chosen, over the budget; same order. */
	SYNTAP_N_SHED_SYN,
	SYNTAP_N_SHED_CONTROL,
	SYNTAP_N_SHED_WATCH,
	SYNTAP_N_SHED_NEIGHBOUR,
	SYNTAP_N_SHED_ICMP,
	/* What became of the selected ones. */
	SYNTAP_N_MIRRORED,
	/* Plain data in a tunnel, left large by offload: the kernel shortens no encapsulated packet, and
	 * cutting one into its segments to mirror the first would cost dozens of packets. Not mirrored, as the
	 * data behind the watch is not. */
	SYNTAP_N_TUNNEL_LARGE,
	SYNTAP_N_CLONE_FAILED, /* no memory, or the private pair's ring was full */
	SYNTAP_N_TRIM_FAILED,
	SYNTAP_N_PUSH_FAILED,
	SYNTAP_N_NO_RING,   /* no socket bound to the queue, or no ring buffer for the shard */
	SYNTAP_N_RING_FULL, /* the ring buffer had no room: its worker is behind */
	/* Beside the sums: part of shed_* that met the hard cap, so its tuples are not whole. */
	SYNTAP_N_SHED_HARD,
	/* Beside the sums: part of shed_* whose tuples were known to be open. */
	SYNTAP_N_SHED_KNOWN,
	/* Beside the sums: selected packets whose TCP header is broken. */
	SYNTAP_N_BROKEN,
	/* Beside the sums: mirrored packets that went in pieces, of which the last did not arrive. */
	SYNTAP_N_PIECES_LOST,
	/* In the stray lane: a packet in the private pair that we did not put there. */
	SYNTAP_N_STRAY,
	SYNTAP_COUNTERS,
};

struct syntap_counters {
	__u64 n[SYNTAP_COUNTERS];
};

/* In front of every frame. Host byte order. */
struct syntap_meta {
	__u64 time_ns; /* CLOCK_MONOTONIC, taken at the hook */
	__u32 hash;    /* low half of the symmetric tuple hash; 0 for ARP and neighbours */
	__u32 ifindex;
	__u32 wire_len;	 /* bytes at the hook, link header included; a GSO packet counts whole */
	__u16 reason;	 /* enum syntap_reason */
	__u16 gso_segs;	 /* segments the packet stands for; 1 for a plain one */
	__u16 vlan_tpid; /* tag that is not in the bytes; 0 without one */
	__u16 vlan_tci;
	__u8 slot;	/* tap point */
	__u8 direction; /* enum syntap_direction */
	__u8 version;	/* SYNTAP_VERSION */
	__u8 magic;	/* SYNTAP_MAGIC */
};

_Static_assert(sizeof(struct syntap_meta) == SYNTAP_META_LEN, "the metadata fills its length");

/* In front of a mirrored packet in a ring buffer. */
struct syntap_record {
	struct syntap_meta meta;
	__u16 len; /* bytes of the packet that follow */
	__u16 reserved[3];
};

_Static_assert(sizeof(struct syntap_record) == SYNTAP_RECORD_HEAD, "no hidden padding");

struct syntap_census_cell {
	__u64 packets;
	__u64 segments;
};

/* TCP packets on chosen ports by their eight flag bits. */
struct syntap_census {
	struct syntap_census_cell flags[256];
};

struct syntap_config {
	__u64 key[2];		/* secret of the tuple hash: ports are the attacker's choice */
	__u64 watch_ns;		/* how long a tuple stays under watch */
	__u32 watch_packets;	/* how many plain packets it may mirror meanwhile */
	__u32 watch_mask;	/* buckets - 1, a power of two less one */
	__u32 neighbour_budget; /* ARP and neighbour packets a window, CPU and interface, metered apart */
	__u32 shards;		/* rings of the inline mode; at least 1 */
	__u32 snap;		/* bytes of a packet that are mirrored, counted from a tunnel's inside */
	__u32 carrier;		/* ifindex of the private pair's near end; 0 selects and does not clone */
	__u32 known_mask;	/* buckets of the known tuples - 1, a power of two less one */
	__u32 records;		/* 1: copy into the ring buffers instead */
	__u32 reserved[2];
};

_Static_assert(sizeof(struct syntap_config) == 64, "no hidden padding");

struct syntap_slot {
	__u32 ifindex; /* 0: free */
	__u32 ring;    /* span: ring of receive queue 0; queue q goes to ring + q */
};

struct syntap_tables {
	__u64 ports[SYNTAP_PORT_WORDS]; /* bit p % 64 of word p / 64: port p is chosen */
	struct syntap_slot slots[SYNTAP_SLOTS];
};

/* 1 while the reader of a shard's ring buffer sleeps and wants to be woken. Whoever wakes it writes 0. */
struct syntap_sleepers {
	__u32 shard[SYNTAP_RINGS];
};

struct syntap_watch_entry {
	__u32 tag;	  /* low half of the tuple hash, never 0 in use */
	__u32 left;	  /* plain packets still to mirror */
	__u64 expires_ns; /* CLOCK_MONOTONIC */
};

struct syntap_watch_bucket {
	struct syntap_watch_entry way[SYNTAP_WATCH_WAYS];
};

_Static_assert(sizeof(struct syntap_watch_bucket) == 64, "a bucket is a cache line");

/*
 * A byte for each entry of the watch: the tag's highest, 1 if that is 0; 0 where the entry mirrors nothing.
 * Most packets are of tuples that nobody watches, and end here: these are a sixteenth of the watch, so a CPU's
 * own cache holds them.
 */
struct syntap_watch_marks {
	__u8 bucket[SYNTAP_WATCH_MARKED][SYNTAP_WATCH_WAYS];
};

_Static_assert(sizeof(struct syntap_watch_marks) == 64, "an element is a cache line");

/*
 * Tuples that user space knows to be open: it alone writes. A tag is known_tag(), never 0 in use; a bucket is
 * that of the tuple hash's upper half.
 */
struct syntap_known_bucket {
	__u32 tag[SYNTAP_KNOWN_WAYS];
};

_Static_assert(sizeof(struct syntap_known_bucket) == 64, "a bucket is a cache line");

/* What an interface may take of each CPU in a window. */
struct syntap_allowance {
	__u32 packets; /* mirrored ones; at least 1 */
	__u32 ns;      /* spent on mirroring; 0 is not metered */
};

/* One interface's window on one CPU. */
struct syntap_budget {
	__u64 window_ns;  /* when the window began */
	__u32 cap;	  /* packets it may mirror: the allowance in packets, or its time at the present cost */
	__u32 used;	  /* mirrored in it, and what the windows before overdrew */
	__u32 demand;	  /* mirrored and shed in it */
	__u32 judged;	  /* of these, asked whether their tuple is known */
	__u32 known;	  /* of these, yes */
	__u32 keep_new;	  /* tuples not known are mirrored if their hash slice is below this */
	__u32 keep_known; /* and known ones if theirs is below this */
	__u32 neighbours; /* ARP and neighbour packets mirrored in it */
	__u32 spent_ns;	  /* on mirroring in it, and what the windows before overdrew */
	__u32 cost;	  /* of a mirrored packet, ns * 64: a mean over some 64 packets */
};

#endif /* SYNTAP_H */
