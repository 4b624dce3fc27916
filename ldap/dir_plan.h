#ifndef LDAP_DIR_PLAN_H
#define LDAP_DIR_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "conf/settings.h"

/* How a directory's section is asked: its settings with the defaults of its type put in. Immutable.
 */
struct dir_plan {
    const struct settings_directory *conf;
    const char *base;
    const char *filter;
    bool is_ad;
    /* Attributes whose values are addresses, in which a match is checked again; 0: a filter of the
     * administrator's own, without attributes, is taken at its word.  With mode = snapshot there
     * are always some, or a server would say yes to an address that the snapshot never lists. */
    const char *const *addresses;
    size_t n_addresses;
    char **attributes; /* what a search asks for, NULL at the end */
};

/* CONF outlives the plan. -1 when memory is out. */
int dir_plan_init(struct dir_plan *p, const struct settings_directory *conf);
void dir_plan_clear(struct dir_plan *p);

#endif
