/* A store's driver from the command line, for tests: what a call answered, or what following told,
 * as lines of JSON.
 *
 *   store_tool URL get SPACE KEY
 *   store_tool URL list SPACE PREFIX
 *   store_tool URL put SPACE KEY any|none|REVISION      the value is read from stdin
 *   store_tool URL delete SPACE KEY any|REVISION
 *   store_tool URL follow SPACE [raw]     as the syncer passes it on, or as the driver tells it;
 *                                         a line "ask" on stdin asks, the end of stdin ends it
 *   store_tool URL watch SPACE PREFIX REVISION
 *   store_tool URL node NAME up|down|KEY=VALUE…       (kube.h)
 *   store_tool URL apply r                puts each line of stdin, an object; a line per answer
 *   store_tool URL peak SPACE             follows to the first in-sync; memory and time */
#include "base/buf.h"
#include "base/clock.h"
#include "base/jtree.h"
#include "base/log.h"
#include "model/model.h"
#include "store/driver.h"
#include "store/kube.h"
#include "store/syncer.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static struct loop *loop;
static struct store_follow *follow;
static struct syncer *syncer;
static uint64_t n_items;

static void put_line(struct buf *b) {
    buf_putc(b, '\n');
    fwrite(b->p, 1, b->n, stdout);
    fflush(stdout);
    buf_fini(b);
}

static void say_item(const char *event, const struct store_item *it) {
    struct buf b = BUF_INIT(64 << 20);
    buf_printf(&b, "{\"event\":\"%s\",\"key\":", event);
    json_quote(&b, it->key);
    buf_printf(&b, ",\"revision\":%" PRIu64 ",\"value\":", it->revision);
    if (it->value.p) {
        buf_str(&b, it->value);
    } else {
        buf_puts(&b, "null");
    }
    buf_putc(&b, '}');
    put_line(&b);
}

static void say(const char *event, struct str scope, uint64_t revision) {
    struct buf b = BUF_INIT(1 << 20);
    buf_printf(&b, "{\"event\":\"%s\",\"scope\":", event);
    json_quote(&b, scope);
    buf_printf(&b, ",\"revision\":%" PRIu64 "}", revision);
    put_line(&b);
}

static int say_end(int code, const struct err *e, uint64_t revision) {
    struct buf b = BUF_INIT(1 << 20);
    buf_printf(&b,
               "{\"event\":\"end\",\"code\":\"%s\",\"message\":", code < 0 ? err_name(code) : "");
    json_quote(&b, str_c(code < 0 ? e->msg : ""));
    buf_printf(&b, ",\"revision\":%" PRIu64 "}", revision);
    put_line(&b);
    return code < 0 ? 1 : 0;
}

static int on_list(void *arg, const struct store_item *it) {
    (void)arg;
    say_item("item", it);
    return 0;
}

static void on_snapshot(void *arg, struct str scope) {
    (void)arg;
    say("snapshot", scope, 0);
}
static void on_item(void *arg, const struct store_item *it) {
    (void)arg;
    say_item("item", it);
}
static void on_snapshot_end(void *arg, struct str scope, uint64_t revision) {
    (void)arg;
    say("snapshot_end", scope, revision);
}
static void on_progress(void *arg, struct str scope, uint64_t revision) {
    (void)arg;
    say("progress", scope, revision);
}
static void on_in_sync(void *arg) {
    (void)arg;
    say("in_sync", STR(""), 0);
}
static void on_connected(void *arg, bool is_connected, const char *why) {
    (void)arg;
    say(is_connected ? "connected" : "lost", str_c(why), 0);
}
static void on_batch_end(void *arg, uint64_t revision) {
    (void)arg;
    say("batch_end", STR(""), revision);
}

static void on_stdin(void *arg, unsigned events) {
    char text[256];
    (void)arg;
    (void)events;
    ssize_t n = read(0, text, sizeof(text) - 1);
    if (n <= 0) {
        loop_stop(loop);
        return;
    }
    text[n] = '\0';
    if (strstr(text, "ask") && follow) {
        follow->drv->follow_ask(follow);
    } else if (strstr(text, "ask")) {
        syncer_ask(syncer);
    }
}

static void watch_end(void *arg, int code) {
    (void)arg;
    say(err_name(code), STR(""), 0);
    loop_stop(loop);
}
static void watch_progress(void *arg, uint64_t revision) {
    on_progress(arg, STR(""), revision);
}

static void count_item(void *arg, const struct store_item *it) {
    (void)arg;
    n_items += it->value.p != NULL;
}
static void peak_in_sync(void *arg) {
    struct rusage u;
    int64_t start = *(int64_t *)arg;
    getrusage(RUSAGE_SELF, &u);
    printf("{\"items\":%" PRIu64 ",\"peak_kib\":%ld,\"wall_ms\":%" PRId64 ",\"cpu_ms\":%ld}\n",
           n_items, u.ru_maxrss, (clock_ns() - start) / 1000000,
           (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 +
               (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000);
    fflush(stdout);
    loop_stop(loop);
}
static void no_batch(void *arg, uint64_t revision) {
    (void)arg;
    (void)revision;
}

static uint64_t revision_of(const char *s) {
    uint64_t v = 0;
    if (strcmp(s, "any") == 0) {
        return REV_ANY;
    }
    return str_to_u64(str_c(s), &v) == 0 ? v : REV_NONE;
}

static int follow_it(struct store *s, struct store_key k, bool is_raw) {
    static const struct store_follow_ops raw = {.on_snapshot = on_snapshot,
                                                .on_item = on_item,
                                                .on_snapshot_end = on_snapshot_end,
                                                .on_progress = on_progress,
                                                .on_in_sync = on_in_sync,
                                                .on_connected = on_connected};
    static const struct syncer_ops ops = {.on_item = on_item,
                                          .on_in_sync = on_in_sync,
                                          .on_batch_end = on_batch_end,
                                          .on_connected = on_connected};
    struct err e = {0};
    loop = loop_new();
    struct loop_poll *p = loop_poll_new(loop, 0, LOOP_READ, on_stdin, NULL);
    int r = is_raw ? s->drv->follow(s, loop, k, &raw, NULL, &follow, &e)
                   : syncer_start(s, loop, k, &ops, NULL, &syncer, &e);
    if (r < 0) {
        return say_end(r, &e, 0);
    }
    loop_run(loop);
    if (follow) {
        s->drv->follow_free(follow);
    }
    syncer_free(syncer);
    loop_poll_free(p);
    for (int i = 0; i < 5; i++) {
        loop_step(loop, false);
    }
    loop_free(loop);
    return 0;
}

static int watch_it(struct store *s, struct store_key k, uint64_t from) {
    static const struct store_watch_ops ops = {
        .on_item = on_item, .on_end = watch_end, .on_progress = watch_progress};
    struct store_watch *w = NULL;
    struct err e = {0};
    loop = loop_new();
    struct loop_poll *p = loop_poll_new(loop, 0, LOOP_READ, on_stdin, NULL);
    int r = store_watch(s, loop, k, from, &ops, NULL, &w, &e);
    if (r == 0) {
        loop_run(loop);
    }
    store_watch_free(w);
    loop_poll_free(p);
    loop_step(loop, false);
    loop_free(loop);
    return say_end(r, &e, 0);
}

static int measure(struct store *s, struct store_key k) {
    static const struct syncer_ops ops = {
        .on_item = count_item, .on_in_sync = peak_in_sync, .on_batch_end = no_batch};
    int64_t start = clock_ns();
    struct err e = {0};
    loop = loop_new();
    int r = syncer_start(s, loop, k, &ops, &start, &syncer, &e);
    if (r < 0) {
        return say_end(r, &e, 0);
    }
    loop_run(loop);
    syncer_free(syncer);
    loop_step(loop, false);
    loop_free(loop);
    return 0;
}

static int note_node(struct store *s, int argc, char **argv) {
    struct kube_note notes[16];
    size_t n = 0;
    struct err e = {0};
    const char *what = argc > 4 ? argv[4] : "";
    if (strcmp(what, "up") == 0 || strcmp(what, "down") == 0) {
        return say_end(kube_node_network(s, str_c(argv[3]), what[0] == 'u', &e), &e, 0);
    }
    for (int i = 4; i < argc && n < ARRAY_LEN(notes); i++) {
        struct str value = str_c(argv[i]), key = str_cut(&value, '=');
        argv[i][key.n] = '\0';
        notes[n++] = (struct kube_note){argv[i], value.n ? value : STR_NULL};
    }
    return say_end(kube_node_annotate(s, str_c(argv[3]), notes, n, &e), &e, 0);
}

/* One object, at the place that it names. */
static int apply_line(struct store *s, struct str line) {
    struct arena a = {0};
    struct err e = {0};
    struct jnode *doc = NULL;
    int r = json_parse(line, &json_limits_default, &a, &doc, &e);
    const struct kind *k = r < 0 ? NULL
                                 : kind_by_type(jnode_str(jnode_getc(doc, "apiVersion")),
                                                jnode_str(jnode_getc(doc, "kind")));
    struct str ns = jnode_str(jnode_path(doc, "metadata.namespace"));
    struct str name = jnode_str(jnode_path(doc, "metadata.name"));
    r = k ? 0 : err_set(&e, ERR_INVALID, "no such kind");
    if (r == 0) {
        struct store_key key = {STR(STORE_SPACE_RESOURCES),
                                kind_store_key(k, ns.n ? ns : STR("default"), name, &a)};
        r = store_put(s, key, line, REV_ANY, NULL, &e);
    }
    arena_fini(&a);
    return say_end(r, &e, 0);
}

static int apply_all(struct store *s) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        (void)apply_line(s, str_trim(str_n(line, (size_t)n)));
    }
    free(line);
    return 0;
}

static int put_it(struct store *s, struct store_key k, uint64_t expect) {
    struct buf b = BUF_INIT(16 << 20);
    struct err e = {0};
    uint64_t revision = 0;
    char chunk[65536];
    size_t n;
    while ((n = fread(chunk, 1, sizeof(chunk), stdin)) > 0) {
        buf_add(&b, chunk, n);
    }
    int r = store_put(s, k, buf_view(&b), expect, &revision, &e);
    buf_fini(&b);
    return say_end(r, &e, revision);
}

static int run(struct store *s, int argc, char **argv) {
    const char *op = argv[2];
    struct store_key k = {str_c(argv[3]), str_c(argc > 4 ? argv[4] : "")};
    struct err e = {0};
    struct arena a = {0};
    struct store_item it;
    uint64_t revision = 0;
    if (strcmp(op, "get") == 0) {
        int r = store_get(s, k, &a, &it, &e);
        if (r == 0) {
            say_item("item", &it);
        }
        arena_fini(&a);
        return say_end(r, &e, 0);
    }
    if (strcmp(op, "list") == 0) {
        int r = store_list(s, k, &revision, on_list, NULL, &e);
        return say_end(r, &e, revision);
    }
    if (strcmp(op, "put") == 0) {
        return put_it(s, k, revision_of(argv[5]));
    }
    if (strcmp(op, "delete") == 0) {
        return say_end(store_delete(s, k, revision_of(argv[5]), &e), &e, 0);
    }
    if (strcmp(op, "follow") == 0) {
        bool is_raw = argc > 4 && strcmp(argv[4], "raw") == 0;
        return follow_it(s, (struct store_key){k.space, STR("")}, is_raw);
    }
    if (strcmp(op, "apply") == 0) {
        return apply_all(s);
    }
    if (strcmp(op, "peak") == 0) {
        return measure(s, (struct store_key){k.space, STR("")});
    }
    if (strcmp(op, "node") == 0) {
        return note_node(s, argc, argv);
    }
    return watch_it(s, k, revision_of(argv[5]));
}

int main(int argc, char **argv) {
    struct store *s = NULL;
    struct err e = {0};
    if (argc < 4) {
        fprintf(stderr, "usage: store_tool URL get|list|put|delete|follow|watch|node|peak …\n");
        return 2;
    }
    if (getenv("STORE_TOOL_DEBUG")) {
        log_level_set(LOG_DEBUG);
    }
    int r = store_open(argv[1], &s, &e);
    if (r < 0) {
        return say_end(r, &e, 0);
    }
    r = run(s, argc, argv);
    store_close(s);
    return r;
}
