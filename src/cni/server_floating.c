/* Floating addresses: annotation cni.projectcalico.org/floatingIPs. Calico's two switches must be
 * on (feature_control.floating_ips here, FelixConfiguration's floatingIPs in the dataplane), and
 * beyond Calico an address must lie in an IPPool, which may be disabled: otherwise whoever may
 * annotate a pod could lead anybody's traffic to it. */
#include "cni/server_int.h"

#define ANNOTATION "cni.projectcalico.org/floatingIPs"

struct search {
    const struct ip46 *ip;
    bool is_found;
};

static int see_pool(void *arg, const struct store_item *it) {
    struct search *x = arg;
    struct arena a = {.first_bytes = 4096};
    struct jnode *doc = NULL;
    struct prefix cidr;
    if (json_parse(it->value, &json_limits_default, &a, &doc, NULL) == 0 &&
        prefix_parse(jnode_str(jnode_path(doc, "spec.cidr")), &cidr) == 0) {
        x->is_found |= prefix_has_ip(&cidr, x->ip);
    }
    arena_fini(&a);
    return 0;
}

static int check_range(struct cni_request *r, const struct ip46 *ip, struct str text) {
    struct search x = {.ip = ip};
    struct err e = {0};
    uint64_t revision;
    struct str prefix = arena_printf(&r->arena, "%s/", kind_store_name(&model_kinds[K_IP_POOL]));
    if (store_list(r->s->store, (struct store_key){STR(STORE_SPACE_RESOURCES), prefix}, &revision,
                   see_pool, &x, &e) < 0) {
        return cni_fail(&r->fail, CNI_CODE_TRY_LATER, "look at the datastore", "IPPools: %.900s",
                        e.msg);
    }
    return x.is_found ? 0
                      : cni_fail(&r->fail, CNI_CODE_BAD_CONFIG,
                                 "make an IPPool (disabled: true) of the floating addresses",
                                 "annotation " ANNOTATION ": %s is in no IPPool", log_quote(text));
}

int cni_floating_read(struct cni_request *r) {
    struct cni_pod *p = &r->pod;
    struct str text = cni_annotation(&p->annotations, ANNOTATION);
    struct str_list list = {0};
    if (!text.n) {
        return 0;
    }
    if (!r->conf.allow_floating_ips) {
        return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG,
                        "set feature_control.floating_ips in the network configuration",
                        "annotation " ANNOTATION " is not allowed in this network");
    }
    if (cni_annotation_texts(r, ANNOTATION, text, CNI_MAX_IPS, &list) < 0) {
        return -1;
    }
    for (size_t i = 0; i < list.n; i++) {
        struct ip46 *ip = &p->floating[p->n_floating];
        bool has_family = false;
        if (ip_parse(list.p[i], ip) < 0) {
            return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG, "an address such as 192.0.2.7",
                            "annotation " ANNOTATION ": %s is not an address",
                            log_quote(list.p[i]));
        }
        for (size_t k = 0; k < r->n_nets; k++) {
            has_family |= r->nets[k].ip.family == ip->family;
        }
        if (!has_family) {
            return cni_fail(&r->fail, CNI_CODE_BAD_CONFIG,
                            "give the pod an address of that family, or remove the floating one",
                            "annotation " ANNOTATION ": the pod has no address to which %s could "
                            "lead",
                            log_quote(list.p[i]));
        }
        if (check_range(r, ip, list.p[i]) < 0) {
            return -1;
        }
        p->n_floating++;
    }
    return 0;
}

void cni_floating_put(const struct cni_request *r, struct buf *b) {
    const struct cni_pod *p = &r->pod;
    char external[IP_TEXT_MAX], internal[IP_TEXT_MAX];
    for (size_t i = 0; i < p->n_floating; i++) {
        size_t k = 0;
        while (r->nets[k].ip.family != p->floating[i].family) {
            k++;
        }
        buf_printf(b, "%s{\"internalIP\":\"%s\",\"externalIP\":\"%s\"}", i ? "," : ",\"ipNATs\":[",
                   ip_text(&r->nets[k].ip, internal), ip_text(&p->floating[i], external));
    }
    if (p->n_floating) {
        buf_putc(b, ']');
    }
}
