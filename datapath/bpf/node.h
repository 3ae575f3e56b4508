/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Nodes: who an outer address is, and what carries packets to a node. */
#ifndef MESHD_NODE_H
#define MESHD_NODE_H

#include "count.h"
#include "lookup.h"
#include "parse.h"
#include "tunnel.h"

#define IDENTITY_REMOTE_NODE 6

/* bcc declares it with three arguments. */
static long (*redirect_neigh)(__u32 ifindex, struct bpf_redir_neigh *hop, int size, __u64 flags) =
	(void *)BPF_FUNC_redirect_neigh;

/* What carries a packet. */
struct way {
	__u32 ifindex;
	__u16 mtu; /* largest IP packet; 0: no limit */
	bool direct;
};

static __always_inline struct node *lookup_node(struct peer *peer)
{
	struct addr_key key = {.family = peer->flags & PEER_TUNNEL6 ? FAMILY_V6 : FAMILY_V4};

	__builtin_memcpy(key.word, peer->tunnel, sizeof(key.word));
	return md_node.lookup(&key);
}

static __always_inline bool is_direct(struct node *node, __u8 family)
{
	return node->flags & (family == FAMILY_V6 ? NODE_DIRECT6 : NODE_DIRECT4);
}

/* DROP_NONE, or why nothing carries the packet. A node that was not heard of yet has the default tunnel. */
static __always_inline __u32 select_way(struct node *node, struct peer *peer, __u8 family, struct way *way)
{
	struct cfg *cfg;

	if (node && is_direct(node, family)) {
		way->ifindex = node->direct_ifindex;
		way->mtu = node->direct_mtu;
		way->direct = true;
		return DROP_NONE;
	}
	if (node) {
		way->ifindex = node->tunnel_ifindex;
		way->mtu = node->tunnel_mtu;
		return node->flags & NODE_TUNNEL ? DROP_NONE : DROP_UNREACHABLE;
	}
	cfg = lookup_cfg();
	if (!cfg || !cfg->tunnel_ifindex)
		return DROP_NO_TUNNEL;
	way->ifindex = cfg->tunnel_ifindex;
	way->mtu = peer->flags & PEER_TUNNEL6 ? cfg->inner_mtu6 : cfg->inner_mtu4;
	return DROP_NONE;
}

static __always_inline int send_direct(struct node *node, __u8 family, __u32 ifindex)
{
	struct bpf_redir_neigh hop = {};

	if (family == FAMILY_V6) {
		hop.nh_family = 10; /* AF_INET6 */
		__builtin_memcpy(hop.ipv6_nh, node->hop6, sizeof(hop.ipv6_nh));
	} else {
		hop.nh_family = 2; /* AF_INET */
		hop.ipv4_nh = node->hop4;
	}
	return redirect_neigh(ifindex, &hop, sizeof(hop), 0);
}

static __always_inline int carry(struct __sk_buff *skb, struct way *way, struct node *node, struct peer *peer,
				 __u8 family, __u32 identity)
{
	if (way->direct && node)
		return send_direct(node, family, way->ifindex);
	return encap(skb, peer, identity, way->ifindex);
}

/* DROP_NONE if the outer source may speak for `peer`: it is the peer's node, or another one of that cluster. */
static __always_inline __u32 check_origin(struct addr_key *outer, struct peer *peer)
{
	struct node *origin = md_node.lookup(outer), *home;

	if (!origin)
		return DROP_UNKNOWN_NODE;
	if (!(origin->flags & NODE_REMOTE))
		return DROP_WRONG_CLUSTER;
	if (!peer || same_words(outer->word, peer->tunnel))
		return DROP_NONE;
	home = lookup_node(peer);
	return home && home->cluster_id == origin->cluster_id ? DROP_NONE : DROP_WRONG_CLUSTER;
}

/* The source is a node's own address: DROP_NONE if it is one of the cluster of the outer source. */
static __always_inline __u32 check_node(struct addr_key *outer, struct node *source)
{
	struct node *origin = md_node.lookup(outer);

	if (!origin)
		return DROP_UNKNOWN_NODE;
	return origin->flags & NODE_REMOTE && origin->cluster_id == source->cluster_id ? DROP_NONE : DROP_WRONG_CLUSTER;
}

/* A remote node spoke to a pod here, and its packets came from `from`: answers go there. */
static __always_inline void remember_node(struct packet *p, struct addr_key *from)
{
	struct reply_key key = {.pod = p->destination, .node = p->source};
	struct peer peer = {.identity = IDENTITY_REMOTE_NODE, .flags = PEER_REMOTE | PEER_TUNNEL4}, *known;

	if (from->family == FAMILY_V6)
		peer.flags = PEER_REMOTE | PEER_TUNNEL6;
	__builtin_memcpy(peer.tunnel, from->word, sizeof(peer.tunnel));
	known = md_replies.lookup(&key);
	if (known && same_words(known->tunnel, peer.tunnel))
		return;
	set_in_use(USED_REPLIES);
	md_replies.update(&key, &peer);
}

static __always_inline struct peer *lookup_reply(struct packet *p)
{
	struct reply_key key = {.pod = p->source, .node = p->destination};

	return in_use(USED_REPLIES) && md_node.lookup(&p->destination) ? md_replies.lookup(&key) : 0;
}

#endif
