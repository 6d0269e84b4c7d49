/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The symmetric tuple hash: 64 bits that both directions of a tuple share. Each endpoint is mixed with the
 * secret on its own and the two sums are added, so no order has to be found. src/bpf/hash.rs computes the same
 * number.
 *
 *   bits  0..31  ring (hash % shards), the watch's tag, a known tuple's tag, syntap_meta.hash
 *   bits 32..47  the watch's bucket, a known tuple's bucket (with more buckets, up to bit 63)
 *   bits 48..63  the budget's slice
 */
#ifndef SYNTAP_HASH_H
#define SYNTAP_HASH_H

#include "parse.h"

/* Odd, with a good spread of bits: one round multiplies every input bit into the upper half, the shift brings
 * it down, the second round spreads it again. */
#define MIX_A 0xd6e8feb86659fd93ULL
#define MIX_B 0x9e3779b97f4a7c15ULL

static __always_inline __u64 mix(__u64 x)
{
	x ^= x >> 32;
	x *= MIX_A;
	x ^= x >> 29;
	x *= MIX_B;
	return x ^ x >> 32;
}

static __always_inline __u64 hash_endpoint(const struct endpoint *e, const volatile __u64 *key)
{
	/* An IPv4 endpoint fits one word, and one round. */
	if (!(e->hi | e->lo >> 32))
		return mix((e->lo | (__u64)e->port << 32) ^ key[0]);
	/* An IPv6 one takes a round for each half. The port is spread by a secret factor: nobody can tell which
	 * other prefix would make up for another port. */
	return mix(mix((e->hi ^ key[1]) + e->port * (key[0] | 1)) ^ e->lo ^ key[0]);
}

/*
 * A tunnel's identifier is left out: where it names the sender (Cilium) or the network routed into (EVPN), each
 * direction of one connection has its own.
 */
static __always_inline __u64 hash_tuple(const struct endpoint *a, const struct endpoint *b,
					const volatile __u64 *key)
{
	return mix(hash_endpoint(a, key) + hash_endpoint(b, key));
}

#endif /* SYNTAP_HASH_H */
