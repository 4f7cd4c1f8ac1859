/* The engine as a filter, for the property test: a JSON document a line on standard input.
 *
 *   {"put": OBJECT}        an object as a datastore holds it; {"delete": OBJECT}: it has gone
 *   {"packets": [[src, dst, protocol, sport, dport, icmpType, icmpCode], ...]}
 *                          prints a line: for each packet the verdicts of the sender's egress and
 * of the receiver's ingress, "AA AD ..."; A too where no endpoint is here
 *   {"why": PACKET}        prints which rule decided, egress and ingress
 *   {"check": true}        prints "ok" if all that was told in steps is what a fresh calculation
 *                          makes of the objects, else both in JSON
 *
 * An object with errors ends it, unless it is called with --lenient: then "put" prints "valid", or
 * the first error's field and message. The node is named n1, or as --node says. */
#include "base/vec.h"
#include "policy/verdict.h"

#include <stdio.h>
#include <stdlib.h>

struct held {
    char *key, *text;
};

static bool is_lenient;
static const char *node_name = "n1";

struct engine {
    struct mirror *mirror;
    struct calc *calc;
    VEC(struct held) objects;
};

static struct jnode *parse(struct str text, struct arena *a) {
    struct jnode *doc = NULL;
    struct err e;
    struct jlimits lim = json_limits_default;
    if (json_parse(text, &lim, a, &doc, &e) < 0) {
        fprintf(stderr, "%.*s: %s\n", STR_FMT(text), e.msg);
        exit(2);
    }
    return doc;
}

static struct str tell(struct calc *c, struct jnode *doc, bool is_there, struct arena *a) {
    struct object o;
    struct model_errors errs = {.a = a};
    if (object_read(doc, MODEL_STORE, STR_NULL, a, &o, &errs) < 0) {
        fprintf(is_lenient ? stdout : stderr, "not valid: %.*s: %.*s\n", STR_FMT(errs.p[0].path),
                STR_FMT(errs.p[0].message));
        if (!is_lenient) {
            exit(2);
        }
    } else if (is_lenient && is_there) {
        puts("valid");
    }
    fflush(stdout);
    calc_object(c, o.kind, o.meta.ns, o.meta.name, is_there ? &o : NULL);
    return arena_printf(a, "%s/%.*s/%.*s", kind_store_name(o.kind), STR_FMT(o.meta.ns),
                        STR_FMT(o.meta.name));
}

static void hold(struct engine *x, struct str key, const char *text) {
    for (size_t i = 0; i < x->objects.n; i++) {
        if (str_is(key, x->objects.p[i].key)) {
            free(x->objects.p[i].key);
            free(x->objects.p[i].text);
            vec_remove(&x->objects, i);
            break;
        }
    }
    if (text) {
        struct held h = {strndup(key.p, key.n), strdup(text)};
        vec_push(&x->objects, h);
    }
}

static void read_ip(const struct jnode *n, struct ip46 *out) {
    if (!n || ip_parse(n->s, out) < 0) {
        fprintf(stderr, "no address\n");
        exit(2);
    }
}

static struct packet read_packet(const struct jnode *n) {
    struct packet p = {.protocol = 0};
    const struct jnode *v = n->child;
    read_ip(v, &p.src);
    v = v->next;
    read_ip(v, &p.dst);
    int64_t numbers[5] = {0};
    for (size_t i = 0; i < 5 && (v = v->next); i++) {
        numbers[i] = v->i;
    }
    p.protocol = (uint8_t)numbers[0];
    p.sport = (uint16_t)numbers[1];
    p.dport = (uint16_t)numbers[2];
    p.icmp_type = (uint8_t)numbers[3];
    p.icmp_code = (uint8_t)numbers[4];
    return p;
}

static void judge(const struct engine *x, const struct jnode *list) {
    jnode_each (n, list) {
        struct packet p = read_packet(n);
        struct verdict_why why;
        for (int d = CALC_EGRESS; d >= CALC_INGRESS; d--) {
            putchar(verdict_of(x->mirror, (enum calc_dir)d, &p, &why) == VERDICT_ALLOW ? 'A' : 'D');
        }
        putchar(' ');
    }
    putchar('\n');
}

static void explain(const struct engine *x, const struct jnode *n) {
    struct packet p = read_packet(n);
    for (int d = CALC_EGRESS; d >= CALC_INGRESS; d--) {
        struct verdict_why why;
        enum verdict v = verdict_of(x->mirror, (enum calc_dir)d, &p, &why);
        printf("%s %s ", d == CALC_EGRESS ? "egress" : "ingress",
               v == VERDICT_ALLOW ? "allow" : "deny");
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
        switch (why.what) {
        case WHY_RULE:
            calc_rule_name(why.policy, why.rule->index, &b);
            printf("%.*s; ", STR_FMT(buf_view(&b)));
            break;
        case WHY_END_OF_TIER:
            printf("end of tier %.*s; ", STR_FMT(why.tier));
            break;
        case WHY_NO_PROFILE:
            printf("no profile; ");
            break;
        case WHY_NOT_AN_ENDPOINT:
            printf("not here; ");
            break;
        }
    }
    putchar('\n');
}

static void check(const struct engine *x) {
    struct mirror *m = mirror_new();
    struct calc *c = calc_new(str_c(node_name), &mirror_calc_ops, m);
    for (size_t i = x->objects.n; i-- > 0;) { /* in another order */
        struct arena a = {0};
        (void)tell(c, parse(str_c(x->objects.p[i].text), &a), true, &a);
        arena_fini(&a);
    }
    calc_flush(c);
    struct buf in_steps = BUF_INIT(256U << 20), fresh = BUF_INIT(256U << 20);
    mirror_print(x->mirror, &in_steps);
    mirror_print(m, &fresh);
    if (str_eq(buf_view(&in_steps), buf_view(&fresh))) {
        puts("ok");
    } else {
        struct buf b = BUF_INIT(1U << 30);
        buf_puts(&b, "{\"inSteps\":");
        json_quote(&b, buf_view(&in_steps));
        buf_puts(&b, ",\"fresh\":");
        json_quote(&b, buf_view(&fresh));
        buf_putc(&b, '}');
        puts(buf_cstr(&b));
        buf_fini(&b);
    }
    buf_fini(&in_steps);
    buf_fini(&fresh);
    calc_free(c);
    mirror_free(m);
}

static void take(struct engine *x, struct str line) {
    struct arena a = {0};
    struct jnode *q = parse(line, &a), *n;
    if ((n = jnode_getc(q, "put"))) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
        json_write(&b, n, 0);
        hold(x, tell(x->calc, n, true, &a), buf_cstr(&b));
    } else if ((n = jnode_getc(q, "delete"))) {
        hold(x, tell(x->calc, n, false, &a), NULL);
    } else {
        calc_flush(x->calc);
        if ((n = jnode_getc(q, "packets"))) {
            judge(x, n);
        } else if ((n = jnode_getc(q, "why"))) {
            explain(x, n);
        } else {
            check(x);
        }
        fflush(stdout);
    }
    arena_fini(&a);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        is_lenient |= strcmp(argv[i], "--lenient") == 0;
        node_name = strcmp(argv[i], "--node") == 0 && i + 1 < argc ? argv[++i] : node_name;
    }
    struct engine x = {.mirror = mirror_new()};
    x.calc = calc_new(str_c(node_name), &mirror_calc_ops, x.mirror);
    char *line = NULL;
    size_t cap = 0;
    for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
        take(&x, str_trim(str_n(line, (size_t)n)));
    }
    free(line);
    while (x.objects.n) {
        hold(&x, str_c(x.objects.p[0].key), NULL);
    }
    vec_fini(&x.objects);
    calc_free(x.calc);
    mirror_free(x.mirror);
    return 0;
}
