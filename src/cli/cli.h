/* The command line: one table of commands, a file a command. Exit codes: 0 done, 1 failed or "no"
 * where a command asks a question, 2 wrong usage. */
#pragma once

#include "model/model.h"
#include "store/store.h"

struct cli_command {
    const char *name;
    const char *args;                  /* what follows the name in the usage line */
    const char *summary;               /* one line, without a full stop */
    const char *help;                  /* options and examples; NULL: a daemon's own --help */
    int (*run)(int argc, char **argv); /* argv[0] is the name */
};
/* Ends with a NULL name. */
extern const struct cli_command cli_commands[];
const struct cli_command *cli_find(const char *name);

/* Prints the reference that `what` names: kinds, index, settings, commands, or a kind. Exit code.
 */
int cli_docs(const char *what);

/* Global flags, taken off the command line before a command sees it. */
struct cli_globals {
    const char *state_dir, *run_dir, *datastore; /* NULL: default */
};
extern struct cli_globals cli_globals;

/* "margay COMMAND: …" on stderr; returns 2. Tells how to get help. */
int cli_usage(const char *command, const char *fmt, ...) MG_PRINTF(2, 3);
/* "error: …" on stderr; returns 1. */
int cli_error(const char *fmt, ...) MG_PRINTF(1, 2);

/* ---- store ---- */
/* The agent's socket path, the state dir. In static buffers. */
const char *cli_socket(void);
const char *cli_state_dir(void);
/* Opens the store: the one named, else the agent's if one answers, else the file. */
MG_NODISCARD int cli_store(struct store **out, struct err *e);
/* One request to the agent that is not the store's (status, wait): the answer in the arena. */
MG_NODISCARD int cli_ask(struct str body, int timeout_s, struct arena *a, struct jnode **out,
                         struct err *e);

/* ---- objects ---- */
struct cli_object {
    struct jnode *doc;
    uint64_t revision;
};
/* ERR_NOT_FOUND says it as kubectl does. */
MG_NODISCARD int cli_get(struct store *s, const struct kind *k, struct str ns, struct str name,
                         struct arena *a, struct cli_object *out, struct err *e);
/* Writes doc as it should be in the store: uid, creationTimestamp, generation kept up; old NULL for
 * a new one. */
MG_NODISCARD int cli_put(struct store *s, const struct kind *k, struct str ns, struct str name,
                         struct jnode *doc, const struct cli_object *old, uint64_t expect,
                         struct arena *a, struct err *e);
MG_NODISCARD int cli_delete(struct store *s, const struct kind *k, struct str ns, struct str name,
                            uint64_t expect, struct err *e);
/* Validates and fills defaults, printing every error to stderr with "FILE:LINE: …". file NULL:
 * none. 0 or ERR_INVALID. */
MG_NODISCARD int cli_check(struct jnode *doc, const char *file, struct str ns, struct arena *a,
                           struct object *out);
/* The same of a changed object: what was wrong with it before (a field of a newer Calico, say) is
 * no fault of the change and stays. */
MG_NODISCARD int cli_check_change(const struct jnode *was, struct jnode *doc, const char *name,
                                  struct str ns, struct arena *a, struct object *out);
/* A kind by what the user typed; NULL after an error message. */
const struct kind *cli_kind(const char *word);

/* ---- files (files.c) ---- */
/* Calls cb for each document of files, folders ("-": stdin), members of Lists one by one. The
 * return value is 0, or 1 when something could not be read (said on stderr; the rest goes on). */
int cli_each_document(char **files, size_t n, bool recursive, struct arena *a,
                      int (*cb)(void *arg, struct jnode *doc, const char *file), void *arg);

/* ---- output (print.c) ---- */
enum cli_format { OUT_TABLE, OUT_WIDE, OUT_JSON, OUT_YAML, OUT_NAME, OUT_JSONPATH, OUT_COLUMNS };
struct cli_output {
    enum cli_format format;
    const char *template; /* of jsonpath and custom-columns */
    bool no_headers, show_labels, show_ns, show_kind;
};
/* -o's argument. False after an error message. */
bool cli_output_parse(const char *arg, const char *command, struct cli_output *out);
struct cli_item {
    const struct kind *kind;
    struct jnode *doc; /* with resourceVersion */
    struct str ns, name;
};
/* As a list, or the one object alone when is_single. Appended. False: a template is wrong. */
bool cli_print(const struct cli_output *o, const struct cli_item *items, size_t n, bool is_single,
               struct arena *a, struct buf *out, struct err *e);
/* An answer as JSON, YAML or by JSONPath, printed: 0, or 2 after an error message; -1: the format
 * is for the caller (a table). */
int cli_print_tree(const struct cli_output *o, const char *command, struct jnode *q);
/* Rows of cells under heads, columns padded. n_columns cells a row. Appended. */
void cli_table(struct buf *out, const char *const *heads, const struct str *cells, size_t n_columns,
               size_t n_rows, bool no_headers);
/* JSONPath as kubectl's (jsonpath.c). */
MG_NODISCARD int cli_jsonpath(const char *template, struct jnode *doc, struct buf *out,
                              struct err *e);

/* Kubernetes' label selector as a selector's text. */
MG_NODISCARD int cli_label_selector(const char *text, struct buf *out, struct err *e);

/* ---- commands ---- */
int cmd_apply(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_replace(int argc, char **argv);
int cmd_delete(int argc, char **argv);
int cmd_get(int argc, char **argv);
int cmd_patch(int argc, char **argv);
int cmd_label(int argc, char **argv);
int cmd_annotate(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_policy(int argc, char **argv);
int cmd_pod(int argc, char **argv);
int cmd_ipam(int argc, char **argv);
int cmd_bgp(int argc, char **argv);
int cmd_datastore(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_install(int argc, char **argv);
int cmd_uninstall(int argc, char **argv);
int cmd_selector(int argc, char **argv);
int cmd_version(int argc, char **argv);
int cmd_completion(int argc, char **argv);
int cmd_help(int argc, char **argv);
