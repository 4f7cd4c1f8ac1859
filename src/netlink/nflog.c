#include "netlink/nflog.h"

#include "base/attr.h"
#include "base/fd.h"
#include "netlink/nl.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RCVBUF = 256 << 10, HEAD_BYTES = 128, FLUSH_HUNDREDTHS = 5, BATCH_PACKETS = 32 };

static int bind_group(int fd, uint16_t group, struct err *e) {
    char buf[256] = {0};
    struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
    h->nlmsg_type = (NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_CONFIG;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
    g->nfgen_family = AF_UNSPEC;
    g->res_id = htons(group);
    struct nfulnl_msg_config_cmd cmd = {.command = NFULNL_CFG_CMD_BIND};
    mnl_attr_put(h, NFULA_CFG_CMD, sizeof(cmd), &cmd);
    struct nfulnl_msg_config_mode mode = {.copy_range = htonl(HEAD_BYTES),
                                          .copy_mode = NFULNL_COPY_PACKET};
    mnl_attr_put(h, NFULA_CFG_MODE, sizeof(mode), &mode);
    mnl_attr_put_u16(h, NFULA_CFG_FLAGS, htons(NFULNL_CFG_F_SEQ));
    mnl_attr_put_u32(h, NFULA_CFG_TIMEOUT, htonl(FLUSH_HUNDREDTHS));
    mnl_attr_put_u32(h, NFULA_CFG_QTHRESH, htonl(BATCH_PACKETS));
    if (send(fd, h, h->nlmsg_len, 0) < 0) {
        return err_set(e, -errno, "NFLOG: %s", strerror(errno));
    }
    /* The kernel answers within the call. */
    char rx[1024];
    ssize_t n = recv(fd, rx, sizeof(rx), MSG_DONTWAIT);
    const struct nlmsghdr *a = (const void *)rx;
    if (n < 0 || !nl_msg_ok(a, (int)n) || a->nlmsg_type != NLMSG_ERROR ||
        mnl_nlmsg_get_payload_len(a) < sizeof(struct nlmsgerr)) {
        return err_set(e, -EPROTO, "NFLOG: no answer");
    }
    int r = ((const struct nlmsgerr *)mnl_nlmsg_get_payload(a))->error;
    return r ? err_set(e, r, "NFLOG group %u: %s", group, strerror(-r)) : 0;
}

int nflog_open(uint16_t group, int *out, struct err *e) {
    MG_CLEANUP(fd_close)
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
    struct sockaddr_nl sa = {.nl_family = AF_NETLINK};
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        return err_set(e, -errno, "NFLOG: %s", strerror(errno));
    }
    (void)!setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){RCVBUF}, sizeof(int));
    int r = bind_group(fd, group, e);
    if (r == 0) {
        *out = TAKE_FD(fd);
    }
    return r;
}

static bool parse(const struct nlmsghdr *h, struct nflog_packet *p) {
    if ((h->nlmsg_type >> 8) != NFNL_SUBSYS_ULOG || (h->nlmsg_type & 0xff) != NFULNL_MSG_PACKET) {
        return false;
    }
    const struct nlattr *tb[NFULA_SEQ_GLOBAL + 1];
    nl_attrs(h, sizeof(struct nfgenmsg), tb, NFULA_SEQ_GLOBAL);
    *p = (struct nflog_packet){.in = (int)ntohl(nl_attr_u32(tb[NFULA_IFINDEX_INDEV], 0)),
                               .out = (int)ntohl(nl_attr_u32(tb[NFULA_IFINDEX_OUTDEV], 0)),
                               .seq = ntohl(nl_attr_u32(tb[NFULA_SEQ], 0))};
    if (tb[NFULA_PREFIX]) {
        const char *text = nl_attr_data(tb[NFULA_PREFIX], 0);
        p->prefix = str_n(text, strnlen(text, nl_attr_bytes(tb[NFULA_PREFIX])));
    }
    if (tb[NFULA_PAYLOAD]) {
        p->payload = str_n(nl_attr_data(tb[NFULA_PAYLOAD], 0), nl_attr_bytes(tb[NFULA_PAYLOAD]));
    }
    return true;
}

size_t nflog_read(int fd, size_t max, void (*cb)(void *arg, const struct nflog_packet *p),
                  void *arg, bool *is_lost) {
    char rx[32768] __attribute__((aligned(8)));
    size_t n_told = 0;
    *is_lost = false;
    while (n_told < max) {
        ssize_t n = recv(fd, rx, sizeof(rx), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == ENOBUFS) {
            *is_lost = true;
            continue;
        }
        if (n <= 0) {
            break;
        }
        int left = (int)n;
        for (const struct nlmsghdr *h = (const void *)rx; nl_msg_ok(h, left);
             h = mnl_nlmsg_next(h, &left)) {
            struct nflog_packet p;
            if (parse(h, &p)) {
                cb(arg, &p);
                n_told++;
            }
        }
    }
    return n_told;
}
