/* What `margay install` and `margay uninstall` share: where a distribution keeps CNI's files, which
 * of them are ours, which are somebody else's. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/jtree.h"
#include "node/kubeconfig.h"

#include <limits.h>

enum { INSTALL_MAX_PLACES = 4, INSTALL_CONF_BYTES_MAX = 1 << 20 };

#define INSTALL_CONF_NAME "10-margay.conflist"
#define INSTALL_KUBECONFIG_NAME KUBECONFIG_NAME
/* Other CNIs' files are set aside under this ending, which no runtime reads. */
#define INSTALL_ASIDE ".margay-bak"

/* One runtime's two folders on this host, as its own kubelet sees them (without --root). */
struct install_place {
    const char *who; /* "kubeadm", "k3s", … */
    char net_dir[PATH_MAX], bin_dir[PATH_MAX];
};

struct install {
    const char *command; /* for messages */
    const char *root;    /* of the host's file system; "" for / */
    const char *conf_name, *kubeconfig_name;
    const char *from; /* folder of the programs; NULL: found */
    struct install_place places[INSTALL_MAX_PLACES];
    size_t n_places;
    bool is_dry, takes_over, has_changed, is_quiet; /* is_quiet: what is unchanged isn't told */
    const char *network_config;                     /* a template's text; NULL: ours */
    const char *port_mappings; /* "chained", "own"; NULL: chained if there is a portmap */
    const char *token_dir;     /* of the pod's service account */
};

/* Appends root and path; false: too long. */
bool install_path(const struct install *in, const char *dir, const char *name, char out[PATH_MAX]);
/* Fills places from the two folders given (either may be NULL), or from what the host has. */
MG_NODISCARD int install_find_places(struct install *in, const char *net_dir, const char *bin_dir);
/* "VERB PATH", on standard output. */
void install_say(const struct install *in, const char *path, const char *did);

/* Can a runtime take it for a network's configuration? By its name alone. */
bool install_is_conf(const char *name);
/* Calls cb for each file of a place's folder that a runtime reads and that is not ours, in the
 * runtime's order; what: network and plugin, for people. wins: it comes before ours. */
MG_NODISCARD int install_each_foreign(struct install *in, const struct install_place *p,
                                      int (*cb)(void *arg, const char *name, const char *what,
                                                bool wins),
                                      void *arg);

/* ---- install_files.c ---- */
/* Copies both programs; what is there and the same is left alone. */
MG_NODISCARD int install_programs(struct install *in, const struct install_place *p);
/* The kubeconfig from the service account's files, if this is a pod. *is_there: the place has one
 * (made now, or by somebody else before). */
MG_NODISCARD int install_kubeconfig(struct install *in, const struct install_place *p,
                                    bool *is_there);
MG_NODISCARD int install_conflist(struct install *in, const struct install_place *p,
                                  bool has_kubeconfig);

/* ---- uninstall_kernel.c ---- */
/* Takes our things out of this network namespace's kernel. takes_pods: pods' interfaces
 * too, else there must be none. */
MG_NODISCARD int uninstall_kernel(struct install *in, const struct str *prefixes, size_t n_prefixes,
                                  bool takes_pods);
