/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reads ports, and writes another address and port into a packet. */
#ifndef MESHD_REWRITE_H
#define MESHD_REWRITE_H

#include <linux/tcp.h>
#include <linux/udp.h>
#include "parse.h"
#include "too_big.h"

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

#endif
