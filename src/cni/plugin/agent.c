/* The conversation with the agent (cni/wire.h): connect, send the request with the namespace, run
 * what the agent delegates, take its answer. Every wait has an end. */
#include "cni/plugin/plugin.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define CONNECT_MS 2000 /* an agent that restarts is back by then */
#define DETAILS_AWAY "is the agent running? start it: margay node (systemctl start margay)"

static uint8_t frame[WIRE_HEADER_BYTES + WIRE_BODY_MAX];
static uint8_t answer[WIRE_BODY_MAX];

int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits until fd can be read or written: 0, -ETIMEDOUT, -errno. */
static int wait_for(int fd, short events, int64_t deadline) {
    for (;;) {
        int64_t left = deadline - now_ms();
        struct pollfd p = {fd, events, 0};
        int n = poll(&p, 1, left > 0 ? (int)left : 0);
        if (n > 0) {
            return 0;
        }
        if (n == 0) {
            return -ETIMEDOUT;
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

/* Sends all; netns_fd, if there is one, goes with the first byte. */
static int send_all(int fd, const uint8_t *p, size_t n, int netns_fd, int64_t deadline) {
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    while (n > 0) {
        struct iovec iov = {(void *)(uintptr_t)p, n};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
        if (netns_fd >= 0) {
            memset(&control, 0, sizeof(control));
            m.msg_control = &control;
            m.msg_controllen = sizeof(control.space);
            struct cmsghdr *c = CMSG_FIRSTHDR(&m);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(sizeof(int));
            memcpy(CMSG_DATA(c), &netns_fd, sizeof(int));
        }
        ssize_t k = sendmsg(fd, &m, MSG_NOSIGNAL);
        if (k > 0) {
            p += k;
            n -= (size_t)k;
            netns_fd = -1;
        } else if (k == 0 || (errno != EAGAIN && errno != EINTR)) {
            return k == 0 ? -EIO : -errno;
        } else {
            int rc = wait_for(fd, POLLOUT, deadline);
            if (rc < 0) {
                return rc;
            }
        }
    }
    return 0;
}

/* Receives exactly n bytes; -ECONNRESET if the agent ends before. */
static int recv_all(int fd, uint8_t *p, size_t n, int64_t deadline) {
    while (n > 0) {
        ssize_t k = recv(fd, p, n, 0);
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else if (k == 0) {
            return -ECONNRESET;
        } else if (errno != EAGAIN && errno != EINTR) {
            return -errno;
        } else {
            int rc = wait_for(fd, POLLIN, deadline);
            if (rc < 0) {
                return rc;
            }
        }
    }
    return 0;
}

/* One try: a descriptor or -errno. */
static int connect_once(const struct request *r) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    MG_CLEANUP(plugin_close)
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    memcpy(a.sun_path, r->socket, strlen(r->socket) + 1); /* length checked by env_read */
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        return -errno;
    }
    return TAKE_FD(fd);
}

/* DEL has the spool and STATUS asks about now: neither waits. */
static int connect_agent(const struct request *r) {
    int64_t deadline = now_ms() + (r->cmd == CNI_DEL || r->cmd == CNI_STATUS ? 0 : CONNECT_MS);
    long pause_ms = 5;
    for (;;) {
        int fd = connect_once(r);
        bool may_come = fd == -ENOENT || fd == -ECONNREFUSED || fd == -EAGAIN || fd == -EINTR;
        if (fd >= 0 || !may_come || now_ms() >= deadline) {
            return fd;
        }
        struct timespec t = {0, pause_ms * 1000000};
        nanosleep(&t, NULL);
        pause_ms = pause_ms < 40 ? pause_ms * 2 : 40;
    }
}

size_t request_encode(const struct request *r, bool with_netns, uint8_t *out) {
    uint8_t *p = wire_put_u32(out + WIRE_HEADER_BYTES, with_netns ? WIRE_FLAG_NETNS : 0);
    for (size_t i = 0; i < WIRE_STDIN; i++) {
        p = wire_put_str(p, r->strings[i], strlen(r->strings[i]));
    }
    p = wire_put_str(p, r->stdin_text, r->stdin_bytes);
    size_t n = (size_t)(p - out);
    wire_put_header(out, WIRE_REQUEST, (uint32_t)(n - WIRE_HEADER_BYTES));
    return n;
}

static enum agent_result lost(const struct request *r, int rc, struct fail *f) {
    if (rc == -ETIMEDOUT) {
        fail_set(f, CNI_TRY_LATER, "look at the agent's log; the runtime will try again",
                 "the agent at %s gave no answer in %lld ms", r->socket, (long long)r->answer_ms);
    } else {
        fail_set(f, CNI_TRY_LATER, "look at the agent's log; the runtime will try again",
                 "the agent at %s went away before it answered: %s", r->socket, strerror(-rc));
    }
    return AGENT_LOST;
}

static enum agent_result odd(const struct request *r, const char *what, struct fail *f) {
    fail_set(f, CNI_IO, "margay-cni and margay must be of the same release: install both again",
             "the agent at %s answered %s", r->socket, what);
    return AGENT_ODD;
}

static bool is_command(const char *s) {
    return strcmp(s, "ADD") == 0 || strcmp(s, "DEL") == 0 || strcmp(s, "CHECK") == 0 ||
           strcmp(s, "GC") == 0 || strcmp(s, "STATUS") == 0;
}

/* Carries out one DELEGATE, of n bytes in `answer`, and sends what came of it. */
static enum agent_result delegate(const struct request *r, int fd, size_t n, int64_t deadline,
                                  struct fail *f) {
    struct wire_cursor c = {answer, n};
    const uint8_t *s[3];
    size_t len[3];
    char type[256], command[16];
    if (wire_take_str(&c, sizeof(type) - 1, &s[0], &len[0]) < 0 ||
        wire_take_str(&c, sizeof(command) - 1, &s[1], &len[1]) < 0 ||
        wire_take_str(&c, WIRE_TEXT_MAX, &s[2], &len[2]) < 0 || c.n != 0) {
        return odd(r, "a delegation that can't be read", f);
    }
    memcpy(type, s[0], len[0]);
    type[len[0]] = '\0';
    memcpy(command, s[1], len[1]);
    command[len[1]] = '\0';
    if (!is_cni_name(type, len[0]) || !is_command(command) || strlen(command) != len[1]) {
        return odd(r, "a delegation to a plugin or command that can't be one", f);
    }
    size_t out_bytes = 0;
    uint8_t *out = frame + WIRE_HEADER_BYTES + 4;
    int code = delegate_run(r, type, command, s[2], len[2], deadline, out, &out_bytes);
    wire_put_header(frame, WIRE_DELEGATED, (uint32_t)(4 + out_bytes));
    wire_put_u32(frame + WIRE_HEADER_BYTES, (uint32_t)code);
    int rc = send_all(fd, frame, WIRE_HEADER_BYTES + 4 + out_bytes, -1, deadline);
    return rc < 0 ? lost(r, rc, f) : AGENT_ANSWERED;
}

/* Frames from the agent until its answer. */
static enum agent_result converse(const struct request *r, int fd, int64_t deadline, size_t *n,
                                  struct fail *f) {
    for (unsigned n_delegates = 0;;) {
        uint8_t header[WIRE_HEADER_BYTES];
        uint32_t type = 0, body_bytes = 0;
        int rc = recv_all(fd, header, sizeof(header), deadline);
        if (rc < 0) {
            return lost(r, rc, f);
        }
        if (wire_header(header, &type, &body_bytes) < 0) {
            return odd(r, "something that is no frame", f);
        }
        rc = recv_all(fd, answer, body_bytes, deadline);
        if (rc < 0) {
            return lost(r, rc, f);
        }
        if (type == WIRE_ANSWER && body_bytes >= 4 && body_bytes - 4 <= WIRE_TEXT_MAX) {
            *n = body_bytes;
            return AGENT_ANSWERED;
        }
        if (type != WIRE_DELEGATE) {
            return odd(r, "a frame that is no answer", f);
        }
        if (++n_delegates > WIRE_DELEGATES_MAX) {
            return odd(r, "with too many delegations", f);
        }
        enum agent_result res = delegate(r, fd, body_bytes, deadline, f);
        if (res != AGENT_ANSWERED) {
            return res;
        }
    }
}

enum agent_result agent_call(const struct request *r, const uint8_t **text, size_t *n,
                             int *exit_code, struct fail *f) {
    struct ucred peer = {0};
    socklen_t peer_bytes = sizeof(peer);
    size_t body_bytes = 0;
    MG_CLEANUP(plugin_close) int fd = connect_agent(r);
    if (fd < 0) {
        fail_set(f, r->cmd == CNI_STATUS ? CNI_NOT_AVAILABLE : CNI_TRY_LATER, DETAILS_AWAY,
                 "no agent at %s: %s", r->socket, strerror(-fd));
        return AGENT_AWAY;
    }
    /* The agent gets secrets of the configuration and has us run programs. */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) < 0 ||
        (peer.uid != 0 && peer.uid != geteuid())) {
        fail_set(f, CNI_IO, "the agent must run as root; who else listens there?",
                 "%s belongs to a process of user %lld", r->socket, (long long)peer.uid);
        return AGENT_ODD;
    }
    int64_t deadline = now_ms() + r->answer_ms;
    size_t len = request_encode(r, r->netns_fd >= 0, frame);
    int rc = send_all(fd, frame, len, r->netns_fd, deadline);
    if (rc < 0) {
        return lost(r, rc, f);
    }
    enum agent_result res = converse(r, fd, deadline, &body_bytes, f);
    if (res != AGENT_ANSWERED) {
        return res;
    }
    uint32_t code = wire_u32(answer);
    *exit_code = code > 255 ? 1 : (int)code;
    *text = answer + 4;
    *n = body_bytes - 4;
    if (code != 0 && *n == 0) {
        return odd(r, "with a failure without a reason", f);
    }
    return AGENT_ANSWERED;
}
