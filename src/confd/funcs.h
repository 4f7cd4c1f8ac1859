/* The functions that templates call: confd's, and those of Calico's fork. One table; its context is
 * a struct funcs, given to tmpl_execute for each run. */
#pragma once

#include "confd/kv.h"
#include "confd/template.h"

struct bgp_view;

struct funcs {
    struct kv_view *view;
    const struct bgp_view *bgp; /* getBGPConfig's source; NULL: the backend has none */
    bool saw_world;             /* the template read what no backend can tell changes of */
};

/* All of them, for tmpl_parse. */
const struct tmpl_funcs *confd_funcs(void);

/* memkv.KVPair and memkv.KVPairs. */
extern const struct vtype VT_KVPAIR, VT_KVPAIRS, VT_KVPAIR_LIST;

/* Parts of the table (funcs_*.c). */
struct func_part {
    const struct tmpl_func *p;
    size_t n;
};
extern const struct func_part funcs_text, funcs_list, funcs_kv, funcs_net, funcs_time, funcs_bgp;

#define FUNC_ARGS                                                                                \
    const struct tmpl_call *c MG_UNUSED, const struct value *args MG_UNUSED, size_t n MG_UNUSED, \
        struct value *out MG_UNUSED, struct err *e MG_UNUSED

/* Go's path.Match. 1 matches, 0 does not, -1 the pattern is malformed. */
int glob_match(struct str pattern, struct str s);
/* A name of at most max bytes: longer ones are cut and get "_" and 16 hex digits of their SHA-256.
 */
struct str bird_name(struct arena *a, struct str name, size_t max);
/* What templates run with as dot: nil, or with a bgp view the store client that getBGPConfig takes.
 */
struct value funcs_dot(const struct funcs *f);
