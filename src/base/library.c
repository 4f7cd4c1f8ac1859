/* dlopen by table. See library.h. */
#include "base/library.h"

#include <dlfcn.h>
#include <string.h>

int library_load(struct library *l, struct err *e) {
    if (l->handle) {
        return 0;
    }
    void *handle = dlopen(l->soname, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        return err_set(e, ERR_UNAVAILABLE, "%s can't be loaded: %s; install the package %s",
                       l->soname, dlerror(), l->package);
    }
    for (size_t i = 0; i < l->n_symbols; i++) {
        void *p = dlsym(handle, l->symbols[i].name);
        if (!p) {
            (void)dlclose(handle);
            return err_set(e, ERR_UNAVAILABLE,
                           "%s has no %s: install the package %s of this Debian", l->soname,
                           l->symbols[i].name, l->package);
        }
        /* POSIX: a pointer to an object holds one to a function. */
        memcpy(l->symbols[i].at, &p, sizeof(p));
    }
    l->handle = handle;
    return 0;
}
