#define _GNU_SOURCE /* open_memstream, mkdtemp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/span.h"
#include "conf/settings.h"
#include "proxy/init.h"

#define ETC "/etc/postern"

static const struct init_answers usual = {.hostname = "mx1.example.com",
                                          .domain = "example.com",
                                          .exchange = "ex1.corp.example.com",
                                          .ad = "ldaps://dc1.corp.example.com",
                                          .base = "DC=corp,DC=example,DC=com"};

/* What is written; NULL, and the error, if nothing is. */
static char *
write_answers(const struct init_answers *a, struct err *e)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    assert_non_null(out);
    int result = init_write(a, out, e);
    fclose(out);
    if (result == 0)
        return text;
    assert_int_equal(n, 0);
    free(text);
    return NULL;
}

/* TEXT with every ETC made DIRECTORY. */
static char *
move_files(const char *text, const char *directory)
{
    char *moved = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&moved, &n);
    const char *found;

    assert_non_null(out);
    while ((found = strstr(text, ETC)) != NULL) {
        fprintf(out, "%.*s%s", (int)(found - text), text, directory);
        text = found + sizeof(ETC) - 1;
    }
    fputs(text, out);
    fclose(out);
    return moved;
}

static const char *const files[] = {"mx1.example.com.crt", "mx1.example.com.key", "ad-ca.crt",
                                    "ad-password"};
#define FILES (sizeof(files) / sizeof(files[0]))

static void
make_path(char out[64], const char *directory, const char *name)
{
    assert_true((size_t)snprintf(out, 64, "%s/%s", directory, name) < 64);
}

/* The settings that TEXT makes once the files it names are there; there must be no fault or doubt.
 */
static struct settings *
settings_of(const char *text)
{
    char directory[] = "/tmp/postern-init-XXXXXX", path[64];
    unsigned line;
    bool is_warning;
    size_t i = 0;

    assert_non_null(mkdtemp(directory));
    for (size_t k = 0; k < FILES; k++) {
        make_path(path, directory, files[k]);
        FILE *file = fopen(path, "we");
        assert_non_null(file);
        fputs("secret\n", file);
        fclose(file);
        assert_int_equal(chmod(path, 0640), 0);
    }
    char *moved = move_files(text, directory);
    FILE *in = fmemopen(moved, strlen(moved), "r");
    struct faults *f = faults_new();
    struct settings *st = settings_read(in, "init", f);
    const char *fault = faults_next(f, &i, &line, &is_warning);
    if (fault != NULL)
        fail_msg("line %u: %s", line, fault);
    faults_free(&f);
    fclose(in);
    free(moved);
    for (size_t k = 0; k < FILES; k++) {
        make_path(path, directory, files[k]);
        unlink(path);
    }
    rmdir(directory);
    return st;
}

static void
test_usual(void **state)
{
    struct err e = {.kind = ERR_NONE};
    char *text = write_answers(&usual, &e);

    (void)state;
    assert_non_null(text);
    struct settings *st = settings_of(text);
    assert_string_equal(st->server.hostname, "mx1.example.com");
    assert_true(st->server.monitor);
    assert_string_equal(st->domains[0].name, "example.com");
    assert_string_equal(st->downstreams[0].hosts.v[0].name, "ex1.corp.example.com");
    assert_int_equal(st->downstreams[0].hosts.v[0].port, 25);
    assert_string_equal(st->directories[0].uri.v[0], "ldaps://dc1.corp.example.com");
    assert_string_equal(st->directories[0].base, "DC=corp,DC=example,DC=com");
    assert_string_equal(st->directories[0].bind_dn, "postern@corp.example.com");
    assert_false(st->directories[0].starttls);
    settings_unref(st);
    free(text);
}

/* Where a package has made the user, -t asks in its name what it may read. */
static void
test_user(void **state)
{
    struct init_answers a = usual;
    struct err e = {.kind = ERR_NONE};

    (void)state;
    char *text = write_answers(&a, &e);
    assert_non_null(text);
    assert_null(strstr(text, "user ="));
    free(text);
    a.has_user = true;
    text = write_answers(&a, &e);
    assert_non_null(text);
    assert_non_null(strstr(text, "\nhostname = mx1.example.com\nuser = postern\n"));
    free(text);
}

static void
test_catalogues_in_the_clear(void **state)
{
    struct init_answers a = usual;
    struct err e = {.kind = ERR_NONE};

    (void)state;
    a.exchange = "ex1:2525, [2001:db8::2]:25";
    a.ad = "ldap://dc1:3268, ldaps://dc2.corp.example.com:3269";
    a.base = NULL;
    char *text = write_answers(&a, &e);
    assert_non_null(text);
    struct settings *st = settings_of(text);
    assert_int_equal(st->downstreams[0].hosts.n, 2);
    assert_int_equal(st->directories[0].uri.n, 2);
    assert_true(st->directories[0].starttls);
    assert_null(st->directories[0].base);
    assert_string_equal(st->directories[0].bind_dn, "postern@corp.example.com");
    settings_unref(st);
    free(text);
}

static void
test_base(void **state)
{
    static const struct {
        const char *ad, *base;
    } rows[] = {
        {"ldaps://dc1.corp.example.com", "DC=corp,DC=example,DC=com"},
        {"ldap://dc1.corp.example.net:389, ldaps://dc2.other.example", "DC=corp,DC=example,DC=net"},
        {"ldaps://dc1.corp.example.com:3269, ldaps://dc2.corp.example.com",
         "DC=corp,DC=example,DC=com"},
        {"ldaps://dc1.corp.example.com:3269", NULL},
        {"ldaps://dc1", "DC=example,DC=com"},
        {"ldaps://192.0.2.1", "DC=example,DC=com"},
        {"ldaps://[2001:db8::1]:636", "DC=example,DC=com"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct init_answers a = usual;
        struct err e = {.kind = ERR_NONE};
        a.ad = rows[i].ad;
        a.base = NULL;
        char *text = write_answers(&a, &e);
        assert_non_null(text);
        struct settings *st = settings_of(text);
        const char *base = st->directories[0].base;
        if (rows[i].base == NULL ? base != NULL : base == NULL || strcmp(base, rows[i].base) != 0)
            fail_msg("row %zu: %s", i, base != NULL ? base : "none");
        settings_unref(st);
        free(text);
    }
}

static void
test_refused(void **state)
{
    static const struct {
        struct init_answers a;
        const char *says;
    } rows[] = {
        {{NULL, "d.example", "ex", "ldaps://dc", "DC=d", false}, "--hostname"},
        {{"mx.d.example", NULL, "ex", "ldaps://dc", "DC=d", false}, "--domain"},
        {{"mx.d.example", "d.example", NULL, "ldaps://dc", "DC=d", false}, "--exchange"},
        {{"mx.d.example", "d.example", "ex", NULL, "DC=d", false}, "--ad"},
        {{"mx d", "d.example", "ex", "ldaps://dc", "DC=d", false}, "not a host name"},
        {{"mx.d.example", "@d", "ex", "ldaps://dc", "DC=d", false}, "not a domain"},
        {{"mx.d.example", "d.example,e.example", "ex", "ldaps://dc", "DC=d", false},
         "others get a section each"},
        {{"mx.d.example", "d.example", "ex:0", "ldaps://dc", "DC=d", false}, "--exchange"},
        {{"mx.d.example", "d.example", "", "ldaps://dc", "DC=d", false}, "--exchange"},
        {{"mx.d.example", "d.example", "ex", "dc1", "DC=d", false}, "--ad"},
        {{"mx.d.example", "d.example", "ex", "ldapi:///", "DC=d", false}, "--ad"},
        {{"mx.d.example", "d.example", "ex", "ldaps://", "DC=d", false}, "--ad"},
        {{"mx.d.example", "d.example", "ex", "ldaps://dc", "DC=d\n[log]", false}, "one line"},
        {{"mx.d.example", "d.example", "ex", "ldaps://dc", "DC=d ;", false}, "one line"},
        {{"mx.d.example", "d.example", "ex\rx", "ldaps://dc", "DC=d", false}, "one line"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct err e = {.kind = ERR_NONE};
        char *text = write_answers(&rows[i].a, &e);
        if (text != NULL || strstr(e.text, rows[i].says) == NULL)
            fail_msg("row %zu: %s", i, text != NULL ? text : e.text);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_usual), cmocka_unit_test(test_user),
                                       cmocka_unit_test(test_catalogues_in_the_clear),
                                       cmocka_unit_test(test_base), cmocka_unit_test(test_refused)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
