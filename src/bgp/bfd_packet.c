/* Control packets of BFD: bytes to struct and back, and the names of states and diagnostics. */
#include "bgp/bfd.h"

#include "base/err.h"
#include "bgp/wire.h"

enum {
    FLAG_POLL = 0x20,
    FLAG_FINAL = 0x10,
    FLAG_CPI = 0x08,
    FLAG_AUTH = 0x04,
    FLAG_DEMAND = 0x02,
    FLAG_MULTIPOINT = 0x01
};

int bfd_parse(const uint8_t *p, size_t n, struct bfd_packet *out) {
    if (n < BFD_PACKET || n > BFD_PACKET_MAX || p[0] >> 5 != 1) {
        return ERR_INVALID;
    }
    struct bfd_packet k = {
        .diag = p[0] & 0x1f,
        .state = p[1] >> 6,
        .is_poll = p[1] & FLAG_POLL,
        .is_final = p[1] & FLAG_FINAL,
        .is_control_independent = p[1] & FLAG_CPI,
        .has_auth = p[1] & FLAG_AUTH,
        .is_demand = p[1] & FLAG_DEMAND,
        .is_multipoint = p[1] & FLAG_MULTIPOINT,
        .multiplier = p[2],
        .my_id = get_u32(p + 4),
        .your_id = get_u32(p + 8),
        .min_tx_us = get_u32(p + 12),
        .min_rx_us = get_u32(p + 16),
        .min_echo_rx_us = get_u32(p + 20),
    };
    size_t length = p[3];
    if (length < (k.has_auth ? BFD_PACKET + 2U : BFD_PACKET) || length > n || k.multiplier == 0 ||
        k.is_multipoint || k.my_id == 0) {
        return ERR_INVALID;
    }
    /* Without our discriminator it can only be the beginning of a session. */
    if (k.your_id == 0 && k.state != BFD_DOWN && k.state != BFD_ADMIN_DOWN) {
        return ERR_INVALID;
    }
    *out = k;
    return 0;
}

void bfd_write(const struct bfd_packet *k, uint8_t out[BFD_PACKET]) {
    out[0] = (uint8_t)(1U << 5 | k->diag);
    out[1] =
        (uint8_t)((unsigned)k->state << 6 | (k->is_poll ? FLAG_POLL : 0U) |
                  (k->is_final ? FLAG_FINAL : 0U) | (k->is_control_independent ? FLAG_CPI : 0U) |
                  (k->has_auth ? FLAG_AUTH : 0U) | (k->is_demand ? FLAG_DEMAND : 0U) |
                  (k->is_multipoint ? FLAG_MULTIPOINT : 0U));
    out[2] = k->multiplier;
    out[3] = BFD_PACKET;
    set_u32(out + 4, k->my_id);
    set_u32(out + 8, k->your_id);
    set_u32(out + 12, k->min_tx_us);
    set_u32(out + 16, k->min_rx_us);
    set_u32(out + 20, k->min_echo_rx_us);
}

const char *bfd_state_name(enum bfd_state s) {
    static const char *const NAMES[] = {"AdminDown", "Down", "Init", "Up"};
    return NAMES[s];
}

const char *bfd_diag_name(enum bfd_diag d) {
    static const char *const NAMES[] = {"no diagnostic",
                                        "detection time expired",
                                        "echo function failed",
                                        "neighbor signaled session down",
                                        "forwarding plane reset",
                                        "path down",
                                        "concatenated path down",
                                        "administratively down",
                                        "reverse concatenated path down"};
    return (size_t)d < ARRAY_LEN(NAMES) ? NAMES[d] : "unknown diagnostic";
}
