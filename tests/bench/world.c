#include "world.h"

#include "base/jtree.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct world world_of(unsigned policies, unsigned pods, bool is_spread) {
    return (struct world){.policies = policies,
                          .pods = pods,
                          .local = pods < 100 ? pods : 100,
                          .namespaces = pods < 100 ? 1 + pods / 10 : 100,
                          .is_spread = is_spread};
}

static const char *const envs[] = {"prod", "stage", "test"};
static const char *const tiers[] = {"front", "middle", "back", "batch"};

static unsigned app_of(const struct world *w, unsigned pod) {
    return (pod / w->namespaces + pod) % WORLD_APPS;
}

void world_namespace(const struct world *w, unsigned i, unsigned version, struct world_doc *out) {
    (void)w;
    snprintf(out->key, sizeof(out->key), "Namespace//ns%u", i);
    snprintf(out->text, sizeof(out->text),
             "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"ns%u\","
             "\"labels\":{\"env\":\"%s\",\"owner\":\"group%u\"}}}",
             i, envs[(i + version) % 3], i % 7);
}

void world_pod(const struct world *w, unsigned i, unsigned version, struct world_doc *out) {
    unsigned app = (app_of(w, i) + version) % WORLD_APPS, ns = i % w->namespaces;
    char node[32];
    snprintf(node, sizeof(node), "node%u", i % 1000);
    snprintf(out->key, sizeof(out->key), "Pod/ns%u/pod%u", ns, i);
    snprintf(
        out->text, sizeof(out->text),
        "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"pod%u\",\"namespace\":"
        "\"ns%u\",\"labels\":{\"app\":\"app%u\",\"component\":\"part%u\",\"env\":\"%s\","
        "\"managed-by\":\"Helm\",\"pod-template-hash\":\"%x\",\"release\":\"r%u\",\"team\":"
        "\"team%u\",\"tier\":\"%s\",\"version\":\"v1.%u\",\"zone\":\"zone%u\"}},\"spec\":{"
        "\"nodeName\":\"%s\",\"serviceAccountName\":\"default\",\"containers\":[{\"name\":"
        "\"main\",\"ports\":[{\"name\":\"http\",\"containerPort\":8080}]}]},\"status\":{"
        "\"phase\":\"Running\",\"podIP\":\"10.%u.%u.%u\"}}",
        i, ns, app, i % 4, envs[ns % 3], (ns * WORLD_APPS + app) * 2654435761U, app + ns * 50,
        (ns + app) % 50, tiers[app % 4], i % 20, i % 3, i < w->local ? WORLD_NODE : node,
        100 + i / 62500, i / 250 % 250, i % 250 + 1);
}

void world_endpoint(const struct world *w, unsigned i, struct world_doc *out) {
    unsigned ns = i % w->namespaces;
    snprintf(out->key, sizeof(out->key),
             "WorkloadEndpoint.projectcalico.org/ns%u/" WORLD_NODE "-k8s-pod%u-eth0", ns, i);
    snprintf(out->text, sizeof(out->text),
             "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"WorkloadEndpoint\",\"metadata\":{"
             "\"name\":\"" WORLD_NODE "-k8s-pod%u-eth0\",\"namespace\":\"ns%u\"},\"spec\":{"
             "\"orchestrator\":\"k8s\",\"node\":\"" WORLD_NODE "\",\"containerID\":\"c%u\",\"pod\":"
             "\"pod%u\",\"endpoint\":\"eth0\",\"interfaceName\":\"caliw%u\",\"ipNetworks\":["
             "\"10.%u.%u.%u/32\"],\"profiles\":[\"kns.ns%u\"]}}",
             i, ns, i, i, i, 100 + i / 62500, i / 250 % 250, i % 250 + 1, ns);
}

/* The app that a policy is for. */
static unsigned target_of(const struct world *w, unsigned i, unsigned ns) {
    if (w->is_spread) {
        return i / w->namespaces % WORLD_APPS;
    }
    /* Of a local pod in this namespace: they are ns, ns + namespaces, … */
    unsigned n_here = (w->local - ns + w->namespaces - 1) / w->namespaces;
    return app_of(w, ns + i / w->namespaces % n_here * w->namespaces);
}

static void kubernetes_policy(const struct world *w, unsigned i, unsigned version,
                              struct world_doc *out) {
    unsigned ns = i % w->namespaces, peer = (i / w->namespaces + 1 + version % 2) % WORLD_APPS;
    snprintf(out->key, sizeof(out->key), "NetworkPolicy.networking.k8s.io/ns%u/policy%u", ns, i);
    snprintf(out->text, sizeof(out->text),
             "{\"apiVersion\":\"networking.k8s.io/v1\",\"kind\":\"NetworkPolicy\",\"metadata\":{"
             "\"name\":\"policy%u\",\"namespace\":\"ns%u\"},\"spec\":{\"podSelector\":{"
             "\"matchLabels\":{\"app\":\"app%u\"}},\"policyTypes\":[\"Ingress\",\"Egress\"],"
             "\"ingress\":[{\"from\":[{\"podSelector\":{\"matchLabels\":{\"app\":\"app%u\"}}}],"
             "\"ports\":[{\"port\":%u}]},{\"from\":[{\"ipBlock\":{\"cidr\":\"172.%u.%u.0/24\"}}]}],"
             "\"egress\":[{\"to\":[{\"podSelector\":{\"matchExpressions\":[{\"key\":\"app\","
             "\"operator\":\"In\",\"values\":[\"app%u\",\"app%u\"]},{\"key\":\"legacy\","
             "\"operator\":\"DoesNotExist\"}]}}],\"ports\":[{\"port\":443},{\"port\":53,"
             "\"protocol\":\"UDP\"}]}]}}",
             i, ns, target_of(w, i, ns), peer, 8000 + version / 2 % 50000, 16 + i / 250 % 16,
             i % 250, (peer + 5) % WORLD_APPS, (peer + 6) % WORLD_APPS);
}

/* Calico's, with peers in other namespaces. */
static void calico_policy(const struct world *w, unsigned i, unsigned version,
                          struct world_doc *out) {
    unsigned ns = i % w->namespaces;
    snprintf(out->key, sizeof(out->key), "NetworkPolicy.projectcalico.org/ns%u/policy%u", ns, i);
    snprintf(
        out->text, sizeof(out->text),
        "{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"NetworkPolicy\",\"metadata\":{"
        "\"name\":\"policy%u\",\"namespace\":\"ns%u\"},\"spec\":{\"order\":%u,\"selector\":"
        "\"app == 'app%u' && env in {'prod', 'stage', 'test'}\",\"types\":[\"Ingress\"],"
        "\"ingress\":[{\"action\":\"Deny\",\"source\":{\"nets\":[\"192.0.2.0/24\"]}},{"
        "\"action\":\"Allow\",\"protocol\":\"TCP\",\"source\":{\"selector\":\"team == 'team%u'"
        " && component != 'part%u'\",\"namespaceSelector\":\"env == 'prod'\"},\"destination\":{"
        "\"ports\":[%u,\"9000:9010\"]}},{\"action\":\"Allow\",\"protocol\":\"UDP\",\"source\":"
        "{\"notNets\":[\"10.0.0.0/8\"]}}]}}",
        i, ns, i % 100, target_of(w, i, ns), (i / 10 + version % 2) % 50, i / 500 % 4,
        8000 + version / 2 % 50000);
}

void world_policy(const struct world *w, unsigned i, unsigned version, struct world_doc *out) {
    if (i / w->namespaces % 10 == 9) {
        calico_policy(w, i, version, out);
    } else {
        kubernetes_policy(w, i, version, out);
    }
}

void world_each(const struct world *w, void (*cb)(void *arg, const struct world_doc *d),
                void *arg) {
    struct world_doc d;
    for (unsigned i = 0; i < w->namespaces; i++) {
        world_namespace(w, i, 0, &d);
        cb(arg, &d);
    }
    for (unsigned i = 0; i < w->policies; i++) {
        world_policy(w, i, 0, &d);
        cb(arg, &d);
    }
    for (unsigned i = 0; i < w->pods; i++) {
        world_pod(w, i, 0, &d);
        cb(arg, &d);
    }
    for (unsigned i = 0; i < w->local; i++) {
        world_endpoint(w, i, &d);
        cb(arg, &d);
    }
}

struct object world_decode(const struct world_doc *d, struct arena *a) {
    struct jnode *doc = NULL;
    struct err e = {.code = 0};
    struct object o;
    struct model_errors errs = {.a = a};
    if (json_parse(str_c(d->text), &json_limits_default, a, &doc, &e) < 0 ||
        object_read(doc, MODEL_STORE, STR_NULL, a, &o, &errs) < 0) {
        fprintf(stderr, "%s: %s%.*s\n", d->key, e.code ? e.msg : "",
                errs.n ? (int)errs.p[0].message.n : 0, errs.n ? errs.p[0].message.p : "");
        exit(1);
    }
    return o;
}

long resident_kib(void) {
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &pages, &resident) != 2) {
        resident = 0;
    }
    if (f) {
        fclose(f);
    }
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}
