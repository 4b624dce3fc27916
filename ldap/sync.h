#ifndef LDAP_SYNC_H
#define LDAP_SYNC_H

#include <stdbool.h>

#include "base/err.h"
#include "conf/settings.h"
#include "ldap/dir_inbox.h"
#include "ldap/directory.h"
#include "ldap/snapshot.h"

/* Keeps one directory's part of the snapshot: a thread that looks at the directory, whole at first
 * and every snapshot_full, else at what changed since the last look.  A look is taken whole or not
 * at all; what cannot be done changes nothing. */

struct sync;

/* Starts the thread, which looks at once; waits for no other one. CONF and S outlive it.  NULL with
 * E set. */
struct sync *sync_new(const struct settings_directory *conf, struct snapshot *s, struct err *e);
/* End soon; does not wait. */
void sync_stop(struct sync *y);
bool sync_has_ended(struct sync *y); /* after sync_stop: sync_free will not wait */
/* End and wait for the thread: at most as long as one step of libldap's takes.  Clears *Y; NULL is
 * fine. */
void sync_free(struct sync **y);

/* What may be read: NULL as long as it has what other settings saw. */
struct snapshot_part *sync_part(const struct sync *y);
/* Try again now what backs off. */
void sync_retry(struct sync *y);
/* has_snapshot, entries, ages, looking, error of OUT. */
void sync_view(struct sync *y, struct dir_view *out);
/* The report comes into BOX with ID.  False: memory is out, or it ends. */
bool sync_order(struct sync *y, enum dir_order order, struct dir_inbox *box, uint64_t id);

#endif
