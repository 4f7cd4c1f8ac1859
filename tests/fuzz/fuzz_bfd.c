/* BFD: a session of any datagrams, times and commands. No crash; what is accepted is written back
 * the same; and the engine always says when it wants to be called next. */
#include "bgp/bfd.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct line {
    struct bfd_session *s;
    uint8_t id[4]; /* our discriminator as we send it */
};

static void on_send(void *arg, struct bfd_session *s, const uint8_t p[BFD_PACKET]) {
    struct line *l = arg;
    struct bfd_packet k;
    (void)s;
    memcpy(l->id, p + 4, 4);
    if (bfd_parse(p, BFD_PACKET, &k) < 0 && k.your_id != 0) {
        abort();
    }
}

static void on_state(void *arg, struct bfd_session *s, bool is_failure) {
    (void)arg;
    (void)s;
    (void)is_failure;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct bfd_ops ops = {on_send, on_state};
    struct bfd_config c = {.peer = {.family = IP_V4, .b = {192, 0, 2, 2}},
                           .min_tx_us = 100000,
                           .min_rx_us = 100000,
                           .multiplier = 3};
    struct bfd_meta m = {.from = c.peer, .ttl = 255};
    struct line l = {0};
    struct bfd *b = bfd_new(&ops, &l, 1);
    int64_t now = 1;
    l.s = bfd_add(b, &c, NULL, now);
    while (n >= 2) {
        uint8_t what = data[0];
        size_t len = data[1] > n - 2 ? n - 2 : data[1];
        uint8_t p[256];
        memcpy(p, data + 2, len);
        data += 2 + len;
        n -= 2 + len;
        now += (int64_t)(what >> 3) * 50000000;
        if ((what & 1) && len >= 12) {
            memcpy(p + 8, l.id, 4); /* else nothing but the first packet gets far */
        }
        if ((what & 6) == 6) {
            c.min_tx_us = (uint32_t)len * 1000 + 1;
            c.min_rx_us = (uint32_t)what * 1000 + 1;
            bfd_change(b, l.s, &c, now);
        } else {
            bfd_input(b, p, len, &m, now);
        }
        bfd_tick(b, now);
        if (bfd_next_ns(b) <= now) {
            abort();
        }
    }
    bfd_del(b, l.s, now);
    bfd_free(b);
    return 0;
}
