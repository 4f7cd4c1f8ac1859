/* What the conformance suite runs against: one store by its URL, what it can hold, and documents
 * that every store can hold (NetworkSets and IPAM's items; the Kubernetes API takes nothing else
 * than real objects). A document carries its text in an annotation, its number in a label. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/jtree.h"
#include "store/syncer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { NAME_LEN = 64, DEADLINE_MS = 300000 };

struct subject {
    const char *url;
    const char *url_direct; /* not through the relay that the runner breaks; else the same */
    bool is_sqlite, is_kubernetes;
    bool has_transactions; /* undone by rollback */
    unsigned many;         /* keys of the paging test */
};
extern struct subject subject;

/* Fills subject in from the URL. "agent": a server of the store's RPC on an embedded store, in a
 * process of its own until subject_end; "sqlite": an embedded store in a folder of its own. */
void subject_begin(const char *url);
void subject_end(void);

/* Fails the test when it can't be opened. */
struct store *subject_open(void);

/* A new namespace for each call, known to the store. */
void subject_namespace(struct store *s, char out[NAME_LEN]);
void subject_namespace_called(struct store *s, const char *name);

/* Key of a NetworkSet; in a buffer that the call after the next three takes again. */
struct store_key net_key(const char *ns, const char *name);
/* Its document. */
void net_document(struct buf *b, const char *ns, const char *name, const char *text);
/* What a document says; STR_NULL when it is none. */
struct str net_text(struct str value, struct arena *a);
/* Writes it; the revision. Fails the test on an error. */
uint64_t net_put(struct store *s, const char *ns, const char *name, const char *text,
                 uint64_t expect);
/* Without failing: the code. */
int net_try_put(struct store *s, const char *ns, const char *name, const char *text,
                uint64_t expect, uint64_t *revision, struct err *e);
void net_del(struct store *s, const char *ns, const char *name);
/* The text and revision of one; fails the test unless it is there. */
uint64_t net_get(struct store *s, const char *ns, const char *name, struct arena *a,
                 struct str *text);

/* Runs f in `n` processes at once, each with its number and its own open store; waits for all.
 * f returns 0 or a number that names what went wrong. */
void in_processes(int n, int (*f)(struct store *s, int number, void *arg), void *arg);

/* Asks the runner to do something to the server or the way to it ("break", "mend", "compact",
 * "restart"). False: there is no runner that can. */
bool hook(const char *what);

/* The test ends here: this store doesn't do what it is about. */
#define LEAVE_OUT(why)                        \
    do {                                      \
        print_message("left out: %s\n", why); \
        skip();                               \
    } while (0)

/* Fails the test with the error's own words. */
#define OK(call, e)                                                    \
    do {                                                               \
        int ok_code = (call);                                          \
        if (ok_code < 0) {                                             \
            fail_msg("%s: %s: %s", #call, err_name(ok_code), (e).msg); \
        }                                                              \
    } while (0)

/* The tests of each file. */
extern const struct CMUnitTest calls_tests[], processes_tests[], follow_tests[];
extern const size_t calls_n, processes_n, follow_n;
