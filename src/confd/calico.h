/* Resources as Calico's confd shows them to templates: the keys below /calico, and what
 * getBGPConfig answers from. */
#pragma once

#include "bgp/conf.h"
#include "confd/kv.h"

/* Noted as read by getBGPConfig: its value changes with everything that the answer is made of. */
#define CALICO_CONFIG_KEY "/calico/bgpconfig"

struct bgp_view {
    struct str node_name;
    const struct object *objects;
    size_t n_objects;
    const struct conf_block *blocks;
    size_t n_blocks;
    struct bgp_conf *conf;
};

/* Keys and values from v->conf and the objects into k, unsorted. False: something was too long. */
MG_NODISCARD bool calico_keys(const struct bgp_view *v, struct kv *k);

/* The object of a kind and name, or NULL. */
const struct object *calico_find(const struct bgp_view *v, enum kind_id kind, struct str name);
/* A field of a map, NULL if the map is none. */
const struct jnode *calico_get(const struct jnode *map, const char *name);
/* BGPFilters that a peer names, as a list node; NULL: none. */
const struct jnode *calico_filters(const struct bgp_view *v, const struct conf_peer *p);
/* own AS towards a peer */
uint32_t calico_own_as(const struct bgp_view *v, const struct conf_peer *p);
