#define _GNU_SOURCE

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/span.h"
#include "proxy/ops/control_socket.h"

/* A control socket in a directory of its own, and what its commands have seen. */
struct fixture {
    struct event_base *base;
    struct control_socket *socket;
    char path[64];
    struct control_call *waiting;
    unsigned requests, cancelled;
};

static void
on_cancel(void *arg)
{
    struct fixture *f = arg;
    f->cancelled++;
    f->waiting = NULL;
}

static void
on_request(void *arg, struct control_call *call, const char *command, const json_t *args)
{
    struct fixture *f = arg;
    f->requests++;
    if (strcmp(command, "wait") == 0) {
        f->waiting = call;
        control_defer(call, on_cancel, f);
    } else if (strcmp(command, "no") == 0) {
        control_refuse(call, "no: \"%s\"\n", json_string_value(json_array_get(args, 0)));
    } else if (strcmp(command, "big") == 0) {
        char *text = malloc(4000001);
        memset(text, 'x', 4000000);
        text[4000000] = '\0';
        control_answer(call, json_pack("{s:o}", "text", json_string(text)));
        free(text);
    } else {
        control_answer(
            call, json_pack("{s:s, s:i}", "command", command, "n", (int)json_array_size(args)));
    }
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->path, sizeof f->path, "/tmp/postern-control-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    snprintf(f->path + strlen(f->path), sizeof f->path - strlen(f->path), "/s");
    f->base = event_base_new();
    struct err e;
    f->socket = control_socket_new(f->base, f->path, NULL, on_request, f, &e);
    assert_non_null(f->socket);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    control_socket_free(&f->socket);
    assert_null(f->socket);
    assert_int_equal(access(f->path, F_OK), -1);
    event_base_free(f->base);
    *strrchr(f->path, '/') = '\0';
    assert_int_equal(rmdir(f->path), 0);
    free(f);
    return 0;
}

static int
connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_true(span_copy(address.sun_path, sizeof address.sun_path, span_str(path)));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void
say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next line, or "" at the end of the connection; the loop turns while it has not come. */
static void
hear(struct fixture *f, int fd, char *line, size_t room)
{
    size_t n = 0;
    for (;;) {
        char c;
        ssize_t got = recv(fd, &c, 1, MSG_DONTWAIT);
        if (got == 0 || (got == -1 && errno == ECONNRESET))
            break;
        if (got == -1)
            event_base_loop(f->base, EVLOOP_ONCE);
        else if (c == '\n')
            break;
        else if (n < room - 1)
            line[n++] = c;
    }
    line[n] = '\0';
}

static void
expect(struct fixture *f, int fd, const char *wanted)
{
    char line[1024];
    hear(f, fd, line, sizeof line);
    assert_string_equal(line, wanted);
}

static const char bad_request[] =
    "{\"ok\":false,\"error\":\"a request is {\\\"command\\\":NAME,\\\"args\\\":[TEXT,...]}\"}";
static const char no_object[] = "{\"ok\":false,\"error\":\"not a JSON object\"}";

static const struct {
    const char *request, *answer;
} dialogue[] = {
    {"{\"command\":\"a\",\"args\":[\"1\",\"2\"]}\n", "{\"ok\":true,\"command\":\"a\",\"n\":2}"},
    {"{\"command\":\"a\"}\n", "{\"ok\":true,\"command\":\"a\",\"n\":0}"},
    {" { \"args\" : [] , \"command\" : \"a\" } \r\n", "{\"ok\":true,\"command\":\"a\",\"n\":0}"},
    {"{\"command\":\"no\",\"args\":[\"x\"]}\n", "{\"ok\":false,\"error\":\"no: \\\"x\\\"\\n\"}"},
    {"{\"command\":1}\n", bad_request},
    {"{\"args\":[]}\n", bad_request},
    {"{\"command\":\"a\",\"args\":\"b\"}\n", bad_request},
    {"{\"command\":\"a\",\"args\":[1]}\n", bad_request},
    {"\n", no_object},
    {"[]\n", no_object},
    {"{\"command\":\"a\",\"command\":\"b\"}\n", no_object},
    {"{\"command\":\"a\\u0000\"}\n", no_object},
    {"{\"command\":\"\xff\"}\n", no_object},
    {"{\"command\":\"a\"} {\"command\":\"a\"}\n", no_object},
};
#define DIALOGUE (sizeof dialogue / sizeof dialogue[0])

static void
answers_each_line(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->path);
    for (size_t i = 0; i < DIALOGUE; i++) {
        say(fd, dialogue[i].request);
        expect(f, fd, dialogue[i].answer);
    }
    close(fd);
}

static void
answers_what_was_sent_at_once(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->path);
    for (size_t i = 0; i < DIALOGUE; i++)
        say(fd, dialogue[i].request);
    shutdown(fd, SHUT_WR);
    for (size_t i = 0; i < DIALOGUE; i++)
        expect(f, fd, dialogue[i].answer);
    expect(f, fd, "");
    close(fd);
}

static void
answers_what_comes_in_pieces(void **state)
{
    struct fixture *f = *state;
    const char *request = dialogue[0].request;
    for (size_t at = 1; at < strlen(request); at++) {
        int fd = connect_to(f->path);
        char head[64];
        snprintf(head, sizeof head, "%.*s", (int)at, request);
        say(fd, head);
        event_base_loop(f->base, EVLOOP_ONCE);
        event_base_loop(f->base, EVLOOP_NONBLOCK);
        say(fd, request + at);
        expect(f, fd, dialogue[0].answer);
        close(fd);
    }
}

static void
refuses_long_lines(void **state)
{
    struct fixture *f = *state;
    char line[CONTROL_LINE_MAX + 2];
    static const char too_long[] = "{\"ok\":false,\"error\":\"request too long\"}";
    /* As long as it may be. */
    memset(line, ' ', sizeof line);
    memcpy(line, "{\"command\":\"a\"}", 15);
    line[CONTROL_LINE_MAX - 1] = '\n';
    line[CONTROL_LINE_MAX] = '\0';
    int fd = connect_to(f->path);
    say(fd, line);
    expect(f, fd, "{\"ok\":true,\"command\":\"a\",\"n\":0}");
    /* One octet more; with its end and without. */
    line[CONTROL_LINE_MAX - 1] = ' ';
    line[CONTROL_LINE_MAX] = '\n';
    line[CONTROL_LINE_MAX + 1] = '\0';
    say(fd, line);
    expect(f, fd, too_long);
    expect(f, fd, "");
    close(fd);
    line[CONTROL_LINE_MAX] = '\0';
    fd = connect_to(f->path);
    say(fd, line);
    expect(f, fd, too_long);
    expect(f, fd, "");
    close(fd);
    assert_int_equal(f->requests, 1);
}

static void
answers_later(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->path), other = connect_to(f->path);
    say(fd, "{\"command\":\"wait\"}\n{\"command\":\"a\"}\n");
    while (!f->waiting)
        event_base_loop(f->base, EVLOOP_ONCE);
    say(other, "{\"command\":\"a\"}\n");
    expect(f, other, "{\"ok\":true,\"command\":\"a\",\"n\":0}");
    assert_int_equal(f->requests, 2); /* its second one waits */
    control_answer(f->waiting, json_object());
    f->waiting = NULL;
    expect(f, fd, "{\"ok\":true}");
    expect(f, fd, "{\"ok\":true,\"command\":\"a\",\"n\":0}");
    assert_int_equal(f->cancelled, 0);
    close(fd);
    close(other);
}

static void
cancels_for_one_that_is_gone(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->path);
    say(fd, "{\"command\":\"wait\"}\n");
    while (!f->waiting)
        event_base_loop(f->base, EVLOOP_ONCE);
    close(fd);
    while (f->cancelled == 0)
        event_base_loop(f->base, EVLOOP_ONCE);
    /* What it asked for before it went is begun all the same. */
    fd = connect_to(f->path);
    say(fd, "{\"command\":\"a\"}\n{\"command\":\"wait\"}\n");
    close(fd);
    while (f->requests < 2)
        event_base_loop(f->base, EVLOOP_ONCE);
}

static void
answers_later_one_that_says_no_more(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->path);
    say(fd, "{\"command\":\"wait\"}\n");
    shutdown(fd, SHUT_WR);
    while (!f->waiting)
        event_base_loop(f->base, EVLOOP_ONCE);
    for (int i = 0; i < 5; i++)
        event_base_loop(f->base, EVLOOP_NONBLOCK);
    assert_int_equal(f->cancelled, 0);
    control_answer(f->waiting, json_object());
    expect(f, fd, "{\"ok\":true}");
    expect(f, fd, "");
    close(fd);
}

static void
takes_no_more_than_a_line_meanwhile(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->path);
    char blanks[CONTROL_LINE_MAX + 1];
    say(fd, "{\"command\":\"wait\"}\n");
    while (!f->waiting)
        event_base_loop(f->base, EVLOOP_ONCE);
    memset(blanks, ' ', sizeof blanks);
    size_t sent = 0;
    for (int i = 0; i < 1000; i++) {
        ssize_t n = send(fd, blanks, sizeof blanks, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        event_base_loop(f->base, EVLOOP_NONBLOCK);
    }
    assert_true(sent < 1000 * sizeof blanks); /* the rest is in the kernel's hands */
    close(fd);
}

static void
cancels_when_freed(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->path);
    say(fd, "{\"command\":\"wait\"}\n");
    while (!f->waiting)
        event_base_loop(f->base, EVLOOP_ONCE);
    control_socket_free(&f->socket);
    assert_int_equal(f->cancelled, 1);
    expect(f, fd, "");
    close(fd);
    struct err e;
    f->socket = control_socket_new(f->base, f->path, NULL, on_request, f, &e);
    assert_non_null(f->socket);
}

static void
gives_up_its_answer_when_freed(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->path);
    say(fd, "{\"command\":\"a\"}\n");
    while (!f->requests)
        event_base_loop(f->base, EVLOOP_ONCE);
    control_socket_free(&f->socket);
    expect(f, fd, "{\"ok\":true,\"command\":\"a\",\"n\":0}");
    close(fd);
    struct err e;
    f->socket = control_socket_new(f->base, f->path, NULL, on_request, f, &e);
}

static void
holds_one_answer_for_one_that_does_not_read(void **state)
{
    struct fixture *f = *state;
    int fd = connect_to(f->path);
    for (int i = 0; i < 5; i++)
        say(fd, "{\"command\":\"big\"}\n");
    while (!f->requests)
        event_base_loop(f->base, EVLOOP_ONCE);
    for (int i = 0; i < 20; i++)
        event_base_loop(f->base, EVLOOP_NONBLOCK);
    assert_int_equal(f->requests, 1);
    char line[8];
    for (int i = 0; i < 5; i++) {
        hear(f, fd, line, sizeof line);
        assert_string_equal(line, "{\"ok\":t");
    }
    close(fd);
}

static void
limits_clients(void **state)
{
    struct fixture *f = *state;
    int fds[CONTROL_CLIENTS_MAX];
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        fds[i] = connect_to(f->path);
        say(fds[i], "{\"command\":\"a\"}\n");
        expect(f, fds[i], "{\"ok\":true,\"command\":\"a\",\"n\":0}");
    }
    int fd = connect_to(f->path);
    expect(f, fd, "{\"ok\":false,\"error\":\"too many control connections\"}");
    expect(f, fd, "");
    close(fd);
    close(fds[0]);
    event_base_loop(f->base, EVLOOP_ONCE);
    fds[0] = connect_to(f->path);
    say(fds[0], "{\"command\":\"a\"}\n");
    expect(f, fds[0], "{\"ok\":true,\"command\":\"a\",\"n\":0}");
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
        close(fds[i]);
}

/* One that ended its own side, waits, and then goes away, which nothing tells. */
static void
places_of_the_gone_are_free(void **state)
{
    struct fixture *f = *state;
    int fd;
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        fd = connect_to(f->path);
        say(fd, "{\"command\":\"wait\"}\n");
        f->waiting = NULL;
        while (!f->waiting)
            event_base_loop(f->base, EVLOOP_ONCE);
        shutdown(fd, SHUT_WR);
        for (int k = 0; k < 5; k++)
            event_base_loop(f->base, EVLOOP_NONBLOCK);
        close(fd);
    }
    assert_int_equal(f->cancelled, 0);
    fd = connect_to(f->path);
    say(fd, "{\"command\":\"a\"}\n");
    expect(f, fd, "{\"ok\":true,\"command\":\"a\",\"n\":0}");
    assert_int_equal(f->cancelled, CONTROL_CLIENTS_MAX);
    close(fd);
}

static void
is_its_owners_alone(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void
replaces_a_dead_socket_only(void **state)
{
    struct fixture *f = *state;
    struct err e;
    /* It is served. */
    assert_null(control_socket_new(f->base, f->path, NULL, on_request, f, &e));
    assert_non_null(strstr(e.text, "in use"));
    /* A daemon was killed: its socket has no listener any more. */
    char dead[80];
    snprintf(dead, sizeof dead, "%s2", f->path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_true(span_copy(address.sun_path, sizeof address.sun_path, span_str(dead)));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    struct control_socket *second = control_socket_new(f->base, dead, NULL, on_request, f, &e);
    assert_non_null(second);
    /* Another took its place meanwhile: that one's file stays. */
    assert_int_equal(unlink(dead), 0);
    struct control_socket *third = control_socket_new(f->base, dead, NULL, on_request, f, &e);
    control_socket_free(&second);
    assert_int_equal(access(dead, F_OK), 0);
    control_socket_free(&third);
    /* A file of another kind is nobody's to remove. */
    FILE *file = fopen(dead, "w");
    fclose(file);
    assert_null(control_socket_new(f->base, dead, NULL, on_request, f, &e));
    assert_int_equal(unlink(dead), 0);
}

static void
refuses_a_long_path(void **state)
{
    struct fixture *f = *state;
    char path[200] = "/tmp/";
    memset(path + 5, 'x', 150);
    struct err e;
    assert_null(control_socket_new(f->base, path, NULL, on_request, f, &e));
    assert_int_equal(e.kind, ERR_CONFIG);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answers_each_line),
        TEST(answers_what_was_sent_at_once),
        TEST(answers_what_comes_in_pieces),
        TEST(refuses_long_lines),
        TEST(answers_later),
        TEST(cancels_for_one_that_is_gone),
        TEST(answers_later_one_that_says_no_more),
        TEST(takes_no_more_than_a_line_meanwhile),
        TEST(cancels_when_freed),
        TEST(gives_up_its_answer_when_freed),
        TEST(holds_one_answer_for_one_that_does_not_read),
        TEST(limits_clients),
        TEST(places_of_the_gone_are_free),
        TEST(is_its_owners_alone),
        TEST(replaces_a_dead_socket_only),
        TEST(refuses_a_long_path),
    };
    signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
