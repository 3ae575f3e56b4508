/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Which backend of a frontend gets a new connection:
 *
 *   the one that the client had last      SVC_AFFINITY: md_aff, while md_affm says that it may stay there
 *   else by the client's hash             SVC_MAGLEV: md_maglev, the same on every node
 *   else by a random slot                 md_svc4, md_svc6; a weighted slot may send on to its alias
 *
 * Maps change under us: a number without its backend, or a slot that is gone, leads to the next attempt.
 */
#ifndef MESHD_SERVICE_H
#define MESHD_SERVICE_H

#include "maps.h"

#define PICK_ATTEMPTS 4
#define NS_PER_S 1000000000ULL
#define CHANCE_MASK 0xffff

/* Who asks: `word` and `kind` for session affinity, `hash` for Maglev. */
struct client {
	__be32 word[4];
	__u32 hash;
	__u8 kind; /* enum client_kind */
};

/* The mixer of MurmurHash3. */
static __always_inline __u32 mix(__u32 h)
{
	h ^= h >> 16;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	return h ^ (h >> 16);
}

static __always_inline void aff_key_of(struct front_key *front, struct client *client, struct aff_key *key)
{
	__builtin_memcpy(key->client, client->word, sizeof(key->client));
	__builtin_memcpy(key->address, front->address, sizeof(key->address));
	key->port = front->port;
	key->protocol = front->protocol;
	key->family = front->family;
	key->kind = client->kind;
}

/* The number of the backend that the client had last, 0 if there is none or it may not stay. */
static __always_inline __u32 last_backend(struct front_key *front, struct client *client, __u32 timeout_s)
{
	struct aff_key key = {};
	struct affm_key member = {};
	struct aff *last;
	__u64 now;

	aff_key_of(front, client, &key);
	last = md_aff.lookup(&key);
	if (!last)
		return 0;
	now = bpf_ktime_get_ns();
	if (now - last->used_ns > timeout_s * NS_PER_S)
		return 0;
	__builtin_memcpy(member.address, front->address, sizeof(member.address));
	member.port = front->port;
	member.protocol = front->protocol;
	member.family = front->family;
	member.backend = last->backend;
	if (!md_affm.lookup(&member))
		return 0;
	last->used_ns = now;
	return last->backend;
}

static __always_inline void remember_backend(struct front_key *front, struct client *client, __u32 backend)
{
	struct aff_key key = {};
	struct aff last = {.backend = backend};

	aff_key_of(front, client, &key);
	last.used_ns = bpf_ktime_get_ns();
	md_aff.update(&key, &last);
}

static __always_inline __u32 maglev_backend(struct front_key *front, __u32 hash)
{
	struct maglev *table;
	__u32 zero = 0;
	void *inner = md_maglev.lookup(front);

	if (!inner)
		return 0;
	table = bpf_map_lookup_elem_(inner, &zero);
	if (!table)
		return 0;
	hash %= MD_MAGLEV_ENTRIES;
	asm volatile("" : "+r"(hash)); /* else the check is optimised away, and the verifier misses it */
	return hash < MD_MAGLEV_ENTRIES ? table->backend[hash] : 0;
}

static __always_inline __u16 random_slot(__u16 count)
{
	return 1 + (((__u64)bpf_get_prandom_u32() * count) >> 32);
}

static __always_inline bool takes_alias(struct svc *slot)
{
	return slot->count && (bpf_get_prandom_u32() & CHANCE_MASK) < slot->count;
}

/* Slot 0 is the frontend itself. `family` is a constant wherever this is used: only one half remains. */
static __always_inline struct svc *lookup_slot(struct front_key *front, __u8 family, __u16 slot)
{
	if (family == FAMILY_V4) {
		struct svc4_key key = {
			.address = front->address[0], .port = front->port, .slot = slot, .protocol = front->protocol,
		};

		return md_svc4.lookup(&key);
	} else {
		struct svc6_key key = {.port = front->port, .slot = slot, .protocol = front->protocol};

		__builtin_memcpy(key.address, front->address, sizeof(key.address));
		return md_svc6.lookup(&key);
	}
}

/* An alias that is just coming or going does not count. */
static __always_inline __u32 random_backend(struct front_key *front, __u8 family, __u16 count)
{
	struct svc *slot = lookup_slot(front, family, random_slot(count)), *alias = 0;

	if (slot && takes_alias(slot))
		alias = lookup_slot(front, family, slot->flags);
	if (alias)
		return alias->backend;
	return slot ? slot->backend : 0;
}

/* Where the backend with the number in *chosen is; false if there is none. */
static __always_inline bool locate_backend(__u8 family, struct nat *chosen)
{
	__u32 number = chosen->backend;

	if (family == FAMILY_V4) {
		struct be4 *backend = md_be4.lookup(&number);

		if (!backend)
			return false;
		chosen->address[0] = backend->address;
		chosen->port = backend->port;
	} else {
		struct be6 *backend = md_be6.lookup(&number);

		if (!backend)
			return false;
		__builtin_memcpy(chosen->address, backend->address, sizeof(chosen->address));
		chosen->port = backend->port;
	}
	return true;
}

/* A backend for the client of the frontend; false if it has none. */
static __always_inline bool select_backend(struct front_key *front, __u8 family, struct client *client,
					   struct nat *chosen)
{
	struct svc *svc;

	for (int i = 0; i < PICK_ATTEMPTS; i++) {
		svc = lookup_slot(front, family, 0);
		if (!svc || !svc->count)
			return false;
		if (svc->flags & SVC_AFFINITY && i == 0) {
			chosen->backend = last_backend(front, client, svc->backend);
			if (chosen->backend && locate_backend(family, chosen))
				return true;
		}
		chosen->backend = 0;
		if (svc->flags & SVC_MAGLEV && i < 2)
			chosen->backend = maglev_backend(front, client->hash);
		if (!chosen->backend)
			chosen->backend = random_backend(front, family, svc->count);
		if (!locate_backend(family, chosen))
			continue;
		if (svc->flags & SVC_AFFINITY)
			remember_backend(front, client, chosen->backend);
		return true;
	}
	return false;
}

#endif
