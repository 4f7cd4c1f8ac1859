/* Credentials that are fetched: tokens in files and what a command of kubeconfig's exec answers
 * (client.authentication.k8s.io). A credential counts until its expiry, a file for a minute. */
#include "store/kube_config.h"

#include "base/clock.h"
#include "base/fd.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void free_secret(char **p) {
    if (*p) {
        explicit_bzero(*p, strlen(*p));
        free(*p);
        *p = NULL;
    }
}

void kube_auth_fini(struct kube_auth *au) {
    free_secret(&au->header);
    free_secret(&au->cert_pem);
    free_secret(&au->key_pem);
    au->good_until_s = 0;
}

bool kube_auth_is_fresh(const struct kube_auth *au, int64_t now_s) {
    return au->good_until_s > now_s;
}

static char *copy(struct str s) {
    char *p = strndup(s.p ? s.p : "", s.n);
    mg_assert(p != NULL);
    return p;
}

/* "Bearer TOKEN"; NULL when the token can't stand in a header. */
static char *bearer(struct str token) {
    for (size_t i = 0; i < token.n; i++) {
        if ((unsigned char)token.p[i] <= 0x20 || (unsigned char)token.p[i] == 0x7f) {
            return NULL;
        }
    }
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(KUBE_CONFIG_BYTES_MAX + 16);
    buf_puts(&b, "Bearer ");
    buf_str(&b, token);
    return copy(buf_view(&b));
}

static char *basic(struct str user, struct str password) {
    static const char ABC[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    MG_CLEANUP(buf_fini) struct buf in = BUF_INIT(1 << 16), out = BUF_INIT(1 << 17);
    buf_printf(&in, "%.*s:%.*s", STR_FMT(user), STR_FMT(password));
    buf_puts(&out, "Basic ");
    for (size_t i = 0; i < in.n; i += 3) {
        uint32_t v = (uint32_t)(uint8_t)in.p[i] << 16;
        v |= i + 1 < in.n ? (uint32_t)(uint8_t)in.p[i + 1] << 8 : 0;
        v |= i + 2 < in.n ? (uint32_t)(uint8_t)in.p[i + 2] : 0;
        buf_putc(&out, ABC[v >> 18]);
        buf_putc(&out, ABC[v >> 12 & 63]);
        buf_putc(&out, i + 1 < in.n ? ABC[v >> 6 & 63] : '=');
        buf_putc(&out, i + 2 < in.n ? ABC[v & 63] : '=');
    }
    return copy(buf_view(&out));
}

/* ---- exec ---- */

int kube_auth_parse(const struct kube_config *c, struct str text, struct kube_auth *out,
                    struct err *e) {
    struct arena a = {0};
    struct jnode *doc = NULL;
    struct jlimits lim = json_limits_default;
    struct kube_auth au = {.good_until_s = INT64_MAX};
    lim.max_bytes = KUBE_EXEC_OUTPUT_MAX;
    lim.max_nodes = 1000;
    int r = json_parse(text, &lim, &a, &doc, e);
    struct str cmd = c->exec.command;
    if (r < 0) {
        r = err_wrap(e, ERR_DENIED, "credential command %.*s: its output", STR_FMT(cmd));
        goto done;
    }
    struct str version = jnode_str(jnode_getc(doc, "apiVersion"));
    if (!str_eq(version, c->exec.api_version)) {
        r = err_set(e, ERR_DENIED,
                    "credential command %.*s: its output has apiVersion \"%.*s\", kubeconfig asks "
                    "for %.*s",
                    STR_FMT(cmd), version.n > 80 ? 80 : (int)version.n, version.p ? version.p : "",
                    STR_FMT(c->exec.api_version));
        goto done;
    }
    const struct jnode *st = jnode_getc(doc, "status");
    struct str token = jnode_str(jnode_getc(st, "token"));
    struct str cert = jnode_str(jnode_getc(st, "clientCertificateData"));
    struct str key = jnode_str(jnode_getc(st, "clientKeyData"));
    struct str expiry = jnode_str(jnode_getc(st, "expirationTimestamp"));
    if ((!token.n && !cert.n) || (cert.n > 0) != (key.n > 0)) {
        r = err_set(e, ERR_DENIED,
                    "credential command %.*s: its output has no status.token, and no "
                    "clientCertificateData with clientKeyData",
                    STR_FMT(cmd));
        goto done;
    }
    if (expiry.n) {
        au.good_until_s = clock_parse_rfc3339(expiry);
        if (au.good_until_s < 0) {
            r = err_set(e, ERR_DENIED,
                        "credential command %.*s: status.expirationTimestamp: found \"%.*s\", "
                        "allowed is a time such as 2026-01-02T03:04:05Z",
                        STR_FMT(cmd), expiry.n > 60 ? 60 : (int)expiry.n, expiry.p);
            goto done;
        }
    }
    au.header = token.n ? bearer(token) : NULL;
    if (token.n && !au.header) {
        r = err_set(e, ERR_DENIED, "credential command %.*s: a blank or control character in token",
                    STR_FMT(cmd));
        goto done;
    }
    au.cert_pem = cert.n ? copy(cert) : NULL;
    au.key_pem = key.n ? copy(key) : NULL;
    kube_auth_fini(out);
    *out = au;
done:
    arena_fini(&a);
    return r;
}

static void put_exec_info(const struct kube_config *c, struct buf *b) {
    buf_puts(b, "KUBERNETES_EXEC_INFO={\"apiVersion\":");
    json_quote(b, c->exec.api_version);
    buf_puts(b, ",\"kind\":\"ExecCredential\",\"spec\":{");
    if (c->exec.has_cluster_info) {
        buf_puts(b, "\"cluster\":{\"server\":");
        json_quote(b, c->server);
        if (c->server_name.n) {
            buf_puts(b, ",\"tls-server-name\":");
            json_quote(b, c->server_name);
        }
        buf_printf(b, "%s},", c->is_insecure ? ",\"insecure-skip-tls-verify\":true" : "");
    }
    buf_puts(b, "\"interactive\":false}}");
}

struct child {
    pid_t pid;
    int out, err;
};

static int start(const struct kube_config *c, struct arena *a, struct child *ch, struct err *e) {
    const struct kube_exec *x = &c->exec;
    MG_CLEANUP(buf_fini) struct buf info = BUF_INIT(65536);
    put_exec_info(c, &info);
    size_t n_env = 0, n = 0;
    while (environ[n_env]) {
        n_env++;
    }
    const char **argv = arena_array(a, const char *, x->n_args + 2);
    const char **env = arena_array(a, const char *, n_env + x->n_env + 2);
    argv[0] = arena_cstr(a, x->command);
    for (size_t i = 0; i < x->n_args; i++) {
        argv[i + 1] = arena_cstr(a, x->args[i]);
    }
    env[n++] = arena_cstr(a, buf_view(&info));
    for (size_t i = 0; i < x->n_env; i++) { /* the first of a name counts */
        env[n++] = arena_cstr(a, x->env[i]);
    }
    for (size_t i = 0; i < n_env; i++) {
        env[n++] = environ[i];
    }
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0) {
        int code = -errno;
        fd_close(&out[0]);
        fd_close(&out[1]);
        return err_set(e, code, "credential command: pipe: %s", strerror(-code));
    }
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t at;
    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&at);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, out[1], 1);
    posix_spawn_file_actions_adddup2(&fa, err[1], 2);
    posix_spawnattr_setflags(&at, POSIX_SPAWN_SETPGROUP);
    /* posix_spawn's types lack const; it changes neither. */
    char *const *av, *const *ev;
    memcpy(&av, &argv, sizeof(av));
    memcpy(&ev, &env, sizeof(ev));
    int r = posix_spawnp(&ch->pid, argv[0], &fa, &at, av, ev);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&at);
    fd_close(&out[1]);
    fd_close(&err[1]);
    if (r != 0) {
        fd_close(&out[0]);
        fd_close(&err[0]);
        return err_set(e, ERR_DENIED, "credential command %.*s: %s%s%.*s", STR_FMT(x->command),
                       strerror(r), x->install_hint.n ? "; " : "",
                       x->install_hint.n > 300 ? 300 : (int)x->install_hint.n,
                       x->install_hint.p ? x->install_hint.p : "");
    }
    ch->out = out[0];
    ch->err = err[0];
    return 0;
}

/* Reads one descriptor into b; closes it at its end. */
static bool drain(struct pollfd *p, struct buf *b) {
    char chunk[4096];
    if (!(p->revents & (POLLIN | POLLHUP | POLLERR))) {
        return true;
    }
    ssize_t n = read(p->fd, chunk, sizeof(chunk));
    if (n > 0) {
        buf_add(b, chunk, (size_t)n);
        return true;
    }
    p->fd = n < 0 && errno == EINTR ? p->fd : -1;
    return p->fd >= 0;
}

/* Collects what the command says until both ends are closed. False: too slow or too much. */
static bool collect(struct child *ch, struct buf *out, struct buf *err) {
    int64_t deadline = clock_ns() + (int64_t)KUBE_EXEC_TIMEOUT_MS * 1000000;
    struct pollfd p[2] = {{.fd = ch->out, .events = POLLIN}, {.fd = ch->err, .events = POLLIN}};
    while (p[0].fd >= 0 || p[1].fd >= 0) {
        int64_t left_ms = (deadline - clock_ns()) / 1000000;
        if (left_ms <= 0 || out->overflow) {
            return false;
        }
        if (poll(p, 2, (int)left_ms) < 0 && errno != EINTR) {
            return false;
        }
        if (p[0].fd >= 0) {
            (void)drain(&p[0], out);
        }
        if (p[1].fd >= 0) {
            (void)drain(&p[1], err);
        }
    }
    return !out->overflow;
}

static int run_exec(const struct kube_config *c, struct kube_auth *au, struct err *e) {
    struct arena a = {0};
    struct child ch = {.out = -1, .err = -1};
    int r = start(c, &a, &ch, e);
    if (r < 0) {
        arena_fini(&a);
        return r;
    }
    MG_CLEANUP(buf_fini) struct buf out = BUF_INIT(KUBE_EXEC_OUTPUT_MAX), err = BUF_INIT(300);
    bool is_ok = collect(&ch, &out, &err);
    if (!is_ok) {
        (void)kill(-ch.pid, SIGKILL); /* its group: the shell's children too */
    }
    int status = 0;
    while (waitpid(ch.pid, &status, 0) < 0 && errno == EINTR) {
    }
    fd_close(&ch.out);
    fd_close(&ch.err);
    struct str said = str_trim(buf_view(&err));
    if (!is_ok) {
        r = err_set(e, ERR_DENIED,
                    "credential command %.*s: not done after %d s, or more than %d bytes of output",
                    STR_FMT(c->exec.command), KUBE_EXEC_TIMEOUT_MS / 1000, KUBE_EXEC_OUTPUT_MAX);
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        r = err_set(e, ERR_DENIED, "credential command %.*s: %s %d%s%.*s", STR_FMT(c->exec.command),
                    WIFEXITED(status) ? "exit code" : "signal",
                    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), said.n ? ": " : "",
                    STR_FMT(said));
    } else {
        r = kube_auth_parse(c, buf_view(&out), au, e);
    }
    if (out.p) {
        explicit_bzero(out.p, out.n);
    }
    arena_fini(&a);
    return r;
}

static int read_token(const struct kube_config *c, struct kube_auth *au, struct err *e) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(KUBE_CONFIG_BYTES_MAX);
    struct arena a = {0};
    int r = file_read(AT_FDCWD, arena_cstr(&a, c->token_file), &b, KUBE_CONFIG_BYTES_MAX);
    arena_fini(&a);
    struct str token = str_trim(buf_view(&b));
    char *header = r == 0 && token.n ? bearer(token) : NULL;
    if (!header) {
        return err_set(e, ERR_DENIED, "token file %.*s: %s", STR_FMT(c->token_file),
                       r < 0     ? strerror(-r)
                       : token.n ? "a blank or control character in the token"
                                 : "is empty");
    }
    kube_auth_fini(au);
    au->header = header;
    au->good_until_s = clock_wall_ns() / 1000000000 + KUBE_TOKEN_REREAD_S;
    return 0;
}

int kube_auth_fetch(const struct kube_config *c, struct kube_auth *out, struct err *e) {
    if (c->token_file.n) {
        return read_token(c, out, e);
    }
    if (c->exec.command.n && !c->token.n && !c->username.n) {
        return run_exec(c, out, e);
    }
    kube_auth_fini(out);
    out->good_until_s = INT64_MAX;
    if (c->token.n) {
        out->header = bearer(c->token);
        if (!out->header) {
            return err_set(e, ERR_DENIED, "%.*s: a blank or control character in the token",
                           STR_FMT(c->origin));
        }
    } else if (c->username.n) {
        out->header = basic(c->username, c->password);
    }
    return 0;
}
