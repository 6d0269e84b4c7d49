/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The second way into user space: a packet's first bytes are copied into its shard's ring buffer at the hook.
 * No skb is cloned, nothing else runs. A GSO packet or an encapsulated one needs no trimming here.
 *
 * The reader sleeps rarely, and says when: a producer pays for a wake-up only then.
 */
#ifndef SYNTAP_RECORD_H
#define SYNTAP_RECORD_H

#include "select.h"

/* verifier: what each inner map looks like; user space makes them in the size it wants. */
struct syntap_ring_buffer {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SYNTAP_RINGS);
	__type(key, __u32);
	__array(values, struct syntap_ring_buffer);
} records SEC(".maps");

/* Whether the first SYNTAP_RECORD_SMALL bytes hold all that is read of a packet: payload only a reset's is. */
static __always_inline bool headers_tell_all(const struct parsed *p, __u16 reason)
{
	return p->kind == KIND_TCP && !p->inside && p->l4 <= SYNTAP_RECORD_SMALL &&
	       !(reason & SYNTAP_REASON_RST);
}

static __always_inline enum syntap_counter fill(struct __sk_buff *skb, struct syntap_record *r,
						const struct syntap_meta *meta, __u32 len, const __u32 most,
						__u32 shard)
{
	__u64 flags = BPF_RB_NO_WAKEUP;

	if (!r)
		return SYNTAP_N_RING_FULL;
	/* verifier: the register compared is the one used; a packet has a link header, so never 0. */
	barrier_var(len);
	if (len > most || !len || bpf_skb_load_bytes(skb, 0, r->bytes, len)) {
		bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		return SYNTAP_N_PUSH_FAILED;
	}
	r->meta = *meta;
	r->len = len;
	if (*(volatile __u32 *)&sleepers.shard[shard]) {
		*(volatile __u32 *)&sleepers.shard[shard] = 0;
		flags = BPF_RB_FORCE_WAKEUP;
	}
	bpf_ringbuf_submit(r, flags);
	return SYNTAP_N_MIRRORED;
}

/* Copies the packet's first bytes, at most `snap`. What became of it, as a counter. */
static __always_inline enum syntap_counter record(struct __sk_buff *skb, const struct syntap_meta *meta,
						  __u32 snap)
{
	__u32 shard = meta->hash % config.shards;
	__u32 len = skb->len < snap ? skb->len : snap;
	void *ring;

	if (shard >= SYNTAP_RINGS) /* verifier: there are not more shards than rings */
		return SYNTAP_N_NO_RING;
	ring = bpf_map_lookup_elem(&records, &shard);
	if (!ring)
		return SYNTAP_N_NO_RING;
	if (len <= SYNTAP_RECORD_SMALL)
		return fill(skb, bpf_ringbuf_reserve(ring, SYNTAP_RECORD_HEAD + SYNTAP_RECORD_SMALL, 0), meta,
			    len, SYNTAP_RECORD_SMALL, shard);
	if (len > SYNTAP_RECORD_LARGE)
		len = SYNTAP_RECORD_LARGE;
	return fill(skb, bpf_ringbuf_reserve(ring, SYNTAP_RECORD_HEAD + SYNTAP_RECORD_LARGE, 0), meta, len,
		    SYNTAP_RECORD_LARGE, shard);
}

#endif /* SYNTAP_RECORD_H */
