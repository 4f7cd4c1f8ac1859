/* Names to addresses. getaddrinfo blocks for as long as its resolvers let it, half a minute and
 * more: each lookup has a thread of its own rather than one of the loop's few workers, as those may
 * all be waiting for calls that wait for a name. The thread owns its job; a lookup that is freed
 * leaves it to the thread. */
#include "http/http_int.h"

#include "base/fd.h"

#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LOOKUPS_MAX = 32 }; /* threads at once, of all clients */

static atomic_int n_threads;

struct job {
    atomic_int refs;
    char *host;
    uint16_t port;
    int done_fd; /* eventfd; both sides hold the job, the last one closes it */
    struct http_addresses found;
    char reason[160];
};

struct http_lookup {
    struct job *job;
    struct loop_poll *poll;
    struct loop_defer *defer; /* answers that are known at once */
    void (*cb)(void *, const struct http_addresses *, const char *);
    void *arg;
};

static void job_unref(struct job *j) {
    if (atomic_fetch_sub(&j->refs, 1) == 1) {
        fd_close(&j->done_fd);
        free(j->host);
        free(j);
    }
}

static void resolve(struct job *j, int flags) {
    char port[8];
    (void)snprintf(port, sizeof(port), "%u", j->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int r = getaddrinfo(j->host, port, &hints, &list);
    if (r != 0) {
        (void)snprintf(j->reason, sizeof(j->reason), "the name can't be looked up: %s",
                       r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
        return;
    }
    for (struct addrinfo *it = list; it && j->found.n < HTTP_ADDRESSES_MAX; it = it->ai_next) {
        if (it->ai_addrlen <= sizeof(j->found.a[0])) {
            memcpy(&j->found.a[j->found.n], it->ai_addr, it->ai_addrlen);
            j->found.len[j->found.n++] = it->ai_addrlen;
        }
    }
    freeaddrinfo(list);
}

static void *thread_main(void *arg) {
    struct job *j = arg;
    resolve(j, AI_ADDRCONFIG);
    uint64_t one = 1;
    /* Fails only when the counter is full, which one write never does. */
    (void)!write(j->done_fd, &one, sizeof(one));
    job_unref(j);
    atomic_fetch_sub(&n_threads, 1);
    return NULL;
}

static void tell(struct http_lookup *q) {
    struct job *j = q->job;
    atomic_fetch_add(&j->refs, 1); /* cb may free the lookup */
    q->cb(q->arg, &j->found, j->reason);
    job_unref(j);
}

static void on_done(void *arg, unsigned events MG_UNUSED) {
    struct http_lookup *q = arg;
    loop_poll_free(TAKE_PTR(q->poll));
    tell(q);
}

static void on_known(void *arg) {
    tell(arg);
}

/* False: no thread can be had; the job says why. */
static bool start_thread(struct job *j) {
    if (atomic_fetch_add(&n_threads, 1) >= LOOKUPS_MAX) {
        atomic_fetch_sub(&n_threads, 1);
        (void)snprintf(j->reason, sizeof(j->reason),
                       "%d name lookups are waiting for an answer already", LOOKUPS_MAX);
        return false;
    }
    pthread_attr_t attr;
    pthread_t t;
    mg_assert(pthread_attr_init(&attr) == 0);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    atomic_fetch_add(&j->refs, 1);
    int r = pthread_create(&t, &attr, thread_main, j);
    (void)pthread_attr_destroy(&attr);
    if (r != 0) {
        atomic_fetch_sub(&n_threads, 1);
        atomic_fetch_sub(&j->refs, 1);
        (void)snprintf(j->reason, sizeof(j->reason), "no thread for a name lookup: %s",
                       strerror(r));
        return false;
    }
    return true;
}

struct http_lookup *http_lookup_new(struct loop *l, const char *host, uint16_t port,
                                    void (*cb)(void *arg, const struct http_addresses *a,
                                               const char *reason),
                                    void *arg) {
    struct http_lookup *q = calloc(1, sizeof(*q));
    struct job *j = calloc(1, sizeof(*j));
    mg_assert(q != NULL && j != NULL);
    *q = (struct http_lookup){.job = j, .cb = cb, .arg = arg};
    atomic_init(&j->refs, 1);
    j->host = strdup(host);
    mg_assert(j->host != NULL);
    j->port = port;
    j->done_fd = -1;
    resolve(j, AI_NUMERICHOST);
    if (j->found.n == 0) {
        j->reason[0] = '\0';
        j->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (j->done_fd < 0) {
            (void)snprintf(j->reason, sizeof(j->reason), "eventfd: %s", strerror(errno));
        } else if (start_thread(j)) {
            q->poll = loop_poll_new(l, j->done_fd, LOOP_READ, on_done, q);
            return q;
        }
    }
    q->defer = loop_defer_new(l, on_known, q);
    loop_defer_ask(q->defer);
    return q;
}

void http_lookup_free(struct http_lookup *q) {
    if (q) {
        loop_poll_free(q->poll);
        loop_defer_free(q->defer);
        job_unref(q->job);
        free(q);
    }
}
