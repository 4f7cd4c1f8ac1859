/* Errors: functions return 0 or a negative code (below); those at a boundary also fill a struct
 * err, the last argument, which may be NULL. The message is a sentence for people: what, where,
 * found, allowed, repair. Whoever decides the outcome prints it, once. */
#pragma once

#include "base/attr.h"

#include <errno.h>

/* Codes that callers switch on. */
enum {
    ERR_NOT_FOUND = -ENOENT,
    ERR_EXISTS = -EEXIST,
    ERR_INVALID = -EINVAL,
    ERR_CONFLICT = -ESTALE,  /* compare-and-swap lost: read again and retry */
    ERR_GONE = -EKEYEXPIRED, /* revision too old to watch from: list again */
    ERR_RETRY = -EAGAIN,     /* temporary: the same call may work later */
    ERR_NO_SPACE = -ENOSPC,  /* no address, no disk */
    ERR_CORRUPT = -EUCLEAN,  /* stored data can't be read */
    ERR_TOO_BIG = -E2BIG,    /* a named limit was exceeded */
    ERR_DENIED = -EACCES,
    ERR_UNAVAILABLE = -ENOTCONN, /* the other side (agent, datastore) can't be reached */
};

struct err {
    int code;
    char msg[1024];
};

/* Sets code and message (cut at the end if too long); returns code. e may be NULL. */
int err_set(struct err *e, int code, const char *fmt, ...) MG_PRINTF(3, 4);
/* Puts "CONTEXT: " in front of the message; returns the code it holds. e may be NULL. */
int err_wrap(struct err *e, int code, const char *fmt, ...) MG_PRINTF(3, 4);
/* Text of a negative code, for messages. */
const char *err_name(int code);
