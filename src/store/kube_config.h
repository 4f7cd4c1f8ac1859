/* Where an API server is and who we are there: kubeconfig files (YAML), or what a pod finds in its
 * own file system. Reading is pure but for the files; credentials are fetched by kube_auth. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/jtree.h"

enum {
    KUBE_CONFIG_BYTES_MAX = 1 << 20, /* of one kubeconfig file, and of a file that it names */
    KUBE_CONFIG_FILES_MAX = 32,      /* in KUBECONFIG */
    KUBE_EXEC_ARGS_MAX = 128,
    KUBE_EXEC_TIMEOUT_MS = 60000,
    KUBE_EXEC_OUTPUT_MAX = 1 << 20,
    KUBE_TOKEN_REREAD_S = 60, /* a token's file is looked at again after this time */
};

struct kube_exec {
    struct str command; /* empty: none */
    struct str api_version;
    struct str args[KUBE_EXEC_ARGS_MAX];
    size_t n_args;
    struct str env[KUBE_EXEC_ARGS_MAX]; /* NAME=VALUE */
    size_t n_env;
    struct str install_hint;
    bool has_cluster_info;
};

/* Absent: STR_NULL. Strings live in the arena that was given. Files are absolute paths. */
struct kube_config {
    struct str origin; /* what errors call it: the file, "in-cluster" */
    struct str context, server, ns;
    struct str ca_file, ca_pem, cert_file, cert_pem, key_file, key_pem;
    struct str server_name, proxy_url;
    struct str token, token_file, username, password;
    struct str as_user, as_groups[16];
    size_t n_as_groups;
    bool is_insecure;
    bool wants_gzip; /* of the datastore's URL: lists may come compressed */
    struct kube_exec exec;
};

/* One kubeconfig's text, or several: the first that says a thing counts, as kubectl merges them. */
struct kube_text {
    struct str name; /* path, for errors and for the folder that relative paths start from */
    struct str text;
};
/* context: STR_NULL for current-context. ERR_INVALID: "FILE:LINE: FIELD: found …, allowed …";
 * ERR_NOT_FOUND: the context, cluster or user is in none of the files. */
MG_NODISCARD int kube_config_parse(const struct kube_text *src, size_t n, struct str context,
                                   struct arena *a, struct kube_config *out, struct err *e);
/* rest: what stands behind "kubernetes:" before "?": a path, or empty: $KUBECONFIG (paths
 * separated by colons), else ~/.kube/config if it is there, else in-cluster. */
MG_NODISCARD int kube_config_load(struct str rest, struct str context, struct arena *a,
                                  struct kube_config *out, struct err *e);

/* What a request carries. Starts as {0}; kube_auth_fini ends it. */
struct kube_auth {
    char *header; /* value of "authorization"; NULL: none */
    char *cert_pem, *key_pem;
    int64_t good_until_s; /* wall clock; 0: not fetched; INT64_MAX: for ever */
};
void kube_auth_fini(struct kube_auth *au);
/* True: nothing to fetch at this wall time. */
bool kube_auth_is_fresh(const struct kube_auth *au, int64_t now_s);
/* Fetches a credential: reads the token's file, or runs the command (which blocks, at most
 * KUBE_EXEC_TIMEOUT_MS: fine for a worker thread, it uses nothing but its arguments). ERR_DENIED
 * names the file or command and what it said. */
MG_NODISCARD int kube_auth_fetch(const struct kube_config *c, struct kube_auth *out, struct err *e);
/* The answer of a command, "ExecCredential". Pure. */
MG_NODISCARD int kube_auth_parse(const struct kube_config *c, struct str text,
                                 struct kube_auth *out, struct err *e);
