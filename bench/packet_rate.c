/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams in bursts, each of which is acknowledged: nothing is lost for want of a turn on the CPU, so what is counted is
 * what the way between the two costs.
 *
 *   packet_rate serve PORT SIZE              one byte back for each full burst
 *   packet_rate send ADDRESS PORT SIZE SECONDS   prints how many a second the median burst comes to: a machine that
 *                                                stalls for one does not count
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BURST 64
#define LARGEST 2048
#define PATIENCE_US 200000
#define MOST 1000000

static void need(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int by_length(const void *a, const void *b)
{
	double difference = *(const double *)a - *(const double *)b;

	return (difference > 0) - (difference < 0);
}

static void burst_of(struct mmsghdr *messages, struct iovec *parts, int size)
{
	static char bytes[BURST][LARGEST];

	memset(messages, 0, BURST * sizeof(*messages));
	for (int i = 0; i < BURST; i++) {
		parts[i] = (struct iovec){.iov_base = bytes[i], .iov_len = size};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
}

static void serve(int fd, struct sockaddr_in here, int size)
{
	struct mmsghdr messages[BURST];
	struct iovec parts[BURST];
	struct sockaddr_in asking;
	int seen = 0;

	need(bind(fd, (struct sockaddr *)&here, sizeof(here)), "bind");
	burst_of(messages, parts, size);
	for (;;) {
		int got;

		messages[0].msg_hdr.msg_name = &asking;
		messages[0].msg_hdr.msg_namelen = sizeof(asking);
		got = recvmmsg(fd, messages, BURST - seen, MSG_WAITFORONE, 0);
		need(got, "recvmmsg");
		if (messages[0].msg_len == 1) { /* the sender lost patience: it begins a new burst */
			seen = 0;
			continue;
		}
		seen += got;
		if (seen == BURST) {
			need(sendto(fd, "", 1, 0, (struct sockaddr *)&asking, sizeof(asking)), "sendto");
			seen = 0;
		}
	}
}

static void send_bursts(int fd, struct sockaddr_in there, int size, double seconds)
{
	struct timeval patience = {.tv_usec = PATIENCE_US};
	struct mmsghdr messages[BURST];
	struct iovec parts[BURST];
	static double took[MOST];
	double begun, end;
	int bursts = 0;
	char answer;

	need(connect(fd, (struct sockaddr *)&there, sizeof(there)), "connect");
	need(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), "setsockopt");
	burst_of(messages, parts, size);
	for (end = now() + seconds; now() < end && bursts < MOST;) {
		begun = now();
		for (int sent = 0; sent < BURST;) {
			int part = sendmmsg(fd, messages + sent, BURST - sent, 0);

			need(part, "sendmmsg");
			sent += part;
		}
		if (recv(fd, &answer, 1, 0) == 1)
			took[bursts++] = now() - begun;
		else
			need(send(fd, "", 1, 0), "send");
	}
	if (!bursts) {
		fputs("no burst was answered\n", stderr);
		exit(1);
	}
	qsort(took, bursts, sizeof(*took), by_length);
	printf("%.1f\n", BURST / took[bursts / 2]);
}

int main(int count, char **words)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in address = {.sin_family = AF_INET};

	if (count == 4 && !strcmp(words[1], "serve") && atoi(words[3]) <= LARGEST) {
		address.sin_port = htons(atoi(words[2]));
		serve(fd, address, atoi(words[3]));
	}
	if (count == 6 && !strcmp(words[1], "send") && atoi(words[4]) <= LARGEST) {
		inet_pton(AF_INET, words[2], &address.sin_addr);
		address.sin_port = htons(atoi(words[3]));
		send_bursts(fd, address, atoi(words[4]), atof(words[5]));
		return 0;
	}
	fputs("packet_rate serve PORT SIZE | packet_rate send ADDRESS PORT SIZE SECONDS\n", stderr);
	return 3;
}
