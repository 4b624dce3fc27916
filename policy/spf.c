#include "policy/spf.h"

#include <stdlib.h>
#include <string.h>

#include "policy/spf_macro.h"
#include "policy/spf_record.h"

enum {
    TERMS_MAX = 10, /* that ask the DNS */
    VOIDS_MAX = 2,  /* of these, that found nothing */
    NAMES_MAX = 10, /* of a mx or ptr */
    DEPTH_MAX = TERMS_MAX + 1,
    LOCAL_MAX = 320
};

/* What the question that is open is for. */
enum step {
    STEP_DONE,
    STEP_RECORD,
    STEP_ADDRESS, /* a */
    STEP_EXISTS,
    STEP_MX,
    STEP_MX_ADDRESS,
    STEP_PTR,
    STEP_PTR_ADDRESS
};

/* A record under evaluation: the sender's, or one that an include of the frame below led to. */
struct frame {
    char domain[DNS_NAME_TEXT];
    char *record;
    struct span rest;     /* the terms still to come */
    struct spf_term term; /* the one at hand */
    struct spf_term redirect;
    bool has_redirect;  /* and has not followed it yet */
    bool is_redirected; /* its domain is where a redirect led to */
};

struct names {
    char v[NAMES_MAX][DNS_NAME_TEXT];
    size_t n, at;
};

struct spf {
    struct netaddr client;
    char local[LOCAL_MAX + 1];
    char sender_domain[DNS_NAME_TEXT];
    char helo[DNS_NAME_TEXT];
    enum spf_result result;
    enum step step;
    struct dns_question question;
    unsigned terms, voids;
    unsigned void_term; /* the last that counts as void: its number, of `terms` */
    bool is_personal;
    struct names mx;
    /* The client's names: those it claims while they are looked up, then (has_ptr) those that lead
     * back to it.
     */
    struct names ptr;
    bool has_ptr;
    size_t depth; /* frames in use */
    struct frame frames[DEPTH_MAX];
};

static struct frame *
top(struct spf *s)
{
    return &s->frames[s->depth - 1];
}

static void
done(struct spf *s, enum spf_result result)
{
    s->result = result;
    s->step = STEP_DONE;
}

static void
ask(struct spf *s, enum step step, enum dns_type type, const char *name)
{
    s->step = step;
    s->question.type = type;
    (void)span_copy(s->question.name, sizeof s->question.name, span_str(name));
}

static void
ask_address(struct spf *s, enum step step, const char *name)
{
    ask(s, step, s->client.family == 4 ? DNS_A : DNS_AAAA, name);
}

/* Begin with the record of DOMAIN in the top frame.  False if it is no domain name of several
 * labels (4.3). */
static bool
open_domain(struct spf *s, struct span domain)
{
    struct frame *f = top(s);

    if (domain.n > 0 && domain.p[domain.n - 1] == '.')
        domain.n--;
    if (!dns_name_valid(domain) || memchr(domain.p, '.', domain.n) == NULL)
        return false;
    free(f->record);
    f->record = NULL;
    (void)span_copy(f->domain, sizeof f->domain, domain);
    ask(s, STEP_RECORD, DNS_TXT, f->domain);
    return true;
}

/* The parts of an address; no local part is postmaster (4.3), and of one that is longer than any in
 * use the beginning will do: a domain's result must not depend on who uses its name.  False if the
 * domain is longer than any. */
static bool
set_sender(struct spf *s, struct span sender, struct span helo)
{
    size_t at = sender.n;

    while (at > 0 && sender.p[at - 1] != '@')
        at--;
    struct span local = span_of(sender.p, at > 0 ? at - 1 : 0);
    struct span domain = sender.n > 0 ? span_of(sender.p + at, sender.n - at) : helo;
    if (local.n == 0)
        local = span_str("postmaster");
    if (local.n > LOCAL_MAX)
        local.n = LOCAL_MAX;
    (void)span_copy(s->local, sizeof s->local, local);
    return span_copy(s->sender_domain, sizeof s->sender_domain, domain);
}

struct spf *
spf_new(const struct netaddr *client, struct span helo, struct span sender)
{
    struct spf *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->client = *client;
    s->depth = 1;
    /* A HELO longer than any name is none: %{h} is then empty, and what contains it no name either.
     */
    (void)span_copy(s->helo, sizeof s->helo, helo);
    if (!set_sender(s, sender, helo) || !open_domain(s, span_str(s->sender_domain)))
        done(s, SPF_NONE);
    return s;
}

void
spf_free(struct spf **s)
{
    if (*s == NULL)
        return;
    for (size_t i = 0; i < DEPTH_MAX; i++)
        free((*s)->frames[i].record);
    free(*s);
    *s = NULL;
}

const struct dns_question *
spf_question(const struct spf *s)
{
    return s->step == STEP_DONE ? NULL : &s->question;
}

enum spf_result
spf_result(const struct spf *s)
{
    return s->result;
}

bool
spf_is_general(const struct spf *s)
{
    return !s->is_personal;
}

static enum spf_result
result_of(char qualifier)
{
    switch (qualifier) {
    case '-':
        return SPF_FAIL;
    case '~':
        return SPF_SOFTFAIL;
    case '?':
        return SPF_NEUTRAL;
    default:
        return SPF_PASS;
    }
}

/* The top frame's domain has RESULT.  True if that leaves the frame below with the answer "no
 * match", to go on with; else all is done.  (5.2, 6.1) */
static bool
finish(struct spf *s, enum spf_result result)
{
    if (result == SPF_NONE && (s->depth > 1 || top(s)->is_redirected))
        result = SPF_PERMERROR;
    while (s->depth > 1 && result != SPF_TEMPERROR && result != SPF_PERMERROR) {
        s->depth--;
        if (result != SPF_PASS)
            return true;
        result = result_of(top(s)->term.qualifier);
    }
    done(s, result);
    return false;
}

static bool
is_below(struct span name, struct span domain)
{
    return name.n > domain.n && name.p[name.n - domain.n - 1] == '.' &&
           span_equal_nocase(span_of(name.p + name.n - domain.n, domain.n), domain);
}

/* %{p}: one of the client's names; the domain itself first, then one below it, then any (7.3). */
static struct span
validated_name(const struct spf *s, struct span domain)
{
    struct span best = span_str("unknown");
    unsigned best_rank = 0;

    for (size_t i = 0; i < s->ptr.n; i++) {
        struct span name = span_str(s->ptr.v[i]);
        unsigned rank = span_equal_nocase(name, domain) ? 3 : is_below(name, domain) ? 2 : 1;
        if (rank > best_rank) {
            best = name;
            best_rank = rank;
        }
    }
    return best;
}

/* The name that the term at hand is about; false if it cannot be one. */
static bool
target_of(struct spf *s, char out[DNS_NAME_TEXT])
{
    struct frame *f = top(s);
    struct span domain = span_str(f->domain);
    struct spf_macro_values v = {
        .client = &s->client,
        .local = span_str(s->local),
        .sender_domain = span_str(s->sender_domain),
        .helo = span_str(s->helo),
        .domain = domain,
        .validated = validated_name(s, domain),
    };

    if (f->term.domain.n == 0)
        return span_copy(out, DNS_NAME_TEXT, domain);
    s->is_personal = s->is_personal || (f->term.uses & SPF_MACRO_PERSONAL) != 0;
    return spf_macro_expand(out, f->term.domain, &v);
}

static bool
matches_address(const struct spf *s, const struct spf_term *t, const struct dns_answer *a)
{
    uint8_t prefix = s->client.family == 4 ? t->prefix4 : t->prefix6;

    for (size_t i = 0; i < a->n; i++) {
        struct network n = network_of(&a->records[i].address, prefix);
        if (a->records[i].address.family == s->client.family && network_contains(&n, &s->client))
            return true;
    }
    return false;
}

static bool
matches_ptr(const struct spf *s, struct span target)
{
    for (size_t i = 0; i < s->ptr.n; i++) {
        struct span name = span_str(s->ptr.v[i]);
        if (span_equal_nocase(name, target) || is_below(name, target))
            return true;
    }
    return false;
}

static bool
is_counted(enum spf_kind kind)
{
    return kind == SPF_KIND_INCLUDE || kind == SPF_KIND_A || kind == SPF_KIND_MX ||
           kind == SPF_KIND_PTR || kind == SPF_KIND_EXISTS || kind == SPF_KIND_REDIRECT;
}

/* Of a term.  WAITING: it asked a question, led to another record, or ended it all. */
enum outcome { NO_MATCH, MATCH, WAITING };

static void
open_include(struct spf *s, const char *target)
{
    /* No deeper than the count of terms allows. */
    struct frame *f = &s->frames[s->depth++];

    f->is_redirected = false;
    if (!open_domain(s, span_str(target)))
        done(s, SPF_PERMERROR);
}

static void
open_redirect(struct spf *s, const char *target)
{
    top(s)->is_redirected = true;
    if (!open_domain(s, span_str(target)))
        done(s, SPF_PERMERROR);
}

/* A term that needs a name; the client's own names, where it uses them, are there by now. */
static enum outcome
evaluate_target(struct spf *s, const struct spf_term *t)
{
    char target[DNS_NAME_TEXT] = "";
    bool is_name = target_of(s, target);

    if (!is_name && (t->kind == SPF_KIND_INCLUDE || t->kind == SPF_KIND_REDIRECT)) {
        done(s, SPF_PERMERROR);
        return WAITING;
    }
    if (!is_name) /* nothing is there (4.8) */
        return NO_MATCH;
    if (t->kind == SPF_KIND_PTR)
        return matches_ptr(s, span_str(target)) ? MATCH : NO_MATCH;
    if (t->kind == SPF_KIND_INCLUDE)
        open_include(s, target);
    else if (t->kind == SPF_KIND_REDIRECT)
        open_redirect(s, target);
    else if (t->kind == SPF_KIND_A)
        ask_address(s, STEP_ADDRESS, target);
    else if (t->kind == SPF_KIND_MX)
        ask(s, STEP_MX, DNS_MX, target);
    else
        ask(s, STEP_EXISTS, DNS_A, target);
    return WAITING;
}

static enum outcome
evaluate(struct spf *s)
{
    const struct spf_term *t = &top(s)->term;

    if (t->kind == SPF_KIND_ALL)
        return MATCH;
    if (t->kind == SPF_KIND_IP4 || t->kind == SPF_KIND_IP6)
        return network_contains(&t->network, &s->client) ? MATCH : NO_MATCH;
    if (!is_counted(t->kind))
        return NO_MATCH;
    if (!s->has_ptr && (t->kind == SPF_KIND_PTR || (t->uses & SPF_MACRO_VALIDATED) != 0)) {
        char name[DNS_NAME_TEXT];
        (void)dns_reverse_name(name, &s->client,
                               s->client.family == 4 ? "in-addr.arpa" : "ip6.arpa");
        ask(s, STEP_PTR, DNS_PTR, name);
        return WAITING;
    }
    return evaluate_target(s, t);
}

/* Put the next term at hand.  False at the end of the record. */
static bool
take_term(struct frame *f)
{
    if (spf_term_next(&f->rest, &f->term) == SPF_NEXT_TERM) {
        /* It takes effect behind the mechanisms (6.1). */
        if (f->term.kind == SPF_KIND_REDIRECT)
            f->term.kind = SPF_KIND_OTHER_MODIFIER;
        return true;
    }
    if (!f->has_redirect)
        return false;
    f->term = f->redirect;
    f->has_redirect = false;
    return true;
}

/* Go on until there is a question or the result; OUTCOME is of the term at hand. */
static void
run(struct spf *s, enum outcome outcome)
{
    while (outcome != WAITING) {
        if (outcome == MATCH) {
            if (!finish(s, result_of(top(s)->term.qualifier)))
                return;
        } else if (!take_term(top(s))) {
            if (!finish(s, SPF_NEUTRAL))
                return;
        } else if (is_counted(top(s)->term.kind) && ++s->terms > TERMS_MAX) {
            done(s, SPF_PERMERROR);
            return;
        } else {
            outcome = evaluate(s);
            continue;
        }
        outcome = NO_MATCH; /* of the include in the frame below */
    }
}

/* The one SPF record among A's texts (4.5). */
static enum spf_result
select_record(const struct dns_answer *a, struct span *record)
{
    bool has_record = false;

    for (size_t i = 0; i < a->n; i++) {
        if (!spf_record_is(a->records[i].text))
            continue;
        if (has_record)
            return SPF_PERMERROR;
        *record = a->records[i].text;
        has_record = true;
    }
    if (!has_record)
        return SPF_NONE;
    return record->n > SPF_RECORD_MAX ? SPF_PERMERROR : SPF_PASS;
}

static void
answer_record(struct spf *s, const struct dns_answer *a)
{
    struct frame *f = top(s);
    struct span record = {NULL, 0};

    enum spf_result result = a->status == DNS_TROUBLE ? SPF_TEMPERROR : select_record(a, &record);
    if (result == SPF_PASS) {
        f->record = span_dup(record);
        if (f->record == NULL)
            result = SPF_TEMPERROR;
    }
    if (result != SPF_PASS) {
        (void)finish(s, result); /* none, or an error: it ends the frames below as well */
        return;
    }
    f->rest = spf_record_terms(span_of(f->record, record.n));
    if (spf_record_check(f->rest, &f->redirect, &f->has_redirect))
        run(s, NO_MATCH);
    else
        done(s, SPF_PERMERROR);
}

/* The term at hand found nothing.  It is terms that are limited (4.6.4): a mx whose hosts have no
 * address of the client's family is one, however many they are. */
static bool
is_void_too_many(struct spf *s)
{
    if (s->void_term == s->terms)
        return false;
    s->void_term = s->terms;
    return ++s->voids > VOIDS_MAX;
}

/* A look-up for a mechanism: a failure, or one void too many, ends the check (4.6.4, 5). */
static bool
is_over(struct spf *s, const struct dns_answer *a)
{
    if (a->status == DNS_TROUBLE)
        done(s, SPF_TEMPERROR);
    else if (a->status == DNS_NONE && is_void_too_many(s))
        done(s, SPF_PERMERROR);
    return s->step == STEP_DONE;
}

/* The next of NAMES; NULL at the end. */
static const char *
next_name(struct names *names)
{
    return names->at < names->n ? names->v[names->at++] : NULL;
}

/* Those of the first NAMES_MAX that can be asked for (a null MX cannot, RFC 7505). */
static void
copy_names(struct names *names, const struct dns_answer *a)
{
    names->n = names->at = 0;
    for (size_t i = 0; i < a->n && i < NAMES_MAX; i++)
        if (dns_name_valid(a->records[i].text))
            (void)span_copy(names->v[names->n++], DNS_NAME_TEXT, a->records[i].text);
}

static void
ask_mx_address(struct spf *s)
{
    const char *name = next_name(&s->mx);

    if (name == NULL)
        run(s, NO_MATCH);
    else
        ask_address(s, STEP_MX_ADDRESS, name);
}

static void
answer_mx(struct spf *s, const struct dns_answer *a)
{
    if (is_over(s, a))
        return;
    if (a->n > NAMES_MAX) {
        done(s, SPF_PERMERROR);
        return;
    }
    copy_names(&s->mx, a);
    ask_mx_address(s);
}

/* With all of the client's names looked up, the term that wanted them is evaluated. */
static void
ask_ptr_address(struct spf *s)
{
    const char *name = next_name(&s->ptr);

    if (name != NULL) {
        ask_address(s, STEP_PTR_ADDRESS, name);
        return;
    }
    s->has_ptr = true;
    size_t valid = 0;
    for (size_t i = 0; i < s->ptr.n; i++)
        if (s->ptr.v[i][0] != '\0')
            memmove(s->ptr.v[valid++], s->ptr.v[i], DNS_NAME_TEXT);
    s->ptr.n = valid;
    run(s, evaluate(s));
}

/* A name that does not lead back is emptied.  Trouble is "no" here, and nothing counts as void: the
 * domain's owner answers for none of it (5.5). */
static void
answer_ptr_address(struct spf *s, const struct dns_answer *a)
{
    static const struct spf_term exact = {.prefix4 = 32, .prefix6 = 128};

    if (a->status != DNS_OK || !matches_address(s, &exact, a))
        s->ptr.v[s->ptr.at - 1][0] = '\0';
    ask_ptr_address(s);
}

void
spf_answer(struct spf *s, const struct dns_answer *a)
{
    switch (s->step) {
    case STEP_DONE:
        return;
    case STEP_RECORD:
        answer_record(s, a);
        return;
    case STEP_ADDRESS:
        if (!is_over(s, a))
            run(s, matches_address(s, &top(s)->term, a) ? MATCH : NO_MATCH);
        return;
    case STEP_EXISTS:
        if (!is_over(s, a))
            run(s, a->n > 0 ? MATCH : NO_MATCH);
        return;
    case STEP_MX:
        answer_mx(s, a);
        return;
    case STEP_MX_ADDRESS:
        if (is_over(s, a))
            return;
        if (matches_address(s, &top(s)->term, a))
            run(s, MATCH);
        else
            ask_mx_address(s);
        return;
    case STEP_PTR:
        copy_names(&s->ptr, a);
        ask_ptr_address(s);
        return;
    case STEP_PTR_ADDRESS:
        answer_ptr_address(s, a);
        return;
    }
}
