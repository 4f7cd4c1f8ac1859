/* MRT files in a folder: updates.YYYYMMDD.HHMMSS with what peers say, begun anew each rotation, and
 * rib.YYYYMMDD.HHMMSS with the whole table. Nothing waits for the disk: writes go to the page
 * cache, and a folder that takes none costs records, which are counted. */
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "bgp/monitor_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    WAITING_MAX = 16 << 20,
    WRITE_AT = 64 << 10, /* bytes of updates that are written at once */
    WRITE_MS = 1000,     /* … or after this time */
    PIECE = 2048,        /* prefixes of a table written in one turn */
    NAMES_MAX = 100000,
};

struct mrt_files {
    struct bgp_monitor *m;
    struct conf_mrt conf;    /* directory owned */
    int dir, updates, table; /* -1: closed */
    struct buf out, piece;
    struct loop_timer *write_timer, *rotate_timer, *table_timer, *piece_timer;
    struct mrt_dump dump;
    char part[48], whole[40]; /* names of the table that is being written */
    struct log_limit limit;
};

static void failed(struct mrt_files *f, const char *what) {
    int r = -errno;
    f->m->stats.n_mrt_failures++;
    if (log_allow(&f->limit, 3, 60)) {
        LOG_W("bgp", "mrt_failed", "directory=%s at=%s error=%s", log_quote(f->conf.directory),
              what, err_name(r));
    }
}

static void name_now(char *out, size_t n, const char *kind) {
    time_t t = (time_t)(clock_wall_ns() / 1000000000);
    struct tm tm;
    char at[24];
    (void)gmtime_r(&t, &tm);
    (void)strftime(at, sizeof(at), "%Y%m%d.%H%M%S", &tm);
    (void)snprintf(out, n, "%s.%s", kind, at);
}

static int open_new(struct mrt_files *f, const char *name) {
    if (f->dir < 0) {
        f->dir = open(f->conf.directory.p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return f->dir < 0
               ? -1
               : openat(f->dir, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
}

/* False: not all of it could be written. */
static bool put(struct mrt_files *f, int fd, struct buf *b) {
    bool ok = !b->overflow;
    for (size_t at = 0; ok && at < b->n;) {
        ssize_t n = write(fd, b->p + at, b->n - at);
        ok = n > 0 || (n < 0 && errno == EINTR);
        at += n > 0 ? (size_t)n : 0;
    }
    if (!ok) {
        failed(f, "write");
    }
    buf_reset(b);
    return ok;
}

/* ---- no more than `keep` files of a kind ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void remove_old(struct mrt_files *f, const char *kind) {
    VEC(char *) names = {0};
    int fd = dup(f->dir);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        fd_close(&fd);
        return;
    }
    rewinddir(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL && names.n < NAMES_MAX;) {
        size_t n = strlen(kind);
        if (strncmp(e->d_name, kind, n) == 0 && e->d_name[n] == '.' &&
            strlen(e->d_name) == n + 16) {
            vec_push(&names, strdup(e->d_name));
        }
    }
    (void)closedir(d);
    if (names.n) {
        qsort(names.p, names.n, sizeof(*names.p), by_name);
    }
    for (size_t i = 0; i < names.n; i++) {
        if (i + f->conf.keep < names.n) {
            (void)unlinkat(f->dir, names.p[i], 0); /* tried again at the next rotation */
        }
        free(names.p[i]);
    }
    vec_fini(&names);
}

/* ---- updates ---- */

static void write_updates(struct mrt_files *f) {
    char name[40];
    loop_timer_stop(f->write_timer);
    if (f->out.n == 0 && !f->out.overflow) {
        return;
    }
    if (f->updates < 0) {
        name_now(name, sizeof(name), "updates");
        f->updates = open_new(f, name);
        if (f->updates < 0) {
            failed(f, "open");
            buf_reset(&f->out);
            return;
        }
        remove_old(f, "updates");
    }
    (void)put(f, f->updates, &f->out); /* it has counted the failure */
}

static void on_write(void *arg) {
    write_updates(arg);
}

static void on_rotate(void *arg) {
    struct mrt_files *f = arg;
    write_updates(f);
    fd_close(&f->updates);
}

static void added(struct mrt_files *f, size_t before) {
    f->m->stats.n_mrt_records++;
    if (f->out.n > WRITE_AT || f->out.overflow) {
        write_updates(f);
    } else if (before == 0) {
        loop_timer_start(f->write_timer, WRITE_MS, 0);
    }
}

void files_message(struct bgp_monitor *m, const struct seen *p, const uint8_t *message, size_t n) {
    struct mrt_files *f = m->files;
    if (f) {
        size_t before = f->out.n;
        mrt_message(&f->out, &p->m, m->conf->speaker.as, clock_wall_ns(), message, n);
        added(f, before);
    }
}

void files_state(struct bgp_monitor *m, const struct seen *p, enum bgp_state old,
                 enum bgp_state state) {
    struct mrt_files *f = m->files;
    if (f) {
        size_t before = f->out.n;
        mrt_state_change(&f->out, &p->m, m->conf->speaker.as, clock_wall_ns(), old, state);
        added(f, before);
    }
}

/* ---- the table ---- */

static void table_end(struct mrt_files *f, bool is_whole) {
    fd_close(&f->table);
    mrt_dump_fini(&f->dump);
    loop_timer_stop(f->piece_timer);
    if (is_whole && renameat(f->dir, f->part, f->dir, f->whole) < 0) {
        failed(f, "rename");
    } else if (!is_whole) {
        (void)unlinkat(f->dir, f->part, 0); /* half a table is none */
    } else {
        remove_old(f, "rib");
    }
}

static void on_piece(void *arg) {
    struct mrt_files *f = arg;
    bool is_more = mrt_dump_some(&f->dump, PIECE, &f->piece);
    if (!put(f, f->table, &f->piece)) {
        table_end(f, false);
    } else if (!is_more) {
        table_end(f, true);
    } else {
        loop_timer_start(f->piece_timer, 0, 0);
    }
}

static void on_table(void *arg) {
    struct mrt_files *f = arg;
    if (f->table >= 0) {
        return; /* the last one is not yet written */
    }
    name_now(f->whole, sizeof(f->whole), "rib");
    (void)snprintf(f->part, sizeof(f->part), ".%s.part", f->whole);
    f->table = open_new(f, f->part);
    if (f->table < 0) {
        failed(f, "open");
        return;
    }
    bgp_monitor_dump(f->m, &f->dump, &f->piece);
    loop_timer_start(f->piece_timer, 0, 0);
}

/* ---- configuration ---- */

void files_free(struct bgp_monitor *m) {
    struct mrt_files *f = m->files;
    if (!f) {
        return;
    }
    m->files = NULL;
    write_updates(f);
    if (f->table >= 0) {
        table_end(f, false);
    }
    loop_timer_free(f->write_timer);
    loop_timer_free(f->rotate_timer);
    loop_timer_free(f->table_timer);
    loop_timer_free(f->piece_timer);
    fd_close(&f->updates);
    fd_close(&f->dir);
    buf_fini(&f->out);
    buf_fini(&f->piece);
    free((char *)(uintptr_t)f->conf.directory.p);
    free(f);
}

static bool is_same(const struct conf_mrt *a, const struct conf_mrt *b) {
    return str_eq(a->directory, b->directory) && a->rotate_s == b->rotate_s &&
           a->table_s == b->table_s && a->keep == b->keep;
}

void files_configure(struct bgp_monitor *m) {
    const struct conf_mrt *c = &m->conf->mrt;
    if (m->files && is_same(&m->files->conf, c)) {
        return;
    }
    files_free(m);
    if (!c->directory.n) {
        return;
    }
    struct mrt_files *f = calloc(1, sizeof(*f));
    char *directory = strndup(c->directory.p, c->directory.n);
    mg_assert(f && directory);
    f->m = m;
    f->conf = *c;
    f->conf.directory = str_c(directory);
    f->dir = f->updates = f->table = -1;
    f->out = BUF_INIT(WAITING_MAX);
    f->piece = BUF_INIT((size_t)1 << 30);
    f->write_timer = loop_timer_new(m->loop, on_write, f);
    f->rotate_timer = loop_timer_new(m->loop, on_rotate, f);
    f->table_timer = loop_timer_new(m->loop, on_table, f);
    f->piece_timer = loop_timer_new(m->loop, on_piece, f);
    loop_timer_start(f->rotate_timer, c->rotate_s * 1000LL, c->rotate_s * 1000LL);
    if (c->table_s) {
        loop_timer_start(f->table_timer, c->table_s * 1000LL, c->table_s * 1000LL);
    }
    m->files = f;
}
