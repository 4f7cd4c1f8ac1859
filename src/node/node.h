/* The agent: wires store, calculation, dataplane, CNI and the socket to one loop. */
#pragma once

#include "base/err.h"
#include "base/str.h"

/* `margay node …`: argv[0] is "node". Returns the exit code. */
int node_main(int argc, char **argv);

/* What the command line and the environment say. */
struct node_options {
    const char *node_name;
    const char *state_dir, *run_dir, *datastore;
    const char *config_file;
};

struct node;
/* Opens everything; the first flush is done when it returns. e must be given. */
MG_NODISCARD int node_new(const struct node_options *o, struct node **out, struct err *e);
/* Until SIGTERM or SIGINT. */
void node_run(struct node *n);
void node_free(struct node *n);
