#include <stdlib.h>

#include "base/span.h"
#include "proxy/relay/attempt.h"
#include "proxy/relay/relay.h"

/* The asking half of relay.h: one recipient, no message. */

struct relay_question {
    struct attempt attempt;
    char *sender, *recipient;
    bool is_smtputf8;
    struct smtp_reply closing; /* the last 421 */
    relay_answer_fn *answer;
    void *arg;
};

static void finished(void *owner, const struct downstream_result *result);
static void closed(void *owner, enum downstream_fail fail, const struct smtp_reply *reply);

static const struct downstream_events question_events = {.finished = finished, .closed = closed};

static void
question_free(struct relay_question *q)
{
    attempt_clear(&q->attempt);
    free(q->sender);
    free(q->recipient);
    free(q);
}

/* The one exit. */
static void
conclude(struct relay_question *q, const struct smtp_reply *reply, enum relay_answer about)
{
    relay_answer_fn *answer = q->answer;
    void *arg = q->arg;

    question_free(q);
    answer(arg, reply, about);
}

static void
ready(void *arg)
{
    struct relay_question *q = arg;
    struct downstream_client client = attempt_client(&q->attempt);

    downstream_set_owner(q->attempt.d, &question_events, q);
    downstream_ask(q->attempt.d, q->sender, q->recipient, q->is_smtputf8, &client);
}

static void
over(void *arg, enum attempt_end why)
{
    struct relay_question *q = arg;
    struct smtp_reply reply = smtp_reply_make(SMTP_REPLY_NO_ANSWER, NULL);
    bool has_closed = q->closing.code != 0;

    (void)why; /* whatever it is, nobody has answered but by a 421 */
    if (has_closed)
        reply = smtp_reply_passed_on(&q->closing);
    conclude(q, &reply, has_closed ? RELAY_ANSWER_RECIPIENT : RELAY_ANSWER_NONE);
}

static const struct attempt_events attempt_events = {.ready = ready, .over = over};

static void
finished(void *owner, const struct downstream_result *result)
{
    struct relay_question *q = owner;

    if (result->fail != DOWNSTREAM_OK) {
        if (attempt_lost(&q->attempt, result->fail) && result->fail == DOWNSTREAM_CLOSING)
            q->closing = result->reply;
        attempt_go_on(&q->attempt);
        return;
    }
    struct smtp_reply reply = result->reply;
    bool is_ok = reply.code / 100 == 2;
    bool is_judged = is_ok || result->n_refused > 0;
    if (!is_ok)
        reply = smtp_reply_passed_on(&reply);
    attempt_give(&q->attempt, downstream_is_closed(q->attempt.d));
    conclude(q, &reply, is_judged ? RELAY_ANSWER_RECIPIENT : RELAY_ANSWER_SENDER);
}

static void
closed(void *owner, enum downstream_fail fail, const struct smtp_reply *reply)
{
    /* A question is a transaction from its first octet to its last: its failures come by finished.
     */
    (void)owner;
    (void)fail;
    (void)reply;
}

struct relay_question *
relay_ask(struct pool *p, const char *sender, const char *recipient, bool is_smtputf8,
          const struct relay_client *client, relay_answer_fn *answer, void *arg)
{
    struct relay_question *q = calloc(1, sizeof(*q));

    if (q == NULL)
        return NULL;
    q->sender = span_dup(span_str(sender));
    q->recipient = span_dup(span_str(recipient));
    q->is_smtputf8 = is_smtputf8;
    q->answer = answer;
    q->arg = arg;
    bool is_ok = attempt_init(&q->attempt, p, client, &attempt_events, q);
    if (is_smtputf8)
        q->attempt.wish.needs = SMTP_CAP_BIT(SMTPUTF8);
    if (!is_ok || q->sender == NULL || q->recipient == NULL || !attempt_start(&q->attempt)) {
        question_free(q);
        return NULL;
    }
    return q;
}

void
relay_question_cancel(struct relay_question **qp)
{
    if (*qp != NULL)
        question_free(*qp);
    *qp = NULL;
}
