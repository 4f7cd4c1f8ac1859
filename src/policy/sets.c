/* Sets: members by how many items contribute them; what changed goes out at the flush. */
#include "policy/calc_int.h"

#include <stdlib.h>

static void set_dirty(struct calc *c, struct cset *s) {
    if (!s->is_dirty) {
        s->is_dirty = true;
        vec_push(&c->dirty_sets, s);
    }
}

/* id: somebody else has a reference, too. */
static void count_member(struct calc *c, struct cset *s, uint32_t id, bool add) {
    bool is_new;
    struct member_count *st = count_map_put(&s->members, id, &is_new);
    if (is_new) {
        mtab_again(c->members, id);
    }
    mg_assert(add || st->refs > 0);
    st->refs += add ? 1 : (uint32_t)-1;
    if ((st->refs > 0) != st->is_out && !st->is_touched) {
        st->is_touched = true;
        vec_push(&s->touched, id);
        set_dirty(c, s);
    }
}

void cset_member(struct calc *c, struct cset *s, const struct calc_member *m, bool add) {
    uint32_t id = mtab_ref(c->members, m);
    count_member(c, s, id, add);
    mtab_unref(c->members, id);
}

void cset_item(struct calc *c, struct cset *s, const struct item *it, bool add) {
    const uint32_t *nets = netids_p(&it->nets);
    const struct port_trait *ports = traits_ports(it->traits);
    for (uint32_t i = 0; i < it->nets.n; i++) {
        if (s->type == CALC_SET_ADDR) {
            count_member(c, s, nets[i], add);
            continue;
        }
        struct calc_member m = mtab_get(c->members, nets[i]);
        for (uint32_t j = 0; j < it->traits->n_ports; j++) {
            if (ports[j].name == s->port_name &&
                (!s->protocol || ports[j].protocol == s->protocol) &&
                m.net.len == ip_bits(&m.net.ip)) {
                m.protocol = ports[j].protocol;
                m.port = ports[j].port;
                cset_member(c, s, &m, add);
            }
        }
    }
}

struct adding {
    struct calc *c;
    struct cset *s;
};
static void add_items(void *arg, void *item_user) {
    struct adding *x = arg;
    const struct traits *t = item_user;
    for (const struct item *it = t->items; it; it = it->next) {
        cset_item(x->c, x->s, it, true);
    }
}

/* The set of this uid with one more reference; NULL: make it. */
static struct cset *find(struct calc *c, struct str uid) {
    struct cset **s = map_set_get(&c->sets, uid);
    if (!s) {
        return NULL;
    }
    (*s)->refs++;
    return *s;
}

static struct cset *make(struct calc *c, enum calc_set_type type, struct str uid, struct str text) {
    struct cset *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->id = ++c->next_id;
    s->type = type;
    s->uid = strndup(uid.p, uid.n);
    s->text = strndup(text.p, text.n);
    mg_assert(s->uid && s->text);
    s->refs = 1;
    *map_set_put(&c->sets, str_c(s->uid), NULL) = s;
    set_dirty(c, s);
    return s;
}

static void fill(struct calc *c, struct cset *s, struct str sel_text) {
    struct arena a = {.first_bytes = 2048};
    const struct selector *sel = NULL;
    struct err e;
    int r = selector_parse(sel_text, SIZE_MAX, &a, &sel, &e);
    mg_assert(r == 0); /* canonical text parses */
    s->lsel = lidx_sel_new(c->all, sel, s);
    arena_fini(&a);
    struct adding x = {c, s};
    lidx_sel_each_match(c->all, s->lsel, add_items, &x);
}

/* PREFIX ":" base64url(SHA-224(PREFIX ":" content)), as Calico names sets. */
static void uid_of(const char *prefix, struct str content, char out[64]) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64U << 20);
    buf_puts(&b, prefix);
    buf_putc(&b, ':');
    buf_str(&b, content);
    uint8_t digest[28];
    sha224(b.p, b.n, digest);
    size_t n = strlen(prefix);
    memcpy(out, prefix, n);
    out[n] = ':';
    (void)base64url_encode(digest, sizeof(digest), out + n + 1);
}

struct cset *cset_of_selector(struct calc *c, struct str sel_text) {
    char uid[64];
    uid_of("s", sel_text, uid);
    struct cset *s = find(c, str_c(uid));
    if (!s) {
        s = make(c, CALC_SET_ADDR, str_c(uid), sel_text);
        fill(c, s, sel_text);
    }
    return s;
}

struct cset *cset_of_port(struct calc *c, struct str sel_text, struct str port, uint8_t protocol) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(64U << 20), text = BUF_INIT(64U << 20);
    const char *name = protocol == 6     ? "tcp"
                       : protocol == 17  ? "udp"
                       : protocol == 132 ? "sctp"
                                         : "any";
    buf_str(&b, sel_text);
    buf_printf(&b, ",%s,%.*s", name, STR_FMT(port));
    buf_printf(&text, "%.*s/%s of %.*s", STR_FMT(port), name, STR_FMT(sel_text));
    char uid[64];
    uid_of("n", buf_view(&b), uid);
    struct cset *s = find(c, str_c(uid));
    if (!s) {
        s = make(c, CALC_SET_ADDR_PORT, str_c(uid), buf_view(&text));
        s->port_name = ltab_ref(c->labels, STR(""), port);
        s->protocol = protocol;
        fill(c, s, sel_text);
    }
    buf_fini(&text);
    return s;
}

struct cset *cset_of_service(struct calc *c, struct str ns, struct str name, bool with_ports) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1024);
    buf_str(&b, ns);
    buf_putc(&b, '/');
    buf_str(&b, name);
    char uid[64];
    uid_of(with_ports ? "svc" : "svcnoport", buf_view(&b), uid);
    struct cset *s = find(c, str_c(uid));
    if (s) {
        return s;
    }
    s = make(c, with_ports ? CALC_SET_ADDR_PORT : CALC_SET_ADDR, str_c(uid), buf_view(&b));
    s->service = service_get(c, buf_view(&b));
    s->service->sets[with_ports] = s;
    for (size_t i = 0; i < s->service->slices.n; i++) {
        const struct slice *sl = s->service->slices.p[i];
        for (size_t j = 0; j < sl->n; j++) {
            struct calc_member m = sl->members[j];
            if (!with_ports) {
                m.protocol = 0;
                m.port = 0;
            }
            cset_member(c, s, &m, true);
        }
    }
    return s;
}

void cset_unref(struct calc *c, struct cset *s) {
    if (--s->refs == 0) {
        set_dirty(c, s); /* goes at the flush, unless somebody wants it again by then */
    }
}

void cset_free(struct calc *c, struct cset *s) {
    if (s->lsel) {
        lidx_sel_free(c->all, s->lsel);
    }
    if (s->service) {
        s->service->sets[s->type == CALC_SET_ADDR_PORT] = NULL;
    }
    map_set_del(&c->sets, str_c(s->uid));
    uint32_t id;
    for (size_t i = 0; count_map_next(&s->members, &i, &id, NULL);) {
        mtab_unref(c->members, id);
    }
    count_map_fini(&s->members);
    vec_fini(&s->touched);
    if (s->port_name) {
        ltab_unref(c->labels, s->port_name);
    }
    free(s->uid);
    free(s->text);
    free(s);
}

static void emit_members(struct calc *c, struct cset *s) {
    VEC(struct calc_member) added = {0};
    VEC(struct calc_member) removed = {0};
    for (size_t i = 0; i < s->touched.n; i++) {
        uint32_t id = s->touched.p[i];
        struct member_count *st = count_map_get(&s->members, id);
        st->is_touched = false;
        bool want = st->refs > 0;
        if (want && !st->is_out) {
            vec_push(&added, mtab_get(c->members, id));
        } else if (!want && st->is_out) {
            vec_push(&removed, mtab_get(c->members, id));
        }
        st->is_out = want;
        if (!want) {
            count_map_del(&s->members, id);
            mtab_unref(c->members, id);
        }
    }
    vec_fini(&s->touched);
    if (added.n || removed.n) {
        c->ops.set_members(c->arg, s->id, added.p, added.n, removed.p, removed.n);
    }
    vec_fini(&added);
    vec_fini(&removed);
}

void csets_emit(struct calc *c) {
    size_t n_unused = 0;
    for (size_t i = 0; i < c->dirty_sets.n; i++) {
        struct cset *s = c->dirty_sets.p[i];
        if (s->refs == 0) {
            c->dirty_sets.p[n_unused++] = s; /* for csets_emit_gone, after the policies */
            continue;
        }
        s->is_dirty = false;
        if (!s->is_out) {
            s->is_out = true;
            struct calc_set out = {s->id, s->type, str_c(s->uid), str_c(s->text)};
            c->ops.set_new(c->arg, &out);
        }
        emit_members(c, s);
    }
    c->dirty_sets.n = n_unused;
}

void csets_emit_gone(struct calc *c) {
    for (size_t i = 0; i < c->dirty_sets.n; i++) {
        struct cset *s = c->dirty_sets.p[i];
        s->is_dirty = false;
        if (s->refs == 0) {
            if (s->is_out) {
                c->ops.set_gone(c->arg, s->id);
            }
            cset_free(c, s);
        }
    }
    vec_clear(&c->dirty_sets);
}

void csets_replay(const struct calc *c, const struct calc_ops *ops, void *arg) {
    struct cset **s;
    for (size_t i = 0; map_set_next(&c->sets, &i, NULL, &s);) {
        if (!(*s)->is_out) {
            continue;
        }
        struct calc_set out = {
            .id = (*s)->id, .type = (*s)->type, .uid = str_c((*s)->uid), .text = str_c((*s)->text)};
        ops->set_new(arg, &out);
        uint32_t id;
        struct member_count *st;
        for (size_t k = 0; count_map_next(&(*s)->members, &k, &id, &st);) {
            if (st->is_out) {
                struct calc_member m = mtab_get(c->members, id);
                ops->set_members(arg, (*s)->id, &m, 1, NULL, 0);
            }
        }
    }
}
