#ifndef LDAP_DIR_CONNECTION_H
#define LDAP_DIR_CONNECTION_H

#include <stddef.h>

#include "base/err.h"
#include "ldap/dir_job.h"
#include "ldap/dir_plan.h"
#include "ldap/dir_watchdog.h"

/* A thread with one LDAP connection at a time: it connects to the first server that lets it, takes
 * the pool's questions and asks many at once over it.  Everything that libldap blocks in blocks
 * here only. */

struct dir_connection;

/* WAKE is an eventfd of the pool's. All outlive the connection.  NULL with E set. */
struct dir_connection *dir_connection_new(struct dir_pool *pool, size_t who,
                                          const struct dir_plan *plan, struct dir_watchdog *w,
                                          int wake, struct err *e);
/* Once the pool said that it is to end: waits for the thread.  Clears *C; NULL is fine. */
void dir_connection_free(struct dir_connection **c);

#endif
