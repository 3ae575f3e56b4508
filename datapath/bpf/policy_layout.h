/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Keys and values of the maps of policy; datapath/policylayout.py is the twin. */
#ifndef MESHD_POLICY_LAYOUT_H
#define MESHD_POLICY_LAYOUT_H

#include <linux/types.h>

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
	SUBJECT_SHUT_INGRESS = 8, /* an entry that would deny does not fit: nothing new passes */
	SUBJECT_SHUT_EGRESS = 16,
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

/* Key of md_ct4: a connection at the interface of a pod. The pod stands first, so both ways have one key. */
struct ct4_key {
	__be32 pod;
	__be32 peer;
	__be16 pod_port; /* ICMP echo: the identifier, at the side that asked */
	__be16 peer_port;
	__u32 ifindex;
	__u8 protocol;
	__u8 pad[3];
};
_Static_assert(sizeof(struct ct4_key) == 20, "ct4_key");

/* Key of md_ct6. */
struct ct6_key {
	__be32 pod[4];
	__be32 peer[4];
	__be16 pod_port;
	__be16 peer_port;
	__u32 ifindex;
	__u8 protocol;
	__u8 pad[3];
};
_Static_assert(sizeof(struct ct6_key) == 44, "ct6_key");

enum ct_flag {
	CT_REPLIED = 1, /* the other side has answered */
	CT_CLOSING = 2, /* a FIN or RST was seen */
	CT_OUTBOUND = 4, /* the pod sent the first packet */
};

/* Value of md_ct4 and md_ct6. */
struct ct {
	__u64 revision; /* of the subject when the connection was allowed */
	__u32 seen_s;   /* last packet: seconds, from a beginning of the kernel's own */
	__u32 flags;    /* enum ct_flag */
};
_Static_assert(sizeof(struct ct) == 16, "ct");

/* Record of md_events: a verdict on the first packet of a connection, or on each that is dropped; and a socket that was
 * refused before there was a packet, of which the source is not known yet. */
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
	__u64 netns; /* cookie of the socket's network namespace; 0: a packet's event */
};
_Static_assert(sizeof(struct event) == 80, "event");

/* Value of md_limit (per CPU), index is enum drop_reason: how many events of it were sent in this window. */
struct limit {
	__u64 window;
	__u64 sent;
};
_Static_assert(sizeof(struct limit) == 16, "limit");

#endif
