/* What the two files of the sqlite driver share; nobody else includes it. */
#pragma once

#include "base/vec.h"
#include "store/driver.h"

#include <sqlite3.h>

#define SQLITE_APP_ID 0x4d524759 /* "MRGY", in the file's header */
#define STORE_SQLITE_FORMAT 1    /* user_version; a file with a higher one is refused */
/* Changes that a watch may lag behind before it has to list again. */
#define SQLITE_LOG_KEEP 10000U

/* One prepared statement per entry, made on first use and kept. */
enum sql_stmt {
    SQL_GET,
    SQL_REV_OF,
    SQL_PUT,
    SQL_DEL,
    SQL_LOG,
    SQL_PRUNE,
    SQL_NEWEST,
    SQL_OLDEST,
    SQL_CHANGES,
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_N,
};

struct sq_watch;

struct sq_store {
    struct store base;
    char *path; /* absolute, without symlinks */
    int lock_fd;
    bool is_ro;
    sqlite3 *db;
    sqlite3 *reader; /* idle second connection for lists, or NULL */
    sqlite3_stmt *stmt[SQL_N];
    uint64_t committed; /* revision of the newest commit (writers only) */
    uint64_t next;      /* of the newest write, uncommitted ones too */
    int tx_code;        /* why the open transaction can't be committed any more, or 0 */
    unsigned n_lists;   /* lists under way on db itself */
    VEC(struct sq_watch *) watches;
};

/* A connection to s->path with this driver's settings. */
int sq_connect(struct sq_store *s, bool is_ro, sqlite3 **out, struct err *e);
/* Error of the last call on db as a code and a sentence; `what` is the verb ("write"). */
int sq_error(const struct sq_store *s, sqlite3 *db, int rc, const char *what, struct err *e);
int sq_open(struct str rest, struct store **out, struct err *e);
