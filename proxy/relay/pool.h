#ifndef PROXY_RELAY_POOL_H
#define PROXY_RELAY_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/netaddr.h"
#include "conf/settings.h"
#include "proxy/relay/downstream.h"
#include "proxy/relay/host.h"

/* One loop's connections to one downstream: kept ones, ones being opened, and who waits for one.
 * The limit of connections counts all loops (host.h).  A downstream whose settings changed gets a
 * new pool; the old one serves what it has begun and goes. */

struct pool;
struct pool_request;
struct metrics;

/* The pools of a loop: those in use, and those retired that still serve somebody. */
TAILQ_HEAD(pool_list, pool);

struct pool_place {
    const struct stream_loop *loop;
    unsigned loop_index;
    struct pool_list *list;
    struct settings *settings; /* a reference is taken */
    size_t downstream;         /* index into settings->downstreams */
    struct hosts *hosts;
    struct metrics *metrics;
};

/* NULL with E set: memory, or TLS files that cannot be read. */
struct pool *pool_new(const struct pool_place *place, struct err *e);
/* No new users will come: idle connections are closed, the rest as it ends, and the pool goes with
 * its last connection, request and user.  Clears *P. */
void pool_retire(struct pool **p);
/* Close all connections of all pools now; nobody may use one then. */
void pools_end(struct pool_list *list);
/* Whoever keeps P over turns of the loop holds it, since a reload retires it. */
struct pool *pool_hold(struct pool *p);
void pool_release(struct pool *p);
const struct settings_downstream *pool_settings(const struct pool *p);
struct route *pool_route(const struct pool *p);

enum pool_failure {
    POOL_NO_ROUTE,  /* no host is up, or all that are were tried */
    POOL_NO_ANSWER, /* the one tried did not answer */
    POOL_TLS,       /* its TLS is not as configured */
    POOL_BUSY       /* queue_timeout over */
};

struct pool_wish {
    struct network client; /* for its share and its turn */
    uint64_t size;         /* octets: a large message wants a young connection */
    uint32_t needs;        /* SMTP_CAP_BITs without which the message cannot be sent */
    const char *session;   /* for the log; valid as long as the request */
    uint64_t tried;        /* bits of hosts that have failed this message */
};

struct pool_callbacks {
    /* A connection ready for a transaction; give it back by pool_give.  HOST is its index. */
    void (*got)(void *arg, struct downstream *d, unsigned host);
    /* HOST is the index of the host that failed, or -1. */
    void (*failed)(void *arg, enum pool_failure failure, int host);
};

/* Ask for a connection.  A kept one is handed over at once, in *D and *HOST: then NULL is returned
 * and no callback comes.  Otherwise exactly one callback comes, from the loop, unless pool_cancel
 * is first.  NULL with *D NULL: memory is out. */
struct pool_request *pool_ask(struct pool *p, const struct pool_wish *wish,
                              const struct pool_callbacks *callbacks, void *arg,
                              struct downstream **d, unsigned *host);
void pool_cancel(struct pool_request **r);
/* A transaction is over: the connection is the pool's again, to be kept, or closed if it IS_BROKEN.
 */
void pool_give(struct pool *p, struct downstream *d, bool is_broken);
/* The host failed in the middle of a transaction: not to be used until a probe or an open
 * connection says otherwise. */
void pool_host_failed(struct pool *p, unsigned host, const char *error);
/* Once a second: idle connections whose time is over, waiters whose time is over. */
void pools_tick(struct pool_list *list, int64_t now_ms);
/* Somebody waits for a connection of ROUTE, or one was freed. */
void pools_wake(struct pool_list *list, const struct route *route);

#endif
