/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 *   pod A ── connect() ── socket hooks (socket_lb.h): frontend -> backend
 *     │
 *   veth ingress: from_pod
 *     │  destination still a frontend? it becomes a backend (service_ct.h)
 *     │  destination remote?  no ──> TC_ACT_UNSPEC: the packet is the CNI's
 *     │  source = endpoint of this interface?  no ──> drop
 *     │  destination's cluster withdrawn?  yes ──> drop, ICMP
 *     │  clamp MSS, TTL - 1, VNI = identity of A
 *     ▼
 *   md_vxlan ══ underlay ══ md_vxlan
 *                             │ ingress: from_tunnel (a probe goes back, or to the daemon that waits for it)
 *                             │  does the VNI fit the source address?  no ──> drop
 *                             │  destination an endpoint here?  no ──> drop
 *                             ▼
 *                          redirect_peer into pod B; an answer comes from the frontend
 */
#define BPF_LICENSE GPL

#include "parse.h"
#include "maps.h"
#include "count.h"
#include "lookup.h"
#include "mss.h"
#include "too_big.h"
#include "withdrawn.h"
#include "tunnel.h"
#include "probe.h"
#include "socket_lb.h"
#include "service_ct.h"
#include "policy.h"

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

/* tc ingress of the host side of a pod's veth. */
int from_pod(struct __sk_buff *skb)
{
	struct packet p = {};
	struct endpoint *source;
	struct peer *peer;
	struct cfg *cfg;
	__u16 inner_mtu;

	if (!parse(skb, &p))
		return TC_ACT_UNSPEC;
	if (!to_backend(skb, &p))
		return drop(skb, DROP_NO_BACKEND);
	peer = lookup_peer(&p.destination);
	if (!is_ours(peer))
		return TC_ACT_UNSPEC;
	source = md_endpoint.lookup(&p.source);
	if (!source || source->ifindex != skb->ifindex)
		return drop(skb, DROP_SPOOFED);
	if (peer->flags & PEER_UNREACHABLE)
		return answer_withdrawn(skb, &p);
	/* The stack answers "time exceeded"; it forwards nothing with that TTL. */
	if (p.ttl <= 1)
		return TC_ACT_UNSPEC;
	cfg = lookup_cfg();
	if (!cfg || !cfg->tunnel_ifindex)
		return drop(skb, DROP_NO_TUNNEL);
	parse_tcp(skb, &p);
	inner_mtu = peer->flags & PEER_TUNNEL6 ? cfg->inner_mtu6 : cfg->inner_mtu4;
	if (is_too_big(skb, &p, inner_mtu))
		return answer_too_big(skb, &p, inner_mtu);
	clamp_mss(skb, &p, inner_mtu);
	decrement_ttl(skb, &p);
	return encap(skb, peer, source->identity, cfg->tunnel_ifindex);
}

/* 0, or the reason why the source may not be who the VNI says it is. */
static __always_inline __u32 check_source(struct __sk_buff *skb, struct packet *p, __u32 identity)
{
	struct peer *peer = md_ipcache.lookup(&p->source);
	bool exact = peer;

	if (!peer)
		peer = lookup_cidr(&p->source);
	if (peer && !(peer->flags & PEER_REMOTE))
		return DROP_SOURCE_LOCAL;
	if (!exact)
		count(SOURCE_UNVERIFIED, skb->len);
	else if (identity && peer->identity != identity) /* 0: the sender knew none */
		return DROP_IDENTITY_MISMATCH;
	return DROP_NONE;
}

static __always_inline int deliver(struct __sk_buff *skb, struct endpoint *endpoint)
{
	__u8 macs[2 * ETH_ALEN];

	__builtin_memcpy(macs, endpoint->mac, ETH_ALEN);
	__builtin_memcpy(macs + ETH_ALEN, endpoint->host_mac, ETH_ALEN);
	bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
	bpf_skb_change_type(skb, PACKET_HOST);
	/* redirect_peer would pass by policy_in, which hangs on the egress of the host side. */
	if (endpoint->flags & ENDPOINT_POLICED)
		return bpf_redirect(endpoint->ifindex, 0);
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

/* tc egress of the host side of a pod's veth: what the stack delivers. */
int to_pod(struct __sk_buff *skb)
{
	struct packet p = {};

	if (parse(skb, &p))
		to_frontend(skb, &p);
	return TC_ACT_UNSPEC;
}

/* tc ingress of md_vxlan. */
int from_tunnel(struct __sk_buff *skb)
{
	struct packet p = {};
	struct endpoint *endpoint;
	__u32 identity, reason;

	if (skb->protocol == be16(ETH_P_PROBE))
		return from_probe(skb);
	if (!received_identity(skb, &identity))
		return drop(skb, DROP_NO_TUNNEL_KEY);
	if (!parse(skb, &p))
		return drop(skb, DROP_INVALID);
	reason = check_source(skb, &p, identity);
	if (reason)
		return drop(skb, reason);
	endpoint = md_endpoint.lookup(&p.destination);
	if (!endpoint)
		return drop(skb, DROP_NO_ENDPOINT);
	to_frontend(skb, &p);
	return deliver(skb, endpoint);
}
