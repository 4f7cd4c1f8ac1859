/* The parsed tree, for what compiles it. Not for other modules. */
#pragma once

#include "policy/selector.h"

enum sel_op {
    SEL_ALL,
    SEL_GLOBAL,
    SEL_HAS,
    SEL_EQ,
    SEL_NE,
    SEL_CONTAINS,
    SEL_STARTS,
    SEL_ENDS,
    SEL_IN,
    SEL_NOT_IN,
    SEL_NOT,
    SEL_AND,
    SEL_OR,
};

struct selector {
    enum sel_op op;
    struct str label;
    struct str *values; /* one for ==, !=, contains, …; sorted and unique for in, not in */
    size_t n_values;
    struct selector *child, *next; /* operands of NOT, AND, OR */
};
