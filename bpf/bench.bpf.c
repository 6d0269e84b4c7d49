// SPDX-License-Identifier: GPL-2.0-only
/*
 * What syntap is measured with and against. Nothing of this is in syntap: examples/meter loads it.
 *
 *   bench_generate  XDP, run by BPF_PROG_TEST_RUN on live frames: makes the next packet of many connections and
 *                   sends it out of one of two interfaces. Nothing else here transmits.
 *   bench_receive   XDP: every packet into the AF_XDP ring of its queue.
 *   bench_queues    XDP: notes which queue each slot's packets came to, and drops them.
 *   bench_pass      XDP: lets pass. Some drivers transmit redirected frames only with a program attached.
 *   bench_sink      tcx: counts and drops.
 *   bench_nothing_* answers at once: what a test run itself costs.
 *   bench_parse_*   reads addresses, ports and flags: the least that any selection must do.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum {
	/* Ethernet, IPv4, TCP with the twenty bytes of options of a SYN. The other packets are as long on the
	 * wire; what their headers do not claim is payload or trailer. */
	FRAME_LEN = 74,
	LIFE = 10,
	QUEUES = 256,
	SLOTS_NOTED = 4096,
	FIN = 1,
	SYN = 2,
	PSH = 8,
	ACK = 16,
	VERDICT_DROP = 2, /* of tc */
	VERDICT_NEXT = -1,
};

/* What follows what. */
enum mode {
	/* As in examples/meter/life.rs: ten packets a connection, all of which a tap mirrors. */
	MODE_LIVES,
	/* One packet in five is a SYN, SYN-ACK or FIN; the others are of long connections, which nobody
	   watches. */
	MODE_LONG,
	/* Connections of twenty packets: two SYNs, sixteen plain ones that the watch mirrors, two FINs. */
	MODE_SHORT,
	/* Only the plain packets of MODE_LONG. */
	MODE_PLAIN,
};

/* One side that frames are sent out on. */
struct side {
	__u32 ifindex;
	__u8 dst[6];
	__u8 src[6];
};

const volatile struct {
	struct side sides[2]; /* the clients', the servers' */
	__u32 bits;	      /* 2^bits slots */
	__u32 mode;
} generator SEC(".rodata.generator") = {.bits = 1};

/* One CPU generates. */
struct {
	__u64 next;
} generated = {};

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} bench_rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, __u64);
} bench_counts SEC(".maps");

/* The queue that a slot's packets came to, plus one: from the client in the low half, from the server in the
 * high. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS_NOTED);
	__type(key, __u32);
	__type(value, __u32);
} bench_landed SEC(".maps");

struct headers {
	__u8 dst[6];
	__u8 src[6];
	__be16 ether;
	__u8 version;
	__u8 tos;
	__be16 len;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 sum;
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__be32 seq;
	__be32 ack;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__be16 tcp_sum;
	__be16 urgent;
	__u8 options[12];
} __attribute__((packed));

static __always_inline __u64 mixed(__u64 x)
{
	x = (x ^ x >> 31) * 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9ull;
	return x ^ x >> 32;
}

/* A bijection of the slots, another one each round. */
static __always_inline __u32 permuted(__u64 i, __u64 round)
{
	__u32 bits = generator.bits, half = bits / 2 + 1;
	__u64 mask = (1ull << bits) - 1;
	__u64 x = (i * 0x9e3779b97f4a7c15ull + mixed(round)) & mask;

	x ^= x >> half;
	x = x * 0xbf58476d1ce4e5b9ull & mask;
	x ^= x >> half;
	x = x * 0x94d049bb133111ebull & mask;
	return x ^ x >> half;
}

struct packet {
	__u32 slot;
	__u32 life;
	__u16 port;   /* the client's */
	__u16 seq;    /* of the sender, from its ISN */
	__u16 ack;    /* of the other end, from its ISN */
	__u8 payload; /* bytes: 0 or 8 */
	__u8 flags;
	__u8 answers; /* sent by the server */
};

/* The steps of a connection with `plain` packets between its SYNs and its FINs; these go to and fro, eight
 * bytes each. */
static __always_inline void step_of(__u32 step, __u32 plain, struct packet *p)
{
	__u32 sent = 8 * ((plain + 1) / 2), answered = 8 * (plain / 2), half;

	p->seq = p->ack = p->payload = p->answers = 0;
	if (step == 0) {
		p->flags = SYN;
	} else if (step == 1) {
		p->flags = SYN | ACK;
		p->answers = 1;
		p->ack = 1;
	} else if (step < 2 + plain) {
		step -= 2;
		half = 8 * (step / 2);
		p->flags = PSH | ACK;
		p->payload = 8;
		p->answers = step & 1;
		p->seq = 1 + half;
		p->ack = p->answers ? 9 + half : 1 + half;
	} else if (step == 2 + plain) {
		p->flags = FIN | ACK;
		p->seq = 1 + sent;
		p->ack = 1 + answered;
	} else if (step == 3 + plain) {
		p->flags = FIN | ACK;
		p->answers = 1;
		p->seq = 1 + answered;
		p->ack = 2 + sent;
	} else {
		p->flags = ACK;
		p->seq = 2 + sent;
		p->ack = 2 + answered;
	}
}

/* The connection's packet when its slot has sent `count` before. */
static __always_inline void life_of(__u64 count, __u32 steps, __u32 plain, struct packet *p)
{
	p->life = count / steps;
	p->port = 1024 + p->life % 60000;
	step_of(count % steps, plain, p);
}

static __always_inline void next_packet(__u64 t, struct packet *p)
{
	__u32 mode = generator.mode, bits = generator.bits;
	__u64 turn = t, count, round;

	if (mode == MODE_LONG)
		turn = t / 5;
	round = turn >> bits;
	if (mode == MODE_PLAIN || (mode == MODE_LONG && t % 5)) {
		/* Of long connections the numbers go on, so that nothing is a retransmission. */
		round = t >> bits;
		p->slot = permuted(t & ((1ull << bits) - 1), round);
		p->life = 0;
		p->port = 999;
		p->payload = 8;
		p->flags = ACK;
		p->answers = round & 1;
		p->seq = 8 * (round >> 1);
		p->ack = p->seq;
		return;
	}
	p->slot = permuted(turn & ((1ull << bits) - 1), round);
	count = round + mixed(p->slot) % 20;
	if (mode == MODE_LIVES)
		life_of(count, LIFE, 5, p);
	else if (mode == MODE_LONG)
		life_of(count, 4, 0, p);
	else
		life_of(count, 20, 16, p);
}

static __always_inline void write_packet(struct headers *h, const struct packet *p)
{
	const volatile struct side *side = &generator.sides[p->answers];
	__be32 client = bpf_htonl(10u << 24 | (p->slot & 0xffffff)), server = bpf_htonl(0xc0000201);
	__u32 isn = (__u32)mixed((__u64)p->slot << 20 | p->port), other = isn + 0x20000000;
	__u32 sum;
	int i;

#pragma unroll
	for (i = 0; i < 6; i++) {
		h->dst[i] = side->dst[i];
		h->src[i] = side->src[i];
	}
	/* All of it anew: a page comes back as a gateway left it, with a hop less. */
	h->ether = bpf_htons(0x0800);
	h->version = 0x45;
	h->tos = 0;
	h->fragment = bpf_htons(0x4000);
	h->ttl = 64;
	h->protocol = 6;
	h->len = bpf_htons(p->flags & SYN ? 60 : 52 + p->payload);
	h->id = bpf_htons((__u16)generated.next | 1);
	h->saddr = p->answers ? server : client;
	h->daddr = p->answers ? client : server;
	h->sport = bpf_htons(p->answers ? 443 : p->port);
	h->dport = bpf_htons(p->answers ? p->port : 443);
	h->seq = bpf_htonl((p->answers ? other : isn) + p->seq);
	h->ack = p->flags & ACK ? bpf_htonl((p->answers ? isn : other) + p->ack) : 0;
	h->offset = p->flags & SYN ? 0xa0 : 0x80;
	h->flags = p->flags;
	/* MSS, SACK permitted, the begin of timestamps; or NOP, NOP, timestamps. The stamp stays zero. */
	if (p->flags & SYN) {
		*(__be32 *)&h->options[0] = bpf_htonl(0x020405b4);
		*(__be32 *)&h->options[4] = bpf_htonl(0x0402080a);
	} else {
		*(__be32 *)&h->options[0] = bpf_htonl(0x0101080a);
		*(__be32 *)&h->options[4] = 0;
	}
	/* A router looks at this sum and not at TCP's. */
	sum = 0x4500 + 0x4000 + 0x4006 + bpf_ntohs(h->len) + bpf_ntohs(h->id);
	sum += (10u << 8 | (p->slot >> 16 & 0xff)) + (p->slot & 0xffff) + 0xc000 + 0x0201;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	h->sum = bpf_htons(~sum & 0xffff);
}

SEC("xdp")
int bench_generate(struct xdp_md *xdp)
{
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	struct packet p = {};

	if (data + FRAME_LEN > end)
		return XDP_ABORTED;
	next_packet(generated.next, &p);
	generated.next++;
	write_packet(data, &p);
	return bpf_redirect(generator.sides[p.answers].ifindex, 0);
}

SEC("xdp")
int bench_receive(struct xdp_md *xdp)
{
	return bpf_redirect_map(&bench_rings, xdp->rx_queue_index, XDP_DROP);
}

static __always_inline void bump(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&bench_counts, &which);

	if (n)
		++*n;
}

SEC("xdp")
int bench_queues(struct xdp_md *xdp)
{
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	struct headers *h = data;
	__u32 queue = xdp->rx_queue_index % QUEUES, slot, *landed, answers;

	bump(queue);
	if (data + sizeof(*h) > end || h->ether != bpf_htons(0x0800) || h->protocol != 6)
		return XDP_DROP;
	answers = h->sport == bpf_htons(443);
	slot = bpf_ntohl(answers ? h->daddr : h->saddr) & 0xffffff;
	landed = bpf_map_lookup_elem(&bench_landed, &slot);
	if (landed)
		*landed =
			answers ? (*landed & 0xffff) | (queue + 1) << 16 : (*landed & 0xffff0000) | (queue + 1);
	return XDP_DROP;
}

SEC("xdp")
int bench_pass(struct xdp_md *xdp)
{
	(void)xdp;
	return XDP_PASS;
}

SEC("tcx/ingress")
int bench_sink(struct __sk_buff *skb)
{
	(void)skb;
	bump(0);
	return VERDICT_DROP;
}

/* The answer depends on what was read, so that the compiler cannot leave the reading out. */
static __always_inline __u32 parse(void *data, void *end)
{
	struct headers *h = data;

	if (data + sizeof(*h) > end)
		return 0;
	if (h->ether != bpf_htons(0x0800) || h->version != 0x45 || h->protocol != 6 ||
	    h->fragment & bpf_htons(0x3fff))
		return 0;
	return h->sport ^ h->dport ^ h->flags ^ h->saddr ^ h->daddr;
}

SEC("tcx/ingress")
int bench_parse_skb(struct __sk_buff *skb)
{
	return parse((void *)(long)skb->data, (void *)(long)skb->data_end) == 0x12345678 ? VERDICT_DROP
											 : VERDICT_NEXT;
}

SEC("xdp")
int bench_parse_xdp(struct xdp_md *xdp)
{
	return parse((void *)(long)xdp->data, (void *)(long)xdp->data_end) == 0x12345678 ? XDP_PASS : XDP_DROP;
}

SEC("tcx/ingress")
int bench_nothing_skb(struct __sk_buff *skb)
{
	(void)skb;
	return VERDICT_NEXT;
}

SEC("xdp")
int bench_nothing_xdp(struct xdp_md *xdp)
{
	(void)xdp;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
