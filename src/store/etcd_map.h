/* Calico's layout in etcd: which key holds which item, and what differs between the text kept there
 * and the text that the store gives out. Pure functions; nothing here fails on what others wrote.
 *
 *     space r   KIND.GROUP/NS/NAME   /calico/resources/VERSION/GROUP/PLURAL/[NS/]NAME
 *               GROUP is "core" for the kinds of v1, which Calico itself keeps elsewhere
 *     space i   /ipam/v2/…           /calico/ipam/v2/…
 *     space c   /felix/v2/…          /calico/felix/v2/…   (any key of Calico's; no values change)
 *     space raw KEY                  KEY                  (whatever it is; values as they are)
 *     others    KEY                  /margay/SPACE/KEY
 *
 * The mapping is one to one. Policies of Calico's early versions stand at "default.NAME": their
 * store key says so too, while the name in the document is NAME; so that of an old and a new one of
 * the same name, which are both in force, none hides the other. */
#pragma once

#include "store/store.h"

/* Items of Calico's that are neither resources nor addresses: keys below /calico, with the slash.
 */
#define STORE_SPACE_CALICO "c"
/* etcd's own keys: for readers of what is not ours (confd). */
#define STORE_SPACE_RAW "raw"

/* ERR_INVALID: no such kind, or not the form that the space's keys have. In the arena. */
MG_NODISCARD int etcd_key_of(struct store_key k, struct arena *a, struct str *out, struct err *e);
/* The store's key of etcd's. False: not an item of the space, or longer than a key may be. */
bool etcd_key_back(struct str space, struct str etcd_key, struct arena *a, struct str *out);
/* Where an early version would have the policy k; STR_NULL when k is not such a policy. */
struct str etcd_key_early(struct store_key k, struct arena *a);

/* What to write for a value, at which key. Keeps the text unless something must change in it. */
struct str etcd_value_out(struct store_key k, struct str etcd_key, struct str value,
                          struct arena *a);
/* What was written, as the store gives it out; what can't be read is given out as it is. */
struct str etcd_value_in(struct str space, struct str key, struct str value, struct arena *a);

/* Is k the profile that is there without being stored? Its text. */
bool etcd_is_built_in(struct store_key k);
struct str etcd_built_in_key(void);
struct str etcd_built_in_value(void);

/* Ranges of etcd keys [from, to), in the order of the store keys that they hold. */
struct etcd_range {
    struct str from, to;
};
/* Those that hold every item whose key starts with the prefix, and nothing that does not but for
 * keys that are no items. In the arena; 0: nothing can start so. */
size_t etcd_ranges(struct store_key prefix, struct arena *a, struct etcd_range **out);
/* One range around all of them, for a watch. False: nothing can start so. */
bool etcd_range_around(struct store_key prefix, struct arena *a, struct etcd_range *out);
