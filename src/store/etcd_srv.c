/* Members of a cluster from DNS: SRV records of _etcd-client-ssl._tcp.DOMAIN (https) and of
 * _etcd-client._tcp.DOMAIN (http), as etcd's own clients look them up. Read once, when the store is
 * opened. The answer is anybody's bytes: every length is checked by libresolv's reader and here. */
#include "store/etcd_rpc.h"

#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>

enum { ANSWER_MAX = 65536, SRV_FIXED = 6 };

struct found {
    unsigned priority, weight;
    struct str url;
};

static int found_cmp(const void *x, const void *y) {
    const struct found *a = x, *b = y;
    int c = (a->priority > b->priority) - (a->priority < b->priority);
    return c ? c : (a->weight < b->weight) - (a->weight > b->weight);
}

/* The members that one answer names, up to `room`. */
static size_t read_answer(const unsigned char *p, int n, const char *scheme, struct arena *a,
                          struct found *out, size_t room) {
    ns_msg m;
    size_t n_out = 0;
    if (ns_initparse(p, n, &m) < 0) {
        return 0;
    }
    for (int i = 0; i < ns_msg_count(m, ns_s_an) && n_out < room; i++) {
        ns_rr rr;
        char host[NS_MAXDNAME];
        if (ns_parserr(&m, ns_s_an, i, &rr) < 0 || ns_rr_type(rr) != ns_t_srv ||
            ns_rr_rdlen(rr) <= SRV_FIXED) {
            continue;
        }
        const unsigned char *d = ns_rr_rdata(rr);
        if (ns_name_uncompress(ns_msg_base(m), ns_msg_end(m), d + SRV_FIXED, host, sizeof(host)) <
                0 ||
            host[0] == '\0' || strcmp(host, ".") == 0) { /* "." : no such service */
            continue;
        }
        out[n_out++] = (struct found){
            .priority = ns_get16(d),
            .weight = ns_get16(d + 2),
            .url = arena_printf(a, "%s://%s:%u", scheme, host, (unsigned)ns_get16(d + 4))};
    }
    return n_out;
}

int etcd_srv_members(struct etcd_options *o, struct str domain, struct err *e) {
    static const struct {
        const char *service, *scheme;
    } kinds[] = {{"etcd-client-ssl", "https"}, {"etcd-client", "http"}};
    struct found found[ETCD_MEMBERS_MAX];
    size_t n = 0;
    struct __res_state res = {0};
    unsigned char *answer = malloc(ANSWER_MAX);
    mg_assert(answer != NULL);
    const char *why = "no such records";
    if (res_ninit(&res) < 0) {
        free(answer);
        return err_set(e, ERR_UNAVAILABLE, "etcd: /etc/resolv.conf can't be read");
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        char name[NS_MAXDNAME];
        (void)snprintf(name, sizeof(name), "_%s._tcp.%.*s", kinds[i].service, STR_FMT(domain));
        int len = res_nquery(&res, name, ns_c_in, ns_t_srv, answer, ANSWER_MAX);
        if (len > 0 && len <= ANSWER_MAX) {
            n +=
                read_answer(answer, len, kinds[i].scheme, &o->mem, found + n, ETCD_MEMBERS_MAX - n);
        } else if (res.res_h_errno == TRY_AGAIN) {
            why = "the name server doesn't answer";
        }
    }
    res_nclose(&res);
    free(answer);
    if (n == 0) {
        return err_set(
            e, ERR_UNAVAILABLE,
            "etcd: SRV records _etcd-client-ssl._tcp.%.*s and _etcd-client._tcp.%.*s: %s",
            STR_FMT(domain), STR_FMT(domain), why);
    }
    qsort(found, n, sizeof(found[0]), found_cmp);
    for (size_t i = 0; i < n; i++) {
        o->member[o->n_members++] = found[i].url;
    }
    return 0;
}
