/* bgp: the speaker itself, and what it says: status, routes, explain, metrics, dump, reset,
 * refresh. */
#include "cli/cli.h"

#include "base/fd.h"
#include "base/vec.h"
#include "bgp/main.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MAX = 1 << 30 };

static int dial(int *out, struct err *e) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    const char *agent = cli_socket();
    const char *slash = strrchr(agent, '/');
    int n = snprintf(a.sun_path, sizeof(a.sun_path), "%.*s/bgp.sock", (int)(slash - agent), agent);
    if (n < 0 || (size_t)n >= sizeof(a.sun_path)) {
        return err_set(e, ERR_INVALID, "the run dir's path is too long");
    }
    MG_CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        return err_set(e, ERR_UNAVAILABLE,
                       "no BGP speaker answers at %s (%s): `margay bgp --config FILE` runs one, "
                       "--run-dir says where it is",
                       a.sun_path, err_name(-errno));
    }
    *out = TAKE_FD(fd);
    return 0;
}

/* Asks, and hands out the answer line by line; blank when the connection ends. */
static int ask(struct str question, void (*on_line)(void *arg, struct str line), void *arg,
               struct err *e) {
    MG_CLEANUP(fd_close) int fd = -1;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(ANSWER_MAX);
    int r = dial(&fd, e);
    bool is_first = true;
    if (r < 0) {
        return r;
    }
    if (send(fd, question.p, question.n, MSG_NOSIGNAL) != (ssize_t)question.n) {
        return err_set(e, -EIO, "asking the BGP speaker: %s", err_name(-errno));
    }
    for (;;) {
        char *p = buf_reserve(&b, 65536);
        ssize_t n = p ? recv(fd, p, 65536, 0) : -1;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return err_set(e, -EIO, "reading the BGP speaker's answer: %s", err_name(-errno));
        }
        if (n == 0) {
            return is_first ? err_set(e, -EIO, "the BGP speaker gave no answer") : 0;
        }
        b.n += (size_t)n;
        size_t at = 0;
        for (ptrdiff_t end; (end = str_find(buf_view(&b), '\n', at)) >= 0; at = (size_t)end + 1) {
            struct str line = str_sub(buf_view(&b), at, (size_t)end);
            if (is_first && str_starts(line, STR("error "))) {
                return err_set(e, ERR_INVALID, "%.*s", (int)line.n - 6, line.p + 6);
            }
            if (!is_first) {
                on_line(arg, line);
            }
            is_first = false;
        }
        buf_consume(&b, at);
    }
}

static int finish(int r, const struct err *e) {
    return r < 0 ? cli_error("%s", e->msg) : 0;
}

/* ---- status ---- */

static void take_json(void *arg, struct str line) {
    struct buf *b = arg;
    buf_str(b, line);
}

static int64_t number(const struct jnode *map, const char *path) {
    const struct jnode *n = jnode_path(map, path);
    return n && n->type == J_INT ? n->i : 0;
}

static struct str text(const struct jnode *map, const char *path) {
    struct str s = jnode_str(jnode_path(map, path));
    return s.p ? s : STR("");
}

/* "2026-01-02T03:04:05Z" as calicoctl shows it: the time today, else the day. */
static struct str since(struct str at) {
    char today[32];
    time_t now = time(NULL);
    struct tm tm;
    (void)gmtime_r(&now, &tm);
    (void)strftime(today, sizeof(today), "%Y-%m-%d", &tm);
    if (at.n < 19) {
        return at;
    }
    return str_eq(str_sub(at, 0, 10), str_c(today)) ? str_sub(at, 11, 19) : str_sub(at, 0, 10);
}

static struct str state_of(const struct jnode *peer) {
    struct str s = text(peer, "state");
    const struct jnode *up = jnode_getc(peer, "isUp");
    return up && up->b ? STR("up") : str_is(s, "Idle") ? STR("down") : STR("start");
}

static struct str counts(const struct jnode *peer, struct arena *a) {
    int64_t in = 0, out = 0;
    jnode_each (f, jnode_getc(peer, "families")) {
        in += number(f, "accepted");
        out += number(f, "sent");
    }
    return arena_printf(a, "%lld/%lld", (long long)in, (long long)out);
}

/* State, and why it is not established; the last NOTIFICATION. */
static struct str info(const struct jnode *peer, struct arena *a) {
    struct str state = text(peer, "state"), reason = text(peer, "reason");
    struct str last = text(peer, "lastNotification.text");
    struct str said = text(peer, "lastNotification.said");
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4096);
    buf_str(&b, state);
    const struct jnode *up = jnode_getc(peer, "isUp");
    if (!(up && up->b) && reason.n) {
        buf_printf(&b, ": %.*s", STR_FMT(reason));
    }
    if (last.n && !(up && up->b)) {
        struct str at = text(peer, "lastNotification.direction");
        buf_printf(&b, "; last %.*s: %.*s", STR_FMT(at), STR_FMT(last));
        if (said.n) {
            buf_printf(&b, " (%.*s)", STR_FMT(said));
        }
    }
    if (text(peer, "bfd.state").n) {
        buf_printf(&b, "; BFD %.*s", STR_FMT(text(peer, "bfd.state")));
    }
    return arena_dup(a, buf_view(&b));
}

enum { COLUMNS = 6 };

static void rule(const size_t width[COLUMNS]) {
    for (size_t i = 0; i < COLUMNS; i++) {
        putchar('+');
        for (size_t k = 0; k < width[i] + 2; k++) {
            putchar('-');
        }
    }
    puts("+");
}

/* calicoctl's table, with heads in the middle, and one column more. */
static void print_table(const struct str (*rows)[COLUMNS], size_t n) {
    static const char *const HEADS[COLUMNS] = {"PEER ADDRESS", "PEER TYPE", "STATE",
                                               "SINCE",        "IN/OUT",    "INFO"};
    size_t width[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i++) {
        width[i] = strlen(HEADS[i]);
        for (size_t k = 0; k < n; k++) {
            width[i] = rows[k][i].n > width[i] ? rows[k][i].n : width[i];
        }
    }
    rule(width);
    for (size_t i = 0; i < COLUMNS; i++) {
        int left = (int)(width[i] - strlen(HEADS[i])) / 2;
        int right = (int)(width[i] - strlen(HEADS[i])) - left;
        printf("| %*s%s%*s ", left, "", HEADS[i], right, "");
    }
    puts("|");
    rule(width);
    for (size_t k = 0; k < n; k++) {
        for (size_t i = 0; i < COLUMNS; i++) {
            printf("| %-*.*s ", (int)width[i], STR_FMT(rows[k][i]));
        }
        puts("|");
    }
    rule(width);
}

static void print_family(const struct jnode *q, const char *family, struct arena *a) {
    const struct jnode *peers = jnode_getc(q, "peers");
    struct str(*rows)[COLUMNS] = arena_alloc(a, sizeof(*rows) * (peers ? peers->n : 0) + 1);
    size_t n = 0;
    bool is_v6 = strcmp(family, "IPv6") == 0;
    jnode_each (p, peers) {
        struct str ip = text(p, "ip");
        ip = ip.n ? ip : text(p, "range");
        if ((str_find(ip, ':', 0) >= 0) != is_v6) {
            continue;
        }
        struct str *row = rows[n++];
        row[0] = ip;
        row[1] = text(p, "type");
        row[2] = state_of(p);
        row[3] = since(text(p, "since"));
        row[4] = counts(p, a);
        row[5] = info(p, a);
    }
    printf("\n%s BGP status\n", family);
    if (n == 0) {
        printf("No %s peers found.\n", family);
    } else {
        print_table((const struct str(*)[COLUMNS])rows, n);
    }
}

static int show_status(const struct jnode *q, struct arena *a) {
    int rc = 0;
    printf("Margay BGP is running: AS %lld, router ID %.*s, %lld prefixes, %lld routes in the "
           "kernel.\n",
           (long long)number(q, "as"), STR_FMT(text(q, "routerID")),
           (long long)number(q, "tables.prefixesIPv4") +
               (long long)number(q, "tables.prefixesIPv6"),
           (long long)number(q, "kernel.routes"));
    print_family(q, "IPv4", a);
    print_family(q, "IPv6", a);
    const struct jnode *problems = jnode_getc(q, "problems");
    if (problems && problems->n) {
        puts("\nproblems:");
        jnode_each (p, problems) {
            printf("  %.*s\n", STR_FMT(jnode_str(p)));
        }
    }
    jnode_each (p, jnode_getc(q, "peers")) {
        const struct jnode *up = jnode_getc(p, "isUp");
        rc = up && up->b ? rc : text(p, "range").n ? rc : 1;
    }
    return rc;
}

static int status(const struct cli_output *o) {
    struct arena a = {0};
    struct err e;
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(ANSWER_MAX);
    struct jnode *q = NULL;
    int rc, r = ask(STR("status\n"), take_json, &b, &e);
    r = r < 0 ? r : json_parse(buf_view(&b), &json_limits_default, &a, &q, &e);
    if (r < 0) {
        rc = cli_error("%s", e.msg) + (r == ERR_UNAVAILABLE);
    } else {
        rc = cli_print_tree(o, "bgp", q);
        rc = rc < 0 ? show_status(q, &a) : rc;
    }
    arena_fini(&a);
    return rc;
}

/* ---- routes ---- */

struct routes {
    bool is_json, is_first;
    struct arena a;
};

static void print_route(void *arg, struct str line) {
    struct routes *r = arg;
    struct jnode *n = NULL;
    if (r->is_json) {
        printf("%s%.*s", r->is_first ? "[\n " : ",\n ", STR_FMT(line));
        r->is_first = false;
        return;
    }
    if (json_parse(line, &json_limits_default, &r->a, &n, NULL) < 0) {
        return;
    }
    const struct jnode *best = jnode_getc(n, "best"), *multi = jnode_getc(n, "multipath");
    const struct jnode *rejected = jnode_getc(n, "rejected"), *stale = jnode_getc(n, "stale");
    const struct jnode *lost = jnode_getc(n, "unreachable");
    char flags[8];
    (void)snprintf(flags, sizeof(flags), "%s%s%s%s",
                   best->b    ? "*"
                   : multi->b ? "="
                              : " ",
                   rejected->b ? "r" : "", stale->b ? "s" : "", lost->b ? "u" : "");
    const struct jnode *pref = jnode_getc(n, "localPref");
    printf("%-3s %-28.*s %-24.*s %-20.*s %11.*s  %.*s\n", flags, STR_FMT(text(n, "prefix")),
           STR_FMT(text(n, "nextHop").n ? text(n, "nextHop") : text(n, "source")),
           STR_FMT(text(n, "peer").n ? text(n, "peer") : STR("-")),
           STR_FMT(pref ? pref->s : STR("")), STR_FMT(text(n, "asPath")));
    arena_reset(&r->a);
}

static int routes(const struct cli_output *o, const char *family, const char *sent_to) {
    struct err e;
    struct routes r = {.is_json = o->format == OUT_JSON, .is_first = true};
    static const char *const FAMILIES[] = {"IPv4", "IPv6"};
    int rc = 0;
    if (!r.is_json && !o->no_headers) {
        printf("%-3s %-28s %-24s %-20s %11s  %s\n", "", "PREFIX", "NEXT HOP", "PEER", "LOCAL PREF",
               "AS PATH");
    }
    for (size_t i = 0; i < 2 && rc == 0; i++) {
        char question[512];
        if (family && strcasecmp(family, FAMILIES[i]) != 0) {
            continue;
        }
        int n = snprintf(question, sizeof(question), "routes %s%s%s\n", FAMILIES[i],
                         sent_to ? " sent " : "", sent_to ? sent_to : "");
        rc = finish(ask(str_n(question, (size_t)n), print_route, &r, &e), &e);
    }
    if (r.is_json && rc == 0) {
        puts(r.is_first ? "[]" : "\n]");
    }
    arena_fini(&r.a);
    return rc;
}

/* ---- the rest ---- */

static void print_line(void *arg, struct str line) {
    (void)arg;
    printf("%.*s\n", STR_FMT(line));
}

static int plain(const char *what, const char *arg, const char *more) {
    char question[512];
    struct err e;
    int n = snprintf(question, sizeof(question), "%s%s%s%s%s\n", what, arg ? " " : "",
                     arg ? arg : "", more ? " " : "", more ? more : "");
    if (n < 0 || (size_t)n >= sizeof(question)) {
        return cli_usage("bgp", "%s: the argument is too long", what);
    }
    return finish(ask(str_n(question, (size_t)n), print_line, NULL, &e), &e);
}

/* The table as MRT records to a file or the output. */
static int dump(const char *path) {
    MG_CLEANUP(fd_close) int fd = -1;
    struct err e;
    char data[65536];
    size_t n_data = 0, skip = 0;
    if (dial(&fd, &e) < 0) {
        return cli_error("%s", e.msg);
    }
    if (send(fd, "dump\n", 5, MSG_NOSIGNAL) != 5) {
        return cli_error("asking the BGP speaker: %s", err_name(-errno));
    }
    /* The first line says whether there is more. */
    while (!skip) {
        ssize_t n = recv(fd, data + n_data, sizeof(data) - n_data, 0);
        n_data += n > 0 ? (size_t)n : 0;
        const char *end = memchr(data, '\n', n_data);
        skip = end ? (size_t)(end - data) + 1 : 0;
        if (!end && n <= 0) {
            return cli_error("the BGP speaker gave no answer");
        }
    }
    if (skip != 3 || memcmp(data, "ok", 2) != 0) {
        return cli_error("%.*s", (int)skip - 1, data);
    }
    FILE *f = path ? fopen(path, "we") : stdout;
    if (!f) {
        return cli_error("writing %s: %s", path, err_name(-errno));
    }
    (void)fwrite(data + skip, 1, n_data - skip, f);
    for (ssize_t n; (n = recv(fd, data, sizeof(data), 0)) > 0;) {
        (void)fwrite(data, 1, (size_t)n, f);
    }
    bool is_bad = fflush(f) != 0 || ferror(f) != 0;
    if (path && fclose(f) != 0) {
        is_bad = true;
    }
    return is_bad ? cli_error("writing %s: %s", path ? path : "the output", err_name(-errno)) : 0;
}

int cmd_bgp(int argc, char **argv) {
    enum { O_SENT = 256 };
    static const struct option longs[] = {
        {"output", required_argument, NULL, 'o'},     {"family", required_argument, NULL, 'f'},
        {"sent-to", required_argument, NULL, O_SENT}, {"peer", required_argument, NULL, 'p'},
        {"no-headers", no_argument, NULL, 'H'},       {NULL, 0, NULL, 0},
    };
    struct cli_output o = {.format = OUT_TABLE};
    const char *family = NULL, *sent = NULL, *peer = NULL;
    if (argc < 2 || argv[1][0] == '-') {
        return bgp_main(argc, argv);
    }
    const char *what = argv[1];
    optind = 2;
    for (int c; (c = getopt_long(argc, argv, "o:f:p:", longs, NULL)) != -1;) {
        switch (c) {
        case 'o':
            if (!cli_output_parse(optarg, "bgp", &o)) {
                return 2;
            }
            break;
        case 'f':
            family = optarg;
            break;
        case O_SENT:
            sent = optarg;
            break;
        case 'p':
            peer = optarg;
            break;
        case 'H':
            o.no_headers = true;
            break;
        default:
            return cli_usage("bgp", "wrong option");
        }
    }
    const char *arg = optind < argc ? argv[optind] : NULL;
    if (family && strcasecmp(family, "IPv4") != 0 && strcasecmp(family, "IPv6") != 0) {
        return cli_usage("bgp", "--family: found \"%s\", allowed are IPv4 and IPv6", family);
    }
    if (strcmp(what, "status") == 0 || strcmp(what, "peers") == 0) {
        return status(&o);
    }
    if (strcmp(what, "routes") == 0) {
        return routes(&o, family, sent);
    }
    if (strcmp(what, "dump") == 0) {
        if (!arg && isatty(STDOUT_FILENO)) {
            return cli_usage("bgp", "dump: the records are no text: give a file");
        }
        return dump(arg);
    }
    if (strcmp(what, "metrics") == 0) {
        return plain("metrics", NULL, NULL);
    }
    bool is_peer = strcmp(what, "reset") == 0 || strcmp(what, "refresh") == 0;
    if (!is_peer && strcmp(what, "explain") != 0) {
        return cli_usage("bgp",
                         "found \"%s\", allowed are status, routes, explain, metrics, dump, "
                         "reset, refresh, or --config FILE",
                         what);
    }
    if (!arg) {
        return cli_usage("bgp", "%s needs %s", what, is_peer ? "a peer" : "a prefix");
    }
    return plain(what, arg, is_peer ? NULL : peer);
}
