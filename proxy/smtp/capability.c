#include "proxy/smtp/capability.h"

#include <stdio.h>
#include <string.h>

static const char *const keywords[] = {
#define SMTP_CAP(id, keyword) [SMTP_CAP_##id] = keyword,
#include "proxy/smtp/capability.def"
#undef SMTP_CAP
};

static const char *const attributes[] = {
#define SMTP_XCLIENT(id) [SMTP_XCLIENT_##id] = #id,
#include "proxy/smtp/xclient.def"
#undef SMTP_XCLIENT
};

/* The index of NAME in TABLE, N if it is not there. */
static unsigned
find(struct span name, const char *const *table, unsigned n)
{
    unsigned i = 0;

    while (i < n && !span_is_nocase(name, table[i]))
        i++;
    return i;
}

const char *
smtp_cap_keyword(enum smtp_cap cap)
{
    return keywords[cap];
}

enum smtp_cap
smtp_cap_find(struct span keyword)
{
    return (enum smtp_cap)find(keyword, keywords, SMTP_CAP_COUNT);
}

const char *
smtp_xclient_name(enum smtp_xclient attribute)
{
    return attributes[attribute];
}

enum smtp_xclient
smtp_xclient_find(struct span name)
{
    return (enum smtp_xclient)find(name, attributes, SMTP_XCLIENT_COUNT);
}

/* The next word of *REST; false when there is none. */
static bool
next_word(struct span *rest, struct span *word)
{
    do {
        if (!span_next(rest, ' ', word))
            return false;
        *word = span_trim(*word);
    } while (word->n == 0);
    return true;
}

static bool
parse_size(struct span arguments, struct smtp_capabilities *caps)
{
    struct span word;

    caps->size = 0;
    return !next_word(&arguments, &word) || span_u64(word, UINT64_MAX, &caps->size);
}

/* RFC 9422 4: names and values we do not know are skipped. */
static void
parse_limits(struct span arguments, struct smtp_capabilities *caps)
{
    static const char name[] = "RCPTMAX=";
    struct span word;
    uint64_t value;

    caps->recipients = 0;
    while (next_word(&arguments, &word))
        if (span_starts_nocase(word, name)) {
            word = span_of(word.p + sizeof name - 1, word.n - (sizeof name - 1));
            if (span_u64(word, UINT32_MAX, &value))
                caps->recipients = (uint32_t)value;
        }
}

static void
parse_xclient(struct span arguments, struct smtp_capabilities *caps)
{
    struct span word;

    caps->xclient = 0;
    while (next_word(&arguments, &word)) {
        enum smtp_xclient attribute = smtp_xclient_find(word);
        if (attribute != SMTP_XCLIENT_COUNT)
            caps->xclient |= 1u << attribute;
    }
}

void
smtp_capabilities_parse(struct span text, struct smtp_capabilities *caps)
{
    struct span line, keyword;

    *caps = (struct smtp_capabilities){0};
    (void)span_next(&text, '\n', &line);
    while (span_next(&text, '\n', &line)) {
        bool is_offered = true;
        enum smtp_cap cap;

        if (!next_word(&line, &keyword))
            continue;
        cap = smtp_cap_find(keyword);
        if (cap == SMTP_CAP_COUNT)
            continue;
        if (cap == SMTP_CAP_SIZE)
            is_offered = parse_size(line, caps);
        else if (cap == SMTP_CAP_LIMITS)
            parse_limits(line, caps);
        else if (cap == SMTP_CAP_XCLIENT)
            parse_xclient(line, caps);
        if (is_offered)
            caps->bits |= 1u << cap;
        else
            caps->bits &= ~(1u << cap);
    }
}

static size_t
put(char *out, size_t n, const char *text)
{
    size_t length = strlen(text);

    if (length > SMTP_EHLO_MAX - n)
        length = SMTP_EHLO_MAX - n;
    memcpy(out + n, text, length);
    return n + length;
}

static size_t
put_number(char *out, size_t n, const char *before, uint64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return put(out, put(out, n, before), text);
}

size_t
smtp_ehlo_format(char out[SMTP_EHLO_MAX], const char *hostname,
                 const struct smtp_capabilities *caps)
{
    size_t n = put(out, 0, "250-"), last = 0;

    n = put(out, n, hostname);
    for (unsigned cap = 0; cap < SMTP_CAP_COUNT; cap++) {
        if ((caps->bits & 1u << cap) == 0)
            continue;
        n = put(out, n, "\r\n");
        last = n;
        n = put(out, put(out, n, "250-"), keywords[cap]);
        if (cap == SMTP_CAP_SIZE && caps->size > 0)
            n = put_number(out, n, " ", caps->size);
        if (cap == SMTP_CAP_LIMITS && caps->recipients > 0)
            n = put_number(out, n, " RCPTMAX=", caps->recipients);
        for (unsigned i = 0; cap == SMTP_CAP_XCLIENT && i < SMTP_XCLIENT_COUNT; i++)
            if ((caps->xclient & 1u << i) != 0)
                n = put(out, put(out, n, " "), attributes[i]);
    }
    out[last + 3] = ' ';
    return put(out, n, "\r\n");
}
