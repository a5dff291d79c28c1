/*
 * sendmmsg: the limit for a sender of packets: a bare loop around sendmmsg() on a packet socket that bypasses the
 * queueing discipline, over a capture that is in memory before the clock starts.
 *
 *     sendmmsg DEVICE FILE        FILE: classic pcap in this machine's byte order, Ethernet
 *
 * Prints what tcpreplay prints about its speed.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

enum { BATCH = 256, FILE_HEADER = 24, RECORD_HEADER = 16 };

struct capture {
	char *data, *end;
};

static struct capture
load(const char *path)
{
	struct stat st;
	struct capture c;
	FILE *file = fopen(path, "rb");

	if (!file || fstat(fileno(file), &st))
		err(2, "%s", path);
	c.data = malloc(st.st_size);
	if (!c.data || fread(c.data, 1, st.st_size, file) != (size_t)st.st_size)
		err(2, "%s", path);
	c.end = c.data + st.st_size;
	fclose(file);
	return c;
}

static int
open_device(const char *name)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(name)};
	int one = 1, fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0 || !address.sll_ifindex || bind(fd, (struct sockaddr *)&address, sizeof address))
		err(2, "%s", name);
	if (setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one))
		err(2, "PACKET_QDISC_BYPASS");
	return fd;
}

/* Fills at most BATCH messages from p; returns where the next packet begins. */
static char *
fill(struct iovec *iov, unsigned *n, char *p, const char *end)
{
	uint32_t length;

	for (*n = 0; *n < BATCH && p < end; ++*n) {
		memcpy(&length, p + 8, sizeof length);
		iov[*n] = (struct iovec){p + RECORD_HEADER, length};
		p += RECORD_HEADER + length;
	}
	return p;
}

static void
send_all(int fd, struct mmsghdr *messages, unsigned n)
{
	while (n) {
		int sent = sendmmsg(fd, messages, n, 0);

		if (sent < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
			err(2, "sendmmsg");
		if (sent > 0) {
			messages += sent;
			n -= sent;
		}
	}
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	static struct iovec iov[BATCH];
	static struct mmsghdr messages[BATCH];
	struct capture c;
	unsigned long packets = 0;
	unsigned n;
	double start, seconds;
	char *p;
	int fd;

	if (argc != 3)
		errx(2, "usage: sendmmsg DEVICE FILE");
	fd = open_device(argv[1]);
	c = load(argv[2]);
	for (n = 0; n < BATCH; n++)
		messages[n].msg_hdr = (struct msghdr){.msg_iov = &iov[n], .msg_iovlen = 1};

	start = now();
	for (p = c.data + FILE_HEADER; p < c.end; packets += n) {
		p = fill(iov, &n, p, c.end);
		send_all(fd, messages, n);
	}
	seconds = now() - start;
	printf("Actual: %lu packets (%lu bytes) sent in %.6f seconds\nRated: %.2f pps\n", packets,
	    (unsigned long)(c.end - c.data) - FILE_HEADER - RECORD_HEADER * packets, seconds, packets / seconds);
	return 0;
}
