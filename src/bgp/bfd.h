/* Bidirectional Forwarding Detection (RFC 5880), asynchronous mode, single hop (5881) and multihop
 * (5883): sessions as state machines. Bytes and time in, bytes and events out; no sockets and no
 * clock (bfd_io.h has them). Authentication, demand mode and echo are not offered, as in most
 * daemons for BGP; packets that use them are answered as the RFC says. */
#pragma once

#include "base/ip.h"

enum {
    BFD_PORT = 3784,          /* single hop */
    BFD_PORT_MULTIHOP = 4784, /* RFC 5883 */
    BFD_PACKET = 24,
    BFD_PACKET_MAX = 512, /* more in one datagram is no BFD */
    BFD_SESSIONS_MAX = 16384,
    BFD_MULTIPLIER_DEFAULT = 3,
    BFD_INTERVAL_DEFAULT_US = 300000,
};

/* The values of the wire. */
enum bfd_state { BFD_ADMIN_DOWN, BFD_DOWN, BFD_INIT, BFD_UP };

enum bfd_diag {
    BFD_DIAG_NONE,
    BFD_DIAG_EXPIRED,
    BFD_DIAG_ECHO,
    BFD_DIAG_NEIGHBOUR_DOWN,
    BFD_DIAG_FORWARDING,
    BFD_DIAG_PATH_DOWN,
    BFD_DIAG_CONCATENATED,
    BFD_DIAG_ADMIN_DOWN,
    BFD_DIAG_REVERSE,
};

/* The mandatory section of a control packet (RFC 5880 section 4.1). */
struct bfd_packet {
    uint8_t diag, state, multiplier;
    bool is_poll, is_final, is_control_independent, has_auth, is_demand, is_multipoint;
    uint32_t my_id, your_id;
    uint32_t min_tx_us, min_rx_us, min_echo_rx_us;
};

/* Reads a datagram and makes the checks of section 6.8.6 that need no session: version, lengths,
 * multiplier, M bit, discriminators. 0 or ERR_INVALID. */
MG_NODISCARD int bfd_parse(const uint8_t *p, size_t n, struct bfd_packet *out);
/* Writes BFD_PACKET bytes. */
void bfd_write(const struct bfd_packet *k, uint8_t out[BFD_PACKET]);

struct bfd_config {
    struct ip46 peer, local; /* local IP_NONE: any */
    int ifindex;             /* single hop: of the interface; 0: any */
    bool is_multihop;
    uint32_t min_tx_us, min_rx_us; /* > 0 */
    uint8_t multiplier;            /* > 0 */
};

struct bfd_session;

/* What an operator sees, and what an event tells. */
struct bfd_status {
    enum bfd_state state, remote_state;
    enum bfd_diag diag, remote_diag;
    int64_t since_ns;                 /* of the state */
    uint32_t id, remote_id;           /* discriminators */
    uint32_t tx_us, detection_us;     /* as negotiated; detection 0: nothing was heard yet */
    uint64_t n_in, n_out, n_failures; /* packets; falls from Up that are failures */
};

struct bfd_ops {
    /* Sends BFD_PACKET bytes to the session's peer. */
    void (*send)(void *arg, struct bfd_session *s, const uint8_t p[BFD_PACKET]);
    /* The state has changed. is_failure: the path was up and is not, and the peer's operator has
     * not asked for it (RFC 5882 section 3.2: AdminDown is no failure). bfd_del of any session is
     * allowed inside. */
    void (*on_state)(void *arg, struct bfd_session *s, bool is_failure);
};

struct bfd;

/* seed: of discriminators and jitter; the same seed gives the same packets. */
struct bfd *bfd_new(const struct bfd_ops *ops, void *arg, uint64_t seed);
void bfd_free(struct bfd *b); /* accepts NULL; sends nothing */

/* A session, active, in Down. NULL: BFD_SESSIONS_MAX reached. user: the caller's, bfd_user. */
struct bfd_session *bfd_add(struct bfd *b, const struct bfd_config *c, void *user, int64_t now_ns);
/* Tells the peer AdminDown once and forgets the session; no event. */
void bfd_del(struct bfd *b, struct bfd_session *s, int64_t now_ns);
/* New intervals: by a poll sequence while Up (section 6.8.3). Addresses must be the same. */
void bfd_change(struct bfd *b, struct bfd_session *s, const struct bfd_config *c, int64_t now_ns);
void *bfd_user(const struct bfd_session *s);
const struct bfd_config *bfd_config_of(const struct bfd_session *s);
void bfd_status_get(const struct bfd_session *s, struct bfd_status *out);

/* How a datagram came. */
struct bfd_meta {
    struct ip46 from, to; /* to: the address it was sent to */
    int ifindex;
    int ttl;          /* or hop limit; -1: not known, which is refused where the RFC asks for 255 */
    bool is_multihop; /* by its port */
};
/* A datagram. What is malformed or belongs to no session is dropped and counted. */
void bfd_input(struct bfd *b, const uint8_t *p, size_t n, const struct bfd_meta *m, int64_t now_ns);
/* When bfd_tick must be called at the latest; INT64_MAX: never. */
int64_t bfd_next_ns(const struct bfd *b);
/* Sends what is due, and notices silence. */
void bfd_tick(struct bfd *b, int64_t now_ns);
/* Datagrams dropped so far. */
uint64_t bfd_dropped(const struct bfd *b);

const char *bfd_state_name(enum bfd_state s);
const char *bfd_diag_name(enum bfd_diag d);
