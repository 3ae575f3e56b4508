/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 *   pod ── veth ── ingress: policy_out, then from_pod             stack ── egress: to_pod, then policy_in ── veth ── pod
 *                                                    tunnel or underlay ── deliver: police_delivery ── redirect_peer ─┘
 *
 *   reply of a tracked connection, or about one?   pass
 *   tracked, and nothing changed since?            pass
 *   md_policy for (pod, peer) and (pod, anybody):  deny in either: drop; allow in either: pass, and track it
 *   neither:                                       drop if the direction is closed, else pass
 *
 * Both hang only on interfaces of pods that a policy holds for. Later fragments pass: without the first nobody can put
 * them together. An IPv6 packet with extension headers has no ports that we see: only rules without ports allow it.
 */
#ifndef MESHD_POLICY_H
#define MESHD_POLICY_H

#include "ct.h"
#include "events.h"
#include "handover.h"
#include "known.h"
#include "lookup.h"
#include "quoted.h"
#include "send.h"
#include "service_ct.h"

#define IDENTITY_WORLD 2
#define IDENTITY_REMOTE_HOST 6
#define IDENTITY_FIRST 256
#define IDENTITY_UNVERIFIED 0xffffffff /* no identity has so many bits */
#define POLICY_PREFIX_MAX 96

/* Who the other side is, by its address alone: what a sender says of itself in the VNI is not asked. */
static __always_inline __u32 identity_of(struct addr_key *address)
{
	struct cidr_key key = {.prefixlen = 32 + 128, .family = address->family};
	struct peer *peer = md_ipcache.lookup(address);
	struct outside *outside;

	/* Nobody but this cluster gives reserved identities: another's host is a remote node, the rest is not known. */
	if (peer && peer->flags & PEER_REMOTE && peer->identity < IDENTITY_FIRST)
		return peer->identity == IDENTITY_REMOTE_HOST ? IDENTITY_REMOTE_HOST : 0;
	if (peer)
		return peer->identity;
	if (address->family == FAMILY_V4)
		key.prefixlen = 32 + 32;
	__builtin_memcpy(key.word, address->word, sizeof(key.word));
	outside = md_outside.lookup(&key);
	/* A pod of another cluster of which nobody has heard: a prefix that a policy names does not speak for it. */
	if (md_cidrs.lookup(&key) && !(outside && outside->identity < IDENTITY_FIRST))
		return IDENTITY_UNVERIFIED;
	return outside ? outside->identity : IDENTITY_WORLD;
}

static __always_inline __u32 look_up_verdict(struct policed *pod, __u32 peer, __u8 protocol, __be16 port)
{
	struct policy_key key = {.prefixlen = POLICY_PREFIX_MAX, .subject = pod->identity, .peer = peer,
				 .direction = pod->direction, .protocol = protocol, .port = port};
	struct policy_entry *entry = md_policy.lookup(&key);
	__u32 verdict = entry ? entry->verdict : VERDICT_NONE;

	if (verdict == VERDICT_DENY)
		return VERDICT_DENY;
	key.peer = 0;
	entry = md_policy.lookup(&key);
	if (entry && entry->verdict != VERDICT_NONE)
		return entry->verdict;
	return verdict;
}

/* DROP_NONE, or why the policy does not let the packet pass. */
static __always_inline __u32 judge(struct subject *subject, struct policed *pod, __u32 peer, __u8 protocol,
				   __be16 port)
{
	bool ingress = pod->direction == DIRECTION_INGRESS;
	__u32 closed = ingress ? SUBJECT_CLOSED_INGRESS : SUBJECT_CLOSED_EGRESS;
	__u32 shut = ingress ? SUBJECT_SHUT_INGRESS : SUBJECT_SHUT_EGRESS;
	__u32 verdict;

	if (subject->flags & shut)
		return DROP_POLICY_SHUT;
	/* Rules that deny might be about it: that everybody is allowed does not help who has no name yet. */
	if (peer == IDENTITY_UNVERIFIED && ingress && subject->flags & closed)
		return DROP_SOURCE_UNVERIFIED;
	verdict = look_up_verdict(pod, peer == IDENTITY_UNVERIFIED ? 0 : peer, protocol, port);
	if (verdict == VERDICT_DENY)
		return DROP_POLICY_DENIED;
	return verdict == VERDICT_NONE && subject->flags & closed ? DROP_POLICY_CLOSED : DROP_NONE;
}

/* An ICMP error is about a tracked connection if what it quotes is, in either direction. */
static __always_inline bool is_about_tracked(struct __sk_buff *skb, struct packet *p, __u32 ifindex, __u32 now_s)
{
	struct packet q = {};
	struct l4 l4 = {};
	__u32 l4_at = 0;

	if (!read_quoted(skb, p, &q, &l4_at) || !read_l4(skb, l4_at, q.protocol, &l4))
		return false;
	return ct_find(&q, &l4, ifindex, false, now_s) || ct_find(&q, &l4, ifindex, true, now_s);
}

/* What holds for the pod; 0: nothing does. The identity is the interface's, if it is not known from a delivery. */
static __always_inline struct subject *find_subject(struct policed *pod, bool delivery)
{
	struct iface *iface;

	if (!delivery) {
		iface = md_iface.lookup(&pod->ifindex);
		if (!iface)
			return 0;
		pod->identity = iface->identity;
	}
	return md_subject.lookup(&pod->identity);
}

/* Both have spoken under these addresses, and no flow was ever translated: neither is a frontend. */
static __always_inline bool is_settled(struct ct *ct)
{
	return ct->flags & CT_REPLIED && !in_use(USED_NAT);
}

/* What most packets are, by as few calls as can be: of a tracked connection that goes on. False: ask police(). What
 * answers needs no rules, and goes to whoever spoke first: to no frontend. */
static __always_inline bool goes_on(struct __sk_buff *skb, struct packet *p, struct policed *pod, struct l4 *l4,
				    bool delivery)
{
	bool outbound = pod->direction == DIRECTION_EGRESS;
	struct policed same = *pod;
	struct subject *subject;
	__u32 now_s;
	struct ct *ct;

	if (!peek_l4(skb, p, l4) || l4_begins(l4) || (outbound && in_use(USED_NAT)))
		return false;
	now_s = seconds();
	ct = ct_find(p, l4, pod->ifindex, outbound, now_s);
	if (!ct)
		return false;
	if (ct_is_reply(ct, outbound)) {
		ct_see(ct, l4, CT_REPLIED, now_s);
		return true;
	}
	if (outbound && !(ct->flags & CT_REPLIED))
		return false;
	subject = find_subject(&same, delivery);
	if (!subject || subject->revision != ct->revision)
		return false;
	ct_see(ct, l4, 0, now_s);
	return true;
}

static __always_inline int police(struct __sk_buff *skb, struct packet *p, struct policed *pod,
				  struct subject *subject)
{
	__u32 now_s = seconds(), peer, reason;
	bool outbound = pod->direction == DIRECTION_EGRESS;
	struct l4 l4 = {};
	struct ct *ct;

	if (!p->l4_offset)
		return TC_ACT_UNSPEC;
	if (!read_l4(skb, p->l4_offset, p->protocol, &l4))
		return drop(skb, DROP_INVALID);
	if (l4.needless)
		return TC_ACT_UNSPEC;
	ct = ct_find(p, &l4, pod->ifindex, outbound, now_s);
	/* The policy is about the backend that a service leads to; answers come from there to policy_in. */
	if (outbound && !(ct && is_settled(ct))) {
		if (!to_backend(skb, p))
			return drop(skb, DROP_NO_BACKEND);
		if (p->translated) {
			if (p->looped)
				return return_to_pod(skb, p);
			read_l4(skb, p->l4_offset, p->protocol, &l4);
			ct = ct_find(p, &l4, pod->ifindex, outbound, now_s);
		}
	}
	if (ct && l4_begins(&l4) && (ct->flags & CT_CLOSING || ct_is_reply(ct, outbound)))
		ct = 0; /* another connection between the same ports */
	if (ct && ct_is_reply(ct, outbound)) {
		ct_see(ct, &l4, CT_REPLIED, now_s);
		return TC_ACT_UNSPEC;
	}
	if (ct && ct->revision == subject->revision) {
		ct_see(ct, &l4, 0, now_s);
		return TC_ACT_UNSPEC;
	}
	if (l4.error && is_about_tracked(skb, p, pod->ifindex, now_s))
		return TC_ACT_UNSPEC;
	peer = identity_of(pod->direction == DIRECTION_INGRESS ? &p->source : &p->destination);
	reason = judge(subject, pod, peer, p->protocol, l4.policy_port);
	if (peer == IDENTITY_UNVERIFIED)
		peer = 0;
	if (reason && !(subject->flags & SUBJECT_AUDIT)) {
		ct_end(p, &l4, pod->ifindex, outbound);
		tell(skb, p, &l4, pod, peer, reason);
		return drop_silently(skb, reason);
	}
	if (ct) { /* still allowed */
		ct->revision = subject->revision;
		ct_see(ct, &l4, 0, now_s);
		return TC_ACT_UNSPEC;
	}
	if (reason) {
		count(POLICY_AUDITED, skb->len);
		reason = POLICY_AUDITED;
	}
	tell(skb, p, &l4, pod, peer, reason);
	if (!l4.error) /* nothing replies to it: an entry would let any error come back */
		ct_begin(p, &l4, pod->ifindex, outbound, subject->revision, now_s);
	return TC_ACT_UNSPEC;
}

/* For what is delivered past policy_in; an answer has its backend's address yet. */
static __always_inline int police_delivery(struct __sk_buff *skb, struct packet *p, struct endpoint *endpoint)
{
	struct policed pod = {.identity = endpoint->identity, .ifindex = endpoint->ifindex,
			      .direction = DIRECTION_INGRESS};
	struct subject *subject;
	struct l4 l4 = {};

	if (goes_on(skb, p, &pod, &l4, true))
		return TC_ACT_UNSPEC;
	subject = find_subject(&pod, true);
	return subject ? police(skb, p, &pod, subject) : TC_ACT_UNSPEC;
}

/* DROP_NONE, or why a pod that has no interface of ours (yet) gets nothing from the tunnel. What such a pod sends leaves
 * by the stack under another address: so nothing that comes for it is an answer, and no connection need be known. */
static __always_inline __u32 judge_unattached(struct __sk_buff *skb, struct packet *p, __u32 identity)
{
	struct policed pod = {.identity = identity, .direction = DIRECTION_INGRESS};
	struct subject *subject = md_subject.lookup(&identity);
	struct l4 l4 = {};

	if (!subject || subject->flags & SUBJECT_AUDIT || !p->l4_offset)
		return DROP_NONE;
	if (!read_l4(skb, p->l4_offset, p->protocol, &l4))
		return DROP_INVALID;
	return judge(subject, &pod, identity_of(&p->source), p->protocol, l4.policy_port);
}

/* What goes on to a known pod of another cluster needs nothing else of from_pod; but that clamps the MSS. */
static __always_inline int send_on(struct __sk_buff *skb, struct packet *p, struct l4 *l4)
{
	struct peer *peer = 0;
	struct way way = {};

	if (!(l4->tcp_flags & TCP_SYN) && may_concern(skb, BY_DESTINATION))
		peer = md_ipcache.lookup(&p->destination);
	return is_ours(peer) ? answered(skb, p, &way, send_to_peer(skb, p, &way, peer)) : TC_ACT_UNSPEC;
}

/* tc ingress of the host side of a pod's veth, before from_pod. */
int policy_out(struct __sk_buff *skb)
{
	struct policed pod = {.ifindex = skb->ifindex, .direction = DIRECTION_EGRESS};
	struct subject *subject;
	struct packet p = {};
	struct l4 l4 = {};

	if (!parse(skb, &p))
		return TC_ACT_UNSPEC;
	if (goes_on(skb, &p, &pod, &l4, false)) {
		skb->cb[0] = TRANSLATED;
		return send_on(skb, &p, &l4);
	}
	subject = find_subject(&pod, false);
	if (!subject)
		return TC_ACT_UNSPEC;
	parse_tcp(skb, &p);
	skb->cb[0] = TRANSLATED;
	return told(skb, DIRECTION_EGRESS, police(skb, &p, &pod, subject));
}

/* tc egress of the host side of a pod's veth, before to_pod. */
int policy_in(struct __sk_buff *skb)
{
	struct policed pod = {.ifindex = skb->ifindex, .direction = DIRECTION_INGRESS};
	struct subject *subject;
	struct packet p = {};
	struct l4 l4 = {};

	if (!parse(skb, &p) || goes_on(skb, &p, &pod, &l4, false))
		return TC_ACT_UNSPEC;
	subject = find_subject(&pod, false);
	return subject ? told(skb, DIRECTION_INGRESS, police(skb, &p, &pod, subject)) : TC_ACT_UNSPEC;
}

#endif
