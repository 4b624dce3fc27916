#define _GNU_SOURCE /* fmemopen, open_memstream */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/ini_reader.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))
#define S(text)   (text), sizeof(text) - 1

static void
on_section(void *arg, unsigned line, const char *name)
{
    fprintf(arg, "%u[%s]\n", line, name);
}

static void
on_key(void *arg, unsigned line, const char *key, const char *value)
{
    fprintf(arg, "%u{%s}{%s}\n", line, key, value);
}

/* What the reader tells of TEXT, and then the faults. */
static char *
read_text(const char *text, size_t n)
{
    static const struct ini_events events = {.section = on_section, .key = on_key};
    FILE *in = tmpfile();
    char *is = NULL;
    size_t is_n = 0;
    FILE *out = open_memstream(&is, &is_n);
    struct faults *f = faults_new();

    assert_non_null(in);
    assert_non_null(out);
    assert_int_equal(fwrite(text, 1, n, in), n);
    rewind(in);
    assert_true(ini_reader_run(in, &events, out, f));
    faults_print(f, "f", out);
    fclose(out);
    fclose(in);
    faults_free(&f);
    return is;
}

#define NEITHER "neither [section] nor key = value\n"

static void
test_lines(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        const char *should;
    } cases[] = {
        {S(""), ""},
        {S("\n\n"), ""},
        {S("k=v"), "1{k}{v}\n"},
        {S("k=v\n"), "1{k}{v}\n"},
        {S("k=v\r\n[s]\r\n"), "1{k}{v}\n2[s]\n"},
        {S("[s]\nk = v\n\n[domain  example.com]\n a=b \n"),
         "1[s]\n2{k}{v}\n4[domain  example.com]\n5{a}{b}\n"},
        {S(" \t[ s ]\t \n"), "1[s]\n"},
        {S("[]\n"), "1[]\n"},
        /* indentation is no continuation */
        {S("a=b\n  c=d\n\te=f\n"), "1{a}{b}\n2{c}{d}\n3{e}{f}\n"},
        {S("a=b\n  c\n"), "1{a}{b}\nf:2: " NEITHER},
        /* values */
        {S("k=\n"), "1{k}{}\n"},
        {S("k = \t\n"), "1{k}{}\n"},
        {S("k =  a  b\t"), "1{k}{a  b}\n"},
        {S("k=a=b:c[d]"), "1{k}{a=b:c[d]}\n"},
        {S("k=[::]:25"), "1{k}{[::]:25}\n"},
        {S("k=\xc3\xa4\xff"), "1{k}{\xc3\xa4\xff}\n"},
        {S("k=\"a\""), "1{k}{\"a\"}\n"},
        {S("k=a\\"), "1{k}{a\\}\n"},
        /* comments */
        {S("; a = b\n# a = b\n  ; [s]\n  # [s]\n"), ""},
        {S("k = v ; c\n"), "1{k}{v}\n"},
        {S("k = v\t; c ; d\n"), "1{k}{v}\n"},
        {S("k = v; c\n"), "1{k}{v; c}\n"},
        {S("k = v # c\n"), "1{k}{v # c}\n"},
        {S("k = a;b#c\n"), "1{k}{a;b#c}\n"},
        {S("k = ; c\n"), "1{k}{}\n"},
        {S("k =; c\n"), "1{k}{; c}\n"},
        {S("[s] ; c\n"), "1[s]\n"},
        {S("k ; = v\n"), "f:1: " NEITHER},
        /* a byte order mark is one in the first line only */
        {S("\xef\xbb\xbf[s]\n"), "1[s]\n"},
        {S("\xef\xbb\xbf k=v\n"), "1{k}{v}\n"},
        {S("\n\xef\xbb\xbf[s]\n"), "f:2: " NEITHER},
        /* faults */
        {S("word\n"), "f:1: " NEITHER},
        {S("two words\n"), "f:1: " NEITHER},
        {S("= v\n"), "f:1: " NEITHER},
        {S("k : v\n"), "f:1: " NEITHER},
        {S("k : v = w\n"), "f:1: " NEITHER},
        {S("[s\n"), "f:1: a section is written [NAME]\n"},
        {S("[\n"), "f:1: a section is written [NAME]\n"},
        {S("[s] k = v\n"), "f:1: a section is written [NAME]\n"},
        {S("s]\n"), "f:1: " NEITHER},
        {S("k=a\0b\nl=m\n"), "2{l}{m}\nf:1: a control character in the line\n"},
        {S("\0"), "f:1: a control character in the line\n"},
        {S("k=a\x01\n"), "f:1: a control character in the line\n"},
        {S("k=a\rb=c\n"), "f:1: a control character in the line\n"},
        {S("k=v\r\r\n"), "f:1: a control character in the line\n"},
        {S("a b = c\n"), "1{a b}{c}\n"},
        {S("a=1\na=2\n"), "1{a}{1}\n2{a}{2}\n"},
        {S("k23456789012345678901234567890123456789012345678901234567890123=v\n"),
         "1{k23456789012345678901234567890123456789012345678901234567890123}{v}\n"},
        {S("k234567890123456789012345678901234567890123456789012345678901234=v\n"),
         "f:1: unknown key: "
         "k23456789012345678901234567890123456789012345678901234567890123...\n"},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char *is = read_text(cases[i].text, cases[i].n);
        if (strcmp(is, cases[i].should) != 0)
            fail_msg("%zu: \"%s\": \"%s\"", i, cases[i].text, is);
        free(is);
    }
}

/* inih has room for 199 octets; whatever the length, and wherever a blank or a comment's sign
 * stands near its ends, a value comes whole, and the line after it too. */
static void
test_long_values(void **state)
{
    static const char *const patterns[] = {"x",    "(mail=%u)", "ab ", "ab  cd",
                                           "xy;#", "ab;",       "=",   "a, bc, d, "};
    char text[1100], should[1100];

    (void)state;
    for (size_t p = 0; p < LENGTH(patterns); p++) {
        for (size_t n = 1; n<900; n += n> 500 ? 13 : 1) {
            char value[1024] = "v";
            for (size_t i = 1; i < n; i++)
                value[i] = patterns[p][i % strlen(patterns[p])];
            while (value[strlen(value) - 1] == ' ')
                value[strlen(value) - 1] = '\0';
            snprintf(text, sizeof(text), "key = %s\nl=m", value);
            snprintf(should, sizeof(should), "1{key}{%s}\n2{l}{m}\n", value);
            char *is = read_text(text, strlen(text));
            if (strcmp(is, should) != 0)
                fail_msg("%s, %zu:\n%s\n%s", patterns[p], n, is, should);
            free(is);
        }
    }
}

/* The comment goes before the line is cut. */
static void
test_long_comment(void **state)
{
    char text[1024] = "key = value ; ";

    (void)state;
    for (size_t n = strlen(text); n + 9 < sizeof(text); n += 9)
        snprintf(text + n, sizeof(text) - n, "%s", "comment ;");
    char *is = read_text(text, strlen(text));
    assert_string_equal(is, "1{key}{value}\n");
    free(is);
}

static void
test_longest_line(void **state)
{
    char text[INI_READER_LINE_MAX + 3];

    (void)state;
    memset(text, 'x', sizeof(text));
    text[0] = 'k';
    text[1] = '=';
    text[INI_READER_LINE_MAX] = '\n';
    char *is = read_text(text, INI_READER_LINE_MAX + 1);
    assert_int_equal(strlen(is), strlen("1{k}{}\n") + INI_READER_LINE_MAX - 2);
    free(is);
    text[INI_READER_LINE_MAX] = 'x';
    text[INI_READER_LINE_MAX + 1] = '\n';
    is = read_text(text, INI_READER_LINE_MAX + 2);
    assert_string_equal(is, "f:1: over-long line: more than 4096 octets\n");
    free(is);
    /* Also a comment. */
    text[0] = ';';
    is = read_text(text, INI_READER_LINE_MAX + 2);
    assert_string_equal(is, "f:1: over-long line: more than 4096 octets\n");
    free(is);
}

/* What cannot be cut without loss is refused, not changed. */
static void
test_blanks(void **state)
{
    char text[512];

    (void)state;
    for (int blanks = 180; blanks < 210; blanks++) {
        snprintf(text, sizeof(text), "key = a%*sb\nl=m", blanks, "");
        char *is = read_text(text, strlen(text));
        char should[512];
        snprintf(should, sizeof(should), "1{key}{a%*sb}\n2{l}{m}\n", blanks, "");
        if (strcmp(is, should) != 0)
            assert_string_equal(is, "2{l}{m}\nf:1: a run of blanks, ; or # that is too long\n");
        else
            assert_true(blanks < 199);
        free(is);
        snprintf(text, sizeof(text), "key =%*sb\nl=m", blanks, "");
        is = read_text(text, strlen(text));
        if (strcmp(is, "1{key}{b}\n2{l}{m}\n") != 0)
            assert_string_equal(is, "2{l}{m}\nf:1: a run of blanks, ; or # that is too long\n");
        free(is);
    }
}

static void
test_unreadable(void **state)
{
    static const struct ini_events events = {.section = on_section, .key = on_key};
    struct faults *f = faults_new();
    FILE *in = fopen("/", "r"); /* opens, and cannot be read */

    (void)state;
    assert_non_null(in);
    assert_false(ini_reader_run(in, &events, stderr, f));
    assert_int_equal(faults_errors(f), 1);
    fclose(in);
    faults_free(&f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),        cmocka_unit_test(test_long_values),
        cmocka_unit_test(test_long_comment), cmocka_unit_test(test_longest_line),
        cmocka_unit_test(test_blanks),       cmocka_unit_test(test_unreadable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
