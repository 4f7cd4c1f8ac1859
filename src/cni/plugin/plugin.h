/* The parts of margay-cni, the program that a container runtime runs. It checks what the runtime
 * gave, hands it to the agent and prints the agent's answer; it knows nothing of addresses, routes
 * or policy. libc only: it starts in a tenth of a millisecond, and lives in static memory of which
 * it touches little. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include "base/attr.h"
#include "cni/wire.h"

/* CNI's well-known error codes (SPEC.md, "Error"). */
enum cni_code {
    CNI_INCOMPATIBLE_VERSION = 1,
    CNI_UNKNOWN_CONTAINER = 3,
    CNI_BAD_ENV = 4,
    CNI_IO = 5,
    CNI_UNDECODABLE = 6,
    CNI_BAD_CONFIG = 7,
    CNI_TRY_LATER = 11,
    CNI_NOT_AVAILABLE = 50,
};

enum cni_command { CNI_ADD, CNI_DEL, CNI_CHECK, CNI_GC, CNI_STATUS, CNI_VERSION };

/* Why a request failed: one CNI error. msg says what was found, details what to do. */
struct fail {
    int code;
    char msg[640];
    char details[320];
};

/* Fills f; returns -1, so that a check can end with `return fail_set(...)`. */
MG_PRINTF(4, 5)
int fail_set(struct fail *f, int code, const char *details, const char *fmt, ...);

enum { PLUGIN_LOG_PATH_MAX = 1024 };

/* The fields of the network configuration that the plugin itself reads. Empty: not there. */
struct conf {
    char version[32]; /* cniVersion */
    char name[256];
    char type[256];
    char socket[108]; /* path of the agent's socket; as long as sun_path */
    char state_dir[1024];
    char log_file[PLUGIN_LOG_PATH_MAX], log_level[16];
    char log_max_size[16], log_max_age[16], log_max_count[16]; /* numbers, maybe as texts */
    char
        ipam_type[256]; /* ipam.type; empty also if it is no text, which is for the agent to tell */
};

/* Bytes in the UTF-8 sequence at p (1..4), 0 if it is none. */
size_t utf8_len(const uint8_t *p, const uint8_t *end);

/* Reads the whole text as JSON (at most 64 levels) and takes out the fields of struct conf. On
 * failure c holds the fields before the error. Fills f (codes 6, 7) and returns -1. */
MG_NODISCARD int conf_parse(const uint8_t *text, size_t n, struct conf *c, struct fail *f);

/* Is this one of the CNI versions that we speak? */
bool version_is_known(const char *version);
/* Refuses a version we don't speak, and a command that the version doesn't have (code 1). */
MG_NODISCARD int version_check(const char *version, enum cni_command cmd, struct fail *f);

/* Prints all of text to stdout: 0 or -errno. */
MG_NODISCARD int print_all(const uint8_t *text, size_t n);
/* Writes a CNI error as JSON to out (at least 4 KiB); returns its length. */
size_t fail_json(const struct fail *f, const char *version, char *out, size_t cap);
/* Prints the answer to VERSION: 0 or -errno. */
MG_NODISCARD int print_versions(const char *version);

/* A request after its checks. Strings belong to the environment. */
struct request {
    enum cni_command cmd;
    bool is_ipam;        /* run as margay-ipam or calico-ipam */
    const char *version; /* cniVersion of the configuration; "" without */
    const char *socket;  /* agent's */
    const char *state_dir;
    const char *cni_path;
    const char *strings[WIRE_STDIN]; /* of enum wire_request_string */
    const uint8_t *stdin_text;
    size_t stdin_bytes;
    int netns_fd;      /* -1: none */
    int64_t answer_ms; /* how long to wait for the agent's answer */
};

/* Reads CNI_COMMAND (code 4 if missing or unknown). */
MG_NODISCARD int env_command(enum cni_command *cmd, struct fail *f);
/* Fills the strings, the socket, the state folder and the time limit from environment and config,
 * each checked (codes 4 and 7). */
MG_NODISCARD int env_read(struct request *r, const struct conf *c, struct fail *f);
/* Opens the pod's network namespace for ADD and CHECK (codes 3 and 4 if it isn't one) and, if it
 * is still there, for DEL. IPAM needs none. */
MG_NODISCARD int env_open_netns(struct request *r, struct fail *f);
/* "[A-Za-z0-9][A-Za-z0-9_.-]*", as CNI wants container ids and names. */
bool is_cni_name(const char *s, size_t n);

/* Encodes r as a frame into out (WIRE_HEADER_BYTES + WIRE_BODY_MAX); returns its length. */
size_t request_encode(const struct request *r, bool with_netns, uint8_t *out);

enum agent_result {
    AGENT_ANSWERED,
    AGENT_AWAY, /* nobody listens; nothing was sent */
    AGENT_LOST, /* the connection broke, or no answer came in time */
    AGENT_ODD,  /* not an agent that we understand or trust */
};

/* Sends r, runs what the agent delegates, and returns its answer (static memory). On any other
 * result f says why. Blocks up to the limits of r. */
enum agent_result agent_call(const struct request *r, const uint8_t **text, size_t *n,
                             int *exit_code, struct fail *f);

/* Milliseconds of the monotonic clock. */
int64_t now_ms(void);

/* Runs plugin `type` of r->cni_path with CNI_COMMAND=command and input on stdin, until deadline_ms.
 * Its stdout goes to out, of WIRE_TEXT_MAX bytes. Returns its exit code; on failure 1 with a CNI
 * error in out. */
int delegate_run(const struct request *r, const char *type, const char *command,
                 const uint8_t *input, size_t input_bytes, int64_t deadline_ms, uint8_t *out,
                 size_t *out_bytes);

/* Leaves r in the spool, on disk when this returns 0. Fills f (code 5) and returns -1. */
MG_NODISCARD int spool_request(const struct request *r, struct fail *f);

/* Appends a line on the call to the log file, if the configuration names one. f: why it failed
 * (code 0, or NULL: it didn't). */
void plugin_log(const struct conf *c, const struct request *r, const struct fail *f,
                int64_t took_ms);

/* For MG_CLEANUP. Accepts -1. */
static inline void plugin_close(int *fd) {
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}
