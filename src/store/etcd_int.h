/* What the files of the etcd driver share; nobody else includes it, but for tests.
 *
 *   etcd.c         the driver's table; calls that block, on a loop of their own
 *   etcd_follow.c  snapshot and watch on the caller's loop
 *   etcd_page.c    reading a range in pages of one revision
 *   etcd_lease.c   items that vanish with their writer
 *   etcd_compact.c forgetting old revisions
 *   etcd_rpc.c     calls to the cluster: members, logins, deadlines
 *   etcd_grpc.c    frames and statuses
 *   etcd_map.c     Calico's keys and values
 *   etcd_srv.c     members from DNS
 *   etcd_url.c     options */
#pragma once

#include "store/driver.h"
#include "store/etcd_map.h"
#include "store/etcd_rpc.h"

struct etcd_store {
    struct store base;
    struct etcd_options o;
    struct loop *l; /* of the calls that block */
    struct etcd_cluster *c;
    uint64_t revision; /* newest that was seen */
    atomic_bool is_interrupted;
    int wake_fd; /* eventfd: ends the loop's sleep */
    struct loop_poll *wake;
};

#define ETCD_RANGE "/etcdserverpb.KV/Range"

/* One revision of a range, a page after the other. */
struct etcd_pager {
    struct etcd_range range;
    struct buf from;   /* where the next page begins */
    uint64_t revision; /* 0: the newest; set by the first page */
    int64_t limit;     /* keys of a page */
    bool is_done;
};
void etcd_pager_init(struct etcd_pager *p, struct etcd_range range, uint64_t revision);
void etcd_pager_fini(struct etcd_pager *p);
void etcd_pager_ask(const struct etcd_pager *p, Etcd__RangeRequest *out);
/* After the items of a page were looked at. ERR_CORRUPT: keys don't go forward. */
MG_NODISCARD int etcd_pager_took(struct etcd_pager *p, const Etcd__RangeResponse *r);
/* The page was too large to be taken: false when it was of one key. */
bool etcd_pager_smaller(struct etcd_pager *p);

/* A stored pair as an item of the space, strings in the arena or in kv. False: none of ours. */
bool etcd_item_of(struct str space, const Etcd__KeyValue *kv, struct arena *a,
                  struct store_item *out);

/* etcd.c: store_put, bound to a lease if that is not 0. */
int etcd_put_lease(struct etcd_store *t, struct store_key k, struct str value, uint64_t expect,
                   int64_t lease, uint64_t *revision_out, struct err *e);

/* etcd_follow.c */
int etcd_follow(struct store *s, struct loop *l, struct store_key prefix,
                const struct store_follow_ops *ops, void *arg, struct store_follow **out,
                struct err *e);
void etcd_follow_ask(struct store_follow *base);
void etcd_follow_free(struct store_follow *base);
int etcd_watch(struct store *s, struct loop *l, struct store_key prefix, uint64_t from_revision,
               const struct store_watch_ops *ops, void *arg, struct store_watch **out,
               struct err *e);
void etcd_watch_free(struct store_watch *base);
