/* A watch's stream from any bytes: gRPC's frames, etcd's messages, what the follower makes of them.
 * The first byte is the length of the pieces in which the rest comes. */
#include "store/etcd_follow.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct loop *l;
static struct store *s;
static size_t n_told; /* keeps the compiler from leaving things out */

static void on_snapshot(void *arg MG_UNUSED, struct str scope) {
    n_told += scope.n;
}
static void on_item(void *arg MG_UNUSED, const struct store_item *it) {
    mg_assert(it->key.n <= STORE_KEY_MAX && it->value.n <= STORE_VALUE_MAX && it->revision > 0);
    for (size_t i = 0; i < it->key.n; i++) {
        n_told += (uint8_t)it->key.p[i];
    }
}
static void on_progress(void *arg, struct str scope MG_UNUSED, uint64_t revision) {
    uint64_t *least = arg;
    mg_assert(revision >= *least); /* never back in time */
    *least = revision;
}
static void on_in_sync(void *arg MG_UNUSED) {
}
static void on_connected(void *arg MG_UNUSED, bool is_connected MG_UNUSED, const char *why) {
    n_told += strlen(why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct store_follow_ops ops = {.on_snapshot = on_snapshot,
                                                .on_item = on_item,
                                                .on_progress = on_progress,
                                                .on_in_sync = on_in_sync,
                                                .on_connected = on_connected};
    struct etcd_stream *f = NULL;
    uint64_t least = 10;
    if (n < 2) {
        return 0;
    }
    if (!l) {
        l = loop_new();
        mg_assert(store_open("etcd:http://127.0.0.1:1", &s, NULL) == 0);
    }
    struct store_key all = {data[0] & 1 ? STR("r") : STR("i"), STR("")};
    mg_assert(stream_new((struct etcd_store *)s, l, all, &least, &f, NULL) == 0);
    f->has_snapshot = true;
    f->ops = ops;
    f->is_listed = true;
    f->position = f->told = 10;
    f->anchor = data[0] & 2 ? 9 : 0;
    open_watch(f);
    size_t piece = 1 + data[0] / 4;
    const struct http_call *call = f->call;
    for (size_t i = 1; i < n && f->call == call; i += piece) {
        size_t now = n - i < piece ? n - i : piece;
        on_watch_data(f, str_n((const char *)data + i, now));
        if (f->position == 0) {
            least = 0; /* another cluster */
        }
    }
    stream_free(f);
    loop_step(l, false);
    return 0;
}
