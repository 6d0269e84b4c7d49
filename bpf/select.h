/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which packets are mirrored: the port set, the flag classes, the watch, and the budget over all of it.
 *
 * A packet is wanted or not by what it is and by its tuple's watch; the budget may then shed it. Shedding goes
 * by a slice of the tuple hash, so a tuple is mirrored whole or not at all; only the hard cap at the end of a
 * window cuts through tuples, and it is counted apart.
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
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct syntap_budget);
} budget SEC(".maps");

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

/*
 * Races between CPUs are benign: a torn entry mirrors a few packets more or fewer, and the next SYN, FIN or RST
 * of the tuple writes it again.
 */
static __always_inline void watch_arm(__u64 hash, __u64 now)
{
	struct syntap_watch_bucket *b = watch_bucket(hash);
	__u64 oldest = ~0ULL, at = 0;
	__u32 tag = watch_tag(hash), i, victim = 0;

	if (!b)
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
}

/* True if a tuple is, or was until not long ago, under watch and may mirror more. */
static __always_inline bool watch_has(__u64 hash)
{
	struct syntap_watch_bucket *b = watch_bucket(hash);
	__u32 tag = watch_tag(hash), i;

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
	struct syntap_watch_bucket *b = watch_bucket(hash);
	__u32 tag = watch_tag(hash), i;

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
		if (e->expires_ns < *now)
			return false;
		e->left--;
		return true;
	}
	return false;
}

/*
 * A new window. Tightens at once to the share that would have fitted, loosens by an eighth of what is missing:
 * a load that swings within a second keeps its tuples whole instead of flapping.
 */
static __always_inline void budget_roll(struct syntap_budget *b, __u64 now)
{
	__u64 gone = now - b->window_ns;
	__u32 target = SYNTAP_KEEP_ALL;

	if (gone < SYNTAP_WINDOW_NS)
		return;
	if (gone < 2 * SYNTAP_WINDOW_NS && b->demand > config.budget)
		target = (__u64)config.budget * SYNTAP_KEEP_ALL / b->demand;
	if (target < b->keep)
		b->keep = target;
	else if (gone >= 10ULL * SYNTAP_WINDOW_NS)
		b->keep = SYNTAP_KEEP_ALL;
	else
		b->keep += (target - b->keep + 7) / 8;
	b->window_ns = now;
	b->used = 0;
	b->demand = 0;
	b->neighbours = 0;
}

/* True if the packet may be mirrored; else *hard says whether the cap, not its tuple's turn, stopped it. */
static __always_inline bool budget_take(enum syntap_class class, __u64 hash, __u64 now, bool *hard)
{
	__u32 zero = 0;
	struct syntap_budget *b = bpf_map_lookup_elem(&budget, &zero);

	*hard = false;
	if (!b) /* verifier: element 0 of an array is there */
		return false;
	budget_roll(b, now);
	if (class == SYNTAP_CLASS_NEIGHBOUR) {
		*hard = b->neighbours >= config.neighbour_budget;
		b->neighbours += !*hard;
		return !*hard;
	}
	b->demand++;
	if (hash >> 48 >= b->keep)
		return false;
	if (b->used >= config.budget) {
		*hard = true;
		return false;
	}
	b->used++;
	return true;
}

#endif /* SYNTAP_SELECT_H */
