/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One cursor over the bytes of a packet, and the walk from the Ethernet header to the TCP ports.
 *
 * Guarantees: nothing is written to the packet, no byte past the IP packet's own length is taken for a header,
 * and every way out has a counter. Stops at a tunnel (tunnel.h goes on), and does not look at TCP options.
 */
#ifndef SYNTAP_PARSE_H
#define SYNTAP_PARSE_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "syntap.h"

enum {
	ETH_LEN = 14,
	VLAN_LEN = 4,
	ETH_IPV4 = 0x0800,
	ETH_ARP = 0x0806,
	ETH_VLAN = 0x8100,
	ETH_IPV6 = 0x86dd,
	ETH_QINQ = 0x88a8,
	ETH_QINQ_OLD = 0x9100,

	IPV4_LEN = 20,
	IPV6_LEN = 40,
	IPV4_OFFSET = 0x1fff,
	IPV4_MORE = 0x2000,
	IPV6_OFFSET = 0xfff8,
	IPV6_MORE = 0x0001,

	NEXT_HOP_BY_HOP = 0,
	NEXT_ICMP = 1,
	NEXT_IPV4 = 4,
	NEXT_TCP = 6,
	NEXT_UDP = 17,
	NEXT_IPV6 = 41,
	NEXT_ROUTING = 43,
	NEXT_FRAGMENT = 44,
	NEXT_GRE = 47,
	NEXT_AUTH = 51,
	NEXT_ICMPV6 = 58,
	NEXT_DEST_OPTS = 60,
	NEXT_MOBILITY = 135,

	TCP_LEN = 20,
	PORTS_LEN = 4,
	ICMP_LEN = 8,

	PORT_VXLAN = 4789,
	PORT_GENEVE = 6081,
	PORT_VXLAN_LINUX = 8472, /* Linux' own default for VXLAN, from before RFC 7348 */

	/* Headers end long before this; a bound that lets the verifier add offsets to packet pointers. */
	HEADERS_MAX = 4096,
};

/* Which context a hook has. Constant after inlining, so the other branch costs nothing. */
enum hook {
	HOOK_SKB,
	HOOK_XDP,
};

struct cursor {
	void *ctx;
	void *data; /* what can be read directly: all of an XDP frame, the linear part of an skb */
	void *data_end;
	__u32 end; /* bytes of the packet; the IP header moves it down to its own length */
	enum hook hook;
};

#define AT(type, p, off) (*(const type *)((const char *)(p) + (off)))

/*
 * The n bytes at off, in place where they lie in directly readable memory, else copied to buf.
 * NULL where the packet has no such bytes.
 */
static __always_inline const void *fetch(const struct cursor *c, __u32 off, void *buf, const __u32 n)
{
	/* verifier: the bound is that of the register which is added; up to 6.7 one that was compared
	 * elsewhere, of a copy, is lost, and without it no range of the packet is known. */
	barrier_var(off);
	if (off > HEADERS_MAX || off + n > c->end)
		return NULL;
	if (c->data + off + n <= c->data_end)
		return c->data + off;
	if (c->hook == HOOK_SKB && !bpf_skb_load_bytes(c->ctx, off, buf, n))
		return buf;
	return NULL;
}

/*
 * The same by copy alone. verifier: in the loop over extension headers an offset that is only ever a helper's
 * argument stays an unknown number, so that all ways through the loop look alike and are walked once.
 */
static __always_inline int copy(const struct cursor *c, __u32 off, void *buf, const __u32 n)
{
	if (off > HEADERS_MAX || off + n > c->end)
		return -1;
	return c->hook == HOOK_SKB ? bpf_skb_load_bytes(c->ctx, off, buf, n)
				   : bpf_xdp_load_bytes(c->ctx, off, buf, n);
}

enum kind {
	KIND_NONE, /* nothing to select; `why` is the counter */
	KIND_ARP,
	KIND_NEIGHBOUR,
	KIND_TCP,
	KIND_BROKEN, /* TCP whose ports can be read and whose header cannot */
	KIND_ICMP,
	KIND_TUNNEL, /* what it is lies inside: `l4` and `next` say where */
};

/* Addresses are kept as they lie in memory: an IPv4 one is {0, its four bytes}. */
struct endpoint {
	__u64 hi;
	__u64 lo;
	__u16 port;
};

struct parsed {
	enum kind kind;
	enum syntap_counter why;
	struct endpoint src;
	struct endpoint dst;
	__u16 inside; /* where the tunnel's inside begins; 0 outside of one */
	__u16 l4; /* where the outer transport header begins, for KIND_TUNNEL; where TCP's ends, for KIND_TCP */
	__u8 next;  /* its protocol */
	__u8 flags; /* TCP flags */
	__u8 has_flags;
	__u8 fragment; /* the first of several */
};

/* An IP header's result. */
struct ip {
	__u32 l4;
	__u8 next;
	__u8 fragment;
};

static __always_inline int parse_ports(const struct cursor *c, __u32 l4, struct parsed *out)
{
	__u32 buf;
	const void *p = fetch(c, l4, &buf, PORTS_LEN);

	if (!p)
		return -1;
	out->src.port = bpf_ntohs(AT(__u16, p, 0));
	out->dst.port = bpf_ntohs(AT(__u16, p, 2));
	return 0;
}

/* `quoted`: the header inside an ICMP error, whose length field speaks of bytes that were not quoted. */
static __always_inline enum syntap_counter parse_ipv4(struct cursor *c, __u32 l3, const bool quoted,
						      struct ip *ip, struct parsed *out)
{
	__u32 buf[IPV4_LEN / 4];
	const void *p = fetch(c, l3, buf, IPV4_LEN);
	__u32 header, total;
	__u16 frag;

	if (!p)
		return SYNTAP_N_IPV4_BAD;
	if (AT(__u8, p, 0) >> 4 != 4)
		return SYNTAP_N_IPV4_BAD;
	header = (AT(__u8, p, 0) & 0xf) * 4;
	if (header < IPV4_LEN || l3 + header > c->end)
		return SYNTAP_N_IPV4_BAD;
	/* 0 is what segmentation offload leaves in packets over 64 KiB. */
	total = bpf_ntohs(AT(__u16, p, 2));
	if (!quoted && total) {
		if (total < header)
			return SYNTAP_N_IPV4_BAD;
		if (l3 + total < c->end)
			c->end = l3 + total;
	}
	frag = bpf_ntohs(AT(__u16, p, 6));
	if (frag & IPV4_OFFSET)
		return SYNTAP_N_LATER_FRAGMENT;
	ip->fragment = !!(frag & IPV4_MORE);
	ip->next = AT(__u8, p, 9);
	ip->l4 = l3 + header;
	out->src.hi = 0;
	out->src.lo = AT(__u32, p, 12);
	out->dst.hi = 0;
	out->dst.lo = AT(__u32, p, 16);
	return SYNTAP_N_PACKETS;
}

/* What a walk over extension headers found, in one number. */
enum {
	CHAIN_L4 = 0xffff,   /* where the transport header begins */
	CHAIN_NEXT = 16,     /* shift: its protocol, 8 bits */
	CHAIN_FRAGMENT = 24, /* shift: 1 for the first fragment of several */
	CHAIN_WHY = 25,	     /* shift: enum syntap_counter of a chain that cannot be followed, else 0 */
};

static __always_inline __u32 ipv6_chain(const struct cursor *c, __u32 off, __u8 next)
{
	__u32 fragment = 0;
	int i;

	/* verifier: up to 6.3 no loop may be entered by falling through from its own end, which is how the
	 * compiler likes to lay it out. */
#pragma unroll
	for (i = 0; i <= SYNTAP_IPV6_HEADERS; i++) {
		__u8 ext[8];
		__u32 len;

		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_DEST_OPTS &&
		    next != NEXT_AUTH && next != NEXT_MOBILITY && next != NEXT_FRAGMENT)
			return (off & CHAIN_L4) | next << CHAIN_NEXT | fragment << CHAIN_FRAGMENT;
		if (i == SYNTAP_IPV6_HEADERS || copy(c, off, ext, sizeof(ext)))
			break;
		len = (ext[1] + 1) * 8;
		if (next == NEXT_AUTH)
			len = (ext[1] + 2) * 4;
		if (next == NEXT_FRAGMENT) {
			__u32 frag = ext[2] << 8 | ext[3];

			if (frag & IPV6_OFFSET)
				return SYNTAP_N_LATER_FRAGMENT << CHAIN_WHY;
			fragment |= frag & IPV6_MORE;
			len = 8;
		}
		next = ext[0];
		off += len;
		if (off > c->end)
			break;
	}
	return SYNTAP_N_IPV6_CHAIN_BAD << CHAIN_WHY;
}

__noinline __u32 ipv6_chain_skb(struct __sk_buff *skb, __u32 off, __u32 end, __u32 next)
{
	struct cursor c = {.ctx = skb, .end = end, .hook = HOOK_SKB};

	return ipv6_chain(&c, off, next);
}

__noinline __u32 ipv6_chain_xdp(struct xdp_md *xdp, __u32 off, __u32 end, __u32 next)
{
	struct cursor c = {.ctx = xdp, .end = end, .hook = HOOK_XDP};

	return ipv6_chain(&c, off, next);
}

static __always_inline __u64 address_half(const void *p, const __u32 off)
{
	/* Two loads: the address is 4-aligned in a frame, rarely 8-aligned. */
	return (__u64)AT(__u32, p, off) | (__u64)AT(__u32, p, off + 4) << 32;
}

static __always_inline enum syntap_counter parse_ipv6(struct cursor *c, __u32 l3, const bool quoted,
						      struct ip *ip, struct parsed *out)
{
	__u32 buf[IPV6_LEN / 4], off = l3 + IPV6_LEN, payload, end;
	const void *p = fetch(c, l3, buf, IPV6_LEN);

	if (!p)
		return SYNTAP_N_IPV6_BAD;
	if (AT(__u8, p, 0) >> 4 != 6)
		return SYNTAP_N_IPV6_BAD;
	/* 0: a jumbogram, or segmentation offload. */
	payload = bpf_ntohs(AT(__u16, p, 4));
	if (!quoted && payload && off + payload < c->end)
		c->end = off + payload;
	out->src.hi = address_half(p, 8);
	out->src.lo = address_half(p, 16);
	out->dst.hi = address_half(p, 24);
	out->dst.lo = address_half(p, 32);
	/* verifier: one function a hook, each checked once and not on every way that leads here. */
	end = c->hook == HOOK_SKB ? ipv6_chain_skb(c->ctx, off, c->end, AT(__u8, p, 6))
				  : ipv6_chain_xdp(c->ctx, off, c->end, AT(__u8, p, 6));
	if (end >> CHAIN_WHY)
		return end >> CHAIN_WHY;
	ip->l4 = end & CHAIN_L4;
	ip->next = end >> CHAIN_NEXT;
	ip->fragment = end >> CHAIN_FRAGMENT & 1;
	return SYNTAP_N_PACKETS;
}

static __always_inline void parse_tcp(const struct cursor *c, __u32 l4, struct parsed *out)
{
	__u32 buf[TCP_LEN / 4], header;
	const void *p = fetch(c, l4, buf, TCP_LEN);

	if (!p) {
		if (parse_ports(c, l4, out)) {
			out->why = SYNTAP_N_TCP_CUT;
			return;
		}
		out->kind = KIND_BROKEN;
		return;
	}
	out->src.port = bpf_ntohs(AT(__u16, p, 0));
	out->dst.port = bpf_ntohs(AT(__u16, p, 2));
	out->flags = AT(__u8, p, 13);
	out->has_flags = 1;
	header = (AT(__u8, p, 12) >> 4) * 4;
	out->kind = header < TCP_LEN || l4 + header > c->end ? KIND_BROKEN : KIND_TCP;
	out->l4 = l4 + header;
}

/* An ICMP error's quotation: RFC 792 promises the header and 8 bytes, of which the ports are the first 4. */
static __always_inline void parse_quoted(struct cursor *c, __u32 l3, const bool six, struct parsed *out)
{
	enum syntap_counter why;
	struct ip ip = {};

	out->why = SYNTAP_N_NOT_TCP;
	why = six ? parse_ipv6(c, l3, true, &ip, out) : parse_ipv4(c, l3, true, &ip, out);
	if (why != SYNTAP_N_PACKETS || ip.next != NEXT_TCP || parse_ports(c, ip.l4, out))
		return;
	out->kind = KIND_ICMP;
}

static __always_inline void parse_icmp(struct cursor *c, __u32 l4, const bool six, struct parsed *out)
{
	__u32 buf[ICMP_LEN / 4];
	const void *p = fetch(c, l4, buf, ICMP_LEN);
	__u8 type;

	out->why = SYNTAP_N_NOT_TCP;
	if (!p)
		return;
	type = AT(__u8, p, 0);
	if (six && (type == 135 || type == 136)) {
		out->kind = KIND_NEIGHBOUR;
		return;
	}
	/* Unreachable, too big, time exceeded, parameter problem: 1 to 4 in ICMPv6; 3, 11 and 12 in ICMP. */
	if (six ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12)
		parse_quoted(c, l4 + ICMP_LEN, six, out);
}

static __always_inline bool is_tunnel_port(__u16 port)
{
	return port == PORT_VXLAN || port == PORT_VXLAN_LINUX || port == PORT_GENEVE;
}

/* Whether the transport header is a tunnel's. A UDP port alone makes a suspect: tunnel.h judges. */
static __always_inline bool is_tunnel(const struct cursor *c, const struct ip *ip)
{
	__u32 buf;
	const void *p;

	if (ip->next == NEXT_IPV4 || ip->next == NEXT_IPV6 || ip->next == NEXT_GRE)
		return true;
	if (ip->next != NEXT_UDP)
		return false;
	p = fetch(c, ip->l4, &buf, PORTS_LEN);
	if (!p)
		return false;
	return is_tunnel_port(bpf_ntohs(AT(__u16, p, 2)));
}

/* From an EtherType on; `l3` is behind it. `inside`: in a tunnel, of which there is one at most. */
static __always_inline void parse_payload(struct cursor *c, __u32 l3, __u16 proto, const bool inside,
					  struct parsed *out)
{
	enum syntap_counter why;
	struct ip ip = {};
	const void *p;
	__u32 i;
	bool six;

#pragma unroll
	for (i = 0; i <= SYNTAP_VLAN_TAGS; i++) {
		__u32 tag;

		if (proto != ETH_VLAN && proto != ETH_QINQ && proto != ETH_QINQ_OLD)
			break;
		p = i < SYNTAP_VLAN_TAGS ? fetch(c, l3, &tag, VLAN_LEN) : NULL;
		if (!p) {
			out->why = SYNTAP_N_VLAN_BAD;
			return;
		}
		proto = bpf_ntohs(AT(__u16, p, 2));
		l3 += VLAN_LEN;
	}
	if (proto == ETH_ARP) {
		out->kind = KIND_ARP;
		return;
	}
	six = proto == ETH_IPV6;
	if (six) {
		why = parse_ipv6(c, l3, false, &ip, out);
	} else if (proto == ETH_IPV4) {
		why = parse_ipv4(c, l3, false, &ip, out);
	} else {
		why = SYNTAP_N_NOT_IP;
	}
	if (why != SYNTAP_N_PACKETS) {
		out->why = why;
		return;
	}
	out->fragment = ip.fragment;
	out->why = SYNTAP_N_NOT_TCP;
	if (ip.next == NEXT_TCP) {
		parse_tcp(c, ip.l4, out);
	} else if (six && ip.next == NEXT_ICMPV6) {
		parse_icmp(c, ip.l4, true, out);
	} else if (!six && ip.next == NEXT_ICMP) {
		parse_icmp(c, ip.l4, false, out);
	} else if (!inside && is_tunnel(c, &ip)) {
		out->kind = KIND_TUNNEL;
		out->l4 = ip.l4;
		out->next = ip.next;
	}
}

/*
 * The shapes that nearly all packets have: TCP or UDP right behind an IP header without options or extensions,
 * in directly readable memory, with nothing wrong. It needs one check of bounds and no memory. False, and
 * nothing said, for any other, which parse_frame() judges; of these it would say the same.
 */
static __always_inline bool parse_plain(const struct cursor *c, struct parsed *out)
{
	const void *p = c->data;
	__u32 room, len, header;
	__u8 next;

	if (c->data + ETH_LEN + IPV4_LEN + TCP_LEN > c->data_end)
		return false;
	room = c->end - ETH_LEN;
	if (AT(__u16, p, 12) == bpf_htons(ETH_IPV4)) {
		if (AT(__u8, p, 14) != 0x45 || AT(__u16, p, 20) & bpf_htons(IPV4_MORE | IPV4_OFFSET))
			return false;
		next = AT(__u8, p, 23);
		len = bpf_ntohs(AT(__u16, p, 16));
		out->src.lo = AT(__u32, p, 26);
		out->dst.lo = AT(__u32, p, 30);
		out->l4 = ETH_LEN + IPV4_LEN;
		p += ETH_LEN + IPV4_LEN;
		header = IPV4_LEN;
	} else if (AT(__u16, p, 12) == bpf_htons(ETH_IPV6)) {
		if (c->data + ETH_LEN + IPV6_LEN + TCP_LEN > c->data_end || AT(__u8, p, 14) >> 4 != 6)
			return false;
		next = AT(__u8, p, 20);
		len = bpf_ntohs(AT(__u16, p, 18)) + IPV6_LEN;
		out->src.hi = address_half(p, 22);
		out->src.lo = address_half(p, 30);
		out->dst.hi = address_half(p, 38);
		out->dst.lo = address_half(p, 46);
		out->l4 = ETH_LEN + IPV6_LEN;
		p += ETH_LEN + IPV6_LEN;
		header = IPV6_LEN;
	} else {
		return false;
	}
	out->src.port = bpf_ntohs(AT(__u16, p, 0));
	out->dst.port = bpf_ntohs(AT(__u16, p, 2));
	if (next == NEXT_UDP) {
		out->why = SYNTAP_N_NOT_TCP;
		return len <= room && len >= header + PORTS_LEN && !is_tunnel_port(out->dst.port);
	}
	out->flags = AT(__u8, p, 13);
	out->has_flags = 1;
	out->kind = KIND_TCP;
	out->l4 += (AT(__u8, p, 12) >> 4) * 4;
	return next == NEXT_TCP && len <= room && AT(__u8, p, 12) >= TCP_LEN << 2 && out->l4 <= len + ETH_LEN;
}

/* From an Ethernet header on. */
static __always_inline void parse_frame(struct cursor *c, __u32 l2, const bool inside, struct parsed *out)
{
	__u32 buf[(ETH_LEN + 3) / 4];
	const void *p = fetch(c, l2, buf, ETH_LEN);

	if (!p) {
		out->why = SYNTAP_N_LINK_CUT;
		return;
	}
	parse_payload(c, l2 + ETH_LEN, bpf_ntohs(AT(__u16, p, 12)), inside, out);
}

#endif /* SYNTAP_PARSE_H */
