#ifndef PROXY_RELAY_ATTEMPT_H
#define PROXY_RELAY_ATTEMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/relay/pool.h"
#include "proxy/relay/relay.h"

/* The search for a connection that serves one transaction: host after host until one has served, or
 * none is left.  A burst and a question differ in what they send; how they come to a connection,
 * and what a lost one means, is the same. */

struct attempt;

enum attempt_end {
    ATTEMPT_NO_HOST, /* none is up, or all that are were tried */
    ATTEMPT_BUSY,    /* queue_timeout is over */
    ATTEMPT_NO_MEMORY
};

struct attempt_events {
    void (*ready)(void *arg);                      /* attempt.d is yours: set its owner, and send */
    void (*over)(void *arg, enum attempt_end why); /* no connection, and the search is at its end */
};

struct attempt {
    const struct attempt_events *events;
    void *arg;
    struct pool *pool; /* held */
    struct pool_request *request;
    struct pool_wish wish;
    struct downstream *d; /* NULL: none at present */
    unsigned host;        /* D's, or the last one tried, if it HAS_HOST */
    bool has_host;
    unsigned n_stale; /* kept connections found dead */
    bool was_kept;    /* D had served before */
    bool had_tls_failure;
    struct relay_client client; /* its strings are the two below */
    char *helo, *session;
};

/* Make A; what the transaction needs is to be put into its wish.  False: memory is out;
 * attempt_clear is due either way.  EVENTS must outlive A, and CLIENT is copied. */
bool attempt_init(struct attempt *a, struct pool *p, const struct relay_client *client,
                  const struct attempt_events *events, void *arg);
/* Seek a connection.  READY may come within the call, else one of the events does from the loop,
 * unless attempt_clear is first.  False: memory is out, and none comes. */
bool attempt_start(struct attempt *a);
/* Send as CLIENT: what downstream_send and downstream_ask want to know of it.  Valid as long as A.
 */
struct downstream_client attempt_client(const struct attempt *a);
/* The label of the last host tried, NAME:PORT; "" for none. */
const char *attempt_host(const struct attempt *a);
/* The transaction is over: the connection, if there is one, goes back to the pool, IS_BROKEN if it
 * cannot serve another. */
void attempt_give(struct attempt *a, bool is_broken);
/* The connection was lost, as FAIL says, before the downstream can have taken anything: it is given
 * up.  True: its host is not tried again for this transaction; false: it was a kept connection that
 * had gone stale, which says nothing of its host. */
bool attempt_lost(struct attempt *a, enum downstream_fail fail);
/* Seek the next one; an event comes, maybe within the call. */
void attempt_go_on(struct attempt *a);
/* Give up what is sought or held, and forget the rest. */
void attempt_clear(struct attempt *a);

#endif
