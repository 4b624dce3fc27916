#define _POSIX_C_SOURCE 200809L
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "ldap/directory_private.h"

/* The way of one question through the directories of its domain: each in turn with the address,
 * then without its tag, until one knows it.  What was asked last is told by I, IS_UNTAGGED and
 * WITH_SENDER. */
struct walk {
    struct span address, sender;
    unsigned flags;
    struct dir_section *sections[SETTINGS_DIRECTORIES_MAX];
    size_t n, i;
    bool is_untagged, with_sender;
    bool is_tag_unasked; /* untagged because the section could not be asked for the whole address */
    bool is_unavailable; /* somebody could not be asked */
    bool is_trusted;     /* ... and that one's on_failure is accept */
    enum dir_source source;
    int64_t age_ms;
    struct snapshot_reader *reader; /* the client's */
};

/* A question that waits for a reply. */
struct ask {
    struct ask *earlier, *later; /* by deadline */
    struct ask *chain;           /* of the bucket, by ticket */
    uint64_t ticket;
    unsigned step; /* counts the replies waited for, so that a late one is told from the next */
    int64_t deadline_ms;
    bool has_stale;
    struct dir_verdict stale;
    enum dir_source stale_source;
    int64_t stale_age_ms;
    directory_done_fn *done;
    void *arg;
    struct dir_set *set;        /* a reference, which keeps walk.sections */
    struct dir_detail *trouble; /* why the first of those could not be asked; NULL: none yet */
    struct walk walk;
    char address[DIR_ADDRESS_MAX + 1], sender[DIR_ADDRESS_MAX + 1];
};

/* An order that waits for its report. */
struct order {
    struct order *next;
    uint64_t ticket;
    directory_order_fn *done;
    void *arg;
};

#define BUCKETS 256u

struct directory_client {
    struct directories *directories;
    struct dir_inbox *box;
    struct snapshot_reader *reader; /* NULL: there is no snapshot */
    struct order *orders;
    struct dir_set *set;
    unsigned generation;
    uint64_t last_ticket;
    struct ask *earliest, *latest;
    struct ask *buckets[BUCKETS];
};

/* The configuration of now. */
static void
take_current(struct directory_client *c)
{
    struct snapshot *s = directories_snapshot(c->directories);

    c->generation = directories_generation(c->directories);
    c->set = directories_current(c->directories);
    if (s && !c->reader)
        c->reader = snapshot_reader_new(s);
}

static void
refresh(struct directory_client *c)
{
    if (c->generation == directories_generation(c->directories))
        return;
    dir_set_unref(c->set);
    take_current(c);
}

struct directory_client *
directory_client_new(struct directories *d)
{
    struct directory_client *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    c->box = dir_inbox_new();
    if (!c->box || !directories_join(d, c->box)) {
        if (c->box)
            dir_inbox_close(&c->box);
        free(c);
        return NULL;
    }
    c->directories = d;
    take_current(c);
    return c;
}

int
directory_client_fd(const struct directory_client *c)
{
    return mailbox_fd(dir_inbox_mailbox(c->box));
}

int64_t
directory_client_next_ms(const struct directory_client *c)
{
    return c->earliest ? c->earliest->deadline_ms : INT64_MAX;
}

/* Asks. */

static void
ask_schedule(struct directory_client *c, struct ask *a)
{
    struct ask *before = c->latest;

    /* Nearly always at the end: there are as many timeouts as directories. */
    while (before && before->deadline_ms > a->deadline_ms)
        before = before->earlier;
    a->earlier = before;
    a->later = before ? before->later : c->earliest;
    if (a->later)
        a->later->earlier = a;
    else
        c->latest = a;
    if (before)
        before->later = a;
    else
        c->earliest = a;
}

static void
ask_unschedule(struct directory_client *c, struct ask *a)
{
    if (a->earlier)
        a->earlier->later = a->later;
    else
        c->earliest = a->later;
    if (a->later)
        a->later->earlier = a->earlier;
    else
        c->latest = a->earlier;
}

static struct ask **
ask_find(struct directory_client *c, uint64_t ticket)
{
    struct ask **at = &c->buckets[ticket % BUCKETS];

    while (*at && (*at)->ticket != ticket)
        at = &(*at)->chain;
    return at;
}

/* Out of the bucket and freed; it is not scheduled. */
static void
ask_free(struct directory_client *c, struct ask *a)
{
    struct ask **at = ask_find(c, a->ticket);

    assert(*at == a);
    *at = a->chain;
    dir_set_unref(a->set);
    free(a->trouble);
    free(a);
}

/* The first of *AT. */
static void
order_free(struct order **at)
{
    struct order *o = *at;

    *at = o->next;
    free(o);
}

static struct order **
order_find(struct directory_client *c, uint64_t ticket)
{
    struct order **at = &c->orders;

    while (*at && (*at)->ticket != ticket)
        at = &(*at)->next;
    return at;
}

void
directory_client_free(struct directory_client **client)
{
    struct directory_client *c = *client;

    if (!c)
        return;
    while (c->earliest) {
        struct ask *a = c->earliest;

        ask_unschedule(c, a);
        ask_free(c, a);
    }
    while (c->orders)
        order_free(&c->orders);
    directories_leave(c->directories, c->box);
    dir_inbox_close(&c->box);
    snapshot_reader_free(&c->reader);
    dir_set_unref(c->set);
    free(c);
    *client = NULL;
}

void
directory_cancel(struct directory_client *c, uint64_t ticket)
{
    struct order **o = order_find(c, ticket);
    struct ask *a = *ask_find(c, ticket);

    if (a) {
        ask_unschedule(c, a);
        ask_free(c, a);
    }
    if (*o)
        order_free(o);
}

/* The walk. */

static bool
walk_begin(struct walk *w, const struct dir_set *set, const struct settings_domain *domain)
{
    const struct str_list *names = &domain->directory;

    if (names->n == 0) {
        w->sections[0] = dir_set_find(set, "");
        w->n = w->sections[0] ? 1 : 0;
    }
    for (size_t i = 0; i < names->n; i++) {
        struct dir_section *s = dir_set_find(set, names->v[i]);

        if (s)
            w->sections[w->n++] = s;
    }
    /* A section that a reload took away, or nobody named, has no say: what only it knows is
     * uncertain. */
    w->is_unavailable = w->n == 0 || w->n < names->n;
    return w->n > 0;
}

/* The key to ask for next, into KEY. */
static struct span
walk_key(const struct walk *w, char key[DIR_KEY_MAX + 1])
{
    size_t n = w->is_untagged ? dir_address_untagged(w->address, key) : w->address.n;

    if (!w->is_untagged)
        memcpy(key, w->address.p, n);
    if (w->with_sender) {
        key[n++] = '\0';
        if (w->sender.n > 0)
            memcpy(key + n, w->sender.p, w->sender.n);
        n += w->sender.n;
    }
    return span_of(key, n);
}

/* The address, or what it is without its tag, left one of the directories lately. */
static bool
walk_was_known(const struct walk *w)
{
    char untagged[DIR_ADDRESS_MAX + 1];
    size_t n = dir_address_untagged(w->address, untagged);

    for (size_t i = 0; i < w->n; i++) {
        struct dir_section *s = w->sections[i];

        if (dir_section_was_known(s, w->reader, w->address) ||
            (n > 0 && s->conf->plus_addressing &&
             dir_section_was_known(s, w->reader, span_of(untagged, n))))
            return true;
    }
    return false;
}

/* On to the address without its tag, if there is one and WITH_UNTAGGED; else to the next section.
 */
static void
walk_next_key(struct walk *w, bool with_untagged)
{
    char untagged[DIR_ADDRESS_MAX + 1];

    w->is_untagged = with_untagged && !w->is_untagged && w->sections[w->i]->conf->plus_addressing &&
                     dir_address_untagged(w->address, untagged) > 0;
    if (!w->is_untagged)
        w->i++;
    w->with_sender = w->is_tag_unasked = false;
}

/* Take the answer V to the last key. True: *ANSWER is the end of it; false: there is more to ask.
 */
static bool
walk_take(struct walk *w, const struct dir_verdict *v, enum dir_source source, int64_t age_ms,
          struct dir_answer *answer)
{
    const struct settings_directory *conf = w->sections[w->i]->conf;

    if (v->status != DIR_UNAVAILABLE) {
        w->source = source;
        w->age_ms = age_ms;
    }
    switch (v->status) {
    case DIR_FOUND:
        if (v->has_rules && !v->is_restricted && !w->with_sender) {
            w->with_sender = true;
            return false;
        }
        /* With the tag it may be another's, whom everybody may write to. */
        if (w->is_tag_unasked && v->is_restricted) {
            walk_next_key(w, false);
            break;
        }
        *answer = (struct dir_answer){.status = DIR_FOUND,
                                      .source = source,
                                      .is_restricted = v->is_restricted,
                                      .max_size = w->is_tag_unasked ? 0 : v->max_size,
                                      .age_ms = age_ms};
        return true;
    case DIR_ABSENT:
        walk_next_key(w, true);
        break;
    case DIR_UNAVAILABLE:
    case DIR_PENDING:
        w->is_unavailable = true;
        w->is_trusted = w->is_trusted || conf->on_failure == SETTINGS_ON_FAILURE_ACCEPT;
        /* Without its tag it may be known: cached, or in the snapshot.  Not if it is there with it,
         * and only its rules could not be asked about. */
        walk_next_key(w, !w->with_sender);
        w->is_tag_unasked = w->is_untagged;
        break;
    }
    if (w->i < w->n)
        return false;
    if (w->is_unavailable)
        *answer = (struct dir_answer){.status = w->is_trusted ? DIR_FOUND : DIR_UNAVAILABLE};
    else
        *answer = (struct dir_answer){.status = DIR_ABSENT,
                                      .source = w->source,
                                      .was_known = walk_was_known(w),
                                      .age_ms = w->age_ms};
    return true;
}

/* Ask on until the end (true: *ANSWER) or until a reply must be waited for (false: *A has what is
 * stale). */
static bool
walk_on(struct directory_client *c, struct walk *w, uint64_t ticket, unsigned step, int64_t now_ms,
        struct dir_section_answer *a, struct dir_answer *answer)
{
    for (;;) {
        char key[DIR_KEY_MAX + 1];
        const struct dir_section_question q = {.key = walk_key(w, key),
                                               .flags = w->flags,
                                               .is_of_stored = w->is_tag_unasked,
                                               .reader = c->reader,
                                               .box = c->box,
                                               .id = ticket,
                                               .step = step};

        if (dir_section_ask(w->sections[w->i], &q, now_ms, a) == DIR_PENDING)
            return false;
        if (walk_take(w, &a->verdict, a->source, a->age_ms, answer))
            return true;
    }
}

static void
ask_wait(struct directory_client *c, struct ask *a, const struct dir_section_answer *pending,
         int64_t now_ms)
{
    a->has_stale = pending->has_stale;
    a->stale = pending->stale;
    a->stale_source = pending->stale_source;
    a->stale_age_ms = pending->age_ms;
    a->deadline_ms = now_ms + a->walk.sections[a->walk.i]->conf->timeout;
    ask_schedule(c, a);
}

enum dir_status
directory_ask(struct directory_client *c, const struct settings_domain *domain, struct span address,
              struct span sender, unsigned flags, int64_t now_ms, struct dir_answer *answer,
              directory_done_fn *done, void *arg, uint64_t *ticket)
{
    struct walk w = {.address = address, .sender = sender, .flags = flags};
    struct dir_section_answer pending;
    struct ask *a;

    refresh(c);
    w.reader = c->reader;
    *answer = (struct dir_answer){.status = DIR_UNAVAILABLE};
    if (address.n == 0 || address.n > DIR_ADDRESS_MAX || sender.n > DIR_ADDRESS_MAX ||
        !walk_begin(&w, c->set, domain))
        return answer->status;
    if (walk_on(c, &w, ++c->last_ticket, 0, now_ms, &pending, answer))
        return answer->status;
    a = calloc(1, sizeof *a);
    if (!a)
        return answer->status; /* the reply will find nobody */
    a->ticket = c->last_ticket;
    a->done = done;
    a->arg = arg;
    a->set = dir_set_ref(c->set);
    a->walk = w;
    memcpy(a->address, address.p, address.n);
    if (sender.n > 0)
        memcpy(a->sender, sender.p, sender.n);
    a->walk.address.p = a->address;
    a->walk.sender.p = a->sender;
    a->chain = c->buckets[a->ticket % BUCKETS];
    c->buckets[a->ticket % BUCKETS] = a;
    ask_wait(c, a, &pending, now_ms);
    *ticket = a->ticket;
    answer->status = DIR_PENDING;
    return DIR_PENDING;
}

/* One directory's trouble is what is worth telling if the others do not know the address. */
static void
keep_trouble(struct ask *a, const struct dir_detail *detail)
{
    if (!detail || detail->error[0] == '\0' || a->trouble)
        return;
    a->trouble = malloc(sizeof *a->trouble);
    if (a->trouble)
        *a->trouble = *detail;
}

/* A's last key was answered with V, or (V without a verdict) was not: what is stale is better than
 * nothing. */
static void
ask_answered(struct directory_client *c, struct ask *a, const struct dir_verdict *v,
             const struct dir_detail *detail, int64_t now_ms)
{
    enum dir_source source = DIR_SOURCE_LDAP;
    struct dir_section_answer pending;
    struct dir_answer answer;
    directory_done_fn *done = a->done;
    void *arg = a->arg;
    struct dir_detail *trouble;
    int64_t age_ms = 0;

    ask_unschedule(c, a);
    keep_trouble(a, detail);
    if (v->status == DIR_UNAVAILABLE && a->has_stale) {
        v = &a->stale;
        source = a->stale_source;
        age_ms = a->stale_age_ms;
    }
    if (!walk_take(&a->walk, v, source, age_ms, &answer) &&
        !walk_on(c, &a->walk, a->ticket, ++a->step, now_ms, &pending, &answer)) {
        ask_wait(c, a, &pending, now_ms);
        return;
    }
    trouble = a->trouble;
    a->trouble = NULL;
    ask_free(c, a);
    answer.detail = answer.status == DIR_UNAVAILABLE && trouble ? trouble : detail;
    done(arg, &answer);
    free(trouble);
}

static void
ask_expired(struct directory_client *c, struct ask *a, int64_t now_ms)
{
    static const struct dir_verdict nothing = {.status = DIR_UNAVAILABLE};
    struct dir_detail detail = {.error = ""};

    dir_pool_explain(a->walk.sections[a->walk.i]->pool, &detail);
    ask_answered(c, a, &nothing, &detail, now_ms);
}

bool
directory_order(struct directory_client *c, const char *name, enum dir_order order,
                directory_order_fn *done, void *arg, uint64_t *ticket)
{
    struct order *o = malloc(sizeof *o);
    struct dir_section *s;

    refresh(c);
    s = dir_set_find(c->set, name);
    if (!o || !s || !s->sync || !sync_order(s->sync, order, c->box, c->last_ticket + 1)) {
        free(o);
        return false;
    }
    *o = (struct order){.next = c->orders, .ticket = ++c->last_ticket, .done = done, .arg = arg};
    c->orders = o;
    *ticket = o->ticket;
    return true;
}

static void
order_answered(struct directory_client *c, const struct dir_reply *r)
{
    struct order **at = order_find(c, r->id), *o = *at;
    directory_order_fn *done;
    void *arg;

    if (!o)
        return;
    done = o->done;
    arg = o->arg;
    order_free(at);
    done(arg, r->report);
}

void
directory_client_dispatch(struct directory_client *c, int64_t now_ms)
{
    struct mailbox_item *item = mailbox_take(dir_inbox_mailbox(c->box));

    refresh(c);
    while (item) {
        struct dir_reply *r = (struct dir_reply *)item;
        struct ask *a = *ask_find(c, r->id);

        item = item->next;
        if (a && a->step == r->step)
            ask_answered(c, a, &r->verdict, r->detail, now_ms);
        else if (!a)
            order_answered(c, r);
        dir_reply_free(r);
    }
    while (c->earliest && c->earliest->deadline_ms <= now_ms)
        ask_expired(c, c->earliest, now_ms);
}
