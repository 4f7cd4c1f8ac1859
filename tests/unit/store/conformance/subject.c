#include "subject.h"

#include "base/fd.h"
#include "store/serve.h"
#include "store/worker.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

struct subject subject;

static char dir[64], url_text[160];
static pid_t server;
static unsigned serial;

/* ---- an agent of our own ---- */

struct listener {
    struct store_server *server;
    int fd;
};

static void accept_one(void *arg, unsigned events) {
    struct listener *at = arg;
    (void)events;
    int fd = accept4(at->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        store_server_connection(at->server, fd);
    }
}

static void serve(int fd) {
    struct store *s = NULL;
    struct err e;
    if (store_open(url_text, &s, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        _exit(2);
    }
    static const struct store_server_hooks hooks = {NULL};
    struct loop *l = loop_new();
    struct listener at = {store_server_new(l, s, store_worker_new(l, s), &hooks, NULL), fd};
    (void)loop_poll_new(l, fd, LOOP_READ, accept_one, &at);
    loop_run(l);
}

static void start_agent(void) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/agent.sock", dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 64) < 0) {
        perror("agent.sock");
        exit(2);
    }
    fflush(NULL);
    server = fork();
    if (server == 0) {
        serve(fd);
        _exit(0);
    }
    close(fd);
    snprintf(url_text, sizeof(url_text), "agent:%s", sa.sun_path);
}

void subject_begin(const char *url) {
    bool is_agent = strcmp(url, "agent") == 0, is_file = strcmp(url, "sqlite") == 0;
    if (is_agent || is_file) {
        snprintf(dir, sizeof(dir), "/tmp/margay-conformance-XXXXXX");
        if (!mkdtemp(dir)) {
            perror(dir);
            exit(2);
        }
        snprintf(url_text, sizeof(url_text), "sqlite:%s/margay.db", dir);
        if (is_agent) {
            start_agent();
        }
        url = url_text;
    }
    const char *direct = getenv("MARGAY_TEST_STORE_DIRECT");
    struct str u = str_c(url);
    subject = (struct subject){.url = url,
                               .url_direct = direct ? direct : url,
                               .is_sqlite = str_starts(u, STR("sqlite:")),
                               .is_kubernetes = str_starts(u, STR("kubernetes:")),
                               .has_transactions = str_starts(u, STR("sqlite:"))};
    /* More than three pages of any driver; each write is a round trip but in the embedded store. */
    subject.many = subject.has_transactions ? 10000 : 2100;
}

void subject_end(void) {
    if (server > 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
    if (dir[0]) {
        char cmd[128];
        snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
        if (system(cmd) != 0) {
            exit(2);
        }
    }
}

struct store *subject_open(void) {
    struct store *s = NULL;
    struct err e;
    OK(store_open(subject.url, &s, &e), e);
    return s;
}

/* ---- documents ---- */

void subject_namespace(struct store *s, char out[NAME_LEN]) {
    snprintf(out, NAME_LEN, "conf-%d-%u", (int)getpid(), ++serial);
    subject_namespace_called(s, out);
}

void subject_namespace_called(struct store *s, const char *name) {
    char key[2 * NAME_LEN], doc[256];
    snprintf(key, sizeof(key), "Namespace//%s", name);
    snprintf(doc, sizeof(doc),
             "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"%s\"}}", name);
    struct store_key k = {STR(STORE_SPACE_RESOURCES), str_c(key)};
    struct err e;
    OK(store_put(s, k, str_c(doc), REV_NONE, NULL, &e), e);
}

struct store_key net_key(const char *ns, const char *name) {
    static char texts[4][2 * STORE_KEY_MAX];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    snprintf(text, sizeof(texts[0]), "NetworkSet.projectcalico.org/%s/%s", ns, name);
    return (struct store_key){STR(STORE_SPACE_RESOURCES), str_c(text)};
}

void net_document(struct buf *b, const char *ns, const char *name, const char *text) {
    buf_puts(b, "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"NetworkSet\",\"metadata\":"
                "{\"name\":");
    json_quote(b, str_c(name));
    buf_puts(b, ",\"namespace\":");
    json_quote(b, str_c(ns));
    buf_puts(b, ",\"labels\":{\"suite\":\"conformance\"},\"annotations\":{\"text\":");
    json_quote(b, str_c(text));
    buf_puts(b, "}},\"spec\":{\"nets\":[\"10.1.2.0/24\"]}}");
}

struct str net_text(struct str value, struct arena *a) {
    struct jnode *doc = NULL;
    struct err e;
    if (!value.p || json_parse(value, &json_limits_default, a, &doc, &e) < 0) {
        return STR_NULL;
    }
    return jnode_str(jnode_path(doc, "metadata.annotations.text"));
}

int net_try_put(struct store *s, const char *ns, const char *name, const char *text,
                uint64_t expect, uint64_t *revision, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(4 << 20);
    net_document(&b, ns, name, text);
    return store_put(s, net_key(ns, name), buf_view(&b), expect, revision, e);
}

uint64_t net_put(struct store *s, const char *ns, const char *name, const char *text,
                 uint64_t expect) {
    struct err e;
    uint64_t revision = 0;
    OK(net_try_put(s, ns, name, text, expect, &revision, &e), e);
    assert_true(revision > 0);
    return revision;
}

void net_del(struct store *s, const char *ns, const char *name) {
    struct err e;
    OK(store_delete(s, net_key(ns, name), REV_ANY, &e), e);
}

uint64_t net_get(struct store *s, const char *ns, const char *name, struct arena *a,
                 struct str *text) {
    struct err e;
    struct store_item it = {0};
    OK(store_get(s, net_key(ns, name), a, &it, &e), e);
    assert_true(str_eq(it.key, net_key(ns, name).key));
    *text = net_text(it.value, a);
    assert_non_null(text->p);
    return it.revision;
}

/* ---- other processes, the runner ---- */

void in_processes(int n, int (*f)(struct store *s, int number, void *arg), void *arg) {
    pid_t pids[16];
    assert_true(n <= (int)ARRAY_LEN(pids));
    fflush(NULL);
    for (int i = 0; i < n; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            struct store *s = NULL;
            struct err e;
            if (store_open(subject.url, &s, &e) < 0) {
                fprintf(stderr, "%s\n", e.msg);
                _exit(99);
            }
            int r = f(s, i, arg);
            store_close(s);
            _exit(r);
        }
    }
    for (int i = 0; i < n; i++) {
        int status = 0;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fail_msg("process %d of %d ended with status 0x%x", i, n, (unsigned)status);
        }
    }
}

bool hook(const char *what) {
    const char *fds = getenv("MARGAY_TEST_HOOKS"); /* "TO,FROM": descriptors of the runner */
    int to, from;
    if (!fds || sscanf(fds, "%d,%d", &to, &from) != 2) { // NOLINT(cert-err34-c)
        return false;
    }
    dprintf(to, "%s\n", what);
    char answer[8] = "";
    size_t n = 0;
    while (n + 1 < sizeof(answer) && read(from, answer + n, 1) == 1 && answer[n] != '\n') {
        n++;
    }
    answer[n] = '\0';
    return strcmp(answer, "done") == 0;
}
