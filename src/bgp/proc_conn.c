/* The engine's connections as TCP sockets: listening, connecting, reading, writing, last words. */
#include "base/fd.h"
#include "bgp/proc_int.h"
#include "netlink/route.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    READ_BYTES = 65536,
    READS_A_TURN = 8,       /* of one connection, before others have their turn */
    WRITE_A_TURN = 1 << 20, /* likewise, bytes */
    ACCEPTS_A_TURN = 64,
    LINGER_MS = 3000, /* for last words to arrive */
    LINGERS_MAX = 1024,
};

struct peer_state *proc_peer(const struct bgp_proc *p, uint16_t peer) {
    return peer_map_get(&p->peers, peer);
}

static struct link_conn *conn_find(const struct bgp_proc *p, uint32_t id) {
    struct link_conn **c = conn_map_get(&p->conns, id);
    return c ? *c : NULL;
}

static void conn_free(struct link_conn *c) {
    (void)conn_map_del(&c->p->conns, c->id);
    loop_poll_free(c->poll);
    fd_close(&c->fd);
    free(c);
}

static void conn_interest(struct link_conn *c) {
    unsigned events = c->is_connecting ? LOOP_WRITE
                                       : (c->is_paused ? 0U : (unsigned)LOOP_READ) |
                                             (c->wants_write ? (unsigned)LOOP_WRITE : 0U);
    loop_poll_set(c->poll, events);
}

/* ---- last words ---- */

static void parting_free(struct parting *l) {
    for (size_t i = 0; i < l->p->lingers.n; i++) {
        if (l->p->lingers.p[i] == l) {
            vec_swap_remove(&l->p->lingers, i);
            break;
        }
    }
    loop_poll_free(l->poll);
    loop_timer_free(l->timer);
    fd_close(&l->fd);
    buf_fini(&l->rest);
    free(l);
}

static void on_linger_timer(void *arg) {
    parting_free(arg);
}

/* Sends what is left, then waits for the other side to close: closing a socket with unread bytes
 * would reset the connection, and the NOTIFICATION with it. */
static void on_linger(void *arg, unsigned events) {
    struct parting *l = arg;
    char drop[4096];
    if ((events & LOOP_WRITE) && l->rest.n) {
        ssize_t n = send(l->fd, l->rest.p, l->rest.n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            parting_free(l);
            return;
        }
        buf_consume(&l->rest, n > 0 ? (size_t)n : 0);
        if (l->rest.n == 0) {
            (void)shutdown(l->fd, SHUT_WR); /* best effort: it is closed soon anyway */
            loop_poll_set(l->poll, LOOP_READ);
        }
    }
    if (events & LOOP_READ) {
        ssize_t n = recv(l->fd, drop, sizeof(drop), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            parting_free(l);
        }
    }
}

static void conn_linger(struct link_conn *c, const void *last, size_t n) {
    struct bgp_proc *p = c->p;
    if (c->is_connecting || p->lingers.n >= LINGERS_MAX) {
        conn_free(c);
        return;
    }
    struct parting *l = calloc(1, sizeof(*l));
    mg_assert(l);
    l->p = p;
    l->rest = BUF_INIT(BGP_MAX_EXT + BGP_MAX);
    if (n) {
        buf_add(&l->rest, last, n);
    }
    loop_poll_free(c->poll);
    c->poll = NULL;
    l->fd = TAKE_FD(c->fd);
    conn_free(c);
    if (n == 0) {
        (void)shutdown(l->fd, SHUT_WR);
    }
    l->poll = loop_poll_new(p->loop, l->fd, n ? LOOP_READ | LOOP_WRITE : LOOP_READ, on_linger, l);
    l->timer = loop_timer_new(p->loop, on_linger_timer, l);
    loop_timer_start(l->timer, LINGER_MS, 0);
    vec_push(&p->lingers, l);
}

/* ---- reading and writing ---- */

/* Writes what the engine has for a connection. False: the connection is over. */
static bool pump(struct bgp_proc *p, uint32_t id) {
    struct link_conn *c;
    size_t sum = 0;
    while ((c = conn_find(p, id)) != NULL && !c->is_connecting) {
        struct str out = speaker_output(p->speaker, id, proc_now(p));
        if (out.n == 0) {
            break;
        }
        ssize_t n = send(c->fd, out.p, out.n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno != EAGAIN) {
            conn_free(c);
            speaker_closed(p->speaker, id, proc_now(p));
            return false;
        }
        if (n > 0) {
            speaker_sent(p->speaker, id, (size_t)n, proc_now(p));
            sum += (size_t)n;
        }
        c = conn_find(p, id);
        if (c && (n < 0 || (size_t)n < out.n || sum >= WRITE_A_TURN)) {
            c->wants_write = true; /* the rest when the socket has room, or others had their turn */
            conn_interest(c);
            return true;
        }
    }
    if (!c) {
        return false;
    }
    bool paused = speaker_wants_pause(p->speaker, id);
    if (c->wants_write || c->is_paused != paused) {
        c->wants_write = false;
        c->is_paused = paused;
        conn_interest(c);
    }
    return true;
}

static void take_input(struct bgp_proc *p, uint32_t id) {
    static char data[READ_BYTES];
    struct link_conn *c;
    for (int i = 0; i < READS_A_TURN && (c = conn_find(p, id)) != NULL && !c->is_paused; i++) {
        ssize_t n = recv(c->fd, data, sizeof(data), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            conn_free(c);
            speaker_closed(p->speaker, id, proc_now(p));
            return;
        }
        speaker_input(p->speaker, id, data, (size_t)n, proc_now(p));
        c = conn_find(p, id);
        if (c && speaker_wants_pause(p->speaker, id)) {
            c->is_paused = true;
            conn_interest(c);
        }
        if ((size_t)n < sizeof(data)) {
            return;
        }
    }
}

static struct ip46 own_address(int fd) {
    union sock_addr a = {0};
    socklen_t n = sizeof(a);
    struct ip46 ip = {0};
    if (getsockname(fd, &a.sa, &n) == 0) {
        sock_addr_get(&a, &ip, NULL);
    }
    return ip;
}

/* The addresses that next hops are made of. */
static void tell_addrs(struct bgp_proc *p, uint32_t id, int fd, const struct ip46 *local) {
    uint16_t peer = speaker_conn_peer(p->speaker, id);
    struct peer_state *st = peer ? peer_map_put(&p->peers, peer, NULL) : NULL;
    union sock_addr a = {0};
    socklen_t n = sizeof(a);
    struct ip46 v4 = {0}, v6 = {0}, ll = {0};
    int ifindex = getsockname(fd, &a.sa, &n) == 0 ? sock_addr_ifindex(&a) : 0;
    if (p->kernel) {
        ifindex = ifindex ? ifindex : bgp_kernel_addr_owner(p->kernel, local);
        bgp_kernel_addrs(p->kernel, ifindex, &v4, &v6, &ll);
    }
    /* The node's own address of the other family is as good as an interface's, and known. */
    for (int f = 0; f < BGP_N_FAMILIES && p->conf; f++) {
        struct ip46 *to = f == BGP_V4 ? &v4 : &v6;
        if (!to->family && p->conf->node[f].ip.family) {
            *to = p->conf->node[f].ip;
        }
    }
    if (local->family == IP_V4) {
        v4 = *local;
    } else if (!ip_is_link_local(local)) {
        v6 = *local;
    } else {
        ll = *local;
    }
    speaker_conn_addrs(p->speaker, id, &v4, &v6, &ll);
    if (st) {
        st->local = *local;
        st->ifindex = ifindex;
    }
    if (peer) {
        union sock_addr far = {0};
        struct ip46 ip;
        uint16_t port = 0, remote_port = 0;
        n = sizeof(far);
        if (getpeername(fd, &far.sa, &n) == 0) {
            sock_addr_get(&far, &ip, &remote_port);
        }
        sock_addr_get(&a, &ip, &port);
        bgp_monitor_conn(p->monitor, peer, local, port, remote_port);
    }
}

static void on_connected(struct bgp_proc *p, struct link_conn *c) {
    uint32_t id = c->id;
    int r = sock_error(c->fd);
    if (r < 0) {
        conn_free(c);
        speaker_closed(p->speaker, id, proc_now(p));
        return;
    }
    c->is_connecting = false;
    conn_interest(c);
    struct ip46 local = own_address(c->fd);
    tell_addrs(p, id, c->fd, &local);
    speaker_connected(p->speaker, id, &local, proc_now(p));
    /* What a peer offers depends on these; a connection that is over ignores them. */
    if ((c = conn_find(p, id)) != NULL) {
        tell_addrs(p, id, c->fd, &local);
    }
}

static void on_conn(void *arg, unsigned events) {
    struct link_conn *c = arg;
    struct bgp_proc *p = c->p;
    uint32_t id = c->id;
    if (c->is_connecting) {
        on_connected(p, c);
    } else {
        if (events & LOOP_READ) {
            take_input(p, id);
        }
        if (events & LOOP_WRITE) {
            (void)pump(p, id);
        }
    }
    bgp_proc_kick(p);
}

static struct link_conn *conn_new(struct bgp_proc *p, uint32_t id, int take_fd,
                                  bool is_connecting) {
    struct link_conn *c = calloc(1, sizeof(*c));
    mg_assert(c);
    c->p = p;
    c->id = id;
    c->fd = take_fd;
    c->is_connecting = is_connecting;
    c->poll = loop_poll_new(p->loop, c->fd, is_connecting ? LOOP_WRITE : LOOP_READ, on_conn, c);
    *conn_map_put(&p->conns, id, NULL) = c;
    return c;
}

/* ---- what the engine asks for: no call back into it from here ---- */

/* By name: the engine may ask before it has told the peer's number. */
static const struct conf_peer *conf_of(const struct bgp_proc *p, struct str name) {
    for (size_t i = 0; p->conf && i < p->conf->n_peers; i++) {
        if (str_eq(p->conf->peers[i].c.name, name)) {
            return &p->conf->peers[i];
        }
    }
    return NULL;
}

static void fill_tcp(const struct bgp_proc *p, uint16_t peer, struct sock_tcp *t) {
    const struct peer_config *c = speaker_peer_config(p->speaker, peer);
    const struct conf_peer *conf = conf_of(p, c->name);
    *t = (struct sock_tcp){.peer = c->address,
                           .local = c->local,
                           .port = c->port ? c->port : BGP_PORT,
                           .ifindex = (int)c->ifindex,
                           .hops = c->gtsm ? (c->ttl ? c->ttl : 1) : 0,
                           .ttl = c->gtsm ? 0 : c->ttl};
    if (conf) {
        t->password = conf->password;
        t->ao = conf->ao;
    }
}

static void on_connect(void *user, uint32_t conn, uint16_t peer) {
    struct bgp_proc *p = user;
    struct sock_tcp t;
    struct err e;
    int fd = -1;
    fill_tcp(p, peer, &t);
    if (sock_tcp_connect(&t, &fd, &e) < 0) {
        if (log_allow(&p->connect_limit, 10, 60)) {
            LOG_I("bgp", "connect_failed", "error=%s", log_quote(str_c(e.msg)));
        }
        vec_push(&p->failed, conn);
        loop_defer_ask(p->defer);
        return;
    }
    (void)conn_new(p, conn, fd, true);
}

static void on_close(void *user, uint32_t conn, const void *last, size_t n) {
    struct link_conn *c = conn_find(user, conn);
    if (c) {
        conn_linger(c, last, n);
    }
}

static void on_wake(void *user, uint32_t conn) {
    struct bgp_proc *p = user;
    vec_push(&p->wakes, conn);
    loop_defer_ask(p->defer);
}

static int ifindex_of(const struct bgp_proc *p, uint16_t peer) {
    const struct peer_state *st = proc_peer(p, peer);
    return st ? st->ifindex : 0;
}

static void on_route(void *user, const struct speaker_route *r) {
    struct bgp_proc *p = user;
    struct kernel_hop hops[ROUTE_WAYS_MAX];
    size_t n = 0;
    for (unsigned i = 0; i < r->n_hops && n < ROUTE_WAYS_MAX; i++) {
        const struct route_hop *h = &r->hops[i];
        bool is_ll = h->ip.family == IP_NONE || ip_is_link_local(&h->ip);
        hops[n++] = (struct kernel_hop){.ip = h->ip,
                                        .link_local = is_ll ? h->link_local : (struct ip46){0},
                                        .ifindex = is_ll ? ifindex_of(p, h->peer) : 0,
                                        .weight = h->weight};
    }
    bgp_kernel_route(p->kernel, &r->prefix, hops, n, r->local_pref);
}

static void on_nexthop(void *user, const struct ip46 *ip, const struct ip46 *link_local,
                       uint16_t peer, bool is_watched) {
    struct bgp_proc *p = user;
    bgp_kernel_watch(p->kernel, ip, link_local, ifindex_of(p, peer), is_watched);
}

static void on_message(void *user, uint16_t peer, bool is_sent, const uint8_t *m, size_t n) {
    struct bgp_proc *p = user;
    bgp_monitor_message(p->monitor, peer, is_sent, m, n);
}

const struct speaker_ops proc_ops = {
    .connect = on_connect,
    .close = on_close,
    .wake = on_wake,
    .route = on_route,
    .nexthop = on_nexthop,
    .event = proc_on_event,
    .message = on_message,
};

void proc_serve(struct bgp_proc *p) {
    for (size_t i = 0; i < p->failed.n; i++) {
        speaker_closed(p->speaker, p->failed.p[i], proc_now(p));
    }
    vec_clear(&p->failed);
    /* Pumping may wake others: these wait for the next turn. */
    size_t n = p->wakes.n;
    for (size_t i = 0; i < n; i++) {
        struct link_conn *c = conn_find(p, p->wakes.p[i]);
        if (c && !c->is_connecting && !c->wants_write) {
            (void)pump(p, c->id);
        }
    }
    memmove(p->wakes.p, p->wakes.p + n, (p->wakes.n - n) * sizeof(*p->wakes.p));
    p->wakes.n -= n;
    if (p->wakes.n) {
        loop_defer_ask(p->defer);
    }
}

/* ---- listening ---- */

static void accept_one(struct bgp_proc *p, int take_fd, const union sock_addr *from) {
    MG_CLEANUP(fd_close) int fd = take_fd;
    struct ip46 remote, local = own_address(fd);
    sock_addr_get(from, &remote, NULL);
    int ifindex = sock_addr_ifindex(from);
    uint32_t id = speaker_accept(p->speaker, &remote, &local, (uint32_t)ifindex, proc_now(p));
    uint16_t peer = id ? speaker_conn_peer(p->speaker, id) : 0;
    if (!peer) {
        char text[IP_TEXT_MAX];
        if (log_allow(&p->accept_limit, 5, 60)) {
            LOG_I("bgp", "connection_refused", "from=%s reason=%s", ip_text(&remote, text),
                  "\"no session is expected from there now\"");
        }
        return;
    }
    struct sock_tcp t;
    fill_tcp(p, peer, &t);
    t.peer = remote;
    if ((t.ao.n && !sock_ao_is_on(fd)) || sock_tcp_accepted(fd, &t) < 0) {
        speaker_closed(p->speaker, id, proc_now(p));
        return;
    }
    struct link_conn *c = conn_new(p, id, TAKE_FD(fd), false);
    tell_addrs(p, id, c->fd, &local);
    (void)pump(p, id);
}

static void on_accept(void *arg, unsigned events) {
    struct listener *l = arg;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        union sock_addr from = {0};
        socklen_t n = sizeof(from);
        int fd = accept4(l->fd, &from.sa, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            break;
        }
        accept_one(l->p, fd, &from);
    }
    bgp_proc_kick(l->p);
}

static void listener_close(struct listener *l) {
    loop_poll_free(l->poll);
    l->poll = NULL;
    fd_close(&l->fd);
}

int proc_listen(struct bgp_proc *p, struct err *e) {
    bool is_new = false;
    int rc = 0;
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        struct listener *l = &p->listeners[f];
        struct ip46 addr = p->conf->bind_node_ip ? p->conf->node[f].ip : (struct ip46){0};
        bool want = !p->conf->bind_node_ip || addr.family;
        if (l->fd >= 0 && want && l->port == p->conf->listen_port && ip_eq(&l->addr, &addr)) {
            continue;
        }
        listener_close(l);
        int r = want ? sock_tcp_listen(bgp_family_ip((enum bgp_family)f), &addr,
                                       p->conf->listen_port, &l->fd, e)
                     : 0;
        if (r == -EAFNOSUPPORT) {
            continue; /* a kernel without IPv6 */
        }
        if (r < 0) {
            rc = r;
            continue;
        }
        if (want) {
            l->p = p;
            l->port = p->conf->listen_port;
            l->addr = addr;
            l->poll = loop_poll_new(p->loop, l->fd, LOOP_READ, on_accept, l);
            is_new = true;
        }
    }
    proc_keys_listen(p, is_new);
    return rc;
}

void proc_conns_free(struct bgp_proc *p) {
    struct link_conn **c;
    for (int f = 0; f < BGP_N_FAMILIES; f++) {
        listener_close(&p->listeners[f]);
    }
    while (p->lingers.n) {
        parting_free(p->lingers.p[0]);
    }
    for (size_t i = 0; conn_map_next(&p->conns, &i, NULL, &c);) {
        loop_poll_free((*c)->poll);
        fd_close(&(*c)->fd);
        free(*c);
    }
    conn_map_fini(&p->conns);
    vec_fini(&p->lingers);
    vec_fini(&p->wakes);
    vec_fini(&p->failed);
    vec_fini(&p->keys);
}
