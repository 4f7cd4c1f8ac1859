/* Kubeconfig files, alone and merged, and what a credential command answers, from any bytes: no
 * crash; what is accepted is whole, what is refused has a sentence. */
#include "base/clock.h"
#include "store/kube_config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(bool ok) {
    if (!ok) {
        abort();
    }
}

static void try_config(struct str text, size_t cut) {
    struct arena a = {0};
    struct kube_config c;
    struct err e = {0};
    struct kube_text parts[2] = {{STR("/a/config"), str_sub(text, 0, cut)},
                                 {STR("/b"), str_sub(text, cut, text.n)}};
    size_t n = cut < text.n && cut ? 2 : 1;
    if (n == 1) {
        parts[0].text = text;
    }
    if (kube_config_parse(parts, n, STR_NULL, &a, &c, &e) < 0) {
        check(e.msg[0] != '\0');
    } else {
        check(c.server.n > 0 && c.context.n > 0);
        check(str_starts(c.server, STR("http://")) || str_starts(c.server, STR("https://")));
        check(!c.ca_file.n || c.ca_file.p[0] == '/');
        check(c.exec.n_args <= KUBE_EXEC_ARGS_MAX && c.exec.n_env <= KUBE_EXEC_ARGS_MAX);
        check(!c.exec.command.n || c.exec.api_version.n > 0);
        check((c.cert_file.n || c.cert_pem.n) == (c.key_file.n || c.key_pem.n));
    }
    arena_fini(&a);
}

static void try_credential(struct str text) {
    struct kube_config c = {
        .exec = {.command = STR("login"), .api_version = STR("client.authentication.k8s.io/v1")}};
    struct kube_auth au = {0};
    struct err e = {0};
    if (kube_auth_parse(&c, text, &au, &e) < 0) {
        check(e.msg[0] && !au.header && !au.cert_pem);
    } else {
        check(au.header || (au.cert_pem && au.key_pem));
        for (const char *p = au.header; p && *p; p++) {
            check((unsigned char)*p >= 0x20);
        }
    }
    kube_auth_fini(&au);
    (void)clock_parse_rfc3339(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) {
        return 0;
    }
    struct str text = str_n((const char *)data + 2, n - 2);
    if (data[0] % 4 == 0) {
        try_credential(text);
    } else {
        try_config(text, data[0] % 4 == 1 ? 0 : text.n * data[1] / 255);
    }
    return 0;
}
