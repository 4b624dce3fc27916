#include "proxy/relay/relay.h"

#include <stdlib.h>
#include <string.h>

#include "proxy/relay/attempt.h"

struct relay {
    struct attempt attempt;
    struct message *message;
    struct smtp_reply closing; /* the last 421 in answer to MAIL or RCPT */
    relay_done_fn *done;
    void *arg;
};

static void finished(void *owner, const struct downstream_result *result);
static void closed(void *owner, enum downstream_fail fail, const struct smtp_reply *reply);

static const struct downstream_events burst_events = {.finished = finished, .closed = closed};

static void
relay_free(struct relay *r)
{
    message_free(&r->message);
    attempt_clear(&r->attempt);
    free(r);
}

/* The one exit. */
static void
conclude(struct relay *r, struct relay_outcome *outcome)
{
    outcome->host = attempt_host(&r->attempt);
    if (outcome->reply.code == 0)
        outcome->reply = smtp_reply_make(SMTP_REPLY_NO_ANSWER, NULL);
    r->done(r->arg, outcome, r->message);
    /* Not before: the outcome speaks of what the connection owns. */
    if (r->attempt.d != NULL)
        attempt_give(&r->attempt, downstream_is_closed(r->attempt.d));
    relay_free(r);
}

static void
conclude_ours(struct relay *r, enum smtp_reply_id id)
{
    struct relay_outcome outcome = {.status = RELAY_DEFERRED, .reply = smtp_reply_make(id, NULL)};

    conclude(r, &outcome);
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

static void
ready(void *arg)
{
    struct relay *r = arg;
    struct downstream_client client = attempt_client(&r->attempt);

    downstream_set_owner(r->attempt.d, &burst_events, r);
    downstream_send(r->attempt.d, r->message, r->attempt.wish.needs, &client);
}

static void
over(void *arg, enum attempt_end why)
{
    struct relay *r = arg;

    switch (why) {
    case ATTEMPT_NO_MEMORY:
        conclude_ours(r, SMTP_REPLY_INTERNAL);
        return;
    case ATTEMPT_BUSY:
        conclude_ours(r, SMTP_REPLY_BUSY);
        return;
    case ATTEMPT_NO_HOST:
        break;
    }
    if (r->closing.code != 0) {
        struct relay_outcome o = {.status = RELAY_DEFERRED,
                                  .original = r->closing,
                                  .is_envelope = true,
                                  .is_mail = true,
                                  .reply = smtp_reply_passed_on(&r->closing)};
        conclude(r, &o);
        return;
    }
    conclude_ours(r, r->attempt.had_tls_failure ? SMTP_REPLY_DOWNSTREAM_TLS : SMTP_REPLY_NO_ANSWER);
}

static const struct attempt_events attempt_events = {.ready = ready, .over = over};

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

/* Does the refusal not speak of all the client's recipients?  Of one who has the message by an
 * earlier burst it never does: he is not to be bounced with those who were sent to now. */
static bool
is_refused_for_some(const struct message *m, const struct downstream_result *result)
{
    size_t n = m->n_recipients + m->n_served;

    if (result->refused != NULL)
        return n > 1 && !(result->n_refused == n && all_permanent(m, result));
    if (m->n_served > 0)
        return result->reply.code / 100 == 5;
    return n > 1 && !result->is_envelope && relay_is_recipients_fault(&result->reply);
}

static void
judge(struct relay *r, const struct downstream_result *result)
{
    struct relay_outcome o = {
        .original = result->reply, .is_envelope = result->is_envelope, .refused = result->refused};
    bool is_ok = result->reply.code / 100 == 2 && !result->is_envelope;

    if (is_ok) {
        o.status = RELAY_DELIVERED;
        o.reply = result->reply;
        conclude(r, &o);
        return;
    }
    o.is_mail = result->refused == NULL;
    o.reply = is_refused_for_some(r->message, result)
                  ? smtp_reply_make(SMTP_REPLY_SOME_REFUSED, NULL)
                  : smtp_reply_passed_on(&result->reply);
    o.status = o.reply.code / 100 == 5 ? RELAY_REFUSED : RELAY_DEFERRED;
    conclude(r, &o);
}

/* The connection failed in the middle. */
static void
recover(struct relay *r, const struct downstream_result *result)
{
    enum downstream_fail why = result->fail;

    if (result->is_past_end) {
        struct relay_outcome o = {.status = RELAY_DEFERRED,
                                  .is_unknown_fate = true,
                                  .reply = smtp_reply_make(SMTP_REPLY_LOST, NULL)};
        attempt_give(&r->attempt, true);
        conclude(r, &o);
        return;
    }
    /* What could not be written comes to light here when the end of the message came first. */
    if (why == DOWNSTREAM_CONTENT) {
        attempt_give(&r->attempt, true);
        conclude_ours(r, SMTP_REPLY_NO_SPACE);
        return;
    }
    if (attempt_lost(&r->attempt, why) && why == DOWNSTREAM_CLOSING)
        r->closing = result->reply;
    attempt_go_on(&r->attempt);
}

static void
finished(void *owner, const struct downstream_result *result)
{
    struct relay *r = owner;

    if (result->fail != DOWNSTREAM_OK)
        recover(r, result);
    else
        judge(r, result);
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

    if (r->attempt.d != NULL)
        downstream_block(r->attempt.d, is_ok, data, n);
}

struct relay *
relay_start(struct pool *p, struct message *m, const struct relay_client *client,
            relay_done_fn *done, void *arg)
{
    struct relay *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->message = m;
    r->done = done;
    r->arg = arg;
    message_set_ready(m, on_block, r);
    bool is_ok = attempt_init(&r->attempt, p, client, &attempt_events, r);
    r->attempt.wish.size = message_wire_size(m);
    r->attempt.wish.needs = needs_of(m);
    if (!is_ok || !attempt_start(&r->attempt)) {
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
    return r->attempt.d != NULL && downstream_is_past_end(r->attempt.d);
}

const struct message *
relay_message(const struct relay *r)
{
    return r->message;
}

void
relay_end(struct relay **rp)
{
    if (*rp != NULL)
        relay_free(*rp);
    *rp = NULL;
}
