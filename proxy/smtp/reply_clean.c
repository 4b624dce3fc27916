#include "proxy/smtp/reply.h"

#include <stdio.h>
#include <string.h>

#include "base/netaddr.h"
#include "proxy/smtp/ascii.h"

/* smtp_reply_clean: a line of text is read word by word, a word being a run of octets that can
 * stand in a name or an address; what is between words is copied, and tidied where a word went. */

struct output {
    char text[SMTP_REPLY_TEXT];
    size_t n, line; /* octets so far; where the line begins */
};

static bool
is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool
is_word(char c)
{
    return ascii_is_letter(c) || ascii_is_digit(c) || (unsigned char)c >= 0x80 ||
           memchr("-_.:@+%=", c, 8) != NULL;
}

/* Never writes more than was read, as nothing is added. */
static void
put(struct output *out, struct span s)
{
    memcpy(out->text + out->n, s.p, s.n);
    out->n += s.n;
}

static void
trim_blanks(struct output *out)
{
    while (out->n > out->line && out->text[out->n - 1] == ' ')
        out->n--;
}

/* One octet between words: no two blanks, no blank before punctuation, no brackets or quotes with
 * nothing in them, nothing but words and brackets at the start of a line. */
static void
put_between(struct output *out, char c)
{
    static const char closing[] = ">)]}\"'", opening[] = "<([{\"'";
    const char *close = memchr(closing, c, sizeof closing - 1);
    size_t n = out->n;

    if (c == ' ' && (n == out->line || out->text[n - 1] == ' '))
        return;
    if (memchr(",;:.", c, 4) != NULL) {
        trim_blanks(out);
        if (out->n == out->line)
            return;
    }
    if (close != NULL) {
        while (n > out->line && out->text[n - 1] == ' ')
            n--;
        if (n > out->line && out->text[n - 1] == opening[close - closing]) {
            out->n = n - 1;
            return;
        }
    }
    out->text[out->n++] = c;
}

/* The length of a "[name=...]" part at the start of S, brackets within it included; 0 if there is
 * none. One that is not closed goes to the end. */
static size_t
named_part(struct span s)
{
    size_t i = 1, depth = 0;

    while (i < s.n &&
           (ascii_is_letter(s.p[i]) || ascii_is_digit(s.p[i]) || s.p[i] == '-' || s.p[i] == '_'))
        i++;
    if (i == 1 || i == s.n || s.p[i] != '=')
        return 0;
    for (i = 0; i < s.n; i++) {
        if (s.p[i] == '[')
            depth++;
        else if (s.p[i] == ']' && --depth == 0)
            return i + 1;
    }
    return s.n;
}

/* Two labels or more; the last begins with a letter and is longer than it ("e.g" is none). */
static bool
is_host_name(struct span word)
{
    struct span label = {0};
    size_t labels = 0;

    while (span_next(&word, '.', &label))
        labels += label.n > 0;
    return labels >= 2 && label.n >= 2 && !ascii_is_digit(label.p[0]) && label.p[0] != '-';
}

/* Exchange's name of a cause: RESOLVER.ADR.RecipientNotFound, TRANSPORT.RULES.RejectMessage. */
static bool
is_cause(struct span word)
{
    static const char *const sources[] = {"AGENT.",    "APPROVAL.",   "QUEUE.",
                                          "RESOLVER.", "ROUTING.",    "SMTPSEND.",
                                          "STOREDRV.", "SUBMISSION.", "TRANSPORT."};
    size_t last = word.n;

    while (last > 0 && word.p[last - 1] != '.')
        last--;
    if (last == word.n || !is_upper(word.p[last]))
        return false;
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        size_t n = strlen(sources[i]);
        if (word.n > n && memcmp(word.p, sources[i], n) == 0)
            return true;
    }
    return false;
}

/* An exception of Exchange's, as it follows a cause and a colon: long words in mixed case, which no
 * labels of a host's name are. */
static bool
is_exception(struct span word)
{
    struct span label;

    while (span_next(&word, '.', &label)) {
        size_t small = 0;

        for (size_t i = 0; i < label.n; i++)
            small += label.p[i] >= 'a' && label.p[i] <= 'z';
        if (label.n < 8 || !is_upper(label.p[0]) || small == 0)
            return false;
    }
    return true;
}

/* The length of an IP address at the start of WORD, 0 if there is none.  A port or a full stop may
 * follow it. */
static size_t
ip_address(struct span word)
{
    struct netaddr address;
    size_t n = 0;

    while (n < word.n && n < NETADDR_TEXT &&
           memchr("0123456789abcdefABCDEF.:", word.p[n], 24) != NULL)
        n++;
    while (n > 0 && !netaddr_parse(span_of(word.p, n), &address))
        do
            n--;
        while (n > 0 && word.p[n] != '.' && word.p[n] != ':');
    return n;
}

/* A mail address may hold more than a word does: what stands before it goes with it. */
static void
drop_local_part(struct output *out)
{
    while (out->n > out->line && memchr(" <([{\",;:", out->text[out->n - 1], 9) == NULL)
        out->n--;
}

/* A word, part by part, but for the parts to be hidden; a port goes with its host. */
static void
put_word(struct output *out, struct span word)
{
    bool is_cause_before = false, is_hidden = false;
    size_t n, end;

    if (memchr(word.p, '@', word.n) != NULL) {
        drop_local_part(out);
        return;
    }
    for (size_t i = span_starts_nocase(word, "IPv6:") ? 5 : 0; i < word.n; i = end) {
        struct span part, name;

        end = i + ip_address(span_of(word.p + i, word.n - i));
        if (end > i) {
            is_hidden = true;
            continue;
        }
        while (end < word.n && memchr(":=+%", word.p[end], 4) == NULL)
            end++;
        while (i < end && word.p[i] == '.')
            put_between(out, word.p[i++]);
        part = name = span_of(word.p + i, end - i);
        while (name.n > 0 && memchr(".-", name.p[name.n - 1], 2) != NULL)
            name.n--;
        is_cause_before = is_cause(name) || (is_cause_before && is_exception(name));
        if (!is_cause_before && is_host_name(name))
            is_hidden = true;
        else if (!is_hidden || !span_u64(name, UINT16_MAX, &(uint64_t){0}))
            put(out, name);
        for (n = name.n; n < part.n; n++)
            put_between(out, part.p[n]);
        if (end < word.n && !(is_hidden && word.p[end] == ':' && end + 1 < word.n))
            put_between(out, word.p[end]);
        end += end < word.n;
    }
}

/* The length of a URL at the start of S, 0 if there is none. */
static size_t
url(struct span s)
{
    size_t i = 0;

    while (i < s.n && ascii_is_letter(s.p[i]))
        i++;
    if (i == 0 || s.n - i < 3 || memcmp(s.p + i, "://", 3) != 0)
        return 0;
    while (i < s.n && memchr(" <>()[]\"", s.p[i], 8) == NULL)
        i++;
    return i;
}

static void
clean_line(struct output *out, struct span line)
{
    bool has_letter = false;
    size_t end;

    out->line = out->n;
    for (size_t i = 0; i < line.n; i = end) {
        struct span rest = span_of(line.p + i, line.n - i);

        end = i + (line.p[i] == '[' ? named_part(rest) : url(rest));
        if (end > i)
            continue;
        while (end < line.n && is_word(line.p[end]))
            end++;
        if (end > i)
            put_word(out, span_of(line.p + i, end - i));
        else
            put_between(out, line.p[end++]);
    }
    while (out->n > out->line && memchr(" ,;:=-", out->text[out->n - 1], 6) != NULL)
        out->n--;
    for (size_t i = out->line; i < out->n; i++)
        has_letter |= ascii_is_letter(out->text[i]) || (unsigned char)out->text[i] >= 0x80;
    if (has_letter)
        out->text[out->n++] = '\n';
    else
        out->n = out->line;
}

static const char *
neutral_text(uint16_t code)
{
    if (code < 400)
        return "Ok";
    return code < 500 ? "Temporary failure, try again later" : "Refused";
}

/* True while it takes something away: what is left may have become a name. */
static bool
clean_once(struct smtp_reply *r)
{
    struct span text = span_str(r->text), rest = text, line;
    struct output out = {0};

    while (span_next(&rest, '\n', &line))
        clean_line(&out, line);
    if (out.n == 0) {
        (void)span_copy(r->text, sizeof r->text, span_str(neutral_text(r->code)));
        return false;
    }
    (void)span_copy(r->text, sizeof r->text, span_of(out.text, out.n - 1));
    return out.n - 1 < text.n;
}

void
smtp_reply_clean(struct smtp_reply *r)
{
    while (clean_once(r))
        ;
}

struct smtp_reply
smtp_reply_passed_on(const struct smtp_reply *r)
{
    struct smtp_reply out = *r;

    if (out.code == 421)
        out.code = 451;
    if (out.code < 400)
        out = smtp_reply_make(SMTP_REPLY_NO_ANSWER, NULL);
    if (out.enhanced[0] == '\0')
        snprintf(out.enhanced, sizeof(out.enhanced), "%u.0.0", (unsigned)(out.code / 100));
    smtp_reply_clean(&out);
    return out;
}
