#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/ops/http_server.h"

/* A server whose every page tells its path; clients come over socket pairs. */
struct fixture {
    struct event_base *base;
    struct http_server *server;
    unsigned pages;
};

static void
on_page(void *arg, const struct http_request *r, struct http_reply *reply, struct evbuffer *body)
{
    struct fixture *f = arg;
    f->pages++;
    if (span_is(r->path, "/big")) {
        char *text = malloc(4000000);
        memset(text, 'x', 4000000);
        evbuffer_add(body, text, 4000000);
        free(text);
        return;
    }
    reply->type = "text/x-path";
    reply->headers = "X-Test: 1\r\n";
    evbuffer_add(body, r->path.p, r->path.n);
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->base = event_base_new();
    f->server = http_server_new(f->base, on_page, f);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    http_server_free(&f->server);
    assert_null(f->server);
    event_base_free(f->base);
    free(f);
    return 0;
}

static int
come(struct fixture *f)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    evutil_make_socket_nonblocking(fds[0]);
    http_server_take(f->server, fds[0]);
    return fds[1];
}

static void
say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* All that comes until the server ends its side: its length; the first of it in TEXT. */
static size_t
hear(struct fixture *f, int fd, char *text, size_t room)
{
    char some[65536];
    size_t n = 0;
    for (;;) {
        ssize_t got = recv(fd, some, sizeof some, MSG_DONTWAIT);
        if (got == 0)
            break;
        if (got == -1) {
            assert_true(errno == EAGAIN);
            event_base_loop(f->base, EVLOOP_ONCE);
            continue;
        }
        for (ssize_t i = 0; i < got; i++, n++) {
            if (n < room - 1)
                text[n] = some[i];
        }
    }
    text[n < room ? n : room - 1] = '\0';
    return n;
}

static void
answers(void **state)
{
    struct fixture *f = *state;
    char text[1024];
    int fd = come(f);
    say(fd, "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n");
    hear(f, fd, text, sizeof text);
    assert_string_equal(text,
                        "HTTP/1.1 200 OK\r\nContent-Type: text/x-path\r\nContent-Length: 2\r\n"
                        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                        "Connection: close\r\nX-Test: 1\r\n\r\n/a");
    close(fd);
    fd = come(f);
    say(fd, "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n");
    hear(f, fd, text, sizeof text);
    assert_non_null(strstr(text, "Content-Length: 2\r\n"));
    assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n");
    close(fd);
}

static void
refuses(void **state)
{
    struct fixture *f = *state;
    char text[1024];
    int fd = come(f);
    say(fd, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    hear(f, fd, text, sizeof text);
    assert_non_null(strstr(text, "HTTP/1.1 405 Method Not Allowed\r\n"));
    assert_non_null(strstr(text, "\r\nAllow: GET, HEAD\r\n"));
    close(fd);
    fd = come(f);
    say(fd, "GET / HTTP/1.1\r\n\r\n");
    hear(f, fd, text, sizeof text);
    assert_non_null(strstr(text, "HTTP/1.1 400 Bad Request\r\n"));
    close(fd);
    fd = come(f);
    char head[HTTP_HEAD_MAX + 1];
    memset(head, 'a', sizeof head - 1);
    head[sizeof head - 1] = '\0';
    say(fd, head);
    hear(f, fd, text, sizeof text);
    assert_non_null(strstr(text, "HTTP/1.1 431 "));
    close(fd);
    assert_int_equal(f->pages, 0);
}

static void
takes_a_request_in_pieces(void **state)
{
    struct fixture *f = *state;
    static const char request[] = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    char text[1024];
    for (size_t at = 1; at < strlen(request); at++) {
        char part[64];
        snprintf(part, sizeof part, "%.*s", (int)at, request);
        int fd = come(f);
        say(fd, part);
        event_base_loop(f->base, EVLOOP_NONBLOCK);
        say(fd, request + at);
        hear(f, fd, text, sizeof text);
        assert_non_null(strstr(text, "\r\n\r\n/a"));
        close(fd);
    }
}

/* One answer a connection, whatever follows the request; and also to one who has ended his side. */
static void
answers_once(void **state)
{
    struct fixture *f = *state;
    char text[4096];
    int fd = come(f);
    say(fd, "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(fd, SHUT_WR);
    hear(f, fd, text, sizeof text);
    assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n/a");
    assert_int_equal(f->pages, 1);
    close(fd);
}

static void
writes_large_pages(void **state)
{
    struct fixture *f = *state;
    char text[512];
    for (int half = 0; half < 2; half++) {
        int fd = come(f);
        say(fd, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
        if (half)
            shutdown(fd, SHUT_WR);
        size_t n = hear(f, fd, text, sizeof text);
        assert_int_equal(n, (size_t)(strstr(text, "\r\n\r\n") - text) + 4 + 4000000);
        close(fd);
    }
    /* One that goes away in the middle. */
    int fd = come(f);
    say(fd, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    while (f->pages < 3)
        event_base_loop(f->base, EVLOOP_ONCE);
    close(fd);
    event_base_loop(f->base, EVLOOP_ONCE);
}

static void
limits_clients(void **state)
{
    struct fixture *f = *state;
    int fds[HTTP_CLIENTS_MAX];
    char text[1024];
    for (size_t i = 0; i < HTTP_CLIENTS_MAX; i++)
        fds[i] = come(f);
    int fd = come(f);
    hear(f, fd, text, sizeof text);
    assert_non_null(strstr(text, "HTTP/1.1 503 Service Unavailable\r\n"));
    close(fd);
    close(fds[0]);
    event_base_loop(f->base, EVLOOP_ONCE);
    fds[0] = come(f);
    say(fds[0], "GET /a HTTP/1.0\r\n\r\n");
    hear(f, fds[0], text, sizeof text);
    assert_non_null(strstr(text, "200 OK"));
    for (size_t i = 0; i < HTTP_CLIENTS_MAX; i++)
        close(fds[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answers),
        TEST(refuses),
        TEST(takes_a_request_in_pieces),
        TEST(answers_once),
        TEST(writes_large_pages),
        TEST(limits_clients),
    };
    signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
