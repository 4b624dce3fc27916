#ifndef CONF_CHECK_H
#define CONF_CHECK_H

#include <sys/types.h>

#include "conf/settings.h"

/* What no single value shows: references between sections, files, contradictions, doubts.  Resolves
 * the indices of domains.  Part of settings_load. */
void settings_check(struct settings *st, struct faults *f);

/* The ids of the user of that name; false if there is none. */
bool settings_find_user(const char *name, uid_t *uid, gid_t *gid);

#endif
