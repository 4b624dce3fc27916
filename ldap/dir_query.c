#define _POSIX_C_SOURCE 200809L
#include "ldap/dir_query.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ldap/dir_filter.h"
#include "ldap/dir_result.h"

/* Groups in a list that are asked, one search each; a list with more is left to Exchange. */
#define GROUPS_MAX 64

/* A list about senders: single ones (asked of the recipient's own entry) and groups. */
struct rule {
    const char *users_attribute;
    bool has_users;
    bool is_open; /* cannot be told from here */
    size_t n_groups;
    char *groups[GROUPS_MAX]; /* DNs */
};

enum step {
    STEP_FIND,
    STEP_RANGE,  /* the next part of a very long attribute */
    STEP_SENDER, /* the sender's own entry */
    STEP_USERS,  /* the sender stands in the list */
    STEP_GROUPS, /* the sender is in the next group of it */
    STEP_END
};

enum list { LIST_ALLOW, LIST_DENY, LISTS };

struct dir_query {
    const struct dir_plan *plan;
    enum step step;
    struct span address, sender;
    bool with_sender;
    char x500[DIR_ADDRESS_MAX + 1];
    size_t n_x500; /* the address is an IMCEA one, for this */

    struct dir_filter filter;
    char range[128]; /* "attribute;range=N-*"; empty: all values of the entry came */
    unsigned range_next;
    char *range_attributes[2];

    size_t entries, references; /* of the current search */
    size_t matches;
    bool is_unsure; /* values were left out that nobody asks for */
    struct dir_verdict verdict;
    char *dn; /* of the match; while there is none, of the entry whose values go on */
    char *sender_dn;
    enum list list; /* which of RULES is asked */
    size_t group;
    bool is_hit; /* the current check's answer */
    struct rule rules[LISTS];
    struct dir_detail *detail;
    size_t n_detail;
    char key[];
};

static char *no_attributes[] = {(char[]){"1.1"}, NULL};
static char *sender_attributes[] = {(char[]){"proxyAddresses"}, (char[]){"targetAddress"}, NULL};

struct dir_query *
dir_query_new(const struct dir_plan *plan, struct span key, bool with_detail)
{
    struct dir_query *q = calloc(1, sizeof *q + key.n + 1);
    const char *end;

    if (!q)
        return NULL;
    if (with_detail)
        q->detail = calloc(1, sizeof *q->detail);
    q->plan = plan;
    q->rules[LIST_ALLOW].users_attribute = "authOrig";
    q->rules[LIST_DENY].users_attribute = "unauthOrig";
    memcpy(q->key, key.p, key.n);
    end = memchr(q->key, '\0', key.n);
    q->with_sender = end != NULL;
    q->address = span_of(q->key, end ? (size_t)(end - q->key) : key.n);
    if (end)
        q->sender = span_of(end + 1, key.n - q->address.n - 1);
    if (plan->is_ad)
        q->n_x500 = dir_filter_imcea(q->address, q->x500, sizeof q->x500);
    return q;
}

static void
clear_rules(struct dir_query *q)
{
    for (size_t i = 0; i < LISTS; i++) {
        struct rule *r = &q->rules[i];

        while (r->n_groups > 0)
            free(r->groups[--r->n_groups]);
        r->has_users = r->is_open = false;
    }
}

void
dir_query_free(struct dir_query **query)
{
    struct dir_query *q = *query;

    if (!q)
        return;
    clear_rules(q);
    free(q->dn);
    free(q->sender_dn);
    free(q->detail);
    free(q);
    *query = NULL;
}

void
dir_query_explain(struct dir_query *q, const char *error)
{
    if (q->detail)
        span_copy(q->detail->error, sizeof q->detail->error,
                  span_of(error, strnlen(error, sizeof q->detail->error - 1)));
}

const struct dir_verdict *
dir_query_verdict(const struct dir_query *q)
{
    return &q->verdict;
}

struct dir_detail *
dir_query_take_detail(struct dir_query *q)
{
    struct dir_detail *detail = q->detail;

    q->detail = NULL;
    return detail;
}

/* What to search. */

static void
filter_find(struct dir_query *q)
{
    if (q->n_x500 == 0) {
        dir_filter_expand(&q->filter, q->plan->filter, q->address);
        return;
    }
    dir_filter_add(&q->filter, "(|(proxyAddresses=x500:");
    dir_filter_add_value(&q->filter, span_of(q->x500, q->n_x500));
    dir_filter_add(&q->filter, ")(legacyExchangeDN=");
    dir_filter_add_value(&q->filter, span_of(q->x500, q->n_x500));
    dir_filter_add(&q->filter, "))");
}

static void
filter_sender(struct dir_query *q)
{
    dir_filter_add(&q->filter, "(|(proxyAddresses=smtp:");
    dir_filter_add_value(&q->filter, q->sender);
    dir_filter_add(&q->filter, ")(targetAddress=smtp:");
    dir_filter_add_value(&q->filter, q->sender);
    dir_filter_add(&q->filter, "))");
}

/* Active Directory follows nested groups by its matching rule; other servers know but the direct
 * members. */
static void
filter_member(struct dir_query *q)
{
    dir_filter_add(&q->filter, "(|(member=");
    dir_filter_add_value(&q->filter, span_str(q->sender_dn));
    dir_filter_add(&q->filter, ")(member:1.2.840.113556.1.4.1941:=");
    dir_filter_add_value(&q->filter, span_str(q->sender_dn));
    dir_filter_add(&q->filter, "))");
}

static void
filter_users(struct dir_query *q)
{
    dir_filter_add(&q->filter, "(");
    dir_filter_add(&q->filter, q->rules[q->list].users_attribute);
    dir_filter_add(&q->filter, "=");
    dir_filter_add_value(&q->filter, span_str(q->sender_dn));
    dir_filter_add(&q->filter, ")");
}

bool
dir_query_search(struct dir_query *q, struct dir_search *s)
{
    *s = (struct dir_search){.base = q->dn, .scope = LDAP_SCOPE_BASE, .attributes = no_attributes};
    q->filter.n = 0;
    q->filter.is_full = false;
    q->entries = q->references = 0;
    q->is_hit = false;
    switch (q->step) {
    case STEP_FIND:
        s->base = q->plan->base;
        s->scope = LDAP_SCOPE_SUBTREE;
        s->attributes = q->plan->attributes;
        filter_find(q);
        break;
    case STEP_RANGE:
        q->range_attributes[0] = q->range;
        s->attributes = q->range_attributes;
        dir_filter_add(&q->filter, "(objectClass=*)");
        break;
    case STEP_SENDER:
        s->base = q->plan->base;
        s->scope = LDAP_SCOPE_SUBTREE;
        s->attributes = sender_attributes;
        filter_sender(q);
        break;
    case STEP_USERS:
        filter_users(q);
        break;
    case STEP_GROUPS:
        s->base = q->rules[q->list].groups[q->group];
        filter_member(q);
        break;
    case STEP_END:
        return false;
    }
    s->filter = q->filter.text;
    if (q->filter.is_full) {
        q->verdict = (struct dir_verdict){.status = DIR_UNAVAILABLE};
        q->step = STEP_END;
    }
    return q->step != STEP_END;
}

/* What comes. */

static struct span
value_span(const struct berval *v)
{
    return span_of(v->bv_val, v->bv_len);
}

static bool
is_match(const struct dir_query *q, struct span value)
{
    return q->n_x500 > 0 ? dir_result_is_x500(value, span_of(q->x500, q->n_x500))
                         : dir_result_is_address(value, q->address);
}

static bool
is_address_attribute(const struct dir_query *q, struct span name)
{
    if (q->n_x500 > 0)
        return span_is_nocase(name, "proxyAddresses") || span_is_nocase(name, "legacyExchangeDN");
    for (size_t i = 0; i < q->plan->n_addresses; i++)
        if (span_is_nocase(name, q->plan->addresses[i]))
            return true;
    return false;
}

static void
take_groups(struct rule *r, struct berval *const *values, bool is_all)
{
    r->is_open = r->is_open || !is_all;
    for (size_t i = 0; values[i]; i++) {
        if (r->n_groups == GROUPS_MAX) {
            r->is_open = true;
            return;
        }
        r->groups[r->n_groups] = span_dup(value_span(values[i]));
        if (r->groups[r->n_groups])
            r->n_groups++;
        else
            r->is_open = true;
    }
}

static void
take_restriction(struct dir_query *q, const struct dir_attribute *a, struct berval *const *values)
{
    uint64_t kilobytes;

    if (!values[0])
        return;
    if (span_is_nocase(a->name, "msExchRequireAuthToSendTo"))
        q->verdict.is_restricted = span_is_nocase(value_span(values[0]), "TRUE");
    else if (span_is_nocase(a->name, "delivContLength") &&
             span_u64(value_span(values[0]), UINT64_MAX / 1024, &kilobytes))
        q->verdict.max_size = kilobytes * 1024;
    else if (span_is_nocase(a->name, "authOrig"))
        q->rules[LIST_ALLOW].has_users = true;
    else if (span_is_nocase(a->name, "unauthOrig"))
        q->rules[LIST_DENY].has_users = true;
    else if (span_is_nocase(a->name, "dLMemSubmitPerms"))
        take_groups(&q->rules[LIST_ALLOW], values, !a->is_ranged);
    else if (span_is_nocase(a->name, "dLMemRejectPerms"))
        take_groups(&q->rules[LIST_DENY], values, !a->is_ranged);
}

/* VALUE behind the N octets of the detail's text; the new length, or one beyond the room. */
static size_t
put_escaped(struct dir_detail *d, size_t n, struct span value)
{
    const size_t room = sizeof d->text;

    for (size_t i = 0; i < value.n && n < room; i++) {
        unsigned char c = (unsigned char)value.p[i];

        if (c < 0x20 || c == 0x7f)
            n += (size_t)snprintf(d->text + n, room - n, "\\x%02x", c);
        else
            d->text[n++] = value.p[i];
    }
    return n;
}

/* A line for VALUE, unless there is no room for it.  Control characters are \xNN: they would begin
 * lines of their own. */
static void
take_detail(struct dir_query *q, struct span name, struct span value)
{
    struct dir_detail *d = q->detail;
    size_t n = put_escaped(d, q->n_detail, name);

    n = put_escaped(d, n, span_str(": "));
    n = put_escaped(d, n, value);
    if (n + 1 < sizeof d->text) {
        d->text[n++] = '\n';
        q->n_detail = n;
    }
    d->text[q->n_detail] = '\0';
}

/* More values of an address attribute are to be asked for, from NEXT on. */
static void
go_on(struct dir_query *q, struct span name, unsigned next)
{
    int n;

    /* One attribute of one entry is followed, and a server that repeats itself is not. */
    if (q->range[0] != '\0' || (q->step == STEP_RANGE && next <= q->range_next)) {
        q->is_unsure = true;
        return;
    }
    n = snprintf(q->range, sizeof q->range, "%.*s;range=%u-*", (int)name.n, name.p, next);
    q->range_next = next;
    if (n < 0 || (size_t)n >= sizeof q->range) {
        q->range[0] = '\0';
        q->is_unsure = true;
    }
}

/* One attribute of an entry; true if a value of it is the address. */
static bool
take_attribute(struct dir_query *q, const char *description, struct berval *const *values)
{
    struct dir_attribute a = dir_result_attribute(span_str(description));
    bool is_address = is_address_attribute(q, a.name), has_match = false;

    /* Of the match: what comes behind it is another's, or makes two of it. */
    if (q->plan->is_ad && q->step == STEP_FIND && q->matches == 0)
        take_restriction(q, &a, values);
    for (size_t i = 0; values[i]; i++) {
        has_match = has_match || (is_address && is_match(q, value_span(values[i])));
        if (q->detail)
            take_detail(q, a.name, value_span(values[i]));
    }
    if (is_address && a.is_ranged && !a.is_last)
        go_on(q, a.name, a.next);
    return has_match;
}

static bool
take_attributes(struct dir_query *q, LDAP *ld, LDAPMessage *entry)
{
    BerElement *ber = NULL;
    bool has_match = false;

    q->range[0] = '\0';
    for (char *name = ldap_first_attribute(ld, entry, &ber); name;
         name = ldap_next_attribute(ld, entry, ber)) {
        struct berval **values = ldap_get_values_len(ld, entry, name);

        if (values && take_attribute(q, name, values))
            has_match = true;
        ldap_value_free_len(values);
        ldap_memfree(name);
    }
    ber_free(ber, 0);
    return has_match;
}

static void
keep_dn(char **dn, LDAP *ld, LDAPMessage *entry)
{
    char *text = ldap_get_dn(ld, entry);

    free(*dn);
    *dn = text ? span_dup(span_str(text)) : NULL;
    ldap_memfree(text);
}

static void
take_other(struct dir_query *q, LDAP *ld, LDAPMessage *entry)
{
    char *dn = ldap_get_dn(ld, entry);

    if (dn)
        take_detail(q, span_str("also the address of"), span_str(dn));
    ldap_memfree(dn);
}

static void
take_found(struct dir_query *q, LDAP *ld, LDAPMessage *entry)
{
    bool has_match;

    if (q->matches > 0) {
        /* Two objects have this address.  Exchange will not deliver (5.1.4), but it is no
         * stranger's. */
        if (take_attributes(q, ld, entry)) {
            q->matches++;
            if (q->detail)
                take_other(q, ld, entry);
            q->verdict = (struct dir_verdict){.status = DIR_FOUND};
            clear_rules(q);
        }
        return;
    }
    clear_rules(q);
    q->verdict = (struct dir_verdict){.status = DIR_UNAVAILABLE};
    q->is_unsure = q->is_unsure || q->range[0] != '\0'; /* of the entry before this one */
    has_match = take_attributes(q, ld, entry) || (q->plan->n_addresses == 0 && q->n_x500 == 0);
    if (!has_match && q->range[0] == '\0')
        return;
    keep_dn(&q->dn, ld, entry);
    if (has_match)
        q->matches = 1;
}

/* Active Directory compares loosely: this entry may be another's.  Of very many values only a part
 * comes, under another name; then the server's word must do. */
static bool
is_sender(const struct dir_query *q, LDAP *ld, LDAPMessage *entry)
{
    bool has_match = false, has_values = false;

    for (char *const *name = sender_attributes; *name; name++) {
        struct berval **values = ldap_get_values_len(ld, entry, *name);

        has_values = has_values || values;
        for (size_t i = 0; values && values[i]; i++)
            has_match = has_match || dir_result_is_address(value_span(values[i]), q->sender);
        ldap_value_free_len(values);
    }
    return has_match || !has_values;
}

void
dir_query_entry(struct dir_query *q, LDAP *ld, LDAPMessage *entry)
{
    q->entries++;
    switch (q->step) {
    case STEP_FIND:
        take_found(q, ld, entry);
        break;
    case STEP_RANGE:
        if (take_attributes(q, ld, entry))
            q->matches = 1;
        break;
    case STEP_SENDER:
        if (!q->sender_dn && is_sender(q, ld, entry))
            keep_dn(&q->sender_dn, ld, entry);
        break;
    case STEP_USERS:
    case STEP_GROUPS:
        q->is_hit = true;
        break;
    case STEP_END:
        break;
    }
}

void
dir_query_reference(struct dir_query *q)
{
    q->references++;
}

/* What follows. */

static void
finish(struct dir_query *q, enum dir_status status)
{
    if (status != DIR_FOUND)
        q->verdict = (struct dir_verdict){.status = status};
    else
        q->verdict.status = status;
    if (q->detail && q->dn && status == DIR_FOUND)
        span_copy(q->detail->dn, sizeof q->detail->dn, span_str(q->dn));
    q->step = STEP_END;
}

static bool
has_rule(const struct rule *r)
{
    return r->has_users || r->n_groups > 0 || r->is_open;
}

/* The recipient stands; what about the sender? */
static void
found(struct dir_query *q)
{
    q->verdict.has_rules = has_rule(&q->rules[LIST_ALLOW]) || has_rule(&q->rules[LIST_DENY]);
    if (!q->verdict.has_rules || q->verdict.is_restricted || !q->with_sender) {
        finish(q, DIR_FOUND);
    } else if (q->sender.n == 0) {
        q->verdict.is_restricted = has_rule(&q->rules[LIST_ALLOW]);
        finish(q, DIR_FOUND);
    } else {
        q->step = STEP_SENDER;
    }
}

/* The list is done: IS_IN says whether the sender is in it. */
static void
leave_list(struct dir_query *q, bool is_in)
{
    struct rule *r = &q->rules[q->list];

    if (q->list == LIST_ALLOW) {
        if (has_rule(r) && !is_in && !r->is_open) {
            q->verdict.is_restricted = true;
            finish(q, DIR_FOUND);
        } else {
            q->list = LIST_DENY;
            q->step = STEP_USERS;
        }
    } else {
        q->verdict.is_restricted = is_in;
        finish(q, DIR_FOUND);
    }
}

/* Go to the next check of the list that there is. */
static void
next_check(struct dir_query *q)
{
    while (q->step == STEP_USERS || q->step == STEP_GROUPS) {
        const struct rule *r = &q->rules[q->list];

        if (q->step == STEP_USERS && r->has_users)
            return;
        if (q->step == STEP_USERS) {
            q->step = STEP_GROUPS;
            q->group = 0;
        }
        if (q->group < r->n_groups)
            return;
        leave_list(q, false);
    }
}

static void
check_ended(struct dir_query *q, int code)
{
    if (q->is_hit) {
        leave_list(q, true);
    } else if (q->step == STEP_USERS) {
        q->step = STEP_GROUPS;
        q->group = 0;
    } else {
        /* A group in a domain that this server does not hold. */
        if (code == LDAP_REFERRAL)
            q->rules[q->list].is_open = true;
        q->group++;
    }
    next_check(q);
}

static void
find_ended(struct dir_query *q, int code)
{
    bool is_complete = dir_result_outcome(code) == DIR_OUTCOME_COMPLETE;

    if (q->matches > 0)
        found(q);
    else if (!is_complete || (q->step == STEP_RANGE && q->entries == 0))
        finish(q, DIR_UNAVAILABLE);
    else if (q->range[0] != '\0' && q->dn)
        q->step = STEP_RANGE;
    else if (q->is_unsure || (q->references > 0 && !q->plan->is_ad))
        finish(q, DIR_UNAVAILABLE); /* the rest of the values, or of the tree, is elsewhere */
    else
        finish(q, DIR_ABSENT);
}

static void
sender_ended(struct dir_query *q, int code)
{
    if (dir_result_outcome(code) != DIR_OUTCOME_COMPLETE && !q->sender_dn) {
        finish(q, DIR_UNAVAILABLE);
    } else if (!q->sender_dn) {
        q->verdict.is_restricted = has_rule(&q->rules[LIST_ALLOW]) && !q->rules[LIST_ALLOW].is_open;
        finish(q, DIR_FOUND);
    } else {
        q->list = LIST_ALLOW;
        q->step = STEP_USERS;
        next_check(q);
    }
}

bool
dir_query_end(struct dir_query *q, int code)
{
    bool is_gone = q->step == STEP_GROUPS && (code == LDAP_NO_SUCH_OBJECT || code == LDAP_REFERRAL);

    switch (q->step) {
    case STEP_FIND:
    case STEP_RANGE:
        find_ended(q, code);
        break;
    case STEP_SENDER:
        sender_ended(q, code);
        break;
    case STEP_USERS:
    case STEP_GROUPS:
        if (!q->is_hit && !is_gone && dir_result_outcome(code) != DIR_OUTCOME_COMPLETE)
            finish(q, DIR_UNAVAILABLE);
        else
            check_ended(q, code);
        break;
    case STEP_END:
        break;
    }
    return q->step == STEP_END;
}
