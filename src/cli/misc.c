/* selector, version, completion, help. */
#include "cli/cli.h"

#include "base/vec.h"
#include "policy/selector.h"

#include <stdio.h>
#include <stdlib.h>

static int label_cmp(const void *a, const void *b) {
    return str_cmp(((const struct label *)a)->key, ((const struct label *)b)->key);
}

int cmd_selector(int argc, char **argv) {
    bool is_match = argc > 1 && strcmp(argv[1], "match") == 0;
    bool is_parse = argc > 1 && strcmp(argv[1], "parse") == 0;
    if ((!is_match && !is_parse) || argc < 3 || argc > (is_match ? 4 : 3)) {
        return cli_usage("selector", "expected: parse 'SELECTOR', or match 'SELECTOR' k=v,k2=v2");
    }
    struct arena a = {0};
    const struct selector *s = NULL;
    struct err e;
    int rc = 1;
    VEC(struct label) labels = {0};
    if (selector_parse(str_c(argv[2]), SELECTOR_MAX_BYTES, &a, &s, &e) < 0) {
        cli_error("%s", e.msg);
    } else if (is_parse) {
        MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
        selector_print(s, &b);
        printf("%.*s\n", STR_FMT(buf_view(&b)));
        rc = 0;
    } else {
        struct str rest = argc > 3 ? str_c(argv[3]) : STR_NULL;
        bool ok = true;
        while (rest.p && rest.n && ok) {
            struct str one = str_cut(&rest, ',');
            ptrdiff_t eq = str_find(one, '=', 0);
            ok = eq > 0;
            if (ok) {
                vec_push(&labels, (struct label){str_sub(one, 0, (size_t)eq),
                                                 str_sub(one, (size_t)eq + 1, one.n)});
            } else {
                rc = cli_usage("selector", "label \"%.*s\": expected KEY=VALUE", STR_FMT(one));
            }
        }
        vec_sort(&labels, label_cmp);
        for (size_t i = 1; i < labels.n && ok; i++) {
            if (str_eq(labels.p[i].key, labels.p[i - 1].key)) {
                ok = false;
                rc = cli_usage("selector", "label %.*s is given twice", STR_FMT(labels.p[i].key));
            }
        }
        if (ok) {
            rc = selector_match(s, labels.p, labels.n) ? 0 : 1;
        }
    }
    vec_fini(&labels);
    arena_fini(&a);
    return rc;
}

int cmd_version(int argc, char **argv) {
    (void)argv;
    if (argc > 1) {
        return cli_usage("version", "found an argument, expected none");
    }
    printf("margay %s\n", MARGAY_VERSION);
    struct arena a = {0};
    struct jnode *q = NULL;
    struct err e;
    if (cli_ask(STR("{\"op\":\"status\"}"), 2, &a, &q, &e) == 0) {
        printf("agent  %.*s on node %.*s\n", STR_FMT(jnode_str(jnode_getc(q, "version"))),
               STR_FMT(jnode_str(jnode_getc(q, "node"))));
    }
    arena_fini(&a);
    return 0;
}

static void put_words(void) {
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        printf("%s ", c->name);
    }
}
static void put_kinds(void) {
    for (int i = 0; i < K_N_KINDS; i++) {
        printf("%s ", model_kinds[i].plural);
    }
}

int cmd_completion(int argc, char **argv) {
    const char *shell = argc == 2 ? argv[1] : "";
    if (strcmp(shell, "bash") == 0) {
        fputs("_margay() {\n    local cur=${COMP_WORDS[COMP_CWORD]} cmd=${COMP_WORDS[1]}\n"
              "    if [ \"$COMP_CWORD\" = 1 ]; then COMPREPLY=($(compgen -W \"",
              stdout);
        put_words();
        fputs("\" -- \"$cur\")); return; fi\n"
              "    case $cmd in\n        get|delete|patch|label|annotate)\n"
              "            [ \"$COMP_CWORD\" = 2 ] && COMPREPLY=($(compgen -W \"",
              stdout);
        put_kinds();
        fputs(
            "\" -- \"$cur\")) ;;\n"
            "        pod) [ \"$COMP_CWORD\" = 2 ] && COMPREPLY=($(compgen -W \"add exec del list\" "
            "-- \"$cur\")) ;;\n"
            "        ipam) [ \"$COMP_CWORD\" = 2 ] && COMPREPLY=($(compgen -W \"show check\" -- "
            "\"$cur\")) ;;\n"
            "        *) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n    esac\n}\n"
            "complete -o default -F _margay margay\n",
            stdout);
        return 0;
    }
    if (strcmp(shell, "zsh") == 0) {
        fputs("#compdef margay\n_margay() {\n    if (( CURRENT == 2 )); then\n        compadd ",
              stdout);
        put_words();
        fputs("\n    elif (( CURRENT == 3 )); then\n        case $words[2] in\n"
              "            get|delete|patch|label|annotate) compadd ",
              stdout);
        put_kinds();
        fputs(";;\n            pod) compadd add exec del list ;;\n"
              "            ipam) compadd show check ;;\n            *) _files ;;\n        esac\n"
              "    else\n        _files\n    fi\n}\ncompdef _margay margay\n",
              stdout);
        return 0;
    }
    if (strcmp(shell, "fish") == 0) {
        for (const struct cli_command *c = cli_commands; c->name; c++) {
            printf("complete -c margay -n __fish_use_subcommand -a %s -d '%s'\n", c->name,
                   c->summary);
        }
        fputs("complete -c margay -n '__fish_seen_subcommand_from get delete patch label annotate' "
              "-a '",
              stdout);
        put_kinds();
        fputs("'\n", stdout);
        return 0;
    }
    return cli_usage("completion", "found \"%s\", expected bash, zsh or fish", shell);
}
