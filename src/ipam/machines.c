/* See machines.h. */
#include "ipam/machines.h"

#include "base/hash.h"
#include "store/kube.h"

#define API_VERSION "kubevirt.io/v1"
#define LAUNCHER "virt-launcher-"

enum {
    HANDLE_MAX = 128,  /* as Calico limits it */
    POD_NAME_MAX = 63, /* Kubernetes makes names so long and no longer: NAME cut, and a suffix */
    POD_SUFFIX = 6,    /* "-" and five characters */
};

static const struct kube_resource INSTANCES = {"kubevirt.io", "v1", "virtualmachineinstances",
                                               "VirtualMachineInstance"};
static const struct kube_resource MACHINES = {"kubevirt.io", "v1", "virtualmachines",
                                              "VirtualMachine"};
static const struct kube_resource MIGRATIONS = {
    "kubevirt.io", "v1", "virtualmachineinstancemigrations", "VirtualMachineInstanceMigration"};

/* ---- names ---- */

bool machine_is_launcher(struct str pod) {
    return str_starts(pod, STR(LAUNCHER)) && pod.n > strlen(LAUNCHER) + POD_SUFFIX;
}

struct str machine_name_of_launcher(struct str pod) {
    if (!machine_is_launcher(pod) || pod.n >= POD_NAME_MAX || pod.p[pod.n - POD_SUFFIX] != '-') {
        return STR_NULL;
    }
    return str_sub(pod, strlen(LAUNCHER), pod.n - POD_SUFFIX);
}

struct str machine_handle(struct str network, struct str ns, struct str name, struct arena *a) {
    struct str prefix = arena_printf(a, "%.*s.vmi.", STR_FMT(network));
    struct str rest = arena_printf(a, "%.*s.%.*s", STR_FMT(ns), STR_FMT(name));
    uint8_t digest[32];
    char text[48];
    if (prefix.n + rest.n <= HANDLE_MAX) {
        return arena_printf(a, "%.*s%.*s", STR_FMT(prefix), STR_FMT(rest));
    }
    sha256(rest.p, rest.n, digest);
    size_t n = base64url_encode(digest, sizeof(digest), text);
    size_t room = prefix.n + 2 < HANDLE_MAX ? HANDLE_MAX - 1 - prefix.n : 1;
    return arena_printf(a, "%.*s_%.*s", STR_FMT(prefix), (int)(n < room ? n : room), text);
}

static bool of_handle(struct str handle, struct str *ns, struct str *name) {
    static const struct str mark = {".vmi.", 5};
    for (size_t i = 1; i + mark.n < handle.n; i++) {
        if (str_starts(str_sub(handle, i, handle.n), mark)) {
            struct str rest = str_sub(handle, i + mark.n, handle.n);
            *ns = str_cut(&rest, '.'); /* the name of a namespace has no dot */
            *name = rest.p ? rest : STR("");
            return ns->n > 0 && name->n > 0 && ns->p[0] != '_';
        }
    }
    return false;
}

bool machine_of_allocation(const struct jnode *attr, struct str handle, struct str *ns,
                           struct str *name) {
    static const char *const owners[] = {"secondary", "alternateOwnerAttrs"};
    bool is_owned = false;
    for (size_t i = 0; i < ARRAY_LEN(owners); i++) {
        const struct jnode *owner = jnode_getc(attr, owners[i]);
        *name = jnode_str(jnode_getc(owner, "vmi-name"));
        *ns = jnode_str(jnode_getc(owner, "namespace"));
        if (name->n && ns->n) {
            return true;
        }
        is_owned = is_owned || (owner && owner->n);
    }
    return !is_owned && of_handle(handle, ns, name);
}

/* ---- objects ---- */

static const struct jnode *owner_of(const struct jnode *obj, const char *kind, bool is_controller) {
    const struct jnode *list = jnode_path(obj, "metadata.ownerReferences");
    jnode_each (it, list) {
        const struct jnode *is = jnode_getc(it, "controller");
        if (str_is(jnode_str(jnode_getc(it, "kind")), kind) &&
            str_is(jnode_str(jnode_getc(it, "apiVersion")), API_VERSION) &&
            (!is_controller || (is && is->type == J_BOOL && is->b))) {
            return it;
        }
    }
    return NULL;
}

static bool is_ending(const struct jnode *obj) {
    return jnode_str(jnode_path(obj, "metadata.deletionTimestamp")).n > 0;
}

static struct str text_of(const struct jnode *n, struct arena *a) {
    struct str s = jnode_str(n);
    return s.n ? arena_dup(a, s) : STR("");
}

/* kubevirt.io/… has a slash and dots: no path of jnode_path. */
static struct str label_of(const struct jnode *obj, const char *key) {
    return jnode_str(jnode_getc(jnode_path(obj, "metadata.labels"), key));
}

int machine_of_pod(struct store *kube, struct str ns, const struct jnode *pod, struct arena *a,
                   struct machine *out, struct err *e) {
    const struct jnode *ref = owner_of(pod, INSTANCES.kind, true);
    struct jnode *vmi = NULL, *vm = NULL;
    if (!ref) {
        return 0;
    }
    struct str name = jnode_str(jnode_getc(ref, "name")), uid = jnode_str(jnode_getc(ref, "uid"));
    if (!name.n || !uid.n) {
        return err_set(e, ERR_INVALID,
                       "its ownerReference of kind VirtualMachineInstance has no name or uid");
    }
    int r = kube_resource_get(kube, &INSTANCES, ns, name, a, &vmi, NULL, e);
    if (r < 0) {
        return r;
    }
    struct str is = jnode_str(jnode_path(vmi, "metadata.uid"));
    if (!str_eq(is, uid)) {
        return err_set(
            e, ERR_INVALID,
            "its VirtualMachineInstance %.*s/%.*s has the uid %.*s, the pod was made for "
            "%.*s",
            STR_FMT(ns), STR_FMT(name), STR_FMT(is), STR_FMT(uid));
    }
    *out = (struct machine){.name = arena_dup(a, name),
                            .vmi_uid = arena_dup(a, uid),
                            .vm_uid = STR(""),
                            .migration_uid = STR("")};
    struct str moving = label_of(pod, MACHINE_MIGRATION_LABEL);
    out->migration_uid = moving.n ? arena_dup(a, moving) : STR("");
    ref = owner_of(vmi, MACHINES.kind, false);
    if (ref && jnode_str(jnode_getc(ref, "name")).n) {
        r = kube_resource_get(kube, &MACHINES, ns, jnode_str(jnode_getc(ref, "name")), a, &vm, NULL,
                              e);
        out->vm_uid = r == 0 ? text_of(jnode_path(vm, "metadata.uid"), a) : STR("");
    }
    return r < 0 ? r : 1;
}

/* An object that may be gone: *out NULL. A kind that the server doesn't know is an error. */
static int look(struct store *kube, const struct kube_resource *k, struct str ns, struct str name,
                struct arena *a, struct jnode **out, struct err *e) {
    bool is_unknown = false;
    *out = NULL;
    int r = kube_resource_get(kube, k, ns, name, a, out, &is_unknown, e);
    if (r == ERR_NOT_FOUND && is_unknown) {
        return err_set(e, ERR_UNAVAILABLE, "the API server has no kind %s: is KubeVirt installed?",
                       k->kind);
    }
    return r == ERR_NOT_FOUND ? 0 : r;
}

int machine_life(struct store *kube, struct str ns, struct str name, enum machine_life *out,
                 struct err *e) {
    struct arena a = {0};
    struct jnode *vm = NULL, *vmi = NULL;
    int r = look(kube, &MACHINES, ns, name, &a, &vm, e);
    r = r == 0 && !vm ? look(kube, &INSTANCES, ns, name, &a, &vmi, e) : r;
    if (r == 0) {
        const struct jnode *obj = vm ? vm : vmi;
        bool is_orphan = vmi && owner_of(vmi, MACHINES.kind, false); /* its VM is gone */
        *out = !obj || is_orphan ? MACHINE_GONE : is_ending(obj) ? MACHINE_ENDS : MACHINE_LIVES;
    }
    arena_fini(&a);
    return r;
}

int machine_move(struct store *kube, struct str ns, struct str name, struct str migration_uid,
                 struct str node, enum machine_move *out, struct err *e) {
    struct arena a = {0};
    struct jnode *list = NULL, *vmi = NULL;
    struct str phase = STR_NULL;
    int r = kube_resource_get(kube, &MIGRATIONS, ns, STR_NULL, &a, &list, NULL, e);
    const struct jnode *items = jnode_getc(list, "items");
    jnode_each (it, items) {
        if (str_eq(jnode_str(jnode_path(it, "metadata.uid")), migration_uid)) {
            phase = jnode_str(jnode_path(it, "status.phase"));
            phase = phase.p ? phase : STR(""); /* brand new */
        }
    }
    bool is_done = str_is(phase, "Succeeded");
    if (r == 0 && !phase.p) {
        r = look(kube, &INSTANCES, ns, name, &a, &vmi, e);
        is_done = r == 0 && str_eq(jnode_str(jnode_path(vmi, "status.nodeName")), node);
    }
    if (r == 0) {
        *out = is_done ? MOVE_DONE : MOVE_RUNS;
    }
    arena_fini(&a);
    return r;
}
