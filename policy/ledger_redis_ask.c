#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <hiredis/hiredis.h>

#include "base/clock.h"
#include "policy/ledger_redis_private.h"

/* Is another Postern at a message just now?  What one does is told to the others four times a
 * second, which is too slow for a client that comes back at once.  So each message leaves our name
 * in Redis for some seconds, and whoever finds another's name there waits until the usual way has
 * had its time. */

struct asking {
    struct ledger_redis *r;
    uint64_t ticket;
};

/* To `begin`: 1, if another's name is there.  Without an answer nobody is. */
static void
on_begin(void *arg, const struct redisReply *reply)
{
    struct asking *a = arg;
    int64_t found = 0;
    bool is_garbled = reply != NULL && (reply->type != REDIS_REPLY_INTEGER || reply->integer < 0 ||
                                        reply->integer > 1);

    if (reply != NULL && !is_garbled)
        found = reply->integer;
    deliveries_answer(a->r->p->deliveries, a->ticket, found == 1, clock_ms());
    if (is_garbled)
        redis_link_give_up(a->r->link, LEDGER_REDIS_GARBLED);
    free(a);
}

static bool
begin(struct ledger_redis *r, const struct delivery_question *q)
{
    char member[REDIS_ROW_MEMBER], self[16];
    struct asking *a;
    const char *words[3];
    char *name;
    bool is_asked;

    if (r->phase != LEDGER_REDIS_READY || (a = malloc(sizeof *a)) == NULL)
        return false;
    *a = (struct asking){r, q->ticket};
    redis_row_hash_member(member, REDIS_ROW_DELIVERY, q->message);
    (void)snprintf(self, sizeof self, "%" PRIu32, r->self);
    name = ledger_redis_name(r, "b:", member + 1);
    words[0] = name;
    words[1] = "begin";
    words[2] = self;
    is_asked = name != NULL && ledger_redis_call(r, 1, 3, words, on_begin, a);
    free(name);
    if (!is_asked)
        free(a);
    return is_asked;
}

void
ledger_redis_ask(int fd, short what, void *arg)
{
    struct ledger_redis *r = arg;
    struct mailbox_item *item = mailbox_take(deliveries_questions(r->p->deliveries)), *next;

    (void)fd;
    (void)what;
    for (; item != NULL; item = next) {
        struct delivery_question *q = (struct delivery_question *)item;
        next = item->next;
        if (!begin(r, q))
            deliveries_answer(r->p->deliveries, q->ticket, false, clock_ms());
        free(q);
    }
}
