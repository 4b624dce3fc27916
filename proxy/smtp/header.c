#include "proxy/smtp/header.h"

#include <string.h>

enum state {
    LINE_START,
    IN_LINE,
    AFTER_CR,      /* which ended a line; a LF would belong to it */
    AFTER_EMPTY_CR /* the same of an empty line */
};

size_t
header_end_scan(struct header_end *end, struct span in)
{
    enum state state = (enum state)end->state;
    size_t i = 0;

    while (!end->found && i < in.n) {
        char c = in.p[i];

        if (state == AFTER_EMPTY_CR) {
            end->found = true;
            i += c == '\n';
            break;
        }
        i++;
        if (state == AFTER_CR && c == '\n')
            state = LINE_START;
        else if (c == '\n' && state == LINE_START)
            end->found = true;
        else if (c == '\n')
            state = LINE_START;
        else if (c == '\r')
            state = state == IN_LINE ? AFTER_CR : AFTER_EMPTY_CR;
        else
            state = IN_LINE;
    }
    end->state = (unsigned char)state;
    return i;
}

/* The length of the line at the start of S with its end. */
static size_t
line_length(struct span s)
{
    size_t n = 0;

    while (n < s.n && s.p[n] != '\r' && s.p[n] != '\n')
        n++;
    if (n + 1 < s.n && s.p[n] == '\r' && s.p[n + 1] == '\n')
        return n + 2;
    return n < s.n ? n + 1 : n;
}

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The name of the field WHOLE, empty if it has none; *USED is what it takes, with the colon. */
static struct span
field_name(struct span whole, size_t *used)
{
    const char *colon = memchr(whole.p, ':', whole.n);
    size_t n;

    if (colon == NULL)
        return span_of(whole.p, 0);
    n = (size_t)(colon - whole.p);
    *used = n + 1;
    while (n > 0 && (is_blank(whole.p[n - 1]) || whole.p[n - 1] == '\r' || whole.p[n - 1] == '\n'))
        n--;
    for (size_t i = 0; i < n; i++)
        if (whole.p[i] <= ' ' || whole.p[i] > '~')
            return span_of(whole.p, 0);
    return span_of(whole.p, n);
}

bool
header_next(struct span *rest, struct header_field *field)
{
    struct span left = *rest;
    size_t n, used = 0;

    if (left.n == 0 || left.p[0] == '\r' || left.p[0] == '\n')
        return false;
    n = line_length(left);
    while (n < left.n && is_blank(left.p[n]))
        n += line_length(span_of(left.p + n, left.n - n));
    field->whole = span_of(left.p, n);
    field->name = field_name(field->whole, &used);
    field->value = span_of(left.p + used, n - used);
    if (field->name.n == 0)
        field->value = span_of(left.p, 0);
    *rest = span_of(left.p + n, left.n - n);
    return true;
}

bool
header_name_is(const struct header_field *field, const char *name)
{
    return span_is_nocase(field->name, name);
}

bool
header_name_starts(const struct header_field *field, const char *prefix)
{
    return span_starts_nocase(field->name, prefix);
}
