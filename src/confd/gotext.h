/* Text the way Go's strconv and unicode/utf8 see it: runes, quoted strings, numbers. Bytes that are
 * not UTF-8 are runes U+FFFD of one byte. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"

#define RUNE_ERROR 0xFFFDU
#define RUNE_MAX 0x10FFFFU

/* The rune at s.p[i], i < s.n, and how many bytes it takes. */
uint32_t rune_at(struct str s, size_t i, size_t *width);
/* UTF-8 of r (U+FFFD if it has none); returns the bytes written. */
size_t rune_put(char out[4], uint32_t r);
void rune_add(struct buf *b, uint32_t r);
size_t rune_count(struct str s);
bool rune_is_valid(uint32_t r);
/* Letter, decimal digit or underscore. */
bool rune_is_alnum(uint32_t r);
bool rune_is_print(uint32_t r);
/* The first `runes` runes of s. */
struct str rune_cut(struct str s, size_t runes);

/* strconv.Quote, or QuoteToASCII. */
void go_quote(struct buf *b, struct str s, bool is_ascii);
/* strconv.QuoteRune, or QuoteRuneToASCII. */
void go_quote_rune(struct buf *b, uint32_t r, bool is_ascii);
bool go_can_backquote(struct str s);
/* One character or escape at the front of *s, which is moved behind it. quote: the one around it.
 * *is_byte: to be taken as a byte, not as a rune. False: not Go's syntax. */
bool go_unquote_char(struct str *s, char quote, uint32_t *r, bool *is_byte);
/* strconv.Unquote of "…" or `…`. */
bool go_unquote(struct arena *a, struct str in, struct str *out);

/* strconv.ParseUint, ParseInt and ParseFloat of 64 bits with base 0 (prefixes, underscores). */
bool go_parse_uint(struct str s, uint64_t *out);
bool go_parse_int(struct str s, int64_t *out);
bool go_parse_float(struct str s, double *out);

/* strconv.AppendFloat: format is one of e E f g G b x X; precision -1: as many digits as make the
 * number unique. At most 1100 + precision bytes. */
void go_format_float(struct buf *b, double f, char format, int precision);
