/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What an ICMP error quotes: the beginning of the packet that it is about. */
#ifndef MESHD_QUOTED_H
#define MESHD_QUOTED_H

#include "l4.h"

static __always_inline bool quoted4(struct __sk_buff *skb, __u32 at, struct packet *q, __u32 *l4_at)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return false;
	q->source.family = q->destination.family = FAMILY_V4;
	q->source.word[0] = ip.saddr;
	q->destination.word[0] = ip.daddr;
	q->protocol = ip.protocol;
	*l4_at = at + ip.ihl * 4;
	return true;
}

static __always_inline bool quoted6(struct __sk_buff *skb, __u32 at, struct packet *q, __u32 *l4_at)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return false;
	q->source.family = q->destination.family = FAMILY_V6;
	__builtin_memcpy(q->source.word, &ip.saddr, 16);
	__builtin_memcpy(q->destination.word, &ip.daddr, 16);
	q->protocol = ip.nexthdr;
	*l4_at = at + sizeof(ip);
	return true;
}

/* Addresses and protocol of it go to *q, which must be zero, and the offset of its transport header to *l4_at. */
static __always_inline bool read_quoted(struct __sk_buff *skb, struct packet *p, struct packet *q, __u32 *l4_at)
{
	__u32 at = p->l4_offset + ICMP_HEADER;

	return p->source.family == FAMILY_V4 ? quoted4(skb, at, q, l4_at) : quoted6(skb, at, q, l4_at);
}

#endif
