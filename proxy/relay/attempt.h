#ifndef PROXY_RELAY_ATTEMPT_H
#define PROXY_RELAY_ATTEMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/relay/pool.h"
#include "proxy/relay/relay.h"

/* Find a connection for one transaction: try host after host until one has served it or none is
 * left.  A delivery and a question (relay_ask) send different commands; how they get a connection,
 * and what the loss of one means, is the same for both. */

struct attempt;

enum attempt_end {
    ATTEMPT_NO_HOST, /* no host is up that was not tried already */
    ATTEMPT_BUSY,    /* no connection became free within queue_timeout */
    ATTEMPT_NO_MEMORY
};

struct attempt_events {
    void (*ready)(void *arg);                      /* use attempt.d: set its owner, and send */
    void (*over)(void *arg, enum attempt_end why); /* the search failed */
};

struct attempt {
    const struct attempt_events *events;
    void *arg;
    struct pool *pool; /* held */
    struct pool_request *request;
    struct pool_wish wish;
    struct downstream *d; /* the connection, or NULL */
    unsigned host;        /* D's, or the last one tried; valid if HAS_HOST */
    bool has_host;
    unsigned n_stale; /* kept connections found dead */
    bool was_kept;    /* D had served another transaction before */
    bool had_tls_failure;
    struct relay_client client; /* its strings are the two below */
    char *helo, *session;
};

/* Initialize A.  The caller then puts into A->wish what the transaction requires.  False: memory is
 * out; even then attempt_clear must be called.  EVENTS must outlive A; CLIENT is copied. */
bool attempt_init(struct attempt *a, struct pool *p, const struct relay_client *client,
                  const struct attempt_events *events, void *arg);
/* Request a connection.  READY may be called before this returns; otherwise one of the events is
 * called from the loop, unless attempt_clear comes first.  False: memory is out, and no event is
 * called. */
bool attempt_start(struct attempt *a);
/* The client, for downstream_send and downstream_ask.  Valid as long as A. */
struct downstream_client attempt_client(const struct attempt *a);
/* The label of the last host tried, NAME:PORT; "" for none. */
const char *attempt_host(const struct attempt *a);
/* The transaction is over: return the connection, if there is one, to the pool.  IS_BROKEN: it
 * cannot serve another. */
void attempt_give(struct attempt *a, bool is_broken);
/* The connection was lost because of FAIL, before the downstream can have accepted anything: drop
 * it.  True: its host is not tried again for this transaction.  False: it was a kept connection
 * that had gone stale, which says nothing about its host.  One that is merely silent has not. */
bool attempt_lost(struct attempt *a, enum downstream_fail fail);
/* Request the next connection.  An event is called, maybe before this returns. */
void attempt_go_on(struct attempt *a);
/* Cancel the request, drop the connection, and free what A owns. */
void attempt_clear(struct attempt *a);

#endif
