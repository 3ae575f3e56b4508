/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From a frame to the facts that the programs need. Addresses stay in network order. */
#ifndef MESHD_PARSE_H
#define MESHD_PARSE_H

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include "layout.h"

#define be16(x) ((__be16)__builtin_bswap16(x))

#define L3_OFFSET ETH_HLEN
#define TCP_LENGTH_OFFSET 12 /* header length (4 bits), reserved, flags */
#define L4_OFFSET_MASK 0x7f  /* the verifier's bound: 14 + 60 at most */
#define IP_FRAGMENT 0x1fff /* offset bits of iphdr.frag_off */

struct packet {
	struct addr_key source;
	struct addr_key destination;
	__u8 protocol;
	__u8 ttl;
	__sum16 check;   /* of the IPv4 header */
	__u16 l4_offset; /* 0: a later fragment, there is no header */
	__u8 tcp_length; /* of the TCP header with options; these two are set by parse_tcp */
	__u8 tcp_flags;
	bool translated; /* service_ct.h wrote another address into it, or loop() will */
	bool looped;     /* it goes back to the pod that sent it, which is its own backend; these become its ports */
	__be16 loop_source;
	__be16 loop_destination;
};

static __always_inline bool reachable(struct __sk_buff *skb, __u32 length)
{
	if ((void *)(long)skb->data + length <= (void *)(long)skb->data_end)
		return true;
	/* The headers of a received packet need not be in the linear part. */
	return bpf_skb_pull_data(skb, length) == 0;
}

static __always_inline bool parse_ipv4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr *ip;

	if (!reachable(skb, L3_OFFSET + sizeof(*ip)))
		return false;
	ip = (void *)(long)skb->data + L3_OFFSET;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end || ip->ihl < 5)
		return false;
	p->source.family = p->destination.family = FAMILY_V4;
	p->source.word[0] = ip->saddr;
	p->destination.word[0] = ip->daddr;
	p->protocol = ip->protocol;
	p->ttl = ip->ttl;
	p->check = ip->check;
	p->l4_offset = ip->frag_off & be16(IP_FRAGMENT) ? 0 : L3_OFFSET + ip->ihl * 4;
	return true;
}

static __always_inline bool parse_ipv6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr *ip;

	if (!reachable(skb, L3_OFFSET + sizeof(*ip)))
		return false;
	ip = (void *)(long)skb->data + L3_OFFSET;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return false;
	p->source.family = p->destination.family = FAMILY_V6;
	__builtin_memcpy(p->source.word, &ip->saddr, 16);
	__builtin_memcpy(p->destination.word, &ip->daddr, 16);
	p->protocol = ip->nexthdr;
	p->ttl = ip->hop_limit;
	p->l4_offset = L3_OFFSET + sizeof(*ip);
	return true;
}

/* False: not IP, or cut short. *p must be zero: its addresses are map keys. */
static __always_inline bool parse(struct __sk_buff *skb, struct packet *p)
{
	if (skb->protocol == be16(ETH_P_IP))
		return parse_ipv4(skb, p);
	if (skb->protocol == be16(ETH_P_IPV6))
		return parse_ipv6(skb, p);
	return false;
}

/* Length and flags of the TCP header, 0 where there is none. */
static __always_inline void parse_tcp(struct __sk_buff *skb, struct packet *p)
{
	__u32 at = (p->l4_offset & L4_OFFSET_MASK) + TCP_LENGTH_OFFSET;
	__u8 *seen, copy[2];

	if (p->protocol != IPPROTO_TCP || !p->l4_offset)
		return;
	seen = (void *)(long)skb->data + at;
	if ((void *)(seen + sizeof(copy)) > (void *)(long)skb->data_end) {
		if (bpf_skb_load_bytes(skb, at, copy, sizeof(copy)))
			return;
		seen = copy;
	}
	p->tcp_length = (seen[0] >> 4) * 4;
	p->tcp_flags = seen[1];
}

#endif
