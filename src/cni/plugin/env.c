/* Checks what the runtime says in the environment before anything uses it, and opens the pod's
 * network namespace. */
#include "cni/plugin/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#define CONTAINERID_MAX 255
#define IFNAME_MAX 15 /* IFNAMSIZ - 1 */

static const char *const commands[] = {
    [CNI_ADD] = "ADD", [CNI_DEL] = "DEL",       [CNI_CHECK] = "CHECK",
    [CNI_GC] = "GC",   [CNI_STATUS] = "STATUS", [CNI_VERSION] = "VERSION",
};

/* How long the agent may take. kubelet gives up after 120 s; ours must be the better message. */
static const int64_t answer_ms[] = {
    [CNI_ADD] = 110000, [CNI_DEL] = 60000,   [CNI_CHECK] = 60000,
    [CNI_GC] = 110000,  [CNI_STATUS] = 5000, [CNI_VERSION] = 0,
};

/* A variable's value, "" if it isn't set. */
static const char *env(const char *name) {
    const char *v = getenv(name);
    return v == NULL ? "" : v;
}

int env_command(enum cni_command *cmd, struct fail *f) {
    const char *v = env("CNI_COMMAND");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(v, commands[i]) == 0) {
            *cmd = (enum cni_command)i;
            return 0;
        }
    }
    const char *help = "a container runtime runs this program, with ADD, DEL, CHECK, GC, STATUS or "
                       "VERSION in CNI_COMMAND";
    if (v[0] == '\0') {
        return fail_set(f, CNI_BAD_ENV, help, "CNI_COMMAND is not set");
    }
    return fail_set(f, CNI_BAD_ENV, help, "CNI_COMMAND \"%.64s\" is unknown", v);
}

bool is_cni_name(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char c = s[i], low = (char)(c | 0x20);
        bool is_alnum = (c >= '0' && c <= '9') || (low >= 'a' && low <= 'z');
        if (!is_alnum && (i == 0 || (c != '_' && c != '.' && c != '-'))) {
            return false;
        }
    }
    return n > 0;
}

static int check_container_id(const char *v, struct fail *f) {
    size_t n = strlen(v);
    if (n == 0) {
        return fail_set(f, CNI_BAD_ENV, "the runtime must set it", "CNI_CONTAINERID is not set");
    }
    if (n > CONTAINERID_MAX) {
        return fail_set(f, CNI_BAD_ENV, "at most 255", "CNI_CONTAINERID is %zu bytes long", n);
    }
    if (!is_cni_name(v, n)) {
        return fail_set(f, CNI_BAD_ENV, "a letter or digit, then letters, digits, '_', '.' and '-'",
                        "CNI_CONTAINERID \"%s\" is not valid", v);
    }
    return 0;
}

/* As the kernel's dev_valid_name(), and no control characters. */
static int check_ifname(const char *v, struct fail *f) {
    size_t n = strlen(v);
    bool ok = n <= IFNAME_MAX && strcmp(v, ".") != 0 && strcmp(v, "..") != 0;
    if (n == 0) {
        return fail_set(f, CNI_BAD_ENV, "the runtime must set it", "CNI_IFNAME is not set");
    }
    for (size_t i = 0; i < n && ok; i++) {
        uint8_t c = (uint8_t)v[i];
        ok = c > ' ' && c != 0x7f && c != 0xa0 && c != '/' && c != ':';
    }
    if (!ok) {
        return fail_set(f, CNI_BAD_ENV, "1 to 15 bytes, no '/', ':' or space, not \".\" or \"..\"",
                        "CNI_IFNAME \"%.64s\" is not valid", v);
    }
    return 0;
}

static int check_length(const char *name, const char *v, size_t max, struct fail *f) {
    size_t n = strlen(v);
    if (n > max) {
        return fail_set(f, CNI_BAD_ENV, "shorten it", "%s is %zu bytes long, more than %zu", name,
                        n, max);
    }
    return 0;
}

/* The three variables that name a container's interface. */
static int read_container(struct request *r, struct fail *f) {
    const char *id = env("CNI_CONTAINERID"), *netns = env("CNI_NETNS"), *ifname = env("CNI_IFNAME");
    if (check_container_id(id, f) < 0 || check_ifname(ifname, f) < 0 ||
        check_length("CNI_NETNS", netns, WIRE_SMALL_MAX - 1, f) < 0) {
        return -1;
    }
    if (netns[0] == '\0' && r->cmd != CNI_DEL) {
        return fail_set(f, CNI_BAD_ENV, "the runtime must set it", "CNI_NETNS is not set");
    }
    r->strings[WIRE_CONTAINERID] = id;
    r->strings[WIRE_NETNS] = netns;
    r->strings[WIRE_IFNAME] = ifname;
    return 0;
}

/* Environment before configuration before default; must be absolute and fit. */
static int read_path(const char *name, const char *field, const char *from_conf,
                     const char *otherwise, size_t cap, const char **to, struct fail *f) {
    const char *v = env(name);
    bool from_env = v[0] != '\0';
    if (!from_env) {
        v = from_conf[0] != '\0' ? from_conf : otherwise;
    }
    if (v[0] != '/' || strlen(v) >= cap) {
        return fail_set(f, from_env ? CNI_BAD_ENV : CNI_BAD_CONFIG,
                        "it must begin with / and be short enough",
                        "%s \"%.300s\" is not an absolute path of at most %zu bytes",
                        from_env ? name : field, v, cap - 1);
    }
    *to = v;
    return 0;
}

static int read_answer_ms(struct request *r, struct fail *f) {
    const char *v = env("MARGAY_AGENT_TIMEOUT_MS");
    size_t n = strlen(v);
    r->answer_ms = answer_ms[r->cmd];
    if (n == 0) {
        return 0;
    }
    if (n > 6 || strspn(v, "0123456789") != n || v[0] == '0') {
        return fail_set(f, CNI_BAD_ENV, "1 to 999999",
                        "MARGAY_AGENT_TIMEOUT_MS \"%.32s\" is not a number of milliseconds", v);
    }
    r->answer_ms = strtol(v, NULL, 10);
    return 0;
}

int env_read(struct request *r, const struct conf *c, struct fail *f) {
    bool has_container = r->cmd == CNI_ADD || r->cmd == CNI_DEL || r->cmd == CNI_CHECK;
    const char *args = env("CNI_ARGS");
    r->cni_path = env("CNI_PATH");
    r->strings[WIRE_COMMAND] = commands[r->cmd];
    r->strings[WIRE_CONTAINERID] = r->strings[WIRE_NETNS] = r->strings[WIRE_IFNAME] = "";
    r->strings[WIRE_ARGS] = args;
    r->strings[WIRE_PATH] = r->cni_path;
    if (has_container && read_container(r, f) < 0) {
        return -1;
    }
    if (check_length("CNI_ARGS", args, WIRE_ENV_MAX, f) < 0 ||
        check_length("CNI_PATH", r->cni_path, WIRE_ENV_MAX, f) < 0 || read_answer_ms(r, f) < 0) {
        return -1;
    }
    if (read_path("MARGAY_AGENT_SOCKET", "socket", c->socket, WIRE_SOCKET_DEFAULT,
                  sizeof(c->socket), &r->socket, f) < 0) {
        return -1;
    }
    return read_path("MARGAY_STATE_DIR", "state_dir", c->state_dir, WIRE_STATE_DIR_DEFAULT,
                     sizeof(c->state_dir), &r->state_dir, f);
}

int env_open_netns(struct request *r, struct fail *f) {
    const char *path = r->strings[WIRE_NETNS];
    struct statfs fs;
    if (path[0] == '\0' || r->is_ipam) {
        return 0;
    }
    /* O_NONBLOCK: a FIFO must not hold us up */
    MG_CLEANUP(plugin_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int e = errno;
    bool is_netns = fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == NSFS_MAGIC &&
                    ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET;
    if (is_netns) {
        r->netns_fd = TAKE_FD(fd);
        return 0;
    }
    if (r->cmd == CNI_DEL) {
        return 0; /* the pod's namespace is gone: what is left is for the agent to clear */
    }
    if (fd < 0) {
        bool is_gone = e == ENOENT || e == ENOTDIR;
        return fail_set(f, is_gone ? CNI_UNKNOWN_CONTAINER : CNI_BAD_ENV,
                        is_gone ? "the container has ended, or the runtime names another path"
                                : "the plugin must be able to open the namespace",
                        "network namespace CNI_NETNS=%.400s: %s", path, strerror(e));
    }
    return fail_set(f, CNI_BAD_ENV, "it must be a file such as /proc/PID/ns/net, or a mount of one",
                    "CNI_NETNS=%.400s is not a network namespace", path);
}
