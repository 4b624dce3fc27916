#ifndef LDAP_DIR_JOB_H
#define LDAP_DIR_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "ldap/dir_pool.h"

/* One question of a pool, from ask to answer.  It is in the pool's queue, or with the one
 * connection that took it; in both cases it is in the pool's table, where a second asker joins it.
 */

struct dir_waiter {
    struct dir_waiter *next;
    struct dir_inbox *box; /* a reference */
    uint64_t id;
    unsigned step;
};

struct dir_job {
    struct dir_job *next;  /* of the queue */
    struct dir_job *chain; /* of the bucket */
    uint64_t hash;
    int64_t asked_ms;
    bool with_detail; /* such a one is shared with nobody */
    bool was_retried;
    struct dir_waiter *waiters;
    size_t n;
    char key[]; /* DIR_KEY_MAX at most */
};

/* For the connections of the pool, each in its own thread.  WHO is the connection's number. */

/* May it try to connect now?  While no connection stands, they try one at a time, so that a wrong
 * password is tried once and not once for each.  If not, *UNTIL_MS says until when to wait for a
 * wake (INT64_MAX: for it alone).  After true, dir_pool_opened or dir_pool_failed must follow. */
bool dir_pool_may_try(struct dir_pool *p, size_t who, int64_t now_ms, int64_t *until_ms);
/* One stands, with the server number URI, which is up.  SEARCH_ERROR as of dir_pool_search_state.
 */
void dir_pool_opened(struct dir_pool *p, size_t who, size_t uri, const char *search_error);
/* All servers were tried in vain; or IS_REFUSED, one knows us not and a long pause is due.
 * Questions are answered at once from now on, until a connection stands again. */
void dir_pool_failed(struct dir_pool *p, size_t who, bool is_refused);
/* An open connection is no longer.  If it was lost and WAS_USEFUL until now, questions wait for a
 * while before they are answered at once: a server that is restarted is not noticed.  If it
 * WAS_EARLY the next one has to wait. */
void dir_pool_closed(struct dir_pool *p, size_t who, bool was_useful, bool was_early);

/* The state of the server number URI, logged if it changed. ERROR NULL: it is up. */
void dir_pool_server(struct dir_pool *p, size_t uri, const char *error);
/* The server number URI is known to be down. */
bool dir_pool_is_server_down(struct dir_pool *p, size_t uri);
/* The connection should open anew, and gets no question any longer: the first server is up again,
 * or this one is down (as another connection found out), or the password has changed. */
bool dir_pool_goes_home(struct dir_pool *p, size_t who);
/* For the scout: connections stand, but none with the server number URI. */
bool dir_pool_is_unvisited(struct dir_pool *p, size_t uri);
/* After dir_pool_server said that the first one is up: wake those that are abroad. */
void dir_pool_go_home(struct dir_pool *p);
/* How the last question went: ERROR is why it stays open, NULL if it was answered. */
void dir_pool_search_state(struct dir_pool *p, size_t uri, const char *error);
/* After a search that failed one connection asks for an address that nobody has, now and then until
 * a search goes well: for a Postern that is said not to be ready may get no other question.  True:
 * it is for the caller to do so. */
bool dir_pool_may_probe(struct dir_pool *p, int64_t now_ms);
int64_t dir_pool_probe_ms(struct dir_pool *p); /* when that is due; INT64_MAX: it is not */

/* The next question that somebody still waits for, or NULL. */
struct dir_job *dir_pool_take(struct dir_pool *p, size_t who, int64_t now_ms);
/* Answer everybody, keep the verdict in the cache, free JOB.  DETAIL (malloc'd, or NULL) goes
 * along. */
void dir_pool_done(struct dir_pool *p, size_t who, struct dir_job *job, const struct dir_verdict *v,
                   struct dir_detail *detail);
/* The connection was lost under it, for WHY: it is asked once more, of whoever is there. */
void dir_pool_give_back(struct dir_pool *p, size_t who, struct dir_job *job, const char *why);
/* Clear WHO's wake, and say whether it is to end. */
enum dir_pool_end { DIR_POOL_GO_ON, DIR_POOL_END_WHEN_IDLE, DIR_POOL_END_NOW };
enum dir_pool_end dir_pool_woken(struct dir_pool *p, size_t who);
/* The thread of a connection is about to return. */
void dir_pool_ended(struct dir_pool *p);

#endif
