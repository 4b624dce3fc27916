#include "policy/spf_macro.h"

#include <stdio.h>
#include <string.h>

#define VALUE_MAX 600 /* of a macro: the sender, or an address in nibbles */

struct macro {
    char letter;     /* lower case */
    bool is_escaped; /* written in upper case: percent-encode the value */
    bool is_reversed;
    unsigned keep; /* parts from the right; 0: all */
    struct span delimiters;
};

/* What is expanded.  A name uses at most its last DNS_NAME_MAX octets, so older ones may go. */
struct output {
    char p[4 * DNS_NAME_TEXT];
    size_t n;
};

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
is_alpha(char c)
{
    c = ascii_lower(c);
    return c >= 'a' && c <= 'z';
}

/* Read what stands between "%{" and "}", and the brace; TEXT begins behind "%{". */
static bool
read_macro(struct span *text, struct macro *m)
{
    const char *end = memchr(text->p, '}', text->n);
    size_t n = end != NULL ? (size_t)(end - text->p) : 0, i = 1;

    if (n == 0 || !is_alpha(text->p[0]))
        return false;
    *m = (struct macro){.letter = ascii_lower(text->p[0]), .delimiters = span_str(".")};
    m->is_escaped = m->letter != text->p[0];
    for (; i < n && is_digit(text->p[i]); i++)
        if (m->keep < 1000)
            m->keep = 10 * m->keep + (unsigned)(text->p[i] - '0');
    if (i > 1 && m->keep == 0)
        return false;
    if (i < n && ascii_lower(text->p[i]) == 'r') {
        m->is_reversed = true;
        i++;
    }
    if (i < n)
        m->delimiters = span_of(text->p + i, n - i);
    for (; i < n; i++)
        if (memchr(".-+,/_=", text->p[i], 7) == NULL)
            return false;
    *text = span_of(text->p + n + 1, text->n - n - 1);
    return true;
}

static unsigned
uses_of(char letter, bool *is_known)
{
    *is_known = memchr("slodiphvcrt", letter, 11) != NULL;
    switch (letter) {
    case 'p':
        return SPF_MACRO_VALIDATED;
    case 's':
    case 'l':
    case 'h':
        return SPF_MACRO_PERSONAL;
    case 'c':
    case 'r':
    case 't':
        return SPF_MACRO_EXPLAINING;
    default:
        return 0;
    }
}

bool
spf_macro_check(struct span text, unsigned *uses)
{
    struct macro m;
    bool is_known;

    *uses = 0;
    while (text.n > 0) {
        char c = text.p[0];
        *uses &= ~SPF_MACRO_IS_LAST;
        if (c < '!' || c > '~')
            return false;
        text = span_of(text.p + 1, text.n - 1);
        if (c != '%')
            continue;
        if (text.n == 0)
            return false;
        c = text.p[0];
        text = span_of(text.p + 1, text.n - 1);
        *uses |= SPF_MACRO_IS_LAST;
        if (c == '%' || c == '_' || c == '-')
            continue;
        if (c != '{' || !read_macro(&text, &m))
            return false;
        *uses |= uses_of(m.letter, &is_known);
        if (!is_known)
            return false;
    }
    return true;
}

static void
put(struct output *o, char c)
{
    if (o->n == sizeof o->p) {
        memmove(o->p, o->p + sizeof o->p / 2, sizeof o->p / 2);
        o->n /= 2;
    }
    o->p[o->n++] = c;
}

/* RFC 3986 2.1, 2.3 */
static void
put_escaped(struct output *o, char c)
{
    static const char hex[] = "0123456789ABCDEF";

    if (is_alpha(c) || is_digit(c) || memchr("-._~", c, 4) != NULL) {
        put(o, c);
        return;
    }
    put(o, '%');
    put(o, hex[(unsigned char)c >> 4]);
    put(o, hex[(unsigned char)c & 15]);
}

static bool
is_delimiter(const struct macro *m, char c)
{
    return memchr(m->delimiters.p, c, m->delimiters.n) != NULL;
}

/* VALUE cut at the delimiters, turned round if asked, its last parts joined by dots (RFC 7208 7.3).
 */
static void
put_parts(struct output *o, const struct macro *m, struct span value)
{
    struct span parts[VALUE_MAX + 1];
    size_t n = 0, start = 0;

    for (size_t i = 0; i <= value.n; i++)
        if (i == value.n || is_delimiter(m, value.p[i])) {
            parts[n++] = span_of(value.p + start, i - start);
            start = i + 1;
        }
    size_t skip = m->keep != 0 && m->keep < n ? n - m->keep : 0;
    for (size_t i = skip; i < n; i++) {
        struct span part = parts[m->is_reversed ? n - 1 - i : i];
        if (i > skip)
            put(o, '.');
        for (size_t k = 0; k < part.n; k++)
            if (m->is_escaped)
                put_escaped(o, part.p[k]);
            else
                put(o, part.p[k]);
    }
}

/* %{i}: dotted, an IPv6 address in nibbles. */
static size_t
address_text(char out[VALUE_MAX], const struct netaddr *a)
{
    size_t n = 0;

    if (a->family == 4) {
        netaddr_format(a, out);
        return strlen(out);
    }
    for (size_t i = 0; i < 16; i++)
        n += (size_t)snprintf(out + n, VALUE_MAX - n, "%s%x.%x", i > 0 ? "." : "",
                              a->octets[i] >> 4, a->octets[i] & 15u);
    return n;
}

static struct span
value_of(const struct macro *m, const struct spf_macro_values *v, char buffer[VALUE_MAX])
{
    switch (m->letter) {
    case 's':
        return span_of(buffer,
                       (size_t)snprintf(buffer, VALUE_MAX, "%.*s@%.*s", (int)v->local.n, v->local.p,
                                        (int)v->sender_domain.n, v->sender_domain.p));
    case 'l':
        return v->local;
    case 'o':
        return v->sender_domain;
    case 'd':
        return v->domain;
    case 'i':
        return span_of(buffer, address_text(buffer, v->client));
    case 'p':
        return v->validated;
    case 'v':
        return span_str(v->client->family == 4 ? "in-addr" : "ip6");
    default:
        return v->helo;
    }
}

static void
expand_all(struct output *o, struct span text, const struct spf_macro_values *v)
{
    char buffer[VALUE_MAX];
    struct macro m;

    while (text.n > 0) {
        char c = text.p[0];
        text = span_of(text.p + 1, text.n - 1);
        if (c != '%') {
            put(o, c);
            continue;
        }
        c = text.p[0];
        text = span_of(text.p + 1, text.n - 1);
        if (c == '{' && read_macro(&text, &m))
            put_parts(o, &m, value_of(&m, v, buffer));
        else if (c == '%')
            put(o, '%');
        else
            for (const char *p = c == '_' ? " " : "%20"; *p != '\0'; p++)
                put(o, *p);
    }
}

bool
spf_macro_expand(char out[DNS_NAME_TEXT], struct span text, const struct spf_macro_values *v)
{
    struct output o = {.n = 0};

    expand_all(&o, text, v);
    if (o.n > 0 && o.p[o.n - 1] == '.')
        o.n--;
    struct span name = span_of(o.p, o.n);
    while (name.n > DNS_NAME_MAX) {
        const char *dot = memchr(name.p, '.', name.n);
        size_t skip = dot != NULL ? (size_t)(dot - name.p) + 1 : name.n;
        name = span_of(name.p + skip, name.n - skip);
    }
    return dns_name_valid(name) && span_copy(out, DNS_NAME_TEXT, name);
}
