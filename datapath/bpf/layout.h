/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Layout of every map key and value, with service_layout.h and policy_layout.h: the one truth. datapath/layout.py holds
 * the ctypes twin, proved equal by a unit test, at load and when a pinned map is used again. No #ifdef may change a
 * struct.
 */
#ifndef MESHD_LAYOUT_H
#define MESHD_LAYOUT_H

#include <linux/types.h>

#include "service_layout.h"
#include "policy_layout.h"

/* Part of the name of the folder of pins; raise it with any change of a struct or of a map's type. */
#define LAYOUT_VERSION 1

/* Bits of a VNI: an identity that travels must fit. */
#define IDENTITY_BITS 24

enum family {
	FAMILY_V4 = 4,
	FAMILY_V6 = 6,
};

/* Key of md_ipcache and md_endpoint: an address. IPv4 is in word[0], the other words are 0. */
struct addr_key {
	__u8 family; /* enum family */
	__u8 pad[3];
	__be32 word[4];
};
_Static_assert(sizeof(struct addr_key) == 20, "addr_key");

/* Key of md_cidrs (LPM trie): prefixlen counts the 32 bits of family and pad too. */
struct cidr_key {
	__u32 prefixlen;
	__u8 family; /* enum family */
	__u8 pad[3];
	__be32 word[4];
};
_Static_assert(sizeof(struct cidr_key) == 24, "cidr_key");

/* Bits of md_known: one for each /24 of IPv4, then one for each hash of an IPv6 /64. */
#define KNOWN_BITS4 (1 << 24)
#define KNOWN_BITS6 (1 << 16)

/* Value of md_known: 64 bits of all, in their order. */
struct known {
	__u8 bits[8];
};
_Static_assert(sizeof(struct known) == 8, "known");

enum peer_flag {
	PEER_REMOTE = 1,  /* belongs to another cluster */
	PEER_TUNNEL4 = 2, /* tunnel[0] is the tunnel endpoint's IPv4 address */
	PEER_TUNNEL6 = 4, /* tunnel[0..3] is the tunnel endpoint's IPv6 address */
	PEER_UNREACHABLE = 8, /* its cluster is withdrawn: known, but nothing is sent there */
};

/* Value of md_ipcache and md_cidrs: who an address is and which node carries it. */
struct peer {
	__u32 identity; /* 0: none known */
	__u32 flags;    /* enum peer_flag */
	__be32 tunnel[4];
};
_Static_assert(sizeof(struct peer) == 24, "peer");

enum node_flag {
	NODE_TUNNEL = 1,  /* tunnel_ifindex is the device that sends to it */
	NODE_DIRECT4 = 2, /* IPv4 packets go to hop4 as they are */
	NODE_DIRECT6 = 4, /* IPv6 packets go to hop6 as they are */
	NODE_REMOTE = 8,  /* of another cluster */
	NODE_HERE = 16,   /* this node itself */
};

/* Value of md_node, key is an address of the node: whose it is, and the one place that decides what carries packets
 * there. Without a flag for a packet it is dropped. */
struct node {
	__u32 cluster_id;
	__u32 flags; /* enum node_flag */
	__u32 tunnel_ifindex;
	__u32 direct_ifindex;
	__u16 tunnel_mtu; /* largest IP packet that one tunnel packet carries; 0: no limit */
	__u16 direct_mtu; /* of the direct device; 0: no limit */
	__be32 hop4;
	__be32 hop6[4];
};
_Static_assert(sizeof(struct node) == 40, "node");

/* Key of md_replies: a remote node that spoke to a pod of this node. */
struct reply_key {
	struct addr_key pod;
	struct addr_key node;
};
_Static_assert(sizeof(struct reply_key) == 40, "reply_key");

enum endpoint_flag {
	ENDPOINT_POLICED = 1, /* a policy holds: what is delivered past its interface is judged before */
	ENDPOINT_STACK = 2,   /* what it and other clusters' pods say passes the node's stack, and its netfilter rules */
};

/* Value of md_endpoint: a pod of this node that has an interface of its own. */
struct endpoint {
	__u32 ifindex;  /* host side: where from_pod is attached and packets are delivered */
	__u32 identity; /* becomes the VNI; 0: none known */
	__u8 mac[6];    /* of the pod */
	__u8 host_mac[6]; /* of the host side */
	__u32 flags;    /* enum endpoint_flag */
};
_Static_assert(sizeof(struct endpoint) == 24, "endpoint");

/* Value of md_drops (per CPU), index is enum drop_reason. */
struct counter {
	__u64 packets;
	__u64 bytes; /* 0 where a socket hook counted */
};
_Static_assert(sizeof(struct counter) == 16, "counter");

/* Index of md_used: maps that the programs fill, and that most nodes never need. */
enum used {
	USED_NAT = 0,
	USED_REPLIES = 1,
	USED_LOOP = 2, /* of md_nat too: a pod reached itself through a frontend */
};

/* Value of md_cfg[0]: what the daemon tells the programs about this node. */
struct cfg {
	__u32 tunnel_ifindex; /* md_vxlan; 0: not there yet */
	__u16 inner_mtu4;     /* largest IP packet that one IPv4-underlay tunnel packet carries; 0: no limit */
	__u16 inner_mtu6;     /* the same over an IPv6 underlay */
	__u64 node_netns;     /* cookie of the network namespace whose sockets are left alone; 0: none */
};
_Static_assert(sizeof(struct cfg) == 16, "cfg");

#endif
