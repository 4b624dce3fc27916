#include "policy/spf_record.h"

#include <string.h>

#include "policy/spf_macro.h"

enum argument { ARGUMENT_NONE, ARGUMENT_OPTIONAL, ARGUMENT_NEEDED };

static const struct mechanism {
    const char *name;
    enum spf_kind kind;
    enum argument domain;
    bool has_prefixes;
} mechanisms[] = {
    {"all", SPF_KIND_ALL, ARGUMENT_NONE, false},
    {"include", SPF_KIND_INCLUDE, ARGUMENT_NEEDED, false},
    {"a", SPF_KIND_A, ARGUMENT_OPTIONAL, true},
    {"mx", SPF_KIND_MX, ARGUMENT_OPTIONAL, true},
    {"ptr", SPF_KIND_PTR, ARGUMENT_OPTIONAL, false},
    {"ip4", SPF_KIND_IP4, ARGUMENT_NEEDED, false},
    {"ip6", SPF_KIND_IP6, ARGUMENT_NEEDED, false},
    {"exists", SPF_KIND_EXISTS, ARGUMENT_NEEDED, false},
};

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
is_alphanumeric(char c)
{
    char lower = ascii_lower(c);

    return is_digit(c) || (lower >= 'a' && lower <= 'z');
}

static struct span
behind(struct span s, size_t n)
{
    return span_of(s.p + n, s.n - n);
}

bool
spf_record_is(struct span text)
{
    return span_starts_nocase(text, "v=spf1") && (text.n == 6 || text.p[6] == ' ');
}

struct span
spf_record_terms(struct span text)
{
    return behind(text, 6);
}

/* The last label of a domain-spec: letters, digits and inner hyphens, not digits alone. */
static bool
is_top_label(struct span s)
{
    bool is_number = true;

    if (s.n == 0 || s.p[0] == '-' || s.p[s.n - 1] == '-')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_alphanumeric(s.p[i]) && s.p[i] != '-')
            return false;
        is_number = is_number && is_digit(s.p[i]);
    }
    return !is_number;
}

static bool
parse_domain(struct span s, struct spf_term *t)
{
    if (s.n == 0 || !spf_macro_check(s, &t->uses) || (t->uses & SPF_MACRO_EXPLAINING) != 0)
        return false;
    t->domain = s;
    if ((t->uses & SPF_MACRO_IS_LAST) != 0)
        return true;
    if (s.p[s.n - 1] == '.')
        s.n--;
    size_t start = s.n;
    while (start > 0 && s.p[start - 1] != '.')
        start--;
    return start > 0 && is_top_label(behind(s, start));
}

/* A length without leading zeros. */
static bool
parse_prefix(struct span s, unsigned max, uint8_t *prefix)
{
    uint64_t value;

    if (s.n == 0 || (s.n > 1 && s.p[0] == '0') || !span_u64(s, max, &value))
        return false;
    *prefix = (uint8_t)value;
    return true;
}

/* How long S is without the slash and digits at its end; S.n if it does not end so. */
static size_t
before_prefix(struct span s)
{
    size_t n = s.n;

    while (n > 0 && is_digit(s.p[n - 1]))
        n--;
    return n > 0 && n < s.n && s.p[n - 1] == '/' ? n - 1 : s.n;
}

/* Take dual-cidr-length off the end of *S. */
static bool
take_prefixes(struct span *s, struct spf_term *t)
{
    size_t n = before_prefix(*s);

    if (n < s->n && n > 0 && s->p[n - 1] == '/') {
        if (!parse_prefix(behind(*s, n + 1), 128, &t->prefix6))
            return false;
        s->n = n - 1;
        n = before_prefix(*s);
    }
    if (n < s->n) {
        if (!parse_prefix(behind(*s, n + 1), 32, &t->prefix4))
            return false;
        s->n = n;
    }
    return true;
}

static bool
parse_network(struct span s, struct spf_term *t)
{
    bool is_ip4 = t->kind == SPF_KIND_IP4;
    uint8_t prefix = is_ip4 ? 32 : 128;
    size_t n = before_prefix(s);
    struct netaddr a;

    if (n < s.n && !parse_prefix(behind(s, n + 1), prefix, &prefix))
        return false;
    struct span address = span_of(s.p, n);
    bool has_colon = memchr(address.p, ':', address.n) != NULL;
    if (has_colon == is_ip4 || !netaddr_parse(address, &a))
        return false;
    /* An IPv4-mapped one is IPv4 here, and no client comes from it by IPv6 (5): never a match. */
    t->network = (struct network){.base = {.family = 0}};
    if (is_ip4 || a.family == 6)
        t->network = network_of(&a, prefix);
    return true;
}

static bool
parse_mechanism(struct span s, struct spf_term *t)
{
    size_t name_n = 0;

    t->qualifier = '+';
    if (memchr("+-~?", s.p[0], 4) != NULL) {
        t->qualifier = s.p[0];
        s = behind(s, 1);
    }
    while (name_n < s.n && s.p[name_n] != ':' && s.p[name_n] != '/')
        name_n++;
    for (size_t i = 0; i < sizeof mechanisms / sizeof mechanisms[0]; i++) {
        const struct mechanism *m = &mechanisms[i];
        if (!span_is_nocase(span_of(s.p, name_n), m->name))
            continue;
        t->kind = m->kind;
        t->prefix4 = 32;
        t->prefix6 = 128;
        s = behind(s, name_n);
        if (m->has_prefixes && !take_prefixes(&s, t))
            return false;
        if (s.n == 0)
            return m->domain != ARGUMENT_NEEDED;
        if (m->domain == ARGUMENT_NONE || s.p[0] != ':')
            return false;
        s = behind(s, 1);
        return m->kind == SPF_KIND_IP4 || m->kind == SPF_KIND_IP6 ? parse_network(s, t)
                                                                  : parse_domain(s, t);
    }
    return false;
}

/* The length of the name of a modifier; 0 if S is none. */
static size_t
modifier_name(struct span s)
{
    size_t n = 0;

    if (is_digit(s.p[0]))
        return 0;
    while (n < s.n && (is_alphanumeric(s.p[n]) || (n > 0 && memchr("-_.", s.p[n], 3) != NULL)))
        n++;
    return n < s.n && s.p[n] == '=' ? n : 0;
}

static bool
parse_modifier(struct span name, struct span value, struct spf_term *t)
{
    if (span_is_nocase(name, "redirect"))
        t->kind = SPF_KIND_REDIRECT;
    else if (span_is_nocase(name, "exp"))
        t->kind = SPF_KIND_EXP;
    else
        t->kind = SPF_KIND_OTHER_MODIFIER;
    if (t->kind == SPF_KIND_OTHER_MODIFIER)
        return spf_macro_check(value, &t->uses);
    return parse_domain(value, t);
}

enum spf_next
spf_term_next(struct span *rest, struct spf_term *t)
{
    size_t n = 0;

    while (rest->n > 0 && rest->p[0] == ' ')
        *rest = behind(*rest, 1);
    if (rest->n == 0)
        return SPF_NEXT_END;
    while (n < rest->n && rest->p[n] != ' ')
        n++;
    struct span s = span_of(rest->p, n);
    *rest = behind(*rest, n);
    memset(t, 0, sizeof *t);
    size_t name_n = modifier_name(s);
    bool is_good = name_n > 0 ? parse_modifier(span_of(s.p, name_n), behind(s, name_n + 1), t)
                              : parse_mechanism(s, t);
    return is_good ? SPF_NEXT_TERM : SPF_NEXT_ERROR;
}

bool
spf_record_check(struct span terms, struct spf_term *redirect, bool *has_redirect)
{
    struct spf_term t;
    enum spf_next next;
    bool has_exp = false;

    *has_redirect = false;
    while ((next = spf_term_next(&terms, &t)) == SPF_NEXT_TERM) {
        bool is_redirect = t.kind == SPF_KIND_REDIRECT, is_exp = t.kind == SPF_KIND_EXP;
        /* Neither may be there twice (6). */
        if ((is_redirect && *has_redirect) || (is_exp && has_exp))
            return false;
        has_exp = has_exp || is_exp;
        if (is_redirect) {
            *redirect = t;
            *has_redirect = true;
        }
    }
    return next == SPF_NEXT_END;
}
