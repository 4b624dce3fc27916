#ifndef LDAP_DIR_POOL_H
#define LDAP_DIR_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "conf/settings.h"
#include "ldap/dir_cache.h"
#include "ldap/dir_inbox.h"
#include "ldap/dir_verdict.h"

/* The connections of one directory and the questions that wait for them.  Identical questions at
 * once share one search.  It keeps no asker's deadline: an asker that waits no longer just ignores
 * the reply. */

struct dir_pool;

/* Starts the threads, which connect at once.  SECTION and CACHE (which takes every answer) outlive
 * the pool. NULL with E set. */
struct dir_pool *dir_pool_new(const struct settings_directory *section, struct dir_cache *cache,
                              struct err *e);
/* Nobody asks any longer: the threads end when the questions that wait are answered.  Does not wait
 * for that. */
void dir_pool_stop(struct dir_pool *p);
bool dir_pool_has_ended(struct dir_pool *p); /* after dir_pool_stop: dir_pool_free will not wait */
/* End the threads at once and wait for them; a server that takes no connection delays this by its
 * timeout at most. Questions that are left are not answered.  Clears *P; NULL is fine. */
void dir_pool_free(struct dir_pool **p);

/* False if nobody can be asked now: all servers are known to be down (WITH_DETAIL the reply says
 * why), or too many questions wait.  Else the reply comes into BOX with ID and STEP. KEY is copied.
 */
bool dir_pool_ask(struct dir_pool *p, struct span key, bool with_detail, struct dir_inbox *box,
                  uint64_t id, unsigned step);
/* Why a question is not answered in time. */
void dir_pool_explain(struct dir_pool *p, struct dir_detail *detail);
/* Some server answers searches, or none has been tried to its end yet. */
bool dir_pool_is_up(struct dir_pool *p);
/* At a reload: try again now what backs off, and open anew if the password's file has changed, so
 * that a wrong one shows at once. */
void dir_pool_retry(struct dir_pool *p);
/* The servers, pending, searches, is_up of OUT. */
void dir_pool_view(struct dir_pool *p, struct dir_view *out);

#endif
