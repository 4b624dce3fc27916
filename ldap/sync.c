#define _POSIX_C_SOURCE 200809L
#include "ldap/sync.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "ldap/dir_filter.h"
#include "ldap/sync_duplicates.h"
#include "ldap/sync_look.h"

#define BACKOFF_FIRST_MS   1000
#define BACKOFF_LAST_MS    60000
#define BACKOFF_REFUSED_MS (10 * 60 * 1000) /* an account locks after a few wrong passwords */

/* What an order hears that did not come to its end. */
#define OVERTAKEN "its settings were changed meanwhile"

/* What somebody wants to have done. */
struct asker {
    struct asker *next;
    enum dir_order order;
    struct dir_inbox *box; /* a reference */
    struct dir_reply *reply;
};

struct sync {
    const struct settings_directory *conf;
    struct snapshot *snapshot;
    struct snapshot_part *part;
    unsigned epoch;
    struct hash128 fingerprint;
    atomic_bool is_ours; /* the part has nothing that other settings saw */
    struct dir_plan plan;
    struct dir_watchdog *watchdog;
    struct dir_link link;
    atomic_bool is_ending;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool has_ended, is_looking;
    bool is_retried; /* look now */
    struct asker *askers;
    char error[160]; /* of the last look; empty: it was taken */
    struct snapshot_mark mark;

    /* The thread's own. */
    bool is_attached;
    size_t uri; /* of the server that was last looked at */
    bool has_rules;
    int64_t next_ms, backoff_ms;
    int64_t full_after_s; /* no full look of its own before, as the last one was refused */
    unsigned jitter;
};

/* What a look is to be, and what came of it. */
struct order {
    bool is_full, is_forced;
    struct snapshot_result result;
    struct err e;
};

enum outcome { LOOK_TAKEN, LOOK_NOT_TAKEN, LOOK_FAILED, LOOK_REFUSED_BIND };

static void
tell(struct sync *y, enum log_level level, const char *state, const char *error)
{
    struct log_line l;

    log_begin(&l, level, "directory");
    log_str(&l, "state", state);
    if (y->conf->name[0])
        log_str(&l, "directory", y->conf->name);
    log_str(&l, "host", y->conf->uri.v[y->uri]);
    log_str(&l, "error", error);
    log_end(&l);
}

static void
tell_taken(struct sync *y, const struct snapshot_look *look, const struct snapshot_result *r)
{
    bool is_news = look->is_full || r->learned > 0 || r->lost > 0;
    struct log_line l;

    log_begin(&l, is_news ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "directory");
    log_str(&l, "state", "up");
    if (y->conf->name[0])
        log_str(&l, "directory", y->conf->name);
    log_str(&l, "host", y->conf->uri.v[y->uri]);
    log_str(&l, "look", look->is_full ? "full" : "changes");
    log_int(&l, "entries", (int64_t)y->mark.entries);
    log_int(&l, "learned", (int64_t)r->learned);
    log_int(&l, "lost", (int64_t)r->lost);
    log_fmt(&l, "duration", "%.3f", (double)(clock_ms() - look->began_ms) / 1000);
    log_end(&l);
}

/* The error is logged once, until there is another or none. */
static void
set_error(struct sync *y, const char *error)
{
    char text[sizeof y->error];

    span_copy(text, sizeof text, span_of(error, strnlen(error, sizeof text - 1)));
    pthread_mutex_lock(&y->lock);
    if (strcmp(text, y->error) != 0) {
        if (text[0] != '\0')
            tell(y, LOG_LEVEL_WARNING, "degraded", text);
        span_copy(y->error, sizeof y->error, span_str(text));
    }
    pthread_mutex_unlock(&y->lock);
}

/* The link. */

static bool
is_pinned(const struct sync_look *k, const struct snapshot_mark *before)
{
    return before->controller[0] == '\0' || sync_is_same(k, before);
}

static enum dir_link_result
open_link(struct sync *y, struct sync_look *k, size_t uri)
{
    enum dir_link_result result = dir_link_open(&y->link, &y->plan, uri, &k->e);

    if (result != DIR_LINK_OK)
        return result;
    k->uri = y->conf->uri.v[uri];
    if (sync_identify(k) == 0)
        return DIR_LINK_OK;
    dir_link_close(&y->link);
    return DIR_LINK_FAILED;
}

/* Here, and not where the thread is started: the former one may be writing yet. */
static int
attach(struct sync *y, struct err *e)
{
    if (y->is_attached)
        return 0;
    if (snapshot_attach(y->part, y->epoch, y->fingerprint, e) < 0)
        return -1;
    y->is_attached = true;
    atomic_store(&y->is_ours, true);
    pthread_mutex_lock(&y->lock);
    snapshot_mark(y->part, &y->mark);
    pthread_mutex_unlock(&y->lock);
    return 0;
}

/* The server that was looked at last, if it can be had, else the first that can. */
static enum dir_link_result
open_any(struct sync *y, struct sync_look *k, const struct snapshot_mark *before)
{
    const size_t n = y->conf->uri.n, start = y->uri;
    size_t stranger = n;

    for (size_t i = 0; i < n && !atomic_load(&y->is_ending); i++) {
        enum dir_link_result result;

        y->uri = (start + i) % n;
        result = open_link(y, k, y->uri);
        if (result == DIR_LINK_REFUSED)
            return result;
        if (result != DIR_LINK_OK)
            continue;
        if (n == 1 || is_pinned(k, before))
            return DIR_LINK_OK;
        if (stranger == n)
            stranger = y->uri;
        dir_link_close(&y->link);
    }
    if (stranger == n)
        return DIR_LINK_FAILED;
    y->uri = stranger;
    return open_link(y, k, stranger);
}

/* A link to look through, and from where to look on. */
static enum dir_link_result
begin_look(struct sync *y, struct sync_look *k, struct snapshot_mark *before)
{
    sync_look_init(k, &y->plan, y->snapshot, y->part, &y->link, &y->is_ending);
    if (attach(y, &k->e) < 0)
        return DIR_LINK_FAILED;
    snapshot_mark(y->part, before);
    return open_any(y, k, before);
}

/* A look. */

static int
gather(struct sync *y, struct sync_look *k, const struct snapshot_mark *before, bool *is_full)
{
    int rc = *is_full ? 1 : sync_look_changes(k, before);

    if (rc == 1) {
        *is_full = true;
        sync_look_reset(k);
        rc = sync_look_full(k);
    }
    /* Rules depend on others than their object: members of a group, a sender's address. */
    if (rc == 0 && y->plan.is_ad && (k->has_rules || (y->has_rules && k->changed.n > 0))) {
        k->has_rules = true;
        rc = sync_look_rules(k);
    }
    return rc;
}

static enum snapshot_take
take(struct sync *y, struct sync_look *k, struct order *order, struct snapshot_look *look)
{
    bool is_limited = (order->is_full || k->is_present_phase) && !order->is_forced;

    look->is_full = order->is_full;
    look->rows = (const struct snapshot_row *)(const void *)k->rows.octets;
    look->n_rows = k->rows.n;
    look->changed = (const struct snapshot_id *)(const void *)k->changed.octets;
    look->n_changed = k->changed.n;
    look->has_rules = order->is_full || k->has_rules;
    look->rules = k->rules;
    look->n_rules = k->n_rules;
    look->max_loss = is_limited ? y->conf->snapshot_max_loss : 100;
    look->mark = k->mark;
    return snapshot_take(y->part, y->epoch, look, &order->result, &k->e);
}

static enum outcome
look_at(struct sync *y, struct sync_look *k, struct order *order,
        const struct snapshot_mark *before)
{
    const int64_t now_s = clock_wall_s();
    struct snapshot_look look = {.began_ms = clock_ms(),
                                 .buried_s = now_s - y->conf->tombstones / 1000};
    enum snapshot_take taken;

    order->is_full =
        order->is_full || before->full_s == 0 ||
        (now_s - before->full_s >= y->conf->snapshot_full / 1000 && now_s >= y->full_after_s);
    if (gather(y, k, before, &order->is_full) < 0)
        return LOOK_FAILED;
    k->mark.look_s = now_s;
    k->mark.full_s = order->is_full ? now_s : before->full_s;
    taken = take(y, k, order, &look);
    if (taken == SNAPSHOT_REFUSED) {
        err_set(&k->e, ERR_LDAP,
                "a look would lose %llu of %llu addresses and is not taken; posternctl directory "
                "sync --force takes it",
                (unsigned long long)order->result.lost, (unsigned long long)before->entries);
        y->full_after_s = now_s + y->conf->snapshot_full / 1000;
        return LOOK_NOT_TAKEN;
    }
    if (taken == SNAPSHOT_FAILED)
        return LOOK_FAILED;
    if (look.has_rules)
        y->has_rules = k->n_rules > 0;
    if (order->is_full)
        y->full_after_s = 0;
    snapshot_mark(y->part, &k->mark);
    pthread_mutex_lock(&y->lock);
    y->mark = k->mark;
    pthread_mutex_unlock(&y->lock);
    tell_taken(y, &look, &order->result);
    /* A refused look is reported until a full one was taken. */
    if (y->full_after_s == 0)
        set_error(y, "");
    return LOOK_TAKEN;
}

static enum outcome
look(struct sync *y, struct order *order)
{
    enum outcome outcome = LOOK_FAILED;
    enum dir_link_result result;
    struct snapshot_mark before;
    struct sync_look k;

    result = begin_look(y, &k, &before);
    if (result == DIR_LINK_OK)
        outcome = look_at(y, &k, order, &before);
    else if (result == DIR_LINK_REFUSED)
        outcome = LOOK_REFUSED_BIND;
    dir_link_close(&y->link);
    if (outcome != LOOK_TAKEN) {
        if (atomic_load(&y->is_ending))
            err_set(&k.e, ERR_LDAP, OVERTAKEN);
        else
            set_error(y, k.e.text);
        order->e = k.e;
    }
    sync_look_clear(&k);
    if (order->is_full)
        malloc_trim(0); /* a whole directory went through this thread's heap */
    return outcome;
}

static int64_t
jittered(struct sync *y, int64_t ms)
{
    y->jitter = y->jitter * 1103515245u + 12345u;
    return ms - ms / 4 + (int64_t)(y->jitter >> 16) % (ms / 2 + 1);
}

static void
schedule(struct sync *y, enum outcome outcome)
{
    int64_t pause_ms = y->conf->snapshot_refresh;

    switch (outcome) {
    case LOOK_TAKEN:
    case LOOK_NOT_TAKEN:
        y->backoff_ms = BACKOFF_FIRST_MS;
        break;
    case LOOK_FAILED:
        if (y->backoff_ms < pause_ms)
            pause_ms = y->backoff_ms;
        y->backoff_ms = y->backoff_ms * 2 < BACKOFF_LAST_MS ? y->backoff_ms * 2 : BACKOFF_LAST_MS;
        pause_ms = jittered(y, pause_ms);
        break;
    case LOOK_REFUSED_BIND:
        pause_ms = jittered(y, BACKOFF_REFUSED_MS);
        break;
    }
    y->next_ms = clock_ms() + pause_ms;
}

/* Orders. */

static struct dir_report *
failure(const char *error)
{
    struct dir_report *report = calloc(1, sizeof *report);

    if (report)
        span_copy(report->error, sizeof report->error, span_str(error));
    return report;
}

/* Takes REPORT, and frees A. */
static void
answer(struct asker *a, struct dir_report *report)
{
    a->reply->report = report;
    mailbox_post(dir_inbox_mailbox(a->box), &a->reply->item);
    dir_inbox_close(&a->box);
    free(a);
}

static struct dir_report *
list_duplicates(struct sync *y)
{
    struct dir_report *report;
    struct snapshot_mark before;
    struct sync_look k;

    if (begin_look(y, &k, &before) == DIR_LINK_OK)
        report = sync_duplicates(&k);
    else
        report = failure(k.e.text);
    if (atomic_load(&y->is_ending)) {
        free(report);
        report = failure(OVERTAKEN);
    }
    dir_link_close(&y->link);
    sync_look_clear(&k);
    return report;
}

static struct dir_report *
look_now(struct sync *y, bool is_forced)
{
    struct order order = {.is_full = true, .is_forced = is_forced};
    struct dir_report *report = calloc(1, sizeof *report);

    schedule(y, look(y, &order));
    if (!report)
        return NULL;
    report->learned = order.result.learned;
    report->lost = order.result.lost;
    if (order.e.kind != ERR_NONE)
        span_copy(report->error, sizeof report->error, span_str(order.e.text));
    return report;
}

static void
set_looking(struct sync *y, bool is_looking)
{
    pthread_mutex_lock(&y->lock);
    y->is_looking = is_looking;
    pthread_mutex_unlock(&y->lock);
}

/* Do what A wants, and free it. */
static void
serve(struct sync *y, struct asker *a)
{
    struct dir_report *report = a->order == DIR_ORDER_DUPLICATES
                                    ? list_duplicates(y)
                                    : look_now(y, a->order == DIR_ORDER_SYNC_FORCED);
    struct snapshot_mark mark;

    snapshot_mark(y->part, &mark);
    if (report)
        report->entries = mark.entries;
    set_looking(y, false); /* before anybody hears that it is done */
    answer(a, report);
}

/* The thread. */

enum task { TASK_LOOK, TASK_ORDER, TASK_END };

static enum task
wait_for_task(struct sync *y, struct asker **asker)
{
    enum task task = TASK_LOOK;

    pthread_mutex_lock(&y->lock);
    y->is_looking = false;
    while (!atomic_load(&y->is_ending) && !y->askers && !y->is_retried && clock_ms() < y->next_ms)
        (void)thread_cond_wait(&y->changed, &y->lock, y->next_ms);
    if (atomic_load(&y->is_ending)) {
        task = TASK_END;
    } else if (y->askers) {
        task = TASK_ORDER;
        *asker = y->askers;
        y->askers = y->askers->next;
    }
    y->is_looking = task != TASK_END;
    y->is_retried = y->is_retried && task != TASK_LOOK;
    pthread_mutex_unlock(&y->lock);
    return task;
}

/* None is added any more. */
static void
end(struct sync *y)
{
    while (y->askers) {
        struct asker *a = y->askers;

        y->askers = a->next;
        answer(a, failure(OVERTAKEN));
    }
    pthread_mutex_lock(&y->lock);
    y->has_ended = true;
    pthread_mutex_unlock(&y->lock);
}

static void *
run(void *arg)
{
    struct sync *y = arg;

    for (;;) {
        struct asker *asker = NULL;
        struct order order = {.is_full = false};

        switch (wait_for_task(y, &asker)) {
        case TASK_LOOK:
            schedule(y, look(y, &order));
            break;
        case TASK_ORDER:
            serve(y, asker);
            break;
        case TASK_END:
            end(y);
            return NULL;
        }
    }
}

/* What decides which entries are seen, and as what. */
static struct hash128
fingerprint_of(const struct dir_plan *plan)
{
    static const struct siphash_key key = {.octets = "what is seen"};
    struct dir_filter text = {.n = 0}; /* room for all that the settings may say */
    char filter[DIR_FILTER_MAX];

    sync_filter(plan, filter, sizeof filter);
    dir_filter_add(&text, plan->is_ad ? "ad\n" : "ldap\n");
    dir_filter_add(&text, plan->base);
    dir_filter_add(&text, "\n");
    dir_filter_add(&text, filter);
    for (size_t i = 0; i < plan->n_addresses; i++) {
        dir_filter_add(&text, "\n");
        dir_filter_add(&text, plan->addresses[i]);
    }
    return siphash128(&key, text.text, text.n);
}

static void
destroy(struct sync *y)
{
    dir_watchdog_free(&y->watchdog);
    dir_plan_clear(&y->plan);
    pthread_cond_destroy(&y->changed);
    pthread_mutex_destroy(&y->lock);
    free(y);
}

static int
begin(struct sync *y, struct err *e)
{
    if (dir_plan_init(&y->plan, y->conf) < 0)
        return err_set(e, ERR_SYSTEM, "out of memory");
    y->watchdog = dir_watchdog_new(e);
    if (!y->watchdog)
        return -1;
    dir_link_init(&y->link, y->watchdog);
    y->part = snapshot_claim(y->snapshot, y->conf->name, &y->epoch);
    if (!y->part)
        return err_set(e, ERR_SYSTEM, "out of memory");
    y->fingerprint = fingerprint_of(&y->plan);
    if (snapshot_is_of(y->part, y->fingerprint)) {
        atomic_store(&y->is_ours, true);
        snapshot_mark(y->part, &y->mark);
    }
    int rc = thread_start(&y->thread, run, y);
    return rc == 0 ? 0 : err_errno(e, ERR_SYSTEM, rc, "a thread");
}

struct sync *
sync_new(const struct settings_directory *conf, struct snapshot *s, struct err *e)
{
    struct sync *y = calloc(1, sizeof *y);

    if (!y) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    y->conf = conf;
    y->snapshot = s;
    y->has_rules = true; /* of the last process: not known */
    y->backoff_ms = BACKOFF_FIRST_MS;
    y->jitter = (unsigned)clock_ns();
    atomic_init(&y->is_ending, false);
    atomic_init(&y->is_ours, false);
    pthread_mutex_init(&y->lock, NULL);
    thread_cond_init(&y->changed);
    if (begin(y, e) < 0) {
        destroy(y);
        return NULL;
    }
    return y;
}

void
sync_stop(struct sync *y)
{
    pthread_mutex_lock(&y->lock);
    atomic_store(&y->is_ending, true);
    pthread_cond_signal(&y->changed);
    pthread_mutex_unlock(&y->lock);
    /* In this order: what the thread waits for is cut off, or not begun. */
    dir_guard_arm(&y->link.guard, 0);
}

bool
sync_has_ended(struct sync *y)
{
    bool has_ended;

    pthread_mutex_lock(&y->lock);
    has_ended = y->has_ended;
    pthread_mutex_unlock(&y->lock);
    return has_ended;
}

void
sync_free(struct sync **sync)
{
    struct sync *y = *sync;

    if (!y)
        return;
    sync_stop(y);
    pthread_join(y->thread, NULL);
    dir_guard_close(&y->link.guard);
    destroy(y);
    *sync = NULL;
}

struct snapshot_part *
sync_part(const struct sync *y)
{
    return atomic_load(&y->is_ours) ? y->part : NULL;
}

void
sync_retry(struct sync *y)
{
    pthread_mutex_lock(&y->lock);
    y->is_retried = y->error[0] != '\0';
    pthread_cond_signal(&y->changed);
    pthread_mutex_unlock(&y->lock);
}

void
sync_view(struct sync *y, struct dir_view *out)
{
    int64_t now_s = clock_wall_s();

    pthread_mutex_lock(&y->lock);
    out->has_snapshot = y->mark.full_s > 0;
    out->is_looking = y->is_looking;
    span_copy(out->snapshot_error, sizeof out->snapshot_error, span_str(y->error));
    if (out->has_snapshot) {
        out->entries = y->mark.entries;
        out->snapshot_age_s = now_s > y->mark.look_s ? now_s - y->mark.look_s : 0;
        out->snapshot_full_age_s = now_s > y->mark.full_s ? now_s - y->mark.full_s : 0;
    }
    pthread_mutex_unlock(&y->lock);
}

bool
sync_order(struct sync *y, enum dir_order order, struct dir_inbox *box, uint64_t id)
{
    struct dir_reply *reply = calloc(1, sizeof *reply);
    struct asker *a = malloc(sizeof *a);
    bool is_taken = false;

    pthread_mutex_lock(&y->lock);
    if (a && reply && !atomic_load(&y->is_ending)) {
        reply->id = id;
        *a = (struct asker){
            .next = y->askers, .order = order, .box = dir_inbox_ref(box), .reply = reply};
        y->askers = a;
        pthread_cond_signal(&y->changed);
        is_taken = true;
    }
    pthread_mutex_unlock(&y->lock);
    if (!is_taken) {
        free(reply);
        free(a);
    }
    return is_taken;
}
