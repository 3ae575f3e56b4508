/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What policy and connection tracking ask of the transport header. */
#ifndef MESHD_L4_H
#define MESHD_L4_H

#include "parse.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_FLAGS_OFFSET 13
#define ICMP_ID_OFFSET 4
#define ICMP_HEADER 8 /* an error quotes the packet that it is about behind it */

#define ICMP4_ECHO_REPLY 0
#define ICMP4_ECHO 8
#define ICMP4_TIME_EXCEEDED 11
#define ICMP4_PARAMETER 12
#define ICMP6_PARAMETER 4
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_LISTENER_QUERY 130 /* the first of listener and neighbour discovery */
#define ICMP6_REDIRECT 137       /* the last of them */

/* A pod whose policy is asked, and which way the packet goes. */
struct policed {
	__u32 identity;
	__u32 ifindex;
	__u8 direction;
};

struct l4 {
	__be16 source_port; /* ICMP echo: the identifier, at the side that asked; else 0 */
	__be16 destination_port;
	__be16 policy_port; /* ICMP: the type */
	__u8 tcp_flags;
	bool error;    /* an ICMP error */
	bool needless; /* the neighbours' own talk, which no policy is about */
};

static __always_inline void read_icmp(struct l4 *l4, bool six, __u8 type, __be16 id)
{
	l4->policy_port = be16(type);
	if (type == (six ? ICMP6_ECHO : ICMP4_ECHO))
		l4->source_port = id;
	else if (type == (six ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY))
		l4->destination_port = id;
	else if (six)
		l4->error = type && type <= ICMP6_PARAMETER;
	else
		l4->error = type == 3 || type == ICMP4_TIME_EXCEEDED || type == ICMP4_PARAMETER;
	l4->needless = six && type >= ICMP6_LISTENER_QUERY && type <= ICMP6_REDIRECT;
}

/* `at`: offset of the header of `protocol`. Protocols without ports have zeros. False: cut short. */
static __always_inline bool read_l4(struct __sk_buff *skb, __u32 at, __u8 protocol, struct l4 *l4)
{
	__be16 words[TCP_FLAGS_OFFSET / 2 + 1];

	if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP) {
		if (protocol == IPPROTO_TCP && !bpf_skb_load_bytes(skb, at, words, sizeof(words)))
			l4->tcp_flags = ((__u8 *)words)[TCP_FLAGS_OFFSET];
		else if (bpf_skb_load_bytes(skb, at, words, 4)) /* what an ICMP error quotes of TCP has no flags */
			return false;
		l4->source_port = words[0];
		l4->destination_port = l4->policy_port = words[1];
	} else if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
		if (bpf_skb_load_bytes(skb, at, words, ICMP_ID_OFFSET + 2))
			return false;
		read_icmp(l4, protocol == IPPROTO_ICMPV6, words[0] & 0xff, words[2]);
	}
	return true;
}

/* The same of TCP and UDP without a helper; false where that cannot be, which says nothing of the packet. */
static __always_inline bool peek_l4(struct __sk_buff *skb, struct packet *p, struct l4 *l4)
{
	bool tcp = p->protocol == IPPROTO_TCP;
	void *at = (void *)(long)skb->data + (p->l4_offset & L4_OFFSET_MASK);
	__be16 *ports = at;

	if (!p->l4_offset || (!tcp && p->protocol != IPPROTO_UDP))
		return false;
	if (at + (tcp ? TCP_FLAGS_OFFSET + 1 : 4) > (void *)(long)skb->data_end)
		return false;
	l4->source_port = ports[0];
	l4->destination_port = l4->policy_port = ports[1];
	if (tcp)
		l4->tcp_flags = ((__u8 *)at)[TCP_FLAGS_OFFSET];
	return true;
}

/* The first packet of a TCP connection. */
static __always_inline bool l4_begins(struct l4 *l4)
{
	return (l4->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

#endif
