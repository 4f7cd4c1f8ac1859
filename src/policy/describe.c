#include "policy/describe.h"

#include <netinet/in.h>

static void put_protocol(struct buf *b, int protocol) {
    static const struct {
        int number;
        const char *name;
    } names[] = {{IPPROTO_TCP, "TCP"},   {IPPROTO_UDP, "UDP"},       {IPPROTO_SCTP, "SCTP"},
                 {IPPROTO_ICMP, "ICMP"}, {IPPROTO_ICMPV6, "ICMPv6"}, {IPPROTO_UDPLITE, "UDPLite"}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (names[i].number == protocol) {
            buf_puts(b, names[i].name);
            return;
        }
    }
    buf_printf(b, "protocol %d", protocol);
}

/* The set's uid tells what it is of; its text is a selector, a service or a port's name. */
static void put_set(const struct mirror *m, struct buf *b, uint32_t id) {
    size_t n;
    const char *text = mirror_set_text(m, id, &n);
    buf_printf(b, "[%s] (%zu now)", text, n);
}

static void put_nets(struct buf *b, const struct prefix *p, size_t n) {
    char text[IP_TEXT_MAX];
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s%s", i ? ", " : "", prefix_text(&p[i], text));
    }
}

static void put_ports(const struct mirror *m, struct buf *b, const struct calc_ports *p, size_t n,
                      const uint32_t *sets, size_t n_sets) {
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s%u", i ? ", " : "", p[i].min);
        if (p[i].max != p[i].min) {
            buf_printf(b, "-%u", p[i].max);
        }
    }
    for (size_t i = 0; i < n_sets; i++) {
        buf_puts(b, n || i ? ", " : "");
        put_set(m, b, sets[i]);
    }
}

static void put_side(const struct mirror *m, struct buf *b, const char *word,
                     const struct calc_side *s) {
    const char *glue = word;
    if (s->set) {
        buf_printf(b, " %s ", glue);
        put_set(m, b, s->set);
        glue = "and";
    }
    if (s->service_set) {
        buf_printf(b, " %s service ", glue);
        put_set(m, b, s->service_set);
        glue = "and";
    }
    if (s->n_nets) {
        buf_printf(b, " %s ", glue);
        put_nets(b, s->nets, s->n_nets);
        glue = "and";
    }
    if (s->n_not_nets) {
        buf_printf(b, " %s not ", glue);
        put_nets(b, s->not_nets, s->n_not_nets);
        glue = "and";
    }
    if (s->not_set) {
        buf_printf(b, " %s not ", glue);
        put_set(m, b, s->not_set);
    }
    const char *which = word[0] == 'f' ? "source port" : "port";
    if (s->n_ports || s->n_port_sets) {
        buf_printf(b, ", %s ", which);
        put_ports(m, b, s->ports, s->n_ports, s->port_sets, s->n_port_sets);
    }
    if (s->n_not_ports || s->n_not_port_sets) {
        buf_printf(b, ", %s not ", which);
        put_ports(m, b, s->not_ports, s->n_not_ports, s->not_port_sets, s->n_not_port_sets);
    }
}

static void put_icmp(struct buf *b, const char *word, int type, int code) {
    if (type >= 0) {
        buf_printf(b, "%stype %d", word, type);
        if (code >= 0) {
            buf_printf(b, " code %d", code);
        }
    }
}

void rule_describe(const struct mirror *m, const struct calc_rule *r, struct buf *out) {
    static const char *const verbs[] = {[RULE_ALLOW] = "allows",
                                        [RULE_DENY] = "denies",
                                        [RULE_PASS] = "passes on to the next tier",
                                        [RULE_LOG] = "logs"};
    buf_puts(out, verbs[r->action]);
    buf_putc(out, ' ');
    if (r->never) {
        buf_puts(out, "nothing: it has errors, or asks for both families at once");
        return;
    }
    if (r->families != (CALC_V4 | CALC_V6)) {
        buf_puts(out, r->families == CALC_V4 ? "IPv4 " : "IPv6 ");
    }
    if (r->protocol >= 0) {
        put_protocol(out, r->protocol);
    } else if (r->not_protocol >= 0) {
        buf_puts(out, "anything but ");
        put_protocol(out, r->not_protocol);
    } else {
        buf_puts(out, "everything");
    }
    put_icmp(out, " ", r->icmp_type, r->icmp_code);
    put_icmp(out, ", not ICMP ", r->not_icmp_type, r->not_icmp_code);
    put_side(m, out, "from", &r->src);
    put_side(m, out, "to", &r->dst);
}
