#include "proxy/relay/relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A kept connection that turns out to be dead says nothing about its host: so often another is
 * tried for one message. */
#define STALE_MAX 3

struct relay {
    struct pool *pool;
    struct message *message;
    struct pool_request *request;
    struct downstream *d;
    unsigned host;
    struct relay_client client;
    char *helo, *session;
    uint64_t tried; /* hosts */
    unsigned stale; /* kept connections found dead */
    bool was_kept;  /* D had served before */
    bool had_tls_failure;
    struct smtp_reply closing; /* the last 421 in answer to MAIL or RCPT */
    relay_done_fn *done;
    void *arg;
};

static void got(void *arg, struct downstream *d, unsigned host);
static void failed(void *arg, enum pool_failure failure, int host);
static void finished(void *owner, const struct downstream_result *result);
static void closed(void *owner, enum downstream_fail fail, const struct smtp_reply *reply);

static const struct pool_callbacks pool_events = {.got = got, .failed = failed};
static const struct downstream_events burst_events = {.finished = finished, .closed = closed};

static void
relay_free(struct relay *r)
{
    message_free(&r->message);
    pool_release(r->pool);
    free(r->helo);
    free(r->session);
    free(r);
}

/* The one exit. */
static void
conclude(struct relay *r, struct relay_outcome *outcome)
{
    outcome->host =
        r->d != NULL || r->tried != 0 ? host_label(route_host(pool_route(r->pool), r->host)) : "";
    if (outcome->reply.code == 0)
        outcome->reply = smtp_reply_make(SMTP_REPLY_NO_ANSWER, NULL);
    /* A connection that is still ours is given back behind the verdict. */
    r->done(r->arg, outcome, r->message);
    relay_free(r);
}

static void
conclude_ours(struct relay *r, enum smtp_reply_id id)
{
    struct relay_outcome outcome = {.status = RELAY_DEFERRED, .reply = smtp_reply_make(id, NULL)};

    conclude(r, &outcome);
}

/* The downstream's refusal as the client may hear it. */
static struct smtp_reply
passed_on(const struct smtp_reply *reply)
{
    struct smtp_reply r = *reply;

    if (r.code == 421)
        r.code = 451;
    if (r.code < 400)
        r = smtp_reply_make(SMTP_REPLY_NO_ANSWER, NULL); /* it answered out of turn */
    if (r.enhanced[0] == '\0')
        snprintf(r.enhanced, sizeof(r.enhanced), "%u.0.0", (unsigned)(r.code / 100));
    smtp_reply_clean(&r);
    return r;
}

static uint32_t
needs_of(const struct message *m)
{
    uint32_t needs = 0;

    if (m->is_smtputf8)
        needs |= SMTP_CAP_BIT(SMTPUTF8);
    if (m->body == SMTP_BODY_BINARYMIME)
        needs |= SMTP_CAP_BIT(BINARYMIME) | SMTP_CAP_BIT(CHUNKING);
    if (m->is_bdat)
        needs |= SMTP_CAP_BIT(CHUNKING);
    return needs;
}

/* As XCLIENT tells it; CLIENT must outlive the answer. */
static struct downstream_client
told_client(const struct relay_client *client, const char *helo)
{
    return (struct downstream_client){.address = &client->address,
                                      .port = client->port,
                                      .helo = helo,
                                      .is_esmtp = client->is_esmtp};
}

static void
start_burst(struct relay *r)
{
    struct downstream_client client = told_client(&r->client, r->helo);

    r->was_kept = downstream_transactions(r->d) > 0;
    downstream_set_owner(r->d, &burst_events, r);
    downstream_send(r->d, r->message, &client);
}

/* Ask for a connection; false when memory is out. */
static bool
seek(struct relay *r)
{
    struct pool_wish wish = {.client = r->client.network,
                             .size = message_wire_size(r->message),
                             .needs = needs_of(r->message),
                             .session = r->session,
                             .tried = r->tried};

    r->request = pool_ask(r->pool, &wish, &pool_events, r, &r->d, &r->host);
    if (r->d != NULL)
        start_burst(r);
    return r->request != NULL || r->d != NULL;
}

static void
seek_again(struct relay *r)
{
    r->d = NULL;
    if (!seek(r))
        conclude_ours(r, SMTP_REPLY_INTERNAL);
}

static void
got(void *arg, struct downstream *d, unsigned host)
{
    struct relay *r = arg;

    r->request = NULL;
    r->d = d;
    r->host = host;
    start_burst(r);
}

static void
failed(void *arg, enum pool_failure failure, int host)
{
    struct relay *r = arg;

    r->request = NULL;
    if (host >= 0) {
        r->tried |= UINT64_C(1) << host;
        r->host = (unsigned)host;
    }
    switch (failure) {
    case POOL_TLS:
        r->had_tls_failure = true;
        seek_again(r);
        return;
    case POOL_NO_ANSWER:
        seek_again(r);
        return;
    case POOL_BUSY:
        conclude_ours(r, SMTP_REPLY_BUSY);
        return;
    case POOL_NO_ROUTE:
        if (r->closing.code != 0) {
            struct relay_outcome o = {.status = RELAY_DEFERRED,
                                      .original = r->closing,
                                      .is_envelope = true,
                                      .is_mail = true,
                                      .reply = passed_on(&r->closing)};
            conclude(r, &o);
            return;
        }
        conclude_ours(r, r->had_tls_failure ? SMTP_REPLY_DOWNSTREAM_TLS : SMTP_REPLY_NO_ANSWER);
        return;
    }
}

bool
relay_is_recipients_fault(const struct smtp_reply *reply)
{
    const char *e = reply->enhanced;

    if (reply->code / 100 != 5)
        return false;
    if (strstr(reply->text, "RESOLVER") != NULL)
        return true;
    if (strncmp(e, "5.1.", 4) == 0)
        return strcmp(e, "5.1.7") != 0 && strcmp(e, "5.1.8") != 0;
    return strncmp(e, "5.2.", 4) == 0 || strcmp(e, "5.4.1") == 0 ||
           ((strncmp(e, "5.7.12", 6) == 0 || strncmp(e, "5.7.13", 6) == 0) && strlen(e) == 7);
}

static bool
all_permanent(const struct message *m, const struct downstream_result *result)
{
    for (size_t i = 0; i < m->n_recipients; i++)
        if (result->refused[i].code / 100 != 5)
            return false;
    return true;
}

static void
judge(struct relay *r, const struct downstream_result *result)
{
    struct relay_outcome o = {
        .original = result->reply, .is_envelope = result->is_envelope, .refused = result->refused};
    bool is_ok = result->reply.code / 100 == 2 && !result->is_envelope;
    size_t n = r->message->n_recipients;

    if (is_ok) {
        o.status = RELAY_DELIVERED;
        o.reply = result->reply;
        conclude(r, &o);
        return;
    }
    o.is_mail = result->refused == NULL;
    if (n > 1 && result->refused != NULL &&
        !(result->n_refused == n && all_permanent(r->message, result)))
        o.reply = smtp_reply_make(SMTP_REPLY_SOME_REFUSED, NULL);
    else if (n > 1 && !result->is_envelope && relay_is_recipients_fault(&result->reply))
        o.reply = smtp_reply_make(SMTP_REPLY_SOME_REFUSED, NULL);
    else
        o.reply = passed_on(&result->reply);
    o.status = o.reply.code / 100 == 5 ? RELAY_REFUSED : RELAY_DEFERRED;
    conclude(r, &o);
}

/* The connection failed in the middle. */
static void
recover(struct relay *r, const struct downstream_result *result)
{
    enum downstream_fail why = result->fail;

    pool_give(r->pool, r->d, true);
    r->d = NULL;
    if (result->is_past_end) {
        struct relay_outcome o = {.status = RELAY_DEFERRED,
                                  .is_unknown_fate = true,
                                  .reply = smtp_reply_make(SMTP_REPLY_LOST, NULL)};
        r->tried |= UINT64_C(1) << r->host;
        conclude(r, &o);
        return;
    }
    if (why == DOWNSTREAM_CONTENT) {
        conclude_ours(r, SMTP_REPLY_INTERNAL);
        return;
    }
    if (r->was_kept && ++r->stale <= STALE_MAX) {
        seek_again(r);
        return;
    }
    r->tried |= UINT64_C(1) << r->host;
    if (why == DOWNSTREAM_CLOSING)
        r->closing = result->reply;
    else
        pool_host_failed(r->pool, r->host, downstream_fail_text(why));
    seek_again(r);
}

static void
finished(void *owner, const struct downstream_result *result)
{
    struct relay *r = owner;
    struct downstream *d = r->d;
    struct pool *p = r->pool;

    if (result->fail != DOWNSTREAM_OK) {
        recover(r, result);
        return;
    }
    bool is_broken = downstream_is_closed(d);
    judge(r, result);
    pool_give(p, d, is_broken);
}

static void
closed(void *owner, enum downstream_fail fail, const struct smtp_reply *reply)
{
    /* A burst is in a transaction from its first octet to its last: its failures come by finished.
     */
    (void)owner;
    (void)fail;
    (void)reply;
}

static void
on_block(void *arg, bool is_ok, const char *data, size_t n)
{
    struct relay *r = arg;

    if (r->d != NULL)
        downstream_block(r->d, is_ok, data, n);
}

struct relay *
relay_start(struct pool *p, struct message *m, const struct relay_client *client,
            relay_done_fn *done, void *arg)
{
    struct relay *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->pool = pool_hold(p);
    r->message = m;
    r->client = *client;
    r->done = done;
    r->arg = arg;
    r->helo = span_dup(span_str(client->helo));
    r->session = span_dup(span_str(client->session));
    message_set_ready(m, on_block, r);
    if (r->helo == NULL || r->session == NULL || !seek(r)) {
        r->message = NULL;
        message_set_ready(m, NULL, NULL);
        relay_free(r);
        return NULL;
    }
    return r;
}

bool
relay_is_past_end(const struct relay *r)
{
    return r->d != NULL && downstream_is_past_end(r->d);
}

bool
relay_abandon(struct relay **rp, void *arg)
{
    struct relay *r = *rp;

    if (r == NULL)
        return false;
    *rp = NULL;
    if (relay_is_past_end(r)) {
        r->arg = arg;
        return true;
    }
    pool_cancel(&r->request);
    if (r->d != NULL)
        pool_give(r->pool, r->d, true);
    relay_free(r);
    return false;
}

/* --- asking --- */

struct relay_question {
    struct pool *pool;
    struct pool_request *request;
    struct downstream *d;
    unsigned host;
    char *sender, *recipient, *session, *helo;
    bool is_smtputf8;
    uint64_t tried;
    unsigned stale;
    bool was_kept;
    struct relay_client client;
    relay_answer_fn *answer;
    void *arg;
};

static void question_got(void *arg, struct downstream *d, unsigned host);
static void question_failed(void *arg, enum pool_failure failure, int host);
static void question_finished(void *owner, const struct downstream_result *result);

static const struct pool_callbacks question_pool = {.got = question_got, .failed = question_failed};
static const struct downstream_events question_events = {.finished = question_finished,
                                                         .closed = closed};

static void
question_free(struct relay_question *q)
{
    pool_release(q->pool);
    free(q->sender);
    free(q->recipient);
    free(q->session);
    free(q->helo);
    free(q);
}

static void
question_answer(struct relay_question *q, const struct smtp_reply *reply, bool has_failed)
{
    relay_answer_fn *answer = q->answer;
    void *arg = q->arg;

    question_free(q);
    answer(arg, reply, has_failed);
}

static void
question_send(struct relay_question *q)
{
    struct downstream_client client = told_client(&q->client, q->helo);

    q->was_kept = downstream_transactions(q->d) > 0;
    downstream_set_owner(q->d, &question_events, q);
    downstream_ask(q->d, q->sender, q->recipient, q->is_smtputf8, &client);
}

static bool
question_seek(struct relay_question *q)
{
    struct pool_wish wish = {.client = q->client.network,
                             .needs = q->is_smtputf8 ? SMTP_CAP_BIT(SMTPUTF8) : 0,
                             .session = q->session,
                             .tried = q->tried};

    q->d = NULL;
    q->request = pool_ask(q->pool, &wish, &question_pool, q, &q->d, &q->host);
    if (q->d != NULL)
        question_send(q);
    return q->request != NULL || q->d != NULL;
}

static void
question_seek_again(struct relay_question *q)
{
    if (!question_seek(q)) {
        struct smtp_reply reply = smtp_reply_make(SMTP_REPLY_NO_ANSWER, NULL);
        question_answer(q, &reply, true);
    }
}

static void
question_got(void *arg, struct downstream *d, unsigned host)
{
    struct relay_question *q = arg;

    q->request = NULL;
    q->d = d;
    q->host = host;
    question_send(q);
}

static void
question_failed(void *arg, enum pool_failure failure, int host)
{
    struct relay_question *q = arg;
    struct smtp_reply reply = smtp_reply_make(SMTP_REPLY_NO_ANSWER, NULL);

    q->request = NULL;
    if (host >= 0)
        q->tried |= UINT64_C(1) << host;
    if (failure == POOL_NO_ANSWER || failure == POOL_TLS)
        question_seek_again(q);
    else
        question_answer(q, &reply, true);
}

static void
question_finished(void *owner, const struct downstream_result *result)
{
    struct relay_question *q = owner;
    struct downstream *d = q->d;
    struct pool *p = q->pool;

    if (result->fail == DOWNSTREAM_OK) {
        struct smtp_reply reply = result->reply;
        bool is_broken = downstream_is_closed(d);
        if (reply.code / 100 != 2)
            reply = passed_on(&reply);
        question_answer(q, &reply, false);
        pool_give(p, d, is_broken);
        return;
    }
    pool_give(p, d, true);
    q->d = NULL;
    if (!q->was_kept || ++q->stale > STALE_MAX) {
        q->tried |= UINT64_C(1) << q->host;
        if (result->fail != DOWNSTREAM_CLOSING)
            pool_host_failed(p, q->host, downstream_fail_text(result->fail));
    }
    question_seek_again(q);
}

struct relay_question *
relay_ask(struct pool *p, const char *sender, const char *recipient, bool is_smtputf8,
          const struct relay_client *client, relay_answer_fn *answer, void *arg)
{
    struct relay_question *q = calloc(1, sizeof(*q));

    if (q == NULL)
        return NULL;
    q->pool = pool_hold(p);
    q->sender = span_dup(span_str(sender));
    q->recipient = span_dup(span_str(recipient));
    q->session = span_dup(span_str(client->session));
    q->helo = span_dup(span_str(client->helo));
    q->is_smtputf8 = is_smtputf8;
    q->client = *client;
    q->answer = answer;
    q->arg = arg;
    if (q->sender == NULL || q->recipient == NULL || q->session == NULL || q->helo == NULL ||
        !question_seek(q)) {
        question_free(q);
        return NULL;
    }
    return q;
}

void
relay_question_cancel(struct relay_question **qp)
{
    struct relay_question *q = *qp;

    if (q == NULL)
        return;
    *qp = NULL;
    pool_cancel(&q->request);
    if (q->d != NULL)
        pool_give(q->pool, q->d, true);
    question_free(q);
}
