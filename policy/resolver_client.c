#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "policy/resolver_private.h"

struct pending {
    TAILQ_ENTRY(pending) link;
    uint64_t ticket;
    int64_t deadline_ms;
    resolver_done_fn *done;
    void *arg;
};

struct resolver_client {
    struct resolver *resolver;
    struct mailbox *box;
    uint64_t id;
    uint64_t last_ticket;
    TAILQ_HEAD(pendings, pending) pendings; /* the earliest deadline first */
};

struct resolver_client *
resolver_client_new(struct resolver *r)
{
    struct resolver_client *c = calloc(1, sizeof *c);

    if (c == NULL || (c->box = mailbox_new()) == NULL) {
        free(c);
        return NULL;
    }
    TAILQ_INIT(&c->pendings);
    c->resolver = r;
    c->id = resolver_add_client(r, c->box);
    if (c->id == 0) {
        mailbox_free(&c->box);
        free(c);
        return NULL;
    }
    return c;
}

void
resolver_client_free(struct resolver_client **c)
{
    struct mailbox_item *item, *next;
    struct pending *p;

    if (*c == NULL)
        return;
    resolver_remove_client((*c)->resolver, (*c)->id);
    for (item = mailbox_take((*c)->box); item != NULL; item = next) {
        next = item->next;
        free(item);
    }
    while ((p = TAILQ_FIRST(&(*c)->pendings)) != NULL) {
        TAILQ_REMOVE(&(*c)->pendings, p, link);
        free(p);
    }
    mailbox_free(&(*c)->box);
    free(*c);
    *c = NULL;
}

int
resolver_client_fd(const struct resolver_client *c)
{
    return mailbox_fd(c->box);
}

int64_t
resolver_client_next_ms(const struct resolver_client *c)
{
    const struct pending *p = TAILQ_FIRST(&c->pendings);

    return p != NULL ? p->deadline_ms : INT64_MAX;
}

/* Answers come about in the order of the questions, so the one sought is near the front. */
static struct pending *
find(struct resolver_client *c, uint64_t ticket)
{
    struct pending *p;

    TAILQ_FOREACH(p, &c->pendings, link)
        if (p->ticket == ticket)
            break;
    return p;
}

static void
deliver(struct resolver_client *c, struct pending *p, const struct resolver_answer *answer)
{
    resolver_done_fn *done = p->done;
    void *arg = p->arg;

    TAILQ_REMOVE(&c->pendings, p, link);
    free(p);
    done(arg, answer);
}

void
resolver_client_dispatch(struct resolver_client *c, int64_t now_ms)
{
    static const struct resolver_answer unknown = {.spf = SPF_TEMPERROR};
    struct mailbox_item *item, *next;
    struct pending *p;

    for (item = mailbox_take(c->box); item != NULL; item = next) {
        next = item->next;
        struct resolver_item *answered = (struct resolver_item *)item;
        if ((p = find(c, answered->ticket)) != NULL)
            deliver(c, p, &answered->answer);
        free(answered);
    }
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): deliver takes P out before it frees it */
    while ((p = TAILQ_FIRST(&c->pendings)) != NULL && p->deadline_ms <= now_ms)
        deliver(c, p, &unknown);
}

/* ITEM is freed on failure.  The deadlines of a reload may differ, hence the place in the middle.
 */
static uint64_t
ask(struct resolver_client *c, const struct settings *st, struct resolver_item *item,
    int64_t now_ms, resolver_done_fn *done, void *arg)
{
    struct pending *p = malloc(sizeof *p), *before;

    if (p == NULL) {
        free(item);
        return 0;
    }
    *p = (struct pending){.ticket = ++c->last_ticket,
                          .deadline_ms = now_ms + st->dns.timeout,
                          .done = done,
                          .arg = arg};
    before = TAILQ_LAST(&c->pendings, pendings);
    while (before != NULL && before->deadline_ms > p->deadline_ms)
        before = TAILQ_PREV(before, pendings, link);
    if (before != NULL)
        TAILQ_INSERT_AFTER(&c->pendings, before, p, link);
    else
        TAILQ_INSERT_HEAD(&c->pendings, p, link);
    item->client = c->id;
    item->ticket = p->ticket;
    resolver_post(c->resolver, item);
    return c->last_ticket;
}

uint64_t
resolver_ask_spf(struct resolver_client *c, const struct settings *st, const struct netaddr *client,
                 struct span helo, struct span sender, int64_t now_ms, resolver_done_fn *done,
                 void *arg)
{
    struct resolver_item *item = calloc(1, sizeof *item);

    if (item == NULL)
        return 0;
    item->kind = RESOLVER_SPF;
    item->address = *client;
    /* A HELO that is too long for a name is none; a sender, one without a domain. */
    (void)span_copy(item->helo, sizeof item->helo, helo);
    if (!span_copy(item->sender, sizeof item->sender, sender))
        (void)span_copy(item->sender, sizeof item->sender, span_str("@"));
    return ask(c, st, item, now_ms, done, arg);
}

uint64_t
resolver_ask_dnsbl(struct resolver_client *c, const struct settings *st,
                   const struct netaddr *client, unsigned lists, int64_t now_ms,
                   resolver_done_fn *done, void *arg)
{
    struct resolver_item *item = calloc(1, sizeof *item);

    if (item == NULL)
        return 0;
    item->kind = RESOLVER_DNSBL;
    item->address = *client;
    item->lists = lists;
    return ask(c, st, item, now_ms, done, arg);
}

void
resolver_cancel(struct resolver_client *c, uint64_t ticket)
{
    struct pending *p = find(c, ticket);

    if (p == NULL)
        return;
    TAILQ_REMOVE(&c->pendings, p, link);
    free(p);
}
