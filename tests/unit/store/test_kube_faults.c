/* The Kubernetes driver against a scripted server: what it does when answers are late, short,
 * wrong, refused, forgotten. Times are not judged, only what is told and asked. */
#include "base/clock.h"
#include "h2_server.h"
#include "store/driver.h"
#include "store/syncer.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { LOG = 1 << 16, DEADLINE_MS = 60000 };

/* ---- the server's script ---- */

struct rule {
    const char *match; /* a part of "METHOD PATH AUTHORIZATION" */
    unsigned times;    /* it counts so often; 0: always */
    struct h2_reply reply;
};
static struct rule rules[16];
static size_t n_rules;
static char asked[LOG]; /* of namespaces */
static pthread_mutex_t asked_lock = PTHREAD_MUTEX_INITIALIZER;

#define NS "/api/v1/namespaces"
#define LIST(rev, more, items)                                                       \
    "{\"kind\":\"NamespaceList\",\"metadata\":{\"resourceVersion\":\"" rev "\"" more \
    "},\"items\":[" items "]}"
#define OBJ(name, rev) "{\"metadata\":{\"name\":\"" name "\",\"resourceVersion\":\"" rev "\"}}"
#define EVENT(type, name, rev) "{\"type\":\"" type "\",\"object\":" OBJ(name, rev) "}\n"
#define BODY(...) .parts = {__VA_ARGS__}
#define OK_LIST(rev, more, items) \
    { .status = 200, BODY({0, LIST(rev, more, items)}) }
#define STATUS(code, reason, message)                                                     \
    "{\"kind\":\"Status\",\"status\":\"Failure\",\"code\":" #code ",\"reason\":\"" reason \
    "\",\"message\":\"" message "\"}"

static struct h2_reply script(void *arg, const struct h2_request *r) {
    char line[8192];
    (void)arg;
    snprintf(line, sizeof(line), "%s %s %s", r->method, r->path, r->authorization);
    if (strstr(line, NS)) {
        pthread_mutex_lock(&asked_lock);
        size_t used = strlen(asked);
        snprintf(asked + used, LOG - used, "%s\n", line);
        pthread_mutex_unlock(&asked_lock);
    }
    for (size_t i = 0; i < n_rules; i++) {
        if (strstr(line, rules[i].match) && rules[i].times != UINT32_MAX) {
            rules[i].times = rules[i].times == 1 ? UINT32_MAX
                             : rules[i].times    ? rules[i].times - 1
                                                 : 0;
            return rules[i].reply;
        }
    }
    if (strstr(line, "watch=true")) {
        return (struct h2_reply){.status = 200, .end = H2_HANG};
    }
    return (struct h2_reply){/* of any kind */
                             .status = 200,
                             BODY({0, "{\"metadata\":{\"resourceVersion\":\"10\"},\"items\":[]}"})};
}

static void rule(const char *match, unsigned times, struct h2_reply reply) {
    rules[n_rules++] = (struct rule){match, times, reply};
}

static bool was_asked(const char *what) {
    pthread_mutex_lock(&asked_lock);
    bool is = strstr(asked, what) != NULL;
    pthread_mutex_unlock(&asked_lock);
    return is;
}

/* ---- what is told ---- */

static struct loop *loop;
static struct store *store;
static struct syncer *syncer;
static char told[LOG];
static char dir[64];

static void tell(const char *fmt, ...) MG_PRINTF(1, 2);
static void tell(const char *fmt, ...) {
    size_t used = strlen(told);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(told + used, LOG - used, fmt, ap);
    va_end(ap);
}

static void on_item(void *arg, const struct store_item *it) {
    (void)arg;
    struct str key = str_sub(it->key, strlen("Namespace//"), it->key.n);
    tell("%s%.*s ", it->value.p ? "+" : "-", STR_FMT(key));
}
static void on_in_sync(void *arg) {
    (void)arg;
    tell("sync ");
}
static void on_batch_end(void *arg, uint64_t revision) {
    (void)arg;
    (void)revision;
}
static void on_connected(void *arg, bool is_connected, const char *why) {
    (void)arg;
    tell(is_connected ? "back " : "lost(%s) ", why);
}
static const struct syncer_ops ops = {.on_item = on_item,
                                      .on_in_sync = on_in_sync,
                                      .on_batch_end = on_batch_end,
                                      .on_connected = on_connected};

static void on_tick(void *arg) {
    (void)arg;
}

/* Steps the loop until it was told, or asked. */
static void until(const char *want, bool is_asked) {
    int64_t deadline = clock_ns() + (int64_t)DEADLINE_MS * 1000000;
    struct loop_timer *t = loop_timer_new(loop, on_tick, NULL);
    loop_timer_start(t, 5, 5);
    while (!(is_asked ? was_asked(want) : strstr(told, want) != NULL)) {
        loop_step(loop, true);
        if (clock_ns() > deadline) {
            fail_msg("waited for \"%s\"; told: %s\nasked:\n%s", want, told, asked);
        }
    }
    loop_timer_free(t);
}
static void until_told(const char *want) {
    until(want, false);
}
static void until_asked(const char *want) {
    until(want, true);
}
static void until_revision(uint64_t revision) {
    int64_t deadline = clock_ns() + (int64_t)DEADLINE_MS * 1000000;
    struct loop_timer *t = loop_timer_new(loop, on_tick, NULL);
    loop_timer_start(t, 5, 5);
    while (syncer_position(syncer, STR("Namespace//x")) < revision && clock_ns() < deadline) {
        loop_step(loop, true);
    }
    loop_timer_free(t);
    assert_true(syncer_position(syncer, STR("Namespace//x")) >= revision);
}

static void write_config(int port, const char *user) {
    char path[128], text[1024];
    snprintf(path, sizeof(path), "%s/config", dir);
    snprintf(
        text, sizeof(text),
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: "
        "{cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:%d'}}]"
        "\nusers: [{name: u, user: {%s}}]\n",
        port, user);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void open_with(const char *user) {
    char url[256];
    struct err e = {0};
    int port = h2_server_start(script, NULL);
    assert_true(port > 0);
    write_config(port, user);
    snprintf(url, sizeof(url), "kubernetes:%s/config", dir);
    if (store_open(url, &store, &e) < 0) {
        fail_msg("%s", e.msg);
    }
}

static void begin(void) {
    struct err e = {0};
    struct store_key all = {STR(STORE_SPACE_RESOURCES), STR("")};
    open_with("token: T");
    assert_int_equal(syncer_start(store, loop, all, &ops, NULL, &syncer, &e), 0);
}

static int setup(void **state) {
    (void)state;
    n_rules = 0;
    told[0] = asked[0] = '\0';
    loop = loop_new();
    store = NULL;
    syncer = NULL;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    syncer_free(syncer);
    for (int i = 0; i < 10; i++) {
        loop_step(loop, false);
    }
    store_close(store);
    loop_free(loop);
    h2_server_stop();
    return 0;
}

/* ---- following ---- */

static void t_follow__pages_and_events(void **state) {
    (void)state;
    rule(NS "?limit=500&continue=T%2F1", 1, (struct h2_reply)OK_LIST("20", "", OBJ("b", "6")));
    rule(NS "?limit=500", 1,
         (struct h2_reply)OK_LIST("20", ",\"continue\":\"T/1\"", OBJ("a", "5")));
    rule(NS "?watch", 1,
         (struct h2_reply){.status = 200,
                           BODY({0, EVENT("ADDED", "c", "21")}, {20, "{\"type\":\"MODIF"},
                                {20, "IED\",\"object\":" OBJ("a", "22") "}\n"},
                                {0, EVENT("DELETED", "b", "23")},
                                {0, "{\"type\":\"BOOKMARK\",\"object\":" OBJ("", "99") "}\n"}),
                           .end = H2_HANG});
    begin();
    until_told("sync ");
    until_told("-b ");
    assert_true(was_asked("resourceVersion=0"));
    assert_true(was_asked("allowWatchBookmarks=true&resourceVersion=20"));
    assert_null(strstr(told, "lost"));
    until_revision(99);
}

static void t_follow__410_in_mid_list__starts_again(void **state) {
    (void)state;
    rule("continue=", 1,
         (struct h2_reply){.status = 410, BODY({0, STATUS(410, "Expired", "too old")})});
    rule("continue=", 1, (struct h2_reply)OK_LIST("30", "", OBJ("c", "29")));
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("20", ",\"continue\":\"T\"", OBJ("a", "5")));
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("30", ",\"continue\":\"T\"", OBJ("b", "6")));
    begin();
    until_told("sync ");
    assert_non_null(strstr(told, "+b "));
    assert_non_null(strstr(told, "+c "));
    assert_non_null(strstr(told, "-a ")); /* of the list that came to nothing */
}

static void t_follow__410_event__lists_without_a_flap(void **state) {
    (void)state;
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("20", "", OBJ("a", "5") "," OBJ("b", "6")));
    rule(NS "?watch", 1,
         (struct h2_reply){
             .status = 200,
             BODY({20, "{\"type\":\"ERROR\",\"object\":" STATUS(410, "Gone", "old") "}\n"})});
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("40", "", OBJ("a", "5") "," OBJ("c", "39")));
    begin();
    until_told("+c ");
    until_told("-b ");
    assert_null(strstr(told, "-a"));
    assert_null(strstr(told, "lost"));
    assert_true(was_asked("resourceVersion=20&resourceVersionMatch=NotOlderThan"));
    until_asked("watch=true&allowWatchBookmarks=true&resourceVersion=40");
}

static void t_follow__watch_ends__goes_on_from_the_last_event(void **state) {
    (void)state;
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("20", "", ""));
    rule(NS "?watch", 1,
         (struct h2_reply){.status = 200, BODY({0, EVENT("ADDED", "a", "25")}), .end = H2_RESET});
    rule(NS "?watch", 1,
         (struct h2_reply){.status = 200, BODY({0, EVENT("ADDED", "b", "26")}), .end = H2_CLOSE});
    begin();
    until_told("+b ");
    until_asked("resourceVersion=25&timeout");
    until_asked("resourceVersion=26&timeout");
    pthread_mutex_lock(&asked_lock);
    const char *first = strstr(asked, "?limit"),
               *second = first ? strstr(first + 1, "?limit") : NULL;
    pthread_mutex_unlock(&asked_lock);
    assert_null(second); /* no second list */
}

static void t_follow__too_new_for_the_server__asks_the_quorum(void **state) {
    (void)state;
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("20", "", OBJ("a", "5")));
    rule(NS "?watch", 1,
         (struct h2_reply){.status = 410, BODY({0, STATUS(410, "Expired", "too old")})});
    rule("resourceVersionMatch=NotOlderThan", 1,
         (struct h2_reply){.status = 504,
                           BODY({0, STATUS(504, "Timeout", "Too large resource version: 20")})});
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("50", "", OBJ("b", "49")));
    begin();
    until_told("+b ");
    until_told("-a ");
    until_asked("GET " NS "?limit=500 Bearer"); /* without resourceVersion */
}

static void t_follow__older_list__not_believed(void **state) {
    (void)state;
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("20", "", OBJ("a", "5")));
    rule(NS "?watch", 1,
         (struct h2_reply){.status = 410, BODY({0, STATUS(410, "Expired", "too old")})});
    rule("NotOlderThan", 1, (struct h2_reply)OK_LIST("15", "", ""));
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("22", "", OBJ("a", "5") "," OBJ("b", "21")));
    begin();
    until_told("+b ");
    assert_null(strstr(told, "-a")); /* the stale list had no a */
}

static const struct {
    struct h2_reply reply;
    const char *why; /* NULL: nothing is said of it */
} BAD_LISTS[] = {
    {{.status = 200, BODY({0, "{\"metadata\":{\"resourceVersion\":\"9\"},\"items\":["})}, "middle"},
    {{.status = 200, BODY({0, "<html>Sign in</html>"}), .content_type = "text/html"},
     "not what was asked"},
    {{.status = 200, BODY({0, LIST("x", "", "")})}, "resourceVersion"},
    /* JSON of others: believed, these would be lists of nothing */
    {{.status = 200, BODY({0, "{}"})}, "middle"},
    {{.status = 200, BODY({0, "[]"})}, "not what was asked"},
    {{.status = 200,
      BODY({0, "{\"kind\":\"Namespace\",\"metadata\":{\"resourceVersion\":\"9\"}}"})},
     "not what was asked"},
    {{.status = 200,
      BODY({0, "{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"9\"},\"items\":[]}"})},
     "not what was asked"},
    {{.status = 200, BODY({0, "{\"metadata\":{\"resourceVersion\":\"9\"},\"login\":\"here\"}"})},
     "middle"},
    {{.status = 200, BODY({0, LIST("9", "", "{\"a\":01}")})}, "namespaces"},
    {{.status = 200, BODY({0, LIST("9", "", OBJ("a", "1"))}, {0, "}"})}, "not what was asked"},
    {{.status = 200, BODY({0, "{\"metadata\":{"}), .end = H2_RESET}, ""},
    {{.status = 200, BODY({0, "{\"metadata\":{"}), .end = H2_CLOSE}, NULL},
    {{.status = 500, BODY({0, "oops"}), .content_type = "text/plain"}, "500: oops"},
    {{.status = 429, BODY({0, "slow down"}), .retry_after = "1"}, "429"},
    {{.status = 503, BODY({0, STATUS(503, "ServiceUnavailable", "starting")})}, "starting"},
    {{.status = 403, BODY({0, STATUS(403, "Forbidden", "User u cannot list")})},
     "no right to list namespaces: User u cannot list"},
    {{.status = 404, BODY({0, "404 page not found"}), .content_type = "text/plain"}, NULL},
};

static void t_follow__bad_lists__said_and_tried_again(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(BAD_LISTS); i++) {
        if (i) {
            assert_int_equal(teardown(NULL), 0);
            assert_int_equal(setup(NULL), 0);
        }
        rule(NS "?limit=500", 1, BAD_LISTS[i].reply);
        rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("20", "", OBJ("a", "5")));
        begin();
        until_told("sync ");
        assert_non_null(strstr(told, "+a "));
        if (BAD_LISTS[i].why && (!strstr(told, "lost(") || !strstr(told, BAD_LISTS[i].why))) {
            fail_msg("case %zu: told %s lacks %s", i, told, BAD_LISTS[i].why);
        }
        until_told(BAD_LISTS[i].why ? "back " : "sync ");
    }
}

static void t_follow__events_of_nonsense__watched_again(void **state) {
    (void)state;
    static const char *const bad[] = {"{\"type\":\"ADDED\"}\n",
                                      "{\"type\":\"NEW\",\"object\":{}}",
                                      "}",
                                      "{\"type\":1}",
                                      "[1]",
                                      "{\"type\":\"ADDED\",\"object\":{\"metadata\":{}}}"};
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("20", "", ""));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        rule(NS "?watch", 1, (struct h2_reply){.status = 200, BODY({0, bad[i]}), .end = H2_HANG});
    }
    rule(NS "?limit=500", 0, (struct h2_reply)OK_LIST("30", "", OBJ("a", "25")));
    begin();
    until_told("+a "); /* given up after several failures at one place: a list */
    until_told("back ");
}

static void t_follow__kind_that_was_there_is_404__not_believed_at_once(void **state) {
    (void)state;
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("20", "", OBJ("a", "5")));
    for (int i = 0; i < 3; i++) {
        rule(NS "?watch", 1,
             (struct h2_reply){
                 .status = 404, BODY({0, "404 page not found"}), .content_type = "text/plain"});
    }
    rule(NS "?watch", 1,
         (struct h2_reply){.status = 200, BODY({0, EVENT("ADDED", "b", "21")}), .end = H2_HANG});
    begin();
    until_told("+b ");
    assert_null(strstr(told, "-a"));
}

static void t_follow__connection_lost_and_back__nothing_told(void **state) {
    (void)state;
    rule(NS "?limit=500", 1, (struct h2_reply)OK_LIST("20", "", OBJ("a", "5")));
    begin();
    until_told("sync ");
    until_asked("watch=true");
    h2_server_break();
    until_told("lost(");
    h2_server_go_on();
    until_told("back ");
    assert_null(strstr(told, "-a"));
    assert_ptr_equal(strstr(strstr(told, "+a ") + 1, "+a "), NULL);
}

static void t_follow__asked__a_page_proves_the_position(void **state) {
    (void)state;
    rule(NS "?limit=500&resourceVersion=0", 1, (struct h2_reply)OK_LIST("20", "", OBJ("a", "5")));
    rule(NS "?watch", 1,
         (struct h2_reply){.status = 200,
                           /* comes late: the page below has overtaken it */
                           BODY({500, EVENT("ADDED", "b", "30")}, {0, EVENT("DELETED", "b", "31")},
                                {0, EVENT("ADDED", "c", "41")}),
                           .end = H2_HANG});
    rule(NS "?limit=500", 0, (struct h2_reply)OK_LIST("40", "", OBJ("a", "5")));
    begin();
    until_told("sync ");
    until_asked("watch=true");
    while (syncer_position(syncer, STR("Namespace//x")) < 20) {
        loop_step(loop, true);
    }
    for (int i = 0; i < 200 && syncer_position(syncer, STR("Namespace//x")) < 40; i++) {
        syncer_ask(syncer);
        (void)until_asked("limit");
        loop_step(loop, false);
        usleep(10000);
    }
    until_revision(40);
    until_told("+c ");
    assert_null(strstr(told, "b ")); /* neither told nor taken back */
}

/* ---- credentials ---- */

static void t_token__expired__read_again(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof(path), "%s/token", dir);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs("old", f);
    fclose(f);
    rule("Bearer old", 0,
         (struct h2_reply){.status = 401, BODY({0, STATUS(401, "Unauthorized", "Unauthorized")})});
    rule(NS "/x", 0, (struct h2_reply){.status = 200, BODY({0, OBJ("x", "7")})});
    char user[256];
    snprintf(user, sizeof(user), "tokenFile: %s", path);
    open_with(user);
    struct arena a = {0};
    struct err e = {0};
    struct store_item it;
    struct store_key k = {STR(STORE_SPACE_RESOURCES), STR("Namespace//x")};
    assert_int_equal(store_get(store, k, &a, &it, &e), ERR_DENIED);
    assert_non_null(strstr(e.msg, "401"));
    f = fopen(path, "we");
    assert_non_null(f);
    fputs("new", f);
    fclose(f);
    assert_int_equal(store_get(store, k, &a, &it, &e),
                     0); /* the old one is refused, the new taken */
    assert_int_equal(it.revision, 7);
    arena_fini(&a);
}

/* ---- calls ---- */

static const struct {
    struct h2_reply reply;
    int code;
    const char *part;
} ANSWERS[] = {
    {{.status = 404,
      BODY({0,
            "{\"kind\":\"Status\",\"code\":404,\"message\":\"x not found\",\"details\":{\"name\":"
            "\"x\"}}"})},
     ERR_NOT_FOUND,
     "404: x not found"},
    {{.status = 404, BODY({0, "404 page not found"})}, ERR_NOT_FOUND, "it has no namespaces"},
    {{.status = 409, BODY({0, STATUS(409, "AlreadyExists", "there")})}, ERR_EXISTS, "there"},
    {{.status = 409, BODY({0, STATUS(409, "Conflict", "changed")})}, ERR_CONFLICT, "changed"},
    {{.status = 410, BODY({0, STATUS(410, "Expired", "old")})}, ERR_GONE, "old"},
    {{.status = 422, BODY({0, STATUS(422, "Invalid", "spec.x: Required")})},
     ERR_INVALID,
     "spec.x: Required"},
    {{.status = 403, BODY({0, STATUS(403, "Forbidden", "no")})},
     ERR_DENIED,
     "no right to get namespaces \\\"x\\\""},
    {{.status = 413, BODY({0, STATUS(413, "RequestEntityTooLarge", "big")})}, ERR_TOO_BIG, "big"},
    {{.status = 500, BODY({0, "proxy\\n<b>"})}, ERR_RETRY, "500"},
    {{.status = 200, BODY({0, "{"})}, -EPROTO, "no JSON object"},
    {{.status = 200, BODY({0, "{}{}"})}, -EPROTO, "no JSON object"},
    {{.status = 200, BODY({0, "[]"}), .content_type = "text/x"}, -EPROTO, "text/x"},
    {{.status = 200, BODY({0, "{}"})}, ERR_CORRUPT, "without name"},
    {{.status = 302, BODY({0, ""})}, -EPROTO, "302"},
};

static void t_get__codes(void **state) {
    (void)state;
    open_with("token: T");
    for (size_t i = 0; i < ARRAY_LEN(ANSWERS); i++) {
        struct arena a = {0};
        struct err e = {0};
        struct store_item it;
        struct store_key k = {STR(STORE_SPACE_RESOURCES), STR("Namespace//x")};
        n_rules = 0;
        rule(NS "/x", 0, ANSWERS[i].reply);
        int r = store_get(store, k, &a, &it, &e);
        char part[128];
        size_t n = 0;
        for (const char *p = ANSWERS[i].part; *p; p++) { /* its quotes are of the macro */
            if (*p != '\\') {
                part[n++] = *p;
            }
        }
        part[n] = '\0';
        if (r != ANSWERS[i].code || !strstr(e.msg, part)) {
            fail_msg("case %zu: %d %s", i, r, e.msg);
        }
        arena_fini(&a);
    }
}

static void t_get__retry_after__waited_for(void **state) {
    (void)state;
    rule(NS "/x", 1, (struct h2_reply){.status = 429, BODY({0, ""}), .retry_after = "1"});
    rule(NS "/x", 0, (struct h2_reply){.status = 200, BODY({0, OBJ("x", "7")})});
    open_with("token: T");
    struct arena a = {0};
    struct err e = {0};
    struct store_item it;
    struct store_key k = {STR(STORE_SPACE_RESOURCES), STR("Namespace//x")};
    int64_t start = clock_ns();
    assert_int_equal(store_get(store, k, &a, &it, &e), 0);
    assert_true(clock_ns() - start >= INT64_C(900000000));
    arena_fini(&a);
}

static int add(void *arg, const struct store_item *it) {
    (void)arg;
    tell("%.*s ", STR_FMT(it->key));
    return 0;
}

static void t_list__410_in_the_middle__each_item_once(void **state) {
    (void)state;
    rule("continue=", 1,
         (struct h2_reply){.status = 410, BODY({0, STATUS(410, "Expired", "too old")})});
    rule("continue=", 1, (struct h2_reply)OK_LIST("30", "", OBJ("c", "29")));
    rule(NS "?limit=500", 0, (struct h2_reply)OK_LIST("30", ",\"continue\":\"T\"", OBJ("a", "5")));
    open_with("username: u, password: p");
    struct err e = {0};
    uint64_t revision = 0;
    struct store_key k = {STR(STORE_SPACE_RESOURCES), STR("Namespace/")};
    int r = store_list(store, k, &revision, add, NULL, &e);
    if (r < 0) {
        fail_msg("%s", e.msg);
    }
    assert_string_equal(told, "Namespace//a Namespace//c ");
    assert_int_equal(revision, 30);
    assert_true(was_asked("Basic dTpw"));
}

static void t_list__truncated__refused(void **state) {
    (void)state;
    rule(NS "?limit=500", 0,
         (struct h2_reply){.status = 200,
                           BODY({0, "{\"metadata\":{\"resourceVersion\":\"9\"},"
                                    "\"items\":[" OBJ("a", "5") ","})});
    open_with("token: T");
    struct err e = {0};
    uint64_t revision = 0;
    struct store_key k = {STR(STORE_SPACE_RESOURCES), STR("Namespace/")};
    assert_int_equal(store_list(store, k, &revision, add, NULL, &e), ERR_RETRY);
    assert_non_null(strstr(e.msg, "ends in the middle"));
    assert_string_equal(told, "");
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(t_follow__pages_and_events),
        T(t_follow__410_in_mid_list__starts_again),
        T(t_follow__410_event__lists_without_a_flap),
        T(t_follow__watch_ends__goes_on_from_the_last_event),
        T(t_follow__too_new_for_the_server__asks_the_quorum),
        T(t_follow__older_list__not_believed),
        T(t_follow__bad_lists__said_and_tried_again),
        T(t_follow__events_of_nonsense__watched_again),
        T(t_follow__kind_that_was_there_is_404__not_believed_at_once),
        T(t_follow__connection_lost_and_back__nothing_told),
        T(t_follow__asked__a_page_proves_the_position),
        T(t_token__expired__read_again),
        T(t_get__codes),
        T(t_get__retry_after__waited_for),
        T(t_list__410_in_the_middle__each_item_once),
        T(t_list__truncated__refused),
    };
    snprintf(dir, sizeof(dir), "/tmp/margay-kube-XXXXXX");
    if (!mkdtemp(dir)) {
        return 1;
    }
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    char cmd[128];
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    return system(cmd) || r;
}
