#include "conf/ini_reader.h"

#include <ini.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    FILE *in;
    const struct ini_events *events;
    void *arg;
    struct faults *faults;
    unsigned line;
    char text[INI_READER_LINE_MAX + 1]; /* the line at hand, without its end and indentation */
    size_t at;                          /* what of it inih has had */
    size_t n;
    bool is_open; /* a key's value is being gathered */
    unsigned key_line;
    char key[64];
    char value[INI_READER_LINE_MAX + 1];
};

static void
close_key(struct reader *r)
{
    if (r->is_open)
        r->events->key(r->arg, r->key_line, r->key, r->value);
    r->is_open = false;
}

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\v' || c == '\f';
}

/* Read a line into r->text.  False at the end of the file. */
static bool
read_line(struct reader *r)
{
    size_t n = 0;
    bool is_cut = false, has_nul = false;
    int c;

    while ((c = getc(r->in)) != EOF && c != '\n') {
        if (n == 0 && is_blank((char)c))
            continue;
        if (c == '\0')
            has_nul = true;
        if (n < INI_READER_LINE_MAX)
            r->text[n++] = (char)c;
        else
            is_cut = true;
    }
    if (c == EOF && n == 0)
        return false;
    r->line++;
    if (r->line == 1 && n >= 3 && memcmp(r->text, "\xef\xbb\xbf", 3) == 0) {
        n -= 3;
        memmove(r->text, r->text + 3, n);
    }
    while (n > 0 && is_blank(r->text[n - 1]))
        n--;
    r->text[n] = '\0';
    if (is_cut || has_nul) {
        faults_add(r->faults, r->line, false,
                   is_cut ? "line longer than %d octets" : "NUL in a line", INI_READER_LINE_MAX);
        n = 0;
    }
    r->n = n;
    return true;
}

/* A section or a fault is dealt with here, and inih gets an empty line for it. */
static void
judge_line(struct reader *r)
{
    if (r->n == 0 || r->text[0] == ';' || r->text[0] == '#') {
        r->n = 0;
        return;
    }
    if (r->text[0] == '[') {
        char *end = memchr(r->text, ']', r->n);
        close_key(r);
        if (end == NULL) {
            faults_add(r->faults, r->line, false, "section without ]");
        } else {
            *end = '\0';
            r->events->section(r->arg, r->line, r->text + 1);
        }
        r->n = 0;
        return;
    }
    if (memchr(r->text, '=', r->n) == NULL) {
        faults_add(r->faults, r->line, false, "neither [section] nor key = value");
        r->n = 0;
    }
}

/* Where a long line may be cut: inih drops blanks at both ends of a piece, and takes a piece that
 * begins with a comment's sign for a comment. */
static size_t
find_cut(const char *text, size_t max)
{
    for (size_t i = max; i > 1; i--)
        if (!is_blank(text[i]) && !is_blank(text[i - 1]) && text[i] != ';' && text[i] != '#')
            return i;
    return 0;
}

/* inih's reader: a piece of at most NUM - 1 octets; a piece that continues a line begins with a
 * blank. */
static char *
next_piece(char *out, int num, void *stream)
{
    struct reader *r = stream;
    size_t room = (size_t)num - 3; /* a blank before, a line end and NUL behind */

    if (r->at >= r->n) {
        if (!read_line(r)) {
            close_key(r);
            return NULL;
        }
        r->at = 0;
        judge_line(r);
    }
    size_t n = r->n - r->at, used = 0;
    if (n > room && (n = find_cut(r->text + r->at, room)) == 0) {
        faults_add(r->faults, r->line, false, "a line too full of blanks to be read");
        r->at = r->n = 0;
    }
    if (r->at > 0)
        out[used++] = ' ';
    memcpy(out + used, r->text + r->at, n);
    out[used + n] = '\n';
    out[used + n + 1] = '\0';
    r->at += n;
    return out;
}

static int
on_key(void *user, const char *section, const char *name, const char *value)
{
    struct reader *r = user;

    (void)section;
    if (r->is_open && r->key_line == r->line) {
        size_t n = strlen(r->value);
        span_copy(r->value + n, sizeof(r->value) - n, span_str(value));
        return 1;
    }
    close_key(r);
    r->is_open = true;
    r->key_line = r->line;
    if (!span_copy(r->key, sizeof(r->key), span_str(name)))
        span_copy(r->key, sizeof(r->key), span_of(name, sizeof(r->key) - 1));
    span_copy(r->value, sizeof(r->value), span_str(value));
    return 1;
}

bool
ini_reader_run(FILE *in, const struct ini_events *events, void *arg, struct faults *f)
{
    struct reader *r = calloc(1, sizeof(*r));

    if (r == NULL) {
        faults_add(f, 0, false, "out of memory");
        return false;
    }
    r->in = in;
    r->events = events;
    r->arg = arg;
    r->faults = f;
    bool is_ok = ini_parse_stream(next_piece, r, on_key, r) >= 0 && !ferror(in);
    if (!is_ok)
        faults_add(f, r->line, false, "cannot read the file");
    free(r);
    return is_ok;
}
