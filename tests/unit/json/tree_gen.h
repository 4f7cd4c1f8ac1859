/* Random trees for round-trip tests: nasty texts, every kind of number, empty and nested lists and
 * maps. The same seed gives the same tree. */
#pragma once

#include "base/hash.h"
#include "base/jtree.h"

struct gen {
    uint64_t x;
    struct arena *a;
};

MG_UNUSED static uint64_t gen_below(struct gen *g, uint64_t n) {
    g->x = hash_u64(g->x + 0x9e3779b97f4a7c15ULL);
    return (g->x >> 11) % n;
}

MG_UNUSED static struct str gen_text(struct gen *g) {
    static const char *const words[] = {
        "",
        "true",
        "null",
        "~",
        "yes",
        "y",
        "No",
        "12",
        "-0",
        "0x1f",
        "0o7",
        "1e3",
        ".5",
        "1_000",
        "1:20",
        "12:30:45",
        "2001-01-01",
        "=",
        "<<",
        ".inf",
        "- a",
        "a: b",
        "a:",
        ": a",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "'",
        "\"",
        "%a",
        "@a",
        "`a",
        "{a}",
        "[a]",
        "a,b",
        "?",
        "? a",
        "-",
        "---",
        "--- a",
        "...",
        " a",
        "a ",
        "a\n",
        "\na",
        "a\nb",
        "a\n\n",
        "a\n\nb\n",
        " a\nb",
        "a\n b\n",
        "a\n\tb",
        "\ta\nb",
        "a\n  ",
        "a\n  \n",
        "a\r\nb",
        "a\rb",
        "\n",
        "\n\n\n",
        "a\n#b",
        "a\n---\nb",
        "\xc2\x85",
        "a\xe2\x80\xa8"
        "b",
        "\xef\xbb\xbf"
        "a",
        "\x7f",
        "\x01",
        "\xc3\xa9",
        "\xf0\x9f\x98\x80",
        "a\tb",
        "\\n",
        "it's",
        "$x",
        "10.0.0.0/8",
        "::",
        "fe80::1",
        "a\\",
        "\xef\xbf\xbf",
        "null ",
        "key",
        "0",
    };
    static const char alphabet[] = " \n\t:#-'\"\\{}[],&*!|>%@`?~=<.0123456789abeEnoxyt_\r\x01\x7f";
    struct str w = str_c(words[gen_below(g, ARRAY_LEN(words))]);
    uint64_t kind = gen_below(g, 8);
    if (kind < 4) {
        return w;
    }
    if (kind == 4) {
        struct str v = str_c(words[gen_below(g, ARRAY_LEN(words))]);
        return arena_printf(g->a, "%.*s%.*s", STR_FMT(w), STR_FMT(v));
    }
    size_t n = (size_t)gen_below(g, gen_below(g, 50) ? 12 : 1500);
    char *p = arena_alloc(g->a, n + 1);
    for (size_t i = 0; i < n; i++) {
        p[i] = kind == 5 ? (char)('a' + gen_below(g, 26))
                         : alphabet[gen_below(g, sizeof(alphabet) - 1)];
    }
    return str_n(p, n);
}

/* A number by its JSON text, so that text and value agree. */
MG_UNUSED static struct jnode *gen_number(struct gen *g) {
    static const char *const words[] = {
        "0",
        "-0",
        "-0.0",
        "1e5",
        "1E+5",
        "1e-400",
        "0.1",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551616",
        "1.7e308",
        "1234567890123456789012345678901234567890123456789012345678901234567890123456789",
    };
    struct str text = gen_below(g, 2) ? str_c(words[gen_below(g, ARRAY_LEN(words))])
                                      : arena_printf(g->a, "%lld", (long long)gen_below(g, 100000));
    struct jnode *n = NULL;
    struct err e;
    return json_parse(text, &json_limits_default, g->a, &n, &e) == 0 ? n : NULL;
}

MG_UNUSED static struct jnode *gen_tree(struct gen *g, unsigned depth) {
    uint64_t kind = gen_below(g, depth ? 9 : 5);
    if (kind == 0) {
        return jnode_new(g->a, J_NULL);
    }
    if (kind == 1) {
        return jnode_new_bool(g->a, gen_below(g, 2));
    }
    if (kind == 2) {
        return gen_number(g);
    }
    if (kind < 5) {
        return jnode_new_str(g->a, gen_text(g));
    }
    struct jnode *n = jnode_new(g->a, kind < 7 ? J_LIST : J_MAP);
    uint64_t members = gen_below(g, gen_below(g, 20) ? 4 : 40);
    for (uint64_t i = 0; i < members; i++) {
        struct jnode *value = gen_tree(g, depth - 1);
        if (n->type == J_MAP) {
            jnode_set(g->a, n, gen_text(g), value);
        } else {
            jnode_append(n, value);
        }
    }
    return n;
}
