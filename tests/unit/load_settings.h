#ifndef TESTS_UNIT_LOAD_SETTINGS_H
#define TESTS_UNIT_LOAD_SETTINGS_H

/* Settings from a string, and what is said about them.  Needs cmocka.h and _GNU_SOURCE before it.
 */

#include <stdio.h>
#include <stdlib.h>

#include "conf/settings.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/* What is good by itself, in 9 lines. */
#define BASE                                                                                       \
    "[server]\nhostname = mx.example.com\n"                                                        \
    "[tls]\nmode = off\n"                                                                          \
    "[domain a.example]\ndownstream = x\nrecipients = downstream\n"                                \
    "[downstream x]\nhosts = h\n"

struct loaded {
    struct settings *st;
    char *faults;
};

static inline struct loaded
load(const char *text)
{
    FILE *in = tmpfile();
    struct faults *f = faults_new();
    struct loaded l = {NULL, NULL};
    size_t n = 0;
    FILE *out = open_memstream(&l.faults, &n);

    assert_non_null(in);
    assert_non_null(out);
    fputs(text, in);
    rewind(in);
    l.st = settings_read(in, "f", f);
    faults_print(f, "f", out);
    fclose(out);
    fclose(in);
    faults_free(&f);
    return l;
}

static inline void
unload(struct loaded *l)
{
    settings_unref(l->st);
    free(l->faults);
}

static inline struct settings *
load_good(const char *text)
{
    struct loaded l = load(text);

    if (l.st == NULL || l.faults[0] != '\0')
        fail_msg("%s:\n%s", text, l.faults);
    free(l.faults);
    return l.st;
}

#endif
