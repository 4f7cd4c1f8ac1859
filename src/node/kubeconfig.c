/* See kubeconfig.h. */
#include "node/kubeconfig.h"

#include "base/hash.h"
#include "base/jtree.h"

static void put_base64(struct buf *b, struct str s) {
    char *text = buf_reserve(b, (s.n + 2) / 3 * 4 + 1);
    if (!text) {
        return;
    }
    size_t n = base64url_encode((const uint8_t *)s.p, s.n, text);
    for (size_t i = 0; i < n; i++) {
        text[i] = text[i] == '-' ? '+' : text[i] == '_' ? '/' : text[i];
    }
    b->n += n;
    for (; n % 4; n++) {
        buf_putc(b, '=');
    }
}

void kubeconfig_put(const struct kubeconfig *c, struct buf *b) {
    buf_puts(b, "# Written by margay, and again whenever the token changes.\n"
                "apiVersion: v1\nkind: Config\nclusters:\n- name: local\n  cluster:\n"
                "    server: ");
    json_quote(b, c->server);
    if (c->is_insecure) {
        buf_puts(b, "\n    insecure-skip-tls-verify: true");
    } else if (c->ca_pem.n) {
        buf_puts(b, "\n    certificate-authority-data: ");
        put_base64(b, c->ca_pem);
    }
    buf_puts(b, "\nusers:\n- name: margay\n  user:\n    token: ");
    json_quote(b, c->token);
    buf_puts(b, "\ncontexts:\n- name: margay-context\n  context:\n    cluster: local\n"
                "    user: margay\ncurrent-context: margay-context\n");
}
