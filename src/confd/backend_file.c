/* Keys from YAML and JSON files: nested maps join with "/", lists by index; of the same key in
 * several files the last counts. Folders are read recursively. Changes are told by inotify on the
 * folders, so that files that are replaced by rename are noticed too. */
#include "confd/backend.h"

#include "base/fd.h"
#include "base/jtree.h"
#include "base/log.h"
#include "confd/funcs.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 32 << 20, DEPTH_MAX = 32, FILES_MAX = 10000 };

struct file_backend {
    struct backend b;
    const struct confd_options *o;
    struct loop *loop;
    int fd; /* inotify */
    struct loop_poll *poll;
    const struct backend_events *ev;
    void *arg;
};

static struct file_backend *self_of(struct backend *b) {
    return container_of(b, struct file_backend, b);
}

/* ---- values ---- */

/* Go's FormatFloat(f, 'f', -1, 64): the shortest digits that read back equal, never an exponent. */
static void put_float(struct buf *b, double f) {
    char text[400];
    int digits = 1;
    int64_t e10 = 0;
    double back = 0;
    do {
        snprintf(text, sizeof(text), "%.*e", digits - 1, f);
    } while ((str_to_double(str_c(text), &back) < 0 || back != f) && digits++ < 17);
    const char *exp = strchr(text, 'e') + 1;
    if (str_to_i64(str_c(exp + (*exp == '+')), &e10) < 0) {
        e10 = 0;
    }
    int decimals = digits - 1 - (int)e10;
    buf_printf(b, "%.*f", decimals > 0 ? decimals : 0, f);
}

struct walk {
    struct kv *fresh;
    struct buf key;
    const char *file;
    struct err *e;
};

static int walk(struct walk *w, const struct jnode *n) {
    struct buf v = BUF_INIT(KV_VALUE_MAX);
    size_t i = 0, start = w->key.n;
    int r = 0;
    switch (n->type) {
    case J_NULL: /* no key */
        return 0;
    case J_MAP:
    case J_LIST:
        for (const struct jnode *it = n->child; it && r == 0; it = it->next, i++) {
            buf_putc(&w->key, '/');
            if (n->type == J_MAP) {
                buf_str(&w->key, it->key);
            } else {
                buf_printf(&w->key, "%zu", i);
            }
            r = walk(w, it);
            w->key.n = start;
        }
        return r;
    case J_BOOL:
        buf_puts(&v, n->b ? "true" : "false");
        break;
    case J_INT:
    case J_STR:
        buf_str(&v, n->s);
        break;
    case J_FLOAT:
        put_float(&v, n->f); /* finite: YAML has no other here */
        break;
    }
    if (w->key.overflow || v.overflow || !kv_add(w->fresh, buf_view(&w->key), buf_view(&v))) {
        r = err_set(w->e, ERR_TOO_BIG, "%s:%u:%u: the value or its key is too long", w->file,
                    n->line, n->col);
    }
    buf_fini(&v);
    return r;
}

static int take_document(void *arg, struct jnode *doc) {
    struct walk *w = arg;
    if (doc->type != J_MAP) {
        return err_set(w->e, ERR_INVALID, "%s:%u:%u: need a map of keys", w->file, doc->line,
                       doc->col);
    }
    int r = walk(w, doc);
    return r < 0 ? r : -ECANCELED; /* the first document is all */
}

static int read_file(struct file_backend *f MG_UNUSED, const char *path, struct kv *fresh,
                     struct err *e) {
    struct arena a = {0};
    struct buf b = BUF_INIT(FILE_BYTES_MAX);
    struct walk w = {.fresh = fresh, .key = BUF_INIT(KV_KEY_MAX), .file = path, .e = e};
    int r = file_read(AT_FDCWD, path, &b, FILE_BYTES_MAX);
    r = r < 0 ? err_set(e, r, "%s: %s", path, err_name(r))
              : yaml_each(buf_view(&b), path, &json_limits_default, &a, take_document, &w, e);
    buf_fini(&w.key);
    buf_fini(&b);
    arena_fini(&a);
    return r == -ECANCELED ? 0 : r;
}

/* ---- files and folders ---- */

static int by_path(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Calls file for each file below path that the filter lets through, in order, and folder (may be
 * NULL) for each folder. */
static int each_file(struct file_backend *f, const char *path, unsigned depth,
                     int (*file)(struct file_backend *f, const char *path, struct kv *fresh,
                                 struct err *e),
                     void (*folder)(struct file_backend *f, const char *path), struct kv *fresh,
                     struct err *e) {
    struct stat st;
    if (stat(path, &st) < 0) {
        return err_set(e, -errno, "%s: %s", path, err_name(-errno));
    }
    if (!S_ISDIR(st.st_mode)) {
        return file ? file(f, path, fresh, e) : 0;
    }
    DIR *d = opendir(path);
    if (!d || depth > DEPTH_MAX) {
        int code = d ? -ELOOP : -errno;
        if (d) {
            closedir(d);
        }
        return err_set(e, code, "%s: %s", path, err_name(code));
    }
    if (folder) {
        folder(f, path);
    }
    struct arena a = {0};
    VEC(const char *) names = {0};
    for (const struct dirent *de; (de = readdir(d)) && names.n < FILES_MAX;) {
        struct str name = str_c(de->d_name);
        struct str full = arena_printf(&a, "%s/%.*s", path, STR_FMT(name));
        if (str_is(name, ".") || str_is(name, "..") || stat(full.p, &st) < 0 ||
            (!S_ISDIR(st.st_mode) && glob_match(str_c(f->o->filter), name) <= 0)) {
            continue;
        }
        vec_push(&names, full.p);
    }
    closedir(d);
    vec_sort(&names, by_path);
    int r = 0;
    for (size_t i = 0; i < names.n && r == 0; i++) {
        r = each_file(f, names.p[i], depth + 1, file, folder, fresh, e);
    }
    vec_fini(&names);
    arena_fini(&a);
    return r;
}

static int file_read_all(struct backend *b, struct kv *fresh, struct err *e) {
    struct file_backend *f = self_of(b);
    int r = 0;
    for (size_t i = 0; i < f->o->files.n && r == 0; i++) {
        r = each_file(f, f->o->files.p[i], 0, read_file, NULL, fresh, e);
    }
    return r;
}

/* ---- inotify ---- */

static void watch_folder(struct file_backend *f, const char *path) {
    if (inotify_add_watch(f->fd, path,
                          IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE |
                              IN_DELETE_SELF | IN_MOVE_SELF | IN_MODIFY) < 0) {
        LOG_W("confd", "watch_failed", "folder=%s why=%s", log_quote(str_c(path)),
              err_name(-errno));
    }
}

/* The folders given, those below them, and those in which files that were given stand. */
static void watch_all(struct file_backend *f) {
    for (size_t i = 0; i < f->o->files.n; i++) {
        const char *path = f->o->files.p[i], *slash = strrchr(path, '/');
        char parent[4096];
        snprintf(parent, sizeof(parent), "%.*s",
                 slash == path ? 1
                 : slash       ? (int)(slash - path)
                               : 1,
                 slash ? path : ".");
        watch_folder(f, parent);
        (void)each_file(f, path, 0, NULL, watch_folder, NULL, NULL); /* read tells what is wrong */
    }
}

static void on_inotify(void *arg, unsigned events MG_UNUSED) {
    struct file_backend *f = arg;
    char chunk[16384];
    bool is_new = false;
    while (read(f->fd, chunk, sizeof(chunk)) > 0) {
        is_new = true;
    }
    if (is_new) {
        watch_all(f); /* folders may be new */
        f->ev->stale(f->arg);
    }
}

static int file_watch(struct backend *b, struct loop *l, const struct backend_events *ev, void *arg,
                      struct err *e) {
    struct file_backend *f = self_of(b);
    f->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (f->fd < 0) {
        return err_set(e, -errno, "inotify: %s", err_name(-errno));
    }
    f->ev = ev;
    f->arg = arg;
    f->loop = l;
    f->poll = loop_poll_new(l, f->fd, LOOP_READ, on_inotify, f);
    watch_all(f);
    ev->stale(arg);
    return 0;
}

static int file_open(const struct confd_options *o, const struct str *prefixes MG_UNUSED,
                     size_t n MG_UNUSED, struct backend **out, struct err *e) {
    if (o->files.n == 0) {
        return err_set(e, ERR_INVALID, "-backend file: name a file or folder with -file");
    }
    struct file_backend *f = calloc(1, sizeof(*f));
    mg_assert(f != NULL);
    f->b.ops = &backend_file;
    f->o = o;
    f->fd = -1;
    *out = &f->b;
    return 0;
}

static void file_close(struct backend *b) {
    struct file_backend *f = self_of(b);
    loop_poll_free(f->poll);
    fd_close(&f->fd);
    free(f);
}

const struct backend_ops backend_file = {.name = "file",
                                         .open = file_open,
                                         .close = file_close,
                                         .read = file_read_all,
                                         .watch = file_watch};
