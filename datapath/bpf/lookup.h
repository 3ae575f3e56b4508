/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Who is behind an address: the hash of single addresses first, then the trie of CIDRs. */
#ifndef MESHD_LOOKUP_H
#define MESHD_LOOKUP_H

#include "maps.h"

static __always_inline bool same_words(__be32 *a, __be32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline struct peer *lookup_cidr(struct addr_key *address)
{
	struct cidr_key key = {.prefixlen = 32 + 128, .family = address->family};

	if (address->family == FAMILY_V4)
		key.prefixlen = 32 + 32;
	__builtin_memcpy(key.word, address->word, sizeof(key.word));
	return md_cidrs.lookup(&key);
}

static __always_inline struct peer *lookup_peer(struct addr_key *address)
{
	struct peer *peer = md_ipcache.lookup(address);

	return peer ? peer : lookup_cidr(address);
}

static __always_inline bool in_use(__u32 what)
{
	__u32 *used = md_used.lookup(&what);

	return used && *used;
}

static __always_inline void set_in_use(__u32 what)
{
	__u32 one = 1;

	if (!in_use(what))
		md_used.update(&what, &one);
}

static __always_inline struct cfg *lookup_cfg(void)
{
	__u32 zero = 0;

	return md_cfg.lookup(&zero);
}

#endif
