#define _GNU_SOURCE /* open_memstream */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <syslog.h>

#include <cmocka.h>

#include "tests/unit/load_settings.h"

/* Which settings are in force: for a domain, for a sender, after a reload. */

static void
test_domains(void **state)
{
    static const struct {
        const char *domain, *section;
    } cases[] = {
        {"a.example", "a.example"},
        {"b.example", "b.example"},
        {"x.b.example", "*.b.example"},
        {"x.y.b.example", "*.b.example"},
        {"c.b.example", "*.b.example"},
        {"x.c.b.example", "*.c.b.example"},
        {"d.c.b.example", "d.c.b.example"},
        {"x.d.c.b.example", "*.c.b.example"},
        {"xb.example", NULL},
        {"x.a.example", NULL},
        {".b.example", NULL},
        {"*.b.example", "*.b.example"},
        {"example", NULL},
        {"", NULL},
    };
    struct settings *st =
        load_good(BASE "[domain *.b.example]\ndownstream = x\nrecipients = downstream\n"
                       "[domain *.C.b.example]\ndownstream = y\nrecipients = downstream\n"
                       "[domain D.c.b.example]\ndownstream = x\nrecipients = downstream\n"
                       "[domain b.example]\ndownstream = y\ndirectory = two, one, two\n"
                       "[downstream y]\nhosts = h\n"
                       "[directory one]\nfile = /dev/null\n[directory]\nfile = /dev/null\n"
                       "[directory two]\nfile = /dev/null\n"
                       "[domain e.example]\ndownstream = y\n");

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const struct settings_domain *d = settings_domain_for(st, span_str(cases[i].domain));
        const char *is = d != NULL ? d->name : NULL;
        if ((is == NULL) != (cases[i].section == NULL) ||
            (is != NULL && strcmp(is, cases[i].section) != 0))
            fail_msg("%s: %s", cases[i].domain, is);
    }
    assert_null(settings_domain_for(st, span_of(NULL, 0)));
    const struct settings_domain *d = settings_domain_for(st, span_str("b.example"));
    assert_string_equal(st->downstreams[d->downstream_index].name, "y");
    assert_int_equal(d->n_directory_index, 3);
    assert_string_equal(st->directories[d->directory_index[0]].name, "two");
    assert_string_equal(st->directories[d->directory_index[1]].name, "one");
    d = settings_domain_for(st, span_str("e.example"));
    assert_int_equal(d->n_directory_index, 1);
    assert_string_equal(st->directories[d->directory_index[0]].name, "");
    d = settings_domain_for(st, span_str("a.example"));
    assert_int_equal(d->n_directory_index, 0);
    settings_unref(st);
}

static void
test_remote_domains(void **state)
{
    static const struct {
        const char *domain, *section;
    } cases[] = {
        {"", "default"},
        {"a.example", "default"},
        {"default", "default"},
        {"b.example", "b.example"},
        {"x.y.b.example", "*.b.example"},
        {"x", "default"},
        {"xb.example", "default"},
        {"x.c", "*.c"},
    };
    struct settings *st =
        load_good(BASE "[remote_domain B.example]\nndr = no\n[remote_domain *.c]\n"
                       "[remote_domain *.b.example]\nndr = unproven\n"
                       "[remote_domain Default]\nread_receipts = no\n");

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++)
        assert_string_equal(settings_remote_domain_for(st, span_str(cases[i].domain))->name,
                            cases[i].section);
    assert_int_equal(st->n_remote_domains, 4);
    assert_int_equal(settings_remote_domain_for(st, span_str("b.example"))->ndr, SETTINGS_NDR_NO);
    assert_false(settings_remote_domain_for(st, span_str(""))->read_receipts);
    settings_unref(st);
}

static void
test_keep_fixed(void **state)
{
    static const char old_text[] =
        "[server]\nhostname=a.example\nlisten=127.0.0.1:25\nworkers=2\nuser=root\nstate_dir=/tmp/"
        "a\n"
        "[control]\nsocket=/a\n[tls]\nmode=off\n[harvest]\nthreshold=5\n"
        "[domain a.example]\ndownstream=x\nrecipients=downstream\n[downstream x]\nhosts=h\n";
    struct settings *old = load_good(old_text), *same = load_good(old_text);
    struct settings *fresh = load_good(BASE "[control]\nsocket =\n[harvest]\nthreshold=6\n");
    char names[256];

    (void)state;
    assert_false(settings_keep_fixed(same, old, names, sizeof(names)));
    assert_string_equal(names, "");
    assert_true(settings_keep_fixed(fresh, old, names, sizeof(names)));
    assert_string_equal(
        names, "server.listen, server.workers, server.user, server.state_dir, control.socket");
    assert_int_equal(fresh->server.listen.n, 1);
    assert_int_equal(fresh->server.listen.v[0].port, 25);
    assert_int_equal(fresh->server.workers, 2);
    assert_string_equal(fresh->server.user, "root");
    assert_string_equal(fresh->server.state_dir, "/tmp/a");
    assert_string_equal(fresh->spool.dir, "/tmp/a");
    assert_string_equal(fresh->control.socket, "/a");
    assert_string_equal(fresh->server.hostname, "mx.example.com");
    assert_int_equal(fresh->harvest.threshold, 6);
    assert_false(settings_keep_fixed(fresh, old, names, sizeof(names)));
    /* and back: to nothing */
    struct settings *empty = load_good(BASE "[control]\nsocket =\n");
    assert_true(settings_keep_fixed(old, empty, names, 12));
    assert_string_equal(names, "server.list");
    assert_null(old->control.socket);
    assert_null(old->server.user);
    settings_unref(empty);
    settings_unref(fresh);
    settings_unref(same);
    settings_unref(old);
}

static void
test_directory_equal(void **state)
{
#define DIRECTORY(name) "[directory " name "]\ntype=ldap\nbase=b\nuri=ldaps://a, ldaps://b\n"
    static const struct {
        const char *line;
        bool agree;
    } changes[] = {
        {"mode = snapshot\n", false},     {"timeout = 1s\n", true},
        {"connections = 3\n", true},      {"cache_stale = 2d\n", true},
        {"starttls = yes\n", false},      {"attributes = mail\n", false},
        {"filter = (mail=%u)\n", false},  {"bind = external\n", false},
        {"ca_file = /dev/null\n", false}, {"plus_addressing = yes\n", false},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(changes); i++) {
        char text[1024];
        snprintf(text, sizeof(text), "%s%s%s%s", BASE DIRECTORY("a") DIRECTORY("b"), DIRECTORY("c"),
                 changes[i].line, "");
        struct loaded l = load(text);
        assert_non_null(l.st);
        const struct settings_directory *d = l.st->directories;
        assert_true(settings_directory_equal(&d[0], &d[1]));
        assert_true(settings_directory_agree(&d[0], &d[1]));
        if (settings_directory_equal(&d[0], &d[2]) ||
            settings_directory_agree(&d[0], &d[2]) != changes[i].agree)
            fail_msg("%s", changes[i].line);
        unload(&l);
    }
}

static void
test_references(void **state)
{
    struct settings *st = load_good(BASE);

    (void)state;
    assert_ptr_equal(settings_ref(st), st);
    settings_unref(st);
    assert_string_equal(st->server.hostname, "mx.example.com"); /* still there */
    settings_unref(st);
    settings_unref(NULL);
}

static void
test_facilities(void **state)
{
    (void)state;
    assert_int_equal(settings_facility("mail"), LOG_MAIL);
    assert_int_equal(settings_facility("kern"), 0);
    assert_int_equal(settings_facility("local7"), LOG_LOCAL7);
    assert_int_equal(settings_facility("local8"), -1);
    assert_int_equal(settings_facility(""), -1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_domains),    cmocka_unit_test(test_remote_domains),
        cmocka_unit_test(test_keep_fixed), cmocka_unit_test(test_directory_equal),
        cmocka_unit_test(test_references), cmocka_unit_test(test_facilities),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
