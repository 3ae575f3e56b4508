/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tells user space of verdicts: so many in a moment, and what is not told is counted. */
#ifndef MESHD_EVENTS_H
#define MESHD_EVENTS_H

#include "count.h"
#include "l4.h"

#define EVENT_WINDOW_NS 100000000ULL
#define EVENTS_PER_WINDOW 100 /* on each CPU */

/* bcc has no pinned ring buffer; these are the fields that its rewriter asks for. */
struct md_events_table_t {
	int key;
	__u32 leaf;
	int (*ringbuf_output)(void *, u64, u64);
	void *(*ringbuf_reserve)(u64);
	void (*ringbuf_discard)(void *, u64);
	void (*ringbuf_submit)(void *, u64);
	u64 (*ringbuf_query)(u64);
	u32 max_entries;
};
__attribute__((section("maps/ringbuf:" MD_PINS "/md_events"))) struct md_events_table_t md_events = {
	.max_entries = MD_EVENTS_SIZE};

static __always_inline bool may_tell(__u64 now)
{
	__u32 zero = 0;
	struct limit *limit = md_limit.lookup(&zero);
	__u64 window = now / EVENT_WINDOW_NS;

	if (!limit)
		return false;
	if (limit->window != window) {
		limit->window = window;
		limit->sent = 0;
	}
	return limit->sent++ < EVENTS_PER_WINDOW;
}

static __always_inline void tell(struct __sk_buff *skb, struct packet *p, struct l4 *l4, struct policed *pod,
				 __u32 peer, __u32 reason)
{
	__u64 now = bpf_ktime_get_ns();
	struct event *event = may_tell(now) ? md_events.ringbuf_reserve(sizeof(*event)) : 0;

	if (!event) {
		count(EVENT_SUPPRESSED, skb->len);
		return;
	}
	event->time_ns = now;
	event->reason = reason;
	event->ifindex = skb->ifindex;
	event->subject = pod->identity;
	event->peer = peer;
	__builtin_memcpy(event->source, p->source.word, sizeof(event->source));
	__builtin_memcpy(event->destination, p->destination.word, sizeof(event->destination));
	event->source_port = l4->source_port;
	event->destination_port = l4->policy_port;
	event->family = p->source.family;
	event->protocol = p->protocol;
	event->direction = pod->direction;
	event->pad = 0;
	event->length = skb->len;
	event->pad2 = 0;
	md_events.ringbuf_submit(event, 0);
}

#endif
