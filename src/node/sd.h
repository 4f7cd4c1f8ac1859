/* sd_notify(3) without libsystemd: one datagram. */
#pragma once

/* Does nothing when NOTIFY_SOCKET is not set. */
void sd_notify_state(const char *state);
