/* What an attachment has beside its endpoint, and what no store has room for: ports of the host
 * that lead to it, and its rates. Kept in one file an attachment in STATE_DIR/attachments, so that
 * they hold after a restart; a file whose attachment has gone is removed. */
#include "cni/server_extra.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 16 };

/* ---- the list ---- */

static void free_one(struct cni_extra *x) {
    arena_fini(&x->arena);
    free(x);
}

struct cni_extra *cni_extra_find(struct cni_server *s, struct str container, struct str ifname) {
    struct cni_extra *x = s->extras;
    while (x && !(str_eq(x->container, container) && str_eq(x->ifname, ifname))) {
        x = x->next;
    }
    return x;
}

static bool has_rate(const struct cni_rate *rates) {
    return rates[CNI_TO_POD].rate || rates[CNI_FROM_POD].rate;
}

static void file_name(const struct cni_extra *x, char out[64]) {
    uint8_t digest[20];
    char hex[41];
    struct arena a = {.first_bytes = 512};
    struct str text = arena_printf(&a, "%.*s/%.*s", STR_FMT(x->container), STR_FMT(x->ifname));
    sha1(text.p, text.n, digest);
    hex_encode(digest, sizeof(digest), hex);
    (void)snprintf(out, 64, "%s.json", hex);
    arena_fini(&a);
}

static struct str owner_of(const struct cni_extra *x, struct arena *a) {
    return arena_printf(a, "cni:%.*s/%.*s", STR_FMT(x->container), STR_FMT(x->ifname));
}

static void publish(struct cni_server *s, const struct cni_extra *x, bool on) {
    struct arena a = {.first_bytes = 512};
    if (x->n_ports && s->ops->set_nat) {
        s->ops->set_nat(s->arg, owner_of(x, &a), x->ports, on ? x->n_ports : 0);
    }
    arena_fini(&a);
}

static void take_out(struct cni_server *s, struct cni_extra *x) {
    struct cni_extra **at = &s->extras;
    while (*at != x) {
        at = &(*at)->next;
    }
    *at = x->next;
}

static void drop(struct cni_server *s, struct cni_extra *x) {
    char name[64];
    take_out(s, x);
    publish(s, x, false);
    cni_shape_remove(s, x);
    file_name(x, name);
    if (s->extra_dir >= 0) {
        (void)unlinkat(s->extra_dir, name, 0);
    }
    free_one(x);
}

void cni_extra_drop(struct cni_server *s, struct str container, struct str ifname) {
    struct cni_extra *x = cni_extra_find(s, container, ifname);
    if (x) {
        drop(s, x);
    }
}

void cni_extras_free(struct cni_server *s) {
    while (s->extras) {
        struct cni_extra *x = s->extras;
        s->extras = x->next;
        free_one(x);
    }
    fd_close(&s->extra_dir);
}

/* ---- files ---- */

/* Members of a file: rate and burst, each way; in force, and the runtime's own. */
static const char *const rate_keys[2][CNI_N_WAYS][2] = {
    {[CNI_TO_POD] = {"ingressRate", "ingressBurst"},
     [CNI_FROM_POD] = {"egressRate", "egressBurst"}},
    {[CNI_TO_POD] = {"baseIngressRate", "baseIngressBurst"},
     [CNI_FROM_POD] = {"baseEgressRate", "baseEgressBurst"}},
};

static void put_rates(struct buf *b, const struct cni_rate *rates,
                      const char *const keys[CNI_N_WAYS][2]) {
    for (size_t way = 0; way < CNI_N_WAYS; way++) {
        buf_printf(b, ",\"%s\":%llu,\"%s\":%llu", keys[way][0], (unsigned long long)rates[way].rate,
                   keys[way][1], (unsigned long long)rates[way].burst);
    }
}

static int save(struct cni_server *s, const struct cni_extra *x) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(FILE_BYTES_MAX);
    char name[64], text[IP_TEXT_MAX];
    if (s->extra_dir < 0) {
        return 0;
    }
    buf_puts(&b, "{\"container\":");
    json_quote(&b, x->container);
    buf_puts(&b, ",\"ifname\":");
    json_quote(&b, x->ifname);
    buf_puts(&b, ",\"iface\":");
    json_quote(&b, x->iface);
    buf_puts(&b, ",\"ports\":[");
    for (size_t i = 0; i < x->n_ports; i++) {
        const struct dataplane_nat *p = &x->ports[i];
        buf_printf(&b, "%s{\"to\":\"%s\",", i ? "," : "", ip_text(&p->to, text));
        buf_printf(&b, "\"from\":\"%s\",\"protocol\":%u,\"port\":%u,\"toPort\":%u}",
                   p->from.family ? ip_text(&p->from, text) : "", p->protocol, p->port, p->to_port);
    }
    buf_putc(&b, ']');
    put_rates(&b, x->rates, rate_keys[0]);
    put_rates(&b, x->base, rate_keys[1]);
    buf_puts(&b, "}\n");
    file_name(x, name);
    return b.overflow ? ERR_TOO_BIG : file_replace(s->extra_dir, name, buf_view(&b), 0600);
}

static uint64_t number(const struct jnode *m, const char *key, uint64_t max) {
    const struct jnode *n = jnode_getc(m, key);
    return n && n->type == J_INT && n->i >= 0 && (uint64_t)n->i <= max ? (uint64_t)n->i : 0;
}

static void read_rates(const struct jnode *doc, struct cni_rate *rates,
                       const char *const keys[CNI_N_WAYS][2]) {
    for (size_t way = 0; way < CNI_N_WAYS; way++) {
        rates[way] = (struct cni_rate){number(doc, keys[way][0], INT64_MAX),
                                       number(doc, keys[way][1], UINT32_MAX)};
    }
}

/* NULL: not a file of ours. */
static struct cni_extra *parse(struct str text) {
    struct cni_extra *x = calloc(1, sizeof(*x));
    struct jnode *doc = NULL;
    mg_assert(x != NULL);
    if (json_parse(arena_dup(&x->arena, text), &json_limits_default, &x->arena, &doc, NULL) < 0) {
        free_one(x);
        return NULL;
    }
    const struct jnode *ports = jnode_getc(doc, "ports");
    x->container = jnode_str(jnode_getc(doc, "container"));
    x->ifname = jnode_str(jnode_getc(doc, "ifname"));
    x->iface = jnode_str(jnode_getc(doc, "iface"));
    x->ports = arena_array(&x->arena, struct dataplane_nat, ports ? ports->n : 0);
    jnode_each (n, ports) {
        struct dataplane_nat p;
        memset(&p, 0, sizeof(p));
        struct str from = jnode_str(jnode_getc(n, "from"));
        p.kind = NAT_PORT;
        p.protocol = (uint8_t)number(n, "protocol", 255);
        p.port = (uint16_t)number(n, "port", 65535);
        p.to_port = (uint16_t)number(n, "toPort", 65535);
        if (ip_parse(jnode_str(jnode_getc(n, "to")), &p.to) == 0 && p.protocol && p.port &&
            p.to_port && (!from.n || ip_parse(from, &p.from) == 0)) {
            x->ports[x->n_ports++] = p;
        }
    }
    read_rates(doc, x->rates, rate_keys[0]);
    read_rates(doc, x->base, rate_keys[1]);
    if (!x->container.n || !link_name_is_valid(x->ifname) || !link_name_is_valid(x->iface)) {
        free_one(x);
        return NULL;
    }
    return x;
}

int cni_extras_load(struct cni_server *s, const char *state_dir, struct err *e) {
    char path[4096];
    if (!state_dir) {
        return 0;
    }
    if (snprintf(path, sizeof(path), "%s/attachments", state_dir) >= (int)sizeof(path)) {
        return err_set(e, -ENAMETOOLONG, "state folder %s: the path is too long", state_dir);
    }
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    }
    s->extra_dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = s->extra_dir < 0 ? NULL : opendir(path);
    if (!d) {
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    }
    for (struct dirent *f = readdir(d); f; f = readdir(d)) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(FILE_BYTES_MAX + 65536);
        struct cni_extra *x = NULL;
        if (!str_ends(str_c(f->d_name), STR(".json"))) {
            continue;
        }
        if (file_read(s->extra_dir, f->d_name, &b, FILE_BYTES_MAX) == 0) {
            x = parse(buf_view(&b));
        }
        if (!x) {
            LOG_W("cni", "attachment_unread", "file=%s/%s", path, f->d_name);
            continue;
        }
        x->next = s->extras;
        s->extras = x;
        publish(s, x, true);
    }
    (void)closedir(d);
    return 0;
}

/* ---- port mappings ---- */

/* A member whose first letter some runtimes write large. */
static const struct jnode *member(const struct jnode *m, const char *key) {
    char big[24];
    (void)snprintf(big, sizeof(big), "%s", key);
    big[0] = (char)(big[0] - 'a' + 'A');
    const struct jnode *n = jnode_getc(m, key);
    if (!n && strcmp(key, "hostIP") == 0) {
        n = jnode_getc(m, "hostIp");
    }
    return n ? n : jnode_getc(m, big);
}

static int bad_port(struct cni_fail *f, size_t i, const char *what, const char *want) {
    return cni_fail(f, CNI_CODE_BAD_CONFIG, "correct what the runtime passes as host ports",
                    "runtimeConfig.portMappings[%zu].%s: expected %s", i, what, want);
}

static int read_port(const struct jnode *m, size_t i, const char *key, bool may_be_zero,
                     uint16_t *out, struct cni_fail *f) {
    const struct jnode *n = member(m, key);
    if (!n || n->type != J_INT || n->i < !may_be_zero || n->i > 65535) {
        return bad_port(f, i, key, "a number from 1 to 65535");
    }
    *out = (uint16_t)n->i;
    return 0;
}

/* One mapping, to each of the pod's addresses that it can lead to. */
static int read_mapping(struct cni_request *r, const struct jnode *m, size_t i,
                        struct cni_extra *x) {
    static const struct {
        const char *name;
        uint8_t number;
    } protocols[] = {{"tcp", IPPROTO_TCP}, {"udp", IPPROTO_UDP}, {"sctp", IPPROTO_SCTP}};
    struct dataplane_nat p;
    struct str protocol = jnode_str(member(m, "protocol")), ip = jnode_str(member(m, "hostIP"));
    memset(&p, 0, sizeof(p));
    p.kind = NAT_PORT;
    if (read_port(m, i, "hostPort", true, &p.port, &r->fail) < 0 ||
        read_port(m, i, "containerPort", false, &p.to_port, &r->fail) < 0) {
        return -1;
    }
    for (size_t k = 0; k < ARRAY_LEN(protocols); k++) {
        if (str_ieq(protocol, str_c(protocols[k].name))) {
            p.protocol = protocols[k].number;
        }
    }
    if (!protocol.n) {
        p.protocol = IPPROTO_TCP;
    } else if (!p.protocol) {
        return bad_port(&r->fail, i, "protocol", "tcp, udp or sctp");
    }
    if (ip.n && ip_parse(ip, &p.from) < 0) {
        return bad_port(&r->fail, i, "hostIP", "an address of this host");
    }
    uint8_t only = p.from.family;
    static const uint8_t none[16];
    if (only && memcmp(p.from.b, none, ip_bytes(&p.from)) == 0) {
        memset(&p.from, 0, sizeof(p.from)); /* any of that family */
    }
    for (size_t k = 0; p.port && k < r->n_nets; k++) {
        if (!only || r->nets[k].ip.family == only) {
            p.to = r->nets[k].ip;
            x->ports[x->n_ports++] = p;
        }
    }
    return 0;
}

static bool is_same_port(const struct dataplane_nat *a, const struct dataplane_nat *b) {
    return a->protocol == b->protocol && a->port == b->port && a->to.family == b->to.family &&
           (!a->from.family || !b->from.family || ip_eq(&a->from, &b->from));
}

/* Ports that another attachment has; an older container of the same pod gives them up. */
static int check_ports(struct cni_request *r, const struct cni_extra *x) {
    for (struct cni_extra *o = r->s->extras, *next; o; o = next) {
        bool is_taken = false;
        next = o->next;
        for (size_t i = 0; i < x->n_ports && !is_taken; i++) {
            for (size_t k = 0; k < o->n_ports && !is_taken; k++) {
                is_taken = is_same_port(&x->ports[i], &o->ports[k]);
                if (is_taken && !str_eq(o->iface, x->iface)) {
                    return cni_fail(&r->fail, CNI_CODE_TRY_LATER,
                                    "delete that container, or take another host port",
                                    "host port %u is taken by container %.*s", x->ports[i].port,
                                    STR_FMT(o->container));
                }
            }
        }
        if (is_taken) {
            drop(r->s, o);
        }
    }
    return 0;
}

int cni_extra_add(struct cni_request *r) {
    const struct jnode *list = r->conf.port_mappings;
    struct cni_server *s = r->s;
    struct cni_extra *x = calloc(1, sizeof(*x));
    size_t i = 0;
    mg_assert(x != NULL);
    x->container = arena_dup(&x->arena, r->strings[WIRE_CONTAINERID]);
    x->ifname = arena_dup(&x->arena, r->strings[WIRE_IFNAME]);
    x->iface = arena_dup(&x->arena, r->pod.iface);
    x->ports = arena_array(&x->arena, struct dataplane_nat, (list ? list->n : 0) * (r->n_nets + 1));
    jnode_each (m, list) {
        if (read_mapping(r, m, i++, x) < 0) {
            free_one(x);
            return -1;
        }
    }
    if (cni_shape_read(r, x) < 0 || check_ports(r, x) < 0) {
        free_one(x);
        return -1;
    }
    cni_extra_drop(s, x->container, x->ifname);
    if (!x->n_ports && !has_rate(x->rates)) {
        free_one(x);
        return 0;
    }
    int k = save(s, x);
    if (k < 0) {
        free_one(x);
        return cni_fail(&r->fail, CNI_CODE_IO, "is the state folder writable, the disk full?",
                        "recording the attachment's host ports and rates: %s", err_name(k));
    }
    x->next = s->extras;
    s->extras = x;
    publish(s, x, true);
    return 0;
}

void cni_extra_ask(struct cni_server *s, const struct cni_attachment *t,
                   const struct cni_asked *a) {
    struct cni_extra *x = cni_extra_find(s, t->container, t->ifname);
    struct cni_rate was[CNI_N_WAYS] = {{0}}, now[CNI_N_WAYS];
    struct err e = {0};
    for (size_t way = 0; way < CNI_N_WAYS; way++) {
        struct cni_rate base = x ? x->base[way] : (struct cni_rate){0};
        now[way] = a->is_named[way] ? a->rates[way] : base;
    }
    if (x) {
        memcpy(was, x->rates, sizeof(was));
    }
    if (memcmp(was, now, sizeof(was)) == 0) {
        return;
    }
    if (!x) {
        x = calloc(1, sizeof(*x));
        mg_assert(x != NULL);
        x->container = arena_dup(&x->arena, t->container);
        x->ifname = arena_dup(&x->arena, t->ifname);
        x->iface = arena_dup(&x->arena, t->iface);
        x->next = s->extras;
        s->extras = x;
    }
    memcpy(x->rates, now, sizeof(now));
    LOG_I("cni", "rates_changed",
          "iface=%.*s to_pod=%llu from_pod=%llu bytes a second (0: no limit)", STR_FMT(x->iface),
          (unsigned long long)now[CNI_TO_POD].rate, (unsigned long long)now[CNI_FROM_POD].rate);
    int r = save(s, x);
    if (r < 0) { /* it holds until the next start */
        LOG_W("cni", "attachment_not_saved", "iface=%.*s error=%s", STR_FMT(x->iface), err_name(r));
    }
    if (cni_shape_change(s, x, was, &e) < 0) {
        LOG_W("cni", "shaping_failed", "%s", log_quote(str_c(e.msg)));
    }
    if (!x->n_ports && !has_rate(x->rates) && !has_rate(x->base)) {
        drop(s, x);
    }
}

void cni_server_tend(struct cni_server *s) {
    s->is_tended = true;
    cni_shape_catch_up(s);
    for (struct cni_extra *x = s->extras, *next; x; x = next) {
        next = x->next;
        bool is_wanted = cni_attachment_find(s, x->container, x->ifname) != NULL;
        for (const struct cni_request *r = s->requests; r && !is_wanted; r = r->next) {
            is_wanted = str_eq(r->strings[WIRE_CONTAINERID], x->container);
        }
        if (!is_wanted) {
            LOG_I("cni", "attachment_gone", "container=%.*s", STR_FMT(x->container));
            drop(s, x);
        } else {
            struct err e = {0};
            if (cni_shape_apply(s, x, &e) < 0 && log_allow(&s->log, 1, 60)) {
                LOG_W("cni", "shaping_failed", "%s", log_quote(str_c(e.msg)));
            }
        }
    }
}
