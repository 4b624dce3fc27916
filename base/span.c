#include "base/span.h"

#include <stdlib.h>
#include <string.h>

bool
span_equal(struct span a, struct span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool
span_equal_nocase(struct span a, struct span b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (ascii_lower(a.p[i]) != ascii_lower(b.p[i]))
            return false;
    return true;
}

bool
span_is(struct span s, const char *text)
{
    return span_equal(s, span_str(text));
}

bool
span_is_nocase(struct span s, const char *text)
{
    return span_equal_nocase(s, span_str(text));
}

bool
span_starts_nocase(struct span s, const char *prefix)
{
    struct span start = span_str(prefix);

    return s.n >= start.n && span_equal_nocase(span_of(s.p, start.n), start);
}

bool
span_ends_nocase(struct span s, const char *suffix)
{
    struct span end = span_str(suffix);

    /* A span of nothing may have no pointer to add to. */
    return s.n >= end.n &&
           (end.n == 0 || span_equal_nocase(span_of(s.p + (s.n - end.n), end.n), end));
}

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct span
span_trim(struct span s)
{
    while (s.n > 0 && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool
span_next(struct span *rest, char separator, struct span *item)
{
    const char *end;

    if (!rest->p)
        return false;
    end = rest->n > 0 ? memchr(rest->p, separator, rest->n) : NULL;
    if (!end) { /* the last one; no pointer tells that it was taken, as it may be empty */
        *item = *rest;
        *rest = span_of(NULL, 0);
        return true;
    }
    *item = span_of(rest->p, (size_t)(end - rest->p));
    *rest = span_of(end + 1, rest->n - item->n - 1);
    return true;
}

bool
span_copy(char *dst, size_t capacity, struct span s)
{
    if (capacity == 0)
        return false;
    if (s.n >= capacity) {
        dst[0] = '\0';
        return false;
    }
    if (s.n > 0)
        memcpy(dst, s.p, s.n);
    dst[s.n] = '\0';
    return true;
}

char *
span_dup(struct span s)
{
    char *copy = malloc(s.n + 1);

    if (copy)
        span_copy(copy, s.n + 1, s);
    return copy;
}

bool
span_u64(struct span s, uint64_t max, uint64_t *value)
{
    uint64_t sum = 0;

    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        uint64_t digit;

        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        digit = (uint64_t)(s.p[i] - '0');
        if (sum > (UINT64_MAX - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    if (sum > max)
        return false;
    *value = sum;
    return true;
}
