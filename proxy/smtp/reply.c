#include "proxy/smtp/reply.h"

#include <string.h>

#include "base/utf8.h"
#include "proxy/smtp/ascii.h"

static const struct {
    uint16_t code;
    const char *enhanced;
    const char *prefix; /* what stands before the text */
    const char *text;
} replies[] = {
    [SMTP_REPLY_NONE] = {0, "", "", ""},
#define SMTP_REPLY(id, code, enhanced, text)                                                       \
    [SMTP_REPLY_##                                                                                 \
        id] = {code, enhanced, sizeof enhanced == 1 ? #code " " : #code " " enhanced " ", text},
#include "proxy/smtp/reply.def"
#undef SMTP_REPLY
};

uint16_t
smtp_reply_code(enum smtp_reply_id id)
{
    return replies[id].code;
}

const char *
smtp_reply_enhanced(enum smtp_reply_id id)
{
    return replies[id].enhanced;
}

/* Copy IN, at most CAPACITY octets, with '?' for what is not printable. */
static size_t
copy_printable(char *out, size_t capacity, struct span in)
{
    size_t i = 0, n;

    in.n = utf8_fit(in, capacity);
    for (; i < in.n; i += n) {
        n = 1;
        out[i] = in.p[i];
        if (in.p[i] >= ' ' && in.p[i] <= '~')
            continue;
        n = utf8_printable(span_of(in.p + i, in.n - i));
        if (n == 0) {
            out[i] = '?';
            n = 1;
        } else {
            memcpy(out + i, in.p + i, n);
        }
    }
    return i;
}

static size_t
copy(char *out, struct span in)
{
    if (in.n > 0)
        memcpy(out, in.p, in.n);
    return in.n;
}

/* The text of ID with ARGUMENT for %s, at most CAPACITY octets: ARGUMENT gives way first. */
static size_t
format_text(enum smtp_reply_id id, const char *argument, char *out, size_t capacity)
{
    struct span before = span_str(replies[id].text), after = {0};
    const char *mark = strchr(before.p, '%');
    size_t n;

    if (mark == NULL)
        return copy(out, before);
    after = span_of(mark + 2, before.n - (size_t)(mark - before.p) - 2);
    before.n = (size_t)(mark - before.p);
    n = copy(out, before);
    n += copy_printable(out + n, capacity - before.n - after.n, span_str(argument));
    return n + copy(out + n, after);
}

size_t
smtp_reply_format(enum smtp_reply_id id, const char *argument, char out[SMTP_REPLY_LINE])
{
    size_t n = copy(out, span_str(replies[id].prefix));

    n += format_text(id, argument, out + n, SMTP_REPLY_LINE - sizeof "\r\n" - n);
    memcpy(out + n, "\r\n", sizeof "\r\n");
    return n + 2;
}

struct smtp_reply
smtp_reply_make(enum smtp_reply_id id, const char *argument)
{
    struct smtp_reply r = {.code = replies[id].code};
    size_t n = format_text(id, argument, r.text, sizeof r.text - 1);

    r.text[n] = '\0';
    (void)span_copy(r.enhanced, sizeof r.enhanced, span_str(replies[id].enhanced));
    return r;
}

size_t
smtp_reply_write(const struct smtp_reply *r, char *out, size_t capacity)
{
    struct span rest = span_str(r->text), line, enhanced = span_str(r->enhanced);
    size_t n = 0, last = 0;
    const char code[] = {(char)('0' + r->code / 100 % 10), (char)('0' + r->code / 10 % 10),
                         (char)('0' + r->code % 10), '-'};

    while (span_next(&rest, '\n', &line)) {
        if (sizeof code + enhanced.n + 1 + line.n + 2 > capacity - n)
            break;
        last = n;
        n += copy(out + n, span_of(code, sizeof code));
        n += copy(out + n, enhanced);
        if (enhanced.n > 0 && line.n > 0)
            out[n++] = ' ';
        n += copy(out + n, line);
        n += copy(out + n, span_str("\r\n"));
    }
    if (n > 0)
        out[last + 3] = ' ';
    return n;
}

/* The code at the start of LINE; 0 if none is there. */
static uint16_t
line_code(struct span line)
{
    if (line.n < 3 || line.p[0] < '2' || line.p[0] > '5' || !ascii_is_digit(line.p[1]) ||
        !ascii_is_digit(line.p[2]) || (line.n > 3 && line.p[3] != ' ' && line.p[3] != '-'))
        return 0;
    return (uint16_t)((line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + line.p[2] - '0');
}

/* The length of the enhanced code (RFC 3463 2) of CLASS at the start of TEXT; 0: none. */
static size_t
enhanced_length(struct span text, char class)
{
    size_t i = 1;

    if (text.n == 0 || text.p[0] != class || class == '3')
        return 0;
    for (unsigned part = 0; part < 2; part++) {
        size_t digits = 0;

        if (i >= text.n || text.p[i++] != '.')
            return 0;
        while (digits < 4 && i < text.n && ascii_is_digit(text.p[i])) {
            i++;
            digits++;
        }
        if (digits < 1 || digits > 3)
            return 0;
    }
    return i == text.n || text.p[i] == ' ' ? i : 0;
}

/* A line's text, behind the code: its enhanced code is kept, the rest is gathered. */
static void
gather(struct smtp_reply_reader *reader, struct span text)
{
    struct smtp_reply *r = &reader->reply;
    size_t enhanced = enhanced_length(text, (char)('0' + r->code / 100));
    size_t room = sizeof reader->text - reader->n;

    if (r->enhanced[0] == '\0')
        (void)span_copy(r->enhanced, sizeof r->enhanced, span_of(text.p, enhanced));
    text = span_trim(span_of(text.p + enhanced, text.n - enhanced));
    if (reader->lines > 1) {
        reader->is_full |= text.n + 1 > room;
        if (reader->is_full)
            return;
        reader->text[reader->n++] = '\n';
    }
    reader->n += copy_printable(reader->text + reader->n, sizeof reader->text - reader->n, text);
}

enum smtp_reply_status
smtp_reply_read(struct smtp_reply_reader *reader, struct span in, size_t *used)
{
    *used = 0;
    for (;;) {
        struct span rest = span_of(in.p + *used, in.n - *used), line;
        size_t seen = rest.n < SMTP_REPLY_READ_LINE_MAX ? rest.n : SMTP_REPLY_READ_LINE_MAX;
        const char *lf = seen > 0 ? memchr(rest.p, '\n', seen) : NULL;
        uint16_t code;

        if (lf == NULL)
            return seen < SMTP_REPLY_READ_LINE_MAX ? SMTP_REPLY_MORE : SMTP_REPLY_BAD;
        line = span_of(rest.p, (size_t)(lf - rest.p));
        *used += line.n + 1;
        if (line.n > 0 && line.p[line.n - 1] == '\r')
            line.n--;
        if (reader->lines == 0) {
            reader->n = 0;
            reader->is_full = false;
            reader->reply.enhanced[0] = '\0';
            reader->reply.code = line_code(line);
        }
        code = line_code(line);
        if (code == 0 || code != reader->reply.code || memchr(line.p, '\0', line.n) != NULL ||
            ++reader->lines > SMTP_REPLY_READ_LINES_MAX)
            return SMTP_REPLY_BAD;
        gather(reader, span_of(line.p + 3 + (line.n > 3), line.n - 3 - (line.n > 3)));
        if (line.n > 3 && line.p[3] == '-')
            continue;
        reader->lines = 0;
        reader->reply.text[copy(reader->reply.text,
                                span_of(reader->text, utf8_fit(smtp_reply_reader_text(reader),
                                                               sizeof reader->reply.text - 1)))] =
            '\0';
        return SMTP_REPLY_DONE;
    }
}

struct span
smtp_reply_reader_text(const struct smtp_reply_reader *reader)
{
    return span_of(reader->text, reader->n);
}
