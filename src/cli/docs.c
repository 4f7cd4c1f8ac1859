/* `margay help --docs WHAT`: the reference in Markdown, from the tables; ./dev docs writes it to
 * docs/. */
#include "cli/cli.h"

#include "node/settings.h"

#include <stdio.h>

static bool is_calico(const struct kind *k) {
    return strcmp(k->group, "projectcalico.org") == 0;
}

/* Whether one of Calico's kinds has the same plural: that one has the short name. */
static bool is_shadowed(const struct kind *k) {
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *o = &model_kinds[i];
        if (o != k && is_calico(o) && strcmp(o->plural, k->plural) == 0) {
            return true;
        }
    }
    return false;
}

/* "networkpolicies.networking.k8s.io", "nodes.v1", "ippools". */
static void put_file(struct buf *b, const struct kind *k) {
    buf_puts(b, k->plural);
    if (is_shadowed(k)) {
        buf_printf(b, ".%s", k->group[0] ? k->group : k->version);
    }
}

/* A line a kind: the word that `get` and `help --docs` take, and the name of its page. */
static void put_kinds(struct buf *b) {
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *k = &model_kinds[i];
        buf_printf(b, "%s%s%s ", k->plural, k->group[0] ? "." : "", k->group);
        put_file(b, k);
        buf_putc(b, '\n');
    }
}

static void put_index(struct buf *b) {
    buf_puts(
        b,
        "# Resources\n\nEvery kind that `margay apply` takes; each page lists its fields with "
        "type, default and what is\nallowed. A kind that Kubernetes and Calico both have is "
        "Kubernetes' when named alone: say\n`networkpolicies.projectcalico.org` for Calico's.\n\n"
        "| kind | apiVersion | scope |\n| --- | --- | --- |\n");
    for (size_t i = 0; i < K_N_KINDS; i++) {
        const struct kind *k = &model_kinds[i];
        buf_printf(b, "| [%s](", k->kind);
        put_file(b, k);
        buf_printf(b, ".md) | %s%s%s | %s |\n", k->group, k->group[0] ? "/" : "", k->version,
                   k->is_namespaced ? "namespace" : "cluster");
    }
}

static void put_settings(struct buf *b) {
    buf_puts(
        b,
        "# Settings of the agent\n\nFelix' names and Felix' order: the first place that has a "
        "value which can be understood wins.\n\n"
        "1. the environment: `FELIX_` and the name in capitals, `FELIX_HEALTHENABLED=true`\n"
        "2. the file `/etc/margay/margay.yaml` (`margay node --config FILE`): a map of the names\n"
        "3. FelixConfiguration `node.NAME`, then 4. FelixConfiguration `default`: "
        "`margay apply`, no restart\n\n"
        "A value that can't be understood is logged once (`bad_value`) and the next place "
        "counts. Other fields of\nFelixConfiguration are kept and checked, and have no effect "
        "yet.\n\n");
    settings_print(b);
}

int cli_docs(const char *what) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(16 << 20);
    if (strcmp(what, "kinds") == 0) {
        put_kinds(&b);
    } else if (strcmp(what, "index") == 0) {
        put_index(&b);
    } else if (strcmp(what, "settings") == 0) {
        put_settings(&b);
    } else if (strcmp(what, "crds") == 0) {
        for (size_t i = 0; crd_plural(i); i++) {
            buf_printf(&b, "%s\n", crd_plural(i));
        }
    } else if (strncmp(what, "crd:", 4) == 0) {
        if (!crd_print(str_c(what + 4), &b)) {
            return 1;
        }
    } else if (strcmp(what, "commands") == 0) {
        for (const struct cli_command *c = cli_commands; c->name; c++) {
            buf_printf(&b, "%s\n", c->name);
        }
    } else {
        const struct kind *k = cli_kind(what);
        if (!k) {
            return 1;
        }
        kind_print_docs(k, &b);
    }
    fwrite(b.p, 1, b.n, stdout);
    return 0;
}
