/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The second way into user space: a packet's first bytes are copied into its shard's ring buffer at the hook.
 * No skb is cloned, nothing else runs. A GSO packet or an encapsulated one needs no trimming here.
 *
 * The reader sleeps rarely, and says when: a producer pays for a wake-up, some microseconds, only then.
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

enum {
	/* What is copied at a time. */
	CHUNK = 16,
};

struct chunk {
	__u64 word[CHUNK / 8];
};

/*
 * Directly readable bytes, `len` of them, in chunks: the last one lies over the one before it. A few loads and
 * stores, where bpf_skb_load_bytes() ends in a copy instruction that takes 50 ns to begin.
 */
static __always_inline bool copy_chunks(const struct __sk_buff *skb, struct syntap_record *r, __u32 len)
{
	const void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	__u32 last = len - CHUNK, i;

	/* verifier: the register compared is the one used. */
	barrier_var(last);
	if (last > SYNTAP_RECORD_SMALL - CHUNK || data + last + CHUNK > data_end)
		return false;
	*(struct chunk *)((void *)(r + 1) + last) = AT(struct chunk, data, last);
#pragma unroll
	for (i = 0; i < SYNTAP_RECORD_SMALL - CHUNK; i += CHUNK) {
		if (i >= last)
			break;
		if (data + i + CHUNK > data_end) /* verifier: i is less than last */
			return false;
		*(struct chunk *)((void *)(r + 1) + i) = AT(struct chunk, data, i);
	}
	return true;
}

static __always_inline bool copy_any(struct __sk_buff *skb, struct syntap_record *r, __u32 len,
				     const __u32 most)
{
	/* verifier: the register compared is the one used, and each bound is compared by itself: up to 6.12 it
	 * learns nothing of `len` from one comparison of `len - 1` with both, which the compiler makes of them,
	 * and up to 6.7 nothing from "not 0". No packet is of one byte. */
	barrier_var(len);
	if (len < 2)
		return false;
	barrier_var(len);
	if (len > most)
		return false;
	return !bpf_skb_load_bytes(skb, 0, r + 1, len);
}

static __always_inline enum syntap_counter submit(struct syntap_record *r, const struct syntap_meta *meta,
						  __u32 len, __u32 shard)
{
	__u64 flags = BPF_RB_NO_WAKEUP;

	r->meta = *meta;
	r->len = len;
	/* verifier: it has forgotten the bound by now. */
	barrier_var(shard);
	shard &= SYNTAP_RINGS - 1;
	if (*(volatile __u32 *)&sleepers.shard[shard]) {
		*(volatile __u32 *)&sleepers.shard[shard] = 0;
		flags = BPF_RB_FORCE_WAKEUP;
	}
	bpf_ringbuf_submit(r, flags);
	return SYNTAP_N_MIRRORED;
}

/* Copies the packet's first bytes: `snap` of them or all, or `least` where no more can be read directly or no
 * more fits a small record. What became of it, as a counter. */
static __always_inline enum syntap_counter record(struct __sk_buff *skb, const struct syntap_meta *meta,
						  __u32 snap, __u32 least)
{
	const void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	__u64 linear = data_end - data;
	__u32 len = skb->len < snap ? skb->len : snap;
	__u32 shard = meta->hash % config.shards;
	struct syntap_record *r;
	void *ring;

	barrier_var(linear);	   /* verifier: pointers are subtracted whole, not their lower halves */
	if (shard >= SYNTAP_RINGS) /* verifier: there are not more shards than rings */
		return SYNTAP_N_NO_RING;
	ring = bpf_map_lookup_elem(&records, &shard);
	if (!ring)
		return SYNTAP_N_NO_RING;
	if (len > SYNTAP_RECORD_SMALL && least <= SYNTAP_RECORD_SMALL)
		len = SYNTAP_RECORD_SMALL;
	if (len > linear && least <= linear)
		len = linear;
	if (len <= SYNTAP_RECORD_SMALL) {
		r = bpf_ringbuf_reserve(ring, SYNTAP_RECORD_HEAD + SYNTAP_RECORD_SMALL, 0);
		if (!r)
			return SYNTAP_N_RING_FULL;
		if (copy_chunks(skb, r, len) || copy_any(skb, r, len, SYNTAP_RECORD_SMALL))
			return submit(r, meta, len, shard);
	} else {
		if (len > SYNTAP_RECORD_LARGE)
			len = SYNTAP_RECORD_LARGE;
		r = bpf_ringbuf_reserve(ring, SYNTAP_RECORD_HEAD + SYNTAP_RECORD_LARGE, 0);
		if (!r)
			return SYNTAP_N_RING_FULL;
		if (copy_any(skb, r, len, SYNTAP_RECORD_LARGE))
			return submit(r, meta, len, shard);
	}
	bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
	return SYNTAP_N_PUSH_FAILED;
}

#endif /* SYNTAP_RECORD_H */
