#define _GNU_SOURCE /* open_memstream */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/reference.h"
#include "conf/settings.h"

/* conf/postern.ini and the list of keys in docs/postern.ini.5 are what conf/settings.def says.
 * `test_reference update` writes both anew. */

#define INI    SOURCE_DIR "/conf/postern.ini"
#define MANUAL SOURCE_DIR "/docs/postern.ini.5"
#define BEGIN  ".\\\" The keys: written by `test_reference update` from conf/settings.def.\n"
#define END    ".\\\" End of the keys.\n"

static char *
read_file(const char *path)
{
    FILE *in = fopen(path, "re");
    char *text = NULL;
    size_t n = 0;

    if (in == NULL)
        return NULL;
    if (getdelim(&text, &n, '\0', in) < 0) {
        free(text);
        text = NULL;
    }
    fclose(in);
    return text;
}

static char *
written(void (*write)(FILE *))
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    if (out != NULL) {
        write(out);
        fclose(out);
    }
    return text;
}

static void
test_ini(void **state)
{
    char *is = read_file(INI), *should = written(reference_write_ini);

    (void)state;
    assert_non_null(is);
    assert_string_equal(is, should);
    free(is);
    free(should);
}

static void
test_manual(void **state)
{
    char *is = read_file(MANUAL), *should = written(reference_write_manual);

    (void)state;
    assert_non_null(is);
    char *begin = strstr(is, BEGIN);
    assert_non_null(begin);
    begin += strlen(BEGIN);
    char *end = strstr(begin, END);
    assert_non_null(end);
    *end = '\0';
    assert_string_equal(begin, should);
    free(is);
    free(should);
}

/* What is shipped can be started from. */
static void
test_ini_is_good(void **state)
{
    struct faults *f = faults_new();
    struct settings *st = settings_load(INI, f);
    char first[256];

    (void)state;
    faults_first(f, INI, first, sizeof(first));
    assert_string_equal(first, "");
    assert_non_null(st);
    assert_ptr_equal(settings_domain_for(st, span_str("example.com")), &st->domains[0]);
    settings_unref(st);
    faults_free(&f);
}

static int
update(void)
{
    char *old = read_file(MANUAL);
    char *begin = old != NULL ? strstr(old, BEGIN) : NULL;
    char *end = begin != NULL ? strstr(begin, END) : NULL;

    if (end == NULL) {
        fprintf(stderr, "%s: no place for the keys\n", MANUAL);
        free(old);
        return EXIT_FAILURE;
    }
    FILE *ini = fopen(INI, "we"), *manual = fopen(MANUAL, "we");
    if (ini == NULL || manual == NULL) {
        perror("fopen");
        return EXIT_FAILURE;
    }
    reference_write_ini(ini);
    fwrite(old, 1, (size_t)(begin - old) + strlen(BEGIN), manual);
    reference_write_manual(manual);
    fputs(end, manual);
    fclose(ini);
    fclose(manual);
    free(old);
    return EXIT_SUCCESS;
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ini),
        cmocka_unit_test(test_manual),
        cmocka_unit_test(test_ini_is_good),
    };

    if (argc > 1 && strcmp(argv[1], "update") == 0)
        return update();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
