/* What margay-cni and the agent say to each other over the agent's unix stream socket; shared by
 * both ends, libc only.
 *
 * One connection is one CNI request. Every message is a frame of 12 bytes and a body:
 *     u32 magic "MGC1" | u32 type | u32 body length | body            (integers in network order)
 * A string is u32 length + bytes, without a NUL.
 *
 *     REQUEST    plugin to agent, first: u32 flags, then the strings of enum wire_request_string.
 *                With WIRE_FLAG_NETNS one descriptor, the pod's network namespace, rides
 *                (SCM_RIGHTS) on the first byte of the frame. Whether it is the host's own
 *                namespace is for the agent to judge.
 *     ANSWER     agent to plugin, last: u32 exit code, then what to print, to the end of the body.
 *                WIRE_EXIT_LATER for a DEL: the plugin leaves it in the spool and succeeds.
 *     DELEGATE   agent to plugin, up to WIRE_DELEGATES_MAX times: strings type, command, stdin.
 *                The plugin runs that program of CNI_PATH with its own environment, in which
 *                CNI_COMMAND is replaced.
 *     DELEGATED  plugin to agent, one for each DELEGATE: u32 exit code, then its stdout. A program
 *                that can't be run answers here as one that failed, with a CNI error.
 *
 * The plugin accepts an agent that runs as root or as its own user, and refuses any other.
 *
 * Spool: a DEL that finds no agent, or loses it, is left in STATE_DIR/spool as a file that holds
 * one REQUEST frame without WIRE_FLAG_NETNS, named "TIME-RANDOM.del", TIME in 20 digits so that
 * names sort by age. Files whose names begin with a dot are unfinished. The same DEL may be there
 * and also have been carried out: the agent must take it twice, and must look again after start,
 * since a plugin that saw no agent may write after the first look. Files are 0600, folders 0700. */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIRE_SOCKET_DEFAULT "/run/margay/agent.sock"
#define WIRE_STATE_DIR_DEFAULT "/var/lib/margay"
#define WIRE_SPOOL "spool"
#define WIRE_SPOOL_SUFFIX ".del"

#define WIRE_MAGIC 0x4d474331u
#define WIRE_HEADER_BYTES 12u
#define WIRE_TEXT_MAX (1u << 20) /* stdin, an answer, a delegated program's stdin or stdout */
#define WIRE_ENV_MAX (64u << 10) /* CNI_ARGS, CNI_PATH, each */
#define WIRE_SMALL_MAX 4096u     /* every other string */
#define WIRE_BODY_MAX (WIRE_TEXT_MAX + 3 * WIRE_ENV_MAX)
#define WIRE_DELEGATES_MAX 16u
#define WIRE_FLAG_NETNS 1u
#define WIRE_EXIT_LATER 11 /* CNI's "try again later" */

enum wire_type {
    WIRE_REQUEST = 1,
    WIRE_ANSWER = 2,
    WIRE_DELEGATE = 3,
    WIRE_DELEGATED = 4,
};

/* The strings of a REQUEST, in this order; empty where the environment has none. GC and STATUS
 * name no container: CONTAINERID, NETNS and IFNAME are empty. */
enum wire_request_string {
    WIRE_PROGRAM, /* name of the program: margay-cni, margay-ipam, calico, calico-ipam */
    WIRE_COMMAND, /* CNI_COMMAND: ADD, DEL, CHECK, GC, STATUS */
    WIRE_CONTAINERID,
    WIRE_NETNS, /* the path as the runtime gave it, for messages and results */
    WIRE_IFNAME,
    WIRE_ARGS,
    WIRE_PATH,
    WIRE_STDIN,
    WIRE_N_STRINGS,
};

/* Writes v at p in network order; returns the byte after it. */
static inline uint8_t *wire_put_u32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
    return p + 4;
}

/* Reads a number in network order from four bytes. */
static inline uint32_t wire_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Writes length and bytes at p, which has room for both; returns the byte after them. */
static inline uint8_t *wire_put_str(uint8_t *p, const void *s, size_t n) {
    p = wire_put_u32(p, (uint32_t)n);
    if (n > 0) {
        memcpy(p, s, n);
    }
    return p + n;
}

/* Writes a frame's header at p; returns the byte after it. */
static inline uint8_t *wire_put_header(uint8_t *p, enum wire_type type, uint32_t body_bytes) {
    return wire_put_u32(wire_put_u32(wire_put_u32(p, WIRE_MAGIC), (uint32_t)type), body_bytes);
}

/* Reads a header of WIRE_HEADER_BYTES. -EPROTO: not a frame; -EMSGSIZE: body above the limit. */
static inline int wire_header(const uint8_t *p, uint32_t *type, uint32_t *body_bytes) {
    if (wire_u32(p) != WIRE_MAGIC) {
        return -EPROTO;
    }
    if (wire_u32(p + 8) > WIRE_BODY_MAX) {
        return -EMSGSIZE;
    }
    *type = wire_u32(p + 4);
    *body_bytes = wire_u32(p + 8);
    return 0;
}

/* What is left to read of a body. */
struct wire_cursor {
    const uint8_t *p;
    size_t n;
};

/* Takes a number off the front. -EPROTO if the body ends before. */
static inline int wire_take_u32(struct wire_cursor *c, uint32_t *v) {
    if (c->n < 4) {
        return -EPROTO;
    }
    *v = wire_u32(c->p);
    c->p += 4;
    c->n -= 4;
    return 0;
}

/* Takes a string of at most max bytes off the front; *s points into the body. -EPROTO, -EMSGSIZE.
 */
static inline int wire_take_str(struct wire_cursor *c, size_t max, const uint8_t **s, size_t *n) {
    if (c->n < 4) {
        return -EPROTO;
    }
    size_t len = wire_u32(c->p);
    if (len > max) {
        return -EMSGSIZE;
    }
    if (len > c->n - 4) {
        return -EPROTO;
    }
    *s = c->p + 4;
    *n = len;
    c->p += 4 + len;
    c->n -= 4 + len;
    return 0;
}
