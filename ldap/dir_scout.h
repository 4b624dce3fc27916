#ifndef LDAP_DIR_SCOUT_H
#define LDAP_DIR_SCOUT_H

#include "base/err.h"
#include "ldap/dir_job.h"
#include "ldap/dir_plan.h"
#include "ldap/dir_watchdog.h"

/* A thread that tries, at intervals, the servers without an open connection: the first server, so
 * that connections return to it and no question waits for a server that may still hang; and the
 * stand-by servers, so that their state is known before they are needed. */

struct dir_scout;

/* NULL with E set. All outlive the scout. */
struct dir_scout *dir_scout_new(struct dir_pool *pool, const struct dir_plan *plan,
                                struct dir_watchdog *w, struct err *e);
/* The thread ends after the visit it is at, and calls dir_pool_ended. Does not wait; NULL is fine.
 */
void dir_scout_stop(struct dir_scout *s);
/* Stops it and waits for the thread. Clears *S; NULL is fine. */
void dir_scout_free(struct dir_scout **s);

#endif
