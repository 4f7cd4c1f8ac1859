/* See autodetect.h. */
#include "node/autodetect.h"

#include "base/fd.h"

#include <netdb.h>
#include <netinet/in.h>
#include <regex.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* Interfaces that first-found passes over: names that begin so. */
static const char *const EXCLUDED[] = {"docker",
                                       "cbr",
                                       "dummy",
                                       "podman",
                                       "virbr",
                                       "lxcbr",
                                       "veth",
                                       "lo",
                                       "br-",
                                       "cali",
                                       "tunl",
                                       "flannel",
                                       "kube-ipvs",
                                       "cni",
                                       "vxlan.calico",
                                       "vxlan-v6.calico",
                                       "wireguard.cali",
                                       "wg-v6.cali",
                                       "nodelocaldns",
                                       "margay"};

struct detecting {
    enum ip_family family;
    const struct host_iface *v;
    size_t n;
    const struct ip46 *internal_ip;
    struct arena *a;
    struct detect_report *report;
    struct err *e;
};

static void reject(struct detecting *d, const struct host_iface *f, const char *why) {
    struct detect_report *r = d->report;
    if (!r || r->n == DETECT_MAX_REJECTED) {
        return;
    }
    if (!r->p) {
        r->p = arena_array(d->a, struct detect_rejected, DETECT_MAX_REJECTED);
    }
    r->p[r->n++] = (struct detect_rejected){arena_dup(d->a, str_c(f->name)), f->addr, str_c(why)};
}

/* Global unicast, not link-local. */
static bool is_usable(const struct ip46 *ip) {
    const uint8_t *b = ip->b;
    if (ip->family == IP_V4) {
        return b[0] != 0 && b[0] != 127 && b[0] < 224 && !(b[0] == 169 && b[1] == 254);
    }
    static const struct ip46 loopback = {IP_V6, {[15] = 1}};
    static const struct ip46 none = {IP_V6, {0}};
    return b[0] != 0xff && !ip_is_link_local(ip) && !ip_eq(ip, &loopback) && !ip_eq(ip, &none);
}

static const char *why_not(const struct detecting *d, const struct host_iface *f) {
    if (f->addr.ip.family != d->family) {
        return "other family";
    }
    if (!f->is_up) {
        return "the interface is down";
    }
    return is_usable(&f->addr.ip) ? NULL : "not a global unicast address";
}

static bool is_excluded(const char *name) {
    for (size_t i = 0; i < ARRAY_LEN(EXCLUDED); i++) {
        if (strncmp(name, EXCLUDED[i], strlen(EXCLUDED[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* One expression of a list; ERR_INVALID says which. */
static int compile(struct detecting *d, struct str text, regex_t *out) {
    int r = regcomp(out, arena_cstr(d->a, text), REG_EXTENDED | REG_NOSUB);
    if (r != 0) {
        char why[128];
        (void)regerror(r, out, why, sizeof(why));
        return err_set(d->e, ERR_INVALID, "autodetection: \"%.*s\" is not a regular expression: %s",
                       STR_FMT(text), why);
    }
    return 0;
}

static int first_found(struct detecting *d, struct str skip, struct prefix *out) {
    struct str rest = skip;
    regex_t skipped[16];
    size_t n_skipped = 0;
    int r = 0;
    while (rest.n && r == 0) {
        struct str one = str_cut(&rest, ',');
        r = n_skipped == ARRAY_LEN(skipped)
                ? err_set(d->e, ERR_INVALID, "autodetection: more than 16 expressions")
                : compile(d, one, &skipped[n_skipped]);
        n_skipped += r == 0;
    }
    int found = ERR_NOT_FOUND;
    for (size_t i = 0; r == 0 && i < d->n && found < 0; i++) {
        const struct host_iface *f = &d->v[i];
        const char *why = why_not(d, f);
        why = why ? why : is_excluded(f->name) ? "interfaces of that name are passed over" : NULL;
        for (size_t k = 0; k < n_skipped && !why; k++) {
            why = regexec(&skipped[k], f->name, 0, NULL, 0) == 0 ? "named by skip-interface" : NULL;
        }
        if (why) {
            reject(d, f, why);
        } else {
            *out = f->addr;
            found = 0;
        }
    }
    for (size_t k = 0; k < n_skipped; k++) {
        regfree(&skipped[k]);
    }
    return r < 0 ? r : found;
}

static int by_interface(struct detecting *d, struct str list, struct prefix *out) {
    for (struct str rest = list; rest.n;) {
        regex_t re;
        int r = compile(d, str_cut(&rest, ','), &re);
        if (r < 0) {
            return r;
        }
        for (size_t i = 0; i < d->n; i++) {
            const struct host_iface *f = &d->v[i];
            bool is_named = regexec(&re, f->name, 0, NULL, 0) == 0;
            const char *why = is_named ? why_not(d, f) : "not named by interface=";
            if (!why) {
                regfree(&re);
                *out = f->addr;
                return 0;
            }
            reject(d, f, why);
        }
        regfree(&re);
    }
    return ERR_NOT_FOUND;
}

static int by_cidr(struct detecting *d, struct str list, struct prefix *out) {
    for (struct str rest = list; rest.n;) {
        struct str one = str_cut(&rest, ',');
        struct prefix net;
        if (prefix_parse(one, &net) < 0) {
            return err_set(d->e, ERR_INVALID, "autodetection: \"%.*s\" is not a CIDR",
                           STR_FMT(one));
        }
        for (size_t i = 0; i < d->n; i++) {
            const struct host_iface *f = &d->v[i];
            const char *why = why_not(d, f);
            why = why ? why : prefix_has_ip(&net, &f->addr.ip) ? NULL : "outside of cidr=";
            if (!why) {
                *out = f->addr;
                return 0;
            }
            reject(d, f, why);
        }
    }
    return ERR_NOT_FOUND;
}

/* The address with its interface's mask; whole if no interface has it. */
static int with_mask(struct detecting *d, const struct ip46 *ip, struct prefix *out) {
    for (size_t i = 0; i < d->n; i++) {
        if (ip_eq(&d->v[i].addr.ip, ip)) {
            *out = d->v[i].addr;
            return 0;
        }
    }
    return ERR_NOT_FOUND;
}

/* The source address that the kernel takes towards dest. */
static int source_for(const struct ip46 *dest, struct ip46 *out) {
    bool is_v4 = dest->family == IP_V4;
    struct sockaddr_in s4 = {.sin_family = AF_INET, .sin_port = htons(80)};
    struct sockaddr_in6 s6 = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
    struct sockaddr *to = is_v4 ? (struct sockaddr *)&s4 : (struct sockaddr *)&s6;
    socklen_t n = is_v4 ? sizeof(s4) : sizeof(s6);
    memcpy(is_v4 ? (void *)&s4.sin_addr : (void *)&s6.sin6_addr, dest->b, ip_bytes(dest));
    MG_CLEANUP(fd_close) int fd = socket(to->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, to, n) < 0 || getsockname(fd, to, &n) < 0) {
        return -errno;
    }
    *out = (struct ip46){.family = dest->family};
    memcpy(out->b, is_v4 ? (void *)&s4.sin_addr : (void *)&s6.sin6_addr, ip_bytes(out));
    return 0;
}

/* A name's first address of the family. Blocks while it is asked for: this runs on a worker. */
static int resolve(struct detecting *d, struct str name, struct ip46 *out) {
    struct addrinfo hints = {.ai_family = d->family == IP_V4 ? AF_INET : AF_INET6,
                             .ai_socktype = SOCK_DGRAM},
                    *got = NULL;
    int r = getaddrinfo(arena_cstr(d->a, name), NULL, &hints, &got);
    if (r != 0) {
        return err_set(d->e, ERR_NOT_FOUND, "autodetection: can-reach=%.*s: %s", STR_FMT(name),
                       gai_strerror(r));
    }
    *out = (struct ip46){.family = d->family};
    const void *from =
        d->family == IP_V4
            ? (const void *)&((const struct sockaddr_in *)(const void *)got->ai_addr)->sin_addr
            : (const void *)&((const struct sockaddr_in6 *)(const void *)got->ai_addr)->sin6_addr;
    memcpy(out->b, from, ip_bytes(out));
    freeaddrinfo(got);
    return 0;
}

static int by_reach(struct detecting *d, struct str dest, struct prefix *out) {
    struct ip46 to, src;
    int r = ip_parse(dest, &to) < 0 ? resolve(d, dest, &to) : 0;
    if (r < 0) {
        return r;
    }
    if (to.family != d->family) {
        return ERR_NOT_FOUND;
    }
    r = source_for(&to, &src);
    if (r < 0) {
        return err_set(d->e, ERR_NOT_FOUND, "autodetection: can-reach=%.*s: %s", STR_FMT(dest),
                       strerror(-r));
    }
    return with_mask(d, &src, out);
}

int detect_address(struct str method, enum ip_family family, const struct host_iface *v, size_t n,
                   const struct ip46 *internal_ip, struct arena *a, struct prefix *out,
                   struct detect_report *report, struct err *e) {
    struct err own = {0};
    struct detecting d = {family, v, n, internal_ip, a, report, &own};
    struct str list = method, name = str_cut(&list, '=');
    int r;
    if (name.n == 0 || str_is(name, "first-found")) {
        r = first_found(&d, STR(""), out);
    } else if (str_is(name, "skip-interface") && list.n) {
        r = first_found(&d, list, out);
    } else if (str_is(name, "interface") && list.n) {
        r = by_interface(&d, list, out);
    } else if (str_is(name, "cidr") && list.n) {
        r = by_cidr(&d, list, out);
    } else if (str_is(name, "can-reach") && list.n) {
        r = by_reach(&d, list, out);
    } else if (str_is(name, "kubernetes-internal-ip")) {
        r = internal_ip && internal_ip->family == family ? with_mask(&d, internal_ip, out)
                                                         : ERR_NOT_FOUND;
    } else {
        return err_set(e, ERR_INVALID,
                       "autodetection method \"%.*s\": allowed are first-found, interface=RE, "
                       "skip-interface=RE, cidr=CIDR, can-reach=DEST, kubernetes-internal-ip",
                       STR_FMT(method));
    }
    if (r == ERR_NOT_FOUND && !own.msg[0]) {
        return err_set(e, r,
                       "no IPv%d address of this host fits the method \"%.*s\" (%zu looked at)",
                       family, STR_FMT(method.n ? method : STR("first-found")), n);
    }
    return r < 0 ? err_set(e, r, "%s", own.msg) : 0;
}
