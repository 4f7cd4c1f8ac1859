/* One GET by HTTP/1.1 of which only the status counts, as a kubelet's probes ask: the first status
 * line is the answer (redirects are not followed, the body is not read), and certificates are not
 * looked at, as nothing secret is sent. Nothing blocks. */
#pragma once

#include "base/err.h"
#include "base/loop.h"

struct http_probe;

enum { HTTP_PROBE_URL_MAX = 2048 };

/* Is it "http://HOST[:PORT][/PATH]" or the same with https, of visible ASCII? ERR_INVALID says what
 * is wrong. */
MG_NODISCARD int http_probe_check(struct str url, struct err *e);
/* Asks a URL that has been checked. cb comes once, not from inside: the status and "", or 0 and why
 * there is none, a text that lives as long as the probe. It may free the probe. */
struct http_probe *http_probe_new(struct loop *l, struct str url, int64_t timeout_ms,
                                  void (*cb)(void *arg, int status, const char *why), void *arg);
/* Accepts NULL; cb does not come any more. */
void http_probe_free(struct http_probe *p);
