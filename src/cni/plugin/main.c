/* margay-cni: what the runtime runs. Reads, checks, asks the agent, prints; decides only what
 * happens when there is no agent: VERSION is answered here, DEL is queued and succeeds, the rest
 * fails with a CNI error that says what to do. Also runs as margay-ipam, calico and calico-ipam. */
#include "cni/plugin/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#ifndef MARGAY_VERSION
#define MARGAY_VERSION "unknown"
#endif

static uint8_t stdin_text[WIRE_TEXT_MAX + 1];

/* A runtime may start us without stdin, stdout or stderr: no descriptor of ours may land there. */
static void fill_std_fds(void) {
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
}

/* The name we run under; what it may be is written in enum wire_request_string. */
static const char *program_name(const char *argv0) {
    static const char *const names[] = {"margay-cni", "margay-ipam", "calico", "calico-ipam"};
    const char *slash = argv0 == NULL ? NULL : strrchr(argv0, '/');
    const char *base = slash != NULL ? slash + 1 : argv0 != NULL ? argv0 : "";
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(base, names[i]) == 0) {
            return names[i];
        }
    }
    return names[0];
}

static int read_stdin(size_t *n, struct fail *f) {
    *n = 0;
    for (;;) {
        ssize_t k = read(STDIN_FILENO, stdin_text + *n, sizeof(stdin_text) - *n);
        if (k == 0) {
            return 0;
        }
        if (k < 0) {
            if (errno == EINTR) {
                continue;
            }
            return fail_set(f, CNI_IO, "the runtime must give it", "reading stdin: %s",
                            strerror(errno));
        }
        *n += (size_t)k;
        if (*n > WIRE_TEXT_MAX) {
            return fail_set(f, CNI_UNDECODABLE, "shorten it",
                            "network configuration on stdin is longer than 1 MiB");
        }
    }
}

/* What the specification asks of a configuration, as far as it concerns us. */
static int check_conf(const struct conf *c, enum cni_command cmd, struct fail *f) {
    if (version_check(c->version, cmd, f) < 0) {
        return -1;
    }
    if (!is_cni_name(c->name, strlen(c->name))) {
        return fail_set(f, CNI_BAD_CONFIG,
                        "a letter or digit, then letters, digits, '_', '.' and '-'",
                        c->name[0] == '\0' ? "the configuration has no \"name\"%s"
                                           : "network name \"%s\" is not valid",
                        c->name);
    }
    if (c->type[0] != '\0' && !is_cni_name(c->type, strlen(c->type))) {
        return fail_set(f, CNI_BAD_CONFIG, "the name of a plugin, such as margay-cni",
                        "plugin type \"%s\" is not valid", c->type);
    }
    return 0;
}

static int print_answer(const uint8_t *text, size_t n, int exit_code, struct fail *f) {
    int rc = print_all(text, n);
    if (exit_code != 0) { /* for the log file: the answer has been printed */
        (void)fail_set(f, exit_code, "", "%.*s", n < 600 ? (int)n : 600, (const char *)text);
    }
    return rc < 0 ? fail_set(f, CNI_IO, "", "writing to stdout: %s", strerror(-rc)) : exit_code;
}

/* A DEL that no agent takes, or not now: left for it, except for what only a plugin can do, to run
 * another IPAM plugin, which is done now. If that fails the runtime comes again, and the DEL is
 * queued twice. */
static int queue_del(const struct request *r, const struct conf *c, struct fail *f) {
    static uint8_t out[WIRE_TEXT_MAX];
    size_t n = 0;
    if (spool_request(r, f) < 0) {
        return -1;
    }
    if (r->is_ipam || !is_cni_name(c->ipam_type, strlen(c->ipam_type)) ||
        strcmp(c->ipam_type, "margay-ipam") == 0 || strcmp(c->ipam_type, "calico-ipam") == 0) {
        return 0;
    }
    int code = delegate_run(r, c->ipam_type, "DEL", r->stdin_text, r->stdin_bytes,
                            now_ms() + r->answer_ms, out, &n);
    return code == 0 ? 0 : print_answer(out, n, code, f);
}

/* Asks the agent; the exit code, or -1 with f. */
static int ask(struct request *r, const struct conf *c, struct fail *f) {
    const uint8_t *text = NULL;
    size_t n = 0;
    int exit_code = 1;
    if (env_open_netns(r, f) < 0) {
        return -1;
    }
    enum agent_result res = agent_call(r, &text, &n, &exit_code, f);
    if (res == AGENT_ANSWERED && r->cmd == CNI_DEL && exit_code == WIRE_EXIT_LATER) {
        return queue_del(r, c, f); /* its datastore is away, say: a runtime must not be stuck */
    }
    if (res == AGENT_ANSWERED) {
        return print_answer(text, n, exit_code, f);
    }
    if (r->cmd == CNI_DEL) {
        return queue_del(r, c, f);
    }
    if (r->cmd == CNI_STATUS) {
        f->code = CNI_NOT_AVAILABLE; /* whatever the reason, no ADD would succeed now */
    }
    return -1;
}

/* The exit code, or -1 with f. */
static int run(struct request *r, struct conf *c, struct fail *f) {
    struct fail conf_fail = {0};
    if (env_command(&r->cmd, f) < 0 || read_stdin(&r->stdin_bytes, f) < 0) {
        return -1;
    }
    r->stdin_text = stdin_text;
    int conf_rc = conf_parse(stdin_text, r->stdin_bytes, c, &conf_fail);
    if (r->cmd == CNI_VERSION) {
        /* Asked before there is a network: environment and configuration may be anything. */
        int rc = print_versions(c->version);
        return rc < 0 ? fail_set(f, CNI_IO, "", "writing to stdout: %s", strerror(-rc)) : 0;
    }
    if (conf_rc < 0) {
        memset(c->socket, 0, sizeof(c->socket));
        memset(c->state_dir, 0, sizeof(c->state_dir));
    }
    if (env_read(r, c, f) < 0) {
        return -1;
    }
    if (conf_rc < 0) {
        *f = conf_fail;
        return -1;
    }
    return check_conf(c, r->cmd, f) < 0 ? -1 : ask(r, c, f);
}

int main(int argc, char **argv) {
    static struct conf c;
    struct fail f = {0};
    struct request r = {.version = c.version, .netns_fd = -1};
    char out[4096];
    fill_std_fds();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* if ignored, a delegated plugin's exit code would be lost */
    const char *program = program_name(argc > 0 ? argv[0] : NULL);
    if (argc > 1 && (strcmp(argv[1], "-v") == 0 || strcmp(argv[1], "--version") == 0)) {
        return printf("%s %s\n", program, MARGAY_VERSION) < 0 ? 1 : 0;
    }
    r.strings[WIRE_PROGRAM] = program;
    r.is_ipam = strstr(program, "-ipam") != NULL;
    int64_t start = now_ms();
    int rc = run(&r, &c, &f);
    plugin_close(&r.netns_fd);
    if (r.cmd != CNI_VERSION) {
        plugin_log(&c, &r, rc == 0 ? NULL : &f, now_ms() - start);
    }
    if (rc >= 0) {
        return rc;
    }
    size_t n = fail_json(&f, c.version, out, sizeof(out));
    return print_all((const uint8_t *)out, n) < 0 ? 2 : 1;
}
