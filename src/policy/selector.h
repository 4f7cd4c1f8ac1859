/* Calico's selector language: parse, canonical text, unique id, match.
 * Source: projectcalico/calico libcalico-go/lib/selector (parser, tokenizer, ast). */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

struct label {
    struct str key, value;
};

struct selector;

enum {
    SELECTOR_MAX_BYTES = 1024, /* what resources may hold; conversions from Kubernetes allow more */
    SELECTOR_MAX_LABEL = 512,
    SELECTOR_MAX_DEPTH = 256,
    SELECTOR_ID_BYTES = 48, /* room for an id and its NUL */
};

/* Parses text of at most max_bytes. The result and its strings live in the arena (text is copied).
 * Blank text is all(). ERR_INVALID with the byte position, what was found and what is allowed
 * there; ERR_TOO_BIG beyond a limit. */
MG_NODISCARD int selector_parse(struct str text, size_t max_bytes, struct arena *a,
                                const struct selector **out, struct err *e);

/* Does it match these labels? labels are sorted by key, keys unique. Never blocks or allocates. */
bool selector_match(const struct selector *s, const struct label *labels, size_t n_labels);

/* Appends the canonical form: parses back to the same meaning and to the same canonical form. */
void selector_print(const struct selector *s, struct buf *b);

/* "s:" + base64url of SHA-224 of "s:" + canonical form, NUL-terminated: what Calico names sets by.
 */
void selector_id(const struct selector *s, char out[SELECTOR_ID_BYTES]);

/* The canonical form with `prefix` in front of every label name. Appended. */
void selector_print_prefixed(const struct selector *s, struct str prefix, struct buf *b);
/* The whole selector is all() or global(), nothing else. */
bool selector_is_all(const struct selector *s);
bool selector_is_global(const struct selector *s);

/* A label, or a label with a value, of which a match needs at least one: an index looks only there.
 */
struct selector_term {
    struct str key, value; /* value.p NULL: whatever the value */
};
enum { SELECTOR_MAX_TERMS = 64, SELECTOR_MAX_NEEDS = 3 };
/* A match has one of the terms at least. */
struct selector_need {
    struct selector_term terms[SELECTOR_MAX_TERMS];
    size_t n, weight; /* of the terms together */
};
/* What a match needs, all of it; the lightest first, at most SELECTOR_MAX_NEEDS; returns their
 * number. 0: a match may have no label at all. weight: how many things have the term. */
size_t selector_needs(const struct selector *s, size_t (*weight)(void *arg, struct selector_term t),
                      void *arg, struct selector_need out[SELECTOR_MAX_NEEDS]);
