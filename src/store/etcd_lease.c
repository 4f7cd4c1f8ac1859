/* Leases, which of our stores only etcd has. See lease.h. */
#include "store/lease.h"

#include "store/etcd_int.h"

bool store_has_leases(const struct store *s) {
    return s->drv == &store_etcd;
}

static int has_leases(struct store *s, struct err *e) {
    return store_has_leases(s)
               ? 0
               : err_set(e, -ENOTSUP, "the datastore %s: has no leases", s->drv->scheme);
}

static int run(struct store *s, const char *path, const ProtobufCMessage *m,
               const ProtobufCMessageDescriptor *d, struct arena *a, void *answer_out,
               struct err *e) {
    struct etcd_store *t = (struct etcd_store *)s;
    struct etcd_request r = {path, m, true, 0};
    return etcd_run(t->c, t->l, &r, d, a, answer_out, NULL, e);
}

int store_lease_grant(struct store *s, int64_t ttl_s, int64_t *id_out, int64_t *ttl_out_s,
                      struct err *e) {
    struct arena a = {0};
    Etcd__LeaseGrantRequest q = ETCD__LEASE_GRANT_REQUEST__INIT;
    Etcd__LeaseGrantResponse *answer = NULL;
    q.ttl = ttl_s;
    int r = has_leases(s, e);
    if (r == 0) {
        r = run(s, "/etcdserverpb.Lease/LeaseGrant", &q.base,
                &etcd__lease_grant_response__descriptor, &a, (void *)&answer, e);
    }
    if (r == 0 && (answer->id == 0 || answer->ttl <= 0)) {
        r = err_set(e, -EPROTO, "etcd: a lease without an id or a time");
    }
    if (r == 0) {
        *id_out = answer->id;
        if (ttl_out_s) {
            *ttl_out_s = answer->ttl;
        }
    }
    arena_fini(&a);
    return r;
}

/* A stream of requests and answers there; one of each is a call like the others. */
int store_lease_keep(struct store *s, int64_t id, int64_t *ttl_out_s, struct err *e) {
    struct arena a = {0};
    Etcd__LeaseKeepAliveRequest q = ETCD__LEASE_KEEP_ALIVE_REQUEST__INIT;
    Etcd__LeaseKeepAliveResponse *answer = NULL;
    q.id = id;
    int r = has_leases(s, e);
    if (r == 0) {
        struct etcd_store *t = (struct etcd_store *)s;
        struct etcd_request keep = {"/etcdserverpb.Lease/LeaseKeepAlive", &q.base, false, 0};
        r = etcd_run(t->c, t->l, &keep, &etcd__lease_keep_alive_response__descriptor, &a,
                     (void *)&answer, NULL, e);
    }
    if (r == 0 && answer->ttl <= 0) {
        r = err_set(e, ERR_NOT_FOUND, "etcd: the lease has run out");
    }
    if (r == 0 && ttl_out_s) {
        *ttl_out_s = answer->ttl;
    }
    arena_fini(&a);
    return r;
}

int store_lease_put(struct store *s, struct store_key k, struct str value, uint64_t expect,
                    int64_t id, uint64_t *revision_out, struct err *e) {
    int r = has_leases(s, e);
    return r < 0 ? r
                 : etcd_put_lease((struct etcd_store *)s, k, value, expect, id, revision_out, e);
}

int store_lease_revoke(struct store *s, int64_t id, struct err *e) {
    struct arena a = {0};
    Etcd__LeaseRevokeRequest q = ETCD__LEASE_REVOKE_REQUEST__INIT;
    Etcd__LeaseRevokeResponse *answer = NULL;
    q.id = id;
    int r = has_leases(s, e);
    if (r == 0) {
        r = run(s, "/etcdserverpb.Lease/LeaseRevoke", &q.base,
                &etcd__lease_revoke_response__descriptor, &a, (void *)&answer, e);
    }
    arena_fini(&a);
    return r;
}
