/* A made-up cluster of any size, as documents: namespaces, pods of ten labels, policies. The same
 * numbers give the same texts. Used by the measurements of the calculation, of loading, of churn.
 */
#pragma once

#include "base/arena.h"
#include "model/model.h"

struct world {
    unsigned policies, pods;
    unsigned local;      /* the first of the pods, on the node WORLD_NODE */
    unsigned namespaces; /* pods and policies take turns in them */
    bool is_spread;      /* policies select any pod, so few a local one; false: each a local one */
};

#define WORLD_NODE "bench"

enum { WORLD_APPS = 50 }; /* in each namespace */

/* Limits the numbers so that they make sense together, and sets the number of namespaces. */
struct world world_of(unsigned policies, unsigned pods, bool is_spread);

struct world_doc {
    char key[160]; /* in the store */
    char text[3072];
};

/* version: another one is another text. Of a policy: an even step changes a port, an odd one whom
 * it lets in. Of a pod: its app. Of a namespace: its labels. */
void world_namespace(const struct world *w, unsigned i, unsigned version, struct world_doc *out);
void world_pod(const struct world *w, unsigned i, unsigned version, struct world_doc *out);
/* Of a local pod. */
void world_endpoint(const struct world *w, unsigned i, struct world_doc *out);
void world_policy(const struct world *w, unsigned i, unsigned version, struct world_doc *out);

/* All of them, in the order in which a store lists kinds. */
void world_each(const struct world *w, void (*cb)(void *arg, const struct world_doc *d), void *arg);

/* Ends the program if the text is not valid. */
struct object world_decode(const struct world_doc *d, struct arena *a);

/* Of this process. */
long resident_kib(void);
