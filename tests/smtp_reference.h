#ifndef TESTS_SMTP_REFERENCE_H
#define TESTS_SMTP_REFERENCE_H

#include <assert.h>
#include <string.h>

#include "proxy/smtp/data_scan.h"

/* The rules of data_scan.h and header.h, octet by octet and with the whole input in hand: slow,
 * obvious, and what the scanners are held to by unit tests and fuzzers. */

/* What a scan makes of an input. */
struct data_result {
    char *content; /* the caller's, of twice the input's size */
    size_t n;      /* octets of content */
    size_t used;   /* octets of input up to the end of data, or all */
    unsigned bare;
    bool is_ended;
};

static inline void
data_result_add(struct data_result *r, struct span s)
{
    memcpy(r->content + r->n, s.p, s.n);
    r->n += s.n;
}

static inline void
data_reference(struct span in, struct data_result *r)
{
    bool at_start = true;

    while (r->used < in.n && !r->is_ended) {
        struct span rest = span_of(in.p + r->used, in.n - r->used);

        if (at_start && span_starts_nocase(rest, ".\r\n")) {
            r->used += 3;
            r->is_ended = true;
        } else if (at_start && rest.p[0] == '.') {
            r->used++;
            at_start = false;
        } else if (span_starts_nocase(rest, "\r\n")) {
            data_result_add(r, span_of(rest.p, 2));
            r->used += 2;
            at_start = true;
        } else if (span_is(rest, "\r")) {
            r->used++; /* nobody knows yet what it is */
        } else if (rest.p[0] == '\r' || rest.p[0] == '\n') {
            data_result_add(r, span_str("\r\n"));
            r->used++;
            r->bare++;
            at_start = false;
        } else {
            data_result_add(r, span_of(rest.p, 1));
            r->used++;
            at_start = false;
        }
    }
}

/* CONTENT as a sender sends it, from pieces of STEP octets; OUT has room for twice its size and
 * five. */
static inline size_t
data_stuff(struct span content, size_t step, char *out)
{
    struct dot_stuff dots = {0};
    size_t n = 0;

    for (size_t i = 0; i < content.n;) {
        size_t length = content.n - i < step ? content.n - i : step;
        bool need_dot;
        size_t clean = dot_stuff_next(&dots, span_of(content.p + i, length), &need_dot);

        assert(clean == length || need_dot);
        memcpy(out + n, content.p + i, clean);
        n += clean;
        i += clean;
        if (need_dot)
            out[n++] = '.';
    }
    assert(content.n == 0 || dots.in_line == (content.p[content.n - 1] != '\n'));
    if (dots.in_line) {
        memcpy(out + n, "\r\n", 2);
        n += 2;
    }
    memcpy(out + n, ".\r\n", 3);
    return n + 3;
}

static inline bool
data_result_equal(const struct data_result *a, const struct data_result *b)
{
    return a->is_ended == b->is_ended && a->used == b->used && a->bare == b->bare &&
           span_equal(span_of(a->content, a->n), span_of(b->content, b->n));
}

/* A section ends behind the first line that is empty. */
static inline size_t
header_end_reference(struct span in, bool *found)
{
    size_t i = 0;

    *found = false;
    while (i < in.n && !*found) {
        size_t start = i;

        while (i < in.n && in.p[i] != '\r' && in.p[i] != '\n')
            i++;
        *found = i == start;
        if (i < in.n)
            i += i + 1 < in.n && in.p[i] == '\r' && in.p[i + 1] == '\n' ? 2 : 1;
    }
    /* Whether a last CR is the whole line end is not known yet. */
    if (*found && i == in.n && in.p[i - 1] == '\r')
        *found = false;
    return i;
}

#endif
