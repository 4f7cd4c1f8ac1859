/* Bytes of the wire as hexadecimal text, blanks allowed. */
#pragma once

#include "base/attr.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

MG_UNUSED static size_t unhex(const char *s, uint8_t *out, size_t cap) {
    size_t n = 0;
    unsigned v;
    while (*s) {
        if (isspace((unsigned char)*s)) {
            s++;
            continue;
        }
        mg_assert(sscanf(s, "%2x", &v) == 1 && n < cap);
        out[n++] = (uint8_t)v;
        s += 2;
    }
    return n;
}

MG_UNUSED static const char *tohex(const void *p, size_t n) {
    static char text[2 * 70000 + 1];
    text[0] = '\0';
    for (size_t i = 0; i < n && i < 70000; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", ((const uint8_t *)p)[i]);
    }
    return text;
}

/* The same text without blanks. */
MG_UNUSED static const char *squeeze(const char *s) {
    static char text[2 * 70000 + 1];
    size_t n = 0;
    for (; *s; s++) {
        if (!isspace((unsigned char)*s)) {
            text[n++] = *s;
        }
    }
    text[n] = '\0';
    return text;
}
