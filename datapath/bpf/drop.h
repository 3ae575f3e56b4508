/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Why a packet or a connection was dropped. Append only: a number keeps its meaning for ever. */
#ifndef MESHD_DROP_H
#define MESHD_DROP_H

enum drop_reason {
	DROP_NONE = 0,
	DROP_INVALID = 1,           /* the headers are cut short or contradict each other */
	DROP_SPOOFED = 2,           /* a pod sent to the mesh from an address that is not its own */
	DROP_NO_TUNNEL = 3,         /* md_cfg names no tunnel device yet, or the kernel refused the tunnel key */
	DROP_NO_TUNNEL_KEY = 4,     /* came by the tunnel device without tunnel metadata */
	DROP_SOURCE_LOCAL = 5,      /* came by the tunnel with a source address of this cluster */
	DROP_IDENTITY_MISMATCH = 6, /* the VNI is not the identity that the source address has */
	UNVERIFIED = 7,             /* no ipcache entry for the source yet: counted, and passed on to policy if there is one */
	DROP_NO_ENDPOINT = 8,       /* came by the tunnel for an address that is no endpoint here */
	DROP_NO_BACKEND = 9,        /* the frontend has no backend: the connection was refused */
	DROP_TOO_BIG = 10,          /* larger than the tunnel carries; the sender was told so by ICMP */
	DROP_PEER_WITHDRAWN = 11,   /* the destination's cluster is dead or lost; the sender was told so by ICMP */
	DROP_POLICY_DENIED = 12,    /* a rule of a policy denies it */
	DROP_POLICY_CLOSED = 13,    /* a policy closes this direction, and no rule allows it */
	POLICY_AUDITED = 14,        /* a policy would have dropped it: counted, but passed on */
	EVENT_SUPPRESSED = 15,      /* not told to user space: too many in this moment, or nobody reads; counted */
	DROP_UNREACHABLE = 16,      /* md_node says that nothing carries packets to the destination's node */
	DROP_UNKNOWN_NODE = 17,     /* came by the tunnel from an address that is no node's */
	DROP_WRONG_CLUSTER = 18,    /* came by the tunnel from a node of another cluster than the source's */
	DROP_POLICY_SHUT = 19,      /* what the policy denies does not fit into a map, or is not known yet: nothing passes */
	DROP_SOURCE_UNVERIFIED = 20, /* no ipcache entry for the source yet, and a policy selects the destination */
	DROP_REASONS,
};

#endif
