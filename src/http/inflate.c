/* Answers that come compressed (gzip), unpacked piece by piece. Decides what is too much of it: an
 * answer that unpacks to many times its size is an attack on whoever reads it. */
#include "http/http_int.h"

#include <stdlib.h>
#include <zlib.h>

enum {
    PIECE = 65536,
    GZIP_ONLY = 15 + 16, /* zlib's window bits: the largest window, gzip's frame */
};

struct http_inflate {
    z_stream z;
    bool is_over; /* the end of the data was seen */
    uint64_t in, out;
    unsigned char piece[PIECE];
};

struct http_inflate *http_inflate_new(void) {
    struct http_inflate *f = calloc(1, sizeof(*f));
    mg_assert(f != NULL);
    mg_assert(inflateInit2(&f->z, GZIP_ONLY) == Z_OK);
    return f;
}

void http_inflate_free(struct http_inflate *f) {
    if (f) {
        (void)inflateEnd(&f->z);
        free(f);
    }
}

bool http_inflate_is_over(const struct http_inflate *f) {
    return f->is_over;
}

int http_inflate_next(struct http_inflate *f, struct str *in, struct str *out, const char **why) {
    *out = STR_NULL;
    if (f->is_over) {
        *why = "its compressed answer has something behind its end";
        return in->n ? -EPROTO : 0;
    }
    f->z.next_in = (unsigned char *)(uintptr_t)in->p;
    f->z.avail_in = (unsigned)in->n;
    f->z.next_out = f->piece;
    f->z.avail_out = PIECE;
    int r = inflate(&f->z, Z_NO_FLUSH);
    size_t n_in = in->n - f->z.avail_in, n_out = PIECE - f->z.avail_out;
    *in = str_sub(*in, n_in, in->n);
    f->in += n_in;
    f->out += n_out;
    if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR) {
        *why = "its answer should be gzip and is not";
        return -EPROTO;
    }
    f->is_over = r == Z_STREAM_END;
    if (f->out > HTTP_INFLATE_FREE && f->out / HTTP_INFLATE_RATIO > f->in) {
        *why = "its compressed answer unpacks to too many times its size";
        return ERR_TOO_BIG;
    }
    *out = str_n((const char *)f->piece, n_out);
    return n_out == PIECE && !f->is_over;
}
