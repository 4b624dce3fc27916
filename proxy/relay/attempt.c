#include "proxy/relay/attempt.h"

#include <stdlib.h>

#include "base/span.h"

/* A kept connection that turns out to be dead says nothing about its host: so often another is
 * tried for one transaction. */
#define STALE_MAX 3

static void got(void *arg, struct downstream *d, unsigned host);
static void failed(void *arg, enum pool_failure failure, int host);

static const struct pool_callbacks pool_events = {.got = got, .failed = failed};

bool
attempt_init(struct attempt *a, struct pool *p, const struct relay_client *client,
             const struct attempt_events *events, void *arg)
{
    *a = (struct attempt){.events = events, .arg = arg, .pool = pool_hold(p), .client = *client};
    a->client.helo = a->helo = span_dup(span_str(client->helo));
    a->client.session = a->session = span_dup(span_str(client->session));
    a->wish.client = client->network;
    a->wish.session = a->session;
    return a->helo != NULL && a->session != NULL;
}

static void
have(struct attempt *a)
{
    a->has_host = true;
    a->was_kept = downstream_transactions(a->d) > 0;
    a->events->ready(a->arg);
}

bool
attempt_start(struct attempt *a)
{
    a->request = pool_ask(a->pool, &a->wish, &pool_events, a, &a->d, &a->host);
    bool is_on = a->request != NULL || a->d != NULL;
    if (a->d != NULL)
        have(a);
    return is_on;
}

void
attempt_go_on(struct attempt *a)
{
    if (!attempt_start(a))
        a->events->over(a->arg, ATTEMPT_NO_MEMORY);
}

static void
got(void *arg, struct downstream *d, unsigned host)
{
    struct attempt *a = arg;

    a->request = NULL;
    a->d = d;
    a->host = host;
    have(a);
}

static void
failed(void *arg, enum pool_failure failure, int host)
{
    struct attempt *a = arg;

    a->request = NULL;
    if (host >= 0) {
        a->wish.tried |= UINT64_C(1) << host;
        a->host = (unsigned)host;
        a->has_host = true;
    }
    switch (failure) {
    case POOL_TLS:
        a->had_tls_failure = true;
        attempt_go_on(a);
        return;
    case POOL_NO_ANSWER:
        attempt_go_on(a);
        return;
    case POOL_BUSY:
        a->events->over(a->arg, ATTEMPT_BUSY);
        return;
    case POOL_NO_ROUTE:
        a->events->over(a->arg, ATTEMPT_NO_HOST);
        return;
    }
}

struct downstream_client
attempt_client(const struct attempt *a)
{
    return (struct downstream_client){.address = &a->client.address,
                                      .port = a->client.port,
                                      .helo = a->client.helo,
                                      .is_esmtp = a->client.is_esmtp};
}

const char *
attempt_host(const struct attempt *a)
{
    if (!a->has_host)
        return "";
    return host_label(route_host(pool_route(a->pool), a->host));
}

void
attempt_give(struct attempt *a, bool is_broken)
{
    struct downstream *d = a->d;

    if (d == NULL)
        return;
    a->d = NULL;
    pool_give(a->pool, d, is_broken);
}

bool
attempt_lost(struct attempt *a, enum downstream_fail fail)
{
    bool is_silent = fail == DOWNSTREAM_TIMEOUT;
    /* A silent one does not count: the next would take reply_timeout again. */
    bool may_be_stale = a->was_kept && !is_silent && fail != DOWNSTREAM_LACKS;

    attempt_give(a, true);
    if (may_be_stale && ++a->n_stale <= STALE_MAX)
        return false;
    a->wish.tried |= UINT64_C(1) << a->host;
    /* A host that says 421, ends one connection or answers oddly on it may serve the others well;
     * one that is silent would hold them up. */
    if (is_silent)
        pool_host_failed(a->pool, a->host, downstream_fail_text(fail));
    return true;
}

void
attempt_clear(struct attempt *a)
{
    pool_cancel(&a->request);
    attempt_give(a, true);
    pool_release(a->pool);
    free(a->helo);
    free(a->session);
}
