/* A configuration as text, one line a thing. */
#include "bgp/conf.h"

static void print_ip(struct buf *b, const char *name, const struct ip46 *ip) {
    char text[IP_TEXT_MAX];
    if (ip->family) {
        buf_printf(b, " %s=%s", name, ip_text(ip, text));
    }
}

static void print_number(struct buf *b, const char *name, uint32_t v) {
    if (v) {
        buf_printf(b, " %s=%u", name, v);
    }
}

static void print_flag(struct buf *b, const char *name, bool v) {
    if (v) {
        buf_printf(b, " %s", name);
    }
}

static void print_text(struct buf *b, const char *name, struct str s) {
    if (s.n) {
        buf_printf(b, " %s=%.*s", name, STR_FMT(s));
    }
}

static void print_family(struct buf *b, const char *name, const struct family_config *f) {
    static const char *const PATHS[] = {"off", "receive", "send", "both"};
    if (!f->is_enabled) {
        return;
    }
    buf_printf(b, " %s(addPaths=%s", name, PATHS[f->addpath & 3]);
    print_number(b, "maxPrefixes", f->max_prefixes);
    print_number(b, "longLived", f->llgr_time_s);
    buf_putc(b, ')');
}

static void print_peer(struct buf *b, const struct conf_peer *p) {
    static const char *const TYPES[] = {"mesh", "node", "global", "workload"};
    static const char *const HOPS[] = {"", "self", "keep"};
    static const char *const RESTARTS[] = {"", "helper", "off"};
    const struct peer_config *c = &p->c;
    char text[IP_TEXT_MAX];
    buf_printf(b, "peer %.*s type=%s", STR_FMT(p->session), TYPES[p->type]);
    print_text(b, "of", p->resource);
    print_ip(b, "ip", &c->address);
    if (c->range.ip.family) {
        buf_printf(b, " range=%s", prefix_text(&c->range, text));
    }
    print_text(b, "interface", p->interface);
    if (c->port != BGP_PORT) {
        print_number(b, "port", c->port);
    }
    print_number(b, "as", c->as);
    print_number(b, "localAS", c->local_as);
    print_ip(b, "source", &c->local);
    print_flag(b, "passive", c->is_passive);
    print_flag(b, "client", c->is_rr_client);
    print_flag(b, "routeServerClient", c->is_rs_client);
    print_text(b, "nextHop", str_c(HOPS[c->next_hop]));
    print_text(b, "restart", str_c(RESTARTS[c->gr]));
    print_number(b, "restartTime", c->restart_time_s);
    if (c->hold_s == HOLD_NONE) {
        buf_puts(b, " hold=none");
    } else {
        print_number(b, "hold", c->hold_s);
    }
    print_number(b, "keepalive", c->keepalive_s);
    print_number(b, "connectRetry", c->connect_retry_s);
    print_number(b, "allowOwnAS", c->allow_own_as);
    if (c->gtsm) {
        print_number(b, "ttlSecurity", c->ttl);
    }
    print_ip(b, "reachableBy", &p->gateway);
    print_flag(b, "password", p->password.n > 0);
    for (size_t i = 0; i < p->ao.n; i++) {
        buf_printf(b, " tcpAO=%u/%u/%s", p->ao.p[i].send_id, p->ao.p[i].receive_id,
                   p->ao.p[i].algorithm);
    }
    print_flag(b, "extendedMessages", c->extended_message);
    print_flag(b, "extendedNextHop", c->extended_next_hop);
    if (c->role != BGP_ROLE_NONE) {
        buf_printf(b, " role=%u", c->role);
    }
    if (p->has_bfd) {
        buf_printf(b, " bfd=%u/%u/%u", p->bfd.min_rx_us, p->bfd.min_tx_us, p->bfd.multiplier);
    }
    print_text(b, "shutdown", c->shutdown_text);
    print_family(b, "IPv4", &c->family[BGP_V4]);
    print_family(b, "IPv6", &c->family[BGP_V6]);
    buf_putc(b, '\n');
}

void bgp_conf_print(const struct bgp_conf *c, struct buf *b) {
    static const char *const VERDICTS[] = {"program", "leave", "tunnel", "tunnel-across-subnets"};
    char text[IP_TEXT_MAX];
    uint32_t id = c->speaker.router_id, cluster = c->speaker.cluster_id;
    buf_printf(b, "speaker as=%u id=%u.%u.%u.%u", c->speaker.as, id >> 24, id >> 16 & 255,
               id >> 8 & 255, id & 255);
    if (cluster) {
        buf_printf(b, " cluster=%u.%u.%u.%u", cluster >> 24, cluster >> 16 & 255,
                   cluster >> 8 & 255, cluster & 255);
    }
    buf_printf(b, " port=%u%s\n", c->listen_port, c->bind_node_ip ? " bind=NodeIP" : "");
    for (size_t i = 0; i < c->n_peers; i++) {
        print_peer(b, &c->peers[i]);
    }
    for (size_t i = 0; i < c->n_routes; i++) {
        buf_printf(b, "announce %s (%.*s)\n", prefix_text(&c->routes[i].prefix, text),
                   STR_FMT(c->routes[i].owner));
    }
    for (size_t i = 0; i < c->n_kernel; i++) {
        buf_printf(b, "kernel %s %s (%.*s)\n", VERDICTS[c->kernel[i].verdict],
                   prefix_text(&c->kernel[i].cidr, text), STR_FMT(c->kernel[i].owner));
    }
    for (size_t i = 0; i < c->n_no_hops; i++) {
        buf_printf(b, "kernel leave next hop %s (WireGuard)\n", ip_text(&c->no_hops[i], text));
    }
    bool has_local = c->local_peering[BGP_V4].family || c->local_peering[BGP_V6].family;
    for (size_t i = 0; has_local && i < c->n_local_links; i++) {
        buf_printf(b, "local %.*s", STR_FMT(c->local_links[i]));
        print_ip(b, "ip", &c->local_peering[BGP_V4]);
        print_ip(b, "ip6", &c->local_peering[BGP_V6]);
        buf_putc(b, '\n');
    }
    for (size_t i = 0; i < c->n_stations; i++) {
        const struct conf_station *s = &c->stations[i];
        buf_printf(b, "bmp %s port=%u statistics=%us\n", ip_text(&s->address, text), s->port,
                   s->statistics_s);
    }
    if (c->mrt.directory.n) {
        buf_printf(b, "mrt %.*s rotate=%us table=%us keep=%u\n", STR_FMT(c->mrt.directory),
                   c->mrt.rotate_s, c->mrt.table_s, c->mrt.keep);
    }
    for (size_t i = 0; i < c->n_problems; i++) {
        buf_printf(b, "problem %.*s\n", STR_FMT(c->problems[i]));
    }
}
