/* `margay uninstall`: takes away all that an install and an agent have left on this host: files,
 * then links, routes, rules, the table, and the kernel's settings as they were before. Other CNIs'
 * files that the install had set aside are put back first, so that the runtime always finds one. */
#include "cli/install.h"

#include "base/fd.h"
#include "base/vec.h"
#include "cli/cli.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PREFIXES = 8, MAX_FILES = 4096 };

static int take_away(struct install *in, const char *path) {
    struct stat st;
    if (lstat(path, &st) < 0) {
        return 0;
    }
    if (!in->is_dry && unlink(path) < 0) {
        return cli_error("removing %s: %s", path, strerror(errno));
    }
    install_say(in, path, "removed");
    return 0;
}

/* Is the file one of ours that a write left unfinished? */
static bool is_unfinished(const struct install *in, const char *name) {
    const char *ours[] = {in->conf_name, in->kubeconfig_name, "margay-cni", "margay-ipam"};
    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        size_t n = strlen(ours[i]);
        if (strncmp(name, ours[i], n) == 0 && strncmp(name + n, ".tmp.", 5) == 0) {
            return true;
        }
    }
    return false;
}

/* Puts back what was set aside, then removes ours. */
static int clean_dir(struct install *in, const char *dir, const char *const *ours, size_t n_ours) {
    char path[PATH_MAX], to[PATH_MAX];
    int r = 0;
    if (!install_path(in, dir, "", path)) {
        return 1;
    }
    DIR *d = opendir(path);
    if (!d) {
        return errno == ENOENT ? 0 : cli_error("%s: %s", path, strerror(errno));
    }
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        struct str name = str_c(e->d_name);
        bool is_aside = str_ends(name, STR(INSTALL_ASIDE));
        if ((!is_aside && !is_unfinished(in, e->d_name)) ||
            !install_path(in, dir, e->d_name, path)) {
            continue;
        }
        if (!is_aside) {
            r |= take_away(in, path);
            continue;
        }
        (void)snprintf(to, sizeof(to), "%.*s", (int)(strlen(path) - (sizeof(INSTALL_ASIDE) - 1)),
                       path);
        if (!in->is_dry && renameat2(AT_FDCWD, path, AT_FDCWD, to, RENAME_NOREPLACE) < 0) {
            r |= cli_error("putting %s back: %s", to, strerror(errno));
        } else {
            install_say(in, to, "put back");
        }
    }
    (void)closedir(d);
    for (size_t i = 0; i < n_ours; i++) {
        r |= install_path(in, dir, ours[i], path) ? take_away(in, path) : 1;
    }
    return r;
}

static int remove_entry(const char *path, const struct stat *st MG_UNUSED, int type MG_UNUSED,
                        struct FTW *ftw MG_UNUSED) {
    return remove(path);
}

/* A folder of the agent with all that is in it: where the agent sees it, not below the root. */
static int take_tree(struct install *in, const char *path) {
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
        return 0;
    }
    if (!in->is_dry && nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) < 0) {
        return cli_error("removing %s: %s", path, strerror(errno));
    }
    install_say(in, path, "removed");
    return 0;
}

/* The kernel's settings that the agent has changed, as they were: "PATH VALUE" a line. */
static int restore_sysctls(struct install *in) {
    char path[PATH_MAX];
    MG_CLEANUP(buf_fini) struct buf b = BUF_INIT(1 << 20);
    int r = 0;
    (void)snprintf(path, sizeof(path), "%s/" SYSCTL_JOURNAL, cli_state_dir());
    if (file_read(-1, path, &b, 1 << 19) < 0) {
        return 0;
    }
    for (struct str rest = buf_view(&b); rest.p;) {
        struct str value = str_trim(str_cut(&rest, '\n'));
        struct str name = str_cut(&value, ' ');
        char file[256], text[64], said[128];
        (void)snprintf(file, sizeof(file), "%.*s", STR_FMT(name));
        (void)snprintf(text, sizeof(text), "%.*s", STR_FMT(value));
        if (!str_starts(name, STR("/proc/sys/net/")) || str_contains(name, STR("..")) || !value.n) {
            continue;
        }
        int k = in->is_dry ? 0 : sysctl_write(file, text);
        if (k == -ENOENT) {
            continue; /* the interface is gone */
        }
        if (k < 0) {
            r = cli_error("setting %s back to %s: %s", file, text, strerror(-k));
            continue;
        }
        (void)snprintf(said, sizeof(said), "set back to %s", text);
        install_say(in, file, said);
    }
    return r;
}

static bool has_agent(void) {
    struct arena a = {0};
    struct jnode *q = NULL;
    int r = cli_ask(STR("{\"op\":\"status\"}"), 2, &a, &q, NULL);
    arena_fini(&a);
    return r != ERR_UNAVAILABLE;
}

static int uninstall_files(struct install *in, bool keeps_state) {
    const char *conf[] = {in->conf_name, in->kubeconfig_name};
    const char *programs[] = {"margay-cni", "margay-ipam"};
    int r = 0;
    for (size_t i = 0; i < in->n_places; i++) {
        r |= clean_dir(in, in->places[i].net_dir, conf, ARRAY_LEN(conf));
        r |= clean_dir(in, in->places[i].bin_dir, programs, ARRAY_LEN(programs));
    }
    r |= keeps_state ? 0 : take_tree(in, cli_state_dir());
    char run_dir[PATH_MAX];
    (void)snprintf(run_dir, sizeof(run_dir), "%s", cli_socket());
    *strrchr(run_dir, '/') = '\0';
    if (strcmp(run_dir, cli_state_dir()) != 0) {
        r |= take_tree(in, run_dir);
    }
    return r;
}

int cmd_uninstall(int argc, char **argv) {
    enum { O_DRY = 256, O_FORCE, O_KEEP, O_ROOT, O_NET, O_BIN };
    static const struct option longs[] = {
        {"dry-run", no_argument, NULL, O_DRY},
        {"force", no_argument, NULL, O_FORCE},
        {"keep-state", no_argument, NULL, O_KEEP},
        {"root", required_argument, NULL, O_ROOT},
        {"cni-net-dir", required_argument, NULL, O_NET},
        {"cni-bin-dir", required_argument, NULL, O_BIN},
        {NULL, 0, NULL, 0},
    };
    struct install in = {.command = "uninstall",
                         .root = "",
                         .conf_name = INSTALL_CONF_NAME,
                         .kubeconfig_name = INSTALL_KUBECONFIG_NAME};
    const char *name = getenv("CNI_CONF_NAME"), *net = getenv("CNI_NET_DIR");
    const char *bin = getenv("CNI_BIN_DIR"), *kubeconfig = getenv("KUBECONFIG_FILE_NAME");
    const char *prefixes = getenv("FELIX_INTERFACEPREFIX");
    bool is_forced = false, keeps_state = false;
    in.conf_name = name && name[0] ? name : in.conf_name;
    in.kubeconfig_name = kubeconfig && kubeconfig[0] ? kubeconfig : in.kubeconfig_name;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case O_DRY:
            in.is_dry = true;
            break;
        case O_FORCE:
            is_forced = true;
            break;
        case O_KEEP:
            keeps_state = true;
            break;
        case O_ROOT:
            in.root = strcmp(optarg, "/") == 0 ? "" : optarg;
            break;
        case O_NET:
            net = optarg;
            break;
        case O_BIN:
            bin = optarg;
            break;
        default:
            return cli_usage("uninstall", "wrong option");
        }
    }
    if (optind < argc) {
        return cli_usage("uninstall", "found \"%s\", expected options only", argv[optind]);
    }
    if (strchr(in.conf_name, '/') || strchr(in.kubeconfig_name, '/')) {
        return cli_usage("uninstall", "CNI_CONF_NAME and KUBECONFIG_FILE_NAME are names of files "
                                      "without '/'");
    }
    struct str prefix[MAX_PREFIXES];
    size_t n_prefixes = 0;
    struct str rest = prefixes && prefixes[0] ? str_c(prefixes) : STR("cali");
    while (rest.p && n_prefixes < MAX_PREFIXES) {
        prefix[n_prefixes] = str_trim(str_cut(&rest, ','));
        n_prefixes += prefix[n_prefixes].n > 0;
    }
    if (has_agent()) {
        int r = cli_error("an agent answers at %s and would put everything back: stop it first "
                          "(systemctl disable --now margay)",
                          cli_socket());
        if (!in.is_dry) {
            return r;
        }
    }
    int r = install_find_places(&in, net && net[0] ? net : NULL, bin && bin[0] ? bin : NULL);
    if (r != 0) {
        return r;
    }
    r = uninstall_kernel(&in, prefix, n_prefixes, is_forced);
    if (r != 0) {
        return r;
    }
    r = restore_sysctls(&in);
    return uninstall_files(&in, keeps_state) || r ? 1 : 0;
}
