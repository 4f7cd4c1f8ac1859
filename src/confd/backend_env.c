/* Keys from the environment: APP_DB_HOST is /app/db/host. */
#include "confd/backend.h"

#include <ctype.h>
#include <unistd.h>

static int env_open(const struct confd_options *o MG_UNUSED, const struct str *prefixes MG_UNUSED,
                    size_t n MG_UNUSED, struct backend **out, struct err *e MG_UNUSED) {
    static struct backend b = {&backend_env};
    *out = &b;
    return 0;
}

static void env_close(struct backend *b MG_UNUSED) {
}

/* /my_app and /My/App are both MY_APP, which is read as /my/app. */
static struct str env_fold(struct arena *a, struct str key) {
    char *s = arena_alloc(a, key.n + 1);
    for (size_t i = 0; i < key.n; i++) {
        s[i] = key.p[i] == '_' ? '/' : (char)tolower((unsigned char)key.p[i]);
    }
    return str_n(s, key.n);
}

static int env_read(struct backend *b MG_UNUSED, struct kv *fresh, struct err *e) {
    struct arena a = {0};
    int r = 0;
    for (char **v = environ; *v && r == 0; v++) {
        struct str rest = str_c(*v), name = str_cut(&rest, '=');
        if (!kv_add(fresh, env_fold(&a, name), rest.p ? rest : STR(""))) {
            r = err_set(e, ERR_TOO_BIG, "environment: %.*s is too long", STR_FMT(name));
        }
    }
    arena_fini(&a);
    return r;
}

const struct backend_ops backend_env = {
    .name = "env", .open = env_open, .close = env_close, .read = env_read, .fold = env_fold};
