/* `margay confd`: options, log level, the run. */
#include "confd/confd.h"

#include "confd/run.h"

#include "base/log.h"

#include <stdio.h>

static void print_help(FILE *f) {
    struct buf b = BUF_INIT(1 << 16);
    confd_options_help(&b);
    fprintf(
        f,
        "usage: margay confd [FLAGS]\n\n"
        "Keeps files rendered from templates and the keys of a backend: for each [template] of\n"
        "CONFDIR/conf.d/*.toml it renders CONFDIR/templates/SRC; if that differs from DEST it\n"
        "runs check_cmd on the new file, puts it in DEST's place and runs reload_cmd.\n"
        "Flags take one dash or two.\n\n"
        "%.*s\n"
        "examples:\n"
        "  margay confd -onetime -backend env -confdir ./confd\n"
        "  margay confd -onetime -backend file -file values.yaml -noop\n"
        "  margay confd -watch -backend etcd -node https://10.0.0.1:2379 -client-ca-keys ca.pem\n"
        "  margay confd -watch -backend calico -confdir /usr/share/margay/confd\n",
        STR_FMT(buf_view(&b)));
    buf_fini(&b);
}

int confd_main(int argc, char **argv) {
    struct arena a = {0};
    struct confd_options o;
    struct err e = {0};
    enum log_level level = LOG_INFO;
    int code = 0;
    enum options_result r = confd_options_read(argc, argv, &a, &o, &e);
    if (r == OPTIONS_RUN && !log_level_parse(str_c(o.log_level), &level)) {
        (void)err_set(&e, ERR_INVALID,
                      "-log-level: found \"%.40s\", allowed are debug, info, warn, error, fatal",
                      o.log_level);
        r = OPTIONS_USAGE;
    }
    switch (r) {
    case OPTIONS_HELP:
        print_help(stdout);
        break;
    case OPTIONS_USAGE:
        fprintf(stderr, "margay confd: %s\nSee: margay confd --help\n", e.msg);
        code = 2;
        break;
    case OPTIONS_FAILED:
        fprintf(stderr, "error: %s\n", e.msg);
        code = 1;
        break;
    case OPTIONS_RUN:
        log_level_set(level);
        if (o.version) {
            printf("confd of margay " MARGAY_VERSION "\n");
        } else {
            code = confd_run(&o, &a);
        }
        break;
    }
    arena_fini(&a);
    return code;
}
