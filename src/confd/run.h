/* The three ways to run: once, at intervals, following the backend. */
#pragma once

#include "confd/options.h"

/* Runs as the options say until it is done or a signal comes. Exit code. */
int confd_run(struct confd_options *o, struct arena *a);
