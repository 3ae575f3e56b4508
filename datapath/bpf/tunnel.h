/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The collect-metadata tunnel device: the identity travels as the VNI. */
#ifndef MESHD_TUNNEL_H
#define MESHD_TUNNEL_H

#include "count.h"
#include "lookup.h"

#define TUNNEL_TTL 64
/* In skb->cb[1] of what encap() redirects: to_tunnel lets it pass at once. Wrong only costs the packet: without a key the
 * device drops it. */
#define KEYED 0x6b657964

/* One large packet of so many must not be cut: if the way has become narrower its router says so, and seldom is one
 * lost where it does not. IPv6 is never cut. */
#define WHOLE_FROM 1280
#define WHOLE_ONE_OF 256

static __always_inline bool must_be_whole(struct __sk_buff *skb)
{
	return skb->len > WHOLE_FROM && !(bpf_get_prandom_u32() % WHOLE_ONE_OF);
}

/* Sends by the tunnel device; from that device's own egress the packet just goes on. */
static __always_inline int encap(struct __sk_buff *skb, struct peer *peer, __u32 identity, __u32 tunnel_ifindex)
{
	struct bpf_tunnel_key key = {.tunnel_id = identity, .tunnel_ttl = TUNNEL_TTL};
	/* IPv6 needs the outer checksum: receivers drop zero ones silently. */
	__u64 flags = BPF_F_ZERO_CSUM_TX;

	if (peer->flags & PEER_TUNNEL6) {
		__builtin_memcpy(key.remote_ipv6, peer->tunnel, sizeof(key.remote_ipv6));
		flags = BPF_F_TUNINFO_IPV6;
	} else {
		key.remote_ipv4 = __builtin_bswap32(peer->tunnel[0]);
		if (must_be_whole(skb))
			flags |= BPF_F_DONT_FRAGMENT;
	}
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags))
		return drop(skb, DROP_NO_TUNNEL);
	if (skb->ifindex == tunnel_ifindex)
		return TC_ACT_UNSPEC;
	skb->cb[1] = KEYED;
	return bpf_redirect(tunnel_ifindex, 0);
}

/* The VNI and the outer source of a received packet; false without tunnel metadata. *outer must be zero. */
static __always_inline bool received_metadata(struct __sk_buff *skb, __u32 *identity, struct addr_key *outer)
{
	struct bpf_tunnel_key key = {};

	if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0)) {
		outer->family = FAMILY_V4;
		outer->word[0] = __builtin_bswap32(key.remote_ipv4);
	} else if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6)) {
		outer->family = FAMILY_V6;
		__builtin_memcpy(outer->word, key.remote_ipv6, sizeof(outer->word));
	} else {
		return false;
	}
	*identity = key.tunnel_id;
	return true;
}

#endif
