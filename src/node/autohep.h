/* The host endpoint of this node that nobody has to write: NODE-auto-hep on all interfaces, with
 * the labels of the Node and open until a policy selects it, when KubeControllersConfiguration
 * `default` says spec.controllers.node.hostEndpoint.autoCreate: Enabled. In a cluster Calico's node
 * controller does this; on one host with the embedded store the agent does. */
#pragma once

#include "base/loop.h"
#include "dataplane/dataplane.h"
#include "store/store.h"

struct autohep;

struct autohep *autohep_new(struct loop *l, struct store *s, struct str node);
void autohep_free(struct autohep *h); /* accepts NULL */
/* An object of a kind that it looks at may have changed: it reads them at the end of this turn. */
void autohep_object(struct autohep *h, const struct kind *k, struct str name);
/* The host's addresses, which become the expected ones. */
void autohep_set_own(struct autohep *h, const struct dataplane_iface *v, size_t n);
