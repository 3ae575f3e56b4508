/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 *   pod A ── connect() ── socket hooks (socket_lb.h): frontend -> backend
 *     │
 *   veth ingress: from_pod
 *     │  anything known of the destination's network (known.h)?  no ──> TC_ACT_UNSPEC: the packet is the CNI's
 *     │  destination still a frontend? it becomes a backend (service_ct.h)
 *     │  destination remote?  no ──> the CNI's
 *     │  source = endpoint of this interface?  no ──> drop
 *     │  destination's cluster withdrawn?  yes ──> drop, ICMP
 *     │  clamp MSS, TTL - 1, what does md_node say of the destination's node?
 *     ├─ tunnel: VNI = identity of A                     direct: redirect_neigh ─┐
 *     ▼                                                                          ▼
 *   md_vxlan ══ underlay ══ md_vxlan                        underlay ── underlay device
 *                             │ ingress: from_tunnel (probes: probe.h)           │ ingress: from_network
 *                             │  is the outer source a node of the source's      │  destination an endpoint here and
 *                             │  cluster, does the VNI fit?  no ──> drop         │  source remote?  no ──> the stack's
 *                             │  destination an endpoint here?                   │
 *                             │  no ──> the stack's, if it is this cluster's     │
 *                             ▼                                                  │
 *                          redirect_peer into pod B  <───────────────────────────┘
 * An answer of a backend comes from the frontend (service_ct.h).
 * With ENDPOINT_STACK the node's stack forwards, so that netfilter sees what pods of other clusters and this one say to
 * each other: from_pod lets it go on to a route to md_vxlan (egress: to_tunnel), from_tunnel and from_network to the pod.
 * What the node itself sends to a remote pod is routed to md_vxlan (egress: to_tunnel) or to the pod's node.
 */
#define BPF_LICENSE GPL

#include <linux/errno.h>

#include "parse.h"
#include "maps.h"
#include "known.h"
#include "count.h"
#include "lookup.h"
#include "mss.h"
#include "too_big.h"
#include "withdrawn.h"
#include "node.h"
#include "probe.h"
#include "socket_lb.h"
#include "service_ct.h"
#include "handover.h"
#include "send.h"
#include "policy.h"

/* A pod of this cluster: the CNI's to reach, and no node. */
static __always_inline bool is_local(struct peer *peer)
{
	return peer && !(peer->flags & PEER_REMOTE) && peer->identity >= IDENTITY_FIRST;
}

static __always_inline int send_from_pod(struct __sk_buff *skb, struct packet *p, struct way *way)
{
	struct peer *peer;

	if (!parse(skb, p))
		return TC_ACT_UNSPEC;
	parse_tcp(skb, p);
	peer = md_ipcache.lookup(&p->destination);
	if (skb->cb[0] != TRANSLATED && (is_ours(peer) || is_local(peer))) {
		to_pod_itself(skb, p);
	} else if (skb->cb[0] != TRANSLATED) {
		if (!to_backend(skb, p))
			return drop(skb, DROP_NO_BACKEND);
		if (p->translated) {
			if (p->looped)
				return return_to_pod(skb, p);
			peer = md_ipcache.lookup(&p->destination);
		}
	}
	if (is_local(peer))
		return TC_ACT_UNSPEC;
	if (!peer)
		peer = lookup_cidr(&p->destination);
	if (!is_ours(peer))
		peer = lookup_reply(p);
	if (!peer)
		return TC_ACT_UNSPEC;
	return send_to_peer(skb, p, way, peer);
}

static __always_inline int judged_from_pod(struct __sk_buff *skb)
{
	struct packet p = {};
	struct way way = {};

	return answered(skb, &p, &way, send_from_pod(skb, &p, &way));
}

/* tc ingress of the host side of a pod's veth. */
int from_pod(struct __sk_buff *skb)
{
	return may_concern(skb, BY_DESTINATION) ? judged_from_pod(skb) : TC_ACT_UNSPEC;
}

static __always_inline int send_from_node(struct __sk_buff *skb)
{
	struct bpf_tunnel_key given = {};
	struct packet p = {};
	struct way way = {};
	struct peer *peer, *self;
	struct node *node;
	__u32 reason;

	/* What from_pod and from_probe send has its key already. */
	if (skb->cb[1] == KEYED || bpf_skb_get_tunnel_key(skb, &given, sizeof(given), 0) != -EINVAL)
		return TC_ACT_UNSPEC;
	if (!parse(skb, &p))
		return drop(skb, DROP_INVALID);
	peer = lookup_peer(&p.destination);
	if (!is_ours(peer))
		return drop(skb, DROP_UNREACHABLE);
	if (peer->flags & PEER_UNREACHABLE)
		return drop(skb, DROP_PEER_WITHDRAWN);
	node = lookup_node(peer);
	reason = select_way(node, peer, p.source.family, &way);
	if (reason)
		return drop(skb, reason);
	self = md_ipcache.lookup(&p.source);
	return carry(skb, &way, node, peer, p.source.family,
		     self && !(self->flags & PEER_REMOTE) ? self->identity : IDENTITY_REMOTE_NODE);
}

/* tc egress of a tunnel device, for what the node's own stack routes there. */
int to_tunnel(struct __sk_buff *skb)
{
	return told(skb, DIRECTION_EGRESS, send_from_node(skb));
}

/* DROP_NONE, or the reason why the source may not be who the tunnel says it is. */
static __always_inline __u32 check_source(struct __sk_buff *skb, struct packet *p, __u32 identity,
					  struct addr_key *outer)
{
	struct peer *peer = md_ipcache.lookup(&p->source);
	struct node *node;
	bool exact = peer;

	if (!peer) {
		node = md_node.lookup(&p->source);
		if (node)
			return check_node(outer, node);
		peer = lookup_cidr(&p->source);
	}
	if (peer && !(peer->flags & PEER_REMOTE))
		return DROP_SOURCE_LOCAL;
	if (!exact)
		count(UNVERIFIED, skb->len);
	else if (identity && peer->identity != identity) /* 0: the sender knew none */
		return DROP_IDENTITY_MISMATCH;
	return check_origin(outer, peer);
}

static __always_inline int deliver(struct __sk_buff *skb, struct packet *p, struct endpoint *endpoint)
{
	int verdict;

	/* redirect_peer passes by policy_in, which hangs on the egress of the host side, before to_pod: so here too. */
	verdict = endpoint->flags & ENDPOINT_POLICED ? police_delivery(skb, p, endpoint) : TC_ACT_UNSPEC;
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	if (in_use(USED_NAT))
		to_frontend(skb, p);
	return hand_over(skb, endpoint);
}

static __always_inline int answer_to_pod(struct __sk_buff *skb)
{
	struct packet p = {};

	if (parse(skb, &p))
		to_frontend(skb, &p);
	return TC_ACT_UNSPEC;
}

/* tc egress of the host side of a pod's veth: what the stack delivers. */
int to_pod(struct __sk_buff *skb)
{
	return in_use(USED_NAT) && may_concern(skb, BY_SOURCE) ? answer_to_pod(skb) : TC_ACT_UNSPEC;
}

/* This cluster's pods without an interface of their own (yet) and this node itself are the stack's to reach. */
static __always_inline int pass_to_stack(struct __sk_buff *skb, struct packet *p)
{
	struct peer *peer = md_ipcache.lookup(&p->destination);
	struct node *node = md_node.lookup(&p->destination);
	__u32 reason = DROP_NO_ENDPOINT;

	if (peer && !(peer->flags & PEER_REMOTE))
		reason = judge_unattached(skb, p, peer->identity);
	else if (node && node->flags & NODE_HERE)
		reason = DROP_NONE;
	if (reason)
		return drop(skb, reason);
	bpf_skb_change_type(skb, PACKET_HOST);
	return TC_ACT_UNSPEC;
}

static __always_inline int receive_from_tunnel(struct __sk_buff *skb)
{
	struct addr_key outer = {};
	struct packet p = {};
	struct endpoint *endpoint;
	__u32 identity, reason;

	if (skb->protocol == be16(ETH_P_PROBE))
		return from_probe(skb);
	if (!received_metadata(skb, &identity, &outer))
		return drop(skb, DROP_NO_TUNNEL_KEY);
	if (!parse(skb, &p))
		return drop(skb, DROP_INVALID);
	reason = check_source(skb, &p, identity, &outer);
	if (reason)
		return drop(skb, reason);
	endpoint = md_endpoint.lookup(&p.destination);
	if (!endpoint)
		return pass_to_stack(skb, &p);
	if (is_for_stack(endpoint, &p.source)) {
		bpf_skb_change_type(skb, PACKET_HOST);
		return TC_ACT_UNSPEC;
	}
	if (identity == IDENTITY_REMOTE_NODE)
		remember_node(&p, &outer);
	return deliver(skb, &p, endpoint);
}

/* tc ingress of a tunnel device. */
int from_tunnel(struct __sk_buff *skb)
{
	return told(skb, DIRECTION_INGRESS, receive_from_tunnel(skb));
}

/* A router on the way speaks of a packet that the endpoint sent past the stack, whose rules would take the answer for one
 * that nobody asked for. */
static __always_inline bool is_about_ours(struct __sk_buff *skb, struct packet *p, struct endpoint *endpoint)
{
	struct packet q = {};
	struct l4 l4 = {};
	__u32 l4_at = 0;

	if (p->protocol != IPPROTO_ICMP && p->protocol != IPPROTO_ICMPV6)
		return false;
	if (!read_l4(skb, p->l4_offset, p->protocol, &l4) || !l4.error || !read_quoted(skb, p, &q, &l4_at))
		return false;
	return same_words(q.source.word, p->destination.word) && is_ours(lookup_peer(&q.destination)) &&
	       !is_for_stack(endpoint, &q.destination);
}

static __always_inline int receive_from_network(struct __sk_buff *skb)
{
	struct packet p = {};
	struct endpoint *endpoint;
	struct node *node;

	if (!parse(skb, &p))
		return TC_ACT_UNSPEC;
	endpoint = md_endpoint.lookup(&p.destination);
	if (!endpoint || p.ttl <= 1)
		return TC_ACT_UNSPEC;
	if (!is_ours(lookup_peer(&p.source))) {
		node = md_node.lookup(&p.source);
		if (node && node->flags & NODE_REMOTE)
			remember_node(&p, &p.source);
		else if (!p.l4_offset || !is_about_ours(skb, &p, endpoint))
			return TC_ACT_UNSPEC;
	} else if (is_for_stack(endpoint, &p.source)) {
		return TC_ACT_UNSPEC;
	}
	decrement_ttl(skb, &p);
	return deliver(skb, &p, endpoint);
}

/* tc ingress of the underlay device: what comes without encapsulation. */
int from_network(struct __sk_buff *skb)
{
	bool may = may_concern(skb, BY_SOURCE_OR_ICMP); /* a router may speak of a packet of the mesh */

	return may ? told(skb, DIRECTION_INGRESS, receive_from_network(skb)) : TC_ACT_UNSPEC;
}
