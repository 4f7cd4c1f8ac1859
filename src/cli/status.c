/* status: how the agent is; --wait: until everything written before is in the kernel. */
#include "cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct str text_of(const struct jnode *q, const char *path) {
    const struct jnode *n = jnode_path(q, path);
    return n ? n->s : STR("-");
}

static int exit_code(const struct jnode *q) {
    struct str h = text_of(q, "health");
    return str_is(h, "healthy") ? 0 : str_is(h, "degraded") ? 1 : 2;
}

static void show(const struct jnode *q) {
    static const struct {
        const char *name, *path;
    } rows[] = {
        {"node", "node"},
        {"health", "health"},
        {"datastore", "datastore.url"},
        {"store revision", "revision"},
        {"in the kernel", "enforcedRevision"},
        {"pods here", "localEndpoints"},
        {"policies", "policies"},
        {"… that select a pod here", "activePolicies"},
        {"sets, members", "sets"},
        {"repairs of the table", "repairs"},
        {"repairs of interfaces", "linkRepairs"},
        {"last change applied in", "lastApplyUs"},
        {"CNI ADDs, DELs, errors", "cni.adds"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct str v = text_of(q, rows[i].path);
        printf("%-26s", rows[i].name);
        /* The dots above are three bytes for one column. */
        printf("%s%.*s", strncmp(rows[i].name, "…", 3) == 0 ? "  " : "", STR_FMT(v));
        if (strcmp(rows[i].path, "datastore.url") == 0) {
            const struct jnode *lost = jnode_path(q, "datastore.lostSeconds");
            if (lost) {
                printf(" (away for %.*s s: what is known is as old)", STR_FMT(lost->s));
            }
        } else if (strcmp(rows[i].path, "sets") == 0) {
            printf(", %.*s", STR_FMT(text_of(q, "members")));
        } else if (strcmp(rows[i].path, "cni.adds") == 0) {
            printf(", %.*s, %.*s", STR_FMT(text_of(q, "cni.dels")),
                   STR_FMT(text_of(q, "cni.errors")));
        } else if (strcmp(rows[i].path, "lastApplyUs") == 0) {
            printf(" us");
        }
        putchar('\n');
    }
    const struct jnode *problems = jnode_getc(q, "problems");
    if (problems && problems->n) {
        puts("problems:");
        jnode_each (p, problems) {
            printf("  %.*s: %.*s\n", STR_FMT(text_of(p, "object")), STR_FMT(text_of(p, "reason")));
        }
    }
}

/* "30s", "500ms", "2m", "30": milliseconds; -1: not understood. */
static int64_t parse_ms(const char *s) {
    char *end;
    double v = strtod(s, &end);
    double unit = strcmp(end, "ms") == 0                    ? 1
                  : strcmp(end, "s") == 0 || end[0] == '\0' ? 1000
                  : strcmp(end, "m") == 0                   ? 60000
                                                            : -1;
    return end == s || unit < 0 || v < 0 || v > 86400 ? -1 : (int64_t)(v * unit);
}

static int64_t now_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* 0, 1 not in time, 2 no agent. Tries again while the agent is not there yet. */
static int wait_enforced(int64_t timeout_ms, struct err *e) {
    int64_t end = now_ms() + timeout_ms;
    int r;
    for (;;) {
        int64_t left = end - now_ms();
        struct arena a = {0};
        struct jnode *q = NULL;
        struct str body = arena_printf(&a, "{\"op\":\"wait\",\"timeoutMs\":%lld}",
                                       (long long)(left > 0 ? left : 0));
        r = cli_ask(body, (int)(timeout_ms / 1000) + 5, &a, &q, e);
        if (r == 0) {
            const struct jnode *code = jnode_getc(q, "code");
            r = code && code->type == J_INT ? (int)code->i : -EPROTO;
            if (r < 0) {
                struct str m = jnode_str(jnode_getc(q, "message"));
                err_set(e, r, "%.*s", STR_FMT(m));
            }
        }
        arena_fini(&a);
        if ((r != ERR_UNAVAILABLE && r != ERR_RETRY) || now_ms() >= end) {
            return r;
        }
        struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
    }
}

int cmd_status(int argc, char **argv) {
    enum { O_WAIT = 256, O_TIMEOUT };
    static const struct option longs[] = {
        {"wait", no_argument, NULL, O_WAIT},
        {"timeout", required_argument, NULL, O_TIMEOUT},
        {"output", required_argument, NULL, 'o'},
        {NULL, 0, NULL, 0},
    };
    struct cli_output out = {.format = OUT_TABLE};
    bool wait = false;
    int64_t timeout_ms = 30000;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "o:", longs, NULL)) != -1;) {
        switch (c) {
        case O_WAIT:
            wait = true;
            break;
        case O_TIMEOUT:
            timeout_ms = parse_ms(optarg);
            if (timeout_ms < 0) {
                return cli_usage("status", "--timeout %s: expected a time like 30s, 500ms, 2m",
                                 optarg);
            }
            break;
        case 'o':
            if (!cli_output_parse(optarg, "status", &out)) {
                return 2;
            }
            break;
        default:
            return cli_usage("status", "wrong option");
        }
    }
    struct err e;
    if (wait) {
        int r = wait_enforced(timeout_ms, &e);
        if (r < 0) {
            cli_error("%s", e.msg);
            return r == ERR_UNAVAILABLE ? 2 : 1;
        }
        if (out.format == OUT_TABLE) {
            return 0;
        }
    }
    struct arena a = {0};
    struct jnode *q = NULL;
    int rc = 2;
    if (cli_ask(STR("{\"op\":\"status\"}"), 10, &a, &q, &e) < 0) {
        cli_error("%s", e.msg);
    } else {
        rc = exit_code(q);
        (void)jnode_del(q, STR("code"));
        int printed = cli_print_tree(&out, "status", q);
        if (printed < 0) {
            show(q);
        }
        rc = printed > 0 ? printed : rc;
    }
    arena_fini(&a);
    return wait && rc == 1 ? 0 : rc;
}
