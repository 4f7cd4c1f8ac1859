/* Documents from files, folders and stdin. */
#include "cli/cli.h"

#include "base/fd.h"
#include "base/vec.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_MAX = 32 << 20, FOLDER_DEPTH = 16 };

struct reading {
    struct arena *a;
    int (*cb)(void *arg, struct jnode *doc, const char *file);
    void *arg;
    const char *file;
    bool recursive;
    int failed;
};

static int on_doc(void *arg, struct jnode *doc) {
    struct reading *r = arg;
    struct str kind = jnode_str(jnode_getc(doc, "kind"));
    struct jnode *items = jnode_getc(doc, "items");
    if (items && items->type == J_LIST && str_ends(kind, STR("List"))) {
        jnode_each (n, items) {
            r->failed |= r->cb(r->arg, n, r->file) != 0;
        }
        return 0;
    }
    r->failed |= r->cb(r->arg, doc, r->file) != 0;
    return 0;
}

static int read_stdin(struct buf *b) {
    for (;;) {
        char *p = buf_reserve(b, 65536);
        ssize_t n = p ? read(STDIN_FILENO, p, 65536) : 0;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0) {
            return b->overflow ? ERR_TOO_BIG : 0;
        }
        b->n += (size_t)n;
    }
}

static void read_one(struct reading *r, const char *path) {
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(TEXT_MAX);
    bool is_stdin = strcmp(path, "-") == 0;
    r->file = is_stdin ? "stdin" : (const char *)arena_cstr(r->a, str_c(path));
    int rc = is_stdin ? read_stdin(&b) : file_read(AT_FDCWD, path, &b, TEXT_MAX);
    if (rc < 0) {
        cli_error("%s: %s", r->file,
                  rc == ERR_TOO_BIG ? "larger than 32 MiB, the most that is read" : strerror(-rc));
        r->failed = 1;
        return;
    }
    struct err e;
    rc = yaml_each(arena_dup(r->a, buf_view(&b)), r->file, &json_limits_default, r->a, on_doc, r,
                   &e);
    if (rc < 0) {
        cli_error("%s", e.msg);
        r->failed = 1;
    }
}

static int name_cmp(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_manifest(const char *name) {
    struct str s = str_c(name);
    return str_ends(s, STR(".yaml")) || str_ends(s, STR(".yml")) || str_ends(s, STR(".json"));
}

static void read_path(struct reading *r, const char *path, unsigned depth) {
    struct stat st;
    if (strcmp(path, "-") == 0 || stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
        read_one(r, path);
        return;
    }
    DIR *d = opendir(path);
    if (!d) {
        cli_error("%s: %s", path, strerror(errno));
        r->failed = 1;
        return;
    }
    VEC(char *) names = {0};
    for (struct dirent *x; (x = readdir(d));) {
        if (x->d_name[0] != '.') {
            struct str full = arena_printf(r->a, "%s/%s", path, x->d_name);
            vec_push(&names, (char *)(uintptr_t)full.p);
        }
    }
    closedir(d);
    vec_sort(&names, name_cmp);
    for (size_t i = 0; i < names.n; i++) {
        bool is_dir = stat(names.p[i], &st) == 0 && S_ISDIR(st.st_mode);
        if (is_dir && r->recursive && depth < FOLDER_DEPTH) {
            read_path(r, names.p[i], depth + 1);
        } else if (!is_dir && is_manifest(names.p[i])) {
            read_one(r, names.p[i]);
        }
    }
    vec_fini(&names);
}

int cli_each_document(char **files, size_t n, bool recursive, struct arena *a,
                      int (*cb)(void *arg, struct jnode *doc, const char *file), void *arg) {
    struct reading r = {.a = a, .cb = cb, .arg = arg, .recursive = recursive};
    for (size_t i = 0; i < n; i++) {
        read_path(&r, files[i], 0);
    }
    return r.failed;
}
