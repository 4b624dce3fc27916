#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ldap/dir_file.h"

static char path[] = "/tmp/postern-test-XXXXXX";

static int
make_file(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int
remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static struct dir_file *
load(const char *text, size_t n, struct err *e)
{
    FILE *out = fopen(path, "w");

    assert_int_equal(fwrite(text, 1, n, out), n);
    assert_int_equal(fclose(out), 0);
    return dir_file_load(path, e);
}

static void
reads_addresses_domains_and_comments(void **state)
{
    static const char text[] = "\xef\xbb\xbf# people\r\nAnna@Ex.Test\r\n\n  ben@ex.test\t# a note\n"
                               "c#d@ex.test\n@all.test\nanna@ex.test\nlast@ex.test";
    struct err e = {.kind = ERR_NONE};
    struct dir_file *f = load(text, sizeof text - 1, &e);

    (void)state;
    assert_non_null(f);
    assert_int_equal(dir_file_count(f), 5);
    assert_true(dir_file_has(f, span_str("anna@ex.test")));
    assert_true(dir_file_has(f, span_str("ben@ex.test")));
    assert_true(dir_file_has(f, span_str("c#d@ex.test")));
    assert_true(dir_file_has(f, span_str("anybody@all.test")));
    assert_true(dir_file_has(f, span_str("last@ex.test")));
    assert_false(dir_file_has(f, span_str("carl@ex.test")));
    assert_false(dir_file_has(f, span_str("anna@ex.tes")));
    assert_false(dir_file_has(f, span_str("anybody@sub.all.test")));
    assert_false(dir_file_has(f, span_str("anna")));
    assert_false(dir_file_has(f, span_of("", 0)));
    dir_file_free(&f);
    assert_null(f);
}

static void
names_the_line_at_fault(void **state)
{
    struct err e = {.kind = ERR_NONE};
    char text[128];

    (void)state;
    assert_null(load("a@b\n\nno address\n", 16, &e));
    snprintf(text, sizeof text, "%s:3:", path);
    assert_int_equal(strncmp(e.text, text, strlen(text)), 0);
    assert_null(load("a@b\nb@c\0d\n", 10, &e));
    snprintf(text, sizeof text, "%s:2:", path);
    assert_int_equal(strncmp(e.text, text, strlen(text)), 0);
    assert_null(load("no\na@b\nno\nno\n", 13, &e));
    snprintf(text, sizeof text, "%s:1: neither an address nor @domain (2 more such)", path);
    assert_string_equal(e.text, text);
    /* These could match nobody. */
    static const char *const futile[] = {
        "<a@b.test>", "a@b.test:", "a@b.test;c",    "@*.b.test",         "a@b.test.",
        "a@",         "a@@b.test", "smtp:a@b.test", "a@b.test,c@d.test", "a\"b@b.test"};
    for (size_t i = 0; i < sizeof futile / sizeof futile[0]; i++)
        assert_null(load(futile[i], strlen(futile[i]), &e));
    struct dir_file *f = load("\"smtp:a\"@b.test", 15, &e);
    assert_non_null(f);
    dir_file_free(&f);
    assert_null(dir_file_load("/nowhere/at/all", &e));
    assert_int_equal(e.kind, ERR_CONFIG);
}

static void
an_empty_file_knows_nobody(void **state)
{
    struct err e = {.kind = ERR_NONE};
    struct dir_file *f = load("", 0, &e);

    (void)state;
    assert_non_null(f);
    assert_int_equal(dir_file_count(f), 0);
    assert_false(dir_file_has(f, span_str("a@b")));
    dir_file_free(&f);
}

static void
holds_a_hundred_thousand(void **state)
{
    struct err e = {.kind = ERR_NONE};
    FILE *out = fopen(path, "w");
    struct dir_file *f;
    char address[64];

    (void)state;
    for (int i = 0; i < 100000; i++)
        fprintf(out, "user%d@example.test\n", i);
    fclose(out);
    f = dir_file_load(path, &e);
    assert_non_null(f);
    assert_int_equal(dir_file_count(f), 100000);
    for (int i = 0; i < 100000; i++) {
        snprintf(address, sizeof address, "user%d@example.test", i);
        assert_true(dir_file_has(f, span_str(address)));
        snprintf(address, sizeof address, "user%d@example.org", i);
        assert_false(dir_file_has(f, span_str(address)));
    }
    dir_file_free(&f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_addresses_domains_and_comments),
        cmocka_unit_test(names_the_line_at_fault),
        cmocka_unit_test(an_empty_file_knows_nobody),
        cmocka_unit_test(holds_a_hundred_thousand),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}
