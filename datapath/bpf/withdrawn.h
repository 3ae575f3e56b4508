/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A packet to a withdrawn cluster is dropped and answered with ICMP "host unreachable" or ICMPv6 "address
 * unreachable" in the name of its destination: it never leaves by another way, and its sender need not wait.
 */
#ifndef MESHD_WITHDRAWN_H
#define MESHD_WITHDRAWN_H

#include "too_big.h"

#define QUOTE4_FULL 40  /* IP and TCP header */
#define QUOTE4_LEAST 28 /* IP and UDP header */
#define QUOTE6_FULL 60
#define QUOTE6_LEAST 48
#define ICMP4_HOST 1
#define ICMP6_UNREACHABLE 1
#define ICMP6_ADDRESS 3

struct unreachable4 {
	struct iphdr ip;
	__u8 type;
	__u8 code;
	__sum16 check;
	__be32 unused;
	__u8 quote[QUOTE4_FULL];
};

struct unreachable6 {
	struct ipv6hdr ip;
	__u8 type;
	__u8 code;
	__sum16 check;
	__be32 unused;
	__u8 quote[QUOTE6_FULL];
};

static __always_inline bool write_unreachable4(struct __sk_buff *skb, struct packet *p)
{
	struct unreachable4 a = {
		.ip = {.version = 4, .ihl = 5, .ttl = ANSWER_TTL, .protocol = IPPROTO_ICMP,
		       .tot_len = be16(sizeof(a)), .saddr = p->destination.word[0], .daddr = p->source.word[0]},
		.type = ICMP4_UNREACHABLE, .code = ICMP4_HOST,
	};

	if (bpf_skb_load_bytes(skb, L3_OFFSET, a.quote, QUOTE4_FULL)) {
		__builtin_memset(a.quote, 0, sizeof(a.quote)); /* a load that fails leaves no promise */
		if (bpf_skb_load_bytes(skb, L3_OFFSET, a.quote, QUOTE4_LEAST))
			return false;
	}
	a.ip.check = fold(bpf_csum_diff(0, 0, &a.ip, sizeof(a.ip), 0));
	a.check = fold(bpf_csum_diff(0, 0, (void *)&a.type, sizeof(a) - sizeof(a.ip), 0));
	return !bpf_skb_change_tail(skb, L3_OFFSET + sizeof(a), 0) &&
	       !bpf_skb_store_bytes(skb, L3_OFFSET, &a, sizeof(a), 0);
}

static __always_inline bool write_unreachable6(struct __sk_buff *skb, struct packet *p)
{
	struct unreachable6 a = {
		.ip = {.version = 6, .nexthdr = IPPROTO_ICMPV6, .hop_limit = ANSWER_TTL,
		       .payload_len = be16(sizeof(a) - sizeof(a.ip))},
		.type = ICMP6_UNREACHABLE, .code = ICMP6_ADDRESS,
	};
	struct pseudo6 pseudo = {.length = __builtin_bswap32(sizeof(a) - sizeof(a.ip)),
				 .next = __builtin_bswap32(IPPROTO_ICMPV6)};

	__builtin_memcpy(&a.ip.saddr, p->destination.word, 16);
	__builtin_memcpy(&a.ip.daddr, p->source.word, 16);
	__builtin_memcpy(pseudo.addresses, &a.ip.saddr, 32);
	if (bpf_skb_load_bytes(skb, L3_OFFSET, a.quote, QUOTE6_FULL)) {
		__builtin_memset(a.quote, 0, sizeof(a.quote));
		if (bpf_skb_load_bytes(skb, L3_OFFSET, a.quote, QUOTE6_LEAST))
			return false;
	}
	a.check = fold(bpf_csum_diff(0, 0, (void *)&a.type, sizeof(a) - sizeof(a.ip),
				     bpf_csum_diff(0, 0, (void *)&pseudo, sizeof(pseudo), 0)));
	return !bpf_skb_change_tail(skb, L3_OFFSET + sizeof(a), 0) &&
	       !bpf_skb_store_bytes(skb, L3_OFFSET, &a, sizeof(a), 0);
}

/* An error about an ICMP packet would answer errors with errors (RFC 1122, 4443): those are only dropped. */
static __always_inline bool is_answered(struct packet *p)
{
	return p->l4_offset && (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP);
}

static __always_inline int answer_withdrawn(struct __sk_buff *skb, struct packet *p)
{
	bool written;

	if (!is_answered(p))
		return TC_ACT_SHOT;
	written = p->source.family == FAMILY_V6 ? write_unreachable6(skb, p) : write_unreachable4(skb, p);
	return written ? send_back(skb) : TC_ACT_SHOT;
}

#endif
