/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Service load balancing per packet, for what the socket hooks do not see: sockets outside the node's cgroup or older
 * than the daemon, raw packets, SCTP.
 *
 *   from_pod               client -> frontend  becomes  client -> backend     md_nat, NAT_FORWARD; or a backend is chosen
 *   before a pod gets it   backend -> client   becomes  frontend -> client    md_nat, NAT_REPLY
 *
 * A pod that is its own backend would drop what comes from its own address, so there the client becomes the frontend:
 *
 *   from_pod               pod -> frontend               becomes  frontend's address, client's port -> pod
 *   from_pod               pod -> that address and port  becomes  frontend -> pod                    md_nat, NAT_LOOP
 *
 * An entry is made by the first packet, and stays until it is the least recently used. UDP leaves a backend that is
 * gone with its next packet; a new connection of TCP or SCTP, even between the same ports, has its backend chosen anew.
 * One that began before its frontend was there, or was forgotten, is not translated: it is kube-proxy's. One that began
 * here goes on when its frontend goes.
 * SCTP's checksum knows no addresses, and its ports are not changed. A later fragment has no ports: it is not translated.
 */
#ifndef MESHD_SERVICE_CT_H
#define MESHD_SERVICE_CT_H

#include "lookup.h"
#include "rewrite.h"
#include "service.h"
#include "service_flow.h"

#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_ACK 0x10

/* In skb->cb[0]: policy_out, which runs before from_pod where a policy holds, has called to_backend. */
#define TRANSLATED 0x6d657368

#define TCP_NUMBER_OFFSET 4
#define SCTP_TAG_OFFSET 4     /* 0 in the packet that begins an association */
#define SCTP_NUMBER_OFFSET 16 /* there: what the sender wants to be called by */

static __always_inline bool is_frontend(struct packet *p, struct ports *ports)
{
	if (p->destination.family == FAMILY_V4) {
		struct svc4_key key = {
			.address = p->destination.word[0], .port = ports->destination, .protocol = p->protocol,
		};

		return md_svc4.lookup(&key);
	} else {
		struct svc6_key key = {.port = ports->destination, .protocol = p->protocol};

		__builtin_memcpy(key.address, p->destination.word, sizeof(key.address));
		return md_svc6.lookup(&key);
	}
}

static __always_inline __u32 flow_hash(struct packet *p, struct ports *ports)
{
	__u32 hash = ports->source | (__u32)ports->destination << 16;

	for (int i = 0; i < 4; i++)
		hash = mix(hash ^ p->source.word[i]) ^ p->destination.word[i];
	return mix(hash ^ p->protocol);
}

static __always_inline bool choose_backend(struct packet *p, struct ports *ports, struct nat *nat)
{
	struct client client = {.kind = CLIENT_ADDRESS, .hash = flow_hash(p, ports)};
	struct front_key front = {.port = ports->destination, .protocol = p->protocol, .family = p->destination.family};

	__builtin_memcpy(client.word, p->source.word, sizeof(client.word));
	__builtin_memcpy(front.address, p->destination.word, sizeof(front.address));
	return front.family == FAMILY_V4 ? select_backend(&front, FAMILY_V4, &client, nat)
					 : select_backend(&front, FAMILY_V6, &client, nat);
}

/* Whether this packet may go elsewhere than those of its flow before it. */
static __always_inline bool may_move(struct packet *p)
{
	if (p->protocol != IPPROTO_TCP)
		return p->protocol == IPPROTO_UDP;
	return (p->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN;
}

/* Whether it begins a connection; *first is then of the number that it begins with, the same when it is sent again. */
static __always_inline bool begins(struct __sk_buff *skb, struct packet *p, __u16 *first)
{
	__be32 number, tag = 0;
	bool sctp = p->protocol == IPPROTO_SCTP;

	if (sctp && (bpf_skb_load_bytes(skb, p->l4_offset + SCTP_TAG_OFFSET, &tag, sizeof(tag)) || tag))
		return false;
	if (!sctp && (p->protocol != IPPROTO_TCP || !may_move(p)))
		return false;
	if (bpf_skb_load_bytes(skb, p->l4_offset + (sctp ? SCTP_NUMBER_OFFSET : TCP_NUMBER_OFFSET), &number, sizeof(number)))
		return false;
	*first = number ^ (number >> 16);
	return true;
}

/* Numbers are given again one day: the backend is there if its number still means it. */
static __always_inline bool backend_is_there(struct packet *p, struct nat *nat)
{
	struct nat now = {.backend = nat->backend};

	if (p->destination.family == FAMILY_V4 ? !locate_backend(FAMILY_V4, &now) : !locate_backend(FAMILY_V6, &now))
		return false;
	return now.port == nat->port && same_words(now.address, nat->address);
}

/* Whether a flow goes on to the backend that it had. */
static __always_inline bool stays(struct packet *p, struct nat *known, bool new_connection, __u16 first)
{
	if (new_connection)
		return known->first == first && backend_is_there(p, known);
	return p->protocol != IPPROTO_UDP || backend_is_there(p, known);
}

/* A pod's packet to a known pod, which is no frontend: only what begins a flow has to be looked at, and only if flows
 * were ever translated. */
static __always_inline void to_pod_itself(struct __sk_buff *skb, struct packet *p)
{
	struct ports ports;

	if (in_use(USED_NAT) && may_move(p) && load_ports(skb, p, &ports))
		forget_flow(p, &ports);
}

/* Whether the pod answers itself; *p then says how. */
static __always_inline bool answers_itself(struct packet *p, struct nat_key *key)
{
	struct nat *frontend;

	key->direction = NAT_LOOP;
	frontend = md_nat.lookup(key);
	key->direction = NAT_FORWARD;
	if (!frontend)
		return false;
	p->loop_source = frontend->port;
	p->loop_destination = key->destination_port;
	p->translated = p->looped = true;
	return true;
}

/* The backend that the packet's flow has, or gets now; false: there is none. *chosen stays empty where none is meant: a
 * connection that is older than its frontend is kube-proxy's, and so is what begins when the frontend is gone. */
static __always_inline bool find_backend(struct __sk_buff *skb, struct packet *p, struct ports *ports,
					 struct nat_key *key, bool frontend, struct nat *chosen)
{
	struct nat *known = md_nat.lookup(key);
	bool datagram = p->protocol == IPPROTO_UDP, new_connection;
	__u16 first = 0;

	if (!known && !frontend)
		return true;
	new_connection = begins(skb, p, &first);
	if (known && (frontend || !datagram) && stays(p, known, new_connection, first)) {
		__builtin_memcpy(chosen, known, sizeof(*chosen));
		return true;
	}
	if (!frontend) {
		__builtin_memcpy(chosen, known, sizeof(*chosen));
		md_nat.delete(key);
		turn(key, chosen);
		md_nat.delete(key);
		__builtin_memset(chosen, 0, sizeof(*chosen));
		return true;
	}
	if (!known && !new_connection && !datagram)
		return true;
	if (!choose_backend(p, ports, chosen))
		return false;
	chosen->first = first;
	remember_flow(key, chosen);
	return true;
}

/* A pod's packet to a frontend goes to a backend, and *p says so; what is looped is not changed yet. False: there is no
 * backend, drop it. */
static __always_inline bool to_backend(struct __sk_buff *skb, struct packet *p)
{
	struct nat_key key = {};
	struct nat chosen = {};
	struct ports ports;
	bool frontend;

	if (!load_ports(skb, p, &ports))
		return true;
	frontend = is_frontend(p, &ports);
	if (!frontend && !in_use(USED_NAT))
		return true;
	nat_key_of(p, &ports, NAT_FORWARD, &key);
	if (in_use(USED_LOOP) && answers_itself(p, &key))
		return true;
	if (!find_backend(skb, p, &ports, &key, frontend, &chosen))
		return false;
	if (!chosen.port) {
		if (!frontend && may_move(p))
			forget_flow(p, &ports);
		return true;
	}
	if (same_words(chosen.address, p->source.word)) {
		p->loop_source = ports.source;
		p->loop_destination = chosen.port;
		p->translated = p->looped = true;
		return true;
	}
	rewrite(skb, p, &p->destination, chosen.address, p->l4_offset + offsetof(struct ports, destination),
		ports.destination, chosen.port);
	return true;
}

/* A looped packet comes from the frontend's address and goes to the pod's. */
static __always_inline void loop(struct __sk_buff *skb, struct packet *p)
{
	__be32 pod[4], frontend[4];
	struct ports ports;

	if (!load_ports(skb, p, &ports))
		return;
	__builtin_memcpy(pod, p->source.word, sizeof(pod));
	__builtin_memcpy(frontend, p->destination.word, sizeof(frontend));
	rewrite(skb, p, &p->source, frontend, p->l4_offset + offsetof(struct ports, source), ports.source,
		p->loop_source);
	rewrite(skb, p, &p->destination, pod, p->l4_offset + offsetof(struct ports, destination), ports.destination,
		p->loop_destination);
}

/* A backend's answer to a pod comes from the frontend, and *p says so. Asked only where USED_NAT is in use. */
static __always_inline void to_frontend(struct __sk_buff *skb, struct packet *p)
{
	struct nat_key key = {};
	struct ports ports;
	struct nat *known, frontend = {};

	if (!load_ports(skb, p, &ports))
		return;
	nat_key_of(p, &ports, NAT_REPLY, &key);
	known = md_nat.lookup(&key);
	if (!known)
		return;
	__builtin_memcpy(&frontend, known, sizeof(frontend));
	rewrite(skb, p, &p->source, frontend.address, p->l4_offset + offsetof(struct ports, source), ports.source,
		frontend.port);
}

#endif
