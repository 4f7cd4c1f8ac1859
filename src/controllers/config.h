/* What the controllers do and how: KubeControllersConfiguration `default`, over which the
 * environment names of Calico's kube-controllers stand. Pure: texts in, settings out. Source:
 * kube-controllers/pkg/config. */
#pragma once

#include "base/log.h"
#include "model/model.h"

/* Names as ENABLED_CONTROLLERS takes them. */
enum controller {
    CONTROLLER_NODE,
    CONTROLLER_POLICY,
    CONTROLLER_WORKLOAD_ENDPOINT,
    CONTROLLER_SERVICE_ACCOUNT,
    CONTROLLER_NAMESPACE,
    CONTROLLER_LOAD_BALANCER,
    CONTROLLER_N,
};
extern const char *const controller_names[CONTROLLER_N];

struct run_config {
    bool is_enabled[CONTROLLER_N];
    int64_t period_ns[CONTROLLER_N]; /* all is compared so often; 0: never */
    int64_t leak_grace_ns;           /* 0: no address is collected */
    int64_t compaction_ns;
    bool sync_labels, is_health_enabled, assigns_all_services;
    const struct jnode *auto_hep; /* AutoHostEndpointConfig; lives where the document does */
    enum log_level level;
    uint16_t metrics_port; /* 0: none */
};

/* The environment, so that tests can have one of their own. */
typedef const char *(*config_env)(void *arg, const char *name);

/* Names of the environment that count; ends with NULL. */
extern const char *const config_env_names[];

/* spec of the object, NULL: none is there yet. is_kubernetes: the store is the Kubernetes API. A
 * bad value of the environment is an error that names it and what is allowed; one of the object
 * counts as its default. *status: what the object's status should be, in the arena. */
MG_NODISCARD int config_merge(const struct jnode *spec, config_env env, void *env_arg,
                              bool is_kubernetes, struct arena *a, struct run_config *out,
                              struct jnode **status, struct err *e);
/* The object that is made when none is there: spec as Calico makes it. */
struct jnode *config_default_spec(struct arena *a);
/* "1h2m3.5s", as Go writes and reads durations; at most 2^62 ns. */
MG_NODISCARD int config_parse_duration(struct str s, int64_t *out_ns);
void config_print_duration(int64_t ns, struct buf *b);
