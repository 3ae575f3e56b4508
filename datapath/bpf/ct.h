/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Connection tracking at the interface of a pod that a policy holds for: what a connection was allowed by, so that
 * its replies pass and its packets are not judged again while nothing changed.
 */
#ifndef MESHD_CT_H
#define MESHD_CT_H

#include "l4.h"
#include "maps.h"

/* Seconds without a packet after which a connection is forgotten. */
#define CT_OPENING_S 60
#define CT_CLOSING_S 30
#define CT_TALKING_S 180
#define CT_ESTABLISHED_S 8000

/* Of the machine. The kernel's count of ticks is read without a call; MD_HZ of them make a second. */
static __always_inline __u32 seconds(void)
{
	return bpf_jiffies64() / MD_HZ;
}

/* Both keys, of which the packet's family uses one. `outbound`: the pod is the packet's source. */
static __always_inline void key4(struct ct4_key *key, struct packet *p, struct l4 *l4, __u32 ifindex, bool outbound)
{
	key->pod = outbound ? p->source.word[0] : p->destination.word[0];
	key->peer = outbound ? p->destination.word[0] : p->source.word[0];
	key->pod_port = outbound ? l4->source_port : l4->destination_port;
	key->peer_port = outbound ? l4->destination_port : l4->source_port;
	key->ifindex = ifindex;
	key->protocol = p->protocol;
}

static __always_inline void key6(struct ct6_key *key, struct packet *p, struct l4 *l4, __u32 ifindex, bool outbound)
{
	__builtin_memcpy(key->pod, outbound ? p->source.word : p->destination.word, 16);
	__builtin_memcpy(key->peer, outbound ? p->destination.word : p->source.word, 16);
	key->pod_port = outbound ? l4->source_port : l4->destination_port;
	key->peer_port = outbound ? l4->destination_port : l4->source_port;
	key->ifindex = ifindex;
	key->protocol = p->protocol;
}

static __always_inline __u32 ct_patience_s(struct ct *ct, __u8 protocol)
{
	if (ct->flags & CT_CLOSING)
		return CT_CLOSING_S;
	if (!(ct->flags & CT_REPLIED))
		return CT_OPENING_S;
	return protocol == IPPROTO_TCP ? CT_ESTABLISHED_S : CT_TALKING_S;
}

/* The entry of the packet's connection, whoever began it, if it still lives. */
static __always_inline struct ct *ct_find(struct packet *p, struct l4 *l4, __u32 ifindex, bool outbound, __u32 now_s)
{
	struct ct *ct;

	if (p->source.family == FAMILY_V4) {
		struct ct4_key key = {};

		key4(&key, p, l4, ifindex, outbound);
		ct = md_ct4.lookup(&key);
	} else {
		struct ct6_key key = {};

		key6(&key, p, l4, ifindex, outbound);
		ct = md_ct6.lookup(&key);
	}
	if (ct && now_s - ct->seen_s > ct_patience_s(ct, p->protocol))
		ct = 0;
	asm volatile("" : "+r"(ct)); /* the verifier wants each caller's check to be of the pointer itself */
	return ct;
}

/* Does the packet go the other way than the first one of its connection? */
static __always_inline bool ct_is_reply(struct ct *ct, bool outbound)
{
	return outbound != !!(ct->flags & CT_OUTBOUND);
}

/* Notes that a packet of it was seen. */
static __always_inline void ct_see(struct ct *ct, struct l4 *l4, __u32 flags, __u32 now_s)
{
	if (l4->tcp_flags & (TCP_FIN | TCP_RST))
		flags |= CT_CLOSING;
	if ((ct->flags & flags) != flags)
		ct->flags |= flags;
	if (ct->seen_s != now_s)
		ct->seen_s = now_s;
}

/* A port that is used again has its entry written over: none has to be had, linked, and the old one let go. */
static __always_inline void ct_begin(struct packet *p, struct l4 *l4, __u32 ifindex, bool outbound, __u64 revision,
				     __u32 now_s)
{
	struct ct ct = {.revision = revision, .seen_s = now_s, .flags = outbound ? CT_OUTBOUND : 0}, *held;

	if (p->source.family == FAMILY_V4) {
		struct ct4_key key = {};

		key4(&key, p, l4, ifindex, outbound);
		held = md_ct4.lookup(&key);
		if (held)
			*held = ct;
		else
			md_ct4.update(&key, &ct);
	} else {
		struct ct6_key key = {};

		key6(&key, p, l4, ifindex, outbound);
		held = md_ct6.lookup(&key);
		if (held)
			*held = ct;
		else
			md_ct6.update(&key, &ct);
	}
}

static __always_inline void ct_end(struct packet *p, struct l4 *l4, __u32 ifindex, bool outbound)
{
	if (p->source.family == FAMILY_V4) {
		struct ct4_key key = {};

		key4(&key, p, l4, ifindex, outbound);
		md_ct4.delete(&key);
	} else {
		struct ct6_key key = {};

		key6(&key, p, l4, ifindex, outbound);
		md_ct6.delete(&key);
	}
}

#endif
