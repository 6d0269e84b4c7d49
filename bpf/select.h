/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which packets are mirrored: the port set, the flag classes, the watch, and the budget over all of it.
 *
 * A packet is wanted or not by what it is and by its tuple's watch; the budget may then shed it. Shedding goes
 * by a slice of the tuple hash, so a tuple is mirrored whole or not at all. Tuples that user space knows to be
 * open have a threshold of their own, which tightens only when they alone are too many. Only the hard cap of a
 * window cuts through tuples; it is counted apart, and known tuples meet it at twice the others' height.
 */
#ifndef SYNTAP_SELECT_H
#define SYNTAP_SELECT_H

#include "hash.h"
#include "parse.h"
#include "tunnel.h"

enum {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1 << 16); /* set at load */
	__type(key, __u32);
	__type(value, struct syntap_watch_bucket);
} watch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, (1 << 16) / SYNTAP_WATCH_MARKED); /* set at load */
	__type(key, __u32);
	__type(value, struct syntap_watch_marks);
} watch_marks SEC(".maps");

/* An element for each slot. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SYNTAP_SLOTS);
	__type(key, __u32);
	__type(value, struct syntap_budget);
} budget SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1 << 10); /* set at load */
	__type(key, __u32);
	__type(value, struct syntap_known_bucket);
} known SEC(".maps");

/* May change while attached: read as volatile. */
volatile struct syntap_allowance allowance[SYNTAP_SLOTS] SEC(".data.allowance") = {};
const volatile struct syntap_config config SEC(".rodata.config") = {};
struct syntap_tables tables SEC(".data.tables") = {};
struct syntap_sleepers sleepers SEC(".data.sleepers") = {};

static __always_inline bool port_chosen(__u16 port)
{
	return *(volatile __u64 *)&tables.ports[port / 64] >> (port % 64) & 1;
}

/* Reason bits of the flags; 0 for the plain ones, which only the watch selects. */
static __always_inline __u16 flag_reasons(__u8 flags)
{
	__u8 control = flags & (TCP_SYN | TCP_FIN | TCP_RST);
	__u16 reason = 0;

	if (control & TCP_SYN)
		reason |= SYNTAP_REASON_SYN;
	if (control & TCP_FIN)
		reason |= SYNTAP_REASON_FIN;
	if (control & TCP_RST)
		reason |= SYNTAP_REASON_RST;
	/* More than one of the three; or no ACK where every segment but a SYN and an RST has it. */
	if (control & (control - 1))
		reason |= SYNTAP_REASON_ODD;
	else if (!(flags & TCP_ACK) && !(control & (TCP_SYN | TCP_RST)))
		reason |= SYNTAP_REASON_ODD;
	return reason;
}

static __always_inline struct syntap_watch_bucket *watch_bucket(__u64 hash)
{
	__u32 i = (hash >> 32) & config.watch_mask;

	return bpf_map_lookup_elem(&watch, &i);
}

/* Under 0 stands for an unused entry. */
static __always_inline __u32 watch_tag(__u64 hash)
{
	return (__u32)hash ? (__u32)hash : 1;
}

static __always_inline __u8 watch_mark(__u32 tag)
{
	return tag >> 24 ? tag >> 24 : 1;
}

/* The marks of the tuple's bucket: one byte a way. */
static __always_inline __u8 *bucket_marks(__u64 hash)
{
	__u32 bucket = (hash >> 32) & config.watch_mask, i = bucket / SYNTAP_WATCH_MARKED;
	struct syntap_watch_marks *m = bpf_map_lookup_elem(&watch_marks, &i);

	return m ? m->bucket[bucket % SYNTAP_WATCH_MARKED] : NULL;
}

/* False for a tuple that is not under watch; one in a hundred of those passes for one that is. */
static __always_inline bool watch_marked(__u64 hash)
{
	const __u8 *marks = bucket_marks(hash);
	__u32 others;

	if (!marks) /* verifier: the bucket is in bounds */
		return false;
	/* A byte that is alike is 0 now; only then does the subtraction borrow from a highest bit that was
	 * clear. */
	others = *(volatile __u32 *)marks ^ watch_mark(watch_tag(hash)) * 0x01010101u;
	return (others - 0x01010101u) & ~others & 0x80808080u;
}

static __always_inline void set_mark(__u64 hash, __u32 way, __u8 mark)
{
	__u8 *marks = bucket_marks(hash);

	if (marks)
		*(volatile __u8 *)&marks[way & (SYNTAP_WATCH_WAYS - 1)] = mark;
}

/*
 * Races between CPUs are benign: a torn entry, or a mark that is not its entry's, mirrors a few packets more or
 * fewer, and the next SYN, FIN or RST of the tuple writes both again.
 */
static __always_inline void watch_arm(__u64 hash, __u64 now)
{
	struct syntap_watch_bucket *b = watch_bucket(hash);
	__u64 oldest = ~0ULL, at = 0;
	__u32 tag = watch_tag(hash), i, victim = 0;

	if (!b || !config.watch_packets)
		return;
#pragma unroll
	for (i = 0; i < SYNTAP_WATCH_WAYS; i++) {
		at = b->way[i].tag == tag ? 0 : b->way[i].expires_ns;
		/* Unused entries expire at 0, finished ones before the rest. */
		if (at < oldest) {
			oldest = at;
			victim = i;
		}
		if (b->way[i].tag == tag)
			break;
	}
	victim &= SYNTAP_WATCH_WAYS - 1;
	b->way[victim].tag = tag;
	b->way[victim].left = config.watch_packets;
	b->way[victim].expires_ns = now + config.watch_ns;
	set_mark(hash, victim, watch_mark(tag));
}

/* True if a tuple is, or was until not long ago, under watch and may mirror more. */
static __always_inline bool watch_has(__u64 hash)
{
	struct syntap_watch_bucket *b;
	__u32 tag = watch_tag(hash), i;

	if (!watch_marked(hash))
		return false;
	b = watch_bucket(hash);
	if (!b)
		return false;
#pragma unroll
	for (i = 0; i < SYNTAP_WATCH_WAYS; i++)
		if (b->way[i].tag == tag)
			return b->way[i].left;
	return false;
}

/* True for a packet of a tuple under watch. The clock is read only then. */
static __always_inline bool watch_hit(__u64 hash, __u64 *now)
{
	struct syntap_watch_bucket *b;
	__u32 tag = watch_tag(hash), i;

	if (!watch_marked(hash))
		return false;
	b = watch_bucket(hash);
	if (!b)
		return false;
#pragma unroll
	for (i = 0; i < SYNTAP_WATCH_WAYS; i++) {
		struct syntap_watch_entry *e = &b->way[i];

		if (e->tag != tag)
			continue;
		if (!e->left)
			return false;
		*now = bpf_ktime_get_ns();
		if (e->expires_ns < *now) {
			e->left = 0;
			set_mark(hash, i, 0);
			return false;
		}
		if (!--e->left)
			set_mark(hash, i, 0);
		return true;
	}
	return false;
}

/* A tuple is known at a tap point, as its flow is. */
static __always_inline __u32 known_tag(__u64 hash, __u32 slot)
{
	__u32 tag = (__u32)hash ^ slot * (__u32)MIX_B;

	return tag ? tag : 1;
}

static __always_inline bool tuple_known(__u64 hash, __u32 slot)
{
	__u32 i = (hash >> 32) & config.known_mask, tag = known_tag(hash, slot);
	struct syntap_known_bucket *b = bpf_map_lookup_elem(&known, &i);
	bool found = false;

	if (!b)
		return false;
#pragma unroll
	for (i = 0; i < SYNTAP_KNOWN_WAYS; i++)
		found |= *(volatile __u32 *)&b->tag[i] == tag;
	return found;
}

/* Tightens at once, loosens by an eighth of itself, which takes half a second from a thousandth to all: a flood
 * that pauses for a window does not find the door wide open, and the tuples that are mirrored stay whole. */
static __always_inline __u32 keep_moved(__u32 keep, __u32 goal)
{
	__u32 most = keep + keep / 8 + SYNTAP_KEEP_ALL / 1024;

	return goal < most ? goal : most;
}

/* What a window that used so much still owes after so many windows. */
static __always_inline __u32 debt(__u32 used, __u32 cap, __u64 windows)
{
	__u64 paid = cap * windows;

	return used > paid ? used - paid : 0;
}

/*
 * A new window. What would have fitted into the last one is kept: known tuples first, the others in seven
 * eighths of what they leave, so that chance does not drive them into the hard cap.
 */
static __always_inline void budget_roll(struct syntap_budget *b, __u32 slot, __u64 now)
{
	__u32 cap = b->cap, owed, known, most, left, goal = SYNTAP_KEEP_ALL, goal_known = SYNTAP_KEEP_ALL;
	__u64 gone = now - b->window_ns, windows = gone / SYNTAP_WINDOW_NS;
	__u32 i = slot & (SYNTAP_SLOTS - 1), ns;

	if (!windows)
		return;
	owed = debt(b->used, cap, windows);
	if (windows == 1 && b->demand > cap) {
		/* A sixteenth is for new tuples whatever the known ones ask: what floods must be seen to be
		 * named. */
		most = cap - cap / 16;
		known = b->judged ? (__u64)b->demand * b->known / b->judged : 0;
		if (known > most) {
			goal_known = (__u64)(most - most / 8) * SYNTAP_KEEP_ALL / known;
			left = cap - most;
		} else {
			left = cap - known;
			left = left - cap / 16 > owed ? left - owed : cap / 16;
		}
		if (b->demand > known)
			goal = (__u64)(left - left / 8) * SYNTAP_KEEP_ALL / (b->demand - known);
		if (goal > SYNTAP_KEEP_ALL)
			goal = SYNTAP_KEEP_ALL;
	}
	if (windows >= 10) {
		b->keep_new = SYNTAP_KEEP_ALL;
		b->keep_known = SYNTAP_KEEP_ALL;
	} else {
		b->keep_new = keep_moved(b->keep_new, goal);
		b->keep_known = keep_moved(b->keep_known, goal_known);
	}
	b->window_ns = now;
	b->used = owed;
	b->demand = 0;
	b->judged = 0;
	b->known = 0;
	b->neighbours = 0;
	b->cap = allowance[i].packets;
	ns = allowance[i].ns;
	if (!ns)
		return;
	b->spent_ns = debt(b->spent_ns, ns, windows);
	if (b->cost) {
		left = (__u64)ns * 64 / b->cost;
		if (left < b->cap)
			b->cap = left ? left : 1;
	}
}

/* Bits of a fate. 0 is mirrored. */
enum {
	FATE_SHED = 1,
	FATE_HARD = 2, /* by the cap, not by its tuple's turn */
	FATE_KNOWN = 4,
};

/* Whether the packet may be mirrored. */
static __always_inline __u32 budget_take(__u32 slot, enum syntap_class class, __u64 hash, __u64 now)
{
	struct syntap_budget *b = bpf_map_lookup_elem(&budget, &slot);
	__u32 fate = 0, times = 1, ns;

	if (!b) /* verifier: no lane beyond the slots comes here */
		return FATE_SHED;
	budget_roll(b, slot, now);
	if (class == SYNTAP_CLASS_NEIGHBOUR) {
		if (b->neighbours >= config.neighbour_budget)
			return FATE_SHED | FATE_HARD;
		b->neighbours++;
		return 0;
	}
	b->demand++;
	/* Nobody asks whose packet it is while there is room for all. */
	if (b->keep_new < SYNTAP_KEEP_ALL || b->demand > b->cap / 2) {
		b->judged++;
		if (tuple_known(hash, slot)) {
			b->known++;
			fate = FATE_KNOWN;
			times = 2;
		}
	}
	if (hash >> 48 >= (fate ? b->keep_known : b->keep_new))
		return fate | FATE_SHED;
	/* Known tuples may overdraw a window that others have filled; the next ones pay it back. */
	if (b->used >= times * b->cap)
		return fate | FATE_SHED | FATE_HARD;
	ns = allowance[slot & (SYNTAP_SLOTS - 1)].ns;
	if (ns && b->spent_ns >= times * ns)
		return fate | FATE_SHED | FATE_HARD;
	b->used++;
	return 0;
}

/*
 * Charges what mirroring a packet took that was stamped at `since`. The far end of the private pair does its
 * part in softirq, where no clock tells it from other work. Where packets come one at a time that is as long
 * again as the hook (0.8 us of 1.6), in bursts less: a gateway pays what is charged at most.
 */
static __always_inline void budget_charge(__u32 slot, __u64 since, bool has_far_end)
{
	struct syntap_budget *b;
	__u64 ns;

	/* Without a share of time no second clock is read. */
	if (!allowance[slot & (SYNTAP_SLOTS - 1)].ns)
		return;
	b = bpf_map_lookup_elem(&budget, &slot);
	if (!b)
		return;
	ns = bpf_ktime_get_ns() - since;
	if (has_far_end)
		ns *= 2;
	if (ns > SYNTAP_CHARGE_MAX_NS)
		ns = SYNTAP_CHARGE_MAX_NS;
	b->spent_ns += ns;
	b->cost += ns - b->cost / 64;
}

#endif /* SYNTAP_SELECT_H */
