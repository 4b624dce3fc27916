#ifndef CONF_CHECK_H
#define CONF_CHECK_H

#include "conf/settings.h"

/* What no single value shows: references between sections, files, contradictions, doubts.  Resolves
 * the indices of domains.  Part of settings_load. */
void settings_check(struct settings *st, struct faults *f);

#endif
