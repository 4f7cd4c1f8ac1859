/* The CNI server as a program of its own, for test_server.py: plugins connect to SOCKET, the test
 * steers it by lines on stdin and reads one line of answer to each.
 *     put KIND NS NAME JSON | del KIND NS NAME | get KIND NS NAME | keys | stats
 *     hold | release CODE (answers of when_enforced) | spool DIR | sync | quit */
#include "base/fd.h"
#include "base/log.h"
#include "cni/server.h"
#ifdef HOST_WITH_IPAM
#include "ipam/ipam.h"
#else
#include "fake_ipam.h"
#endif

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WAITS_MAX 512

struct host {
    struct loop *loop;
    struct store *store;
    struct links *links;
    struct cni_server *server;
    int listener;
    struct buf in;
    bool is_holding;
    struct {
        void (*cb)(void *, int);
        void *arg;
        uint64_t revision;
    } waits[WAITS_MAX];
    size_t n_waits, n_asked;
};

static void when_enforced(void *arg, struct str key MG_UNUSED, uint64_t revision,
                          int64_t timeout_ms MG_UNUSED, void (*cb)(void *, int), void *cb_arg) {
    struct host *h = arg;
    h->n_asked++;
    if (!h->is_holding) {
        cb(cb_arg, 0);
        return;
    }
    mg_assert(h->n_waits < WAITS_MAX);
    h->waits[h->n_waits].cb = cb;
    h->waits[h->n_waits].arg = cb_arg;
    h->waits[h->n_waits++].revision = revision;
}

static const struct cni_server_ops ops = {.when_enforced = when_enforced};

static void on_accept(void *arg, unsigned events MG_UNUSED) {
    struct host *h = arg;
    char magic[4];
    int fd = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0 && recv(fd, magic, sizeof(magic), MSG_PEEK | MSG_WAITALL) == 4 &&
        memcmp(magic, "MGC1", 4) == 0) {
        cni_server_connection(h->server, fd);
    } else {
        fd_close(&fd);
    }
}

static int print_key(void *arg MG_UNUSED, const struct store_item *it) {
    printf("%.*s ", STR_FMT(it->key));
    return 0;
}

static void on_object(struct host *h, struct str kind, struct str ns, struct str name) {
    const struct kind *k = kind_by_store_name(kind);
    if (k) {
        cni_server_object(h->server, k, ns, name);
    }
}

static void print_stats(struct host *h) {
    struct cni_server_stats s;
    struct links_stats l;
    cni_server_stats(h->server, &s);
    links_stats(h->links, &l);
    printf("{\"requests\":%zu,\"attachments\":%zu,\"adds\":%llu,\"dels\":%llu,\"errors\":%llu,"
           "\"removals\":%llu,\"spooled\":%llu,\"asked\":%zu,\"waits\":%zu,\"add_ns\":%lld,"
           "\"kernel_ns\":%lld,\"link_writes\":%llu,\"link_repairs\":%llu,\"links\":%zu}",
           s.n_requests, s.n_attachments, (unsigned long long)s.adds, (unsigned long long)s.dels,
           (unsigned long long)s.errors, (unsigned long long)s.removals,
           (unsigned long long)s.spooled, h->n_asked, h->n_waits, (long long)s.last_add_ns,
           (long long)s.last_add_kernel_ns, (unsigned long long)l.writes,
           (unsigned long long)l.repairs, l.n_ifaces);
}

static void release(struct host *h, int code) {
    h->is_holding = false;
    for (size_t i = 0; i < h->n_waits; i++) {
        h->waits[i].cb(h->waits[i].arg, code);
    }
    h->n_waits = 0;
}

static void on_line(struct host *h, struct str line) {
    struct arena a = {0};
    struct err e = {0};
    struct store_item it;
    uint64_t revision;
    struct str rest = line;
    struct str cmd = str_cut(&rest, ' ');
    int r = 0;
    if (str_is(cmd, "hold")) {
        h->is_holding = true;
    } else if (str_is(cmd, "release")) {
        int64_t code = 0;
        r = str_to_i64(rest, &code);
        release(h, (int)code);
    } else if (str_is(cmd, "spool")) {
        r = cni_server_spool(h->server, arena_cstr(&a, rest));
        printf("%d ", r);
    } else if (str_is(cmd, "stats")) {
        print_stats(h);
    } else if (str_is(cmd, "sync")) {
        r = links_sync(h->links, &e);
    } else if (str_is(cmd, "quit")) {
        loop_stop(h->loop);
    } else if (str_is(cmd, "keys")) {
        r = store_list(h->store, (struct store_key){STR(STORE_SPACE_RESOURCES), STR("")}, &revision,
                       print_key, NULL, &e);
        r = r < 0 ? r
                  : store_list(h->store, (struct store_key){STR(STORE_SPACE_IPAM), STR("")},
                               &revision, print_key, NULL, &e);
    } else {
        struct str kind = str_cut(&rest, ' ');
        struct str ns = str_cut(&rest, ' ');
        struct str name = str_cut(&rest, ' ');
        const struct kind *k = kind_by_store_name(kind);
        mg_assert(k != NULL);
        ns = str_is(ns, "-") ? STR("") : ns;
        struct store_key key = {STR(STORE_SPACE_RESOURCES), kind_store_key(k, ns, name, &a)};
        if (str_is(cmd, "put")) {
            r = store_put(h->store, key, rest, REV_ANY, NULL, &e);
            on_object(h, kind, ns, name);
        } else if (str_is(cmd, "del")) {
            r = store_delete(h->store, key, REV_ANY, &e);
            on_object(h, kind, ns, name);
        } else {
            r = store_get(h->store, key, &a, &it, &e);
            if (r == 0) {
                printf("%.*s", STR_FMT(it.value));
            }
        }
    }
    if (r < 0) {
        printf("ERROR %s %s", err_name(r), e.msg);
    }
    printf("\n");
    (void)fflush(stdout);
    arena_fini(&a);
}

static void on_stdin(void *arg, unsigned events MG_UNUSED) {
    struct host *h = arg;
    char *p = buf_reserve(&h->in, 65536);
    ssize_t n = p ? read(STDIN_FILENO, p, 65536) : 0;
    if (n <= 0) {
        loop_stop(h->loop);
        return;
    }
    h->in.n += (size_t)n;
    for (;;) {
        ptrdiff_t at = str_find(buf_view(&h->in), '\n', 0);
        if (at < 0) {
            return;
        }
        on_line(h, str_n(h->in.p, (size_t)at));
        buf_consume(&h->in, (size_t)at + 1);
    }
}

/* Built twice: for what requests ask of address management, and with the real one. */
#ifdef HOST_WITH_IPAM
static int open_ipam(struct store *s, const char *node, struct ipam **out, struct err *e) {
    *out = ipam_new(s, str_c(node));
    return *out ? 0 : err_set(e, ERR_INVALID, "no IPAM");
}
static void close_ipam(struct ipam *m) {
    ipam_free(m);
}
#else
static int open_ipam(struct store *s, const char *node, struct ipam **out, struct err *e) {
    return ipam_for_test(s, node, out, e);
}
static void close_ipam(struct ipam *m MG_UNUSED) {
}
#endif

int main(int argc, char **argv) {
    struct host h = {.loop = loop_new(), .in = BUF_INIT(8 << 20)};
    struct links_settings ls = {0};
    struct err e = {0};
    struct ipam *ipam = NULL;
    if (argc != 4) {
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    log_level_set(LOG_WARN);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", argv[1]);
    h.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(h.listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(h.listener, 512) < 0) {
        return 3;
    }
    h.links = links_new(h.loop, &ls, &e);
    if (!h.links || store_open(argv[2], &h.store, &e) < 0 ||
        open_ipam(h.store, argv[3], &ipam, &e) < 0) {
        (void)fprintf(stderr, "%s\n", e.msg);
        return 4;
    }
    struct cni_server_settings s = {.node_name = str_c(argv[3]), .links = h.links};
    struct store_worker *worker = store_worker_new(h.loop, h.store);
    h.server = cni_server_new(h.loop, h.store, worker, ipam, &s, &ops, &h, &e);
    if (!h.server) {
        (void)fprintf(stderr, "%s\n", e.msg);
        return 5;
    }
    struct loop_poll *p1 = loop_poll_new(h.loop, h.listener, LOOP_READ, on_accept, &h);
    struct loop_poll *p2 = loop_poll_new(h.loop, STDIN_FILENO, LOOP_READ, on_stdin, &h);
    printf("ready\n");
    (void)fflush(stdout);
    loop_run(h.loop);
    store_worker_free(worker);
    cni_server_free(h.server);
    links_free(h.links);
    close_ipam(ipam);
    store_close(h.store);
    loop_poll_free(p1);
    loop_poll_free(p2);
    loop_free(h.loop);
    buf_fini(&h.in);
    return 0;
}
