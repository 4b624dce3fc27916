#include "conf/ini_reader.h"

#include <ini.h>
#include <stdlib.h>
#include <string.h>

#include "base/span.h"

struct reader {
    FILE *in;
    const struct ini_events *events;
    void *arg;
    struct faults *faults;
    unsigned line;
    char text[INI_READER_LINE_MAX + 1]; /* the line at hand, without comment and blanks around */
    size_t n;
    size_t at;    /* what of it inih has had */
    bool is_open; /* a key's value is being gathered */
    unsigned key_line;
    char key[INI_READER_KEY_MAX + 1];
    char value[INI_READER_LINE_MAX + 1];
};

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The value is whole when the next line begins, and at the end. */
static void
close_key(struct reader *r)
{
    if (r->is_open)
        r->events->key(r->arg, r->key_line, r->key, r->value);
    r->is_open = false;
}

/* Read a line into r->text; a fault's text is empty.  False at the end of the file. */
static bool
read_line(struct reader *r)
{
    size_t n = 0, length = 0;
    bool has_control = false;
    int c;

    while ((c = getc(r->in)) != EOF && c != '\n') {
        if (n < INI_READER_LINE_MAX)
            r->text[n++] = (char)c;
        length++;
    }
    if (c == EOF && length == 0)
        return false;
    r->line++;
    if (n > 0 && r->text[n - 1] == '\r')
        n--;
    for (size_t i = 0; i < n; i++)
        has_control = has_control || ((unsigned char)r->text[i] < ' ' && r->text[i] != '\t');
    if (length > INI_READER_LINE_MAX) {
        faults_add(r->faults, r->line, false, "over-long line: more than %d octets",
                   INI_READER_LINE_MAX);
        n = 0;
    } else if (has_control) {
        faults_add(r->faults, r->line, false, "a control character in the line");
        n = 0;
    }
    r->n = n;
    return true;
}

/* Cut the byte order mark, the comment, and blanks at both ends. */
static void
trim_line(struct reader *r)
{
    struct span s = span_of(r->text, r->n);

    if (r->line == 1 && s.n >= 3 && memcmp(s.p, "\xef\xbb\xbf", 3) == 0)
        s = span_of(s.p + 3, s.n - 3);
    s = span_trim(s);
    for (size_t i = 0; i < s.n; i++) {
        if ((s.p[i] == ';' && (i == 0 || is_blank(s.p[i - 1]))) || (s.p[i] == '#' && i == 0))
            s.n = i;
    }
    s = span_trim(s);
    memmove(r->text, s.p, s.n);
    r->text[s.n] = '\0';
    r->n = s.n;
}

/* A section or a fault is dealt with here, and inih gets an empty line for it. */
static void
judge_line(struct reader *r)
{
    char *equals = strchr(r->text, '=');
    size_t key = strcspn(r->text, "=:");

    if (r->text[0] == '[') {
        if (r->text[r->n - 1] != ']') {
            faults_add(r->faults, r->line, false, "a section is written [NAME]");
        } else {
            struct span name = span_trim(span_of(r->text + 1, r->n - 2));
            char *copy = r->value; /* idle now */
            span_copy(copy, sizeof(r->value), name);
            r->events->section(r->arg, r->line, copy);
        }
        r->n = 0;
    } else if (r->n > 0 && (equals == NULL || equals != r->text + key || key == 0)) {
        faults_add(r->faults, r->line, false, "neither [section] nor key = value");
        r->n = 0;
    } else if (key > INI_READER_KEY_MAX) {
        faults_add(r->faults, r->line, false, "unknown key: %.*s...", INI_READER_KEY_MAX, r->text);
        r->n = 0;
    }
}

/* Where TEXT may be cut, behind MIN and at MAX at most: inih drops blanks at both ends of a piece,
 * and takes one that begins with a comment's sign for a comment.  0: nowhere. */
static size_t
find_cut(const char *text, size_t min, size_t max)
{
    for (size_t i = max; i > min; i--)
        if (!is_blank(text[i]) && !is_blank(text[i - 1]) && text[i] != ';' && text[i] != '#')
            return i;
    return 0;
}

/* What inih reads from: a piece of at most NUM - 1 octets.  One that begins with a blank continues
 * the key before. */
static char *
next_piece(char *out, int num, void *stream)
{
    struct reader *r = stream;
    size_t room = (size_t)num - 3; /* a blank before, a line end and NUL behind */
    size_t used = 0;

    if (r->at == r->n) {
        close_key(r);
        if (!read_line(r))
            return NULL;
        r->at = 0;
        trim_line(r);
        judge_line(r);
    }
    /* The first piece has the key. */
    size_t min = r->at == 0 ? strcspn(r->text, "=") : 0;
    size_t n = r->n - r->at;
    if (n > room && (n = find_cut(r->text + r->at, min, room)) == 0) {
        faults_add(r->faults, r->line, false, "a run of blanks, ; or # that is too long");
        r->is_open = false;
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

/* inih's handler: a key with the first piece of its value, or the next piece. */
static int
on_key(void *user, const char *section, const char *name, const char *value)
{
    struct reader *r = user;
    size_t n = 0;

    (void)section;
    if (r->is_open) {
        n = strlen(r->value);
    } else {
        r->is_open = true;
        r->key_line = r->line;
        span_copy(r->key, sizeof(r->key), span_str(name));
    }
    span_copy(r->value + n, sizeof(r->value) - n, span_str(value));
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
    bool is_ok = ini_parse_stream(next_piece, r, on_key, r) == 0 && !ferror(in);
    if (!is_ok)
        faults_add(f, r->line, false, "cannot read on after this line");
    free(r);
    return is_ok;
}
