/* month [--check | SETTINGS...] [SEED]: a month of a company's mail (traffic.h) under each rule
 * (rules.h), as two tables.  SETTINGS are [harvest]'s, such as window=24h,threshold=20: each adds a
 * row of Postern under them.  With --check the exit status is 1 unless what must hold does (check).
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/span.h"
#include "rules.h"
#include "traffic.h"

#define SEED        20261101u
#define MINUTE      ((int64_t)60 * 1000)
#define LONGEST     ((int64_t)4 * 60 * MINUTE)
#define TRIES_MAX   30u /* some five days */
#define MESSAGE_MAX 64u

/* The rules that are always tried. */
enum { POSTERN, GFI, CISCO, POSTFIX, NONE, MILDER_POSTERN, COUNT };

struct result {
    const char *name;
    unsigned caught, harvesters;
    unsigned learned[TRAFFIC_KINDS];
    unsigned innocent[TRAFFIC_KINDS], delayed[TRAFFIC_KINDS], refused[TRAFFIC_KINDS];
    unsigned slowed;
    unsigned spam;
};

/* One rule at work. */
struct run {
    const struct traffic *t;
    const struct rule *rule;
    void *state;
    struct visit *retries; /* a heap by time */
    size_t n_retries;
    uint8_t *is_told;    /* recipients who were refused as unknown: not tried again */
    uint8_t *is_delayed; /* messages */
    uint8_t *is_slowed;
    uint8_t *is_caught;  /* harvesters' hosts */
    uint32_t *cursor;    /* the same: guesses that were answered */
    uint8_t *is_learned; /* for each kind, people */
    struct result result;
};

static void *
zeroed(size_t n, size_t size)
{
    void *v = calloc(n + 1, size);

    if (v == NULL)
        abort();
    return v;
}

/* Retries. */

static void
push(struct run *r, struct visit v)
{
    size_t i = r->n_retries++;

    for (; i > 0 && r->retries[(i - 1) / 2].at_ms > v.at_ms; i = (i - 1) / 2)
        r->retries[i] = r->retries[(i - 1) / 2];
    r->retries[i] = v;
}

static struct visit
pop(struct run *r)
{
    struct visit top = r->retries[0], last = r->retries[--r->n_retries];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < r->n_retries && r->retries[child + 1].at_ms < r->retries[child].at_ms)
            child++;
        if (child >= r->n_retries || r->retries[child].at_ms >= last.at_ms)
            break;
        r->retries[i] = r->retries[child];
        i = child;
    }
    r->retries[i] = last;
    return top;
}

static bool
is_valid(uint32_t who)
{
    return who < PEOPLE_VALID;
}

/* A message that somebody could have got. */
static bool
matters(const struct run *r, uint32_t message)
{
    const struct message *m = &r->t->messages[message];

    for (uint16_t i = 0; i < m->n; i++)
        if (is_valid(r->t->recipients[m->first + i]))
            return true;
    return false;
}

static void
note_refused(struct run *r, const struct visit *v, uint32_t message)
{
    if (traffic_is_innocent(v->kind) && matters(r, message))
        r->result.refused[v->kind]++;
}

/* N messages of V from the one numbered FROM on did not get through this time. */
static void
put_off(struct run *r, const struct visit *v, uint32_t from, uint32_t n)
{
    struct visit again = *v;
    int64_t wait = 15 * MINUTE << (v->tries < 4 ? v->tries : 4);

    if (!traffic_is_innocent(v->kind))
        return;
    for (uint32_t i = from; i < from + n; i++) {
        if (v->tries == TRIES_MAX)
            note_refused(r, v, v->first + i);
        else if (matters(r, v->first + i) && !r->is_delayed[v->first + i]) {
            r->is_delayed[v->first + i] = 1;
            r->result.delayed[v->kind]++;
        }
    }
    if (v->tries == TRIES_MAX)
        return;
    again.first += from;
    again.n = n;
    again.tries++;
    again.at_ms += wait < LONGEST ? wait : LONGEST;
    push(r, again);
}

static void
learn(struct run *r, const struct visit *v, uint32_t who)
{
    uint8_t *is_learned = &r->is_learned[v->kind * PEOPLE_VALID + who];

    r->result.learned[v->kind] += !*is_learned;
    *is_learned = 1;
}

/* One message; false: the session has ended in it. */
static bool
send_message(struct run *r, const struct visit *v, uint32_t message)
{
    const struct message *m = &r->t->messages[message];
    uint32_t accepted[MESSAGE_MAX], n = 0;
    bool is_refused = false, is_put_off = false;
    int64_t delay_ms = 0;

    if (!r->rule->mail(r->state, v->kind == TRAFFIC_BOUNCE))
        return false;
    for (uint32_t i = m->first; i < m->first + m->n; i++) {
        uint32_t who = r->t->recipients[i];
        enum answer answer;
        if (r->is_told[i])
            continue;
        answer = r->rule->rcpt(r->state, who, is_valid(who), &delay_ms);
        if (answer == ANSWER_CLOSED)
            return false;
        is_refused = is_refused || (answer == ANSWER_REFUSED && is_valid(who));
        is_put_off = is_put_off || answer == ANSWER_PUT_OFF;
        if (answer != ANSWER_TOLD)
            continue;
        if (is_valid(who))
            accepted[n++] = who;
        else
            r->is_told[i] = 1;
    }
    if (delay_ms > 0 && n > 0 && traffic_is_innocent(v->kind) && !r->is_slowed[message]) {
        r->is_slowed[message] = 1;
        r->result.slowed++;
    }
    if (n > 0 && !r->rule->data(r->state, accepted, n))
        is_refused = true;
    else if (v->kind == TRAFFIC_SPAM)
        r->result.spam += n > 0;
    if (is_refused)
        note_refused(r, v, message);
    else if (is_put_off)
        put_off(r, v, message - v->first, 1);
    return true;
}

/* A harvester's session: he goes on in his list until he is cut off; what he is not told he does
 * not know.  False: something was done about him. */
static bool
harvest(struct run *r, const struct visit *v)
{
    bool is_list = v->kind == TRAFFIC_DICTIONARY, is_free = true;
    uint32_t own = 0, *at = is_list ? &r->cursor[v->host] : &own;
    const struct message *messages = &r->t->messages[v->first];
    uint32_t size = messages[0].n;

    while (*at < size * v->n) {
        const struct message *m = &messages[*at / size];
        uint32_t end = (*at / size + 1) * size;
        if (!r->rule->mail(r->state, false))
            return false;
        for (; *at < end; (*at)++) {
            uint32_t who = r->t->recipients[m->first + *at % size];
            int64_t delay_ms = 0;
            enum answer answer = r->rule->rcpt(r->state, who, is_valid(who), &delay_ms);
            if (answer == ANSWER_CLOSED)
                return false;
            if (answer != ANSWER_TOLD)
                is_free = false;
            else if (is_valid(who))
                learn(r, v, who);
        }
    }
    return is_free;
}

static void
visit(struct run *r, const struct visit *v)
{
    bool is_open = r->rule->open(r->state, &v->client, v->at_ms);

    if (traffic_is_harvest(v->kind)) {
        if (!is_open || !harvest(r, v))
            r->is_caught[v->host] = 1;
        return;
    }
    for (uint32_t i = 0; i < v->n; i++) {
        if (!is_open) {
            put_off(r, v, i, v->n - i);
            return;
        }
        /* What was cut off waits; the rest of the queue goes over a new connection at once. */
        if (!send_message(r, v, v->first + i)) {
            put_off(r, v, i, 1);
            is_open = r->rule->open(r->state, &v->client, v->at_ms);
        }
    }
}

static struct result
try(const struct traffic *t, const struct rule *rule)
{
    struct run r = {.t = t,
                    .rule = rule,
                    .state = rule->begin(rule),
                    .retries = zeroed(t->n_messages, sizeof(struct visit)),
                    .is_told = zeroed(t->n_recipients, 1),
                    .is_delayed = zeroed(t->n_messages, 1),
                    .is_slowed = zeroed(t->n_messages, 1),
                    .is_caught = zeroed(t->n_hosts, 1),
                    .cursor = zeroed(t->n_hosts, sizeof(uint32_t)),
                    .is_learned = zeroed((size_t)TRAFFIC_KINDS * PEOPLE_VALID, 1),
                    .result = {.name = rule->name, .harvesters = t->n_hosts}};

    for (size_t i = 0; i < t->n_visits || r.n_retries > 0;) {
        if (r.n_retries > 0 && (i == t->n_visits || r.retries[0].at_ms < t->visits[i].at_ms)) {
            struct visit again = pop(&r);
            visit(&r, &again);
        } else {
            visit(&r, &t->visits[i++]);
        }
    }
    for (size_t i = 0; i < t->n_visits; i++)
        for (uint32_t k = 0; traffic_is_innocent(t->visits[i].kind) && k < t->visits[i].n; k++)
            r.result.innocent[t->visits[i].kind] += matters(&r, t->visits[i].first + k);
    for (uint32_t i = 0; i < t->n_hosts; i++)
        r.result.caught += r.is_caught[i];
    rule->end(r.state);
    free(r.retries);
    free(r.is_told);
    free(r.is_delayed);
    free(r.is_slowed);
    free(r.is_caught);
    free(r.cursor);
    free(r.is_learned);
    return r.result;
}

static unsigned
learned(const struct result *r)
{
    return r->learned[TRAFFIC_DICTIONARY] + r->learned[TRAFFIC_SLOW_24] +
           r->learned[TRAFFIC_SLOW_1000];
}

static unsigned
sum(const unsigned counts[TRAFFIC_KINDS])
{
    unsigned n = 0;

    for (int kind = 0; kind < TRAFFIC_KINDS; kind++)
        n += counts[kind];
    return n;
}

static void
print_rules(const struct result *v, size_t n)
{
    printf("| rule | hosts caught, of %u | addresses learned: dictionary | from a /24 | from 1,000 "
           "hosts | innocent messages delayed | refused | answered slowly | spam taken |\n",
           v[0].harvesters);
    printf("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for (size_t i = 0; i < n; i++)
        printf("| %s | %u | %u | %u | %u | %u | %u | %u | %u |\n", v[i].name, v[i].caught,
               v[i].learned[TRAFFIC_DICTIONARY], v[i].learned[TRAFFIC_SLOW_24],
               v[i].learned[TRAFFIC_SLOW_1000], sum(v[i].delayed), sum(v[i].refused), v[i].slowed,
               v[i].spam);
    printf("\nOf %u innocent messages with a recipient who exists, and %u addresses that do.\n\n",
           sum(v[0].innocent), PEOPLE_VALID);
}

static void
print_innocent(const struct result *v, size_t n)
{
    static const char *const names[] = {
        [TRAFFIC_CORRESPONDENT] = "correspondents",
        [TRAFFIC_PROVIDER] = "providers",
        [TRAFFIC_PARTNER] = "partners",
        [TRAFFIC_OLD_PARTNER] = "partners, never cleaned",
        [TRAFFIC_NEWSLETTER] = "newsletters",
        [TRAFFIC_OLD_NEWSLETTER] = "newsletters, never cleaned",
        [TRAFFIC_BOUNCE] = "bounces",
    };

    printf("| delayed + refused, of messages from |");
    for (size_t kind = 0; kind < sizeof names / sizeof *names; kind++)
        printf(" %s: %u |", names[kind], v[0].innocent[kind]);
    printf("\n|---|");
    for (size_t kind = 0; kind < sizeof names / sizeof *names; kind++)
        printf("--:|");
    for (size_t i = 0; i < n; i++) {
        printf("\n| %s |", v[i].name);
        for (size_t kind = 0; kind < sizeof names / sizeof *names; kind++)
            printf(" %u + %u |", v[i].delayed[kind], v[i].refused[kind]);
    }
    printf("\n");
}

static int
fault(const char *text, const struct result *r)
{
    printf("%s: %s\n", r->name, text);
    return 1;
}

static unsigned
troubled(const struct result *r)
{
    return sum(r->delayed) + sum(r->refused);
}

/* What must hold, and does for any seed.  That Postern troubles no more innocent messages than each
 * of the others is not so: those who remember nothing delay nobody, and catch nobody either. */
static int
check(const struct result results[COUNT])
{
    static const int own[] = {POSTERN, MILDER_POSTERN}, others[] = {GFI, CISCO, POSTFIX};
    const struct result *postern = &results[POSTERN], *milder = &results[MILDER_POSTERN];
    int faults = 0;

    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        for (size_t k = 0; k < sizeof others / sizeof *others; k++)
            if (learned(&results[own[i]]) >= learned(&results[others[k]]))
                faults += fault("harvesters learn no more than under Postern", &results[others[k]]);
    if (sum(postern->refused) >= sum(results[GFI].refused))
        faults += fault("refuses no more innocent messages than Postern", &results[GFI]);
    if (sum(postern->delayed) >= sum(results[CISCO].delayed))
        faults += fault("delays no more innocent messages than Postern", &results[CISCO]);
    if (50 * troubled(postern) >= sum(postern->innocent))
        faults += fault("delays or refuses one in 50 innocent messages", postern);
    if (troubled(milder) >= troubled(&results[GFI]) ||
        troubled(milder) >= troubled(&results[CISCO]))
        faults += fault("troubles no fewer innocent messages than GFI's and Cisco's rules", milder);
    return faults > 0;
}

#define RULES_MAX 16u

struct job {
    struct rule rules[RULES_MAX];
    size_t n;
    bool is_check;
    uint64_t seed;
};

/* Postern under other settings than its defaults. */
static bool
add_variant(struct job *j, const char *settings)
{
    if (j->n == RULES_MAX)
        return false;
    j->rules[j->n] = rule_postern;
    j->rules[j->n].name = settings;
    j->rules[j->n++].settings = settings;
    return true;
}

/* What docs/operating.md advises where the old lists of the innocent matter more than spam. */
#define MILDER "ratio=0.9,threshold=20"

static void
set_rules(struct job *j)
{
    static const struct rule *const rules[] = {
        [POSTERN] = &rule_postern, [GFI] = &rule_gfi,   [CISCO] = &rule_cisco,
        [POSTFIX] = &rule_postfix, [NONE] = &rule_none, [MILDER_POSTERN] = &rule_postern};

    for (j->n = 0; j->n < COUNT; j->n++)
        j->rules[j->n] = *rules[j->n];
    j->rules[MILDER_POSTERN].name = "Postern, " MILDER;
    j->rules[MILDER_POSTERN].settings = MILDER;
}

static bool
read_arguments(struct job *j, char **argv)
{
    while (*++argv != NULL) {
        if (strcmp(*argv, "--check") == 0)
            j->is_check = true;
        else if (strchr(*argv, '=') != NULL ? !add_variant(j, *argv)
                                            : !span_u64(span_str(*argv), UINT64_MAX, &j->seed))
            return false;
    }
    return true;
}

int
main(int argc, char **argv)
{
    struct job j = {.seed = SEED};
    struct result results[RULES_MAX];
    struct traffic t;

    (void)argc;
    set_rules(&j);
    if (!read_arguments(&j, argv)) {
        (void)fprintf(stderr, "usage: month [--check | SETTINGS...] [SEED]\n");
        return 2;
    }
    log_set_level(LOG_LEVEL_ERROR);
    traffic_make(&t, j.seed);
    for (size_t i = 0; i < j.n; i++)
        results[i] = try(&t, &j.rules[i]);
    traffic_free(&t);
    print_rules(results, j.n);
    print_innocent(results, j.n);
    return j.is_check ? check(results) : 0;
}
