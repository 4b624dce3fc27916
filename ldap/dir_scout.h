#ifndef LDAP_DIR_SCOUT_H
#define LDAP_DIR_SCOUT_H

#include "base/err.h"
#include "ldap/dir_job.h"
#include "ldap/dir_plan.h"
#include "ldap/dir_watchdog.h"

/* While connections stand with another server, a thread tries the first one now and then, so that
 * no question waits for a server that may still hang. */

struct dir_scout;

/* NULL with E set. All outlive the scout. */
struct dir_scout *dir_scout_new(struct dir_pool *pool, const struct dir_plan *plan,
                                struct dir_watchdog *w, struct err *e);
/* Waits for the thread. Clears *S; NULL is fine. */
void dir_scout_free(struct dir_scout **s);

#endif
