/* What the files of the CNI server share. Only for src/cni/server*.c. */
#pragma once

#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/vec.h"
#include "cni/server_ipam.h"
#include "cni/wire.h"
#include "model/k8s.h"
#include "model/policy.h"
#include "netlink/link.h"
#include "store/worker.h"

#include <stdatomic.h>

/* CNI's well-known error codes (SPEC.md, "Error"); 100 and up are the plugin's own. */
enum cni_code {
    CNI_CODE_VERSION = 1,
    CNI_CODE_UNKNOWN_CONTAINER = 3,
    CNI_CODE_BAD_ENV = 4,
    CNI_CODE_IO = 5,
    CNI_CODE_UNDECODABLE = 6,
    CNI_CODE_BAD_CONFIG = 7,
    CNI_CODE_TRY_LATER = 11,
    CNI_CODE_NOT_AVAILABLE = 50,
    CNI_CODE_LIMITED = 51,    /* nor can containers that run be sure of their connectivity */
    CNI_CODE_DIFFERENT = 100, /* CHECK found something else than ADD made */
};

enum {
    CNI_MAX_PORTS = 256,
    CNI_MAX_IPS = 16,
    CNI_MAX_POOLS = 32,
    CNI_MAX_LABELS = 64,
    CNI_MAX_GATES = 16
};

/* Why a request fails: one CNI error. */
struct cni_fail {
    int code;
    char msg[1024];
    char details[256];
};
/* Fills f; returns -1, so that a check can end with it. */
MG_PRINTF(4, 5)
int cni_fail(struct cni_fail *f, int code, const char *details, const char *fmt, ...);

/* ---- configuration (server_conf.c) ---- */
struct cni_conf {
    struct jnode *doc;
    unsigned version; /* index in cni_versions */
    struct str name, ipam_type, policy_type;
    struct str node;       /* who the configuration takes this node for; empty: nobody */
    struct str kubeconfig; /* of the API server that has the Pods, if the store has none */
    bool is_own_ipam;      /* margay-ipam or calico-ipam: we assign; else it is run by the plugin */
    bool has_ipam;
    bool assign_v4, assign_v6;
    struct str_list pools_v4, pools_v6;
    struct prefix ips[CNI_MAX_IPS]; /* asked for by runtimeConfig.ips, args.cni.ips */
    size_t n_ips;
    struct str mac; /* runtimeConfig.mac, args.cni.mac; empty: none */
    uint32_t mtu, n_queues;
    bool needs_mtu;    /* require_mtu_file: no interface with the kernel's default */
    bool wants_netkit; /* device_type */
    bool allow_ip_forwarding;
    bool include_default_routes;
    struct str_list gates;       /* readiness_gates: URLs */
    bool allow_floating_ips;     /* feature_control.floating_ips */
    bool allow_ips_without_ipam; /* feature_control.ip_addrs_no_ipam */
    int64_t policy_timeout_ms;
    struct str_map labels;
    struct jnode *prev_result, *dns, *valid_attachments;
    struct jnode *port_mappings, *bandwidth; /* runtimeConfig's; NULL: none */
};
enum { CNI_V_0_1, CNI_V_0_2, CNI_V_0_3_0, CNI_V_0_3_1, CNI_V_0_4, CNI_V_1_0, CNI_V_1_1 };
extern const char *const cni_versions[7];
MG_NODISCARD int cni_conf_read(struct str text, struct arena *a, struct cni_conf *out,
                               struct cni_fail *f);

/* CNI_ARGS; absent ones are STR_NULL. */
struct cni_args {
    struct str ns, pod, uid, infra_container, ip, mac;
    struct str_map labels;
};
MG_NODISCARD int cni_args_read(struct str text, struct arena *a, struct cni_args *out,
                               struct cni_fail *f);
/* A list of addresses as people write it: JSON list of texts, "10.0.0.1" or with a mask, which is
 * ignored. */
MG_NODISCARD int cni_ips_read(const struct jnode *list, const char *what, struct prefix *out,
                              size_t *n, struct cni_fail *f);

/* ---- who the pod is (server_pod.c) ---- */
struct cni_pod {
    bool has_pod_object; /* labels, ports, annotations are the Pod's */
    struct str orchestrator, ns, pod, service_account;
    struct str endpoint_name; /* of the WorkloadEndpoint */
    struct str key;           /* its key in the store */
    struct str_map labels;
    struct str_list profiles;
    struct str_list source_prefixes;            /* what it may send from beside its addresses */
    const struct k8s_pod *spec;                 /* with has_pod_object */
    const struct jnode *doc;                    /* likewise: the whole Pod */
    struct str_map annotations, ns_annotations; /* "" without */
    struct str iface;                           /* host side */
    struct str handle;                          /* of its addresses */
    uint8_t mac[6];
    struct ip46 floating[CNI_MAX_IPS];
    size_t n_floating;
    /* Of a virtual machine that keeps its addresses: `handle` is the machine's, not the
     * container's. is_target: the machine runs elsewhere and is to move here. */
    bool is_machine, is_target;
    struct str migration_uid;
};

/* What is made of a request once it is whole. */
struct cni_attachment {
    struct str container, ifname; /* the key, in `text` */
    struct str network, iface, wep_key, handle;
    struct str ns, pod; /* empty without a Pod */
    struct prefix *nets;
    size_t n_nets;
    uint64_t wep_revision;
    bool is_superseded; /* a newer container has taken over interface name and endpoint */
    char text[];
};

struct cni_attach_key {
    struct str container, ifname;
};
#define MAP_NAME cni_attachments
#define MAP_KEY struct cni_attach_key
#define MAP_VAL struct cni_attachment *
#define MAP_HASH(k) (hash_str((k).container) ^ hash_u64(hash_str((k).ifname)))
#define MAP_EQ(a, b) (str_eq((a).container, (b).container) && str_eq((a).ifname, (b).ifname))
#include "base/map.tmpl.h"

/* ---- removal (server_del.c) ---- */
struct cni_request;

/* One attachment to take away: for DEL, GC, the spool and a failed ADD. */
struct cni_removal {
    struct arena arena;
    struct str container, ifname, handle;
    struct str network, ns, pod; /* pod empty: not known, or another container is the pod's now */
    struct str old_handle;       /* whose addresses go too; empty: none */
    struct str iface;            /* host side to delete; empty: none */
    int index;                   /* of iface */
    struct str wep_key; /* endpoint to delete if it is still the container's; empty: none */
    struct ip46 *ips;   /* whose connections end */
    size_t n_ips;
    bool is_superseded; /* the pod has another container by now */
    bool link_only;     /* nothing in the store */
    int code;           /* what came of it */
    char error[256];
    void (*done)(void *arg, struct cni_removal *r);
    void *arg;
};

/* What the store has of an attachment (server_check.c). */
struct cni_seen {
    int endpoint_code, held_code; /* of reading it */
    struct str container;         /* whose the endpoint is */
    struct ip46 held[CNI_MAX_IPS];
    size_t n_held;
    struct err error;
};

enum cni_command { CNI_CMD_ADD, CNI_CMD_DEL, CNI_CMD_CHECK, CNI_CMD_GC, CNI_CMD_STATUS };

struct cni_request {
    struct cni_server *s;
    struct cni_request *prev, *next;
    int fd, netns_fd;
    struct loop_poll *poll;
    struct loop_timer *timer;
    void (*on_timer)(struct cni_request *r);
    struct arena arena;
    struct buf rx, tx;
    bool is_read;      /* the REQUEST is whole */
    bool is_answering; /* tx holds the answer; nothing else happens any more */
    bool is_gone;      /* the plugin has hung up: undo, don't answer */
    bool is_waiting;   /* for an earlier request of the same container */
    bool is_busy;      /* has begun */
    bool is_done;      /* answered; only callbacks that still come keep it */
    bool is_stepping;  /* the store's worker has it: nobody else touches what a step reads */
    bool is_given_up;  /* its container was deleted in a step */
    int exit_code;
    int spool_dir; /* of a DEL from the spool, which has no connection; else -1 */
    struct str spool_name;
    unsigned n_pending; /* callbacks that will still come: keeps the request alive */
    void (*step_work)(struct cni_request *r);
    void (*step_next)(struct cni_request *r);
    void (*gates_next)(struct cni_request *r);
    void (*stale_next)(struct cni_request *r);
    int step_code; /* of the last step; negative: fail says why */
    unsigned n_delegates;
    void (*on_delegated)(struct cni_request *r, uint32_t code, struct str text);

    enum cni_command cmd;
    bool is_ipam_program;
    uint32_t flags;
    struct str strings[WIRE_N_STRINGS];
    struct cni_conf conf;
    struct cni_args args;
    struct cni_fail fail;
    int64_t start_ns;

    /* ADD */
    struct cni_pod pod;
    struct cni_seen seen;
    struct str look_key, look_handle; /* of the attachment to be looked at */
    struct str look_ns, look_pod;
    bool wants_pod; /* waits for the Pod object, until: */
    int64_t pod_deadline_ns;
    bool wants_retry; /* the Pod object has changed */
    bool wants_gates; /* waits for readiness gates: for number `gate`, until: */
    size_t gate;
    int64_t gate_deadline_ns;
    struct http_probe *probe; /* NULL: between two tries */
    char gate_why[192];       /* what the last try said */
    struct prefix nets[CNI_MAX_IPS];
    struct prefix block_nets[CNI_MAX_IPS]; /* the same with the blocks' masks */
    size_t n_nets;
    struct jnode *ipam_result;
    struct str delegate_input;
    const char *delegate_command;
    void (*delegate_next)(struct cni_request *r, uint32_t code, struct str text);
    bool has_ipam, has_delegated_ipam, has_endpoint, has_link; /* to be undone */
    uint64_t wep_revision;
    unsigned n_tries;
    int64_t kernel_ns;
    /* GC, DEL */
    size_t n_removals;
    bool did_fail;
};

/* Batches of removals under way at the same time: while the kernel lets one wait, it has time for
 * another. Each has sockets of its own, as they belong to one worker. */
#define CNI_REMOVERS 2
struct cni_remover {
    struct nl *nl;
    struct conntrack *conntrack;
    bool is_busy;
};

struct cni_server {
    struct loop *loop;
    struct store_worker *worker;
    struct store *store; /* the worker's: in steps only */
    struct ipam *ipam;   /* likewise */
    bool may_ask_kube;   /* the store is not where Kubernetes' objects are */
    struct store *kube;  /* likewise: what a request's kubeconfig named; NULL: none did */
    char *kube_path;
    char
        *denied_handle; /* likewise: of the machine whose handle was full, though it held nothing */
    int64_t kube_lost_ns; /* likewise: when it was last asked about a machine in vain; 0: never */
    struct cni_moves *moves; /* of server_move.c */
    struct links *links;
    struct nl *nl;
    bool has_no_netkit; /* the kernel has said so */
    struct arena arena; /* settings */
    struct str node, iface_prefix;
    uint32_t mtu;
    const struct cni_server_ops *ops;
    void *arg;
    struct cni_request *requests;
    size_t n_requests;
    struct cni_attachments attachments;
    struct cni_server_stats stats;
    struct log_limit log;
    bool is_closing;
    /* removals */
    VEC(struct cni_removal *) queue; /* for the next batch */
    struct loop_timer *batch_timer;
    bool is_batch_timed, is_gathering;
    uint32_t n_batches;
    struct cni_remover removers[CNI_REMOVERS];
    struct cni_extra *extras; /* of server_extra.c */
    int extra_dir;
    struct cni_early *early; /* of server_shape.c: Pods told of before their attachments */
    bool is_tended;          /* all attachments of before are known */
    /* of server_stale.c */
    struct conntrack *stale_conntrack;
    VEC(struct cni_request *) stale_waiting;
    bool is_stale_busy;
    struct cni_pools *pools; /* of server_ipam_blocks.c; NULL: not read. In steps only */
    atomic_bool are_pools_stale;
};

/* ---- server.c: steps ---- */
/* work(r) where the store's calls may block (store/worker.h), then next(r) on the loop; next
 * doesn't come when the request has ended meanwhile. work touches only r, the store, the pools. */
void cni_step(struct cni_request *r, void (*work)(struct cni_request *r),
              void (*next)(struct cni_request *r));

/* ---- server.c: answers ---- */
void cni_answer(struct cni_request *r, int exit_code, struct str text);
void cni_answer_fail(struct cni_request *r);
/* Has the plugin run type's command with input on stdin; on_delegated gets what came of it, with
 * code UINT32_MAX when the plugin has gone. */
void cni_delegate(struct cni_request *r, struct str type, const char *command, struct str input,
                  void (*on_delegated)(struct cni_request *r, uint32_t code, struct str text));
void cni_timer(struct cni_request *r, int64_t ms, void (*cb)(struct cni_request *r));
/* Runs the configuration's IPAM plugin (server_delegate.c): host-local's "usePodCidr" is replaced
 * by the node's pod CIDR, as Calico does. */
void cni_delegate_ipam(struct cni_request *r, const char *command,
                       void (*on_delegated)(struct cni_request *r, uint32_t code, struct str text));
/* In a step. Fails r when ClusterInformation says that the datastore is locked. */
MG_NODISCARD int cni_check_ready(struct cni_request *r);
/* n_pending-- and frees a request that is done. True: it is done, whether freed or not. */
bool cni_unref(struct cni_request *r);
/* A request without a connection yet; it is in the server's list. */
struct cni_request *cni_request_new(struct cni_server *s);
/* The body of a REQUEST frame, which must live as long as r. -EPROTO, -EMSGSIZE. */
MG_NODISCARD int cni_request_take(struct cni_request *r, const uint8_t *body, size_t n);
/* Begins the request, or lets it wait for an earlier one of the same container. */
void cni_request_start(struct cni_request *r);

/* ---- server_pod.c ---- */
/* In a step. Fills r->pod but iface. 0; -1: failed; 1: the Pod object is missing and must be waited
 * for. */
MG_NODISCARD int cni_identify(struct cni_request *r);
/* In a step: opens the API server that r's configuration names, if the store has no Pods. */
MG_NODISCARD int cni_find_kube(struct cni_request *r);
/* In a step: an object, decoded as far as it can be. ERR_NOT_FOUND. */
MG_NODISCARD int cni_read_object(struct cni_server *s, enum kind_id id, struct str ns,
                                 struct str name, struct arena *a, struct object *out,
                                 struct err *e);
/* Key and name of the endpoint with or without a Pod. */
void cni_name_endpoint(struct cni_request *r, bool with_pod);
/* "cali" + 11 digits. */
struct str cni_iface_name(struct cni_request *r);
struct str cni_handle(struct arena *a, struct str network, struct str container, struct str ifname);
/* The handle that Calico's oldest plugins gave the container's addresses; empty: none is to be
 * looked for. */
struct str cni_old_handle(const struct cni_request *r, struct arena *a);
/* Profile of a network outside Kubernetes, made if it is missing. */
MG_NODISCARD int cni_ensure_profile(struct cni_server *s, struct str name, struct arena *a,
                                    struct err *e);
/* Writes the WorkloadEndpoint of r->pod with r->nets; within store_begin. */
MG_NODISCARD int cni_put_endpoint(struct cni_request *r, struct err *e);
/* The value of an annotation; STR_NULL without. */
struct str cni_annotation(const struct str_map *m, const char *key);
/* An annotation that holds a JSON list; fails r if it doesn't. */
MG_NODISCARD int cni_annotation_list(struct cni_request *r, const char *key, struct str text,
                                     struct jnode **out);
/* The same of 1 to max texts. */
MG_NODISCARD int cni_annotation_texts(struct cni_request *r, const char *key, struct str text,
                                      size_t max, struct str_list *out);

/* ---- server_gates.c ---- */
/* Waits until each of conf.gates answers, then next(r); at once without any. Fails r otherwise. */
void cni_gates_wait(struct cni_request *r, void (*next)(struct cni_request *r));
/* Ends the waiting without next. */
void cni_gates_stop(struct cni_request *r);

/* ---- server_floating.c ---- */
/* In a step, when addresses are known. */
MG_NODISCARD int cni_floating_read(struct cni_request *r);
/* As a member of the endpoint's spec. */
void cni_floating_put(const struct cni_request *r, struct buf *b);

/* ---- server_attach.c ---- */
/* From the store; not in a step. */
MG_NODISCARD int cni_attachments_load(struct cni_server *s, struct err *e);
struct cni_attachment *cni_attachment_find(struct cni_server *s, struct str container,
                                           struct str ifname);
/* Records r's; marks those superseded that had the same endpoint or interface. */
void cni_attachment_add(struct cni_request *r);
void cni_attachment_drop(struct cni_server *s, struct str container, struct str ifname);
void cni_attachments_free(struct cni_server *s);

/* ---- server_ipam.c ---- */
/* Assigns r's addresses: r->nets, r->block_nets. -1: r->fail. */
MG_NODISCARD int cni_ipam_add(struct cni_request *r);
/* margay-ipam, called by another plugin. */
void cni_ipam_program(struct cni_request *r);

/* ---- server_machine.c: pods of KubeVirt's virtual machines. In steps. ---- */
/* The API server that has Kubernetes' objects; NULL: none is known. */
struct store *cni_kube(const struct cni_server *s);
/* Is r's pod a machine's that keeps its addresses? Then w gets the machine's handle and
 * attributes. */
MG_NODISCARD int cni_machine_find(struct cni_request *r, struct cni_ipam_want *w);
/* 1: r->nets are the addresses that the machine has; 0: it has none yet. */
MG_NODISCARD int cni_machine_reuse(struct cni_request *r, const struct cni_ipam_want *w);
/* Handle of the machine whose pod that is, and its name: by the pod's name, or, where that is cut
 * off or the network (empty) isn't known, by the books. ERR_NOT_FOUND: none. */
MG_NODISCARD int cni_machine_of(struct cni_server *s, struct str network, struct str ns,
                                struct str pod, struct arena *a, struct str *handle,
                                struct str *name, struct err *e);
/* A pod is deleted: it owns no machine's addresses any more. They are given back when nobody owns
 * them and the machine is being deleted or gone; if that can't be found out they stay. */
MG_NODISCARD int cni_machine_leave(struct cni_server *s, struct str network, struct str ns,
                                   struct str pod, struct err *e);

/* ---- server_move.c: machines that move to this node ---- */
/* The pod of an attachment of this node waits for its machine; uid: of the migration. */
void cni_move_add(struct cni_server *s, const struct cni_attachment *t, struct str uid);
void cni_move_drop(struct cni_server *s, struct str container, struct str ifname);
void cni_moves_free(struct cni_server *s);

/* ---- server_kernel.c: both ends of the pair ---- */
/* Makes it. -EEXIST: an interface of the host's name is there (*index). */
MG_NODISCARD int cni_kernel_make(struct cni_request *r, int *index, struct cni_fail *f);
/* Is all there that ADD made? Fills f with what isn't. */
MG_NODISCARD int cni_kernel_check(struct cni_request *r, const struct cni_attachment *at,
                                  uint8_t mac[6], struct cni_fail *f);

/* ---- server_result.c ---- */
/* The result of ADD in the shape of conf.version. */
void cni_result(struct cni_request *r, struct str mac_text, struct buf *out);
/* Of margay-ipam. */
void cni_ipam_result(struct cni_request *r, struct buf *out);
/* Addresses of an IPAM plugin's result, whatever its version. */
MG_NODISCARD int cni_read_ipam_result(struct cni_request *r, struct str text, struct cni_fail *f);

/* ---- server_add.c, server_del.c, server_check.c ---- */
void cni_add(struct cni_request *r);
/* The Pod that it waits for may be there now. */
void cni_add_retry(struct cni_request *r);
void cni_del(struct cni_request *r);
void cni_gc(struct cni_request *r);
void cni_check(struct cni_request *r);
/* The attachment is what the next step looks at. */
void cni_look_at(struct cni_request *r, const struct cni_attachment *at);
/* In a step: fills r->seen. */
void cni_look(struct cni_request *r);
/* Was the endpoint in the store, and still this container's? Fills r->fail if not. */
MG_NODISCARD int cni_check_endpoint(struct cni_request *r, const struct cni_attachment *at);
void cni_status(struct cni_request *r);
/* A removal of what the container's attachment still holds; of its addresses alone when there is
 * none. network: as the configuration names it. */
struct cni_removal *cni_removal_new(struct cni_server *s, struct str network, struct str container,
                                    struct str ifname);
/* Whose container it was, as the request says, if no attachment says it. */
void cni_removal_of_pod(struct cni_removal *m, const struct cni_request *r);
/* Of one link. */
struct cni_removal *cni_removal_of_link(int index);
/* Calls m->done when it is carried out, maybe from inside, then frees m. */
void cni_removal_queue(struct cni_server *s, struct cni_removal *m);
/* Between true and false, what is queued waits for the rest. */
void cni_removals_gather(struct cni_server *s, bool is_gathering);
/* Waits for the batch that runs, drops the rest. */
void cni_removals_free(struct cni_server *s);
/* Index of a pod's host interface; 0: not there, or not one of ours. */
int cni_host_link(struct cni_server *s, struct str iface);
