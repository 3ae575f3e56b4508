/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of `bench lb`: one thread each, nothing but system calls.
 *
 *   lb_client serve ADDRESS PORT COUNT     answers one byte for each byte on COUNT ports from PORT on
 *   lb_client connect ADDRESS PORT SECONDS connect, ask, read the answer, close: prints how many a second
 *   lb_client ask ADDRESS PORT SECONDS     one connection, ask and answer: prints how many a second
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void need(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
}

static struct sockaddr_in address_of(const char *address, int port)
{
	struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons(port)};

	inet_pton(AF_INET, address, &made.sin_addr);
	return made;
}

static void serve(const char *address, int port, int count)
{
	struct epoll_event event = {.events = EPOLLIN}, ready[64];
	int poll = epoll_create1(0), one = 1, first = -1, last = -1;
	char byte;

	for (int i = 0; i < count; i++) {
		struct sockaddr_in here = address_of(address, port + i);
		int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

		setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		need(bind(listener, (struct sockaddr *)&here, sizeof(here)), "bind");
		need(listen(listener, 1024), "listen");
		event.data.fd = listener;
		need(epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event), "epoll_ctl");
		if (first < 0)
			first = listener;
		last = listener;
	}
	for (;;) {
		int number = epoll_wait(poll, ready, 64, -1);

		for (int i = 0; i < number; i++) {
			int fd = ready[i].data.fd;

			if (fd >= first && fd <= last) {
				fd = accept(fd, 0, 0);
				if (fd < 0)
					continue;
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				event.data.fd = fd;
				epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
			} else if (read(fd, &byte, 1) != 1 || write(fd, &byte, 1) != 1) {
				close(fd);
			}
		}
	}
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int opened(struct sockaddr_in *there)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	need(connect(fd, (struct sockaddr *)there, sizeof(*there)), "connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void ask(int fd)
{
	char byte = 'x';

	need(write(fd, &byte, 1), "write");
	if (read(fd, &byte, 1) != 1) {
		fputs("no answer\n", stderr);
		exit(1);
	}
}

int main(int count, char **words)
{
	struct sockaddr_in there;
	int connecting, fd = -1;
	double start, end;
	long done = 0;

	if (count != 5) {
		fputs("lb_client serve|connect|ask ADDRESS PORT NUMBER\n", stderr);
		return 3;
	}
	if (!strcmp(words[1], "serve"))
		serve(words[2], atoi(words[3]), atoi(words[4]));
	there = address_of(words[2], atoi(words[3]));
	connecting = !strcmp(words[1], "connect");
	if (!connecting)
		fd = opened(&there);
	start = now();
	end = start + atof(words[4]);
	for (; now() < end; done++) {
		if (connecting)
			fd = opened(&there);
		ask(fd);
		if (connecting)
			close(fd);
	}
	printf("%.1f\n", done / (now() - start));
	return 0;
}
