/* What a packet's way between two pods costs, over TCP from one process to another.
 *
 * usage: bench_path serve PORT
 *        bench_path stream|rounds|connects ADDRESS PORT MILLISECONDS
 * Prints bytes, round trips, connections a second. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 17, MAX_EVENTS = 64 };

static char chunk[CHUNK];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static struct sockaddr_in address(const char *ip, const char *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (ip && inet_pton(AF_INET, ip, &a.sin_addr) != 1) {
        (void)fprintf(stderr, "%s is no IPv4 address\n", ip);
        exit(1);
    }
    return a;
}

/* Answers a short message with the same, and swallows the rest. */
static _Noreturn void serve(const char *port) {
    struct sockaddr_in a = address(NULL, port);
    int one = 1, l = socket(AF_INET, SOCK_STREAM, 0), e = epoll_create1(0);
    (void)setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(l, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(l, 1024) < 0) {
        die("listen");
    }
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = l}, got[MAX_EVENTS];
    (void)epoll_ctl(e, EPOLL_CTL_ADD, l, &ev);
    (void)puts("ready");
    (void)fflush(stdout);
    for (;;) {
        int n = epoll_wait(e, got, MAX_EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = got[i].data.fd;
            if (fd == l) {
                int c = accept(l, NULL, NULL);
                (void)setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                ev.data.fd = c;
                (void)epoll_ctl(e, EPOLL_CTL_ADD, c, &ev);
                continue;
            }
            ssize_t r = recv(fd, chunk, sizeof(chunk), 0);
            if (r <= 0) {
                (void)close(fd);
            } else if (r == 1) {
                (void)!write(fd, chunk, 1);
            }
        }
    }
}

static int dial(const struct sockaddr_in *a) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0) {
        die("connect");
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static double stream(const struct sockaddr_in *a, double end) {
    double n = 0;
    int fd = dial(a);
    while (now() < end) {
        ssize_t w = write(fd, chunk, sizeof(chunk));
        if (w < 0) {
            die("write");
        }
        n += (double)w;
    }
    (void)close(fd);
    return n;
}

static double rounds(const struct sockaddr_in *a, double end) {
    double n = 0;
    int fd = dial(a);
    for (; now() < end; n++) {
        if (write(fd, chunk, 1) != 1 || read(fd, chunk, 1) != 1) {
            die("round");
        }
    }
    (void)close(fd);
    return n;
}

/* Closed by reset: none waits out its time and blocks a port. */
static double connects(const struct sockaddr_in *a, double end) {
    const struct linger now_off = {.l_onoff = 1, .l_linger = 0};
    double n = 0;
    for (; now() < end; n++) {
        int fd = dial(a);
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now_off, sizeof(now_off));
        (void)close(fd);
    }
    return n;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        double (*run)(const struct sockaddr_in *a, double end);
    } modes[] = {{"stream", stream}, {"rounds", rounds}, {"connects", connects}};
    if (argc == 3 && strcmp(argv[1], "serve") == 0) {
        serve(argv[2]);
    }
    for (size_t i = 0; argc == 5 && i < sizeof(modes) / sizeof(*modes); i++) {
        if (strcmp(argv[1], modes[i].name) == 0) {
            struct sockaddr_in a = address(argv[2], argv[3]);
            double seconds = atof(argv[4]) / 1000;
            (void)printf("%.0f\n", modes[i].run(&a, now() + seconds) / seconds);
            return 0;
        }
    }
    (void)fprintf(stderr, "usage: bench_path serve PORT\n"
                          "       bench_path stream|rounds|connects ADDRESS PORT MILLISECONDS\n");
    return 2;
}
