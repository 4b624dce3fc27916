#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "conf/faults.h"
#include "ldap/directory.h"

/* The facade, over files and over servers that nobody runs (port 1 of loopback refuses at once). */

static char first_path[] = "/tmp/postern-test-XXXXXX";
static char second_path[] = "/tmp/postern-test-XXXXXX";

static void
put(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
}

static int
make_files(void **state)
{
    (void)state;
    if (close(mkstemp(first_path)) < 0 || close(mkstemp(second_path)) < 0)
        return -1;
    put(first_path, "anna@ex.test\n");
    put(second_path, "ben@ex.test\n@all.test\n");
    return 0;
}

static int
remove_files(void **state)
{
    (void)state;
    return unlink(first_path) + unlink(second_path);
}

static struct settings *
settings(const char *directories, const char *first_extra)
{
    char text[4096];
    struct faults *faults = faults_new();
    struct settings *st;
    FILE *in;

    snprintf(
        text, sizeof text,
        "[server]\nhostname = mx.ex.test\nstate_dir =\n"
        "[domain ex.test]\ndownstream = d\ndirectory = %s\n[downstream d]\nhosts = 127.0.0.1:1\n"
        "[directory first]\ntype = file\nfile = %s\n%s\n"
        "[directory second]\ntype = file\nfile = %s\n"
        "[directory gone]\ntype = ldap\nuri = ldap://127.0.0.1:1\nbind = anonymous\nbase = dc=x\n"
        "timeout = 1m\n"
        "[directory trusting]\ntype = ldap\nuri = ldap://127.0.0.1:1\nbind = anonymous\nbase = "
        "dc=x\n"
        "timeout = 1m\non_failure = accept\n",
        directories, first_path, first_extra, second_path);
    in = fmemopen(text, strlen(text), "r");
    st = settings_read(in, "test.ini", faults);
    if (!st)
        faults_print(faults, "test.ini", stderr);
    fclose(in);
    faults_free(&faults);
    assert_non_null(st);
    return st;
}

struct fixture {
    struct settings *st;
    struct directories *d;
    struct directory_client *c;
    struct dir_answer answer;
    unsigned answers;
};

static void
begin(struct fixture *x, const char *directories, const char *first_extra)
{
    struct err e = {.kind = ERR_NONE};

    *x = (struct fixture){.st = settings(directories, first_extra)};
    x->d = directories_new(x->st, &e);
    assert_non_null(x->d);
    x->c = directory_client_new(x->d);
    assert_non_null(x->c);
}

static void
end(struct fixture *x)
{
    directory_client_free(&x->c);
    directories_free(&x->d);
    settings_unref(x->st);
}

static void
done(void *arg, const struct dir_answer *answer)
{
    struct fixture *x = arg;

    x->answer = *answer;
    x->answers++;
}

static void
dispatch(struct fixture *x)
{
    struct pollfd fd = {.fd = directory_client_fd(x->c), .events = POLLIN};

    poll(&fd, 1, 1000);
    directory_client_dispatch(x->c, clock_ms());
}

static enum dir_status
ask(struct fixture *x, const char *address, unsigned flags)
{
    uint64_t ticket;
    enum dir_status status =
        directory_ask(x->c, &x->st->domains[0], span_str(address), span_str(""), flags, clock_ms(),
                      &x->answer, done, x, &ticket);

    x->answers = 0;
    while (status == DIR_PENDING && x->answers == 0)
        dispatch(x);
    return x->answer.status;
}

static void
the_first_that_knows_answers(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "first, second", "");
    assert_int_equal(ask(&x, "anna@ex.test", 0), DIR_FOUND);
    assert_int_equal(x.answer.source, DIR_SOURCE_FILE);
    assert_int_equal(ask(&x, "ben@ex.test", 0), DIR_FOUND);
    assert_int_equal(ask(&x, "who@all.test", DIR_ASK_LIVE), DIR_FOUND);
    assert_int_equal(ask(&x, "carl@ex.test", 0), DIR_ABSENT);
    assert_int_equal(ask(&x, "anna+tag@ex.test", 0), DIR_ABSENT);
    assert_int_equal(ask(&x, "", 0), DIR_UNAVAILABLE);
    end(&x);
}

static void
a_tag_falls_back(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "first, second", "plus_addressing = yes");
    assert_int_equal(ask(&x, "anna+tag@ex.test", 0), DIR_FOUND);
    assert_int_equal(ask(&x, "carl+tag@ex.test", 0), DIR_ABSENT);
    assert_int_equal(ask(&x, "ben+tag@ex.test", 0), DIR_ABSENT); /* not in that directory */
    end(&x);
}

/* Uncertain is never "no": one that cannot be asked keeps the unknown from being unknown. */
static void
one_that_is_away_makes_the_unknown_uncertain(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "first, gone, second", "");
    assert_int_equal(ask(&x, "anna@ex.test", 0), DIR_FOUND);
    assert_int_equal(ask(&x, "ben@ex.test", 0), DIR_FOUND);
    assert_int_equal(ask(&x, "carl@ex.test", 0), DIR_UNAVAILABLE);
    assert_int_equal(x.answer.source, DIR_SOURCE_NONE);
    assert_false(directories_ready(x.d));
    end(&x);
}

static void
on_failure_may_accept(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "first, trusting", "");
    assert_int_equal(ask(&x, "carl@ex.test", 0), DIR_FOUND);
    assert_int_equal(x.answer.source, DIR_SOURCE_NONE);
    assert_int_equal(ask(&x, "anna@ex.test", 0), DIR_FOUND);
    assert_int_equal(x.answer.source, DIR_SOURCE_FILE);
    end(&x);
}

static void
a_reload_reads_files_again(void **state)
{
    struct err e = {.kind = ERR_NONE};
    struct fixture x;

    (void)state;
    begin(&x, "first, second", "");
    assert_int_equal(ask(&x, "new@ex.test", 0), DIR_ABSENT);
    put(first_path, "new@ex.test\nanna@ex.test\n");
    assert_int_equal(ask(&x, "new@ex.test", 0), DIR_ABSENT);
    assert_int_equal(directories_reload(x.d, x.st, &e), 0);
    assert_int_equal(ask(&x, "new@ex.test", 0), DIR_FOUND);
    put(first_path, "not an address\n");
    assert_int_equal(directories_reload(x.d, x.st, &e), -1);
    assert_int_not_equal(e.kind, ERR_NONE);
    assert_int_equal(ask(&x, "new@ex.test", 0), DIR_FOUND);
    put(first_path, "anna@ex.test\n");
    end(&x);
}

/* A question that waits is forgotten with its ticket, and with its client. */
static void
a_cancelled_question_is_not_answered(void **state)
{
    struct fixture x;
    uint64_t ticket = 0;
    enum dir_status status;

    (void)state;
    begin(&x, "gone", "");
    status = directory_ask(x.c, &x.st->domains[0], span_str("a@ex.test"), span_str(""), 0,
                           clock_ms(), &x.answer, done, &x, &ticket);
    if (status == DIR_PENDING) {
        assert_true(directory_client_next_ms(x.c) < INT64_MAX);
        directory_cancel(x.c, ticket);
        assert_true(directory_client_next_ms(x.c) == INT64_MAX);
    }
    directory_cancel(x.c, ticket);
    assert_int_equal(ask(&x, "b@ex.test", 0), DIR_UNAVAILABLE);
    assert_int_equal(x.answers, x.answers > 0 ? 1 : 0);
    end(&x);
}

/* A server that takes connections and says nothing, as a section in TEXT.  Its socket. */
static int
listen_silently(char *text, size_t capacity, const char *timeout)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&in, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
    assert_int_equal(listen(fd, 8), 0);
    snprintf(text, capacity,
             "[directory silent]\ntype = ldap\nuri = ldap://127.0.0.1:%d\nbind = anonymous\n"
             "base = dc=x\ntimeout = %s\n",
             ntohs(in.sin_port), timeout);
    return fd;
}

/* Another directory's threads were begun, and may be connecting to a server that hangs. */
static void
a_reload_that_fails_waits_for_nobody(void **state)
{
    struct err e = {.kind = ERR_NONE};
    int64_t began_ms = clock_ms();
    struct settings *next;
    char section[160];
    struct fixture x;
    int silent = listen_silently(section, sizeof section, "1m");

    (void)state;
    begin(&x, "first", "");
    next = settings("first", section);
    assert_int_equal(unlink(second_path), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(directories_reload(x.d, next, &e), -1);
    assert_non_null(strstr(e.text, "directory second"));
    assert_true(clock_ms() - began_ms < 30000);
    put(second_path, "ben@ex.test\n@all.test\n");
    assert_int_equal(ask(&x, "anna@ex.test", 0), DIR_FOUND);
    end(&x); /* nor does this */
    close(silent);
    settings_unref(next);
}

/* By a server that never answers.  Who asks what was asked waits for the same answer. */
static void
ten_thousand_questions_are_enough(void **state)
{
    char section[160], address[32];
    int silent = listen_silently(section, sizeof section, "3s");
    uint64_t ticket;
    struct fixture x;

    (void)state;
    begin(&x, "silent", section);
    for (unsigned i = 0; i < 10002; i++) {
        snprintf(address, sizeof address, "user%u@ex.test", i < 10001 ? i : 0);
        assert_int_equal(directory_ask(x.c, &x.st->domains[0], span_str(address), span_str(""), 0,
                                       clock_ms(), &x.answer, done, &x, &ticket),
                         i == 10000 ? DIR_UNAVAILABLE : DIR_PENDING);
    }
    assert_int_equal(x.answers, 0);
    end(&x);
    close(silent);
}

/* After a timeout user@ is worth a look in what is stored, but not another timeout. */
static void
a_tag_is_waited_for_once(void **state)
{
    char section[160], tagged[192];
    int silent = listen_silently(section, sizeof section, "1m");
    int64_t now_ms = clock_ms();
    uint64_t ticket;
    struct fixture x;

    (void)state;
    snprintf(tagged, sizeof tagged, "%splus_addressing = yes\n", section);
    begin(&x, "silent", tagged);
    assert_int_equal(directory_ask(x.c, &x.st->domains[0], span_str("anna+tag@ex.test"),
                                   span_str(""), 0, now_ms, &x.answer, done, &x, &ticket),
                     DIR_PENDING);
    directory_client_dispatch(x.c, now_ms + 60000);
    assert_int_equal(x.answers, 1);
    assert_int_equal(x.answer.status, DIR_UNAVAILABLE);
    end(&x);
    close(silent);
}

static void
shows_its_state(void **state)
{
    struct dir_view v;
    struct fixture x;

    (void)state;
    begin(&x, "first", "");
    assert_true(directories_view(x.d, 0, &v));
    assert_string_equal(v.name, "first");
    assert_string_equal(v.type, "file");
    assert_int_equal(v.entries, 1);
    assert_true(v.is_up);
    assert_true(directories_view(x.d, 2, &v));
    assert_string_equal(v.servers[0].uri, "ldap://127.0.0.1:1");
    assert_false(v.is_up);
    assert_false(directories_view(x.d, 4, &v));
    end(&x);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_that_knows_answers),
        cmocka_unit_test(a_tag_falls_back),
        cmocka_unit_test(one_that_is_away_makes_the_unknown_uncertain),
        cmocka_unit_test(on_failure_may_accept),
        cmocka_unit_test(a_reload_reads_files_again),
        cmocka_unit_test(a_cancelled_question_is_not_answered),
        cmocka_unit_test(a_reload_that_fails_waits_for_nobody),
        cmocka_unit_test(ten_thousand_questions_are_enough),
        cmocka_unit_test(a_tag_is_waited_for_once),
        cmocka_unit_test(shows_its_state),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
