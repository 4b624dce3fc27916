#ifndef PROXY_WORKER_H
#define PROXY_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <event2/event.h>

#include "base/err.h"
#include "conf/settings.h"
#include "ldap/directory.h"
#include "policy/resolver.h"
#include "proxy/relay/pool.h"
#include "proxy/relay/spool.h"
#include "proxy/server.h"
#include "proxy/stream.h"
#include "proxy/tls.h"

/* One event loop in a thread of its own, with its listeners, sessions and downstream connections.
 * Everything in it is touched by its thread alone; others speak to it through its mailbox. */

struct session;
struct session_candidate;
struct delivery;
TAILQ_HEAD(session_list, session);
TAILQ_HEAD(delivery_list, delivery);

struct worker {
    struct server *srv;
    unsigned index;
    struct stream_loop loop;
    struct settings *settings; /* in force on this loop */
    struct tls_contexts *tls;  /* NULL: no STARTTLS */
    struct directory_client *directory;
    struct resolver_client *resolver;
    struct spool_client *spool;
    struct session_list sessions;
    struct session_list dead;        /* closed in this turn: freed at its end */
    struct delivery_list waiting;    /* for another's burst of the same message */
    struct delivery_list orphans;    /* bursts past their end of data whose session is gone */
    struct session_candidate *spare; /* for the next RCPT, or NULL */
    unsigned inquests;               /* under way */
    bool is_draining;

    struct worker_private *private;
};

struct listen_socket {
    int fd;
    struct listen_entry entry;
};

/* Takes the N listening sockets over.  NULL with E set. */
struct worker *worker_new(struct server *srv, unsigned index, struct settings *st,
                          struct tls_contexts *tls, const struct listen_socket *sockets, size_t n,
                          struct err *e);
int worker_start(struct worker *w, struct err *e);
/* From any thread: */
void worker_accept(struct worker *w); /* begin to take connections */
/* What a reload brings; references are taken. */
void worker_reload(struct worker *w, struct settings *st, struct tls_contexts *tls);
void worker_drain(struct worker *w);
void worker_stop(struct worker *w);                           /* at once: sessions are cut */
void worker_post_delivery(struct worker *w, uint64_t ticket); /* delivery_wake */
/* Wait for its thread, and free it. */
void worker_join(struct worker **w);

/* On its own thread: */
struct pool *worker_pool(struct worker *w,
                         const char *downstream); /* NULL: not in the settings in force */
/* A question was put to the directory or the resolver: keep its deadline. */
void worker_plan(struct worker *w);
void worker_bury(struct worker *w, struct session *s); /* free S at the end of this turn */

#endif
