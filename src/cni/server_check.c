/* CHECK, GC and STATUS, and the spool of DELs that found no agent. */
#include "cni/server_int.h"
#include "ipam/machines.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPOOL_FILES_MAX 4096 /* taken by one look; the next one takes more */

/* ---- CHECK ---- */

/* A delegate's verdict is ours. */
static void pass_on(struct cni_request *r, uint32_t code, struct str text) {
    if (code == UINT32_MAX) {
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "", "the plugin was ended meanwhile");
        cni_answer_fail(r);
        return;
    }
    cni_answer(r, code != 0, code ? text : STR(""));
}

void cni_look_at(struct cni_request *r, const struct cni_attachment *at) {
    r->look_key = arena_dup(&r->arena, at->wep_key);
    r->look_handle = arena_dup(&r->arena, at->handle);
    r->look_ns = arena_dup(&r->arena, at->ns);
    r->look_pod = arena_dup(&r->arena, at->pod);
}

void cni_look(struct cni_request *r) {
    struct store_item it;
    struct jnode *doc = NULL;
    struct cni_seen *n = &r->seen;
    struct store_key key = {STR(STORE_SPACE_RESOURCES), r->look_key};
    *n = (struct cni_seen){0};
    n->endpoint_code = store_get(r->s->store, key, &r->arena, &it, &n->error);
    if (n->endpoint_code == 0) {
        n->endpoint_code = json_parse(it.value, &json_limits_default, &r->arena, &doc, &n->error);
    }
    n->container = jnode_str(jnode_path(doc, "spec.containerID"));
    if (n->endpoint_code == 0 && r->conf.is_own_ipam) {
        n->held_code =
            cni_ipam_held(r->s, r->look_handle, n->held, CNI_MAX_IPS, &n->n_held, &n->error);
        struct str handle, name;
        if (n->held_code == ERR_NOT_FOUND && machine_is_launcher(r->look_pod) &&
            cni_machine_of(r->s, r->conf.name, r->look_ns, r->look_pod, &r->arena, &handle, &name,
                           NULL) == 0) {
            n->held_code = cni_ipam_held(r->s, handle, n->held, CNI_MAX_IPS, &n->n_held, &n->error);
        }
    }
}

int cni_check_endpoint(struct cni_request *r, const struct cni_attachment *at) {
    const struct cni_seen *n = &r->seen;
    if (n->endpoint_code == ERR_NOT_FOUND) {
        return cni_fail(&r->fail, CNI_CODE_DIFFERENT, "the container must be made anew",
                        "the pod's WorkloadEndpoint is gone");
    }
    if (n->endpoint_code < 0) {
        return cni_fail(&r->fail, CNI_CODE_TRY_LATER, "look at the datastore", "%.900s",
                        n->error.msg);
    }
    if (!str_eq(n->container, at->container)) {
        return cni_fail(&r->fail, CNI_CODE_DIFFERENT, "the container must be made anew",
                        "the pod's WorkloadEndpoint is of another container");
    }
    return 0;
}

static int check_addresses(struct cni_request *r, const struct cni_attachment *at) {
    char text[IP_TEXT_MAX];
    const struct cni_seen *n = &r->seen;
    int k = n->held_code;
    for (size_t i = 0; k == 0 && i < at->n_nets; i++) {
        bool is_held = false;
        for (size_t j = 0; j < n->n_held; j++) {
            is_held |= ip_eq(&n->held[j], &at->nets[i].ip);
        }
        if (!is_held) {
            return cni_fail(&r->fail, CNI_CODE_DIFFERENT, "the container must be made anew",
                            "address %s is not assigned to this container",
                            prefix_text(&at->nets[i], text));
        }
    }
    return k < 0 ? cni_fail(&r->fail, k == ERR_NOT_FOUND ? CNI_CODE_DIFFERENT : CNI_CODE_TRY_LATER,
                            "margay ipam check says more", "addresses: %.900s", n->error.msg)
                 : 0;
}

/* Every address of the result that the runtime remembers must be one that we gave. */
static int check_prev_result(struct cni_request *r, const struct cni_attachment *at) {
    char text[IP_TEXT_MAX];
    for (size_t i = 0; i < at->n_nets; i++) {
        bool is_there = jnode_getc(r->conf.prev_result, "ips") == NULL;
        jnode_each (ip, jnode_getc(r->conf.prev_result, "ips")) {
            struct prefix p;
            is_there |= prefix_parse(jnode_str(jnode_getc(ip, "address")), &p) == 0 &&
                        ip_eq(&p.ip, &at->nets[i].ip);
        }
        if (!is_there) {
            return cni_fail(&r->fail, CNI_CODE_DIFFERENT, "the container must be made anew",
                            "address %s is not in prevResult", prefix_text(&at->nets[i], text));
        }
    }
    return 0;
}

/* The request's attachment; NULL (r->fail): it has none. */
static struct cni_attachment *attachment_of(struct cni_request *r) {
    struct cni_attachment *at =
        cni_attachment_find(r->s, r->strings[WIRE_CONTAINERID], r->strings[WIRE_IFNAME]);
    if (!at || at->is_superseded || !str_eq(at->network, r->conf.name)) {
        (void)cni_fail(&r->fail, CNI_CODE_UNKNOWN_CONTAINER, "",
                       "container %.*s is not attached to network %.*s by interface %.*s",
                       STR_FMT(r->strings[WIRE_CONTAINERID]), STR_FMT(r->conf.name),
                       STR_FMT(r->strings[WIRE_IFNAME]));
        return NULL;
    }
    return at;
}

static void looked(struct cni_request *r) {
    uint8_t mac[6];
    struct cni_attachment *at = attachment_of(r);
    if (!at || cni_check_endpoint(r, at) < 0 || check_prev_result(r, at) < 0 ||
        cni_kernel_check(r, at, mac, &r->fail) < 0 ||
        (r->conf.is_own_ipam && check_addresses(r, at) < 0)) {
        cni_answer_fail(r);
    } else if (r->conf.has_ipam && !r->conf.is_own_ipam) {
        cni_delegate_ipam(r, "CHECK", pass_on);
    } else {
        cni_answer(r, 0, STR(""));
    }
}

void cni_check(struct cni_request *r) {
    struct cni_attachment *at = attachment_of(r);
    if (!at) {
        cni_answer_fail(r);
        return;
    }
    if (r->netns_fd < 0) {
        (void)cni_fail(&r->fail, CNI_CODE_BAD_ENV, "CNI_NETNS must name a network namespace",
                       "no network namespace came with the request");
        cni_answer_fail(r);
        return;
    }
    cni_look_at(r, at);
    cni_step(r, cni_look, looked);
}

/* ---- GC ---- */

static bool is_valid(const struct cni_request *r, const struct cni_attachment *at) {
    jnode_each (v, r->conf.valid_attachments) {
        if (str_eq(jnode_str(jnode_getc(v, "containerID")), at->container) &&
            str_eq(jnode_str(jnode_getc(v, "ifname")), at->ifname)) {
            return true;
        }
    }
    return false;
}

/* An ADD that runs now is not in the runtime's list yet. */
static bool is_in_work(const struct cni_request *r, const struct cni_attachment *at) {
    for (const struct cni_request *o = r->s->requests; o; o = o->next) {
        if (o != r && !o->is_done && str_eq(o->strings[WIRE_CONTAINERID], at->container)) {
            return true;
        }
    }
    return false;
}

static void gc_done(struct cni_request *r) {
    if (r->did_fail) {
        cni_answer_fail(r);
    } else if (r->conf.has_ipam && !r->conf.is_own_ipam) {
        cni_delegate_ipam(r, "GC", pass_on);
    } else {
        cni_answer(r, 0, STR(""));
    }
}

static void on_gc_removed(void *arg, struct cni_removal *m) {
    struct cni_request *r = arg;
    if (m->code < 0 && !r->did_fail) {
        r->did_fail = true;
        (void)cni_fail(&r->fail, CNI_CODE_TRY_LATER, "the runtime will try again", "%s", m->error);
    }
    r->n_removals--;
    if (!cni_unref(r) && r->n_removals == 0) {
        gc_done(r);
    }
}

void cni_gc(struct cni_request *r) {
    struct cni_server *s = r->s;
    struct cni_attachment **t;
    VEC(struct cni_removal *) all = {0};
    size_t i = 0;
    if (!r->conf.valid_attachments || r->conf.valid_attachments->type != J_LIST) {
        (void)cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "the runtime must give it",
                       "GC without a list cni.dev/valid-attachments");
        cni_answer_fail(r);
        return;
    }
    while (cni_attachments_next(&s->attachments, &i, NULL, &t)) {
        if (str_eq((*t)->network, r->conf.name) && !is_valid(r, *t) && !is_in_work(r, *t)) {
            struct cni_removal *m = cni_removal_new(s, r->conf.name, (*t)->container, (*t)->ifname);
            m->done = on_gc_removed;
            m->arg = r;
            vec_push(&all, m);
        }
    }
    if (all.n == 0) {
        gc_done(r);
        return;
    }
    LOG_I("cni", "gc", "network=%.*s removed=%zu", STR_FMT(r->conf.name), all.n);
    r->n_removals = all.n;
    r->n_pending += (unsigned)all.n;
    cni_removals_gather(s, true);
    for (i = 0; i < all.n; i++) {
        cni_removal_queue(s, all.p[i]);
    }
    cni_removals_gather(s, false);
    vec_fini(&all);
}

/* ---- STATUS ---- */

/* Does the datastore answer? There need not be a ClusterInformation. */
static int ask_store(struct cni_request *r, struct err *e) {
    struct store_item it;
    struct store_key key = {
        STR(STORE_SPACE_RESOURCES),
        kind_store_key(&model_kinds[K_CLUSTER_INFORMATION], STR_NULL, STR("default"), &r->arena)};
    int k = store_get(r->s->store, key, &r->arena, &it, e);
    return k == ERR_NOT_FOUND ? 0 : k;
}

static void work_status(struct cni_request *r) {
    struct err e = {0};
    if (ask_store(r, &e) < 0) {
        r->step_code = cni_fail(&r->fail, CNI_CODE_NOT_AVAILABLE, "look at the datastore",
                                "the datastore does not answer: %.900s", e.msg);
    } else if (cni_check_ready(r) < 0) {
        r->fail.code = CNI_CODE_NOT_AVAILABLE; /* an ADD would only be told to come again */
        r->step_code = -1;
    } else if (r->conf.is_own_ipam && cni_ipam_ready(r->s, &e) < 0) {
        r->step_code =
            cni_fail(&r->fail, CNI_CODE_NOT_AVAILABLE, "margay get ippools lists the pools",
                     "no address could be given: %.900s", e.msg);
    }
}

static void status_known(struct cni_request *r) {
    if (r->step_code < 0) {
        cni_answer_fail(r);
    } else if (r->conf.has_ipam && !r->conf.is_own_ipam) {
        cni_delegate_ipam(r, "STATUS", pass_on);
    } else {
        cni_answer(r, 0, STR(""));
    }
}

void cni_status(struct cni_request *r) {
    const struct cni_server_ops *ops = r->s->ops;
    char why[512] = "";
    enum cni_health h = ops->health ? ops->health(r->s->arg, why, sizeof(why)) : CNI_HEALTHY;
    if (h != CNI_HEALTHY) {
        (void)cni_fail(&r->fail, h == CNI_NO_STORE ? CNI_CODE_NOT_AVAILABLE : CNI_CODE_LIMITED,
                       "margay status says more", "%s", why);
        cni_answer_fail(r);
        return;
    }
    cni_step(r, work_status, status_known);
}

/* ---- the spool ---- */

static bool is_in_spool_work(const struct cni_server *s, const char *name) {
    for (const struct cni_request *r = s->requests; r; r = r->next) {
        if (r->spool_dir >= 0 && str_is(r->spool_name, name)) {
            return true;
        }
    }
    return false;
}

/* The frame in a spool file, in the arena: 0, or negative when it is not one that a plugin wrote.
 */
static int read_spooled(int dir, const char *name, struct arena *a, struct str *body) {
    MG_CLEANUP(buf_fini)
    struct buf b = BUF_INIT(WIRE_HEADER_BYTES + WIRE_BODY_MAX + (1U << 17));
    MG_CLEANUP(fd_close)
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    uint32_t type = 0, n = 0;
    char path[64];
    if (fd < 0 || fstat(fd, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode) || (st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & 022)) {
        return ERR_DENIED;
    }
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int r = file_read(-1, path, &b, WIRE_HEADER_BYTES + WIRE_BODY_MAX);
    if (r < 0) {
        return r;
    }
    if (b.n < WIRE_HEADER_BYTES || wire_header((const uint8_t *)b.p, &type, &n) < 0 ||
        type != WIRE_REQUEST || b.n != WIRE_HEADER_BYTES + (size_t)n) {
        return -EPROTO;
    }
    *body = arena_dup(a, str_n(b.p + WIRE_HEADER_BYTES, n));
    return 0;
}

/* False: the file is no DEL, and was put aside. */
static bool begin_spooled(struct cni_server *s, int dir, const char *name) {
    struct cni_request *r = cni_request_new(s);
    struct str body = STR("");
    int k = read_spooled(dir, name, &r->arena, &body);
    if (k == 0) {
        k = cni_request_take(r, (const uint8_t *)body.p, body.n);
    }
    if (k == 0 && (!str_is(r->strings[WIRE_COMMAND], "DEL") || (r->flags & WIRE_FLAG_NETNS))) {
        k = -EPROTO;
    }
    if (k < 0) {
        LOG_W("cni", "spool_bad_file", "name=%s reason=%s removed", log_quote(str_c(name)),
              err_name(k));
        (void)unlinkat(dir, name, 0); /* a folder stays, and is told of again */
        cni_answer(r, 1, STR(""));
        return false;
    }
    r->spool_name = arena_dup(&r->arena, str_c(name));
    r->spool_dir = fcntl(dir, F_DUPFD_CLOEXEC, 3);
    s->stats.spooled++;
    cni_request_start(r);
    return true;
}

static int cmp_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int cni_server_spool(struct cni_server *s, const char *dir) {
    MG_CLEANUP(fd_close)
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    int for_reading = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    DIR *d = for_reading >= 0 ? fdopendir(for_reading) : NULL;
    if (!d) {
        fd_close(&for_reading);
        return -ENOMEM;
    }
    VEC(char *) names = {0};
    struct arena a = {0};
    for (struct dirent *e = readdir(d); e && names.n < SPOOL_FILES_MAX; e = readdir(d)) {
        struct str name = str_c(e->d_name);
        if (name.p[0] != '.' && str_ends(name, STR(WIRE_SPOOL_SUFFIX)) &&
            !is_in_spool_work(s, name.p)) {
            vec_push(&names, (char *)(uintptr_t)arena_cstr(&a, name));
        }
    }
    (void)closedir(d);
    vec_sort(&names, cmp_names);
    int n = 0;
    for (size_t i = 0; i < names.n && s->n_requests < CNI_SERVER_MAX_REQUESTS / 2; i++) {
        n += begin_spooled(s, fd, names.p[i]);
    }
    vec_fini(&names);
    arena_fini(&a);
    return n;
}
