/* Template resources: conf.d/…toml, what they say, and one pass over one of them. */
#pragma once

#include "confd/funcs.h"
#include "confd/options.h"

struct resource {
    const char *file; /* its TOML */
    struct arena a;   /* what it says */
    const char *src, *dest, *check_cmd, *reload_cmd;
    struct str prefix;      /* "/…" */
    const struct str *keys; /* full prefixes, sorted: see kv_view_keys */
    size_t n_keys;
    unsigned mode;
    bool has_mode;
    int64_t uid, gid; /* -1: the effective one */
    struct tmpl_set *tmpl, *check;

    /* of the last pass */
    struct arena render;
    struct kv_view view;
    bool saw_world; /* see struct funcs */
    bool is_failed, is_dirty;
    int64_t retry_ns, retry_at_ns; /* next pause, and when; 0: none */
};

struct resources {
    struct resource **p;
    size_t n, cap;
};

/* What a pass needs besides the resource. */
struct pass {
    const struct confd_options *o;
    const struct kv *kv;
    const struct bgp_view *bgp;
    int stop_fd;
};

/* Reads all of CONFDIR/conf.d. A folder that is not there is none (*out stays empty, a warning is
 * logged). On failure *out is empty and e says which file and why. node_name stands in for NODENAME
 * in "//NODENAME". */
MG_NODISCARD int resources_load(const struct confd_options *o, const char *node_name,
                                struct resources *out, struct err *e);
void resources_free(struct resources *r);

/* Parses the template if it is not yet (again, if `again`). */
MG_NODISCARD int resource_parse(struct resource *r, bool again, const struct confd_options *o,
                                struct err *e);
/* Renders into out, noting in r->view what was read. */
MG_NODISCARD int resource_render(struct resource *r, const struct pass *p, struct buf *out,
                                 struct err *e);
/* One pass: render, compare, check, replace, reload (stage.c). *is_changed: dest was written. */
MG_NODISCARD int resource_process(struct resource *r, const struct pass *p, bool *is_changed,
                                  struct err *e);
