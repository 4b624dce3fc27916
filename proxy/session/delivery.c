#include "proxy/session/delivery.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "policy/event.h"
#include "proxy/ops/metrics.h"
#include "proxy/session/inquest.h"
#include "proxy/session/session_private.h"

struct delivery {
    TAILQ_ENTRY(delivery) link; /* among the worker's waiting ones, or its orphans */
    struct worker *w;
    struct session *s; /* NULL: gone */
    struct settings *st;
    struct message *m; /* until the relay has it */
    struct pool *pool;
    char *downstream;
    struct event *kick; /* an outcome that is known at once is told from the loop */
    struct relay *relay;
    struct delivery_key *keys; /* one for each recipient; NULL: no guard */
    bool *served;
    size_t n_keys;
    bool was_asked;  /* whether another Postern of the fleet is at it */
    bool has_waited; /* for another burst of the same */
    bool is_claimed;
    bool is_waiting;
    bool is_orphan; /* its session went while the burst was past its end of data */
    uint64_t ticket;
    uint64_t size;
    int64_t end_ms;
    struct relay_client client;
    struct policy_client policy;
    char helo[256];
    char session[20];
};

struct delivery_heard {
    struct delivery_key *keys;
    size_t n;
};

/* Is nobody told when it cannot be delivered after all? */
static bool
is_silent(const struct message *m)
{
    size_t n = m->n_recipients + m->n_served, i = 0;

    while (i < n && m->recipients[i].notify == SMTP_NOTIFY_NEVER)
        i++;
    return i > 0 && i == n;
}

void
message_log(const struct message_log *line, const struct message *m)
{
    struct log_line l;

    if (!log_wants(LOG_LEVEL_INFO))
        return;
    log_begin(&l, LOG_LEVEL_INFO, "message");
    log_str(&l, "session", line->session);
    log_addr(&l, "client", &line->client);
    log_path(&l, "from", span_str(m->sender));
    log_int(&l, "rcpts", (int64_t)(m->n_recipients + m->n_served));
    log_int(&l, "size", (int64_t)m->content_size);
    log_str(&l, "downstream", line->host);
    log_str(&l, "status", line->status);
    log_str(&l, "reply", line->reply);
    log_seconds(&l, "delay", line->delay_ms);
    if (is_silent(m))
        log_str(&l, "ndr", "no");
    log_end(&l);
}

static struct deliveries *
guard(const struct delivery *d)
{
    return policy_deliveries(d->w->srv->policy);
}

static void
delivery_free(struct delivery *d)
{
    if (d->is_waiting) {
        deliveries_cancel(guard(d), d->ticket);
        TAILQ_REMOVE(&d->w->waiting, d, link);
    }
    if (d->kick != NULL)
        event_free(d->kick);
    if (d->is_orphan)
        TAILQ_REMOVE(&d->w->orphans, d, link);
    message_free(&d->m);
    if (d->pool != NULL)
        pool_release(d->pool);
    free(d->keys);
    free(d->served);
    free(d->downstream);
    settings_unref(d->st);
    free(d);
}

/* Tell the session, if it is still there, and end. */
static void
tell(struct delivery *d, bool is_delivered, const struct smtp_reply *reply)
{
    struct delivery_result result = {.is_delivered = is_delivered, .size = d->size};

    if (reply != NULL)
        result.reply = *reply;
    if (is_delivered && d->s != NULL && d->keys != NULL &&
        (result.heard = calloc(1, sizeof(*result.heard))) != NULL) {
        result.heard->keys = d->keys;
        result.heard->n = d->n_keys;
        d->keys = NULL;
    }
    struct session *s = d->s;
    delivery_free(d);
    if (s != NULL)
        session_delivered(s, &result);
}

/* --- what is learnt --- */

static bool
is_unknown_user(const struct smtp_reply *reply)
{
    return reply->code / 100 == 5 && strncmp(reply->enhanced, "5.1.", 4) == 0 &&
           strcmp(reply->enhanced, "5.1.7") != 0 && strcmp(reply->enhanced, "5.1.8") != 0;
}

/* The directory knew it, the downstream did not. */
static void
note_drift(const struct delivery *d, const struct message_recipient *r,
           const struct smtp_reply *reply)
{
    struct log_line l;

    if (!r->is_directory || !is_unknown_user(reply))
        return;
    metrics_drift(d->w->srv->metrics);
    log_begin(&l, LOG_LEVEL_NOTICE, "drift");
    log_path(&l, "to", span_str(r->address));
    log_str(&l, "downstream", d->downstream);
    event_status(&l, reply->enhanced, reply->text);
    log_end(&l);
}

static int64_t
memory_ms(const struct delivery *d)
{
    return pool_settings(d->pool)->refusal_memory;
}

/* Some of them are refused with the others, though taken alone, or though the others have the
 * message: the retry is not to end as this attempt did. */
static void
halve(const struct delivery *d, const struct message *m)
{
    size_t n = m->n_recipients + m->n_served;
    struct span *addresses = calloc(n + 1, sizeof(*addresses));

    if (addresses == NULL)
        return; /* the next refusal will do */
    for (size_t i = 0; i < n; i++)
        addresses[i] = span_str(m->recipients[i].canonical);
    marks_halve(policy_marks(d->w->srv->policy), span_str(m->sender_canonical), addresses, n,
                memory_ms(d), clock_ms());
    free(addresses);
}

static void
learn_refusal(const struct delivery *d, const struct relay_outcome *o, const struct message *m)
{
    struct marks *marks = policy_marks(d->w->srv->policy);
    bool is_of_several = m->n_recipients + m->n_served > 1, is_again = false;

    for (size_t i = 0; o->refused != NULL && i < m->n_recipients; i++) {
        const struct message_recipient *r = &m->recipients[i];
        if (o->refused[i].code == 0)
            continue;
        note_drift(d, r, &o->refused[i]);
        if (is_of_several)
            marks_add(marks, span_str(r->canonical), memory_ms(d), clock_ms());
        is_again |= r->was_marked;
    }
    if (is_again && is_of_several)
        halve(d, m);
    if (o->refused != NULL || o->original.code == 0)
        return;
    if (m->n_recipients == 1 && !o->is_envelope)
        note_drift(d, &m->recipients[0], &o->original);
    if (is_of_several && !o->is_envelope && relay_is_recipients_fault(&o->original))
        inquest_start(d->w, d->st, m, memory_ms(d));
    else if (m->n_served > 0 && o->original.code / 100 == 5)
        halve(d, m);
}

static void
learn_served(const struct delivery *d, const struct message *m)
{
    struct span *addresses = calloc(m->n_recipients + 1, sizeof(*addresses));
    size_t n = 0;

    if (addresses == NULL)
        return; /* a little harsher on this client than need be */
    for (size_t i = 0; i < m->n_recipients; i++)
        if (!m->recipients[i].is_would)
            addresses[n++] = span_str(m->recipients[i].canonical);
    policy_served(d->w->srv->policy, d->st, &d->policy, addresses, n, clock_ms());
    free(addresses);
}

/* --- the burst --- */

static void
on_relay(void *arg, const struct relay_outcome *o, struct message *m)
{
    struct delivery *d = arg;
    bool is_delivered = o->status == RELAY_DELIVERED;
    struct message_log line = {.session = d->session,
                               .client = d->client.address,
                               .host = o->host,
                               .status = o->reply.enhanced,
                               .reply = o->original.code != 0 ? o->original.text : o->reply.text,
                               .delay_ms = clock_ms() - d->end_ms};

    d->relay = NULL;
    if (d->is_claimed)
        deliveries_finish(guard(d), d->keys, d->served, d->n_keys, is_delivered,
                          d->st->server.duplicate_window, clock_ms());
    d->is_claimed = false;
    message_log(&line, m);
    if (is_delivered)
        learn_served(d, m);
    else
        learn_refusal(d, o, m);
    tell(d, is_delivered, &o->reply);
}

static bool
start_burst(struct delivery *d)
{
    struct message *m = d->m;

    d->relay = relay_start(d->pool, m, &d->client, on_relay, d);
    if (d->relay == NULL)
        return false;
    d->m = NULL;
    return true;
}

/* Called from whichever thread ended the other burst. */
static void
on_wake(void *arg, uint64_t ticket)
{
    worker_post_delivery(arg, ticket);
}

/* Another burst of the message is under way, here or, as far as is known, at another Postern. */
static bool
must_wait(struct delivery *d)
{
    int64_t now_ms = clock_ms();

    if (!d->was_asked) {
        d->was_asked = true;
        if (deliveries_ask(guard(d), d->keys, d->n_keys, now_ms, on_wake, d->w, &d->ticket))
            return true;
    }
    if (deliveries_claim(guard(d), d->keys, d->n_keys, d->has_waited, d->served, now_ms, on_wake,
                         d->w, &d->ticket) == DELIVERY_CLAIMED)
        return false;
    d->has_waited = true;
    return true;
}

/* Claim the message's keys, and hand it over to whoever has not had it. False when memory is out.
 */
static bool
seek(struct delivery *d)
{
    if (d->keys == NULL)
        return start_burst(d);
    if (must_wait(d)) {
        d->is_waiting = true;
        TAILQ_INSERT_TAIL(&d->w->waiting, d, link);
        return true;
    }
    d->is_claimed = true;
    /* Those whom an earlier burst of the same message served need it no more. */
    message_set_served(d->m, d->served);
    if (d->m->n_recipients > 0)
        return start_burst(d);
    /* The client did not hear that all of them have it. */
    deliveries_finish(guard(d), d->keys, d->served, d->n_keys, true, d->st->server.duplicate_window,
                      clock_ms());
    d->is_claimed = false;
    event_active(d->kick, EV_TIMEOUT, 0);
    return true;
}

static void
on_kick(evutil_socket_t fd, short what, void *arg)
{
    struct delivery *d = arg;
    struct message_log line = {.session = d->session,
                               .client = d->client.address,
                               .host = "",
                               .status = "2.6.0",
                               .reply = "delivered before, the client had not heard so",
                               .delay_ms = clock_ms() - d->end_ms};

    (void)fd;
    (void)what;
    message_log(&line, d->m);
    tell(d, true, NULL);
}

void
delivery_wake(struct worker *w, uint64_t ticket)
{
    struct delivery *d;

    TAILQ_FOREACH(d, &w->waiting, link)
        if (d->ticket == ticket)
            break;
    if (d == NULL)
        return; /* it is gone */
    TAILQ_REMOVE(&w->waiting, d, link);
    d->is_waiting = false;
    if (seek(d))
        return;
    struct smtp_reply reply = smtp_reply_make(SMTP_REPLY_INTERNAL, NULL);
    if (d->is_claimed)
        deliveries_finish(guard(d), d->keys, d->served, d->n_keys, false, 0, clock_ms());
    tell(d, false, &reply);
}

static bool
make_keys(struct delivery *d)
{
    const struct message *m = d->m;

    if (m->digest == NULL)
        return true;
    d->n_keys = m->n_recipients;
    d->keys = calloc(d->n_keys, sizeof(*d->keys));
    d->served = calloc(d->n_keys, sizeof(*d->served));
    if (d->keys == NULL || d->served == NULL)
        return false;
    for (size_t i = 0; i < d->n_keys; i++)
        d->keys[i] = deliveries_key(guard(d), span_str(m->sender_canonical),
                                    span_str(m->recipients[i].canonical), m->sha256);
    return true;
}

struct delivery *
delivery_start(struct session *s, struct message *m, const char *downstream)
{
    struct delivery *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    d->w = s->w;
    d->st = settings_ref(s->st);
    if ((d->pool = worker_pool(s->w, downstream)) != NULL)
        pool_hold(d->pool);
    d->downstream = span_dup(span_str(downstream));
    d->kick = evtimer_new(s->w->loop.base, on_kick, d);
    d->m = m;
    d->size = m->content_size;
    d->end_ms = s->tx->end_ms;
    d->policy = s->policy.client;
    span_copy(d->helo, sizeof(d->helo), span_str(s->helo));
    span_copy(d->session, sizeof(d->session), span_str(s->id));
    d->client = (struct relay_client){.address = *session_client(s),
                                      .port = s->port,
                                      .network = s->policy.client.network,
                                      .helo = d->helo,
                                      .is_esmtp = s->is_esmtp,
                                      .session = d->session};
    if (d->pool != NULL && d->downstream != NULL && d->kick != NULL && make_keys(d) && seek(d)) {
        d->s = s;
        return d;
    }
    if (d->is_claimed)
        deliveries_finish(guard(d), d->keys, d->served, d->n_keys, false, 0, clock_ms());
    d->m = NULL;
    delivery_free(d);
    return NULL;
}

bool
delivery_is_past_end(const struct delivery *d)
{
    return d->relay != NULL && relay_is_past_end(d->relay);
}

/* It comes to nothing, or nobody will know. */
static void
give_up(struct delivery *d, const char *why)
{
    struct message_log line = {.session = d->session,
                               .client = d->client.address,
                               .host = "",
                               .status = "4.4.2",
                               .reply = why,
                               .delay_ms = clock_ms() - d->end_ms};

    message_log(&line, d->relay != NULL ? relay_message(d->relay) : d->m);
    relay_end(&d->relay);
    if (d->is_claimed)
        deliveries_finish(guard(d), d->keys, d->served, d->n_keys, false, 0, clock_ms());
    delivery_free(d);
}

void
delivery_abandon(struct delivery **dp, const char *why)
{
    struct delivery *d = *dp;

    if (d == NULL)
        return;
    *dp = NULL;
    d->s = NULL;
    metrics_message(d->w->srv->metrics, METRICS_STATUS_DEFERRED, d->size);
    if (!delivery_is_past_end(d)) {
        give_up(d, why);
        return;
    }
    d->is_orphan = true;
    TAILQ_INSERT_TAIL(&d->w->orphans, d, link);
}

bool
delivery_has_orphans(const struct worker *w, int64_t now_ms)
{
    const struct delivery *d;

    TAILQ_FOREACH(d, &w->orphans, link)
        if (now_ms - d->end_ms < d->st->server.reply_deadline)
            return true;
    return false;
}

void
delivery_end_orphans(struct worker *w)
{
    while (!TAILQ_EMPTY(&w->orphans))
        give_up(TAILQ_FIRST(&w->orphans), "shutdown");
}

void
delivery_confirm(struct worker *w, struct delivery_heard **h)
{
    if (*h == NULL)
        return;
    deliveries_confirm(policy_deliveries(w->srv->policy), (*h)->keys, (*h)->n, clock_ms());
    delivery_heard_free(h);
}

void
delivery_heard_free(struct delivery_heard **h)
{
    if (*h == NULL)
        return;
    free((*h)->keys);
    free(*h);
    *h = NULL;
}
