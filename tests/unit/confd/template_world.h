/* The data and functions of template cases: the same as tests/data/confd/gen/world.go in Go. */
#pragma once

#include "base/jtree.h"
#include "confd/template.h"

extern const struct tmpl_funcs world_funcs;

/* A value from its description; lives in the arena. */
struct value world_value(struct arena *a, const struct jnode *n);
