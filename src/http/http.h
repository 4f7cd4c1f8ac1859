/* An HTTP/2 client (nghttp2, OpenSSL 3) on the event loop: what etcd's gRPC and the Kubernetes API
 * are spoken with. One struct http_client talks to one origin over one connection, opened by the
 * first call and again when it was lost; calls on it run side by side, each a stream.
 *
 * Nothing is tried again here, so that whoever knows what a call means can back off: a connection
 * that can't be made ends every waiting call with the reason. The exception is a call that the peer
 * has said it did not look at (GOAWAY, REFUSED_STREAM): it goes to a new connection, once.
 *
 * Everything from the peer is bounded: see the limits below. No function here blocks, but for
 * http_run. All of it belongs to the thread of the loop. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/loop.h"

struct http_client;
struct http_call;

enum {
    HTTP_CALLS_MAX = 1024,         /* calls of a client at once; more: ERR_TOO_BIG */
    HTTP_HEADERS_MAX = 128,        /* header fields of an answer, and again of its trailers */
    HTTP_HEADER_BYTES_MAX = 65536, /* their names and values together */
    HTTP_SEND_MAX = 8 << 20,       /* bytes of a body that wait to be sent */
    HTTP_WINDOW = 1 << 20, /* bytes of an answer that the peer may send ahead of the consumer */
    HTTP_CONNECT_MS = 10000,
    HTTP_PING_INTERVAL_MS = 30000, /* etcd answers pings within 5 s of one another by hanging up */
    HTTP_PING_TIMEOUT_MS = 10000,
};

/* Every string is copied. Absent: STR_NULL. */
struct http_options {
    struct str url; /* "http://HOST[:PORT]" (HTTP/2 from the first byte) or "https://HOST[:PORT]";
                       IPv6 in brackets; a path of "/" is ignored, any other refused */
    /* TLS, 1.2 or later, ALPN h2. Files are read again for each connection: a rotated certificate
     * counts from the next one on. Each is given as a file or inline (PEM), not both. */
    struct str ca_file, ca_pem;     /* whom to trust; neither: the system's certificates */
    struct str cert_file, cert_pem; /* who we are, with the chain behind it; needs a key */
    struct str key_file, key_pem;
    struct str server_name; /* of SNI and the certificate's check, in place of the URL's host */
    bool is_insecure;       /* whoever answers is trusted */
    bool is_gzip_welcome;   /* answers may come compressed; they are unpacked here */
    struct str proxy_url;   /* "http://[USER:PASSWORD@]HOST[:PORT]": reached by CONNECT */
    /* 0: the defaults above. */
    int connect_timeout_ms; /* name lookup, TCP, proxy and TLS handshake together */
    int ping_interval_ms;   /* silence, while calls run, after which the peer is asked */
    int ping_timeout_ms;    /* until its answer; then the connection is lost */
    const char *what; /* whom errors speak of ("etcd", "API server"); static; NULL: "server" */
    const char *user_agent; /* static; NULL: "margay" */
};

/* ERR_INVALID: the options contradict each other or the URL is none; what is in the files is looked
 * at when a connection is made. The loop outlives the client. */
MG_NODISCARD int http_client_new(struct loop *l, const struct http_options *o,
                                 struct http_client **out, struct err *e);
/* Ends the connection. Every call must have been freed. Safe inside a call's callbacks. */
void http_client_free(struct http_client *c);
/* Drops the connection when the last of its calls has ended; new calls get a new one. For rotated
 * tokens and for picking another backend behind one name. */
void http_client_refresh(struct http_client *c);
/* How many connections were made so far, for tests and metrics. */
uint64_t http_client_connections(const struct http_client *c);

struct http_header {
    struct str name; /* lower case */
    struct str value;
};

/* Undoes %XX into out, which has room for in.n bytes, and may be where `in` is; returns the length.
 * A % that is none stays. */
size_t http_percent_decode(struct str in, char *out);

/* A header by name (lower case), STR_NULL when absent. */
struct str http_header_get(const struct http_header *h, size_t n, const char *name);

struct http_request {
    const char *method;
    struct str path;                   /* with the query, from "/" on; escaped by the caller */
    const struct http_header *headers; /* host, user-agent and content-length are added */
    size_t n_headers;
    struct str body;
    bool is_streaming;  /* more of the body follows by http_call_send until http_call_finish */
    int64_t timeout_ms; /* from http_call_new to on_end; 0: none (watches: the pings watch them) */
};

/* How a call ended. The strings live until on_end returns. */
struct http_end {
    /* 0: the answer is whole, whatever its status. ERR_UNAVAILABLE: no connection, or lost;
     * -ETIMEDOUT: the call's deadline; ERR_DENIED: TLS: one of the two doesn't trust the other;
     * ERR_INVALID: a certificate or key of ours can't be read; -EPROTO: the peer broke the protocol
     * or reset the stream; ERR_TOO_BIG: a limit of this file. */
    int code;
    const char *reason; /* a sentence without the final stop, naming the peer; "" with code 0 */
    bool is_unsent;     /* the peer has certainly not acted on the call: it may go elsewhere */
    const struct http_header *trailers;
    size_t n_trailers;
};

/* on_head, on_data*, on_end, in this order; on_end once, as the last, unless the call is freed
 * before; never from inside http_call_new. on_head is skipped when nothing came. Strings live until
 * the callback returns. A callback may call anything here, http_call_free on its own call too. */
struct http_call_ops {
    void (*on_head)(void *arg, int status, const struct http_header *h, size_t n);
    void (*on_data)(void *arg, struct str chunk);
    void (*on_end)(void *arg, const struct http_end *end);
};

/* Starts a call: r is copied. Fails with ERR_TOO_BIG only (HTTP_CALLS_MAX, HTTP_SEND_MAX). Caller
 * owns *out and frees it, after on_end too. */
MG_NODISCARD int http_call_new(struct http_client *c, const struct http_request *r,
                               const struct http_call_ops *ops, void *arg, struct http_call **out,
                               struct err *e);
/* Cancels a call that has not ended (RST_STREAM). Accepts NULL. */
void http_call_free(struct http_call *call);
/* More of a streaming call's body. ERR_TOO_BIG when more than HTTP_SEND_MAX would wait: nothing of
 * chunk was taken; ERR_UNAVAILABLE when the call has ended or was finished. */
MG_NODISCARD int http_call_send(struct http_call *call, struct str chunk);
/* Bytes of the body that have not been given to the connection yet. */
size_t http_call_unsent(const struct http_call *call);
/* The body of a streaming call is complete (half close); answers still come. */
void http_call_finish(struct http_call *call);
/* Between pause and resume no on_data and no on_end of an answer come; the peer stops after
 * HTTP_WINDOW bytes. Failures are told nevertheless. Resume delivers what waits on the loop's next
 * turn, not from inside. */
void http_call_pause(struct http_call *call);
void http_call_resume(struct http_call *call);

/* A whole answer, in the caller's arena. */
struct http_answer {
    int status;
    const struct http_header *headers;
    size_t n_headers;
    struct str body;
    const struct http_header *trailers;
    size_t n_trailers;
    bool is_unsent; /* set on failure too */
};

/* Runs a call to its end, stepping the client's loop meanwhile: for blocking code with a loop of
 * its own. r->timeout_ms must not be 0, r->is_streaming not set. 0: an answer of any status; else
 * http_end's codes, or ERR_TOO_BIG when the body has more than body_max bytes. */
MG_NODISCARD int http_run(struct http_client *c, const struct http_request *r, size_t body_max,
                          struct arena *a, struct http_answer *out, struct err *e);
