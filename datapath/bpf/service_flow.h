/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* md_nat: which backend a flow of a pod has that is translated per packet, and how its answers come. */
#ifndef MESHD_SERVICE_FLOW_H
#define MESHD_SERVICE_FLOW_H

#include "lookup.h"
#include "rewrite.h"
#include "service.h"

static __always_inline void nat_key_of(struct packet *p, struct ports *ports, __u8 direction, struct nat_key *key)
{
	__builtin_memcpy(key->source, p->source.word, sizeof(key->source));
	__builtin_memcpy(key->destination, p->destination.word, sizeof(key->destination));
	key->source_port = ports->source;
	key->destination_port = ports->destination;
	key->protocol = p->protocol;
	key->family = p->source.family;
	key->direction = direction;
}

/* What is there for ports that are used again mostly says the same: writing over what no address is in saves having
 * another entry, linking it and letting the old one go. */
static __always_inline void remember_nat(struct nat_key *key, struct nat *nat)
{
	struct nat *held = md_nat.lookup(key);

	if (held && held->port == nat->port && same_words(held->address, nat->address)) {
		held->backend = nat->backend;
		held->first = nat->first;
		return;
	}
	md_nat.update(key, nat);
}

/* The key of a flow of the pod becomes that of its answers: in place, as the stack has no room for both. */
static __always_inline void turn(struct nat_key *key, struct nat *nat)
{
	__be16 client_port = key->source_port;
	bool loops = same_words(nat->address, key->source);

	if (!loops)
		__builtin_memcpy(key->destination, key->source, sizeof(key->destination));
	__builtin_memcpy(key->source, nat->address, sizeof(key->source));
	key->source_port = nat->port;
	key->destination_port = client_port;
	key->direction = loops ? NAT_LOOP : NAT_REPLY;
}

/* *key is that of the answers afterwards. */
static __always_inline void remember_flow(struct nat_key *key, struct nat *nat)
{
	struct nat frontend = {.port = key->destination_port, .backend = nat->backend};

	__builtin_memcpy(frontend.address, key->destination, sizeof(frontend.address));
	set_in_use(USED_NAT);
	remember_nat(key, nat);
	turn(key, nat);
	if (key->direction == NAT_LOOP)
		set_in_use(USED_LOOP);
	remember_nat(key, &frontend);
}

/* The pod speaks to this address itself, with ports that it used through a frontend before: that flow is over, and
 * answers stay as they are. */
static __always_inline void forget_flow(struct packet *p, struct ports *ports)
{
	struct nat_key key = {};
	struct nat *known;
	struct nat frontend;

	__builtin_memcpy(key.source, p->destination.word, sizeof(key.source));
	__builtin_memcpy(key.destination, p->source.word, sizeof(key.destination));
	key.source_port = ports->destination;
	key.destination_port = ports->source;
	key.protocol = p->protocol;
	key.family = p->source.family;
	key.direction = NAT_REPLY;
	known = md_nat.lookup(&key);
	if (!known)
		return;
	__builtin_memcpy(&frontend, known, sizeof(frontend));
	md_nat.delete(&key);
	nat_key_of(p, ports, NAT_FORWARD, &key);
	__builtin_memcpy(key.destination, frontend.address, sizeof(key.destination));
	key.destination_port = frontend.port;
	md_nat.delete(&key);
}

#endif
