/* policy lint. */
#pragma once

#include "cli/world.h"

/* Appends the findings as text and as JSON. 0 none, 1 some, 2 the objects could not be read. */
int lint_run(char **files, size_t n_files, struct buf *text, struct buf *json);
