/* Compare-and-swap transactions a second, each durable when it returns: the embedded store, the
 * same through a running agent's socket, and SQLite alone with the same settings, taking turns.
 *
 * usage: bench_store ROUNDS BYTES [AGENT_SOCKET]
 * The files are below TMPDIR. A round is 50 transactions of each on 1,000 items with values of
 * BYTES. Prints lines: NAME TRANSACTIONS_A_SECOND MEDIAN_US P99_US. */
#include "base/clock.h"
#include "kernel.h"
#include "store/store.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ITEMS = 1000, BURST = 50, MAX_ROUNDS = 1000 };

static char value[1 << 16];
static size_t n_bytes;

static void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* A value that was never there before. */
static struct str next_value(void) {
    static unsigned long serial;
    snprintf(value, sizeof(value), "{\"serial\":\"%020lu\",\"text\":\"%0*d\"}", ++serial,
             (int)n_bytes, 0);
    return str_c(value);
}

/* ---- the store, here or through the agent ---- */

struct ours {
    struct store *s;
    uint64_t revisions[ITEMS];
};

static void ours_swap(struct ours *o, unsigned i) {
    char key[64];
    struct err e;
    snprintf(key, sizeof(key), "/bench/%d/item%u", (int)getpid(), i); /* new in any store */
    if (store_put(o->s, (struct store_key){STR(STORE_SPACE_IPAM), str_c(key)}, next_value(),
                  o->revisions[i], &o->revisions[i], &e) < 0) {
        die("put", e.msg);
    }
}

static void ours_open(struct ours *o, const char *url) {
    struct err e;
    if (store_open(url, &o->s, &e) < 0) {
        die(url, e.msg);
    }
    for (unsigned i = 0; i < ITEMS; i++) {
        o->revisions[i] = REV_NONE;
        ours_swap(o, i);
    }
}

/* ---- SQLite alone ---- */

struct bare {
    sqlite3 *db;
    sqlite3_stmt *swap;
    sqlite3_int64 revisions[ITEMS];
};

static void bare_exec(struct bare *b, const char *sql) {
    char *why = NULL;
    if (sqlite3_exec(b->db, sql, NULL, NULL, &why) != SQLITE_OK) {
        die(sql, why ? why : "");
    }
}

static void bare_swap(struct bare *b, unsigned i) {
    char key[64];
    struct str v = next_value();
    int n = snprintf(key, sizeof(key), "/bench/item%u", i);
    sqlite3_bind_text(b->swap, 1, v.p, (int)v.n, SQLITE_STATIC);
    sqlite3_bind_int64(b->swap, 2, b->revisions[i] + 1);
    sqlite3_bind_text(b->swap, 3, key, n, SQLITE_STATIC);
    sqlite3_bind_int64(b->swap, 4, b->revisions[i]++);
    if (sqlite3_step(b->swap) != SQLITE_DONE || sqlite3_changes(b->db) != 1) {
        die("swap", sqlite3_errmsg(b->db));
    }
    sqlite3_reset(b->swap);
}

static void bare_open(struct bare *b, const char *path) {
    if (sqlite3_open(path, &b->db) != SQLITE_OK) {
        die(path, sqlite3_errmsg(b->db));
    }
    bare_exec(b, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA mmap_size=0;"
                 "PRAGMA cache_size=-512; PRAGMA temp_store=MEMORY;"
                 "PRAGMA journal_size_limit=8388608;"
                 "CREATE TABLE items(key TEXT PRIMARY KEY, value TEXT, revision INTEGER)"
                 " WITHOUT ROWID; BEGIN");
    for (unsigned i = 0; i < ITEMS; i++) {
        char sql[128];
        snprintf(sql, sizeof(sql), "INSERT INTO items VALUES('/bench/item%u','',0)", i);
        bare_exec(b, sql);
        b->revisions[i] = 0;
    }
    bare_exec(b, "COMMIT");
    if (sqlite3_prepare_v2(b->db,
                           "UPDATE items SET value=?1, revision=?2 WHERE key=?3 AND revision=?4",
                           -1, &b->swap, NULL) != SQLITE_OK) {
        die("prepare", sqlite3_errmsg(b->db));
    }
}

/* ---- all ---- */

static int ns_cmp(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void print(const char *name, int64_t *ns, size_t n) {
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += ns[i];
    }
    qsort(ns, n, sizeof(*ns), ns_cmp);
    printf("%s %.0f %.0f %.0f\n", name, (double)n * 1e9 / (double)sum, (double)ns[n / 2] / 1000,
           (double)ns[n * 99 / 100] / 1000);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: bench_store ROUNDS BYTES [AGENT_SOCKET]\n");
        return 2;
    }
    static struct ours here, there;
    static struct bare bare;
    static int64_t took[3][MAX_ROUNDS * BURST];
    char path[512];
    unsigned rounds = (unsigned)atoi(argv[1]);
    rounds = rounds < MAX_ROUNDS ? rounds : MAX_ROUNDS;
    n_bytes = (size_t)atol(argv[2]) % (sizeof(value) - 100);
    snprintf(path, sizeof(path), "sqlite:%s", temp_path("ours.db"));
    ours_open(&here, path);
    bare_open(&bare, temp_path("bare.db"));
    if (argc > 3) {
        snprintf(path, sizeof(path), "agent:%s", argv[3]);
        ours_open(&there, path);
    }
    for (unsigned r = 0; r < rounds; r++) {
        for (int side = 0; side < (argc > 3 ? 3 : 2); side++) {
            for (unsigned i = 0; i < BURST; i++) {
                unsigned item = (r * BURST + i) * 7 % ITEMS;
                int64_t begin = clock_ns();
                if (side == 1) {
                    bare_swap(&bare, item);
                } else {
                    ours_swap(side == 0 ? &here : &there, item);
                }
                took[side][r * BURST + i] = clock_ns() - begin;
            }
        }
    }
    print("store", took[0], (size_t)rounds * BURST);
    print("sqlite", took[1], (size_t)rounds * BURST);
    store_close(here.s);
    sqlite3_finalize(bare.swap);
    sqlite3_close(bare.db);
    if (argc > 3) {
        print("agent", took[2], (size_t)rounds * BURST);
        store_close(there.s);
    }
    return 0;
}
