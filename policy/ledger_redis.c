#include "policy/ledger_redis.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <hiredis/hiredis.h>

#include "base/clock.h"
#include "base/log.h"
#include "conf/settings.h"
#include "policy/ledger_redis_private.h"
#include "policy/redis_row.h"
#include "policy/redis_script.h"

#define TURN_MS  250
#define POLL_MS  500
#define POLL_MAX 200u /* changes in an answer */

static const char *const fleet_names[REDIS_SCRIPT_FLEET_KEYS] = {"fleet", "log", "fact", "end",
                                                                 "net"};

char *
ledger_redis_name(const struct ledger_redis *r, const char *kind, const char *name)
{
    const char *prefix = r->st->harvest.redis_prefix == NULL ? "" : r->st->harvest.redis_prefix;
    size_t n = strlen(prefix) + strlen(kind) + strlen(name) + 1;
    char *text = malloc(n);

    if (text != NULL)
        (void)snprintf(text, n, "%s%s%s", prefix, kind, name);
    return text;
}

static void
log_state(const struct ledger_redis *r, bool is_up, const char *why)
{
    struct log_line l;

    log_begin(&l, is_up ? LOG_LEVEL_NOTICE : LOG_LEVEL_WARNING, "ledger");
    log_str(&l, "state", is_up ? "up" : "down");
    log_str(&l, "host", r->st->harvest.redis);
    if (why != NULL)
        log_str(&l, "error", why);
    log_end(&l);
}

static void
set_up(struct ledger_redis *r, enum ledger_redis_phase phase, const char *why)
{
    bool is_up = phase == LEDGER_REDIS_READY;

    r->phase = phase;
    if (why != NULL)
        span_copy(r->why, sizeof r->why, span_str(why));
    deliveries_set_asked(r->p->deliveries, is_up);
    if (phase == LEDGER_REDIS_JOINING || (r->is_told && is_up == atomic_load(&r->is_up)))
        return;
    r->is_told = true;
    atomic_store(&r->is_up, is_up);
    log_state(r, is_up, why);
}

bool
ledger_redis_call(struct ledger_redis *r, size_t keys, size_t n, const char *const *words,
                  redis_link_reply_fn *reply, void *arg)
{
    const char *argv[REDIS_LINK_WORDS_MAX];

    if (REDIS_SCRIPT_FLEET_KEYS + n > REDIS_LINK_WORDS_MAX)
        return false;
    memcpy(argv, r->names, sizeof r->names);
    memcpy(argv + REDIS_SCRIPT_FLEET_KEYS, words, n * sizeof *words);
    return redis_link_call(r->link, REDIS_SCRIPT_FLEET_KEYS + keys, REDIS_SCRIPT_FLEET_KEYS + n,
                           argv, reply, arg);
}

/* Hearing of what changed. */

static void
on_poll(void *arg, const struct redisReply *reply)
{
    struct ledger_redis *r = arg;
    int64_t version, seen;
    struct span epoch;
    size_t i;

    r->is_polling = false;
    if (reply == NULL)
        return;
    if (reply->type != REDIS_REPLY_ARRAY || !redis_row_text(reply, 0, &epoch) ||
        !redis_row_number(reply, 1, 0, INT64_MAX, &version) ||
        !redis_row_number(reply, 2, 0, INT64_MAX, &seen)) {
        redis_link_give_up(r->link, LEDGER_REDIS_GARBLED);
        return;
    }
    /* Redis lost its data, or went back to older data. */
    if (!span_is(epoch, r->epoch) || version < r->version) {
        r->epoch[0] = '\0';
        redis_link_give_up(r->link, "other data than before");
        return;
    }
    for (i = 3; i + 3 <= reply->elements; i += 3) {
        struct redis_row row;
        if (!redis_row_read(reply, i, &row)) {
            redis_link_give_up(r->link, LEDGER_REDIS_GARBLED);
            return;
        }
        ledger_redis_learn(r, &row);
    }
    if (seen < r->version || i != reply->elements) {
        redis_link_give_up(r->link, LEDGER_REDIS_GARBLED);
        return;
    }
    r->is_behind = reply->elements > 3;
    r->version = seen;
    /* Nothing is told before all was heard: what the others did meanwhile comes first. */
    if (!r->is_behind)
        set_up(r, LEDGER_REDIS_READY, NULL);
}

static void
poll_fleet(struct ledger_redis *r, int64_t now_ms)
{
    char version[24], most[16];
    const char *words[] = {"poll", version, most};

    if (r->is_polling || (!r->is_behind && now_ms < r->next_poll_ms))
        return;
    (void)snprintf(version, sizeof version, "%" PRId64, r->version);
    (void)snprintf(most, sizeof most, "%u", POLL_MAX);
    r->is_polling = ledger_redis_call(r, 0, 3, words, on_poll, r);
    r->next_poll_ms = now_ms + POLL_MS;
}

/* Joining. */

static void
on_join(void *arg, const struct redisReply *reply)
{
    struct ledger_redis *r = arg;
    struct siphash_key key;
    struct span text, epoch;
    uint8_t octets[16];

    if (reply == NULL)
        return;
    if (reply->type != REDIS_REPLY_ARRAY || !redis_row_text(reply, 0, &text) ||
        !redis_row_unhex(text, key.octets) || !redis_row_text(reply, 1, &epoch) ||
        !redis_row_unhex(epoch, octets)) {
        redis_link_give_up(r->link, LEDGER_REDIS_GARBLED);
        return;
    }
    if (!span_is(epoch, r->epoch)) {
        /* We know nothing of what this Redis knows. */
        (void)span_copy(r->epoch, sizeof r->epoch, epoch);
        r->version = 0;
        ledger_redis_tell_all(r);
    }
    policy_rekey(r->p, &key, policy_seconds_of(clock_ms()));
    set_up(r, LEDGER_REDIS_JOINING, NULL);
    r->is_behind = true;
    poll_fleet(r, clock_ms());
}

static void
on_up(void *arg)
{
    struct ledger_redis *r = arg;
    struct siphash_key own = hash_key_get(&r->p->key), random = siphash_key_random();
    char key[REDIS_ROW_KEY_HEX], epoch[REDIS_ROW_EPOCH_HEX];
    const char *words[] = {"join", key, epoch};

    redis_row_hex(key, own.octets);
    redis_row_hex(epoch, random.octets);
    r->is_polling = false;
    (void)ledger_redis_call(r, 0, 3, words, on_join, r);
}

static void
on_down(void *arg, const char *why)
{
    struct ledger_redis *r = arg;

    r->is_polling = false;
    set_up(r, LEDGER_REDIS_AWAY, why);
}

static void
on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct ledger_redis *r = arg;
    int64_t now_ms = clock_ms();

    (void)fd;
    (void)what;
    if (r->phase == LEDGER_REDIS_AWAY)
        return;
    /* Answers come in the order of the calls: that to an earlier poll would bring back what we now
     * say is over. */
    if (r->phase == LEDGER_REDIS_READY && !r->is_polling)
        ledger_redis_tell(r, now_ms);
    poll_fleet(r, now_ms);
}

/* Life. */

static bool
is_same_redis(const struct settings *a, const struct settings *b)
{
    return span_is(span_str(a->harvest.redis), b->harvest.redis) &&
           span_is(span_str(a->harvest.redis_password_file), b->harvest.redis_password_file) &&
           span_is(span_str(a->harvest.redis_prefix), b->harvest.redis_prefix);
}

static void
set_shared(struct policy *p, bool is_shared)
{
    ledger_share(p->ledger, is_shared);
    memo_share(marks_table(p->marks), is_shared);
    memo_share(deliveries_table(p->deliveries), is_shared);
}

static struct ledger_redis *
make(struct policy *p, struct settings *st, struct event_base *base)
{
    static const struct redis_link_events events = {.up = on_up, .down = on_down};
    struct timeval turn = {.tv_usec = TURN_MS * 1000};
    struct siphash_key random = siphash_key_random();
    struct ledger_redis *r = calloc(1, sizeof *r);
    bool is_made = true;

    if (r == NULL)
        return NULL;
    r->p = p;
    r->st = settings_ref(st);
    memcpy(&r->self, random.octets, sizeof r->self);
    r->turn = event_new(base, -1, EV_PERSIST, on_turn, r);
    r->questions = event_new(base, mailbox_fd(deliveries_questions(p->deliveries)),
                             EV_READ | EV_PERSIST, ledger_redis_ask, r);
    r->link = redis_link_new(base, st->harvest.redis, st->harvest.redis_password_file, redis_script,
                             &events, r);
    for (size_t i = 0; i < REDIS_SCRIPT_FLEET_KEYS; i++) {
        r->names[i] = ledger_redis_name(r, fleet_names[i], "");
        is_made = is_made && r->names[i] != NULL;
    }
    if (!is_made || r->link == NULL || r->turn == NULL || r->questions == NULL ||
        event_add(r->turn, &turn) != 0 || event_add(r->questions, NULL) != 0) {
        ledger_redis_free(&r);
        return NULL;
    }
    set_shared(p, true);
    return r;
}

void
ledger_redis_update(struct ledger_redis **r, struct policy *p, struct settings *st,
                    struct event_base *base)
{
    bool is_wanted = st->harvest.ledger == SETTINGS_LEDGER_REDIS;

    if (*r != NULL && is_wanted && is_same_redis((*r)->st, st)) {
        struct settings *old = (*r)->st;
        (*r)->st = settings_ref(st);
        settings_unref(old);
        return;
    }
    ledger_redis_free(r);
    if (!is_wanted)
        return;
    *r = make(p, st, base);
    if (*r == NULL)
        log_event(LOG_LEVEL_ERROR, "ledger", "state", "down", "host", st->harvest.redis, "error",
                  "out of memory", NULL);
}

void
ledger_redis_free(struct ledger_redis **r)
{
    if (*r == NULL)
        return;
    deliveries_set_asked((*r)->p->deliveries, false);
    redis_link_free(&(*r)->link);
    set_shared((*r)->p, false);
    if ((*r)->turn != NULL)
        event_free((*r)->turn);
    if ((*r)->questions != NULL)
        event_free((*r)->questions);
    for (size_t i = 0; i < REDIS_SCRIPT_FLEET_KEYS; i++)
        free((*r)->names[i]);
    settings_unref((*r)->st);
    free(*r);
    *r = NULL;
}

bool
ledger_redis_is_up(const struct ledger_redis *r)
{
    return r == NULL || atomic_load(&r->is_up);
}

const char *
ledger_redis_error(const struct ledger_redis *r)
{
    return ledger_redis_is_up(r) ? "" : r->why;
}
