/* ipam check, repair, release. */
#include "base/clock.h"
#include "cli/ipam_cli.h"
#include "ipam/block.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What is seen twice, this far apart, is no call under way. */
enum { SETTLE_S = 2 };

/* ---- check ---- */

static const char *count_text(const struct ipam_audit *x, enum ipam_problem_kind kind, size_t *n) {
    static const char *const texts[] = {
        [PROBLEM_BOOKS] = "blocks, handles and affinities disagree",
        [PROBLEM_LEAK] = "IPs that are allocated in IPAM but not actually in use",
        [PROBLEM_FOREIGN] =
            "in-use IPs that are in active IP pools but have no corresponding IPAM allocation",
        [PROBLEM_DOUBLE] = "IPs that are in use by more than one workload or node",
    };
    *n = 0;
    for (size_t i = 0; i < x->problems.n; i++) {
        *n += x->problems.p[i].kind == kind;
    }
    return texts[kind];
}

static void print_ips(const struct ipam_audit *x) {
    char text[IP_TEXT_MAX], block[IP_TEXT_MAX];
    for (size_t i = 0; i < x->allocations.n; i++) {
        const struct ipam_allocation *c = &x->allocations.p[i].x;
        size_t n;
        const struct ipam_user *u = ipam_users_of(&x->users, &c->ip, &n);
        struct str what = u ? u->what : c->is_resting ? STR("at rest") : STR("nobody known");
        printf("  %s allocated; block=%s affinity=%.*s handle=%.*s used by: %.*s\n",
               ip_text(&c->ip, text), prefix_text(&c->block, block), STR_FMT(c->affinity),
               STR_FMT(c->handle), STR_FMT(what));
    }
}

static void print_audit(const struct ipam_audit *x, const struct ipam_flags *f) {
    char text[IP_TEXT_MAX];
    printf("Checking IPAM for inconsistencies...\n\n"
           "Loading all IPAM blocks...\nFound %zu IPAM blocks.\n"
           "IPAM blocks record %zu allocations, %zu of them at rest.\n\n"
           "Loading all IPAM pools...\n",
           x->n_blocks, x->allocations.n, x->n_resting);
    for (size_t i = 0; i < x->pools.n; i++) {
        printf("  %s\n", prefix_text(&x->pools.p[i].cidr, text));
    }
    printf("Found %zu active IP pools.\n\nLoading all nodes.\nFound %zu node tunnel IPs.\n\n"
           "Loading all workload endpoints.\nFound %zu workload endpoints.\n"
           "Loading all services.\nFound %zu load-balancer IPs.\n"
           "Workloads, nodes and services are using %zu IPs.\n\n",
           x->pools.n, x->users.n_tunnels, x->users.n_endpoints, x->users.n_services, x->users.v.n);
    if (f->all_ips) {
        print_ips(x);
        putchar('\n');
    }
    for (int k = PROBLEM_BOOKS; k <= PROBLEM_DOUBLE; k++) {
        size_t n;
        const char *what = count_text(x, (enum ipam_problem_kind)k, &n);
        printf(k == PROBLEM_BOOKS ? "Found %zu places where %s.\n" : "Found %zu %s.\n", n, what);
        for (size_t i = 0; i < x->problems.n && (f->problem_ips || f->all_ips || n <= 20); i++) {
            const struct ipam_problem *p = &x->problems.p[i];
            if ((int)p->kind == k) {
                printf("  %.*s\n", STR_FMT(p->text));
            }
        }
        if (n > 20 && !f->problem_ips && !f->all_ips) {
            puts("  --show-problem-ips lists them");
        }
    }
    printf("Found %zu in-use IPs that are not in active IP pools.\n", x->n_outside);
    if (x->n_unjudged) {
        printf("%zu allocations were not judged: younger than a minute, of no pod or "
               "tunnel, or of a virtual machine.\n",
               x->n_unjudged);
    }
    printf("\nCheck complete; found %zu problems.\n", x->problems.n);
}

static void set_text(struct arena *a, struct jnode *m, const char *name, struct str s) {
    jnode_set(a, m, str_c(name), jnode_new_str(a, s.p ? s : STR("")));
}

/* The report that `release --from-report` and `repair --from-report` read. */
static int write_report(struct store *s, const struct ipam_audit *x, const char *file,
                        struct err *e) {
    static const char *const kinds[] = {[PROBLEM_BOOKS] = "inconsistent",
                                        [PROBLEM_LEAK] = "leaked",
                                        [PROBLEM_FOREIGN] = "foreign",
                                        [PROBLEM_DOUBLE] = "double"};
    struct arena *a = x->a;
    struct jnode *doc = jnode_new(a, J_MAP), *problems = jnode_new(a, J_LIST);
    struct jnode *all = jnode_new(a, J_MAP);
    bool is_locked;
    struct str guid;
    char text[IP_TEXT_MAX], stamp[32];
    int r = ipam_cli_is_locked(s, &is_locked, &guid, a, e);
    if (r < 0) {
        return r;
    }
    set_text(a, doc, "version", STR(MARGAY_VERSION));
    set_text(a, doc, "time", arena_dup(a, str_c(clock_rfc3339(x->now_ns, stamp))));
    set_text(a, doc, "clusterGUID", guid);
    jnode_set(a, doc, STR("datastoreLocked"), jnode_new_bool(a, is_locked));
    for (size_t i = 0; i < x->allocations.n; i++) {
        const struct ipam_allocation *c = &x->allocations.p[i].x;
        struct jnode *n = jnode_new(a, J_MAP), *list = jnode_new(a, J_LIST);
        size_t n_users;
        set_text(a, n, "handle", c->handle);
        jnode_set(a, n, STR("sequenceNumber"), jnode_new_int(a, c->sequence));
        jnode_set(a, n, STR("inUse"),
                  jnode_new_bool(a, ipam_users_of(&x->users, &c->ip, &n_users) != NULL));
        set_text(a, n, "node", c->node);
        set_text(a, n, "namespace", c->ns);
        set_text(a, n, "pod", c->pod);
        set_text(a, n, "type", c->type);
        jnode_append(list, n);
        jnode_set(a, all, arena_dup(a, str_c(ip_text(&c->ip, text))), list);
    }
    jnode_set(a, doc, STR("allocations"), all);
    for (size_t i = 0; i < x->problems.n; i++) {
        const struct ipam_problem *p = &x->problems.p[i];
        struct jnode *n = jnode_new(a, J_MAP);
        set_text(a, n, "problem", str_c(kinds[p->kind]));
        if (p->ip.family) {
            set_text(a, n, "ip", arena_dup(a, str_c(ip_text(&p->ip, text))));
        }
        if (p->kind == PROBLEM_LEAK) {
            set_text(a, n, "handle", p->handle);
            jnode_set(a, n, STR("sequenceNumber"), jnode_new_int(a, p->sequence));
        }
        set_text(a, n, "evidence", p->text);
        set_text(a, n, "repair", p->repair);
        jnode_append(problems, n);
    }
    jnode_set(a, doc, STR("problems"), problems);
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(256 << 20);
    json_write(&b, doc, 2);
    buf_putc(&b, '\n');
    FILE *out = fopen(file, "w");
    bool ok = out && fwrite(b.p, 1, b.n, out) == b.n;
    ok = out && fclose(out) == 0 && ok;
    return ok ? 0 : err_set(e, -errno, "%s: %s", file, strerror(errno));
}

int ipam_cmd_check(struct store *s, struct ipam *m, const struct ipam_flags *f) {
    struct arena a = {0};
    struct ipam_audit x;
    struct err e = {.code = 0};
    int r = ipam_audit_run(s, m, &a, &x, &e);
    if (r == 0) {
        print_audit(&x, f);
        r = f->file ? write_report(s, &x, f->file, &e) : 0;
    }
    int code = r < 0 ? cli_error("%s", e.msg) : x.problems.n > 0;
    ipam_audit_fini(&x);
    arena_fini(&a);
    return code;
}

/* ---- repair ---- */

/* All addresses of a handle are leaks, or none is released. */
static bool is_whole_leak(const struct ipam_audit *x, struct str handle) {
    for (size_t i = 0; i < x->allocations.n; i++) {
        const struct ipam_allocation *c = &x->allocations.p[i].x;
        bool is_leak = !str_eq(c->handle, handle);
        for (size_t k = 0; k < x->problems.n && !is_leak; k++) {
            is_leak = x->problems.p[k].kind == PROBLEM_LEAK && ip_eq(&x->problems.p[k].ip, &c->ip);
        }
        if (!is_leak) {
            return false;
        }
    }
    return true;
}

static int mend_leak(struct ipam *m, const struct ipam_audit *x, const struct ipam_problem *p,
                     struct err *e) {
    struct ipam_exact v = {p->ip, p->handle, p->sequence};
    size_t n;
    if (!is_whole_leak(x, p->handle)) {
        return err_set(e, ERR_INVALID, "another address of its handle is in use");
    }
    return ipam_release_exact(m, &v, 1, &n, e);
}

/* For its own node, so that a block that has to be made is that node's. */
static int mend_foreign(struct store *s, const struct ipam_audit *x, const struct ipam_problem *p,
                        struct err *e) {
    struct ipam_options o = {.pools = x->pools.p, .n_pools = x->pools.n};
    char stamp[32];
    const struct ipam_attr attrs[] = {
        {STR("node"), p->user->node},
        {STR("timestamp"), str_c(clock_rfc3339(clock_wall_ns(), stamp))},
        {STR("namespace"), p->user->ns},
        {STR("pod"), p->user->pod},
    };
    size_t n_attrs = p->user->pod.n ? 4 : 2;
    if (!p->user->container.n || !p->user->node.n) {
        return err_set(e, ERR_INVALID,
                       "nobody knows its container: delete it, and it is made anew");
    }
    /* The name of the network in all of Calico's and our own installations. */
    struct str handle = arena_printf(x->a, "k8s-pod-network.%.*s", STR_FMT(p->user->container));
    struct ipam *m = ipam_new(s, p->user->node);
    int r = ipam_assign_ip(m, &o, &p->ip, handle, attrs, n_attrs, e);
    ipam_free(m);
    return r;
}

static int mend(struct store *s, struct ipam *m, const struct ipam_audit *x,
                const struct ipam_problem *p, struct err *e) {
    switch (p->kind) {
    case PROBLEM_BOOKS:
        return ipam_mend(m, &p->fault, e);
    case PROBLEM_LEAK:
        return mend_leak(m, x, p, e);
    case PROBLEM_FOREIGN:
        return mend_foreign(s, x, p, e);
    case PROBLEM_DOUBLE:
        return err_set(e, ERR_INVALID, "%.*s", STR_FMT(p->repair));
    }
    return ERR_INVALID;
}

static bool was_seen(const struct ipam_audit *x, const struct ipam_problem *p) {
    for (size_t i = 0; i < x->problems.n; i++) {
        if (ipam_problem_eq(&x->problems.p[i], p)) {
            return true;
        }
    }
    return false;
}

int ipam_cmd_repair(struct store *s, struct ipam *m, const struct ipam_flags *f) {
    struct arena a = {0};
    struct ipam_audit first, x;
    struct err e = {.code = 0};
    size_t n_mended = 0, n_left = 0;
    int r = ipam_audit_run(s, m, &a, &first, &e);
    x = (struct ipam_audit){.a = &a};
    if (r == 0 && first.problems.n) {
        (void)sleep(SETTLE_S);
        r = ipam_audit_run(s, m, &a, &x, &e);
    }
    r = r == 0 ? ipam_settings_heed(m, &e) : r;
    for (size_t i = 0; i < x.problems.n && r == 0; i++) {
        const struct ipam_problem *p = &x.problems.p[i];
        if (!was_seen(&first, p)) {
            continue;
        }
        if (f->is_dry) {
            printf("%.*s\n  would be: %.*s\n", STR_FMT(p->text), STR_FMT(p->repair));
            n_left++;
            continue;
        }
        int done = mend(s, m, &x, p, &e);
        if (done < 0) {
            printf("%.*s\n  left: %s\n", STR_FMT(p->text), e.msg);
            n_left++;
        } else {
            printf("%.*s\n  %.*s\n", STR_FMT(p->text), STR_FMT(p->repair));
            n_mended++;
        }
    }
    if (r == 0 && f->is_dry) {
        printf("%zu problems; nothing was changed (--dry-run)\n", n_left);
    } else if (r == 0) {
        printf("%zu problems repaired, %zu left\n", n_mended, n_left);
    }
    ipam_audit_fini(&first);
    ipam_audit_fini(&x);
    arena_fini(&a);
    return r < 0 ? cli_error("%s", e.msg) : n_left > 0;
}

/* ---- release ---- */

static int release_ip(struct ipam *m, const char *text) {
    struct ip46 ip;
    size_t n = 0;
    struct err e = {.code = 0};
    if (ip_parse(str_c(text), &ip) < 0) {
        return cli_usage("ipam", "release: --ip \"%s\" is no address, such as 10.44.7.9", text);
    }
    int r = ipam_release_ips(m, &ip, 1, STR(""), &n, &e);
    if (r < 0) {
        return cli_error("%s", e.msg);
    }
    if (n == 0) {
        return cli_error("%s is not assigned: margay ipam show --ip=%s", text, text);
    }
    printf("Successfully released IP address %s\n", text);
    return 0;
}

static int read_report(const char *file, struct arena *a, struct jnode **out, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(32 << 20);
    FILE *f = fopen(file, "r");
    char chunk[65536];
    if (!f) {
        return err_set(e, -errno, "%s: %s", file, strerror(errno));
    }
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), f)) > 0;) {
        buf_add(&b, chunk, n);
    }
    (void)fclose(f);
    if (b.overflow) {
        return err_set(e, ERR_TOO_BIG, "%s: larger than 32 MiB", file);
    }
    int r = json_parse(arena_dup(a, buf_view(&b)), &json_limits_default, a, out, e);
    return r < 0 ? err_wrap(e, r, "%s", file) : 0;
}

/* Only what is still the same allocation (by sequence number) and still nobody's is released. */
static int release_report(struct store *s, struct ipam *m, const struct ipam_flags *f,
                          struct err *e) {
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct ipam_audit x = {.a = &a};
    bool is_locked;
    struct str guid;
    size_t n_released = 0, n_asked = 0;
    int r = read_report(f->file, &a, &doc, e);
    r = r == 0 ? ipam_cli_is_locked(s, &is_locked, &guid, &a, e) : r;
    if (r == 0 && !str_eq(jnode_str(jnode_getc(doc, "clusterGUID")), guid)) {
        r = err_set(e, ERR_INVALID, "%s is of another cluster (clusterGUID %.*s, here %.*s)",
                    f->file, STR_FMT(jnode_str(jnode_getc(doc, "clusterGUID"))), STR_FMT(guid));
    } else if (r == 0 && !is_locked && !f->force) {
        r = err_set(e, ERR_DENIED,
                    "the datastore is not locked: addresses may come and go meanwhile. Run 'margay "
                    "datastore lock' first, or say --force: allocations that have changed since "
                    "the report are left alone all the same");
    }
    r = r == 0 ? ipam_audit_run(s, m, &a, &x, e) : r;
    const struct jnode *problems = r == 0 ? jnode_getc(doc, "problems") : NULL;
    jnode_each (n, problems) {
        const struct jnode *seq = jnode_getc(n, "sequenceNumber");
        struct str ip = jnode_str(jnode_getc(n, "ip")), handle = jnode_str(jnode_getc(n, "handle"));
        if (!str_is(jnode_str(jnode_getc(n, "problem")), "leaked")) {
            continue;
        }
        n_asked++;
        for (size_t i = 0; i < x.problems.n && r == 0; i++) {
            const struct ipam_problem *p = &x.problems.p[i];
            char text[IP_TEXT_MAX];
            if (p->kind == PROBLEM_LEAK && str_is(ip, ip_text(&p->ip, text)) && seq &&
                seq->type == J_INT && seq->i == p->sequence && str_eq(handle, p->handle) &&
                is_whole_leak(&x, p->handle)) {
                struct ipam_exact v = {p->ip, p->handle, p->sequence};
                size_t freed = 0;
                r = ipam_release_exact(m, &v, 1, &freed, e);
                n_released += freed;
            }
        }
    }
    if (r == 0) {
        printf("Released %zu of %zu leaked IPs of the report; the others have changed since\n",
               n_released, n_asked);
    }
    ipam_audit_fini(&x);
    arena_fini(&a);
    return r;
}

int ipam_cmd_release(struct store *s, struct ipam *m, const struct ipam_flags *f) {
    struct err e = {.code = 0};
    if (!f->ip == !f->file) {
        return cli_usage("ipam", "release: give --ip=ADDRESS or --from-report=FILE");
    }
    if (ipam_settings_heed(m, &e) < 0) {
        return cli_error("%s", e.msg);
    }
    if (f->ip) {
        return release_ip(m, f->ip);
    }
    return release_report(s, m, f, &e) < 0 ? cli_error("%s", e.msg) : 0;
}
