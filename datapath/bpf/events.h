/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tells user space of verdicts and of drops: so many of each reason in a moment, and what is not told is counted. */
#ifndef MESHD_EVENTS_H
#define MESHD_EVENTS_H

#include "count.h"
#include "l4.h"

#define EVENT_WINDOW_NS 100000000ULL
#define EVENTS_PER_WINDOW 50 /* of each reason, on each CPU: a flood of one does not silence the others */

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

static __always_inline bool may_tell(__u32 reason)
{
	struct limit *limit = md_limit.lookup(&reason);
	__u64 window = bpf_ktime_get_coarse_ns() / EVENT_WINDOW_NS;

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
	struct event *event = may_tell(reason) ? md_events.ringbuf_reserve(sizeof(*event)) : 0;

	if (!event) {
		count(EVENT_SUPPRESSED, skb->len);
		return;
	}
	event->time_ns = bpf_ktime_get_ns();
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
	event->netns = 0;
	md_events.ringbuf_submit(event, 0);
}

/* A socket hook refuses a socket of this network namespace that asked for a frontend. */
static __always_inline void tell_refusal(__u64 netns, struct front_key *front, __u32 reason)
{
	struct event *event = may_tell(reason) ? md_events.ringbuf_reserve(sizeof(*event)) : 0;

	if (!event) {
		count(EVENT_SUPPRESSED, 0);
		return;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = bpf_ktime_get_ns();
	event->reason = reason;
	__builtin_memcpy(event->destination, front->address, sizeof(event->destination));
	event->destination_port = front->port;
	event->family = front->family;
	event->protocol = front->protocol;
	event->direction = DIRECTION_EGRESS;
	event->netns = netns;
	md_events.ringbuf_submit(event, 0);
}

/* A drop that is no policy's; `direction` as the pod sees it. What is no IP packet has no ends. */
static __always_inline void tell_drop(struct __sk_buff *skb, __u8 direction, __u32 reason)
{
	struct policed nobody = {.direction = direction};
	struct packet p = {};
	struct l4 l4 = {};

	if (parse(skb, &p) && p.l4_offset)
		read_l4(skb, p.l4_offset, p.protocol, &l4);
	tell(skb, &p, &l4, &nobody, 0, reason);
}

/* The end of every program. */
static __always_inline int told(struct __sk_buff *skb, __u8 direction, int verdict)
{
	if (verdict < DROPPED)
		return verdict;
	tell_drop(skb, direction, verdict - DROPPED);
	return TC_ACT_SHOT;
}

#endif
