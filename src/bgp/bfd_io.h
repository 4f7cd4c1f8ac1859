/* BFD's sockets and timer: the engine of bfd.h on an event loop. RFC 5881 section 4 and 5: source
 * ports of a session are its own, from 49152 up; TTL 255 out, and asked for on single hops. */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "bgp/bfd.h"

struct bfd_io;

/* Called when a session's state has changed; user as given to bfd_io_add. Sessions may be added and
 * removed inside. */
typedef void (*bfd_io_on_state)(void *arg, void *user, const struct bfd_status *s, bool is_failure);

struct bfd_io *bfd_io_new(struct loop *l, bfd_io_on_state cb, void *arg);
void bfd_io_free(struct bfd_io *io); /* accepts NULL; peers are told AdminDown */

/* Opens what the session needs. NULL with e: a port is taken by another program, the address is not
 * ours, BFD_SESSIONS_MAX. */
struct bfd_session *bfd_io_add(struct bfd_io *io, const struct bfd_config *c, void *user,
                               struct err *e);
void bfd_io_change(struct bfd_io *io, struct bfd_session *s, const struct bfd_config *c);
void bfd_io_del(struct bfd_io *io, struct bfd_session *s); /* accepts NULL */
/* user as given to bfd_io_add. */
void *bfd_io_user(const struct bfd_session *s);
