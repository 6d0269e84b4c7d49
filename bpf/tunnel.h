/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a tunnel carries: VXLAN, Geneve, GRE, and IP in IP, one level deep.
 *
 * The inside replaces what the outer headers said of addresses and ports; the tunnel's identifier goes with it
 * into the hash. A header that ends early is counted as TUNNEL_BAD; one whose version or flags say that it is
 * no tunnel of these kinds is NOT_TCP, as any other traffic on that port or protocol is.
 */
#ifndef SYNTAP_TUNNEL_H
#define SYNTAP_TUNNEL_H

#include "parse.h"

enum {
	ETH_FRAME = 0x6558, /* transparent Ethernet bridging: a frame follows */

	UDP_LEN = 8,
	OVERLAY_LEN = 8, /* VXLAN, and Geneve without its options */
	VXLAN_ID = 0x08,
	GENEVE_VERSION = 0xc0,
	GENEVE_OPTIONS = 0x3f,

	GRE_LEN = 4,
	GRE_FIELD = 4, /* each optional one */
	GRE_CHECKSUM = 0x8000,
	GRE_ROUTING = 0x4000, /* RFC 1701; its successor forbids it, and no stack speaks it */
	GRE_KEY = 0x2000,
	GRE_SEQUENCE = 0x1000,
	GRE_VERSION = 0x0007, /* 1 is PPTP's, with PPP inside */
};

/* Where the inside begins, and what it is. */
struct inside {
	__u32 off;
	__u16 proto;
};

static __always_inline enum syntap_counter enter_udp(const struct cursor *c, __u32 l4, struct inside *in)
{
	__u32 buf[(UDP_LEN + OVERLAY_LEN) / 4];
	const void *p = fetch(c, l4, buf, UDP_LEN + OVERLAY_LEN);
	__u8 first;

	if (!p)
		return SYNTAP_N_TUNNEL_BAD;
	first = AT(__u8, p, UDP_LEN);
	in->off = l4 + UDP_LEN + OVERLAY_LEN;
	in->proto = ETH_FRAME;
	if (bpf_ntohs(AT(__u16, p, 2)) != PORT_GENEVE)
		return first & VXLAN_ID ? SYNTAP_N_PACKETS : SYNTAP_N_NOT_TCP;
	if (first & GENEVE_VERSION)
		return SYNTAP_N_NOT_TCP;
	in->off += (first & GENEVE_OPTIONS) * 4;
	in->proto = bpf_ntohs(AT(__u16, p, UDP_LEN + 2));
	return SYNTAP_N_PACKETS;
}

static __always_inline enum syntap_counter enter_gre(const struct cursor *c, __u32 l4, struct inside *in)
{
	__u32 buf;
	const void *p = fetch(c, l4, &buf, GRE_LEN);
	__u16 flags;

	if (!p)
		return SYNTAP_N_TUNNEL_BAD;
	flags = bpf_ntohs(AT(__u16, p, 0));
	if (flags & (GRE_VERSION | GRE_ROUTING))
		return SYNTAP_N_NOT_TCP;
	in->proto = bpf_ntohs(AT(__u16, p, 2));
	in->off = l4 + GRE_LEN;
	if (flags & GRE_CHECKSUM)
		in->off += GRE_FIELD;
	if (flags & GRE_KEY)
		in->off += GRE_FIELD;
	if (flags & GRE_SEQUENCE)
		in->off += GRE_FIELD;
	return SYNTAP_N_PACKETS;
}

static __always_inline void parse_inside(struct cursor *c, __u32 l4, __u8 next, struct parsed *out)
{
	struct inside in = {.off = l4};
	enum syntap_counter why = SYNTAP_N_PACKETS;

	if (next == NEXT_UDP)
		why = enter_udp(c, l4, &in);
	else if (next == NEXT_GRE)
		why = enter_gre(c, l4, &in);
	else
		in.proto = next == NEXT_IPV4 ? ETH_IPV4 : ETH_IPV6;
	if (why == SYNTAP_N_PACKETS && in.off > c->end)
		why = SYNTAP_N_TUNNEL_BAD;
	if (why != SYNTAP_N_PACKETS) {
		out->why = why;
		return;
	}
	out->inside = in.off;
	if (in.proto == ETH_FRAME)
		parse_frame(c, in.off, true, out);
	else
		parse_payload(c, in.off, in.proto, true, out);
}

#endif /* SYNTAP_TUNNEL_H */
