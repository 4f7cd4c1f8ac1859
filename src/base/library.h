/* Shared libraries that few runs need, loaded when one does: what is linked costs every process
 * its pages and its start, what is loaded costs those who use it.
 *
 * A user declares the calls (and objects) once, with the types of the library's own header:
 *
 *     #define CALLS(X) X(MHD_run) X(MHD_stop_daemon)
 *     static struct { CALLS(LIBRARY_POINTER) } mhd;
 *     static const struct library_symbol symbols[] = {
 *     #define ROW(f) LIBRARY_SYMBOL(mhd, f),
 *         CALLS(ROW)};
 */
#pragma once

#include "base/err.h"

struct library_symbol {
    const char *name;
    void *at; /* of the pointer to fill in */
};

#define LIBRARY_POINTER(f) __typeof__(&(f)) f;
#define LIBRARY_SYMBOL(table, f) \
    { #f, &(table).f }

struct library {
    const char *soname;  /* of the version whose header was compiled in */
    const char *package; /* Debian's, for the error */
    const struct library_symbol *symbols;
    size_t n_symbols;
    void *handle; /* once it is loaded; it stays */
};

/* Loads it and fills in all pointers; nothing to do the second time. May block on the disk.
 * ERR_UNAVAILABLE: it is not installed, or of another version, and the package to install. */
MG_NODISCARD int library_load(struct library *l, struct err *e);
