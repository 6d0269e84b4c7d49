// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the hooks' programs are measured against: one that does nothing, and one that only parses. Tests load
 * them; nothing else does.
 */
#include "../../bpf/parse.h"

/* Keeps the compiler from leaving the parsing out. */
__u64 seen SEC(".data.seen");

SEC("tcx/ingress")
int floor_nothing(struct __sk_buff *skb)
{
	(void)skb;
	return -1;
}

SEC("tcx/ingress")
int floor_parse(struct __sk_buff *skb)
{
	struct cursor c = {
		.ctx = skb,
		.data = (void *)(long)skb->data,
		.data_end = (void *)(long)skb->data_end,
		.end = skb->len,
		.hook = HOOK_SKB,
	};
	struct parsed p = {};

	if (!parse_plain(&c, &p)) {
		p = (struct parsed){};
		parse_frame(&c, 0, false, &p);
	}
	seen = p.src.lo ^ p.dst.lo ^ p.src.hi ^ p.dst.hi ^ p.src.port ^ p.dst.port ^ p.flags ^ p.kind;
	return -1;
}

SEC("xdp")
int floor_nothing_xdp(struct xdp_md *xdp)
{
	(void)xdp;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
