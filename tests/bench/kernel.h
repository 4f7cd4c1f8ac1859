/* Network namespaces side by side, other people's tools timed as a program would call them, and the
 * messages of one transaction sent again as they were: the floor. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A descriptor of a new network namespace. Without the right to make one the program ends,
 * as a test that was skipped. */
int side_netns(void);
void side_enter(int netns);

/* Microseconds from posix_spawn to the exit of argv in a namespace; in and out may be NULL
 * (/dev/null). Negative: the tool is not installed. Ends the program if it fails. */
double tool_us(int netns, const char *in, const char *out, const char *const argv[]);

/* From now on what this process sends to nf_tables is kept. */
void record_start(void);
void record_stop(void);
/* Sends it all again in a namespace and takes the answers; returns microseconds. */
double record_replay_us(int netns);
size_t record_bytes(void);

/* Prints "NAME MEDIAN P99"; sorts. Nothing when there are none, or the first is negative. */
void print_us(const char *name, double *us, size_t n);

/* A path in a new folder of TMPDIR that goes with all its files at the program's exit. */
const char *temp_path(const char *name);
