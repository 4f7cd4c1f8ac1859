/* Cuts an answer of the API server into its objects while it comes: the elements of a list's
 * "items", or the events of a watch. Only one object's text is kept at a time. What is given out
 * has balanced brackets; json_parse judges the rest. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

enum {
    KUBE_OBJECT_MAX = 8 << 20, /* bytes of one element (etcd's limit is below 2 MiB) */
    KUBE_LIST_META_MAX = 1 << 20,
    KUBE_SPLIT_DEPTH = 64,
};

struct kube_split_ops {
    /* One element, or one event. A negative answer ends the reading and is returned. */
    int (*on_object)(void *arg, struct str text);
    /* The list's metadata; comes before or after the items. May be NULL. */
    int (*on_meta)(void *arg, struct str text);
};

struct kube_split {
    const struct kube_split_ops *ops;
    void *arg;
    bool is_watch;
    bool in_string, is_escaped, is_key, is_done, in_items;
    bool has_items, is_kind; /* the list's member was there; its kind's text is being read */
    const char *kind;        /* of a list's objects; NULL: any */
    char list_kind[64];      /* as the list says, as far as it has room */
    size_t n_list_kind;
    uint8_t expect;              /* enum in kube_split.c */
    unsigned depth;              /* open brackets */
    char open[KUBE_SPLIT_DEPTH]; /* which ones */
    unsigned capture_depth;      /* an object is kept while depth is above; 0: none */
    enum { CAPTURE_OBJECT, CAPTURE_META } capture;
    char key[16]; /* of the list's members, as far as it is one that counts */
    size_t n_key;
    struct buf text;
};

/* kind: of the objects that a list was asked for, static; a list that says it is of others is
 * refused, as is a document without "items": an answer of somebody in between must not look like a
 * list of nothing. NULL, and of a watch: not looked at. */
void kube_split_init(struct kube_split *s, bool is_watch, const char *kind,
                     const struct kube_split_ops *ops, void *arg);
void kube_split_fini(struct kube_split *s);
/* 0, ERR_TOO_BIG, -EPROTO (not such an answer), or what a callback returned; then nothing more may
 * be fed. */
MG_NODISCARD int kube_split_feed(struct kube_split *s, struct str chunk);
/* The answer may end here: the list is whole, no event is half. */
bool kube_split_is_whole(const struct kube_split *s);
