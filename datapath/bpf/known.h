/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Whether the mesh knows anything of a network: asked before anything else, so that what concerns nobody costs next to
 * nothing. A bit says "perhaps": of /24 for IPv4, of a hash of /64 for IPv6. datapath/known.py sets them.
 */
#ifndef MESHD_KNOWN_H
#define MESHD_KNOWN_H

#include "maps.h"
#include "parse.h"

static __always_inline bool is_known(__u32 bit)
{
	__u32 at = bit / (8 * sizeof(struct known));
	struct known *known = md_known.lookup(&at);

	return !known || known->bits[bit / 8 % sizeof(*known)] >> bit % 8 & 1;
}

static __always_inline bool is_known4(__be32 address)
{
	return is_known(__builtin_bswap32(address) >> 8);
}

static __always_inline bool is_known6(struct in6_addr *address)
{
	__u32 hash = address->s6_addr32[0] * 0x9e3779b1 ^ address->s6_addr32[1] * 0x85ebca6b;

	return is_known(KNOWN_BITS4 + (hash >> 16));
}

enum known_by { BY_DESTINATION, BY_SOURCE, BY_SOURCE_OR_ICMP };

/* Whether a packet to (from) its address may be the mesh's, or is of ICMP. What cannot be read here may. */
static __always_inline bool may_concern(struct __sk_buff *skb, enum known_by by)
{
	void *l3 = (void *)(long)skb->data + L3_OFFSET, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *six = l3;
	struct iphdr *four = l3;

	if (skb->protocol == be16(ETH_P_IP))
		return (void *)(four + 1) > end || (by == BY_SOURCE_OR_ICMP && four->protocol == IPPROTO_ICMP) ||
		       is_known4(by ? four->saddr : four->daddr);
	if (skb->protocol == be16(ETH_P_IPV6))
		return (void *)(six + 1) > end || (by == BY_SOURCE_OR_ICMP && six->nexthdr == IPPROTO_ICMPV6) ||
		       is_known6(by ? &six->saddr : &six->daddr);
	return false;
}

#endif
