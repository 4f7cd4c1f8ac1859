/* The embedded store: SQLite in WAL mode, synchronous=FULL: what was acknowledged is on disk.
 *
 * One process opens it for writing; it holds a lock on PATH.lock in which its pid is written. Every
 * write takes the next revision of the whole store and is noted in a log of changes, from which
 * watches are served; the log keeps the newest LOG_KEEP revisions. `?mode=ro` opens for reading
 * beside a writer. A file that can't be read is reported, never touched. */
#include "store/driver.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/vec.h"

#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FORMAT = 1,                  /* PRAGMA user_version */
    APPLICATION_ID = 0x6d617267, /* "marg": PRAGMA application_id */
    LOG_KEEP = 10000,            /* revisions that a watch may start from */
    LOG_PRUNE_EVERY = 1000,
    BUSY_MS = 5000,
};

enum stmt {
    Q_GET,
    Q_LIST,
    Q_PUT,
    Q_DEL,
    Q_REV_OF,
    Q_LOG,
    Q_LOG_AFTER,
    Q_LOG_OLDEST,
    Q_LOG_PRUNE,
    Q_REVISION,
    Q_SET_REVISION,
    Q_BEGIN,
    Q_BEGIN_READ,
    Q_COMMIT,
    Q_ROLLBACK,
    N_STMTS,
};

static const char *const sql[N_STMTS] = {
    [Q_GET] = "SELECT value, revision FROM items WHERE space = ?1 AND key = ?2",
    [Q_LIST] = "SELECT key, value, revision FROM items WHERE space = ?1 AND key >= ?2 ORDER BY key",
    [Q_PUT] = "INSERT INTO items (space, key, value, revision) VALUES (?1, ?2, ?3, ?4) "
              "ON CONFLICT (space, key) DO UPDATE SET value = ?3, revision = ?4",
    [Q_DEL] = "DELETE FROM items WHERE space = ?1 AND key = ?2",
    [Q_REV_OF] = "SELECT revision FROM items WHERE space = ?1 AND key = ?2",
    [Q_LOG] = "INSERT INTO log (revision, space, key, value) VALUES (?1, ?2, ?3, ?4)",
    [Q_LOG_AFTER] = "SELECT revision, space, key, value FROM log WHERE revision > ?1 "
                    "ORDER BY revision",
    [Q_LOG_OLDEST] = "SELECT MIN(revision) FROM log",
    [Q_LOG_PRUNE] = "DELETE FROM log WHERE revision <= ?1",
    [Q_REVISION] = "SELECT revision FROM head",
    [Q_SET_REVISION] = "UPDATE head SET revision = ?1",
    [Q_BEGIN] = "BEGIN IMMEDIATE",
    [Q_BEGIN_READ] = "BEGIN",
    [Q_COMMIT] = "COMMIT",
    [Q_ROLLBACK] = "ROLLBACK",
};

static const char schema[] =
    "CREATE TABLE items (space TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,"
    " revision INTEGER NOT NULL, PRIMARY KEY (space, key)) WITHOUT ROWID;"
    "CREATE TABLE log (revision INTEGER PRIMARY KEY, space TEXT NOT NULL, key TEXT NOT NULL,"
    " value TEXT);"
    "CREATE TABLE head (revision INTEGER NOT NULL);"
    "INSERT INTO head VALUES (0);";

struct event {
    struct str space, key, value;
    uint64_t revision;
};

struct watch {
    struct store_watch base;
    struct loop_defer *defer;
    char *space, *prefix;
    uint64_t sent; /* newest revision looked at for this watch */
    struct store_watch_ops ops;
    void *arg;
    bool is_in_callback, is_freed;
};

struct sqlite {
    sqlite3 *db;
    sqlite3_stmt *q[N_STMTS];
    char *path;
    int lock_fd;
    bool is_read_only;
    uint64_t revision;         /* committed, as far as this process knows */
    uint64_t pending_revision; /* inside a transaction */
    unsigned writes;           /* since the log was pruned */
    VEC(struct watch *) watches;
};

/* ---- errors ---- */

static int code_of(int rc) {
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return ERR_NO_SPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_RETRY;
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return ERR_DENIED;
    default:
        return -EIO;
    }
}

static int fail(struct sqlite *d, int rc, const char *what, struct err *e) {
    int code = code_of(rc);
    const char *text = sqlite3_errmsg(d->db);
    if (code == ERR_CORRUPT) {
        return err_set(
            e, code,
            "%s: the store can't be read (%s: %s); it was left as it is. Move it away and "
            "restore a copy, or start with an empty store: mv %s %s.broken",
            d->path, what, text, d->path, d->path);
    }
    if (code == ERR_NO_SPACE) {
        return err_set(e, code,
                       "%s: no space left for the store (%s); nothing was lost, free some "
                       "space and try again",
                       d->path, what);
    }
    return err_set(e, code, "%s: %s: %s", d->path, what, text);
}

static int exec(struct sqlite *d, const char *text, struct err *e) {
    int rc = sqlite3_exec(d->db, text, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : fail(d, rc, text, e);
}

static void bind_str(sqlite3_stmt *q, int i, struct str s) {
    sqlite3_bind_text(q, i, s.p ? s.p : "", (int)s.n, SQLITE_STATIC);
}

static struct str column_str(sqlite3_stmt *q, int i) {
    if (sqlite3_column_type(q, i) == SQLITE_NULL) {
        return STR_NULL;
    }
    const char *p = (const char *)sqlite3_column_text(q, i);
    return str_n(p ? p : "", (size_t)sqlite3_column_bytes(q, i));
}

static sqlite3_stmt *query(struct sqlite *d, enum stmt i) {
    if (!d->q[i] &&
        sqlite3_prepare_v3(d->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &d->q[i], NULL)) {
        d->q[i] = NULL;
    }
    return d->q[i];
}

/* Runs a statement that gives no rows. */
static int run(struct sqlite *d, enum stmt i, struct err *e) {
    sqlite3_stmt *q = query(d, i);
    if (!q) {
        return fail(d, sqlite3_errcode(d->db), sql[i], e);
    }
    int rc = sqlite3_step(q);
    sqlite3_reset(q);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : fail(d, rc, sql[i], e);
}

static int read_u64(struct sqlite *d, enum stmt i, uint64_t *out, struct err *e) {
    sqlite3_stmt *q = query(d, i);
    if (!q) {
        return fail(d, sqlite3_errcode(d->db), sql[i], e);
    }
    int rc = sqlite3_step(q);
    if (rc == SQLITE_ROW) {
        *out = (uint64_t)sqlite3_column_int64(q, 0);
    }
    sqlite3_reset(q);
    return rc == SQLITE_ROW ? 0 : fail(d, rc, sql[i], e);
}

/* ---- opening ---- */

static int make_folder(const char *path, struct err *e) {
    char dir[PATH_MAX];
    snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    if (!slash || slash == dir) {
        return 0;
    }
    *slash = 0;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        int err = errno;
        return err_set(e, -err, "folder of the store %s: %s", dir, strerror(err));
    }
    return 0;
}

/* One writer: the holder's pid is in the file, for whoever comes second. */
static int take_lock(struct sqlite *d, struct err *e) {
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s.lock", d->path);
    MG_CLEANUP(fd_close)
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        int err = errno;
        return err_set(e, -err, "%s: %s", path, strerror(err));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        char pid[32] = "?";
        ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);
        pid[n > 0 ? n : 1] = 0;
        pid[strcspn(pid, "\n")] = 0;
        return err_set(e, -EBUSY,
                       "%s is in use by process %s: one process at a time writes to a store. Stop "
                       "that one, or give this one another --state-dir",
                       d->path, pid);
    }
    char pid[32];
    int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    /* Only for the message above: a failure does no harm. */
    (void)!ftruncate(fd, 0);
    (void)!pwrite(fd, pid, (size_t)n, 0);
    d->lock_fd = TAKE_FD(fd);
    return 0;
}

/* The file is what we think it is, or new. Symlinks and foreign files are refused. */
static int check_file(struct sqlite *d, bool *is_new, struct err *e) {
    struct stat st;
    *is_new = false;
    if (lstat(d->path, &st) < 0) {
        if (errno == ENOENT && !d->is_read_only) {
            *is_new = true;
            MG_CLEANUP(fd_close)
            int fd = open(d->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
            if (fd >= 0) {
                return 0;
            }
        }
        int err = errno;
        return err_set(e, err == ENOENT ? ERR_NOT_FOUND : -err, "store %s: %s", d->path,
                       strerror(err));
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(e, ERR_DENIED, "store %s: not a regular file (links are not followed)",
                       d->path);
    }
    *is_new = st.st_size == 0;
    return 0;
}

static int pragma_int(struct sqlite *d, const char *text, int64_t *out, struct err *e) {
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_prepare_v2(d->db, text, -1, &q, NULL);
    if (rc == SQLITE_OK && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        *out = sqlite3_column_int64(q, 0);
        rc = SQLITE_OK;
    }
    sqlite3_finalize(q);
    return rc == SQLITE_OK ? 0 : fail(d, rc, text, e);
}

static int check_format(struct sqlite *d, struct err *e) {
    int64_t id = 0, version = 0;
    int r = pragma_int(d, "PRAGMA application_id", &id, e);
    if (r == 0) {
        r = pragma_int(d, "PRAGMA user_version", &version, e);
    }
    if (r < 0) {
        return r;
    }
    if (id != APPLICATION_ID) {
        return err_set(e, ERR_CORRUPT, "%s: a database of another program; it was left as it is",
                       d->path);
    }
    if (version != FORMAT) {
        return err_set(e, ERR_CORRUPT,
                       "%s: written by a newer version (format %lld, this one knows %d): install "
                       "that version again",
                       d->path, (long long)version, FORMAT);
    }
    return 0;
}

static int set_up(struct sqlite *d, bool is_new, struct err *e) {
    sqlite3_busy_timeout(d->db, BUSY_MS);
    int r =
        exec(d, "PRAGMA cache_size = -512; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0", e);
    if (r == 0 && !d->is_read_only) {
        r = exec(d, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", e);
    }
    if (r == 0 && is_new) {
        char text[sizeof(schema) + 128];
        snprintf(
            text, sizeof(text),
            "BEGIN IMMEDIATE; PRAGMA application_id = %d; PRAGMA user_version = %d; %s COMMIT;",
            APPLICATION_ID, FORMAT, schema);
        r = exec(d, text, e);
    }
    if (r == 0) {
        r = check_format(d, e);
    }
    return r == 0 ? read_u64(d, Q_REVISION, &d->revision, e) : r;
}

static void sq_close(struct store *s);

static int sq_open(struct store *s, const char *rest, struct err *e) {
    struct sqlite *d = calloc(1, sizeof(*d));
    mg_assert(d != NULL);
    s->d = d;
    d->lock_fd = -1;
    const char *query_part = strchr(rest, '?');
    d->is_read_only = query_part && strcmp(query_part, "?mode=ro") == 0;
    d->path = strndup(rest, query_part ? (size_t)(query_part - rest) : strlen(rest));
    mg_assert(d->path != NULL);
    int r = 0;
    bool is_new = false;
    if ((query_part && !d->is_read_only) || !d->path[0]) {
        r = err_set(e, ERR_INVALID,
                    "datastore sqlite:%s: expected sqlite:PATH or "
                    "sqlite:PATH?mode=ro",
                    rest);
    }
    if (r == 0 && !d->is_read_only) {
        r = make_folder(d->path, e);
        if (r == 0) {
            r = take_lock(d, e);
        }
    }
    if (r == 0) {
        r = check_file(d, &is_new, e);
    }
    if (r == 0) {
        int flags = (d->is_read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) |
                    SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW;
        /* SQLite refuses links anywhere in the path; ours may be below one (/var/run). */
        char real[PATH_MAX];
        const char *path = realpath(d->path, real) ? real : d->path;
        int rc = sqlite3_open_v2(path, &d->db, flags, NULL);
        r = rc == SQLITE_OK ? 0 : fail(d, rc, "opening", e);
    }
    if (r == 0) {
        r = set_up(d, is_new, e);
    }
    if (r < 0) {
        sq_close(s);
    }
    return r;
}

static void sq_close(struct store *s) {
    struct sqlite *d = s->d;
    for (int i = 0; i < N_STMTS; i++) {
        sqlite3_finalize(d->q[i]);
    }
    sqlite3_close(d->db);
    fd_close(&d->lock_fd);
    vec_fini(&d->watches);
    free(d->path);
    free(d);
}

/* ---- reading ---- */

static int sq_get(struct store *s, struct store_key k, struct arena *a, struct store_item *out,
                  struct err *e) {
    struct sqlite *d = s->d;
    sqlite3_stmt *q = query(d, Q_GET);
    if (!q) {
        return fail(d, sqlite3_errcode(d->db), "get", e);
    }
    bind_str(q, 1, k.space);
    bind_str(q, 2, k.key);
    int rc = sqlite3_step(q);
    int r = 0;
    if (rc == SQLITE_ROW) {
        *out = (struct store_item){.space = arena_dup(a, k.space),
                                   .key = arena_dup(a, k.key),
                                   .value = arena_dup(a, column_str(q, 0)),
                                   .revision = (uint64_t)sqlite3_column_int64(q, 1)};
    } else if (rc == SQLITE_DONE) {
        r = err_set(e, ERR_NOT_FOUND, "%.*s: not found", STR_FMT(k.key));
    } else {
        r = fail(d, rc, "get", e);
    }
    sqlite3_reset(q);
    return r;
}

static int sq_list(struct store *s, struct store_key prefix, uint64_t *revision_out,
                   int (*cb)(void *arg, const struct store_item *it), void *arg, struct err *e) {
    struct sqlite *d = s->d;
    /* Its own statement: the callback may list again. One read transaction: one revision. */
    sqlite3_stmt *q = NULL;
    bool own = sqlite3_get_autocommit(d->db);
    int r = own ? run(d, Q_BEGIN_READ, e) : 0;
    uint64_t revision = d->revision;
    if (r == 0) {
        r = read_u64(d, Q_REVISION, &revision, e);
    }
    if (r == 0 && sqlite3_prepare_v2(d->db, sql[Q_LIST], -1, &q, NULL) != SQLITE_OK) {
        r = fail(d, sqlite3_errcode(d->db), "list", e);
    }
    int stopped = 0;
    if (r == 0) {
        bind_str(q, 1, prefix.space);
        bind_str(q, 2, prefix.key);
        int rc;
        while ((rc = sqlite3_step(q)) == SQLITE_ROW) {
            struct store_item it = {.space = prefix.space,
                                    .key = column_str(q, 0),
                                    .value = column_str(q, 1),
                                    .revision = (uint64_t)sqlite3_column_int64(q, 2)};
            if (!str_starts(it.key, prefix.key)) {
                rc = SQLITE_DONE;
                break;
            }
            stopped = cb(arg, &it);
            if (stopped < 0) {
                rc = SQLITE_DONE;
                break;
            }
        }
        if (rc != SQLITE_DONE) {
            r = fail(d, rc, "list", e);
        }
    }
    sqlite3_finalize(q);
    if (own && !sqlite3_get_autocommit(d->db)) {
        struct err ignored; /* ending a read can't lose anything */
        (void)run(d, Q_COMMIT, &ignored);
    }
    if (r == 0 && revision_out) {
        *revision_out = revision;
    }
    return r < 0 ? r : stopped;
}

/* ---- watches ---- */

static void wake(struct sqlite *d) {
    for (size_t i = 0; i < d->watches.n; i++) {
        loop_defer_ask(d->watches.p[i]->defer);
    }
}

static void watch_destroy(struct watch *w) {
    loop_defer_free(w->defer);
    free(w->space);
    free(w->prefix);
    free(w);
}

/* Passes on what was written since the last time, from the log. */
static void watch_pump(void *arg) {
    struct watch *w = arg;
    struct sqlite *d = w->base.store->d;
    if (!sqlite3_get_autocommit(d->db)) {
        loop_defer_ask(w->defer); /* a transaction is open: after it */
        return;
    }
    uint64_t oldest = 0;
    struct err e;
    int r = read_u64(d, Q_LOG_OLDEST, &oldest, &e);
    int ended = r;
    if (r == 0 && w->sent < d->revision && (oldest == 0 || w->sent + 1 < oldest)) {
        ended = ERR_GONE;
    }
    sqlite3_stmt *q = NULL;
    if (ended == 0 && sqlite3_prepare_v2(d->db, sql[Q_LOG_AFTER], -1, &q, NULL) != SQLITE_OK) {
        ended = code_of(sqlite3_errcode(d->db));
    }
    w->is_in_callback = true;
    if (ended == 0) {
        sqlite3_bind_int64(q, 1, (int64_t)w->sent);
        struct str space = str_c(w->space), prefix = str_c(w->prefix);
        int rc;
        while (!w->is_freed && (rc = sqlite3_step(q)) == SQLITE_ROW) {
            struct store_item it = {.space = column_str(q, 1),
                                    .key = column_str(q, 2),
                                    .value = column_str(q, 3),
                                    .revision = (uint64_t)sqlite3_column_int64(q, 0)};
            w->sent = it.revision;
            if (str_eq(it.space, space) && str_starts(it.key, prefix)) {
                w->ops.on_item(w->arg, &it);
            }
        }
    }
    sqlite3_finalize(q);
    if (ended < 0 && !w->is_freed) {
        w->ops.on_end(w->arg, ended);
    }
    w->is_in_callback = false;
    if (w->is_freed) {
        watch_destroy(w);
    }
}

static int sq_watch(struct store *s, struct loop *l, struct store_key prefix,
                    uint64_t from_revision, const struct store_watch_ops *ops, void *arg,
                    struct store_watch **out, struct err *e) {
    struct sqlite *d = s->d;
    (void)e;
    struct watch *w = calloc(1, sizeof(*w));
    mg_assert(w != NULL);
    w->base.store = s;
    w->defer = loop_defer_new(l, watch_pump, w);
    w->space = strndup(prefix.space.p, prefix.space.n);
    w->prefix = strndup(prefix.key.p ? prefix.key.p : "", prefix.key.n);
    mg_assert(w->space && w->prefix);
    w->sent = from_revision;
    w->ops = *ops;
    w->arg = arg;
    vec_push(&d->watches, w);
    if (from_revision < d->revision) {
        loop_defer_ask(w->defer);
    }
    *out = &w->base;
    return 0;
}

static void sq_watch_free(struct store_watch *base) {
    struct watch *w = (struct watch *)base;
    struct sqlite *d = base->store->d;
    for (size_t i = 0; i < d->watches.n; i++) {
        if (d->watches.p[i] == w) {
            vec_swap_remove(&d->watches, i);
            break;
        }
    }
    if (w->is_in_callback) {
        w->is_freed = true;
    } else {
        watch_destroy(w);
    }
}

/* ---- writing ---- */

static int sq_begin(struct store *s, struct err *e) {
    struct sqlite *d = s->d;
    if (d->is_read_only) {
        return err_set(e, ERR_DENIED, "%s is open for reading only", d->path);
    }
    d->pending_revision = d->revision;
    return run(d, Q_BEGIN, e);
}

static void sq_rollback(struct store *s) {
    struct sqlite *d = s->d;
    struct err ignored; /* a failed statement may have rolled back already */
    if (!sqlite3_get_autocommit(d->db)) {
        (void)run(d, Q_ROLLBACK, &ignored);
    }
}

static int prune(struct sqlite *d, struct err *e) {
    if (d->writes < LOG_PRUNE_EVERY || d->pending_revision <= LOG_KEEP) {
        return 0;
    }
    sqlite3_stmt *q = query(d, Q_LOG_PRUNE);
    if (!q) {
        return fail(d, sqlite3_errcode(d->db), "prune", e);
    }
    sqlite3_bind_int64(q, 1, (int64_t)(d->pending_revision - LOG_KEEP));
    int r = run(d, Q_LOG_PRUNE, e);
    if (r == 0) {
        d->writes = 0;
    }
    return r;
}

static int sq_commit(struct store *s, struct err *e) {
    struct sqlite *d = s->d;
    int r = 0;
    if (d->pending_revision != d->revision) {
        sqlite3_stmt *q = query(d, Q_SET_REVISION);
        if (!q) {
            r = fail(d, sqlite3_errcode(d->db), "commit", e);
        } else {
            sqlite3_bind_int64(q, 1, (int64_t)d->pending_revision);
            r = run(d, Q_SET_REVISION, e);
        }
        if (r == 0) {
            r = prune(d, e);
        }
    }
    if (r == 0) {
        r = run(d, Q_COMMIT, e);
    }
    if (r < 0) {
        sq_rollback(s);
        return r;
    }
    if (d->revision != d->pending_revision) {
        d->revision = d->pending_revision;
        wake(d);
    }
    return 0;
}

/* expect against what is there: 0 or an error. */
static int check_expect(struct sqlite *d, struct store_key k, uint64_t expect, bool is_delete,
                        struct err *e) {
    if (expect == REV_ANY && !is_delete) {
        return 0;
    }
    sqlite3_stmt *q = query(d, Q_REV_OF);
    if (!q) {
        return fail(d, sqlite3_errcode(d->db), "read", e);
    }
    bind_str(q, 1, k.space);
    bind_str(q, 2, k.key);
    int rc = sqlite3_step(q);
    uint64_t has = rc == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(q, 0) : 0;
    sqlite3_reset(q);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        return fail(d, rc, "read", e);
    }
    if (expect == REV_NONE && !is_delete) {
        return has ? err_set(e, ERR_EXISTS, "%.*s: already exists", STR_FMT(k.key)) : 0;
    }
    if (!has) {
        return err_set(e, ERR_NOT_FOUND, "%.*s: not found", STR_FMT(k.key));
    }
    if (expect != REV_ANY && expect != has) {
        return err_set(
            e, ERR_CONFLICT,
            "%.*s: changed meanwhile (at revision %llu, expected %llu): read it again and "
            "repeat",
            STR_FMT(k.key), (unsigned long long)has, (unsigned long long)expect);
    }
    return 0;
}

static int write_item(struct sqlite *d, struct store_key k, struct str value, struct err *e) {
    int64_t rev = (int64_t)++d->pending_revision;
    d->writes++;
    enum stmt change = value.p ? Q_PUT : Q_DEL;
    sqlite3_stmt *q = query(d, change), *log = query(d, Q_LOG);
    if (!q || !log) {
        return fail(d, sqlite3_errcode(d->db), "write", e);
    }
    bind_str(q, 1, k.space);
    bind_str(q, 2, k.key);
    if (value.p) {
        bind_str(q, 3, value);
        sqlite3_bind_int64(q, 4, rev);
    }
    sqlite3_bind_int64(log, 1, rev);
    bind_str(log, 2, k.space);
    bind_str(log, 3, k.key);
    if (value.p) {
        bind_str(log, 4, value);
    } else {
        sqlite3_bind_null(log, 4);
    }
    int r = run(d, change, e);
    return r < 0 ? r : run(d, Q_LOG, e);
}

/* One write, in the open transaction or in one of its own. value STR_NULL deletes. */
static int write_checked(struct store *s, struct store_key k, struct str value, uint64_t expect,
                         uint64_t *revision_out, struct err *e) {
    struct sqlite *d = s->d;
    bool own = sqlite3_get_autocommit(d->db);
    if (s->in_transaction && own) {
        /* A failed statement (full disk) has ended the transaction. */
        return err_set(e, ERR_NO_SPACE, "%s: the transaction was given up after an error", d->path);
    }
    int r = own ? sq_begin(s, e) : 0;
    if (r < 0) {
        return r;
    }
    r = check_expect(d, k, expect, !value.p, e);
    if (r == 0) {
        r = write_item(d, k, value, e);
    }
    uint64_t rev = d->pending_revision;
    if (own) {
        if (r < 0) {
            sq_rollback(s);
        } else {
            r = sq_commit(s, e);
        }
    }
    if (r == 0 && revision_out) {
        *revision_out = rev;
    }
    return r;
}

static int sq_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                  uint64_t *revision_out, struct err *e) {
    return write_checked(s, k, value, expect, revision_out, e);
}

static int sq_delete(struct store *s, struct store_key k, uint64_t expect, struct err *e) {
    return write_checked(s, k, STR_NULL, expect, NULL, e);
}

static uint64_t sq_revision(struct store *s) {
    struct sqlite *d = s->d;
    if (d->is_read_only) { /* somebody else writes */
        struct err ignored;
        (void)read_u64(d, Q_REVISION, &d->revision, &ignored);
    }
    return d->revision;
}

const struct store_driver store_sqlite = {
    .scheme = "sqlite",
    .open = sq_open,
    .close = sq_close,
    .get = sq_get,
    .list = sq_list,
    .put = sq_put,
    .del = sq_delete,
    .begin = sq_begin,
    .commit = sq_commit,
    .rollback = sq_rollback,
    .revision = sq_revision,
    .watch = sq_watch,
    .watch_free = sq_watch_free,
};
