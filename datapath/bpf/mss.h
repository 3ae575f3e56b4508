/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Lowers the MSS that a SYN or SYN-ACK announces to what fits into the tunnel. We do not own the pods'
 * MTU: without this the kernel would cut every outer packet in two, at a sixth of the speed.
 */
#ifndef MESHD_MSS_H
#define MESHD_MSS_H

#include <linux/tcp.h>
#include "parse.h"

#define TCP_CHECK_OFFSET 16
#define TCP_SYN 0x02
#define TCP_OPTIONS_MAX 40
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_MSS 2

static __always_inline void lower_mss(struct __sk_buff *skb, __u32 tcp, __u32 at, __u16 limit)
{
	__be16 old, new = be16(limit);

	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)) || __builtin_bswap16(old) <= limit)
		return;
	if (bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0))
		return;
	/* A value at an odd offset counts with its bytes swapped (RFC 1071). */
	if ((at - tcp) & 1) {
		old = __builtin_bswap16(old);
		new = __builtin_bswap16(new);
	}
	bpf_l4_csum_replace(skb, tcp + TCP_CHECK_OFFSET, old, new, sizeof(new));
}

/* inner_mtu: largest IP packet the tunnel carries, 0 for no limit. Invalidates packet pointers. */
static __always_inline void clamp_mss(struct __sk_buff *skb, struct packet *p, __u16 inner_mtu)
{
	__u32 tcp = p->l4_offset, at, end;
	__u16 headers = sizeof(struct tcphdr) +
			(p->source.family == FAMILY_V6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	__u8 option[2];

	if (!(p->tcp_flags & TCP_SYN) || inner_mtu <= headers)
		return;
	at = tcp + sizeof(struct tcphdr);
	end = tcp + p->tcp_length;
	for (int i = 0; i < TCP_OPTIONS_MAX; i++) {
		if (at + 4 > end || bpf_skb_load_bytes(skb, at, option, sizeof(option)))
			return;
		if (option[0] == OPTION_NOP) {
			at++;
			continue;
		}
		if (option[0] == OPTION_END || option[1] < 2)
			return;
		if (option[0] == OPTION_MSS) {
			lower_mss(skb, tcp, at + 2, inner_mtu - headers);
			return;
		}
		at += option[1];
	}
}

#endif
