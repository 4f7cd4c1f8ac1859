/* What peers sign their segments by, on the sockets that listen and on living connections: MD5 (RFC
 * 2385) and TCP-AO (RFC 5925). The kernel refuses what is not signed with a peer's key. */
#include "bgp/proc_int.h"

static int add_key(int fd, const struct key *key, const struct conf_peer *c) {
    if (!c->ao.n) {
        return sock_md5(fd, &key->peers, key->ifindex, c->password);
    }
    return sock_ao_set(fd, &key->peers, &c->ao, false);
}

static int del_key(int fd, const struct key *key) {
    int r = key->n_ids ? 0 : sock_md5(fd, &key->peers, key->ifindex, STR_NULL);
    for (size_t i = 0; i < key->n_ids; i++) {
        int one = sock_ao_unset(fd, &key->peers, key->ids[2 * i], key->ids[2 * i + 1]);
        r = r ? r : one;
    }
    return r;
}

static struct key key_of(const struct conf_peer *c) {
    struct key key = {.peers = c->c.range,
                      .ifindex = (int)c->c.ifindex,
                      .sum = c->ao.n ? ao_keys_sum(&c->ao) : hash_str(c->password),
                      .n_ids = c->ao.n};
    if (c->c.address.family) {
        key.peers = (struct prefix){c->c.address, (uint8_t)ip_bits(&c->c.address)};
    }
    for (size_t i = 0; i < c->ao.n; i++) {
        key.ids[2 * i] = c->ao.p[i].send_id;
        key.ids[2 * i + 1] = c->ao.p[i].receive_id;
    }
    return key;
}

static const struct key *find(const struct key *keys, size_t n, const struct key *k) {
    for (size_t i = 0; i < n; i++) {
        if (prefix_eq(&keys[i].peers, &k->peers)) {
            return &keys[i];
        }
    }
    return NULL;
}

static int listening(const struct bgp_proc *p, const struct key *k) {
    return p->listeners[k->peers.ip.family == IP_V6].fd;
}

/* A key of MD5 is replaced by the next one; those of TCP-AO stand beside each other. */
static bool is_in_place(const struct key *had, const struct key *k) {
    return had && !had->n_ids && !k->n_ids;
}

void proc_keys_listen(struct bgp_proc *p, bool all) {
    VEC(struct key) now = {0};
    size_t n_had = all ? 0 : p->keys.n;
    for (size_t i = 0; i < p->conf->n_peers; i++) {
        const struct conf_peer *c = &p->conf->peers[i];
        if (c->password.n || c->ao.n) {
            vec_push(&now, key_of(c));
        }
    }
    for (size_t j = 0; j < n_had; j++) {
        const struct key *had = &p->keys.p[j], *k = find(now.p, now.n, had);
        int fd = listening(p, had);
        if (fd >= 0 && (!k || (k->sum != had->sum && !is_in_place(had, k)))) {
            int r = del_key(fd, had);
            if (r < 0) { /* nobody is accepted from there anyhow */
                LOG_D("bgp", "password_left", "error=%s", err_name(r));
            }
        }
    }
    size_t at = 0;
    for (size_t i = 0; i < p->conf->n_peers; i++) {
        const struct conf_peer *c = &p->conf->peers[i];
        if (!c->password.n && !c->ao.n) {
            continue;
        }
        struct key *k = &now.p[at++];
        const struct key *had = find(p->keys.p, n_had, k);
        int fd = listening(p, k);
        int r = fd < 0 || (had && had->sum == k->sum) ? 0 : add_key(fd, k, c);
        if (r < 0) {
            LOG_E("bgp", "password_failed", "peer=%.*s error=%s", STR_FMT(c->session),
                  r == -ENOPROTOOPT ? "\"the kernel has no TCP-AO (CONFIG_TCP_AO)\"" : err_name(r));
        }
    }
    vec_fini(&p->keys);
    p->keys.p = now.p;
    p->keys.n = now.n;
    p->keys.cap = now.cap;
}

void proc_keys_change(struct bgp_proc *p, uint16_t peer, const struct ao_keys *old,
                      const struct ao_keys *now) {
    const struct ip46 *address = &speaker_peer_config(p->speaker, peer)->address;
    struct link_conn **c;
    uint32_t id;
    int r = 0;
    if (ao_keys_sum(old) == ao_keys_sum(now)) {
        return;
    }
    for (size_t i = 0; conn_map_next(&p->conns, &i, &id, &c);) {
        if (r == 0 && speaker_conn_peer(p->speaker, id) == peer) {
            r = sock_ao_change((*c)->fd, address, old, now);
        }
    }
    if (r < 0) {
        speaker_peer_reset(p->speaker, peer, false, STR("keys of TCP-AO changed"), proc_now(p));
    }
}
