/* What the files of the HTTP client share; nobody else includes it, but for tests.
 *
 *   client.c   options, which connection a call goes to, GOAWAY, the end of everything
 *   call.c     a call's life: its request, what waits while it is paused, deadline, end
 *   session.c  nghttp2's callbacks: frames to calls and back
 *   conn.c     a connection: name, TCP, proxy, TLS, bytes in and out, pings
 *   inflate.c  compressed answers
 *   tls.c      contexts, certificates, and why a peer is not trusted, in words
 *   resolve.c  names to addresses
 *   probe.c    HTTP/1.1 for a status alone */
#pragma once

#include "base/buf.h"
#include "base/vec.h"
#include "http/http.h"

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

/* Lists whose members can leave at any time. */
struct http_link {
    struct http_link *prev, *next;
};
static inline void link_init(struct http_link *l) {
    l->prev = l->next = l;
}
static inline bool link_is_alone(const struct http_link *l) {
    return l->next == l;
}
static inline void link_leave(struct http_link *l) {
    l->prev->next = l->next;
    l->next->prev = l->prev;
    link_init(l);
}
static inline void link_join(struct http_link *list, struct http_link *l) {
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}

enum { HTTP_ADDRESSES_MAX = 8 };
struct http_addresses {
    size_t n;
    struct sockaddr_storage a[HTTP_ADDRESSES_MAX];
    socklen_t len[HTTP_ADDRESSES_MAX];
};

/* Looks a name up beside the loop; a numeric address too, at once but for the call of cb. cb gets
 * n == 0 and a reason when there is none. Freed before: cb is not called. */
struct http_lookup;
struct http_lookup *http_lookup_new(struct loop *l, const char *host, uint16_t port,
                                    void (*cb)(void *arg, const struct http_addresses *a,
                                               const char *reason),
                                    void *arg);
void http_lookup_free(struct http_lookup *q); /* accepts NULL; safe inside cb */

struct http_origin {
    char *host; /* without brackets */
    uint16_t port;
    bool is_tls;
    char *authority;  /* as :authority has it */
    char *basic_auth; /* of a proxy: base64, or NULL */
};
MG_NODISCARD int http_origin_parse(struct str url, bool is_proxy, struct http_origin *out,
                                   struct err *e);
void http_origin_fini(struct http_origin *o);

struct http_conn;

struct http_client {
    struct loop *l;
    struct arena mem; /* the options' strings */
    struct http_options o;
    struct http_origin origin, proxy; /* proxy.host NULL: none */
    const char *label;                /* "etcd at HOST:PORT" */
    struct http_conn *conn;           /* where new calls go, or NULL */
    struct http_link old;             /* connections whose calls end before they do */
    struct http_link waiting;         /* calls without a connection */
    struct loop_defer *kick;
    size_t n_calls;
    uint64_t n_connections;
    int next_fd; /* a socket that the next connection takes in place of making one, or -1 */
};

enum conn_state {
    CONN_LOOKUP,
    CONN_TCP,
    CONN_PROXY,
    CONN_TLS,
    CONN_SETTINGS, /* calls go out; the peer has not shown yet that it speaks HTTP/2 */
    CONN_OPEN,
    CONN_LOST,
};

struct http_conn {
    struct http_link link;      /* in client->old */
    struct http_client *client; /* NULL: its client is gone */
    struct http_link calls;
    enum conn_state state;
    unsigned depth; /* inside of its own functions: freed when the last one ends */
    bool is_dead;
    struct http_lookup *lookup;
    struct http_addresses addresses;
    size_t i_address;
    struct buf failures; /* of the addresses tried so far */
    int fd;
    struct loop_poll *poll;
    unsigned events;
    struct loop_timer *connect_timer, *attempt_timer, *ping_timer;
    int64_t connect_end_ns;
    SSL_CTX *tls_context;
    SSL *tls;
    bool tls_wants_write; /* a read that must write first */
    bool was_asked;       /* for a client certificate, and there is none */
    X509 *refused;        /* the peer's certificate that was not accepted */
    nghttp2_session *h2;
    bool is_draining; /* GOAWAY or refresh: no new calls */
    struct buf out;   /* bytes for the socket; of a proxy's answer: what came so far */
    size_t out_sent;
    struct loop_defer *flush;
    int64_t received_ns;  /* when the peer was last heard */
    int64_t ping_sent_ns; /* 0: no ping on its way */
    bool has_bytes;       /* anything came */
    struct str goaway;    /* the peer's words, in goaway_text */
    char goaway_text[128];
};

struct http_fields {
    struct arena mem;
    VEC(struct http_header) v;
    size_t n_bytes;
};

struct http_call {
    struct http_link link; /* in client->waiting or conn->calls, or alone */
    struct http_client *client;
    struct http_conn *conn;
    struct http_call_ops ops;
    void *arg;
    struct arena mem; /* method, path, headers */
    const char *method;
    struct str path;
    struct http_header *headers;
    size_t n_headers;
    struct buf body;
    size_t body_sent;   /* of body, given to nghttp2 */
    bool has_lost_body; /* a part of the body is gone from memory: can't be sent again */
    bool is_streaming, is_finished;
    int32_t stream_id; /* 0: none yet */
    bool is_sent;      /* its headers went out */
    bool was_moved;
    bool is_paused, is_ended, is_freed;
    bool is_complete; /* the answer is whole, but its consumer pauses */
    unsigned depth;
    int64_t timeout_ms, started_ns;
    struct loop_timer *deadline;
    struct loop_defer *resume; /* made by the first pause */
    int status;                /* 0: no head yet */
    struct http_fields head, trailers;
    struct buf in;                /* what came while paused, as it came */
    size_t in_done;               /* of it, told to the peer as read already */
    struct http_inflate *inflate; /* NULL: the answer is not compressed */
    bool has_more;                /* that it holds, unpacked, and nobody was told of yet */
    int fail_code;                /* why we reset it, with fail_reason */
    const char *fail_reason;
};

/* client.c */
void http_client_wake(struct http_client *c);
/* The connection takes no more calls, or none at all (is_lost). */
void http_client_conn_done(struct http_client *c, struct http_conn *conn);
/* For tests: the next connection uses this socket. */
void http_client_take_fd(struct http_client *c, int take_fd);

/* conn.c */
struct http_conn *http_conn_new(struct http_client *c);
void http_conn_free(struct http_conn *n);
/* Gives a waiting call to the connection, which must take calls. False: it takes none any more, the
 * call still waits. */
bool http_conn_submit(struct http_conn *n, struct http_call *call);
void http_conn_flush_soon(struct http_conn *n);
/* Ends the connection and every call on it. */
void http_conn_lose(struct http_conn *n, int code, const char *fmt, ...) MG_PRINTF(3, 4);
static inline bool http_conn_takes_calls(const struct http_conn *n) {
    return !n->is_draining && (n->state == CONN_SETTINGS || n->state == CONN_OPEN);
}
static inline void http_conn_enter(struct http_conn *n) {
    n->depth++;
}
void http_conn_leave(struct http_conn *n);
/* A call has left: closes the connection when it drains and this was the last. */
void http_conn_call_left(struct http_conn *n);

/* session.c */
MG_NODISCARD int http_session_new(struct http_conn *n);
/* False: the peer broke the protocol; the connection was lost. */
bool http_session_feed(struct http_conn *n, const uint8_t *p, size_t len);
/* False: the connection has no stream ids left. */
bool http_session_submit(struct http_conn *n, struct http_call *call);
/* Fills n->out. False: the session is over. */
bool http_session_drain(struct http_conn *n);
void http_session_cancel(struct http_conn *n, struct http_call *call);
void http_session_body_grew(struct http_conn *n, struct http_call *call);

/* call.c */
MG_NODISCARD int http_fields_add(struct http_fields *f, struct str name, struct str value);
void http_call_head(struct http_call *call);
void http_call_data(struct http_call *call, const uint8_t *p, size_t n);
/* What comes is kept: its consumer pauses, or has not been told of all that came meanwhile. */
static inline bool http_call_holds(const struct http_call *call) {
    return call->is_paused || call->in.n || call->has_more;
}
/* The answer is whole. */
void http_call_complete(struct http_call *call);
void http_call_fail(struct http_call *call, int code, bool is_unsent, const char *reason);

/* inflate.c */
enum {
    HTTP_INFLATE_FREE = 16 << 20, /* bytes that are unpacked whatever they were made of */
    HTTP_INFLATE_RATIO = 200,     /* then so many for one */
};
struct http_inflate *http_inflate_new(void);
void http_inflate_free(struct http_inflate *f); /* accepts NULL */
/* Takes from *in (which gets shorter) and gives a piece that lives until the next call. 1: there is
 * more to give before more must come; -EPROTO, ERR_TOO_BIG with *why (static). */
MG_NODISCARD int http_inflate_next(struct http_inflate *f, struct str *in, struct str *out,
                                   const char **why);
bool http_inflate_is_over(const struct http_inflate *f);

/* tls.c */
MG_NODISCARD int http_tls_start(struct http_conn *n, struct err *e);
/* tls reads and writes the socket at *fd, which outlives it, without SIGPIPE. */
void http_tls_set_fd(SSL *tls, int *fd);
/* Code and reason of a failed handshake, read or write. */
int http_tls_error(struct http_conn *n, int ssl_result, const char *doing, struct err *e);
