/* The embedded store: one SQLite file in WAL mode, every commit an fsync. Two tables: items is what
 * is, changes is what happened, with the values, so that a watch can begin in the past; the newest
 * SQLITE_LOG_KEEP changes are kept. The revision is the changes table's key: one counter for all.
 *
 * Watches hold no queue: a position, and after each commit a look at what came behind it, from the
 * loop. Lists outside of a transaction run on a connection of their own, so that their snapshot
 * stands still whatever the callback writes. Opening is sqlite_open.c's. */
#include "base/fd.h"
#include "store/sqlite_int.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    PRUNE_EVERY = 128,     /* revisions; a prune costs a few pages */
    SLICE_ROWS = 256,      /* changes read for a watch at once, */
    SLICE_BYTES = 1 << 18, /* and the values' bytes after which a slice ends */
};

struct sq_watch {
    struct store_watch base;
    struct sq_store *s; /* NULL once the store is closed */
    struct loop_defer *defer;
    char *space, *prefix;
    size_t space_n, prefix_n;
    uint64_t pos, said; /* passed on up to; told by on_progress */
    struct store_watch_ops ops;
    void *arg;
    bool is_over, is_in_cb, is_dead;
};

static const char *const sql_text[SQL_N] = {
    [SQL_GET] = "SELECT value, revision FROM items WHERE space=?1 AND key=?2",
    [SQL_REV_OF] = "SELECT revision FROM items WHERE space=?1 AND key=?2",
    [SQL_PUT] = "INSERT INTO items(space,key,value,revision) VALUES(?1,?2,?3,?4)"
                " ON CONFLICT DO UPDATE SET value=?3, revision=?4",
    [SQL_DEL] = "DELETE FROM items WHERE space=?1 AND key=?2",
    [SQL_LOG] = "INSERT INTO changes(space,key,value,revision) VALUES(?1,?2,?3,?4)",
    [SQL_PRUNE] = "DELETE FROM changes WHERE revision<=?1",
    [SQL_NEWEST] = "SELECT max(revision) FROM changes",
    [SQL_OLDEST] = "SELECT min(revision) FROM changes",
    [SQL_CHANGES] = "SELECT revision, space, key, value FROM changes"
                    " WHERE revision>?1 AND revision<=?2 ORDER BY revision",
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
};

static const char list_sql[] =
    "SELECT key, value, revision FROM items WHERE space=?1 AND key>=?2 ORDER BY key";

static struct sq_store *sq(struct store *s) {
    return container_of(s, struct sq_store, base);
}

static int stmt_get(struct sq_store *s, enum sql_stmt which, sqlite3_stmt **out, struct err *e) {
    if (!s->stmt[which]) {
        int rc = sqlite3_prepare_v3(s->db, sql_text[which], -1, SQLITE_PREPARE_PERSISTENT,
                                    &s->stmt[which], NULL);
        if (rc != SQLITE_OK) {
            return sq_error(s, s->db, rc, "prepare", e);
        }
    }
    *out = s->stmt[which];
    return 0;
}

static void bind_str(sqlite3_stmt *st, int i, struct str v) {
    if (v.p) {
        /* Static: the statement is reset before the caller's memory can go. */
        (void)sqlite3_bind_text(st, i, v.p, (int)v.n, SQLITE_STATIC);
    } else {
        (void)sqlite3_bind_null(st, i);
    }
}

static struct str column_str(sqlite3_stmt *st, int i) {
    if (sqlite3_column_type(st, i) == SQLITE_NULL) {
        return STR_NULL;
    }
    const char *p = (const char *)sqlite3_column_text(st, i);
    return str_n(p ? p : "", (size_t)sqlite3_column_bytes(st, i));
}

static void stmt_done(sqlite3_stmt *st) {
    (void)sqlite3_reset(st); /* repeats the error of the step, which was taken */
    (void)sqlite3_clear_bindings(st);
}

/* A statement with the key, if there is one, as its first two parameters. */
static int stmt_for(struct sq_store *s, enum sql_stmt which, const struct store_key *k,
                    sqlite3_stmt **st, struct err *e) {
    int r = stmt_get(s, which, st, e);
    if (r == 0 && k) {
        bind_str(*st, 1, k->space);
        bind_str(*st, 2, k->key);
    }
    return r;
}

/* Runs a statement that gives no rows. k and value may be NULL, revision is bound when k is. */
static int run(struct sq_store *s, enum sql_stmt which, const struct store_key *k,
               const struct str *value, uint64_t revision, struct err *e) {
    sqlite3_stmt *st;
    int r = stmt_for(s, which, k, &st, e);
    if (r < 0) {
        return r;
    }
    if (k && value) {
        bind_str(st, 3, *value);
        (void)sqlite3_bind_int64(st, 4, (sqlite3_int64)revision);
    } else if (which == SQL_PRUNE) {
        (void)sqlite3_bind_int64(st, 1, (sqlite3_int64)revision);
    }
    int rc = sqlite3_step(st);
    if (rc != SQLITE_DONE) {
        r = sq_error(s, s->db, rc, which == SQL_COMMIT || which == SQL_BEGIN ? "commit" : "write",
                     e);
    }
    stmt_done(st);
    return r;
}

/* One number of one row; *out = 0 when there is none or it is null. */
static int query_u64(struct sq_store *s, enum sql_stmt which, const struct store_key *k,
                     uint64_t *out, struct err *e) {
    sqlite3_stmt *st;
    int r = stmt_for(s, which, k, &st, e);
    if (r < 0) {
        return r;
    }
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        *out = (uint64_t)sqlite3_column_int64(st, 0);
    } else if (rc == SQLITE_DONE) {
        *out = 0;
    } else {
        r = sq_error(s, s->db, rc, "read", e);
    }
    stmt_done(st);
    return r;
}

/* ---- transactions ---- */

static void watches_ask(struct sq_store *s) {
    for (size_t i = 0; i < s->watches.n; i++) {
        if (!s->watches.p[i]->is_over) {
            loop_defer_ask(s->watches.p[i]->defer);
        }
    }
}

static int tx_begin(struct sq_store *s, struct err *e) {
    if (s->is_ro) {
        return err_set(e, ERR_DENIED, "store %s was opened for reading only (mode=ro)", s->path);
    }
    s->tx_code = 0;
    s->next = s->committed;
    return run(s, SQL_BEGIN, NULL, NULL, 0, e);
}

static void tx_rollback(struct sq_store *s) {
    /* SQLite may have rolled back by itself (disk full). */
    if (!sqlite3_get_autocommit(s->db)) {
        (void)run(s, SQL_ROLLBACK, NULL, NULL, 0, NULL); /* nothing is left to do about it */
    }
    s->next = s->committed;
    s->tx_code = 0;
    watches_ask(s); /* what came before the transaction may still be theirs to read */
}

static int tx_commit(struct sq_store *s, struct err *e) {
    int r = s->tx_code;
    if (r < 0) {
        (void)err_set(e, r,
                      "store %s: nothing was committed: an earlier write of the transaction "
                      "failed (%s)",
                      s->path, err_name(r));
    }
    if (r == 0 && s->next / PRUNE_EVERY != s->committed / PRUNE_EVERY &&
        s->next > SQLITE_LOG_KEEP) {
        r = run(s, SQL_PRUNE, NULL, NULL, s->next - SQLITE_LOG_KEEP, e);
    }
    if (r == 0) {
        r = run(s, SQL_COMMIT, NULL, NULL, 0, e);
    }
    if (r < 0) {
        tx_rollback(s);
        return r;
    }
    s->committed = s->next;
    watches_ask(s);
    return 0;
}

static int sq_begin(struct store *base, struct err *e) {
    return tx_begin(sq(base), e);
}
static int sq_commit(struct store *base, struct err *e) {
    return tx_commit(sq(base), e);
}
static void sq_rollback(struct store *base) {
    tx_rollback(sq(base));
}
static uint64_t sq_revision(struct store *base) {
    struct sq_store *s = sq(base);
    if (s->is_ro) {
        /* Another process writes; a failure shows up in the next real read. */
        (void)query_u64(s, SQL_NEWEST, NULL, &s->committed, NULL);
    }
    return s->committed;
}

/* ---- items ---- */

static int sq_get(struct store *base, struct store_key k, struct arena *a, struct store_item *out,
                  struct err *e) {
    struct sq_store *s = sq(base);
    sqlite3_stmt *st;
    int r = stmt_get(s, SQL_GET, &st, e);
    if (r < 0) {
        return r;
    }
    bind_str(st, 1, k.space);
    bind_str(st, 2, k.key);
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        *out = (struct store_item){.space = arena_dup(a, k.space),
                                   .key = arena_dup(a, k.key),
                                   .value = arena_dup(a, column_str(st, 0)),
                                   .revision = (uint64_t)sqlite3_column_int64(st, 1)};
    } else if (rc == SQLITE_DONE) {
        r = err_set(e, ERR_NOT_FOUND, "\"%.*s\" is not in the store", STR_FMT(k.key));
    } else {
        r = sq_error(s, s->db, rc, "read", e);
    }
    stmt_done(st);
    return r;
}

/* Is the item's revision the expected one? */
static int check_expect(struct store_key k, uint64_t found, uint64_t expect, struct err *e) {
    if (expect == REV_ANY || expect == found) {
        return 0;
    }
    if (expect == REV_NONE) {
        return err_set(e, ERR_EXISTS, "\"%.*s\" is in the store already", STR_FMT(k.key));
    }
    if (found == 0) {
        return err_set(e, ERR_NOT_FOUND, "\"%.*s\" is not in the store", STR_FMT(k.key));
    }
    return err_set(e, ERR_CONFLICT,
                   "\"%.*s\" was changed meanwhile: it has revision %" PRIu64 ", not %" PRIu64,
                   STR_FMT(k.key), found, expect);
}

/* Inside a transaction: the item and its line in the log. value absent = delete. */
static int write_item(struct sq_store *s, struct store_key k, struct str value, uint64_t expect,
                      struct err *e) {
    uint64_t found = 0;
    int r = query_u64(s, SQL_REV_OF, &k, &found, e);
    if (r < 0) {
        return r;
    }
    r = check_expect(k, found, expect, e);
    if (r == 0 && !value.p && found == 0) {
        r = err_set(e, ERR_NOT_FOUND, "\"%.*s\" is not in the store", STR_FMT(k.key));
    }
    if (r < 0) {
        return r;
    }
    uint64_t rev = s->next + 1;
    r = value.p ? run(s, SQL_PUT, &k, &value, rev, e) : run(s, SQL_DEL, &k, NULL, 0, e);
    if (r == 0) {
        r = run(s, SQL_LOG, &k, &value, rev, e);
    }
    if (r < 0) {
        s->tx_code = r; /* half of it may be there */
        return r;
    }
    s->next = rev;
    return 0;
}

static int write_one(struct sq_store *s, struct store_key k, struct str value, uint64_t expect,
                     uint64_t *revision_out, struct err *e) {
    if (s->n_lists > 0) {
        return err_set(e, -EBUSY,
                       "store: a write of \"%.*s\" from inside of a list within a "
                       "transaction: collect first, then write",
                       STR_FMT(k.key));
    }
    int r = 0;
    if (s->base.in_tx) {
        if (s->tx_code < 0) {
            return err_set(e, s->tx_code, "store %s: an earlier write of the transaction failed",
                           s->path);
        }
        r = write_item(s, k, value, expect, e);
    } else {
        r = tx_begin(s, e);
        if (r < 0) {
            return r;
        }
        r = write_item(s, k, value, expect, e);
        if (r < 0) {
            tx_rollback(s);
        } else {
            r = tx_commit(s, e);
        }
    }
    if (r == 0 && revision_out) {
        *revision_out = s->next;
    }
    return r;
}

static int sq_put(struct store *base, struct store_key k, struct str value, uint64_t expect,
                  uint64_t *revision_out, struct err *e) {
    return write_one(sq(base), k, value, expect, revision_out, e);
}

static int sq_del(struct store *base, struct store_key k, uint64_t expect, struct err *e) {
    return write_one(sq(base), k, STR_NULL, expect, NULL, e);
}

/* ---- lists ---- */

/* Rows of one list on db. */
static int list_rows(struct sq_store *s, sqlite3 *db, struct store_key prefix,
                     int (*cb)(void *, const struct store_item *), void *arg, struct err *e) {
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, list_sql, -1, &st, NULL);
    if (rc != SQLITE_OK) {
        return sq_error(s, db, rc, "list", e);
    }
    bind_str(st, 1, prefix.space);
    bind_str(st, 2, prefix.key.p ? prefix.key : STR(""));
    int r = 0;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        struct store_item it = {.space = prefix.space,
                                .key = column_str(st, 0),
                                .value = column_str(st, 1),
                                .revision = (uint64_t)sqlite3_column_int64(st, 2)};
        if (!str_starts(it.key, prefix.key)) {
            rc = SQLITE_DONE; /* keys are in order: nothing more can match */
            break;
        }
        r = cb(arg, &it);
        if (r < 0) {
            rc = SQLITE_DONE;
            break;
        }
        r = 0;
    }
    if (rc != SQLITE_DONE) {
        r = sq_error(s, db, rc, "list", e);
    }
    (void)sqlite3_finalize(st);
    return r;
}

/* Opens the snapshot of a reader and says which revision it shows. */
static int reader_begin(struct sq_store *s, sqlite3 *db, uint64_t *revision, struct err *e) {
    int rc = sqlite3_exec(db, "BEGIN", NULL, NULL, NULL);
    sqlite3_stmt *st = NULL;
    if (rc == SQLITE_OK) {
        rc = sqlite3_prepare_v2(db, sql_text[SQL_NEWEST], -1, &st, NULL);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(st);
    }
    int r = 0;
    if (rc == SQLITE_ROW) {
        *revision = (uint64_t)sqlite3_column_int64(st, 0);
    } else {
        r = sq_error(s, db, rc, "list", e);
    }
    (void)sqlite3_finalize(st);
    return r;
}

static int sq_list(struct store *base, struct store_key prefix, uint64_t *revision_out,
                   int (*cb)(void *, const struct store_item *), void *arg, struct err *e) {
    struct sq_store *s = sq(base);
    if (base->in_tx) {
        if (revision_out) {
            *revision_out = s->next;
        }
        s->n_lists++;
        int r = list_rows(s, s->db, prefix, cb, arg, e);
        s->n_lists--;
        return r;
    }
    sqlite3 *db = TAKE_PTR(s->reader); /* a list inside of a list opens another */
    int r = db ? 0 : sq_connect(s, true, &db, e);
    if (r < 0) {
        return r;
    }
    uint64_t revision = 0;
    r = reader_begin(s, db, &revision, e);
    if (r == 0) {
        if (revision_out) {
            *revision_out = revision;
        }
        r = list_rows(s, db, prefix, cb, arg, e);
    }
    /* Ending a read can't fail in a way that matters; a connection that won't end is closed. */
    bool is_ended =
        sqlite3_get_autocommit(db) || sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK;
    if (s->reader || !is_ended) {
        (void)sqlite3_close(db);
    } else {
        (void)sqlite3_db_release_memory(db);
        s->reader = db;
    }
    return r;
}

/* ---- watches ---- */

static void watch_destroy(struct sq_watch *w) {
    loop_defer_free(w->defer);
    free(w->space);
    free(w->prefix);
    free(w);
}

static void watch_end(struct sq_watch *w, int code) {
    w->is_over = true;
    if (w->ops.on_end) {
        w->ops.on_end(w->arg, code);
    }
}

/* Reads a slice of the changes behind w->pos, up to `upto`, into the arena; moves w->pos. */
static int read_slice(struct sq_watch *w, uint64_t upto, struct arena *a, struct store_item *items,
                      size_t *n) {
    struct sq_store *s = w->s;
    uint64_t oldest = 0;
    int r = query_u64(s, SQL_OLDEST, NULL, &oldest, NULL);
    if (r < 0) {
        return r;
    }
    if (w->pos > upto || w->pos + 1 < oldest) {
        return ERR_GONE; /* pruned, or a position of another store's life */
    }
    sqlite3_stmt *st;
    r = stmt_get(s, SQL_CHANGES, &st, NULL);
    if (r < 0) {
        return r;
    }
    (void)sqlite3_bind_int64(st, 1, (sqlite3_int64)w->pos);
    (void)sqlite3_bind_int64(st, 2, (sqlite3_int64)upto);
    int rc = SQLITE_DONE;
    uint64_t pos = upto;
    size_t n_rows = 0;
    *n = 0;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        uint64_t rev = (uint64_t)sqlite3_column_int64(st, 0);
        struct str key = column_str(st, 2);
        if (str_eq(column_str(st, 1), str_n(w->space, w->space_n)) &&
            str_starts(key, str_n(w->prefix, w->prefix_n))) {
            items[(*n)++] = (struct store_item){.space = str_n(w->space, w->space_n),
                                                .key = arena_dup(a, key),
                                                .value = arena_dup(a, column_str(st, 3)),
                                                .revision = rev};
        }
        if (++n_rows == SLICE_ROWS || a->used_bytes > SLICE_BYTES) {
            pos = rev;
            rc = SQLITE_DONE;
            break;
        }
    }
    stmt_done(st);
    if (rc != SQLITE_DONE) {
        return sq_error(s, s->db, rc, "read", NULL);
    }
    w->pos = pos;
    return 0;
}

static void on_defer(void *arg) {
    struct sq_watch *w = arg;
    struct sq_store *s = w->s;
    if (!s || w->is_over || s->base.in_tx) {
        return; /* the end of the transaction asks again */
    }
    uint64_t upto = s->committed;
    struct arena a = {0};
    struct store_item *items = arena_array(&a, struct store_item, SLICE_ROWS);
    size_t n = 0;
    int r = read_slice(w, upto, &a, items, &n);
    w->is_in_cb = true;
    if (r < 0) {
        watch_end(w, r);
    }
    for (size_t i = 0; r == 0 && i < n && !w->is_dead; i++) {
        w->ops.on_item(w->arg, &items[i]);
    }
    if (r == 0 && !w->is_dead && w->pos >= upto && w->pos != w->said) {
        w->said = w->pos;
        if (w->ops.on_progress) {
            w->ops.on_progress(w->arg, w->pos);
        }
    }
    w->is_in_cb = false;
    arena_fini(&a);
    if (w->is_dead) {
        watch_destroy(w);
    } else if (w->s && !w->is_over && w->pos < w->s->committed) {
        loop_defer_ask(w->defer);
    }
}

static char *dup_str(struct str v) {
    char *p = malloc(v.n + 1);
    mg_assert(p != NULL);
    if (v.n) {
        memcpy(p, v.p, v.n);
    }
    p[v.n] = '\0';
    return p;
}

static int sq_watch(struct store *base, struct loop *l, struct store_key prefix,
                    uint64_t from_revision, const struct store_watch_ops *ops, void *arg,
                    struct store_watch **out, struct err *e) {
    struct sq_store *s = sq(base);
    if (s->is_ro) {
        return err_set(e, ERR_INVALID,
                       "store %s was opened for reading beside its writer (mode=ro), which can't "
                       "be watched: watch through the agent's socket",
                       s->path);
    }
    struct sq_watch *w = calloc(1, sizeof(*w));
    mg_assert(w != NULL);
    w->base.drv = base->drv;
    w->s = s;
    w->defer = loop_defer_new(l, on_defer, w);
    w->space = dup_str(prefix.space);
    w->space_n = prefix.space.n;
    w->prefix = dup_str(prefix.key);
    w->prefix_n = prefix.key.n;
    w->pos = w->said = from_revision;
    w->ops = *ops;
    w->arg = arg;
    vec_push(&s->watches, w);
    loop_defer_ask(w->defer);
    *out = &w->base;
    return 0;
}

static void sq_watch_free(struct store_watch *base) {
    struct sq_watch *w = container_of(base, struct sq_watch, base);
    struct sq_store *s = w->s;
    for (size_t i = 0; s && i < s->watches.n; i++) {
        if (s->watches.p[i] == w) {
            vec_swap_remove(&s->watches, i);
            break;
        }
    }
    w->s = NULL;
    if (w->is_in_cb) {
        w->is_dead = true;
    } else {
        watch_destroy(w);
    }
}

/* Accepts half-open stores, which sq_open leaves here on failure. */
static void sq_close(struct store *base) {
    struct sq_store *s = sq(base);
    for (size_t i = 0; i < s->watches.n; i++) {
        s->watches.p[i]->s = NULL; /* silent from now on, freed by their owners */
    }
    vec_fini(&s->watches);
    for (size_t i = 0; i < SQL_N; i++) {
        (void)sqlite3_finalize(s->stmt[i]);
    }
    (void)sqlite3_close(s->reader);
    (void)sqlite3_close(s->db);
    fd_close(&s->lock_fd);
    free(s->path);
    free(s);
}

const struct store_driver store_sqlite = {
    .scheme = "sqlite",
    .open = sq_open,
    .close = sq_close,
    .get = sq_get,
    .list = sq_list,
    .put = sq_put,
    .del = sq_del,
    .begin = sq_begin,
    .commit = sq_commit,
    .rollback = sq_rollback,
    .revision = sq_revision,
    .watch = sq_watch,
    .watch_free = sq_watch_free,
};
