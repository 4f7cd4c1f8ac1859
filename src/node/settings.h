/* The agent's settings: Felix' names, Felix' order of precedence (environment FELIX_…, the file,
 * FelixConfiguration node.NAME, FelixConfiguration default, the default). One table is the only
 * place that knows them. */
#pragma once

#include "base/jtree.h"
#include "base/log.h"
#include "dataplane/dataplane.h"

struct settings {
    struct arena a;
    struct str iface_prefixes[DATAPLANE_MAX_PREFIXES];
    size_t n_iface_prefixes;
    enum endpoint_to_host endpoint_to_host;
    bool has_no_invalid_check;
    bool has_floating_ips;
    enum deny_action deny;
    enum drop_override drop_override;
    bool is_append;
    bool cuts_established; /* establishedPolicy: connections that are now denied end */
    struct dataplane_failsafe *failsafe[2]; /* [CALC_INGRESS], [CALC_EGRESS] */
    size_t n_failsafe[2];
    struct str log_prefix;
    enum log_level log_level;
    bool may_spoof; /* pods with allowedSourcePrefixes may send from these */
    bool has_health, has_metrics;
    struct str health_host, metrics_host;
    uint16_t health_port, metrics_port;
    uint8_t route_proto;
    struct str mtu_pattern;
    uint32_t vxlan_vni,
        vxlan_mtu[2]; /* MTU of IPv4's and IPv6's device; 0: what the uplink leaves */
    uint16_t vxlan_port;
    bool may_vxlan, may_ipip; /* what pods may send */
};

/* What settings are made of. Trees of absent sources are NULL. */
struct settings_sources {
    struct jnode *file; /* /etc/margay/margay.yaml: a map of FelixConfiguration's field names */
    struct jnode *node, *deflt; /* specs of FelixConfiguration node.NAME and default */
};

/* Fills out anew (settings_fini of the old first). Values that can't be understood are reported
 * once by log, naming source, setting, value and what is allowed, and the next source counts. */
void settings_read(struct settings *out, const struct settings_sources *src);
void settings_fini(struct settings *s);
/* Reads the file; absent is fine: *out NULL. */
MG_NODISCARD int settings_file(const char *path, struct arena *a, struct jnode **out,
                               struct err *e);

/* A Markdown table: name, default, what is allowed. Appended. */
void settings_print(struct buf *b);
