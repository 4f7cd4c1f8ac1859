/* The one table of functions, put together from its parts. */
#include "confd/funcs.h"

static struct tmpl_func all[64];
static struct tmpl_funcs confd_funcs_table;

const struct tmpl_funcs *confd_funcs(void) {
    static const struct func_part *const parts[] = {&funcs_text, &funcs_list, &funcs_kv,
                                                    &funcs_net,  &funcs_time, &funcs_bgp};
    if (confd_funcs_table.n == 0) {
        size_t n = 0;
        for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
            mg_assert(n + parts[i]->n <= ARRAY_LEN(all));
            memcpy(&all[n], parts[i]->p, parts[i]->n * sizeof(all[0]));
            n += parts[i]->n;
        }
        confd_funcs_table = (struct tmpl_funcs){.p = all, .n = n};
    }
    return &confd_funcs_table;
}
