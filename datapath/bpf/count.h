/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Counting by reason: every drop leaves through drop(). */
#ifndef MESHD_COUNT_H
#define MESHD_COUNT_H

#include "maps.h"

static __always_inline void count(__u32 reason, __u32 bytes)
{
	struct counter *counter = md_drops.lookup(&reason);

	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
	}
}

static __always_inline int drop(struct __sk_buff *skb, __u32 reason)
{
	count(reason, skb->len);
	return TC_ACT_SHOT;
}

#endif
