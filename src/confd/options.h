/* Settings of confd: flags before environment before confd.toml before defaults. One table of rows
 * is the parser of all three and the help. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum { CONFD_LIST_MAX = 64 };

struct confd_list {
    const char *p[CONFD_LIST_MAX];
    size_t n;
};

struct confd_options {
    /* what is rendered */
    const char *confdir, *config_file, *prefix;
    bool noop, sync_only, keep_stage_file;
    /* when */
    bool onetime, watch;
    int64_t interval_s, cmd_timeout_s;
    /* from where */
    const char *backend;
    struct confd_list nodes, files;
    const char *filter, *scheme, *srv_domain, *srv_record;
    const char *client_cert, *client_key, *client_cakeys;
    bool client_insecure, basic_auth;
    const char *username, *password, *auth_token, *auth_type, *separator, *table;
    const char *app_id, *user_id, *role_id, *secret_id, *path;
    const char *datastore, *node_name;
    const char *log_level;
    bool version;
};

enum options_result { OPTIONS_RUN, OPTIONS_HELP, OPTIONS_USAGE, OPTIONS_FAILED };

/* Reads argv (argv[0] is the name), the environment, and the configuration file that they name.
 * OPTIONS_USAGE: wrong flags; OPTIONS_FAILED: the file is bad; both with e filled. Strings live in
 * the arena. */
enum options_result confd_options_read(int argc, char **argv, struct arena *a,
                                       struct confd_options *out, struct err *e);

/* The table as text: one flag a line, with its default. Appended. */
void confd_options_help(struct buf *out);
