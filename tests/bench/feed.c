#include "feed.h"

#include "base/clock.h"

void feed_doc(struct feed *f, const struct world_doc *d, bool is_there) {
    struct arena a = {0};
    int64_t begin = clock_ns();
    struct object o = world_decode(d, &a);
    int64_t decoded = clock_ns();
    calc_object(f->c, o.kind, o.meta.ns, o.meta.name, is_there ? &o : NULL);
    f->calc_ns += clock_ns() - decoded;
    f->decode_ns += decoded - begin;
    arena_fini(&a);
}

void feed_flush(struct feed *f) {
    int64_t begin = clock_ns();
    calc_flush(f->c);
    f->calc_ns += clock_ns() - begin;
}

static void feed_there(void *arg, const struct world_doc *d) {
    feed_doc(arg, d, true);
}

void feed_world(struct feed *f, const struct world *w) {
    world_each(w, feed_there, f);
    feed_flush(f);
}
