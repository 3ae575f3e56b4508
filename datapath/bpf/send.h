/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From a pod of this node to one of another cluster: the second half of from_pod, and of policy_out for what goes on. */
#ifndef MESHD_SEND_H
#define MESHD_SEND_H

#include "events.h"
#include "mss.h"
#include "node.h"
#include "too_big.h"
#include "withdrawn.h"

static __always_inline bool is_ours(struct peer *peer)
{
	return peer && peer->flags & PEER_REMOTE && peer->flags & (PEER_TUNNEL4 | PEER_TUNNEL6 | PEER_UNREACHABLE);
}

static __always_inline void decrement_ttl(struct __sk_buff *skb, struct packet *p)
{
	struct { __u8 ttl, protocol; __sum16 check; } word = {.ttl = p->ttl - 1, .protocol = p->protocol};
	__u32 sum = p->check + be16(0x0100); /* RFC 1141; one store is cheaper than a store and a helper */

	if (p->source.family == FAMILY_V6) {
		bpf_skb_store_bytes(skb, L3_OFFSET + offsetof(struct ipv6hdr, hop_limit), &word.ttl, 1, 0);
		return;
	}
	word.check = sum + (sum >= 0xffff);
	bpf_skb_store_bytes(skb, L3_OFFSET + offsetof(struct iphdr, ttl), &word, sizeof(word), 0);
}

/* Between nodes and pods the stack has no way back that strict reverse path filters allow. */
static __always_inline bool is_for_stack(struct endpoint *pod, struct addr_key *other)
{
	return pod->flags & ENDPOINT_STACK && !md_node.lookup(other);
}

/* *p has the flags of TCP if its MSS may have to be clamped. */
static __always_inline int send_to_peer(struct __sk_buff *skb, struct packet *p, struct way *way, struct peer *peer)
{
	struct endpoint *source = md_endpoint.lookup(&p->source);
	struct node *node;
	__u32 reason;

	if (!source || source->ifindex != skb->ifindex)
		return drop(skb, DROP_SPOOFED);
	if (peer->flags & PEER_UNREACHABLE)
		return drop(skb, DROP_PEER_WITHDRAWN);
	/* The stack answers "time exceeded"; it forwards nothing with that TTL. */
	if (p->ttl <= 1)
		return TC_ACT_UNSPEC;
	node = lookup_node(peer);
	reason = select_way(node, peer, p->source.family, way);
	if (reason)
		return drop(skb, reason);
	if (is_too_big(skb, p, way->mtu))
		return drop(skb, DROP_TOO_BIG);
	clamp_mss(skb, p, way->mtu);
	if (is_for_stack(source, &p->destination))
		return TC_ACT_UNSPEC;
	decrement_ttl(skb, p);
	return carry(skb, way, node, peer, p->source.family, source->identity);
}

/* The end of a program that sends for a pod: what is dropped is told, and to the pod too where it can do something. */
static __always_inline int answered(struct __sk_buff *skb, struct packet *p, struct way *way, int verdict)
{
	if (verdict < DROPPED)
		return verdict;
	tell_drop(skb, DIRECTION_EGRESS, verdict - DROPPED);
	if (verdict == DROPPED + DROP_TOO_BIG)
		return answer_too_big(skb, p, way->mtu);
	return verdict == DROPPED + DROP_PEER_WITHDRAWN ? answer_withdrawn(skb, p) : TC_ACT_SHOT;
}

#endif
