#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A run of octets that somebody else owns; it need not end with NUL and may hold any octet.
 * Case is ASCII's, in every locale. */
struct span {
    const char *p;
    size_t n;
};

/* These three are called for every few octets that come and go: in place, a constant's length is
 * known when it is compiled. */
static inline struct span
span_of(const char *p, size_t n)
{
    return (struct span){p, n};
}

/* NULL is the empty span. */
static inline struct span
span_str(const char *s)
{
    return s ? span_of(s, strlen(s)) : span_of("", 0);
}

static inline char
ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool span_equal(struct span a, struct span b);
bool span_equal_nocase(struct span a, struct span b);
bool span_is(struct span s, const char *text);
bool span_is_nocase(struct span s, const char *text);
bool span_starts_nocase(struct span s, const char *prefix);
bool span_ends_nocase(struct span s, const char *suffix);
/* Without the spaces and tabs at both ends. */
struct span span_trim(struct span s);
/* Take the next item of *REST up to SEPARATOR or the end; false when *REST was used up.  The
 * separator is dropped; an empty item is an item.  Start with *REST = the whole. */
bool span_next(struct span *rest, char separator, struct span *item);
/* Copy into DST of CAPACITY octets with a NUL behind; false, and DST empty, if it does not fit. */
bool span_copy(char *dst, size_t capacity, struct span s);
/* malloc'd, NUL-terminated; NULL when memory is out.  The caller frees. */
char *span_dup(struct span s);
/* Decimal digits only, nothing else, at most MAX. */
bool span_u64(struct span s, uint64_t max, uint64_t *value);

#endif
