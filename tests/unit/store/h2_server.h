/* A scripted HTTP/2 server (cleartext, threads of its own) for tests of what speaks to one. Its
 * answers are the test's: see struct h2_reply. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum h2_end {
    H2_DONE,  /* the answer is whole */
    H2_HANG,  /* and goes on saying nothing */
    H2_RESET, /* the stream is reset */
    H2_CLOSE, /* the connection is closed */
};
enum { H2_PARTS = 8 };

struct h2_reply {
    int status;
    const char *content_type; /* NULL: application/json */
    const char *retry_after;  /* NULL: none */
    struct {
        int delay_ms; /* after the part before it */
        const char *text;
    } parts[H2_PARTS]; /* up to one without text */
    enum h2_end end;
};

struct h2_request {
    const char *method, *path, *authorization, *body;
};

/* answer runs on the server's threads, one call at a time. Returns the port, or -1. */
int h2_server_start(struct h2_reply (*answer)(void *arg, const struct h2_request *r), void *arg);
/* Ends all connections; new ones are refused until h2_server_go_on. */
void h2_server_break(void);
void h2_server_go_on(void);
void h2_server_stop(void);
