/* Names to addresses and services: lookupIP, lookupIPV4, lookupIPV6, lookupSRV. A name that is not
 * found is an empty answer, never an error. */
#include "confd/funcs.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>

enum { ANSWERS_MAX = 256 };

static bool text_of(const struct addrinfo *ai, char out[INET6_ADDRSTRLEN]) {
    const void *addr = NULL;
    if (ai->ai_family == AF_INET) {
        addr = &((const struct sockaddr_in *)(const void *)ai->ai_addr)->sin_addr;
    } else if (ai->ai_family == AF_INET6) {
        addr = &((const struct sockaddr_in6 *)(const void *)ai->ai_addr)->sin6_addr;
    }
    return addr && inet_ntop(ai->ai_family, addr, out, INET6_ADDRSTRLEN);
}

/* family: 0 both, 4, 6. */
static int lookup(const struct tmpl_call *c, struct str name, int family, struct value *out) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = NULL;
    ((struct funcs *)c->ctx)->saw_world = true;
    *out = (struct value){.type = &VT_STRINGS};
    if (name.n == 0 || memchr(name.p, '\0', name.n) ||
        getaddrinfo(arena_cstr(c->arena, name), NULL, &hints, &all) != 0) {
        return 0;
    }
    struct str found[ANSWERS_MAX];
    size_t n = 0;
    for (const struct addrinfo *ai = all; ai && n < ANSWERS_MAX; ai = ai->ai_next) {
        char text[INET6_ADDRSTRLEN];
        if (text_of(ai, text) && (family == 0 || (ai->ai_family == AF_INET) == (family == 4))) {
            found[n++] = arena_dup(c->arena, str_c(text));
        }
    }
    freeaddrinfo(all);
    if (n > 1) {
        qsort(found, n, sizeof(*found), str_cmp_qsort);
    }
    *out = value_strings(c->arena, found, n);
    return 0;
}

static int fn_lookup_ip(FUNC_ARGS) {
    return lookup(c, value_to_str(&args[0]), 0, out);
}

static int fn_lookup_ipv4(FUNC_ARGS) {
    return lookup(c, value_to_str(&args[0]), 4, out);
}

static int fn_lookup_ipv6(FUNC_ARGS) {
    return lookup(c, value_to_str(&args[0]), 6, out);
}

static const struct vtype VT_UINT16 = {.kind = VK_UINT, .name = "uint16"};
static const struct vfield srv_fields[] = {
    {"Target", &VT_STRING}, {"Port", &VT_UINT16}, {"Priority", &VT_UINT16}, {"Weight", &VT_UINT16}};
static const struct vtype VT_SRV = {
    .kind = VK_RECORD, .name = "net.SRV", .fields = srv_fields, .n_fields = 4};
static const struct vtype VT_SRV_PTR = {.kind = VK_PTR, .name = "*net.SRV", .elem = &VT_SRV};
static const struct vtype VT_SRVS = {.kind = VK_LIST, .name = "[]*net.SRV", .elem = &VT_SRV_PTR};

static struct value u16(unsigned v) {
    return (struct value){.type = &VT_UINT16, .u = v};
}

struct srv {
    char text[NS_MAXDNAME + 32]; /* what the order goes by */
    struct value *rec;
};

static int by_text(const void *a, const void *b) {
    return strcmp(((const struct srv *)a)->text, ((const struct srv *)b)->text);
}

/* One SRV record of an answer. */
static bool read_srv(const struct tmpl_call *c, ns_msg *msg, const ns_rr *rr, struct srv *out) {
    char target[NS_MAXDNAME];
    const unsigned char *d = ns_rr_rdata(*rr);
    if (ns_rr_type(*rr) != ns_t_srv || ns_rr_rdlen(*rr) < 7 ||
        ns_name_uncompress(ns_msg_base(*msg), ns_msg_end(*msg), d + 6, target, sizeof(target)) <
            0) {
        return false;
    }
    unsigned prio = ns_get16(d), weight = ns_get16(d + 2), port = ns_get16(d + 4);
    snprintf(out->text, sizeof(out->text), "%s.%u%u%u", target, port, prio, weight);
    out->rec = arena_array(c->arena, struct value, 5);
    out->rec[1] = value_str(arena_printf(c->arena, "%s.", target));
    out->rec[2] = u16(port);
    out->rec[3] = u16(prio);
    out->rec[4] = u16(weight);
    out->rec[0] = value_record(&VT_SRV, out->rec + 1);
    return true;
}

static int fn_lookup_srv(FUNC_ARGS) {
    static unsigned char answer[65536];
    struct str service = value_to_str(&args[0]), proto = value_to_str(&args[1]),
               name = value_to_str(&args[2]);
    struct str full = service.n || proto.n
                          ? arena_printf(c->arena, "_%.*s._%.*s.%.*s", STR_FMT(service),
                                         STR_FMT(proto), STR_FMT(name))
                          : name;
    ((struct funcs *)c->ctx)->saw_world = true;
    *out = value_list_new(c->arena, &VT_SRVS, 0);
    if (full.n > NS_MAXDNAME || memchr(full.p, '\0', full.n)) {
        return 0;
    }
    ns_msg msg;
    int len = res_search(arena_cstr(c->arena, full), ns_c_in, ns_t_srv, answer, sizeof(answer));
    if (len < 0 || len > (int)sizeof(answer) || ns_initparse(answer, len, &msg) < 0) {
        return 0;
    }
    struct srv *found = arena_array(c->arena, struct srv, ANSWERS_MAX);
    size_t n_found = 0;
    for (int i = 0; i < ns_msg_count(msg, ns_s_an) && n_found < ANSWERS_MAX; i++) {
        ns_rr rr;
        if (ns_parserr(&msg, ns_s_an, i, &rr) == 0 && read_srv(c, &msg, &rr, &found[n_found])) {
            n_found++;
        }
    }
    qsort(found, n_found, sizeof(*found), by_text);
    *out = value_list_new(c->arena, &VT_SRVS, n_found);
    for (size_t i = 0; i < n_found; i++) {
        out->list->p[i] = value_ptr(&VT_SRV_PTR, found[i].rec);
    }
    return 0;
}

#define S &VT_STRING
static const struct tmpl_func table[] = {
    {"lookupIP", fn_lookup_ip, 1, false, {S}},
    {"lookupIPV4", fn_lookup_ipv4, 1, false, {S}},
    {"lookupIPV6", fn_lookup_ipv6, 1, false, {S}},
    {"lookupSRV", fn_lookup_srv, 3, false, {S, S, S}},
};
const struct func_part funcs_net = {table, ARRAY_LEN(table)};
