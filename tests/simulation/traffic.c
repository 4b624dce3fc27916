#include "traffic.h"

#include <stdlib.h>

#define MINUTE ((int64_t)60 * 1000)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define DAYS   30u

#define RIGHT_GUESS 0.04

struct maker {
    struct traffic *t;
    uint64_t seed;
    size_t room[3];
    uint32_t nobody; /* the next address that nobody has */
};

/* SplitMix64. */
static uint64_t
draw(struct maker *m)
{
    uint64_t z = m->seed += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Within LOW and HIGH. */
static uint32_t
between(struct maker *m, uint32_t low, uint32_t high)
{
    return low + (uint32_t)(draw(m) % (high - low + 1));
}

static bool
chance(struct maker *m, double p)
{
    return (double)(draw(m) >> 11) / 9007199254740992.0 < p;
}

static void *
room_for(void *v, size_t n, size_t *room, size_t size)
{
    if (n < *room)
        return v;
    *room = *room == 0 ? 1024 : 2 * *room;
    v = realloc(v, *room * size);
    if (v == NULL)
        abort();
    return v;
}

static void
add_visit(struct maker *m, enum traffic_kind kind, struct netaddr client, uint32_t host,
          int64_t at_ms)
{
    struct traffic *t = m->t;

    t->visits = room_for(t->visits, t->n_visits, &m->room[0], sizeof *t->visits);
    t->visits[t->n_visits++] = (struct visit){.at_ms = at_ms,
                                              .client = client,
                                              .host = host,
                                              .first = (uint32_t)t->n_messages,
                                              .kind = (uint8_t)kind};
}

static void
add_message(struct maker *m)
{
    struct traffic *t = m->t;

    t->messages = room_for(t->messages, t->n_messages, &m->room[1], sizeof *t->messages);
    t->messages[t->n_messages++] = (struct message){.first = (uint32_t)t->n_recipients};
    t->visits[t->n_visits - 1].n++;
}

static void
add_recipient(struct maker *m, uint32_t who)
{
    struct traffic *t = m->t;

    t->recipients = room_for(t->recipients, t->n_recipients, &m->room[2], sizeof *t->recipients);
    t->recipients[t->n_recipients++] = who;
    t->messages[t->n_messages - 1].n++;
}

static uint32_t
valid(struct maker *m)
{
    return between(m, 0, PEOPLE_VALID - 1);
}

static uint32_t
gone(struct maker *m)
{
    return between(m, PEOPLE_VALID, PEOPLE_VALID + PEOPLE_GONE - 1);
}

static uint32_t
nobody(struct maker *m)
{
    return m->nobody++;
}

static uint32_t
correspondent_of(struct maker *m, double mistyped, double left)
{
    if (chance(m, mistyped))
        return nobody(m);
    return chance(m, left) ? gone(m) : valid(m);
}

static struct netaddr
address(uint32_t number)
{
    struct netaddr a = {.family = 4};

    for (int i = 0; i < 4; i++)
        a.octets[i] = (uint8_t)(number >> (24 - 8 * i));
    return a;
}

#define NET(a, b, c) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8)

/* Hosts anywhere, each in a /24 of its own. */
static struct netaddr
scattered(struct maker *m, unsigned block, uint32_t number)
{
    return address(NET(20 + block, number >> 8, number & 255) + between(m, 1, 254));
}

static int64_t
business_hour(struct maker *m)
{
    uint32_t day;

    do
        day = between(m, 0, DAYS - 1);
    while (day % 7 >= 5 && !chance(m, 0.1));
    return day * DAY + 7 * HOUR + (int64_t)(draw(m) % (uint64_t)(11 * HOUR));
}

static void
make_correspondents(struct maker *m)
{
    for (uint32_t host = 0; host < 6000; host++) {
        struct netaddr client =
            host < 4 ? address(NET(185, 10, 7) + 240 + host) : scattered(m, 0, host);
        for (uint32_t left = between(m, 2, 20); left > 0; left--) {
            uint32_t n = chance(m, 0.85) ? 1 : between(m, 2, 4);
            add_visit(m, TRAFFIC_CORRESPONDENT, client, 0, business_hour(m));
            add_message(m);
            while (n-- > 0)
                add_recipient(m, correspondent_of(m, 0.006, 0.012));
        }
    }
}

static void
make_providers(struct maker *m)
{
    static const uint32_t pools[] = {512, 256, 256, 128};

    for (uint32_t i = 0; i < 55000; i++) {
        uint32_t p = between(m, 0, 3);
        add_visit(m, TRAFFIC_PROVIDER, address(NET(40 + p, 1, 0) + between(m, 0, pools[p] - 1)), 0,
                  business_hour(m));
        add_message(m);
        add_recipient(m, correspondent_of(m, 0.008, 0.008));
    }
}

static void
make_partners(struct maker *m)
{
    for (uint32_t host = 0; host < 40; host++) {
        struct netaddr client = scattered(m, 1, host);
        bool is_old = host % 8 == 0;
        for (uint32_t i = 0; i < 12; i++) {
            add_visit(m, is_old ? TRAFFIC_OLD_PARTNER : TRAFFIC_PARTNER, client, 0,
                      business_hour(m));
            add_message(m);
            for (uint32_t n = between(m, 5, 25); n > 0; n--)
                add_recipient(m, correspondent_of(m, 0.002, is_old ? 0.6 : 0.1));
        }
    }
}

#define LIST_MAX 500u

/* Whom a newsletter goes to. */
struct list {
    enum traffic_kind kind;
    uint32_t people[LIST_MAX], n;
    struct netaddr hosts[6];
    uint32_t n_hosts;
};

static void
make_list(struct maker *m, struct list *l, uint32_t size, double left)
{
    bool is_taken[PEOPLE_VALID + PEOPLE_GONE] = {false};

    for (l->n = 0; l->n < size;) {
        uint32_t who = chance(m, left) ? gone(m) : valid(m);
        if (is_taken[who])
            continue;
        is_taken[who] = true;
        l->people[l->n++] = who;
    }
}

static void
make_campaign(struct maker *m, const struct list *l, int64_t at)
{
    for (uint32_t i = 0; i < l->n; i++) {
        if (i % 100 == 0)
            add_visit(m, l->kind, l->hosts[i / 100 % l->n_hosts], 0, at + i / 100 * MINUTE);
        add_message(m);
        add_recipient(m, l->people[i]);
    }
}

static void
take_off_gone(struct list *l)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < l->n; i++)
        if (l->people[i] < PEOPLE_VALID)
            l->people[kept++] = l->people[i];
    l->n = kept;
}

static int
compare_times(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static void
make_newsletters(struct maker *m)
{
    for (uint32_t list = 0; list < 70; list++) {
        bool is_old = list % 10 == 0;
        struct list l = {.kind = is_old ? TRAFFIC_OLD_NEWSLETTER : TRAFFIC_NEWSLETTER,
                         .n_hosts = between(m, 2, 6)};
        int64_t at[4];
        uint32_t n;

        for (uint32_t i = 0; i < l.n_hosts; i++)
            l.hosts[i] = address(NET(60, list, 1) + 10 + i);
        make_list(m, &l, between(m, 40, LIST_MAX),
                  (is_old ? between(m, 55, 80) : between(m, 2, 30)) / 100.0);
        n = between(m, 1, 4);
        for (uint32_t i = 0; i < n; i++)
            at[i] = business_hour(m);
        qsort(at, n, sizeof *at, compare_times);
        for (uint32_t i = 0; i < n; i++) {
            make_campaign(m, &l, at[i]);
            if (!is_old)
                take_off_gone(&l);
        }
    }
}

static void
make_bounces(struct maker *m)
{
    for (uint32_t host = 0; host < 250; host++) {
        struct netaddr client = scattered(m, 2, host);
        int64_t at = between(m, 0, DAYS - 2) * DAY;
        for (uint32_t left = between(m, 1, 40); left > 0; left--) {
            add_visit(m, TRAFFIC_BOUNCE, client, 0, at + (int64_t)(draw(m) % (uint64_t)(6 * HOUR)));
            add_message(m);
            add_recipient(m, chance(m, 0.1) ? valid(m) : nobody(m));
        }
    }
}

static void
make_spam(struct maker *m)
{
    for (uint32_t host = 0; host < 400; host++) {
        struct netaddr client = scattered(m, 3, host);
        int64_t at = (int64_t)(draw(m) % (uint64_t)((DAYS - 1) * DAY));
        for (uint32_t left = between(m, 1, 10); left > 0; left--) {
            add_visit(m, TRAFFIC_SPAM, client, 0, at + (int64_t)(draw(m) % (uint64_t)HOUR));
            add_message(m);
            for (uint32_t n = between(m, 10, 30); n > 0; n--)
                add_recipient(m, chance(m, 0.33) ? valid(m) : chance(m, 0.5) ? gone(m) : nobody(m));
        }
    }
}

static void
guess(struct maker *m)
{
    add_recipient(m, chance(m, RIGHT_GUESS) ? valid(m) : nobody(m));
}

/* All visits of a dictionary's host draw on one list, whose cursor is the rule's: each names the
 * whole of it. */
static void
make_dictionary(struct maker *m)
{
    for (uint32_t host = 0; host < 20; host++) {
        struct netaddr client = scattered(m, 4, host);
        int64_t at = between(m, 0, DAYS - 2) * DAY;
        uint32_t list = (uint32_t)m->t->n_messages;
        for (uint32_t i = 0; i < 360; i++) {
            add_visit(m, TRAFFIC_DICTIONARY, client, m->t->n_hosts, at + i * 2 * MINUTE);
            for (uint32_t k = 0; i == 0 && k < 5000; k++) {
                if (k % 50 == 0)
                    add_message(m);
                guess(m);
            }
            m->t->visits[m->t->n_visits - 1].first = list;
            m->t->visits[m->t->n_visits - 1].n = 100;
        }
        m->t->n_hosts++;
    }
}

static void
make_slow(struct maker *m, enum traffic_kind kind, uint32_t hosts, int64_t length, int64_t every,
          uint32_t most)
{
    int64_t from = 8 * DAY;

    for (uint32_t host = 0; host < hosts; host++) {
        struct netaddr client =
            kind == TRAFFIC_SLOW_24 ? address(NET(185, 10, 7) + 10 + host) : scattered(m, 5, host);
        int64_t phase = (int64_t)(draw(m) % (uint64_t)every);
        for (int64_t at = from + phase; at < from + length; at += every) {
            add_visit(m, kind, client, m->t->n_hosts, at);
            add_message(m);
            for (uint32_t n = between(m, 1, most); n > 0; n--)
                guess(m);
        }
        m->t->n_hosts++;
    }
}

static int
compare(const void *a, const void *b)
{
    const struct visit *x = a, *y = b;

    if (x->at_ms != y->at_ms)
        return x->at_ms < y->at_ms ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

bool
traffic_is_innocent(enum traffic_kind kind)
{
    return kind < TRAFFIC_SPAM;
}

bool
traffic_is_harvest(enum traffic_kind kind)
{
    return kind >= TRAFFIC_DICTIONARY;
}

void
traffic_make(struct traffic *t, uint64_t seed)
{
    struct maker m = {.t = t, .seed = seed, .nobody = PEOPLE_VALID + PEOPLE_GONE};

    *t = (struct traffic){0};
    make_correspondents(&m);
    make_providers(&m);
    make_partners(&m);
    make_newsletters(&m);
    make_bounces(&m);
    make_spam(&m);
    make_dictionary(&m);
    make_slow(&m, TRAFFIC_SLOW_24, 200, 5 * DAY, 30 * MINUTE, 1);
    make_slow(&m, TRAFFIC_SLOW_1000, 1000, 7 * DAY, 6 * HOUR, 4);
    qsort(t->visits, t->n_visits, sizeof *t->visits, compare);
}

void
traffic_free(struct traffic *t)
{
    free(t->visits);
    free(t->messages);
    free(t->recipients);
    *t = (struct traffic){0};
}
