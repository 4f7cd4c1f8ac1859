/* One pass over a resource: render into a staged file beside dest, compare, check, rename, reload.
 */
#include "confd/command.h"
#include "confd/resource.h"

#include "base/fd.h"
#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OUTPUT_MAX = 64 << 20 };

struct stage {
    struct resource *r;
    const struct pass *p;
    struct arena *a;
    struct buf text;
    const char *path; /* of the staged file, once there is one */
    unsigned mode;
    uid_t uid;
    gid_t gid;
    bool has_dest;
    struct stat dest;
};

/* Mode and owner that dest shall have. */
static void wanted(struct stage *s) {
    s->has_dest = stat(s->r->dest, &s->dest) == 0;
    s->mode = s->r->has_mode ? s->r->mode : s->has_dest ? s->dest.st_mode & 07777 : 0644;
    s->uid = s->r->uid < 0 ? geteuid() : (uid_t)s->r->uid;
    s->gid = s->r->gid < 0 ? getegid() : (gid_t)s->r->gid;
}

static bool is_in_sync(const struct stage *s) {
    if (!s->has_dest || (s->dest.st_mode & 07777) != s->mode || s->dest.st_uid != s->uid ||
        s->dest.st_gid != s->gid || (size_t)s->dest.st_size != s->text.n) {
        return false;
    }
    struct buf b = BUF_INIT(OUTPUT_MAX);
    bool same = file_read(AT_FDCWD, s->r->dest, &b, OUTPUT_MAX) == 0 &&
                str_eq(buf_view(&b), buf_view(&s->text));
    buf_fini(&b);
    return same;
}

static int write_all(int fd, struct str text) {
    for (size_t i = 0; i < text.n;) {
        ssize_t n = write(fd, text.p + i, text.n - i);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        i += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* ".NAME" and something random in dest's folder, with mode and owner. */
static int make_file(struct stage *s, struct err *e) {
    const char *slash = strrchr(s->r->dest, '/');
    size_t n = slash ? (size_t)(slash - s->r->dest) + 1 : 0;
    struct str path = arena_printf(s->a, "%.*s.%sXXXXXX", (int)n, s->r->dest, s->r->dest + n);
    char *p = (char *)(uintptr_t)arena_cstr(s->a, path);
    MG_CLEANUP(fd_close) int fd = mkostemp(p, O_CLOEXEC);
    if (fd < 0) {
        return err_set(e, -errno, "%.*s: a staged file can't be made: %s", STR_FMT(path),
                       err_name(-errno));
    }
    s->path = p;
    int r = write_all(fd, buf_view(&s->text));
    if (r == 0 && fchown(fd, s->uid, s->gid) < 0) {
        r = -errno;
    }
    if (r == 0 && fchmod(fd, s->mode) < 0) {
        r = -errno;
    }
    /* No fsync: it would cost more than all the rest, and a file that a power failure takes is
     * rendered again at the next start. */
    return r < 0 ? err_set(e, r, "%s: %s", p, err_name(r)) : 0;
}

/* What a command printed, for an error: its last lines. */
static void add_output(struct err *e, const struct buf *out) {
    struct str s = str_trim(buf_view(out));
    size_t max = 600;
    if (s.n > max) {
        s = str_sub(s, s.n - max, s.n);
    }
    size_t n = strlen(e->msg);
    if (s.n && n + 8 < sizeof(e->msg)) {
        snprintf(e->msg + n, sizeof(e->msg) - n, ": %.*s", STR_FMT(s));
    }
}

static int run(struct stage *s, const char *what, const char *command, struct err *e) {
    struct buf out = BUF_INIT(COMMAND_OUTPUT_MAX + 1);
    LOG_D("confd", "command", "what=%s command=%s", what, log_quote(str_c(command)));
    int r = command_run(command, s->p->o->cmd_timeout_s, s->p->stop_fd, &out, e);
    if (r < 0) {
        (void)err_wrap(e, r, "%s \"%.200s\" of %s failed", what, command, s->r->dest);
        if (e) {
            add_output(e, &out);
        }
    } else if (out.n) {
        LOG_D("confd", "command_output", "what=%s output=%s", what, log_quote(buf_view(&out)));
    }
    buf_fini(&out);
    return r;
}

/* check_cmd is a template with .src (and .dest) only. */
static int check(struct stage *s, struct err *e) {
    int r = s->r->check
                ? 0
                : tmpl_parse(STR("checkcmd"), str_c(s->r->check_cmd), NULL, 0, &s->r->check, e);
    if (r < 0) {
        return r;
    }
    struct value dot = value_map_new(s->a, &VT_MAP_STRING);
    value_map_set_str(s->a, &dot, STR("src"), value_str(str_c(s->path)));
    value_map_set_str(s->a, &dot, STR("dest"), value_str(str_c(s->r->dest)));
    struct buf b = BUF_INIT(1 << 16);
    r = tmpl_execute(s->r->check, dot, NULL, NULL, &b, e);
    if (r == 0 && b.n) {
        r = run(s, "check_cmd", buf_cstr(&b), e);
    }
    buf_fini(&b);
    return r;
}

/* reload_cmd is no template: braces of other programs' formats must survive. Only {{.src}} and
 * {{.dest}}, with blanks or without, are replaced. */
static const char *reload_text(struct stage *s) {
    struct str t = str_c(s->r->reload_cmd);
    struct buf b = BUF_INIT(1 << 16);
    for (size_t i = 0; i < t.n;) {
        struct str rest = str_sub(t, i, t.n);
        const char *end = str_starts(rest, STR("{{")) ? memmem(rest.p, rest.n, "}}", 2) : NULL;
        struct str name = end ? str_trim(str_sub(rest, 2, (size_t)(end - rest.p))) : STR_NULL;
        if (str_is(name, ".src") || str_is(name, ".dest")) {
            buf_puts(&b, str_is(name, ".src") ? s->path : s->r->dest);
            i += (size_t)(end - rest.p) + 2;
        } else {
            buf_putc(&b, t.p[i++]);
        }
    }
    const char *out = arena_cstr(s->a, buf_view(&b));
    buf_fini(&b);
    return out;
}

/* A dest that is a mount of its own can't be renamed over: written where it is. */
static int write_in_place(struct stage *s, struct err *e) {
    MG_CLEANUP(fd_close)
    int fd = open(s->r->dest, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, s->mode);
    int r = fd < 0 ? -errno : write_all(fd, buf_view(&s->text));
    if (r == 0 && (fchown(fd, s->uid, s->gid) < 0 || fchmod(fd, s->mode) < 0)) {
        r = -errno;
    }
    return r < 0 ? err_set(e, r, "%s: %s", s->r->dest, err_name(r)) : 0;
}

static int replace(struct stage *s, struct err *e) {
    if (rename(s->path, s->r->dest) == 0) {
        return 0;
    }
    return errno == EBUSY ? write_in_place(s, e)
                          : err_set(e, -errno, "%s: %s", s->r->dest, err_name(-errno));
}

static int sync_dest(struct stage *s, bool *is_changed, struct err *e) {
    const struct confd_options *o = s->p->o;
    if (is_in_sync(s) && !o->keep_stage_file) {
        LOG_D("confd", "in_sync", "dest=%s", log_quote(str_c(s->r->dest)));
        return 0;
    }
    bool in_sync = is_in_sync(s);
    int r = make_file(s, e);
    if (r < 0 || in_sync) {
        return r;
    }
    if (o->noop) {
        LOG_W("confd", "noop", "dest=%s state=\"would be changed\"", log_quote(str_c(s->r->dest)));
        return 0;
    }
    LOG_I("confd", "out_of_sync", "dest=%s", log_quote(str_c(s->r->dest)));
    if (!o->sync_only && s->r->check_cmd && s->r->check_cmd[0]) {
        r = check(s, e);
    }
    r = r < 0 ? r : replace(s, e);
    if (r < 0) {
        return r;
    }
    *is_changed = true;
    if (!o->sync_only && s->r->reload_cmd && s->r->reload_cmd[0]) {
        r = run(s, "reload_cmd", reload_text(s), e);
    }
    LOG_I("confd", "updated", "dest=%s", log_quote(str_c(s->r->dest)));
    return r;
}

int resource_process(struct resource *r, const struct pass *p, bool *is_changed, struct err *e) {
    struct arena a = {0};
    struct stage s = {.r = r, .p = p, .a = &a, .text = BUF_INIT(OUTPUT_MAX)};
    *is_changed = false;
    int ret = resource_parse(r, false, p->o, e);
    if (ret == 0) {
        ret = resource_render(r, p, &s.text, e);
    }
    if (ret == 0 && s.text.overflow) {
        ret = err_set(e, ERR_TOO_BIG, "%s: the output is larger than %d bytes", r->src, OUTPUT_MAX);
    }
    if (ret == 0) {
        wanted(&s);
        ret = sync_dest(&s, is_changed, e);
    }
    if (s.path && (!p->o->keep_stage_file)) {
        (void)unlink(s.path); /* after a rename there is nothing left under this name */
    }
    buf_fini(&s.text);
    arena_fini(&a);
    return ret;
}
