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

#include <linux/tcp.h>
#include <linux/udp.h>
#include "lookup.h"
#include "parse.h"
#include "service.h"
#include "too_big.h"

#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_ACK 0x10

/* In skb->cb[0]: policy_out, which runs before from_pod where a policy holds, has called to_backend. */
#define TRANSLATED 0x6d657368

#define TCP_NUMBER_OFFSET 4
#define SCTP_TAG_OFFSET 4     /* 0 in the packet that begins an association */
#define SCTP_NUMBER_OFFSET 16 /* there: what the sender wants to be called by */

struct ports {
	__be16 source;
	__be16 destination;
};

static __always_inline bool load_ports(struct __sk_buff *skb, struct packet *p, struct ports *ports)
{
	struct ports *seen;

	if (!p->l4_offset)
		return false;
	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP && p->protocol != IPPROTO_SCTP)
		return false;
	seen = (void *)(long)skb->data + (p->l4_offset & L4_OFFSET_MASK);
	if ((void *)(seen + 1) > (void *)(long)skb->data_end)
		return bpf_skb_load_bytes(skb, p->l4_offset, ports, sizeof(*ports)) == 0;
	*ports = *seen;
	return true;
}

/* Where the checksum stands that covers addresses and ports; 0: none does. */
static __always_inline __u32 check_offset(struct packet *p)
{
	if (p->protocol == IPPROTO_TCP)
		return p->l4_offset + offsetof(struct tcphdr, check);
	if (p->protocol == IPPROTO_UDP)
		return p->l4_offset + offsetof(struct udphdr, check);
	return 0;
}

/* The end of an IPv4 header: written at once, one call instead of three. */
struct ends4 {
	__sum16 check;
	__be32 source;
	__be32 destination;
} __attribute__((packed));

/* The checksum of a header in which one address became another (RFC 1624). */
static __always_inline __sum16 updated_check(__sum16 check, __be32 old, __be32 new)
{
	return fold((__u16)~check + (__u16)~old + (__u16)~(old >> 16) + (__u16)new + (__u16)(new >> 16));
}

/* Writes another address over `address`, which is *p's source or destination, and another port at `port_at`. */
static __always_inline void rewrite(struct __sk_buff *skb, struct packet *p, struct addr_key *address, __be32 *to,
				    __u32 port_at, __be16 port, __be16 to_port)
{
	bool is_source = address == &p->source;
	__u32 check = check_offset(p), at;
	__u64 flags = p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__s64 sum;

	if (address->family == FAMILY_V4) {
		struct ends4 ends = {
			.check = updated_check(p->check, address->word[0], to[0]),
			.source = is_source ? to[0] : p->source.word[0],
			.destination = is_source ? p->destination.word[0] : to[0],
		};

		if (check)
			bpf_l4_csum_replace(skb, check, address->word[0], to[0], flags | BPF_F_PSEUDO_HDR | 4);
		bpf_skb_store_bytes(skb, L3_OFFSET + offsetof(struct iphdr, check), &ends, sizeof(ends), 0);
		p->check = ends.check;
	} else {
		at = L3_OFFSET + (is_source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
		sum = bpf_csum_diff(address->word, 16, to, 16, 0);
		if (check)
			bpf_l4_csum_replace(skb, check, 0, sum, flags | BPF_F_PSEUDO_HDR);
		bpf_skb_store_bytes(skb, at, to, 16, 0);
	}
	p->translated = true;
	__builtin_memcpy(address->word, to, sizeof(address->word));
	if (port == to_port || !check)
		return;
	bpf_l4_csum_replace(skb, check, port, to_port, flags | 2);
	bpf_skb_store_bytes(skb, port_at, &to_port, sizeof(to_port), 0);
}

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
