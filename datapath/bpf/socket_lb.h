/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Service load balancing at the socket: connect() and sendmsg() to a frontend of a global service go to one
 * of its backends; recvmsg() and getpeername() show the frontend again. What is no frontend stays untouched.
 *
 * IPv4 through an IPv6 socket (::ffff:a.b.c.d) uses the IPv4 maps. The kernel calls connect6, recvmsg6 and
 * getpeername6 for such a socket, but sendmsg4, even when it is connected: the address is translated already
 * then, and as that is no frontend it passes.
 */
#ifndef MESHD_SOCKET_LB_H
#define MESHD_SOCKET_LB_H

#include "count.h"
#include "events.h"
#include "lookup.h"
#include "service.h"

#define ALLOW 1
#define REFUSE 0
#define ERRNO_CONNECTION_REFUSED 111

/* bcc declares it as u32 and would cut the cookie. */
static __u64 (*socket_cookie)(void *ctx) = (void *)BPF_FUNC_get_socket_cookie;

static __u64 (*netns_cookie)(void *ctx) = (void *)BPF_FUNC_get_netns_cookie;

/* Only pods' packets are tunnelled: a socket of the node itself is left to kube-proxy, which knows the backends
 * of this cluster. */
static __always_inline bool is_node_socket(struct bpf_sock_addr *ctx)
{
	struct cfg *cfg = lookup_cfg();

	return cfg && cfg->node_netns && cfg->node_netns == netns_cookie(ctx);
}

static __always_inline int refuse(struct bpf_sock_addr *ctx, struct front_key *front)
{
	count(DROP_NO_BACKEND, 0);
	tell_refusal(netns_cookie(ctx), front, DROP_NO_BACKEND);
	bpf_set_retval(-ERRNO_CONNECTION_REFUSED);
	return REFUSE;
}

/* Verifier: the context is read and written at constant offsets only; a barrier keeps the compiler from
 * taking the address of user_ip6. */
#define barrier() asm volatile("" ::: "memory")

static __always_inline void read_address6(struct bpf_sock_addr *ctx, __be32 *address)
{
	address[0] = ctx->user_ip6[0];
	barrier();
	address[1] = ctx->user_ip6[1];
	barrier();
	address[2] = ctx->user_ip6[2];
	barrier();
	address[3] = ctx->user_ip6[3];
	barrier();
}

static __always_inline void write_address6(struct bpf_sock_addr *ctx, __be32 *address)
{
	ctx->user_ip6[0] = address[0];
	barrier();
	ctx->user_ip6[1] = address[1];
	barrier();
	ctx->user_ip6[2] = address[2];
	barrier();
	ctx->user_ip6[3] = address[3];
	barrier();
}

static __always_inline bool is_v4_mapped(struct bpf_sock_addr *ctx)
{
	return ctx->user_ip6[0] == 0 && ctx->user_ip6[1] == 0 && ctx->user_ip6[2] == __builtin_bswap32(0xffff);
}

/* A pod, by its network namespace; its datagrams through one socket go to one backend as long as that is there. */
static __always_inline void client_of(struct bpf_sock_addr *ctx, struct client *client)
{
	__u64 netns = netns_cookie(ctx), socket = socket_cookie(ctx);

	client->kind = CLIENT_NETNS;
	client->word[0] = netns;
	client->word[1] = netns >> 32;
	client->hash = mix(socket ^ (socket >> 32) ^ ((__u32)netns << 16));
}

static __always_inline int to_backend4(struct bpf_sock_addr *ctx, __be32 address, bool mapped)
{
	struct front_key front = {
		.address = {address}, .port = ctx->user_port, .protocol = ctx->protocol, .family = FAMILY_V4,
	};
	struct rev4 frontend = {.address = address, .port = front.port};
	struct rev4_key reverse = {};
	struct client client = {};
	struct nat chosen = {};

	if (!lookup_slot(&front, FAMILY_V4, 0) || is_node_socket(ctx))
		return ALLOW;
	client_of(ctx, &client);
	if (!select_backend(&front, FAMILY_V4, &client, &chosen))
		return refuse(ctx, &front);
	reverse.cookie = socket_cookie(ctx);
	reverse.address = chosen.address[0];
	reverse.port = chosen.port;
	md_rev4.update(&reverse, &frontend);
	if (mapped)
		ctx->user_ip6[3] = chosen.address[0];
	else
		ctx->user_ip4 = chosen.address[0];
	ctx->user_port = chosen.port;
	return ALLOW;
}

static __always_inline int to_backend6(struct bpf_sock_addr *ctx)
{
	struct front_key front = {.port = ctx->user_port, .protocol = ctx->protocol, .family = FAMILY_V6};
	struct rev6 frontend = {.port = front.port};
	struct rev6_key reverse = {};
	struct client client = {};
	struct nat chosen = {};

	read_address6(ctx, front.address);
	__builtin_memcpy(frontend.address, front.address, sizeof(front.address));
	if (!lookup_slot(&front, FAMILY_V6, 0) || is_node_socket(ctx))
		return ALLOW;
	client_of(ctx, &client);
	if (!select_backend(&front, FAMILY_V6, &client, &chosen))
		return refuse(ctx, &front);
	reverse.cookie = socket_cookie(ctx);
	__builtin_memcpy(reverse.address, chosen.address, sizeof(reverse.address));
	reverse.port = chosen.port;
	md_rev6.update(&reverse, &frontend);
	write_address6(ctx, chosen.address);
	ctx->user_port = chosen.port;
	return ALLOW;
}

static __always_inline int to_frontend4(struct bpf_sock_addr *ctx, __be32 address, bool mapped)
{
	struct rev4_key key = {.cookie = socket_cookie(ctx), .address = address, .port = ctx->user_port};
	struct rev4 *frontend = md_rev4.lookup(&key);

	if (!frontend)
		return ALLOW;
	if (mapped)
		ctx->user_ip6[3] = frontend->address;
	else
		ctx->user_ip4 = frontend->address;
	ctx->user_port = frontend->port;
	return ALLOW;
}

static __always_inline int to_frontend6(struct bpf_sock_addr *ctx)
{
	struct rev6_key key = {.cookie = socket_cookie(ctx), .port = ctx->user_port};
	struct rev6 *frontend;

	read_address6(ctx, key.address);
	frontend = md_rev6.lookup(&key);
	if (!frontend)
		return ALLOW;
	write_address6(ctx, frontend->address);
	ctx->user_port = frontend->port;
	return ALLOW;
}

static __always_inline int send6(struct bpf_sock_addr *ctx)
{
	return is_v4_mapped(ctx) ? to_backend4(ctx, ctx->user_ip6[3], true) : to_backend6(ctx);
}

static __always_inline int receive6(struct bpf_sock_addr *ctx)
{
	return is_v4_mapped(ctx) ? to_frontend4(ctx, ctx->user_ip6[3], true) : to_frontend6(ctx);
}

/* One function per hook: a program is loaded for exactly one attach type. */
int connect4(struct bpf_sock_addr *ctx) { return to_backend4(ctx, ctx->user_ip4, false); }
int connect6(struct bpf_sock_addr *ctx) { return send6(ctx); }
int sendmsg4(struct bpf_sock_addr *ctx) { return to_backend4(ctx, ctx->user_ip4, false); }
int sendmsg6(struct bpf_sock_addr *ctx) { return send6(ctx); }
int recvmsg4(struct bpf_sock_addr *ctx) { return to_frontend4(ctx, ctx->user_ip4, false); }
int recvmsg6(struct bpf_sock_addr *ctx) { return receive6(ctx); }
int getpeername4(struct bpf_sock_addr *ctx) { return to_frontend4(ctx, ctx->user_ip4, false); }
int getpeername6(struct bpf_sock_addr *ctx) { return receive6(ctx); }

#endif
