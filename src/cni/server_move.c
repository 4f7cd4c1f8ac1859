/* Virtual machines that move to this node: when one has come, its pod here becomes the active owner
 * of its addresses, and with that all nodes' routes to it follow (node/network.h). A machine has
 * come when its migration has succeeded, or at once when it says so itself: what runs it sends a
 * gratuitous ARP or a RARP the moment it goes on here. Done at the same place as in Calico, whose
 * Felix on the target's node does it (felix/dataplane/linux/live_migration.go).
 *
 * The migration is asked for once a second while a pod waits, and not otherwise. */
#include "cni/server_int.h"
#include "ipam/ipam.h"
#include "ipam/machines.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ASK_MS = 1000, FRAME_BYTES = 64, FRAMES_AT_ONCE = 64 };

struct cni_move {
    struct cni_server *s;
    struct arena a;
    struct str container, ifname, network, ns, pod, uid, iface;
    struct str handle, name; /* of the machine, once the worker knows them */
    int fd;                  /* -1: not listening */
    struct loop_poll *poll;
    bool is_here;   /* the machine has said so */
    bool is_asking; /* the worker has it */
    bool was_here;  /* as the worker was told */
    bool is_gone;   /* of no interest any more; freed when the worker gives it back */
    bool is_done;
    int code; /* of the last try */
    struct err error;
};

struct cni_moves {
    struct loop_timer *timer;
    VEC(struct cni_move *) v;
};

static void ask(struct cni_move *m);

static void stop_listening(struct cni_move *m) {
    loop_poll_free(m->poll);
    m->poll = NULL;
    if (m->fd >= 0) {
        (void)close(m->fd);
        m->fd = -1;
    }
}

static void free_move(struct cni_move *m) {
    stop_listening(m);
    arena_fini(&m->a);
    free(m);
}

/* ---- the machine's own word ---- */

/* A RARP, or an ARP for the sender's own address. */
static bool is_announcement(const uint8_t *p, size_t n) {
    uint16_t type;
    if (n < 14) {
        return false;
    }
    memcpy(&type, p + 12, 2);
    if (type == htons(ETH_P_RARP)) {
        return true;
    }
    /* 14 + 14: sender's IPv4 address; 14 + 24: target's. */
    return type == htons(ETH_P_ARP) && n >= 42 && memcmp(p + 28, p + 38, 4) == 0;
}

static void on_frame(void *arg, unsigned events MG_UNUSED) {
    struct cni_move *m = arg;
    uint8_t frame[FRAME_BYTES];
    for (int i = 0; i < FRAMES_AT_ONCE; i++) {
        struct sockaddr_ll from;
        socklen_t n_from = sizeof(from);
        ssize_t n = recvfrom(m->fd, frame, sizeof(frame), MSG_DONTWAIT | MSG_TRUNC,
                             (struct sockaddr *)&from, &n_from);
        if (n < 0) {
            break;
        }
        size_t have = (size_t)n < sizeof(frame) ? (size_t)n : sizeof(frame);
        if (from.sll_pkttype != PACKET_OUTGOING && is_announcement(frame, have)) {
            LOG_I("cni", "machine_announced", "pod=%.*s/%.*s", STR_FMT(m->ns), STR_FMT(m->pod));
            m->is_here = true;
            stop_listening(m);
            ask(m);
            return;
        }
    }
}

/* Frames of the pod that are ARP or RARP. Without it the migration's own word has to do. */
static void listen_to(struct cni_move *m) {
    /* Ethernet type at 12: 0x0806 or 0x8035, all of it; else nothing. */
    static struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_ARP, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_RARP, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0xffff),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog prog = {.len = ARRAY_LEN(code), .filter = code};
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    at.sll_ifindex = cni_host_link(m->s, m->iface);
    if (!at.sll_ifindex) {
        return;
    }
    /* Protocol 0: it hears nothing before it has its filter and its interface. */
    m->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (m->fd < 0 || setsockopt(m->fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0 ||
        bind(m->fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
        LOG_W("cni", "machine_not_heard", "iface=%.*s error=%s", STR_FMT(m->iface),
              err_name(-errno));
        stop_listening(m);
        return;
    }
    m->poll = loop_poll_new(m->s->loop, m->fd, LOOP_READ, on_frame, m);
}

/* ---- asking, and moving its addresses ---- */

static int move_if_here(struct cni_move *m, struct err *e) {
    struct cni_server *s = m->s;
    enum machine_move state = MOVE_DONE;
    int r = m->handle.n
                ? 0
                : cni_machine_of(s, m->network, m->ns, m->pod, &m->a, &m->handle, &m->name, e);
    m->is_done = r == ERR_NOT_FOUND; /* it has no address of a machine's */
    if (r == 0 && !m->was_here) {
        struct store *kube = cni_kube(s);
        r = kube ? machine_move(kube, m->ns, m->name, m->uid, s->node, &state, e)
                 : err_set(e, ERR_UNAVAILABLE, "no API server is known yet");
    }
    if (r == 0 && state == MOVE_DONE) {
        r = ipam_owner_promote(s->ipam, m->handle, m->ns, m->pod, e);
        m->is_done = true;
    }
    return r;
}

static void work_move(struct store *st MG_UNUSED, void *arg) {
    struct cni_move *m = arg;
    m->is_done = false;
    m->error = (struct err){0};
    m->code = move_if_here(m, &m->error);
}

static void forget(struct cni_server *s, struct cni_move *m) {
    for (size_t i = 0; i < s->moves->v.n; i++) {
        if (s->moves->v.p[i] == m) {
            vec_swap_remove(&s->moves->v, i);
            break;
        }
    }
    if (s->moves->v.n == 0) {
        loop_timer_stop(s->moves->timer);
    }
    stop_listening(m);
    m->is_gone = true;
    if (!m->is_asking) {
        free_move(m);
    }
}

static void moved(void *arg, int code) {
    struct cni_move *m = arg;
    static struct log_limit limit;
    m->is_asking = false;
    if (m->is_gone || code < 0) {
        if (m->is_gone) {
            free_move(m);
        }
        return;
    }
    /* Not an owner, or nothing held: whatever became of the migration, it isn't this pod's. */
    bool is_over =
        m->is_done && (m->code == 0 || m->code == ERR_INVALID || m->code == ERR_NOT_FOUND);
    if (is_over) {
        LOG_I("cni", m->code == 0 ? "machine_moved" : "machine_not_moved", "pod=%.*s/%.*s%s%s",
              STR_FMT(m->ns), STR_FMT(m->pod), m->code ? " why=" : "",
              m->code ? log_quote(str_c(m->error.msg)) : "");
        forget(m->s, m);
    } else if (m->code < 0 && log_allow(&limit, 5, 60)) {
        LOG_W("cni", "machine_move_unknown", "pod=%.*s/%.*s error=%s", STR_FMT(m->ns),
              STR_FMT(m->pod), log_quote(str_c(m->error.msg)));
    }
    if (!is_over && m->is_here && !m->was_here) {
        ask(m); /* it has come meanwhile */
    }
}

static void ask(struct cni_move *m) {
    if (!m->is_asking) {
        m->is_asking = true;
        m->was_here = m->is_here;
        store_worker_run(m->s->worker, work_move, moved, m);
    }
}

static void on_timer(void *arg) {
    struct cni_server *s = arg;
    /* A job that ends at once takes its move out of the list. */
    for (size_t i = s->moves->v.n; i-- > 0;) {
        if (i < s->moves->v.n) {
            ask(s->moves->v.p[i]);
        }
    }
}

/* ---- life ---- */

void cni_move_drop(struct cni_server *s, struct str container, struct str ifname) {
    for (size_t i = s->moves ? s->moves->v.n : 0; i-- > 0;) {
        struct cni_move *m = s->moves->v.p[i];
        if (str_eq(m->container, container) && str_eq(m->ifname, ifname)) {
            forget(s, m);
        }
    }
}

void cni_move_add(struct cni_server *s, const struct cni_attachment *t, struct str uid) {
    if (!s->moves) {
        s->moves = calloc(1, sizeof(*s->moves));
        mg_assert(s->moves != NULL);
        s->moves->timer = loop_timer_new(s->loop, on_timer, s);
    }
    cni_move_drop(s, t->container, t->ifname);
    struct cni_move *m = calloc(1, sizeof(*m));
    mg_assert(m != NULL);
    *m = (struct cni_move){.s = s, .fd = -1};
    m->container = arena_dup(&m->a, t->container);
    m->ifname = arena_dup(&m->a, t->ifname);
    m->network = arena_dup(&m->a, t->network);
    m->ns = arena_dup(&m->a, t->ns);
    m->pod = arena_dup(&m->a, t->pod);
    m->iface = arena_dup(&m->a, t->iface);
    m->uid = arena_dup(&m->a, uid);
    vec_push(&s->moves->v, m);
    listen_to(m);
    loop_timer_start(s->moves->timer, ASK_MS, ASK_MS);
}

void cni_moves_free(struct cni_server *s) {
    if (s->moves) {
        while (s->moves->v.n) {
            forget(s, s->moves->v.p[s->moves->v.n - 1]);
        }
        vec_fini(&s->moves->v);
        loop_timer_free(s->moves->timer);
        free(TAKE_PTR(s->moves));
    }
}
