/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Probes of the way between two nodes: a frame of a type of its own inside the tunnel. The program of the other
 * node sends it back, so that the answer says that its tunnel works, whatever its daemon does. One that asks whether its
 * size passes is answered in short: the way back may be narrower, and would have to cut it.
 */
#ifndef MESHD_PROBE_H
#define MESHD_PROBE_H

#include "tunnel.h"

#define ETH_P_PROBE 0x88b5 /* IEEE 802, local experimental; datapath/probe.py has the same */
#define PROBE_REQUEST 1
#define PROBE_REPLY 2
#define PROBE_BYTES 60 /* of the frame, without what fills it up */

/* The one who asked reads the reply from a packet socket on the tunnel device. */
static __always_inline int from_probe(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	__u64 get = 0, set = BPF_F_ZERO_CSUM_TX;
	__u8 op;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &op, sizeof(op)))
		return drop(skb, DROP_INVALID);
	if (op == PROBE_REPLY)
		return TC_ACT_OK;
	if (op != PROBE_REQUEST)
		return drop(skb, DROP_INVALID);
	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0)) {
		get = set = BPF_F_TUNINFO_IPV6;
		if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), get))
			return drop(skb, DROP_NO_TUNNEL_KEY);
	}
	if (skb->len > PROBE_BYTES && bpf_skb_change_tail(skb, PROBE_BYTES, 0))
		return drop(skb, DROP_INVALID);
	op = PROBE_REPLY;
	key.tunnel_ttl = TUNNEL_TTL;
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &op, sizeof(op), 0) ||
	    bpf_skb_set_tunnel_key(skb, &key, sizeof(key), set))
		return drop(skb, DROP_NO_TUNNEL);
	return bpf_redirect(skb->ifindex, 0);
}

#endif
