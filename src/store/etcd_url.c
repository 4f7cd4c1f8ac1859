/* Where the cluster is and who we are: the datastore's URL, and what it leaves open from the
 * environment, by the names that Calico's programs read. */
#include "store/etcd_rpc.h"

#include <stdlib.h>

#define ENDPOINT_USUAL "http://127.0.0.1:2379"

static int add_member(struct etcd_options *o, struct str m, struct str *scheme, struct err *e) {
    if (o->n_members == ETCD_MEMBERS_MAX) {
        return err_set(e, ERR_INVALID, "etcd: more than %d endpoints", ETCD_MEMBERS_MAX);
    }
    bool has_scheme = str_contains(m, STR("://"));
    if (has_scheme) {
        *scheme = str_starts(m, STR("https:")) ? STR("https") : STR("http");
    }
    o->member[o->n_members++] =
        has_scheme ? arena_dup(&o->mem, m)
                   : arena_printf(&o->mem, "%.*s://%.*s", STR_FMT(*scheme), STR_FMT(m));
    return 0;
}

/* "http://a:2379,b:2379": a scheme holds for those behind it too. */
static int add_members(struct etcd_options *o, struct str list, struct err *e) {
    struct str scheme = STR("http");
    int r = 0;
    while (list.p && r == 0) {
        struct str m = str_trim(str_cut(&list, ','));
        r = m.n ? add_member(o, m, &scheme, e) : 0;
    }
    return r;
}

static int read_query(struct etcd_options *o, struct str query, struct str *srv, struct err *e) {
    const struct {
        const char *name;
        struct str *to;
    } known[] = {{"ca", &o->ca_file}, {"cert", &o->cert_file},    {"key", &o->key_file},
                 {"user", &o->user},  {"password", &o->password}, {"srv", srv}};
    while (query.p) {
        struct str value = str_cut(&query, '&'), name = str_cut(&value, '=');
        if (str_is(name, "insecure") && str_is(value, "true")) {
            o->is_insecure = true;
            continue;
        }
        size_t i = 0;
        while (i < ARRAY_LEN(known) && !str_is(name, known[i].name)) {
            i++;
        }
        if (i == ARRAY_LEN(known) || !value.n) {
            return err_set(e, ERR_INVALID,
                           "etcd: URL parameter \"%.*s\": allowed are ca=FILE, cert=FILE, "
                           "key=FILE, user=NAME, password=TEXT, srv=DOMAIN and insecure=true",
                           STR_FMT(name));
        }
        char *p = arena_alloc(&o->mem, value.n + 1);
        *known[i].to = str_n(p, http_percent_decode(value, p));
    }
    return 0;
}

static struct str env(struct etcd_options *o, const char *name) {
    const char *v = getenv(name);
    return v && v[0] ? arena_dup(&o->mem, str_c(v)) : STR_NULL;
}

/* A file or an inline text, where the URL named none. */
static void env_pair(struct etcd_options *o, struct str *file, struct str *pem,
                     const char *file_name, const char *pem_name) {
    if (!file->p) {
        *file = env(o, file_name);
        *pem = env(o, pem_name);
    }
}

static void read_env(struct etcd_options *o) {
    env_pair(o, &o->ca_file, &o->ca_pem, "ETCD_CA_CERT_FILE", "ETCD_CA_CERT");
    env_pair(o, &o->cert_file, &o->cert_pem, "ETCD_CERT_FILE", "ETCD_CERT");
    env_pair(o, &o->key_file, &o->key_pem, "ETCD_KEY_FILE", "ETCD_KEY");
    if (!o->user.p) {
        o->user = env(o, "ETCD_USERNAME");
        o->password = env(o, "ETCD_PASSWORD");
    }
}

int etcd_options_read(struct str rest, struct etcd_options *out, struct err *e) {
    struct str query = rest, list = str_cut(&query, '?'), srv = STR_NULL;
    int r = add_members(out, list, e);
    if (r == 0 && query.p) {
        r = read_query(out, query, &srv, e);
    }
    if (r < 0) {
        return r;
    }
    read_env(out);
    if (out->n_members == 0) {
        struct str listed = srv.p ? STR_NULL : env(out, "ETCD_ENDPOINTS");
        srv = srv.p ? srv : env(out, "ETCD_DISCOVERY_SRV");
        if (!srv.p) {
            r = add_members(out, listed.p ? listed : STR(ENDPOINT_USUAL), e);
        } else if (listed.p) {
            r = err_set(
                e, ERR_INVALID,
                "etcd: ETCD_ENDPOINTS and ETCD_DISCOVERY_SRV: only one of them can say where "
                "the members are");
        } else {
            r = etcd_srv_members(out, srv, e);
        }
    } else if (srv.p) {
        r = err_set(e, ERR_INVALID,
                    "etcd: members and srv=%.*s: only one of them can say where the "
                    "members are",
                    STR_FMT(srv));
    }
    if (r == 0 && out->password.p && !out->user.p) {
        r = err_set(e, ERR_INVALID, "etcd: a password without a user (ETCD_USERNAME)");
    }
    return r;
}
