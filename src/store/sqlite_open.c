/* Opening a sqlite store: who may have it, is it ours, is it whole. Decides where the file lies and
 * with which settings a connection runs; what goes in and out is sqlite.c's.
 *
 * The writer holds flock on PATH.lock, which holds its process id, for as long as it has the store
 * open. A file that doesn't look like ours is refused and never written to. */
#include "base/fd.h"
#include "base/log.h"
#include "store/sqlite_int.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BUSY_MS = 2000,
    CHECK_MAX_BYTES = 1 << 20, /* up to here a whole check stays within a few ms */
    PATH_LEN_MAX = 3800,
};

int sq_error(const struct sq_store *s, sqlite3 *db, int rc, const char *what, struct err *e) {
    int os = db ? sqlite3_system_errno(db) : 0;
    const char *text = db ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
    switch (rc & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return err_set(
            e, ERR_CORRUPT,
            "store %s is damaged (%s: %s). It was left as it is. Stop the agent, move it "
            "away (mv '%s' '%s.bad') and restore a backup or start with an empty store; "
            "sqlite3 '%s.bad' .recover shows what can still be read",
            s->path, what, text, s->path, s->path, s->path);
    case SQLITE_FULL:
        os = ENOSPC;
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(e, ERR_RETRY, "store %s: %s: another program keeps the file locked", s->path,
                       what);
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return err_set(e, ERR_DENIED, "store %s: %s: the file can't be written", s->path, what);
    case SQLITE_TOOBIG:
        return err_set(e, ERR_TOO_BIG, "store %s: %s: %s", s->path, what, text);
    case SQLITE_NOMEM:
        return err_set(e, -ENOMEM, "store %s: %s: out of memory", s->path, what);
    default:
        break;
    }
    if (os == ENOSPC || os == EDQUOT || os == EFBIG) {
        return err_set(e, ERR_NO_SPACE,
                       "store %s: %s: the disk is full; nothing was changed. Free some space, then "
                       "the same works again",
                       s->path, what);
    }
    return err_set(e, -EIO, "store %s: %s: %s (%d)%s%s", s->path, what, text, rc, os ? ": " : "",
                   os ? strerror(os) : "");
}

static int exec_sql(const struct sq_store *s, sqlite3 *db, const char *sql, struct err *e) {
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : sq_error(s, db, rc, "open", e);
}

int sq_connect(struct sq_store *s, bool is_ro, sqlite3 **out, struct err *e) {
    sqlite3 *db = NULL;
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE |
                (is_ro ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
    int rc = sqlite3_open_v2(s->path, &db, flags, NULL);
    if (rc != SQLITE_OK) {
        int r = sq_error(s, db, rc, "open", e);
        (void)sqlite3_close(db);
        return r;
    }
    (void)sqlite3_busy_timeout(db, BUSY_MS);
    /* Small: the agent's memory counts more here than the speed of reading everything. */
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_LOOKASIDE, NULL, 256, is_ro ? 0 : 128);
    /* Until the file is known to be ours and whole, closing must not write to it. */
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    int r = exec_sql(s, db,
                     is_ro ? "PRAGMA mmap_size=0; PRAGMA cache_size=-128"
                           : "PRAGMA mmap_size=0; PRAGMA cache_size=-512; PRAGMA synchronous=FULL;"
                             "PRAGMA temp_store=MEMORY; PRAGMA journal_size_limit=8388608",
                     e);
    if (r < 0) {
        (void)sqlite3_close(db);
        return r;
    }
    *out = db;
    return 0;
}

/* First column of the first row as a number. */
static int query_int(const struct sq_store *s, const char *sql, int64_t *out, struct err *e) {
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(st);
    }
    int r = 0;
    if (rc == SQLITE_ROW) {
        *out = sqlite3_column_int64(st, 0);
    } else if (rc == SQLITE_DONE) {
        *out = 0;
    } else {
        r = sq_error(s, s->db, rc, "open", e);
    }
    (void)sqlite3_finalize(st);
    return r;
}

/* After an unclean end: a whole check while that is cheap, else a look at both ends of each table.
 * Damage elsewhere shows up as ERR_CORRUPT of the call that meets it. */
static int check_content(const struct sq_store *s, struct err *e) {
    int64_t n_pages = 0, page_bytes = 0, any = 0;
    int r = query_int(s, "PRAGMA page_count", &n_pages, e);
    if (r == 0) {
        r = query_int(s, "PRAGMA page_size", &page_bytes, e);
    }
    if (r == 0 && n_pages * page_bytes <= CHECK_MAX_BYTES) {
        sqlite3_stmt *st = NULL;
        int rc = sqlite3_prepare_v2(s->db, "PRAGMA quick_check(1)", -1, &st, NULL);
        if (rc == SQLITE_OK) {
            rc = sqlite3_step(st);
        }
        const char *said = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(st, 0) : NULL;
        if (rc != SQLITE_ROW) {
            r = sq_error(s, s->db, rc, "check", e);
        } else if (!said || strcmp(said, "ok") != 0) {
            r = sq_error(s, NULL, SQLITE_CORRUPT, said ? said : "check", e);
        }
        (void)sqlite3_finalize(st);
        return r;
    }
    static const char *const ends[] = {
        "SELECT length(value) FROM items ORDER BY space, key LIMIT 1",
        "SELECT length(value) FROM items ORDER BY space DESC, key DESC LIMIT 1",
        "SELECT length(value) FROM changes ORDER BY revision LIMIT 1",
        "SELECT length(value) FROM changes ORDER BY revision DESC LIMIT 1"};
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(ends); i++) {
        r = query_int(s, ends[i], &any, e);
    }
    return r;
}

static int foreign(const char *path, uint32_t app, struct err *e) {
    return err_set(e, ERR_CORRUPT,
                   "store %s is a database of another program (application id 0x%x, a Margay "
                   "store has 0x%x). It was left as it is: give --datastore another path, or "
                   "move that file away",
                   path, app, SQLITE_APP_ID);
}

/* Ours, of a format that we know; an empty database gets its tables. */
static int check_format(const struct sq_store *s, struct err *e) {
    int64_t app = 0, version = 0, n_tables = 0;
    int r = query_int(s, "PRAGMA application_id", &app, e);
    if (r == 0) {
        r = query_int(s, "PRAGMA user_version", &version, e);
    }
    if (r == 0) {
        r = query_int(s, "SELECT count(*) FROM sqlite_master", &n_tables, e);
    }
    if (r < 0) {
        return r;
    }
    if (app == 0 && version == 0 && n_tables == 0) {
        if (s->is_ro) {
            return err_set(e, ERR_NOT_FOUND, "store %s is empty: no agent has written to it yet",
                           s->path);
        }
        char sql[768];
        /* One transaction: a file has all of its tables and its name, or nothing. */
        (void)snprintf(sql, sizeof(sql),
                       "BEGIN IMMEDIATE;"
                       "CREATE TABLE items(space TEXT NOT NULL, key TEXT NOT NULL,"
                       " value TEXT NOT NULL, revision INTEGER NOT NULL, PRIMARY KEY(space, key))"
                       " WITHOUT ROWID;"
                       "CREATE TABLE changes(revision INTEGER PRIMARY KEY, space TEXT NOT NULL,"
                       " key TEXT NOT NULL, value TEXT);"
                       "PRAGMA application_id=%d; PRAGMA user_version=%d;"
                       "COMMIT",
                       SQLITE_APP_ID, STORE_SQLITE_FORMAT);
        return exec_sql(s, s->db, sql, e);
    }
    if (app != SQLITE_APP_ID) {
        return foreign(s->path, (uint32_t)app, e);
    }
    if (version > STORE_SQLITE_FORMAT) {
        return err_set(e, ERR_INVALID,
                       "store %s has format %lld, written by a newer Margay; this one knows up to "
                       "%d. Install the newer version again, or restore a backup from before the "
                       "upgrade",
                       s->path, (long long)version, STORE_SQLITE_FORMAT);
    }
    return 0;
}

/* The bytes before SQLite sees them: it would silently make an empty store of a file whose header
 * it can't read in some cases, and must not touch another's. */
static int check_header(const char *path, int fd, off_t size, struct err *e) {
    unsigned char head[72] = {0};
    if (size == 0) {
        return 0;
    }
    ssize_t n = pread(fd, head, sizeof(head), 0);
    if (n < 0) {
        return err_set(e, -errno, "store %s: read: %s", path, strerror(errno));
    }
    if (n < (ssize_t)sizeof(head) || memcmp(head, "SQLite format 3", 16) != 0 || size < 512) {
        return err_set(
            e, ERR_CORRUPT,
            "store %s is no Margay store: it has %lld bytes and begins with %s. It was left as it "
            "is. Move it away (mv '%s' '%s.bad') and restore a backup or start with an empty store",
            path, (long long)size, log_quote(str_n((char *)head, n < 16 ? (size_t)n : 16)), path,
            path);
    }
    uint32_t app = (uint32_t)head[68] << 24 | (uint32_t)head[69] << 16 | (uint32_t)head[70] << 8 |
                   (uint32_t)head[71];
    return app == 0 || app == SQLITE_APP_ID ? 0 : foreign(path, app, e);
}

/* Parents of path, 0700 where made. Absolute path without symlinks in *real (caller owns). */
static int make_dirs(const char *path, bool may_make, char **real, struct err *e) {
    char dir[PATH_LEN_MAX + 1];
    struct str p = str_c(path);
    const char *slash = memrchr(p.p, '/', p.n);
    const char *base = slash ? slash + 1 : path;
    size_t n = slash ? (size_t)(slash - path) : 1;
    if (slash == path) {
        n = 1;
    }
    memcpy(dir, slash ? path : ".", n);
    dir[n] = '\0';
    if (*base == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
        return err_set(e, ERR_INVALID, "store \"%s\": the path must name a file", path);
    }
    for (size_t i = 1; may_make && i <= n; i++) {
        if (dir[i] == '/' || dir[i] == '\0') {
            char keep = dir[i];
            dir[i] = '\0';
            int rc = mkdir(dir, 0700);
            if (rc < 0 && errno != EEXIST) {
                return err_set(e, -errno, "store %s: can't make the folder %s: %s", path, dir,
                               strerror(errno));
            }
            dir[i] = keep;
        }
    }
    char *abs = realpath(dir, NULL);
    if (!abs) {
        return err_set(e, -errno, "store %s: folder %s: %s", path, dir, strerror(errno));
    }
    int rc = asprintf(real, "%s/%s", strcmp(abs, "/") == 0 ? "" : abs, base);
    free(abs);
    mg_assert(rc > 0);
    return 0;
}

/* The writer's lock, with our process id in it. */
static int take_lock(struct sq_store *s, struct err *e) {
    char path[PATH_MAX + 8];
    (void)snprintf(path, sizeof(path), "%s.lock", s->path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return err_set(e, -errno, "store %s: lock file %s: %s", s->path, path, strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int code = errno;
        char pid[24] = {0};
        ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);
        struct str text = str_trim(str_n(pid, n > 0 ? (size_t)n : 0));
        close(fd);
        if (code != EWOULDBLOCK) {
            return err_set(e, -code, "store %s: lock file %s: %s", s->path, path, strerror(code));
        }
        return err_set(e, ERR_DENIED,
                       "store %s is open in another process (pid %.*s), and a store has one "
                       "writer. Go through that agent's socket, stop it, or give each agent a "
                       "--state-dir of its own",
                       s->path, text.n ? (int)text.n : 7, text.n ? text.p : "unknown");
    }
    char line[24];
    int n = snprintf(line, sizeof(line), "%ld\n", (long)getpid());
    /* The text only helps people: on a full disk the lock holds without it. */
    if (ftruncate(fd, 0) < 0 || pwrite(fd, line, (size_t)n, 0) < 0) {
        LOG_D("store", "lock_pid_not_written", "errno=%d", errno);
    }
    s->lock_fd = fd;
    return 0;
}

/* Looks at the file before SQLite does, makes it when it isn't there. */
static int prepare_file(const struct sq_store *s, struct err *e) {
    int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (s->is_ro ? O_RDONLY : O_RDWR | O_CREAT);
    MG_CLEANUP(fd_close) int fd = open(s->path, flags, 0600);
    if (fd < 0) {
        int code = errno;
        if (code == ELOOP) {
            return err_set(e, ERR_DENIED,
                           "store %s is a symbolic link, which is not followed: name the file "
                           "itself",
                           s->path);
        }
        return err_set(e, -code, "store %s: %s%s", s->path, strerror(code),
                       code == ENOENT ? " (no agent has made it yet)" : "");
    }
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return err_set(e, -errno, "store %s: %s", s->path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(e, ERR_INVALID, "store %s is not a regular file", s->path);
    }
    return check_header(s->path, fd, st.st_size, e);
}

/* "PATH" or "PATH?mode=ro". */
static int parse_rest(struct str rest, struct sq_store *s, struct str *path, struct err *e) {
    *path = rest;
    const char *q = rest.n ? memrchr(rest.p, '?', rest.n) : NULL;
    if (q) {
        struct str query = str_sub(rest, (size_t)(q - rest.p) + 1, rest.n);
        *path = str_sub(rest, 0, (size_t)(q - rest.p));
        if (str_is(query, "mode=ro")) {
            s->is_ro = true;
        } else if (!str_is(query, "mode=rw")) {
            return err_set(e, ERR_INVALID,
                           "datastore URL sqlite:%.*s: \"?%.*s\" is unknown; mode=ro and mode=rw "
                           "are known",
                           STR_FMT(*path), STR_FMT(query));
        }
    }
    if (path->n == 0 || path->n > PATH_LEN_MAX) {
        return err_set(e, ERR_INVALID, "datastore URL sqlite:PATH: the path has %zu bytes",
                       path->n);
    }
    return 0;
}

static int open_store(struct sq_store *s, struct str rest, struct err *e) {
    struct str path;
    int r = parse_rest(rest, s, &path, e);
    if (r < 0) {
        return r;
    }
    struct arena a = {0};
    r = make_dirs(arena_cstr(&a, path), !s->is_ro, &s->path, e);
    arena_fini(&a);
    if (r == 0 && !s->is_ro) {
        r = take_lock(s, e);
    }
    if (r == 0) {
        r = prepare_file(s, e);
    }
    if (r < 0) {
        return r;
    }
    char wal[PATH_MAX + 8];
    struct stat st;
    (void)snprintf(wal, sizeof(wal), "%s-wal", s->path);
    bool was_unclean = stat(wal, &st) == 0 && st.st_size > 0;
    r = sq_connect(s, s->is_ro, &s->db, e);
    if (r == 0) {
        r = check_format(s, e);
    }
    if (r == 0 && !s->is_ro) {
        r = exec_sql(s, s->db, "PRAGMA journal_mode=WAL", e);
    }
    if (r == 0 && was_unclean && !s->is_ro) {
        r = check_content(s, e);
    }
    int64_t newest = 0;
    if (r == 0) {
        r = query_int(s, "SELECT max(revision) FROM changes", &newest, e);
    }
    if (r == 0) {
        (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, s->is_ro ? 1 : 0, NULL);
        s->committed = s->next = (uint64_t)newest;
    }
    return r;
}

int sq_open(struct str rest, struct store **out, struct err *e) {
    struct sq_store *s = calloc(1, sizeof(*s));
    mg_assert(s != NULL);
    s->base.drv = &store_sqlite;
    s->lock_fd = -1;
    int r = open_store(s, rest, e);
    if (r < 0) {
        store_close(&s->base);
        return r;
    }
    *out = &s->base;
    return 0;
}
