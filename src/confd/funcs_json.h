/* JSON to template values, as Go's json.Unmarshal makes them of interface {}. */
#pragma once

#include "base/err.h"
#include "confd/template.h"

/* Any JSON value; VALUE_NIL for null. Error text is Go's. */
MG_NODISCARD int go_json(struct str text, struct arena *a, struct value *out, struct err *e);
