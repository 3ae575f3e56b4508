/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The last step of a packet for a pod of this node. */
#ifndef MESHD_HANDOVER_H
#define MESHD_HANDOVER_H

#include "count.h"
#include "parse.h"
#include "service_ct.h"

/* Into the pod behind the interface, past everything that hangs there. */
static __always_inline int hand_over(struct __sk_buff *skb, struct endpoint *endpoint)
{
	__u8 macs[2 * ETH_ALEN];

	__builtin_memcpy(macs, endpoint->mac, ETH_ALEN);
	__builtin_memcpy(macs + ETH_ALEN, endpoint->host_mac, ETH_ALEN);
	bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
	bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

/* What a pod sends to itself through a service. No policy is about that, as none is where a socket hook translates. */
static __always_inline int return_to_pod(struct __sk_buff *skb, struct packet *p)
{
	struct endpoint *endpoint = md_endpoint.lookup(&p->source);

	if (!endpoint || endpoint->ifindex != skb->ifindex)
		return drop(skb, DROP_SPOOFED);
	loop(skb, p);
	return hand_over(skb, endpoint);
}

#endif
