/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Keys and values of the maps of services; datapath/servicelayout.py is the twin. */
#ifndef MESHD_SERVICE_LAYOUT_H
#define MESHD_SERVICE_LAYOUT_H

#include <linux/types.h>

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
	NAT_LOOP = 2,    /* a pod's answer to itself: backend -> frontend's address, client's port */
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

/* Value of md_nat: forward, the backend; reply and loop, the frontend. */
struct nat {
	__be32 address[4];
	__be16 port;
	__u16 first; /* forward: of the number that the connection began with (TCP, SCTP), so that another one is told */
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

#endif
