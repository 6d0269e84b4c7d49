// SPDX-License-Identifier: GPL-2.0-only
/*
 * The programs.
 *
 *   syntap_ingress, syntap_egress  tcx, on a live interface: select, then copy into a ring buffer or clone to
 * the carrier. Always TCX_NEXT. syntap_carry                   tcx egress of the carrier: trim the clone, put
 * the metadata in front, pick the ring. syntap_ring                    XDP at the far end of the carrier: into
 * the ring of the receive queue. syntap_span                    XDP on an interface that only receives copies:
 * select, put the metadata in front, into the ring of the receive queue. Everything else is dropped.
 *
 * syntap_carry runs inside bpf_clone_redirect(), on the same CPU with bottom halves off, so the metadata
 * travels from hook to carrier in a per-CPU element and the original packet is never written to.
 */
#include "select.h"
#include "record.h"

enum {
	TCX_VERDICT_NEXT = -1,
	TCX_VERDICT_PASS = 0,
	TCX_VERDICT_DROP = 2,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SYNTAP_LANES);
	__type(key, __u32);
	__type(value, struct syntap_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SYNTAP_LANES);
	__type(key, __u32);
	__type(value, struct syntap_census);
} census SEC(".maps");

/* Names the contract's types, so that the compiler writes them into BTF and user space can check its own. */
const volatile struct {
	enum syntap_limits limits;
	enum syntap_reason reason;
	enum syntap_counter counter;
	struct syntap_record record;
} contract SEC(".rodata.contract") = {};

/* What the hook hands to the carrier. */
enum handover_state {
	HANDOVER_EMPTY,
	HANDOVER_READY,
	HANDOVER_TAKEN,
	HANDOVER_FAILED, /* and counted */
};

struct syntap_handover {
	struct syntap_meta meta;
	__u32 state;
	__u32 snap; /* bytes to mirror */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct syntap_handover);
} handover SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, SYNTAP_RINGS);
	__type(key, __u32);
	__type(value, __u32);
} rings SEC(".maps");

static __always_inline __u32 find_slot(__u32 ifindex)
{
	__u32 i;

#pragma unroll
	for (i = 0; i < SYNTAP_SLOTS; i++)
		if (*(volatile __u32 *)&tables.slots[i].ifindex == ifindex)
			return i;
	return SYNTAP_SLOTS;
}

static __always_inline void count(struct syntap_counters *n, __u32 which)
{
	/* verifier: every caller passes an enum syntap_counter, and the register compared is the one used. */
	barrier_var(which);
	if (which < SYNTAP_COUNTERS)
		n->n[which]++;
}

static __always_inline void take_census(__u32 lane, __u8 flags, __u32 segments)
{
	struct syntap_census *c = bpf_map_lookup_elem(&census, &lane);

	if (!c)
		return;
	c->flags[flags].packets++;
	c->flags[flags].segments += segments;
}

/* What the selection adds to what a hook knows of a packet. */
struct chosen {
	__u64 time_ns;
	__u32 hash;
	__u16 reason;
	__u16 snap;  /* bytes to mirror */
	__u16 least; /* bytes that do as well, where the rest cannot be read directly */
};

/* Selects by what the packet is. True with *out filled in for one to mirror; the counters are bumped either
 * way. */
static __always_inline bool choose(const struct parsed *p, __u64 known, __u32 lane, __u32 segments,
				   struct syntap_counters *n, struct chosen *out)
{
	enum syntap_class class = SYNTAP_CLASS_CONTROL;
	__u64 hash = 0, now = 0;
	__u16 reason = 0;
	__u32 snap, fate;

	switch (p->kind) {
	case KIND_NONE:
		count(n, p->why);
		return false;
	case KIND_ARP:
		reason = SYNTAP_REASON_ARP;
		class = SYNTAP_CLASS_NEIGHBOUR;
		break;
	case KIND_NEIGHBOUR:
		reason = SYNTAP_REASON_NEIGHBOUR;
		class = SYNTAP_CLASS_NEIGHBOUR;
		break;
	default:
		if (!known && !port_chosen(p->src.port) && !port_chosen(p->dst.port)) {
			count(n, SYNTAP_N_PORT_NOT_CHOSEN);
			return false;
		}
		hash = known ? known : hash_tuple(&p->src, &p->dst, config.key);
		if (p->kind == KIND_ICMP) {
			reason = SYNTAP_REASON_ICMP;
			class = SYNTAP_CLASS_ICMP;
			break;
		}
		if (p->has_flags) {
			take_census(lane, p->flags, segments);
			reason = flag_reasons(p->flags);
			if ((p->flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) == TCP_SYN)
				class = SYNTAP_CLASS_SYN;
		}
		if (p->kind == KIND_BROKEN) {
			reason |= SYNTAP_REASON_BROKEN;
			class = SYNTAP_CLASS_CONTROL;
		}
		if (!reason) {
			if (!watch_hit(hash, &now)) {
				count(n, SYNTAP_N_NOT_WATCHED);
				return false;
			}
			reason = SYNTAP_REASON_WATCH;
			class = SYNTAP_CLASS_WATCH;
		}
	}
	if (p->fragment)
		reason |= SYNTAP_REASON_FRAGMENT;
	if (p->inside)
		reason |= SYNTAP_REASON_TUNNEL;
	if (!now)
		now = bpf_ktime_get_ns();
	fate = budget_take(lane / 2, class, hash, now);
	if (fate) {
		count(n, SYNTAP_N_SHED_SYN + class);
		if (fate & FATE_HARD)
			count(n, SYNTAP_N_SHED_HARD);
		if (fate & FATE_KNOWN)
			count(n, SYNTAP_N_SHED_KNOWN);
		return false;
	}
	count(n, SYNTAP_N_SELECTED_SYN + class);
	if (reason & SYNTAP_REASON_BROKEN)
		count(n, SYNTAP_N_BROKEN);
	if (reason & (SYNTAP_REASON_SYN | SYNTAP_REASON_FIN | SYNTAP_REASON_RST))
		watch_arm(hash, now);

	/* A tunnel's own headers come on top: Geneve's alone may have 260 bytes. */
	snap = config.snap + p->inside;
	out->snap = snap < SYNTAP_CARRY_MAX ? snap : SYNTAP_CARRY_MAX;
	out->least = headers_tell_all(p, reason) ? p->l4 : out->snap;
	out->time_ns = now;
	out->hash = hash;
	out->reason = reason;
	return true;
}

/* Where a tunnel's header begins, and what its inside is. */
struct tunnelled {
	struct parsed inside; /* the answer */
	__u32 end;
	__u16 l4;
	__u8 next;
	__u8 fragment;
};

/* verifier: not on the stack, of which a hook and what it calls have 512 bytes together. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tunnelled);
} tunnels SEC(".maps");

static __always_inline int look_inside(struct cursor *c, struct tunnelled *t)
{
	__builtin_memset(&t->inside, 0, sizeof(t->inside));
	c->end = t->end;
	parse_inside(c, t->l4, t->next, &t->inside);
	/* A first fragment on the outside is one of the inside as well. */
	t->inside.fragment |= t->fragment;
	return 1;
}

/* verifier: one function a hook, each checked once and not on every way that leads to a tunnel. What is in none
 * pays nothing for them: neither registers nor cache. */
__noinline int look_inside_skb(struct __sk_buff *skb, struct tunnelled *t)
{
	struct cursor c = {
		.ctx = skb,
		.data = (void *)(long)skb->data,
		.data_end = (void *)(long)skb->data_end,
		.hook = HOOK_SKB,
	};

	return t ? look_inside(&c, t) : 0;
}

__noinline int look_inside_xdp(struct xdp_md *xdp, struct tunnelled *t)
{
	struct cursor c = {
		.ctx = xdp,
		.data = (void *)(long)xdp->data,
		.data_end = (void *)(long)xdp->data_end,
		.hook = HOOK_XDP,
	};

	return t ? look_inside(&c, t) : 0;
}

/*
 * Most packets end here: plain ones that are not selected. What is kept of them is a count, so the code that
 * they run through has few variables and no memory. False, and nothing counted, for all others.
 */
static __always_inline bool passes_by(const struct parsed *p, __u64 *hash, __u32 lane,
				      const struct __sk_buff *skb)
{
	__u32 why = SYNTAP_N_PORT_NOT_CHOSEN;
	struct syntap_counters *n;

	if (p->kind == KIND_NONE) {
		why = SYNTAP_N_NOT_TCP;
	} else if (port_chosen(p->src.port) || port_chosen(p->dst.port)) {
		*hash = hash_tuple(&p->src, &p->dst, config.key);
		if ((p->flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) != TCP_ACK || watch_has(*hash))
			return false;
		take_census(lane, p->flags, skb && skb->gso_segs ? skb->gso_segs : 1);
		why = SYNTAP_N_NOT_WATCHED;
	}
	n = bpf_map_lookup_elem(&counters, &lane);
	if (!n) /* verifier: the lane is in bounds */
		return false;
	n->n[SYNTAP_N_PACKETS]++;
	n->n[why]++;
	return true;
}

enum {
	SEEN_FLAGS = 8, /* shift */
	SEEN_PLAIN = 1 << 16,
};

/* What is left to know of a plain TCP packet that does not pass by, besides its hash: it goes on in two
 * registers. */
static __always_inline __u32 seen(const struct parsed *p)
{
	return SEEN_PLAIN | p->flags << SEEN_FLAGS | (p->l4 & 0xff);
}

static __always_inline void parse_unless_seen(struct cursor *c, __u32 seen, struct parsed *p)
{
	if (!(seen & SEEN_PLAIN)) {
		parse_frame(c, 0, false, p);
		return;
	}
	p->kind = KIND_TCP;
	p->l4 = seen & 0xff;
	p->flags = seen >> SEEN_FLAGS;
	p->has_flags = 1;
}

/* Selects. True with *meta filled in for a packet to mirror, but for what the hook alone knows, and *out. */
static __always_inline bool wanted(struct cursor *c, struct parsed *p, __u64 known, __u32 lane,
				   struct syntap_counters *n, struct syntap_meta *meta, struct chosen *out)
{
	if (p->kind == KIND_TUNNEL) {
		__u32 zero = 0;
		struct tunnelled *t = bpf_map_lookup_elem(&tunnels, &zero);

		if (!t) /* verifier: element 0 of an array is there */
			return false;
		t->end = c->end;
		t->l4 = p->l4;
		t->next = p->next;
		t->fragment = p->fragment;
		if (!(c->hook == HOOK_SKB ? look_inside_skb(c->ctx, t) : look_inside_xdp(c->ctx, t)))
			return false;
		*p = t->inside;
	}
	if (!choose(p, known, lane, meta->gso_segs, n, out))
		return false;
	meta->time_ns = out->time_ns;
	meta->hash = out->hash;
	meta->reason = out->reason;
	meta->version = SYNTAP_VERSION;
	meta->magic = SYNTAP_MAGIC;
	return true;
}

static __always_inline int look_at_skb(struct __sk_buff *skb, __u32 lane, __u64 hash, __u32 what)
{
	__u32 zero = 0;
	struct syntap_counters *n = bpf_map_lookup_elem(&counters, &lane);
	struct cursor c = {
		.ctx = skb,
		.data = (void *)(long)skb->data,
		.data_end = (void *)(long)skb->data_end,
		.end = skb->len,
		.hook = HOOK_SKB,
	};
	struct syntap_meta meta = {};
	struct syntap_handover *h;
	struct parsed p = {};
	struct chosen chosen = {};

	if (!n) /* verifier: the lane is in bounds */
		return 0;
	count(n, SYNTAP_N_PACKETS);
	if (lane >= SYNTAP_LANE_STRAY) {
		count(n, SYNTAP_N_NO_SLOT);
		return 0;
	}
	meta.gso_segs = skb->gso_segs ? skb->gso_segs : 1;
	parse_unless_seen(&c, what, &p);
	if (!wanted(&c, &p, hash, lane, n, &meta, &chosen))
		return 0;
	meta.ifindex = skb->ifindex;
	meta.wire_len = skb->len;
	meta.vlan_tpid = skb->vlan_present ? bpf_ntohs(skb->vlan_proto) : 0;
	meta.vlan_tci = skb->vlan_present ? skb->vlan_tci : 0;
	meta.slot = lane / 2;
	meta.direction = lane & 1;
	if (config.records) {
		count(n, record(skb, &meta, chosen.snap, chosen.least));
		budget_charge(lane / 2, meta.time_ns, false);
		return 0;
	}
	h = bpf_map_lookup_elem(&handover, &zero);
	if (!h) /* verifier: element 0 of an array is there */
		return 0;
	h->meta = meta;
	h->snap = chosen.snap;
	h->state = HANDOVER_READY;
	if (!config.carrier)
		return 0;
	/* A positive answer is a drop on the way, a negative one an error; the carrier may have counted it. */
	if (!bpf_clone_redirect(skb, config.carrier, 0))
		count(n, SYNTAP_N_MIRRORED);
	else if (h->state != HANDOVER_FAILED)
		count(n, SYNTAP_N_CLONE_FAILED);
	h->state = HANDOVER_EMPTY;
	budget_charge(lane / 2, meta.time_ns, true);
	return 0;
}

/* verifier: functions of their own, so that what passes by runs through none of their registers and stack; and
 * two, as there is no more stack for a hook and all that it calls than the way into a tunnel needs. */
__noinline int look_at_plain_skb(struct __sk_buff *skb, __u32 lane, __u64 hash, __u32 what)
{
	return look_at_skb(skb, lane, hash, what | SEEN_PLAIN);
}

__noinline int look_at_any_skb(struct __sk_buff *skb, __u32 lane)
{
	return look_at_skb(skb, lane, 0, 0);
}

static __always_inline void tap_skb(struct __sk_buff *skb, const __u8 direction)
{
	const __u32 slot = find_slot(skb->ifindex);
	const struct cursor c = {
		.data = (void *)(long)skb->data,
		.data_end = (void *)(long)skb->data_end,
		.end = skb->len,
		.hook = HOOK_SKB,
	};
	const __u32 lane = slot < SYNTAP_SLOTS ? slot * 2 + direction : SYNTAP_LANE_STRAY;
	struct parsed p = {};
	__u64 hash = 0;

	if (slot >= SYNTAP_SLOTS || !parse_plain(&c, &p))
		look_at_any_skb(skb, lane);
	else if (!passes_by(&p, &hash, lane, skb))
		look_at_plain_skb(skb, lane, hash, seen(&p));
}

SEC("tcx/ingress")
int syntap_ingress(struct __sk_buff *skb)
{
	tap_skb(skb, SYNTAP_INGRESS);
	return TCX_VERDICT_NEXT;
}

SEC("tcx/egress")
int syntap_egress(struct __sk_buff *skb)
{
	tap_skb(skb, SYNTAP_EGRESS);
	return TCX_VERDICT_NEXT;
}

static __always_inline void count_for(const struct syntap_meta *meta, __u32 which)
{
	__u32 lane = meta ? meta->slot * 2 + (meta->direction & 1) : SYNTAP_LANE_STRAY;
	struct syntap_counters *n = bpf_map_lookup_elem(&counters, &lane);

	if (n)
		count(n, which);
}

static __always_inline int carry_failed(struct syntap_handover *h, __u32 which)
{
	h->state = HANDOVER_FAILED;
	count_for(&h->meta, which);
	return TCX_VERDICT_DROP;
}

enum {
	PLAIN_IN_TUNNEL = SYNTAP_REASON_WATCH | SYNTAP_REASON_TUNNEL,
	FIN_IN_TUNNEL = SYNTAP_REASON_FIN | SYNTAP_REASON_TUNNEL,
	/* In place of SYNTAP_MAGIC: one of gso_segs pieces, of which the last is mirrored. */
	MAGIC_PIECE = SYNTAP_MAGIC + 1,
	/* Headers in front of a piece's data, a tunnel's own left out. */
	PIECE_HEADERS = ETH_LEN + 2 * VLAN_LEN + IPV6_LEN + 60,
};

/*
 * The kernel shortens no encapsulated packet. A large one is cut into its segments on the way, each with the
 * headers in front, ours included. For a FIN that pays: it is on the last segment. Plain data is TUNNEL_LARGE.
 */
static __always_inline __u8 whole_or_pieces(const struct __sk_buff *skb, const struct syntap_handover *h,
					    __u32 *failure)
{
	__u16 reason = h->meta.reason;

	*failure = SYNTAP_N_PACKETS;
	if (!skb->gso_size && skb->len <= SYNTAP_CARRY_MAX)
		return SYNTAP_MAGIC;
	if ((reason & PLAIN_IN_TUNNEL) == PLAIN_IN_TUNNEL)
		*failure = SYNTAP_N_TUNNEL_LARGE;
	/* A piece must fit as well. A count of 1 was made up: nobody knows the last one. */
	else if ((reason & FIN_IN_TUNNEL) != FIN_IN_TUNNEL || !skb->gso_size || h->meta.gso_segs < 2 ||
		 skb->gso_size + (h->snap - config.snap) + PIECE_HEADERS > SYNTAP_CARRY_MAX)
		*failure = SYNTAP_N_TRIM_FAILED;
	return MAGIC_PIECE;
}

SEC("tcx/egress")
int syntap_carry(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct syntap_handover *h = bpf_map_lookup_elem(&handover, &zero);
	__u8 magic = SYNTAP_MAGIC;
	struct syntap_meta *front;
	__u32 want, failure;

	if (!h || h->state != HANDOVER_READY) {
		count_for(NULL, SYNTAP_N_STRAY);
		return TCX_VERDICT_DROP;
	}
	h->state = HANDOVER_TAKEN;
	want = skb->len < h->snap ? skb->len : h->snap;
	/* To its own length where it is shorter: that ends segmentation offload, which would cut the clone in
	 * pieces. Refused for encapsulated packets and where a checksum would be cut off. */
	if ((skb->len > want || skb->gso_size) && bpf_skb_change_tail(skb, want, 0)) {
		magic = whole_or_pieces(skb, h, &failure);
		if (failure)
			return carry_failed(h, failure);
	}
	if (bpf_skb_change_head(skb, SYNTAP_META_LEN, 0))
		return carry_failed(h, SYNTAP_N_PUSH_FAILED);
	front = (void *)(long)skb->data;
	if ((void *)(front + 1) > (void *)(long)skb->data_end)
		return carry_failed(h, SYNTAP_N_PUSH_FAILED);
	*front = h->meta;
	front->magic = magic;
	/* The pair's transmit queue, one more because 0 means unset; its receive queue of that number is the
	 * ring. One ring carries both directions of a tuple on all interfaces, in the order they were cloned.
	 */
	skb->queue_mapping = h->meta.hash % config.shards + 1;
	return TCX_VERDICT_PASS;
}

/* Pieces that a ring still waits for: they come in one go, in order. */
struct syntap_pieces {
	__u64 time_ns; /* of the packet that they are pieces of */
	__u64 left;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SYNTAP_RINGS);
	__type(key, __u32);
	__type(value, struct syntap_pieces);
} pieces SEC(".maps");

/* True for the last piece, which from here on is a packet of its own. */
static __always_inline bool last_piece(struct syntap_meta *meta, __u32 ring, __u32 len)
{
	struct syntap_pieces *p = bpf_map_lookup_elem(&pieces, &ring);

	if (!p) /* verifier: no device has more queues than there are rings */
		return false;
	if (p->time_ns != meta->time_ns) {
		/* The rest of another packet: the pair's ring was full, or another CPU came in between. */
		if (p->left)
			count_for(meta, SYNTAP_N_PIECES_LOST);
		p->time_ns = meta->time_ns;
		p->left = meta->gso_segs;
	}
	if (!p->left || --p->left)
		return false;
	meta->magic = SYNTAP_MAGIC;
	meta->wire_len = len;
	meta->gso_segs = 1;
	return true;
}

SEC("xdp")
int syntap_ring(struct xdp_md *ctx)
{
	struct syntap_meta *meta = (void *)(long)ctx->data;
	__u32 len = ctx->data_end - ctx->data - SYNTAP_META_LEN;
	int verdict;

	if ((void *)(meta + 1) > (void *)(long)ctx->data_end || meta->version != SYNTAP_VERSION ||
	    (meta->magic != SYNTAP_MAGIC && meta->magic != MAGIC_PIECE)) {
		count_for(NULL, SYNTAP_N_STRAY);
		return XDP_DROP;
	}
	if (meta->magic == MAGIC_PIECE && !last_piece(meta, ctx->rx_queue_index, len))
		return XDP_DROP;
	verdict = bpf_redirect_map(&rings, ctx->rx_queue_index, XDP_DROP);
	if (verdict != XDP_REDIRECT)
		count_for(meta, SYNTAP_N_NO_RING);
	return verdict;
}

__noinline int look_at_xdp(struct xdp_md *ctx, __u32 slot, __u64 hash, __u32 what)
{
	__u32 lane = slot < SYNTAP_SLOTS ? slot * 2 + SYNTAP_INGRESS : SYNTAP_LANE_STRAY;
	struct syntap_counters *n = bpf_map_lookup_elem(&counters, &lane);
	struct cursor c = {
		.ctx = ctx,
		.data = (void *)(long)ctx->data,
		.data_end = (void *)(long)ctx->data_end,
		.end = ctx->data_end - ctx->data,
		.hook = HOOK_XDP,
	};
	struct syntap_meta meta = {}, *front;
	struct parsed p = {};
	int verdict, extra;
	struct chosen chosen = {};

	if (!n) /* verifier: the lane is in bounds */
		return XDP_DROP;
	count(n, SYNTAP_N_PACKETS);
	if (slot >= SYNTAP_SLOTS) {
		count(n, SYNTAP_N_NO_SLOT);
		return XDP_DROP;
	}
	meta.wire_len = c.end;
	meta.gso_segs = 1;
	parse_unless_seen(&c, what, &p);
	if (!wanted(&c, &p, hash, lane, n, &meta, &chosen))
		return XDP_DROP;
	meta.ifindex = ctx->ingress_ifindex;
	meta.slot = slot;
	meta.direction = SYNTAP_INGRESS;
	/* Copy mode copies only what is left. A frame that cannot be shortened goes whole. */
	extra = (int)meta.wire_len - (int)chosen.snap;
	if (extra > 0)
		bpf_xdp_adjust_tail(ctx, -extra);
	if (bpf_xdp_adjust_head(ctx, -SYNTAP_META_LEN)) {
		count(n, SYNTAP_N_PUSH_FAILED);
		return XDP_DROP;
	}
	front = (void *)(long)ctx->data;
	if ((void *)(front + 1) > (void *)(long)ctx->data_end) {
		count(n, SYNTAP_N_PUSH_FAILED);
		return XDP_DROP;
	}
	*front = meta;
	verdict = bpf_redirect_map(&rings, tables.slots[slot & (SYNTAP_SLOTS - 1)].ring + ctx->rx_queue_index,
				   XDP_DROP);
	count(n, verdict == XDP_REDIRECT ? SYNTAP_N_MIRRORED : SYNTAP_N_NO_RING);
	budget_charge(slot, meta.time_ns, false);
	return verdict;
}

SEC("xdp")
int syntap_span(struct xdp_md *ctx)
{
	const __u32 slot = find_slot(ctx->ingress_ifindex);
	const struct cursor c = {
		.data = (void *)(long)ctx->data,
		.data_end = (void *)(long)ctx->data_end,
		.end = ctx->data_end - ctx->data,
		.hook = HOOK_XDP,
	};
	struct parsed p = {};
	__u64 hash = 0;
	__u32 what = 0;

	if (slot < SYNTAP_SLOTS && parse_plain(&c, &p)) {
		if (passes_by(&p, &hash, slot * 2 + SYNTAP_INGRESS, NULL))
			return XDP_DROP;
		what = seen(&p);
	}
	return look_at_xdp(ctx, slot, hash, what);
}

char LICENSE[] SEC("license") = "GPL";
