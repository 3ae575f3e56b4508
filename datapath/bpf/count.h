/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Counting by reason: every drop leaves through drop(), and the program ends with told() (events.h). */
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

/* A verdict of ours, above all of the kernel's: dropped for the reason that is added to it. */
#define DROPPED 0x10000

static __always_inline int drop(struct __sk_buff *skb, __u32 reason)
{
	count(reason, skb->len);
	return DROPPED + reason;
}

/* For a drop that user space was told of already. */
static __always_inline int drop_silently(struct __sk_buff *skb, __u32 reason)
{
	count(reason, skb->len);
	return TC_ACT_SHOT;
}

#endif
