#ifndef LDAP_DIR_JOB_H
#define LDAP_DIR_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "ldap/dir_pool.h"

/* One question to a pool, until it is answered.  It is in the pool's queue, or held by the one
 * connection that took it.  In both cases it is also in the pool's hash table, so that later askers
 * of the same question join it. */

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
    bool with_detail; /* then no other asker joins it */
    bool was_retried;
    struct dir_waiter *waiters;
    size_t n;
    char key[]; /* DIR_KEY_MAX at most */
};

/* For the connections of the pool, each in its own thread.  WHO is the connection's number. */

/* May it try to connect now?  While none is open, one tries at a time, so that a wrong password is
 * tried once, not once per connection.  If false, wait for a wake, but not beyond *UNTIL_MS
 * (INT64_MAX: without limit).  After true, dir_pool_opened or dir_pool_failed must follow. */
bool dir_pool_may_try(struct dir_pool *p, size_t who, int64_t now_ms, int64_t *until_ms);
/* It is open, to server number URI, which therefore is up.  SEARCH_ERROR: see
 * dir_pool_search_state. */
void dir_pool_opened(struct dir_pool *p, size_t who, size_t uri, const char *search_error);
/* It could connect to no server; or, IS_REFUSED, a server rejected our credentials, and a long
 * pause follows.  Without an open connection, questions then fail at once until there is one. */
void dir_pool_failed(struct dir_pool *p, size_t who, bool is_refused);
/* An open connection is closed.  If it WAS_USEFUL until now, questions wait for a while before they
 * fail at once, so that the restart of a server is not noticed.  If it WAS_EARLY, closed soon after
 * it was opened, the next try is delayed. */
void dir_pool_closed(struct dir_pool *p, size_t who, bool was_useful, bool was_early);

/* Set the state of server number URI, and log it if it changed.  ERROR NULL: it is up. */
void dir_pool_server(struct dir_pool *p, size_t uri, const char *error);
/* Is server number URI known to be down? */
bool dir_pool_is_server_down(struct dir_pool *p, size_t uri);
/* Should the connection reconnect?  It then gets no more questions.  True if the first server is up
 * again, if its own is down (as another connection found out), or if the password has changed. */
bool dir_pool_goes_home(struct dir_pool *p, size_t who);
/* For the scout: are there open connections, but none to server number URI? */
bool dir_pool_is_unvisited(struct dir_pool *p, size_t uri);
/* After dir_pool_server set the first server up: wake the connections to other servers. */
void dir_pool_go_home(struct dir_pool *p);
/* The result of the last search: ERROR is why it failed, NULL if it was answered. */
void dir_pool_search_state(struct dir_pool *p, size_t uri, const char *error);
/* After a failed search one connection looks up an address that does not exist, at intervals, until
 * a search succeeds: a Postern that reports itself as not ready may get no other question.  True:
 * the caller is the one to do so. */
bool dir_pool_may_probe(struct dir_pool *p, int64_t now_ms);
int64_t dir_pool_probe_ms(struct dir_pool *p); /* when that is due; INT64_MAX: never */

/* The next question that has not timed out, or NULL. */
struct dir_job *dir_pool_take(struct dir_pool *p, size_t who, int64_t now_ms);
/* Put the verdict into the cache, answer all waiters and free JOB.  Takes DETAIL (malloc'd, or
 * NULL). */
void dir_pool_done(struct dir_pool *p, size_t who, struct dir_job *job, const struct dir_verdict *v,
                   struct dir_detail *detail);
/* The connection was lost, because of WHY, before the answer.  The first time JOB is queued again,
 * for any connection; the second time it fails. */
void dir_pool_give_back(struct dir_pool *p, size_t who, struct dir_job *job, const char *why);
/* Clear WHO's wake.  Returns whether its thread must end. */
enum dir_pool_end { DIR_POOL_GO_ON, DIR_POOL_END_WHEN_IDLE, DIR_POOL_END_NOW };
enum dir_pool_end dir_pool_woken(struct dir_pool *p, size_t who);
/* The thread of a connection, or of the scout, is about to return. */
void dir_pool_ended(struct dir_pool *p);

#endif
