#ifndef LDAP_DIR_LINK_H
#define LDAP_DIR_LINK_H

#include <ldap.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "ldap/dir_plan.h"
#include "ldap/dir_watchdog.h"

/* One bound LDAP connection: name resolution, connect, TLS and bind, all of which block. */

enum dir_link_result {
    DIR_LINK_OK,
    DIR_LINK_FAILED,
    DIR_LINK_REFUSED /* the credentials are wrong: to try again soon may lock the account */
};

struct dir_link {
    LDAP *ld; /* NULL: closed */
    struct dir_guard guard;
    struct ldap_conncb hook; /* which LD knows */
};

void dir_link_init(struct dir_link *l, struct dir_watchdog *w);
/* Connect to PLAN's server number URI and bind. The guard bounds each step but name resolution to
 * the section's timeout. */
enum dir_link_result dir_link_open(struct dir_link *l, const struct dir_plan *plan, size_t uri,
                                   struct err *e);
/* A closed one is fine. True if the guard had cut it off. */
bool dir_link_close(struct dir_link *l);

/* What LD says about its last error CODE, with the server's own words; into E. Returns -1. */
int dir_link_error(LDAP *ld, int code, struct err *e, const char *action);

#endif
