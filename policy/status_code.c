#include "policy/status_code.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

static const struct status_code rows[] = {
#define STATUS_CODE(code, marker, title, cause, remedy) {code, marker, title, cause, remedy},
#include "policy/status_code.def"
#undef STATUS_CODE
};

#define ROWS (sizeof rows / sizeof rows[0])

/* Transport rules have a hundred codes of their own. */
#define RULE_FIRST 900u

struct enhanced {
    char class;
    unsigned subject, detail;
};

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
take_number(struct span *s, unsigned *value)
{
    size_t n = 0;

    *value = 0;
    while (n < s->n && n < 3 && is_digit(s->p[n]))
        *value = *value * 10 + (unsigned)(s->p[n++] - '0');
    *s = span_of(s->p + n, s->n - n);
    return n > 0;
}

static bool
take_dot(struct span *s)
{
    if (s->n == 0 || s->p[0] != '.')
        return false;
    *s = span_of(s->p + 1, s->n - 1);
    return true;
}

/* WORD is wholly an enhanced code. */
static bool
parse_enhanced(struct span word, struct enhanced *code)
{
    unsigned class;

    if (!take_number(&word, &class) || (class != 2 && class != 4 && class != 5))
        return false;
    code->class = (char)('0' + class);
    return take_dot(&word) && take_number(&word, &code->subject) && take_dot(&word) &&
           take_number(&word, &code->detail) && word.n == 0;
}

static bool
is_plain(struct span word)
{
    return word.n == 3 && word.p[0] >= '2' && word.p[0] <= '5' && is_digit(word.p[1]) &&
           is_digit(word.p[2]);
}

static bool
contains(struct span text, const char *part)
{
    size_t n = strlen(part);

    for (size_t i = 0; i + n <= text.n; i++)
        if (span_equal_nocase(span_of(text.p + i, n), span_of(part, n)))
            return true;
    return false;
}

static const struct status_code *
find_plain(struct span word)
{
    for (size_t i = 0; i < ROWS; i++)
        if (span_is(word, rows[i].code))
            return &rows[i];
    return NULL;
}

/* The codes of the rows: each refusal of a recipient looks for one. Class 0: a plain code. */
static struct enhanced codes[ROWS];

static void
parse_rows(void)
{
    for (size_t i = 0; i < ROWS; i++)
        if (!parse_enhanced(span_str(rows[i].code), &codes[i]))
            codes[i].class = 0;
}

static const struct status_code *
find_enhanced(struct enhanced code, struct span text)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, parse_rows);
    for (size_t i = 0; i < ROWS; i++)
        if (codes[i].class == code.class && codes[i].subject == code.subject &&
            codes[i].detail == code.detail && contains(text, rows[i].marker))
            return &rows[i];
    return NULL;
}

static const struct status_code *
explain(struct enhanced code, struct span text)
{
    struct enhanced other = code;
    const struct status_code *row = find_enhanced(code, text);

    /* A success says all that there is to say. */
    if (row != NULL || code.class == '2')
        return row;
    other.class = code.class == '4' ? '5' : '4';
    row = find_enhanced(other, text);
    if (row != NULL)
        return row;
    if (code.subject == 7 && code.detail > RULE_FIRST)
        code.detail = RULE_FIRST;
    else
        code.detail = 0;
    return find_enhanced(code, text);
}

/* All else parts words: the hyphen of a multi-line reply, the '#' and ';' of an NDR, quotes. */
static bool
is_of_word(char c)
{
    return is_digit(c) || c == '.' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

const struct status_code *
status_code_find(struct span text)
{
    struct span rest = text, word, plain = {0};
    const struct status_code *row = NULL;
    struct enhanced code;

    while (rest.n > 0 && row == NULL) {
        size_t n = 0;
        while (n < rest.n && is_of_word(rest.p[n]))
            n++;
        word = span_of(rest.p, n);
        rest = span_of(rest.p + n + (n < rest.n), rest.n - n - (n < rest.n));
        if (parse_enhanced(word, &code))
            row = explain(code, text);
        else if (plain.n == 0 && is_plain(word))
            plain = word;
    }
    return row == NULL && plain.n > 0 ? find_plain(plain) : row;
}

const char *
status_code_class(const char *code)
{
    switch (code[0]) {
    case '2':
        return "success";
    case '4':
        return "temporary: the sender tries again";
    case '5':
        return "permanent: the sender gives up";
    default:
        return "";
    }
}

size_t
status_code_count(void)
{
    return ROWS;
}

const struct status_code *
status_code_at(size_t i)
{
    return &rows[i];
}
