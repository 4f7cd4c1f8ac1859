/* The shapes of kube_map.h, one function each way; only its files include this. */
#pragma once

#include "store/kube_map.h"

#define KUBE_CRD_GROUP "crd.projectcalico.org"
#define KUBE_ANNOTATION_METADATA "projectcalico.org/metadata"

/* A map member that is made when it is not there (or is no map). */
struct jnode *kube_map_at(struct arena *a, struct jnode *map, const char *name);
void kube_set_text(struct arena *a, struct jnode *map, const char *name, struct str value);
/* JSON text as a node's copy in the arena; NULL when it is no JSON. */
struct jnode *kube_parse_text(struct str text, struct arena *a);
/* A new tree with apiVersion, kind and empty metadata. */
struct jnode *kube_new_object(struct arena *a, const char *api_version, const char *kind);
/* Text of obj's annotation, STR_NULL without. */
struct str kube_annotation(const struct jnode *obj, const char *key);
/* name, uid, resourceVersion, creationTimestamp of src's metadata to dst's. uid is flipped if
 * wanted. */
void kube_copy_identity(struct arena *a, struct jnode *dst, const struct jnode *src, bool flip_uid);

/* kube_meta.c */
void kube_read_plain(const struct kube_view *v, struct jnode *obj, struct arena *a);
struct jnode *kube_write_plain(const struct kube_at *at, const struct jnode *value,
                               struct arena *a);
MG_NODISCARD int kube_read_crd(const struct kube_view *v, struct jnode *obj, struct arena *a,
                               struct kube_item *out, struct err *e);
MG_NODISCARD int kube_write_crd(const struct kube_at *at, const struct jnode *value,
                                struct arena *a, struct jnode **out, struct err *e);

/* kube_core.c */
struct jnode *kube_read_node(struct jnode *obj, struct arena *a);
MG_NODISCARD int kube_read_wep(struct jnode *obj, struct arena *a, struct kube_item *out,
                               struct err *e);
void kube_read_profile(const struct kube_view *v, struct jnode *obj, struct arena *a,
                       struct kube_item *out);

/* kube_ipam.c */
MG_NODISCARD int kube_ipam_name(const struct kube_view *v, struct str key, struct arena *a,
                                struct str *name, struct err *e);
MG_NODISCARD int kube_read_ipam(const struct kube_view *v, struct jnode *obj, struct arena *a,
                                struct kube_item *out, struct err *e);
MG_NODISCARD int kube_write_ipam(const struct kube_at *at, struct store_key k,
                                 const struct jnode *value, struct arena *a, struct jnode **out,
                                 struct err *e);
