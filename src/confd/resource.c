/* Reading template resources and rendering them. See resource.h. */
#include "confd/resource.h"

#include "confd/toml.h"

#include "base/fd.h"
#include "base/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { FILES_MAX = 20000, FOLDERS_DEPTH_MAX = 32, IDS_BUF = 16384 };

/* ---- one file ---- */

struct reading {
    struct resource *r;
    const struct confd_options *o;
    const char *node_name;
    struct str own_prefix, owner, group;
    struct str *keys;
    size_t n_keys;
    struct err *e;
};

static int fail(struct reading *rd, const struct jnode *n, const char *what) {
    return err_set(rd->e, ERR_INVALID, "%s:%u:%u: %.*s: found %s, need %s", rd->r->file, n->line,
                   n->col, STR_FMT(n->key), toml_type_name(toml_type(n)), what);
}

static int text(struct reading *rd, const struct jnode *n, struct str *out) {
    if (toml_type(n) != TOML_STRING) {
        return fail(rd, n, "a string");
    }
    if (n->s.n && memchr(n->s.p, '\0', n->s.n)) {
        return err_set(rd->e, ERR_INVALID, "%s:%u:%u: %.*s holds a NUL byte", rd->r->file, n->line,
                       n->col, STR_FMT(n->key));
    }
    *out = n->s;
    return 0;
}

static int c_text(struct reading *rd, const struct jnode *n, const char **out) {
    struct str s = STR_NULL;
    int r = text(rd, n, &s);
    if (r == 0) {
        *out = arena_cstr(&rd->r->a, s);
    }
    return r;
}

static int id(struct reading *rd, const struct jnode *n, int64_t *out) {
    if (toml_type(n) != TOML_INTEGER) {
        return fail(rd, n, "a number");
    }
    if (n->i < -1 || n->i > UINT32_MAX - 1) {
        return err_set(rd->e, ERR_INVALID,
                       "%s:%u:%u: %.*s: found %lld, allowed are -1 (confd's "
                       "own) to 4294967294",
                       rd->r->file, n->line, n->col, STR_FMT(n->key), (long long)n->i);
    }
    *out = n->i;
    return 0;
}

/* "0644" and "0o644" are octal, "0x1a4" hex, "420" decimal: as confd reads it. */
static int mode(struct reading *rd, const struct jnode *n) {
    struct str s = STR_NULL;
    int r = text(rd, n, &s);
    if (r < 0 || s.n == 0) {
        return r;
    }
    unsigned base = 10, v = 0;
    size_t i = 0;
    if (s.n > 1 && s.p[0] == '0') {
        char c = (char)(s.p[1] | 0x20);
        base = c == 'x' ? 16 : c == 'b' ? 2 : 8;
        i = c == 'x' || c == 'b' || c == 'o' ? 2 : 1;
    }
    bool is_ok = i < s.n;
    for (; is_ok && i < s.n; i++) {
        unsigned d = s.p[i] >= '0' && s.p[i] <= '9' ? (unsigned)(s.p[i] - '0')
                     : (s.p[i] | 0x20) >= 'a' && (s.p[i] | 0x20) <= 'f'
                         ? (unsigned)(s.p[i] | 0x20) - 'a' + 10
                         : 99;
        is_ok = d < base && v <= 07777;
        v = v * base + d;
    }
    if (!is_ok || v > 07777) {
        return err_set(rd->e, ERR_INVALID,
                       "%s:%u:%u: mode: found \"%.*s\", allowed are permissions like \"0644\"",
                       rd->r->file, n->line, n->col, STR_FMT(s));
    }
    rd->r->mode = v;
    rd->r->has_mode = true;
    return 0;
}

static int keys(struct reading *rd, const struct jnode *n) {
    if (toml_type(n) != TOML_ARRAY) {
        return fail(rd, n, "an array of strings");
    }
    rd->keys = arena_array(&rd->r->a, struct str, n->n);
    jnode_each (it, n) {
        int r = text(rd, it, &rd->keys[rd->n_keys++]);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int field(struct reading *rd, const struct jnode *n) {
    struct resource *r = rd->r;
    if (str_ieq(n->key, STR("src"))) {
        return c_text(rd, n, &r->src);
    }
    if (str_ieq(n->key, STR("dest"))) {
        return c_text(rd, n, &r->dest);
    }
    if (str_ieq(n->key, STR("check_cmd"))) {
        return c_text(rd, n, &r->check_cmd);
    }
    if (str_ieq(n->key, STR("reload_cmd"))) {
        return c_text(rd, n, &r->reload_cmd);
    }
    if (str_ieq(n->key, STR("prefix"))) {
        return text(rd, n, &rd->own_prefix);
    }
    if (str_ieq(n->key, STR("owner"))) {
        return text(rd, n, &rd->owner);
    }
    if (str_ieq(n->key, STR("group"))) {
        return text(rd, n, &rd->group);
    }
    if (str_ieq(n->key, STR("uid"))) {
        return id(rd, n, &r->uid);
    }
    if (str_ieq(n->key, STR("gid"))) {
        return id(rd, n, &r->gid);
    }
    if (str_ieq(n->key, STR("mode"))) {
        return mode(rd, n);
    }
    return str_ieq(n->key, STR("keys")) ? keys(rd, n) : 0; /* others are nothing of ours */
}

/* Names to ids; uid and gid win over owner and group. */
static int owners(struct reading *rd) {
    struct resource *r = rd->r;
    char buf[IDS_BUF];
    struct passwd pw, *found_pw = NULL;
    struct group gr, *found_gr = NULL;
    if (rd->owner.n && r->uid < 0) {
        (void)getpwnam_r(arena_cstr(&r->a, rd->owner), &pw, buf, sizeof(buf), &found_pw);
        if (!found_pw) {
            return err_set(rd->e, ERR_INVALID, "%s: owner: there is no user \"%.*s\"", r->file,
                           STR_FMT(rd->owner));
        }
        r->uid = found_pw->pw_uid;
    }
    if (rd->group.n && r->gid < 0) {
        (void)getgrnam_r(arena_cstr(&r->a, rd->group), &gr, buf, sizeof(buf), &found_gr);
        if (!found_gr) {
            return err_set(rd->e, ERR_INVALID, "%s: group: there is no group \"%.*s\"", r->file,
                           STR_FMT(rd->group));
        }
        r->gid = found_gr->gr_gid;
    }
    return 0;
}

/* "//NODENAME" becomes "/" and the node's name. */
static struct str with_node_name(struct reading *rd, struct str s) {
    static const struct str MARK = {"//NODENAME", 10};
    const char *at = s.n ? memmem(s.p, s.n, MARK.p, MARK.n) : NULL;
    if (!at) {
        return s;
    }
    size_t n = (size_t)(at - s.p);
    return with_node_name(rd, arena_printf(&rd->r->a, "%.*s/%s%.*s", (int)n, s.p, rd->node_name,
                                           (int)(s.n - n - MARK.n), at + MARK.n));
}

static int finish(struct reading *rd) {
    struct resource *r = rd->r;
    if (!r->src || !r->src[0]) {
        return err_set(rd->e, ERR_INVALID, "%s: src is missing: name a file in templates/",
                       r->file);
    }
    if (!r->dest || !r->dest[0]) {
        return err_set(rd->e, ERR_INVALID, "%s: dest is missing: name the file to write", r->file);
    }
    struct str prefix = rd->o->prefix && rd->o->prefix[0] ? str_c(rd->o->prefix) : rd->own_prefix;
    r->prefix = kv_clean(&r->a, with_node_name(rd, prefix.p ? prefix : STR("/")));
    for (size_t i = 0; i < rd->n_keys; i++) {
        rd->keys[i] = with_node_name(rd, rd->keys[i]);
    }
    kv_view_keys(&r->a, r->prefix, rd->keys, rd->n_keys, &r->keys, &r->n_keys);
    return owners(rd);
}

static struct resource *resource_new(const char *file) {
    struct resource *r = calloc(1, sizeof(*r));
    mg_assert(r != NULL);
    r->uid = r->gid = -1;
    r->is_dirty = true;
    r->file = arena_cstr(&r->a, str_c(file));
    return r;
}

static void resource_free(struct resource *r) {
    tmpl_free(r->tmpl);
    tmpl_free(r->check);
    kv_view_fini(&r->view);
    arena_fini(&r->render);
    arena_fini(&r->a);
    free(r);
}

static int load_one(struct resource *r, const struct confd_options *o, const char *node_name,
                    struct err *e) {
    struct buf b = BUF_INIT(TOML_MAX_BYTES);
    struct jnode *root = NULL;
    int ret = file_read(AT_FDCWD, r->file, &b, TOML_MAX_BYTES);
    ret = ret < 0 ? err_set(e, ret, "%s: %s", r->file, err_name(ret))
                  : toml_parse(buf_view(&b), r->file, &r->a, &root, e);
    buf_fini(&b);
    struct reading rd = {.r = r, .o = o, .node_name = node_name, .e = e};
    for (const struct jnode *t = ret == 0 ? root->child : NULL; t && ret == 0; t = t->next) {
        if (!str_ieq(t->key, STR("template"))) {
            continue;
        }
        if (toml_type(t) != TOML_TABLE) {
            return fail(&rd, t, "a table: [template]");
        }
        for (const struct jnode *n = t->child; n && ret == 0; n = n->next) {
            ret = field(&rd, n);
        }
    }
    return ret < 0 ? ret : finish(&rd);
}

/* ---- all of them ---- */

struct paths {
    struct arena a;
    VEC(const char *) p;
};

static int find_files(struct paths *out, const char *dir, unsigned depth, struct err *e) {
    DIR *d = opendir(dir);
    if (!d) {
        return err_set(e, -errno, "%s: %s", dir, err_name(-errno));
    }
    int r = 0;
    for (const struct dirent *de; r == 0 && (de = readdir(d));) {
        struct stat st;
        struct str name = str_c(de->d_name);
        if (str_is(name, ".") || str_is(name, "..")) {
            continue;
        }
        const char *path =
            arena_cstr(&out->a, arena_printf(&out->a, "%s/%.*s", dir, STR_FMT(name)));
        if (stat(path, &st) < 0) {
            continue; /* gone meanwhile, or a link to nothing */
        }
        if (S_ISDIR(st.st_mode) && depth < FOLDERS_DEPTH_MAX) {
            r = find_files(out, path, depth + 1, e);
        } else if (S_ISREG(st.st_mode) && str_ends(name, STR("toml"))) {
            vec_push(&out->p, path);
            if (out->p.n > FILES_MAX) {
                r = err_set(e, ERR_TOO_BIG, "%s: more than %d resources", dir, FILES_MAX);
            }
        }
    }
    closedir(d);
    return r;
}

static int by_path(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int resources_load(const struct confd_options *o, const char *node_name, struct resources *out,
                   struct err *e) {
    struct paths paths = {0};
    struct stat st;
    *out = (struct resources){0};
    struct str dir = arena_printf(&paths.a, "%s/conf.d", o->confdir);
    if (stat(o->confdir, &st) < 0 && errno == ENOENT) {
        LOG_W("confd", "no_confdir", "confdir=%s", log_quote(str_c(o->confdir)));
        arena_fini(&paths.a);
        return 0;
    }
    int r = find_files(&paths, arena_cstr(&paths.a, dir), 0, e);
    vec_sort(&paths.p, by_path);
    for (size_t i = 0; r == 0 && i < paths.p.n; i++) {
        vec_push(out, resource_new(paths.p.p[i]));
        r = load_one(out->p[i], o, node_name, e);
    }
    if (r == 0 && out->n == 0) {
        LOG_W("confd", "no_resources", "folder=%s", log_quote(dir));
    }
    if (r < 0) {
        resources_free(out);
    }
    vec_fini(&paths.p);
    arena_fini(&paths.a);
    return r;
}

void resources_free(struct resources *r) {
    for (size_t i = 0; i < r->n; i++) {
        resource_free(r->p[i]);
    }
    vec_fini(r);
}

/* ---- rendering ---- */

int resource_parse(struct resource *r, bool again, const struct confd_options *o, struct err *e) {
    if (r->tmpl && !again) {
        return 0;
    }
    struct arena a = {0};
    struct buf b = BUF_INIT(TMPL_TEXT_MAX);
    const char *path = arena_cstr(&a, arena_printf(&a, "%s/templates/%s", o->confdir, r->src));
    const char *slash = strrchr(r->src, '/');
    struct tmpl_set *t = NULL;
    int ret = file_read(AT_FDCWD, path, &b, TMPL_TEXT_MAX);
    if (ret < 0) {
        (void)err_set(e, ret, "Missing template: %s: %s", path, err_name(ret));
    } else {
        ret = tmpl_parse(str_c(slash ? slash + 1 : r->src), buf_view(&b), confd_funcs(), 1, &t, e);
    }
    if (ret == 0) {
        tmpl_free(r->tmpl);
        r->tmpl = t;
    }
    buf_fini(&b);
    arena_fini(&a);
    return ret;
}

int resource_render(struct resource *r, const struct pass *p, struct buf *out, struct err *e) {
    kv_view_start(&r->view);
    arena_reset(&r->render);
    r->view.kv = p->kv;
    r->view.prefix = r->prefix;
    r->view.keys = r->keys;
    r->view.n_keys = r->n_keys;
    r->view.a = &r->render;
    struct funcs f = {.view = &r->view, .bgp = p->bgp};
    int ret = tmpl_execute(r->tmpl, funcs_dot(&f), NULL, &f, out, e);
    kv_view_settle(&r->view);
    r->saw_world = f.saw_world;
    return ret;
}
