/* Packets that the kernel sends up for Log rules, the lines that are made of them, and tracked
 * connections as they are read. The first byte chooses. */
#include "netlink/conntrack.c"
#include "netlink/nflog.c"
#include "node/packetlog.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void each_message(const struct nlmsghdr *h, int left) {
    for (; nl_msg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
        struct nflog_packet p;
        struct conn c;
        if (parse(h, &p)) {
            MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 16);
            packetlog_line(&b, p.prefix, p.payload, NULL, NULL);
        }
        if (h->nlmsg_len >= NLMSG_HDRLEN + sizeof(struct nfgenmsg)) { /* as nl_dump makes sure */
            (void)read_conn(h, &c);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1) {
        return 0;
    }
    uint8_t *p = malloc(n); /* exactly as long as what came, and aligned as messages are */
    if (!p) {
        return 0;
    }
    memcpy(p, data + 1, n - 1);
    if (*data & 1) {
        each_message((const struct nlmsghdr *)(const void *)p, (int)n - 1);
    } else {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 16);
        packetlog_line(&b, STR("NetworkPolicy default a/b#0"), str_n((const char *)p, n - 1), NULL,
                       NULL);
    }
    free(p);
    return 0;
}
