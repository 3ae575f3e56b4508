/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A packet that the tunnel does not carry in one piece is answered with ICMP "fragmentation needed" or
 * ICMPv6 "packet too big" in the name of its destination: TCP recovers by itself, UDP gets EMSGSIZE.
 */
#ifndef MESHD_TOO_BIG_H
#define MESHD_TOO_BIG_H

#include "count.h"
#include "parse.h"

#define QUOTE 96 /* bytes of the packet that the answer quotes: headers with some options */
#define UDP_LENGTH 8
#define ANSWER_TTL 64
#define ICMP4_UNREACHABLE 3
#define ICMP4_FRAG_NEEDED 4
#define ICMP6_TOO_BIG 2

struct icmp_answer {
	__u8 type;
	__u8 code;
	__sum16 check;
	__be32 mtu;
	__u8 quote[QUOTE];
};

struct answer4 {
	struct iphdr ip;
	struct icmp_answer icmp;
};

struct answer6 {
	struct ipv6hdr ip;
	struct icmp_answer icmp;
};

struct pseudo6 {
	__u8 addresses[32];
	__be32 length;
	__be32 next;
};

static __always_inline __sum16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

/* Length of the IP packet, or of the largest piece that segmentation will make of it. */
static __always_inline __u32 segment_length(struct __sk_buff *skb, struct packet *p)
{
	__u32 headers = p->l4_offset - L3_OFFSET;

	if (!skb->gso_size || !p->l4_offset)
		return skb->len - L3_OFFSET;
	headers += p->tcp_length ? p->tcp_length : UDP_LENGTH;
	return headers + skb->gso_size;
}

static __always_inline bool is_too_big(struct __sk_buff *skb, struct packet *p, __u16 inner_mtu)
{
	return inner_mtu && segment_length(skb, p) > inner_mtu;
}

/* Sends what is in the packet back to where it came from. */
static __always_inline int send_back(struct __sk_buff *skb)
{
	__u8 macs[2 * ETH_ALEN], swapped[2 * ETH_ALEN];

	bpf_skb_load_bytes(skb, 0, macs, sizeof(macs));
	__builtin_memcpy(swapped, macs + ETH_ALEN, ETH_ALEN);
	__builtin_memcpy(swapped + ETH_ALEN, macs, ETH_ALEN);
	bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0);
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline bool write_answer4(struct __sk_buff *skb, struct packet *p, __u16 mtu)
{
	struct answer4 a = {
		.ip = {.version = 4, .ihl = 5, .ttl = ANSWER_TTL, .protocol = IPPROTO_ICMP,
		       .tot_len = be16(sizeof(a)), .saddr = p->destination.word[0], .daddr = p->source.word[0]},
		.icmp = {.type = ICMP4_UNREACHABLE, .code = ICMP4_FRAG_NEEDED, .mtu = __builtin_bswap32(mtu)},
	};

	if (bpf_skb_load_bytes(skb, L3_OFFSET, a.icmp.quote, QUOTE))
		return false;
	a.ip.check = fold(bpf_csum_diff(0, 0, &a.ip, sizeof(a.ip), 0));
	a.icmp.check = fold(bpf_csum_diff(0, 0, &a.icmp, sizeof(a.icmp), 0));
	return !bpf_skb_change_tail(skb, L3_OFFSET + sizeof(a), 0) &&
	       !bpf_skb_store_bytes(skb, L3_OFFSET, &a, sizeof(a), 0);
}

static __always_inline bool write_answer6(struct __sk_buff *skb, struct packet *p, __u16 mtu)
{
	struct answer6 a = {
		.ip = {.version = 6, .nexthdr = IPPROTO_ICMPV6, .hop_limit = ANSWER_TTL,
		       .payload_len = be16(sizeof(a.icmp))},
		.icmp = {.type = ICMP6_TOO_BIG, .mtu = __builtin_bswap32(mtu)},
	};
	struct pseudo6 pseudo = {.length = __builtin_bswap32(sizeof(a.icmp)),
				 .next = __builtin_bswap32(IPPROTO_ICMPV6)};

	__builtin_memcpy(&a.ip.saddr, p->destination.word, 16);
	__builtin_memcpy(&a.ip.daddr, p->source.word, 16);
	__builtin_memcpy(pseudo.addresses, &a.ip.saddr, 32);
	if (bpf_skb_load_bytes(skb, L3_OFFSET, a.icmp.quote, QUOTE))
		return false;
	a.icmp.check = fold(bpf_csum_diff(0, 0, &a.icmp, sizeof(a.icmp),
					  bpf_csum_diff(0, 0, &pseudo, sizeof(pseudo), 0)));
	return !bpf_skb_change_tail(skb, L3_OFFSET + sizeof(a), 0) &&
	       !bpf_skb_store_bytes(skb, L3_OFFSET, &a, sizeof(a), 0);
}

static __always_inline int answer_too_big(struct __sk_buff *skb, struct packet *p, __u16 inner_mtu)
{
	bool written;

	if (!p->l4_offset) /* RFC 1122: no answer to a later fragment */
		return TC_ACT_SHOT;
	written = p->source.family == FAMILY_V6 ? write_answer6(skb, p, inner_mtu)
						: write_answer4(skb, p, inner_mtu);
	return written ? send_back(skb) : TC_ACT_SHOT;
}

#endif
