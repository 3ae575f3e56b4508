/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Layout of every map key and value: the one truth. datapath/layout.py holds the ctypes twin, proved
 * equal by a unit test, at load and when a pinned map is used again. No #ifdef may change a struct here.
 */
#ifndef MESHD_LAYOUT_H
#define MESHD_LAYOUT_H

#include <linux/types.h>

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

/* Key of md_svc4: a frontend (slot 0) or its n-th reference to a backend (slot n). */
struct svc4_key {
	__be32 address;
	__be16 port;
	__u16 slot;
	__u8 protocol; /* IPPROTO_* */
	__u8 scope;    /* 0; later: traffic policies */
	__u8 pad[2];
};
_Static_assert(sizeof(struct svc4_key) == 12, "svc4_key");

/* Key of md_svc6. */
struct svc6_key {
	__be32 address[4];
	__be16 port;
	__u16 slot;
	__u8 protocol;
	__u8 scope;
	__u8 pad[2];
};
_Static_assert(sizeof(struct svc6_key) == 24, "svc6_key");

enum svc_flag {
	SVC_AFFINITY = 1, /* a client stays with its backend */
	SVC_MAGLEV = 2,   /* md_maglev has a table */
	SVC_WEIGHTED = 4, /* slots have aliases */
};

/* Value of md_svc4 and md_svc6. */
struct svc {
	__u32 backend; /* slot n: key in md_be4 or md_be6; slot 0: how long a client stays with its backend, seconds */
	__u16 count;   /* slot 0: how many slots follow; 0: connections are refused; slot n: chance of alias, of 65536 */
	__u16 flags;   /* slot 0: enum svc_flag; slot n: the slot that is its alias */
};
_Static_assert(sizeof(struct svc) == 8, "svc");

/* Value of md_be4, key is the backend's number (never 0). */
struct be4 {
	__be32 address;
	__be16 port;
	__u8 protocol;
	__u8 flags; /* 0; later: state */
};
_Static_assert(sizeof(struct be4) == 8, "be4");

/* Value of md_be6. */
struct be6 {
	__be32 address[4];
	__be16 port;
	__u8 protocol;
	__u8 flags;
};
_Static_assert(sizeof(struct be6) == 20, "be6");

/* Key of md_maglev: a frontend. IPv4 is in address[0], the other words are 0. */
struct front_key {
	__be32 address[4];
	__be16 port;
	__u8 protocol;
	__u8 family; /* enum family */
};
_Static_assert(sizeof(struct front_key) == 20, "front_key");

/* Key of md_affm: a backend that clients of the frontend may stay with. */
struct affm_key {
	__be32 address[4];
	__be16 port;
	__u8 protocol;
	__u8 family;
	__u32 backend;
};
_Static_assert(sizeof(struct affm_key) == 24, "affm_key");

enum client_kind {
	CLIENT_NETNS = 1,   /* client[0..1] is the cookie of the socket's network namespace: a pod */
	CLIENT_ADDRESS = 2, /* client is the packet's source address */
};

/* Key of md_aff: a client of a frontend. */
struct aff_key {
	__be32 client[4];
	__be32 address[4];
	__be16 port;
	__u8 protocol;
	__u8 family;
	__u8 kind; /* enum client_kind */
	__u8 pad[3];
};
_Static_assert(sizeof(struct aff_key) == 40, "aff_key");

/* Value of md_aff: the backend that the client had last. */
struct aff {
	__u64 used_ns; /* since boot */
	__u32 backend;
	__u32 pad;
};
_Static_assert(sizeof(struct aff) == 16, "aff");

enum nat_direction {
	NAT_FORWARD = 0, /* client -> frontend */
	NAT_REPLY = 1,   /* backend -> client */
};

/* Key of md_nat: a flow that is translated per packet, as it is before. IPv4 is in the first word of an address. */
struct nat_key {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 family;    /* enum family */
	__u8 direction; /* enum nat_direction */
	__u8 pad;
};
_Static_assert(sizeof(struct nat_key) == 40, "nat_key");

/* Value of md_nat: forward, the backend; reply, the frontend. */
struct nat {
	__be32 address[4];
	__be16 port;
	__u8 pad[2];
	__u32 backend; /* its number */
};
_Static_assert(sizeof(struct nat) == 24, "nat");

/* Key of md_rev4: a socket and the backend that it was sent to. */
struct rev4_key {
	__u64 cookie;
	__be32 address;
	__be16 port;
	__u8 pad[2];
};
_Static_assert(sizeof(struct rev4_key) == 16, "rev4_key");

/* Value of md_rev4: the frontend that the program asked for. */
struct rev4 {
	__be32 address;
	__be16 port;
	__u8 pad[2];
};
_Static_assert(sizeof(struct rev4) == 8, "rev4");

/* Key of md_rev6. */
struct rev6_key {
	__u64 cookie;
	__be32 address[4];
	__be16 port;
	__u8 pad[6];
};
_Static_assert(sizeof(struct rev6_key) == 32, "rev6_key");

/* Value of md_rev6. */
struct rev6 {
	__be32 address[4];
	__be16 port;
	__u8 pad[2];
};
_Static_assert(sizeof(struct rev6) == 20, "rev6");

enum direction {
	DIRECTION_INGRESS = 0,
	DIRECTION_EGRESS = 1,
};

/* Value of md_iface, key is the host side's ifindex: whose interface it is. Only of pods that a policy holds for. */
struct iface {
	__u32 identity;
};
_Static_assert(sizeof(struct iface) == 4, "iface");

enum subject_flag {
	SUBJECT_CLOSED_INGRESS = 1, /* what no entry allows is denied */
	SUBJECT_CLOSED_EGRESS = 2,
	SUBJECT_AUDIT = 4, /* what is denied is told, and passes */
};

/* Value of md_subject, key is the identity of pods of this node: what holds for them. No entry: no policy does. */
struct subject {
	__u64 revision; /* another one when an entry of md_policy changed: tracked connections are judged again */
	__u32 flags;    /* enum subject_flag */
	__u32 pad;
};
_Static_assert(sizeof(struct subject) == 16, "subject");

/* Key of md_policy (LPM trie). prefixlen counts from `subject`: 72 bits, and 8 for the protocol, and those of the port. */
struct policy_key {
	__u32 prefixlen;
	__u32 subject;
	__u32 peer;     /* identity of the other side; 0: anybody */
	__u8 direction; /* enum direction */
	__u8 protocol;  /* IPPROTO_* */
	__be16 port;    /* of the destination; ICMP: the type */
};
_Static_assert(sizeof(struct policy_key) == 16, "policy_key");

enum verdict {
	VERDICT_NONE = 0,
	VERDICT_ALLOW = 1,
	VERDICT_DENY = 2,
};

/* Value of md_policy. */
struct policy_entry {
	__u32 verdict; /* enum verdict */
};
_Static_assert(sizeof(struct policy_entry) == 4, "policy_entry");

/* Value of md_outside, key is struct cidr_key: who an address is that no cluster has announced. */
struct outside {
	__u32 identity;
};
_Static_assert(sizeof(struct outside) == 4, "outside");

/* Key of md_ct4: a connection as its first packet had it, seen at the interface of a pod. */
struct ct4_key {
	__be32 source;
	__be32 destination;
	__be16 source_port; /* ICMP echo: the identifier, at the side that asked */
	__be16 destination_port;
	__u32 ifindex;
	__u8 protocol;
	__u8 pad[3];
};
_Static_assert(sizeof(struct ct4_key) == 20, "ct4_key");

/* Key of md_ct6. */
struct ct6_key {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u32 ifindex;
	__u8 protocol;
	__u8 pad[3];
};
_Static_assert(sizeof(struct ct6_key) == 44, "ct6_key");

enum ct_flag {
	CT_REPLIED = 1, /* the other side has answered */
	CT_CLOSING = 2, /* a FIN or RST was seen */
};

/* Value of md_ct4 and md_ct6. */
struct ct {
	__u64 revision; /* of the subject when the connection was allowed */
	__u32 seen_s;   /* last packet: seconds since the machine started */
	__u32 flags;    /* enum ct_flag */
};
_Static_assert(sizeof(struct ct) == 16, "ct");

/* Record of md_events: a verdict on the first packet of a connection, or on each that is dropped. */
struct event {
	__u64 time_ns;  /* since the machine started */
	__u32 reason;   /* enum drop_reason; DROP_NONE: a new connection was allowed */
	__u32 ifindex;  /* of the pod that was asked for */
	__u32 subject;  /* its identity */
	__u32 peer;     /* identity of the other side */
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port; /* ICMP: the type */
	__u8 family;
	__u8 protocol;
	__u8 direction;
	__u8 pad;
	__u32 length; /* of the packet, bytes */
	__u32 pad2;
};
_Static_assert(sizeof(struct event) == 72, "event");

/* Value of md_limit[0] (per CPU): how many events were sent in this window. */
struct limit {
	__u64 window;
	__u64 sent;
};
_Static_assert(sizeof(struct limit) == 16, "limit");

/* Value of md_drops (per CPU), index is enum drop_reason. */
struct counter {
	__u64 packets;
	__u64 bytes; /* 0 where a socket hook counted */
};
_Static_assert(sizeof(struct counter) == 16, "counter");

/* Value of md_cfg[0]: what the daemon tells the programs about this node. */
struct cfg {
	__u32 tunnel_ifindex; /* md_vxlan; 0: not there yet */
	__u16 inner_mtu4;     /* largest IP packet that one IPv4-underlay tunnel packet carries; 0: no limit */
	__u16 inner_mtu6;     /* the same over an IPv6 underlay */
	__u64 node_netns;     /* cookie of the network namespace whose sockets are left alone; 0: none */
};
_Static_assert(sizeof(struct cfg) == 16, "cfg");

#endif
