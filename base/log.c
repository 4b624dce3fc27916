#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log_writer.h"
#include "base/utf8.h"

/* Of one value, as written: a stranger's long HELO must not push out what follows it. */
#define VALUE_MAX 1024

static _Atomic int log_level = LOG_LEVEL_INFO;

void
log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

enum log_level
log_get_level(void)
{
    return (enum log_level)atomic_load_explicit(&log_level, memory_order_relaxed);
}

bool
log_wants(enum log_level level)
{
    return level <= log_get_level();
}

/* How many octets at P are written as they are; 0: P[0] is written as \xNN.  Anything else would
 * spoil a collector's JSON, or drive a terminal. */
static size_t
plain_length(const unsigned char *p, size_t n)
{
    if (p[0] >= 0x80)
        return utf8_printable(span_of((const char *)p, n));
    return p[0] >= ' ' && p[0] != 0x7f && p[0] != '"' && p[0] != '\\';
}

/* How many octets at the start of VALUE are visible ASCII that needs no quotes: mostly all. */
static size_t
bare_length(struct span value)
{
    static const uint64_t bare[4] = {0xdffffffa00000000, 0x7fffffffefffffff}; /* all but " = \ */
    size_t i = 0;

    for (; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if ((bare[c >> 6] >> (c & 63) & 1) == 0)
            break;
    }
    return i;
}

/* The first BARE octets of VALUE need no quotes; does the rest? */
static bool
needs_quotes(struct span value, size_t bare)
{
    const unsigned char *p = (const unsigned char *)value.p;
    size_t length;

    for (size_t i = bare; i < value.n; i += length) {
        length = plain_length(p + i, value.n - i);
        if (length == 0 || p[i] == ' ' || p[i] == '=')
            return true;
    }
    return false;
}

static void
put(struct log_line *l, const char *p, size_t n)
{
    memcpy(l->text + l->n, p, n);
    l->n += n;
}

/* Write VALUE, of which BARE octets are written as they are, up to END of the text, whole
 * characters only. */
static void
put_value(struct log_line *l, struct span value, size_t bare, size_t end)
{
    const unsigned char *p = (const unsigned char *)value.p;
    size_t i = bare;

    if (l->n + i > end) {
        put(l, value.p, end - l->n);
        l->full = true;
        return;
    }
    if (i > 0)
        put(l, value.p, i);
    while (i < value.n) {
        size_t length = plain_length(p + i, value.n - i);
        char escaped[8];

        if (l->n + (length > 0 ? length : 4) > end) {
            l->full = true;
            return;
        }
        if (length > 0) {
            put(l, value.p + i, length);
            i += length;
        } else {
            snprintf(escaped, sizeof escaped, "\\x%02x", p[i]);
            put(l, escaped, 4);
            i++;
        }
    }
}

/* " KEY=VALUE"; IN_ANGLES puts the value between < and >, inside the quotes. */
static void
put_pair(struct log_line *l, struct span key, struct span value, bool in_angles)
{
    size_t bare = bare_length(value), end;
    bool has_quotes = needs_quotes(value, bare);
    size_t around = (size_t)has_quotes + (size_t)in_angles; /* on each side */

    if (l->n == 0) /* a line of a level that is not wanted */
        return;
    if (l->n + key.n + 2 + 2 * around + 4 > sizeof l->text) {
        l->full = true;
        return;
    }
    l->text[l->n++] = ' ';
    put(l, key.p, key.n);
    l->text[l->n++] = '=';
    if (has_quotes)
        l->text[l->n++] = '"';
    if (in_angles)
        l->text[l->n++] = '<';
    end = sizeof l->text - around;
    put_value(l, value, bare, end < l->n + VALUE_MAX ? end : l->n + VALUE_MAX);
    if (in_angles)
        l->text[l->n++] = '>';
    if (has_quotes)
        l->text[l->n++] = '"';
}

static void
begin(struct log_line *l, enum log_level level)
{
    l->level = level;
    l->full = false;
    l->n = 0;
}

void
log_begin(struct log_line *l, enum log_level level, const char *event)
{
    begin(l, level);
    if (log_wants(level)) {
        put(l, "event=", 6);
        put(l, event, strlen(event));
    }
}

char *
log_keep(const struct log_line *l)
{
    return l->n > 0 ? span_dup(span_of(l->text, l->n)) : NULL;
}

void
log_begin_with(struct log_line *l, enum log_level level, const char *kept)
{
    begin(l, level);
    if (log_wants(level))
        put(l, kept, strlen(kept));
}

void
log_pair(struct log_line *l, struct span key, struct span value)
{
    put_pair(l, key, value, false);
}

void
log_path(struct log_line *l, const char *key, struct span address)
{
    put_pair(l, span_str(key), address, true);
}

/* Write VALUE in decimal so that it ends before END, with at least N digits; returns its start. */
static char *
put_digits(char *end, uint64_t value, unsigned n)
{
    for (; value > 0 || n > 0; value /= 10) {
        *--end = (char)('0' + value % 10);
        n -= n > 0;
    }
    return end;
}

void
log_int(struct log_line *l, const char *key, int64_t value)
{
    char text[24], *end = text + sizeof text;
    char *start = put_digits(end, value < 0 ? -(uint64_t)value : (uint64_t)value, 1);

    if (value < 0)
        *--start = '-';
    log_span(l, key, span_of(start, (size_t)(end - start)));
}

void
log_seconds(struct log_line *l, const char *key, int64_t ms)
{
    char text[24], *end = text + sizeof text;
    uint64_t value = ms > 0 ? (uint64_t)ms : 0;
    char *start = put_digits(end, value % 1000, 3);

    *--start = '.';
    start = put_digits(start, value / 1000, 1);
    log_span(l, key, span_of(start, (size_t)(end - start)));
}

void
log_addr(struct log_line *l, const char *key, const struct netaddr *a)
{
    char text[NETADDR_TEXT];

    netaddr_format(a, text);
    log_str(l, key, text);
}

void
log_fmt(struct log_line *l, const char *key, const char *format, ...)
{
    char value[VALUE_MAX + 1];
    va_list arguments;

    if (l->n == 0)
        return;
    va_start(arguments, format);
    if (vsnprintf(value, sizeof value, format, arguments) >= (int)sizeof value)
        l->full = true;
    va_end(arguments);
    log_str(l, key, value);
}

void
log_end(struct log_line *l)
{
    struct log_record r = {clock_wall_us(), l->level, span_of(l->text, l->n)};

    if (l->n > 0)
        log_submit(&r);
}

void
log_event(enum log_level level, const char *event, ...)
{
    struct log_line l;
    va_list arguments;
    const char *key;

    if (!log_wants(level))
        return;
    log_begin(&l, level, event);
    va_start(arguments, event);
    while ((key = va_arg(arguments, const char *)))
        log_str(&l, key, va_arg(arguments, const char *));
    va_end(arguments);
    log_end(&l);
}
