#include "proxy/session/inquest.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "policy/mark.h"
#include "proxy/worker.h"

/* In a loop.  Beyond, nothing is learnt of this refusal; the sender will try again. */
#define INQUESTS_MAX 64

struct inquest {
    struct worker *w;
    struct settings *st;
    int64_t memory_ms;
    char *sender;
    char **recipients;
    size_t n;
    size_t open; /* questions that are not answered, and one while they are being asked */
    bool has_absent;
    bool has_snapshot; /* some directory of theirs is kept as one */
};

static void
inquest_free(struct inquest *q)
{
    for (size_t i = 0; i < q->n; i++)
        free(q->recipients[i]);
    free(q->recipients);
    free(q->sender);
    settings_unref(q->st);
    q->w->inquests--;
    free(q);
}

static bool
is_kept_as_snapshot(const struct settings *st, const struct settings_domain *domain)
{
    for (size_t i = 0; i < domain->n_directory_index; i++) {
        const struct settings_directory *d = &st->directories[domain->directory_index[i]];
        if (d->type != SETTINGS_TYPE_FILE && d->mode == SETTINGS_MODE_SNAPSHOT)
            return true;
    }
    return false;
}

static void
settle(struct inquest *q)
{
    if (--q->open > 0)
        return;
    struct span *spans = calloc(q->n + 1, sizeof(*spans));
    /* A snapshot whose looks are not taken still has the absent one, and is believed again once the
     * cache has forgotten: that alone would go on for ever. */
    if ((!q->has_absent || q->has_snapshot) && spans != NULL) {
        for (size_t i = 0; i < q->n; i++)
            spans[i] = span_str(q->recipients[i]);
        marks_halve(policy_marks(q->w->srv->policy), span_str(q->sender), spans, q->n, q->memory_ms,
                    clock_ms());
    }
    free(spans);
    inquest_free(q);
}

static void
on_answer(void *arg, const struct dir_answer *a)
{
    struct inquest *q = arg;

    /* Under monitor it is not refused at the retry: that alone would go on for ever. */
    if (a->status == DIR_ABSENT && !q->st->server.monitor)
        q->has_absent = true;
    settle(q);
}

void
inquest_start(struct worker *w, struct settings *st, const struct message *m, int64_t memory_ms)
{
    struct inquest *q = w->inquests < INQUESTS_MAX ? calloc(1, sizeof(*q)) : NULL;

    if (q == NULL)
        return;
    q->w = w;
    w->inquests++;
    q->st = settings_ref(st);
    q->memory_ms = memory_ms;
    q->sender = span_dup(span_str(m->sender_canonical));
    q->recipients = calloc(m->n_recipients + m->n_served, sizeof(*q->recipients));
    if (q->sender == NULL || q->recipients == NULL) {
        inquest_free(q);
        return;
    }
    for (size_t i = 0; i < m->n_recipients + m->n_served; i++) {
        if ((q->recipients[i] = span_dup(span_str(m->recipients[i].canonical))) == NULL) {
            inquest_free(q);
            return;
        }
        q->n++;
    }
    q->open = 1;
    for (size_t i = 0; i < q->n; i++) {
        /* Whom no directory knew, as a postmaster, the retry may have again.  Who has the message
         * already is not the one. */
        if (i >= m->n_recipients || !m->recipients[i].is_directory)
            continue;
        const char *at = strrchr(q->recipients[i], '@');
        const struct settings_domain *domain =
            at != NULL ? settings_domain_for(st, span_str(at + 1)) : NULL;
        struct dir_answer a = {.status = DIR_UNAVAILABLE};
        uint64_t ticket;
        if (domain == NULL || domain->recipients != SETTINGS_RECIPIENTS_DIRECTORY)
            continue;
        q->has_snapshot |= is_kept_as_snapshot(st, domain);
        q->open++;
        if (directory_ask(w->directory, domain, span_str(q->recipients[i]), span_str(q->sender),
                          DIR_ASK_LIVE, clock_ms(), &a, on_answer, q, &ticket) != DIR_PENDING)
            on_answer(q, &a);
    }
    worker_plan(w);
    settle(q);
}
