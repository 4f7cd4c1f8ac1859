/* Tokens of service accounts for others than us: authentication.k8s.io/v1 TokenRequest. */
#include "base/clock.h"
#include "base/fd.h"
#include "store/kube_int.h"

#include <fcntl.h>

/* The authorities' certificates, wherever the configuration has them. */
static int read_ca(const struct kube_config *c, struct arena *a, struct str *out, struct err *e) {
    *out = c->ca_pem;
    if (!c->ca_file.p) {
        return 0;
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(KUBE_CONFIG_BYTES_MAX + 65536);
    const char *path = arena_cstr(a, c->ca_file);
    int r = file_read(AT_FDCWD, path, &b, KUBE_CONFIG_BYTES_MAX);
    if (r < 0) {
        return err_set(e, r, "%s: %s", path, err_name(r));
    }
    *out = arena_dup(a, buf_view(&b));
    return 0;
}

struct str kube_own_namespace(const struct store *s) {
    return kube_is(s) ? ((const struct kube_store *)s)->shared->cfg.ns : STR_NULL;
}

int kube_account_token(struct store *st, struct str ns, struct str account, unsigned seconds,
                       struct arena *a, struct kube_account *out, struct err *e) {
    struct kube_store *s = (struct kube_store *)st;
    static const struct kube_rest rest = {.group = "",
                                          .version = "v1",
                                          .plural = "serviceaccounts",
                                          .kind = "ServiceAccount",
                                          .is_namespaced = true};
    struct jnode *ask = jnode_new(a, J_MAP), *spec = jnode_new(a, J_MAP), *got = NULL;
    if (!kube_is(st)) {
        return err_set(e, ERR_INVALID, "the datastore is not the Kubernetes API");
    }
    const struct kube_config *c = &s->shared->cfg;
    *out = (struct kube_account){.server = c->server, .is_insecure = c->is_insecure};
    int r = read_ca(c, a, &out->ca_pem, e);
    if (r < 0) {
        return r;
    }
    jnode_set(a, ask, STR("apiVersion"), jnode_new_str(a, STR("authentication.k8s.io/v1")));
    jnode_set(a, ask, STR("kind"), jnode_new_str(a, STR("TokenRequest")));
    jnode_set(a, spec, STR("expirationSeconds"), jnode_new_int(a, seconds));
    jnode_set(a, ask, STR("spec"), spec);
    struct kube_subject sub = {"create", &rest, "token", ns, account};
    struct str path = arena_printf(a, "/api/v1/namespaces/%.*s/serviceaccounts/%.*s/token",
                                   STR_FMT(ns), STR_FMT(account));
    r = kube_object(s, &sub, "POST", path, "application/json", ask, a, &got, NULL, e);
    if (r < 0) {
        return r;
    }
    struct str until = jnode_str(jnode_path(got, "status.expirationTimestamp"));
    out->token = jnode_str(jnode_path(got, "status.token"));
    out->expires_s = clock_parse_rfc3339(until);
    if (!out->token.n || out->expires_s < 0) {
        return err_set(e, -EPROTO, "API server: a TokenRequest was answered without a token");
    }
    return 0;
}
