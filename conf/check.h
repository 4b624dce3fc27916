#ifndef CONF_CHECK_H
#define CONF_CHECK_H

#include "conf/settings.h"

/* What no single value shows: cross-references, files, contradictions, doubts.  LINE_OF tells the
 * line of a key that is set (else 0, or the section's), by the address of its member. */

typedef unsigned check_line_fn(void *arg, const void *member);

void settings_check(struct settings *st, struct faults *f, check_line_fn *line_of, void *arg);

#endif
