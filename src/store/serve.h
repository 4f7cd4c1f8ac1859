/* The agent's end of the store's RPC (store/rpc.h). Nonblocking, bounded; a bad frame is answered
 * and the connection closed. The caller has checked who the peer is. */
#pragma once

#include "base/loop.h"
#include "store/worker.h"

struct jnode;
struct store_server;
struct store_reply; /* an answer still owed */

struct store_server_hooks {
    /* An op that is not the store's. True: the hook answers, now or later, by store_reply_send. */
    bool (*op)(void *arg, const struct jnode *request, struct store_reply *reply);
};

enum { STORE_SERVER_MAX_CONNECTIONS = 128 };

/* s: what watches are made of; w: its worker, or another handle's of the same store. */
struct store_server *store_server_new(struct loop *l, struct store *s, struct store_worker *w,
                                      const struct store_server_hooks *hooks, void *arg);
/* Open replies must not be used any more. */
void store_server_free(struct store_server *s);
void store_server_connection(struct store_server *s, int take_fd);

/* Answers with a JSON object's text; the reply is freed. Fine when the peer has gone. */
void store_reply_send(struct store_reply *r, struct str body);
