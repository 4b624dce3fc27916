#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/stream.h"
#include "tests/unit/tls_server.h"

/* What a peer may do to a loop by TLS records that have no content for us. */

struct side {
    struct event_base *base;
    struct stream_loop loop;
    struct stream *stream;
    SSL_CTX *server, *client;
    SSL *peer;
    BIO *said;   /* by the peer, and not yet sent */
    int fd, far; /* the stream's, the peer's */
    size_t octets, octets_before;
    bool is_secured;
    int ends;
};

static size_t
on_input(void *owner, struct span in)
{
    struct side *x = owner;

    x->octets += in.n;
    return in.n;
}

static void
on_drained(void *owner)
{
    (void)owner;
}

static void
on_secured(void *owner)
{
    ((struct side *)owner)->is_secured = true;
}

static void
on_ended(void *owner, enum stream_end end)
{
    (void)end;
    ((struct side *)owner)->ends++;
}

static const struct stream_events events = {
    .input = on_input, .drained = on_drained, .secured = on_secured, .ended = on_ended};

static SSL_CTX *
server_context(void)
{
    SSL_CTX *context = tls_server_context();

    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    return context;
}

/* One turn of the loop, if there is anything to do. */
static void
turn(struct side *x)
{
    event_base_loop(x->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

/* Send what the peer says, as far as it fits in. */
static void
send_said(struct side *x)
{
    char *p;
    long left = BIO_get_mem_data(x->said, &p);
    ssize_t n = send(x->far, p, (size_t)left, 0);

    while (n-- > 0)
        (void)BIO_read(x->said, (char[1]){0}, 1);
}

/* Let the peer hear what came. */
static void
hear(struct side *x)
{
    char octets[4096];
    ssize_t n = recv(x->far, octets, sizeof octets, 0);

    if (n > 0)
        assert_int_equal(BIO_write(SSL_get_rbio(x->peer), octets, (int)n), n);
}

static void
shake_hands(struct side *x)
{
    while (!x->is_secured || !SSL_is_init_finished(x->peer)) {
        hear(x);
        (void)SSL_do_handshake(x->peer);
        send_said(x);
        turn(x);
    }
}

static int
set_up(void **state)
{
    struct side *x = calloc(1, sizeof *x);
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    x->fd = fds[0];
    x->far = fds[1];
    x->base = event_base_new();
    x->loop = (struct stream_loop){x->base, malloc(STREAM_SCRATCH)};
    x->stream = stream_new(&x->loop, x->fd, &events, x);
    x->server = server_context();
    x->client = SSL_CTX_new(TLS_client_method());
    x->peer = SSL_new(x->client);
    x->said = BIO_new(BIO_s_mem());
    SSL_set_bio(x->peer, BIO_new(BIO_s_mem()), x->said);
    SSL_set_connect_state(x->peer);
    stream_start_tls(x->stream, SSL_new(x->server), true);
    shake_hands(x);
    *state = x;
    return 0;
}

static int
tear_down(void **state)
{
    struct side *x = *state;

    stream_free(&x->stream);
    SSL_free(x->peer);
    close(x->far);
    SSL_CTX_free(x->client);
    SSL_CTX_free(x->server);
    event_base_free(x->base);
    free(x->loop.scratch);
    free(x);
    return 0;
}

/* The peer says this many KeyUpdates, and sends what fits in. */
static void
flood(struct side *x, int kind)
{
    for (int i = 0; i < 6000; i++) {
        assert_int_equal(SSL_key_update(x->peer, kind), 1);
        assert_int_equal(SSL_do_handshake(x->peer), 1);
    }
    send_said(x);
}

static int
unread(const struct side *x)
{
    int n = -1;

    assert_int_equal(ioctl(x->fd, FIONREAD, &n), 0);
    return n;
}

/* ... and the loop's other streams have their turn. */
static void
one_turn_takes_one_read(void **state)
{
    struct side *x = *state;
    int before;

    flood(x, SSL_KEY_UPDATE_NOT_REQUESTED);
    before = unread(x);
    assert_true(before > (int)STREAM_SCRATCH);
    turn(x);
    assert_in_range(before - unread(x), 1, STREAM_SCRATCH);
    assert_int_equal(SSL_write(x->peer, "NOOP\r\n", 6), 6);
    while (x->octets == 0) {
        send_said(x);
        turn(x);
    }
    assert_int_equal(x->octets, 6);
    assert_int_equal(x->ends, 0);
}

/* How much of the content was there when another's turn came. */
static void
on_other(evutil_socket_t fd, short what, void *arg)
{
    struct side *x = arg;

    (void)fd;
    (void)what;
    x->octets_before = x->octets;
}

/* The same of content, however much is there.  Records of this size leave the beginning of one
 * behind in each read, so there is always more. */
static void
one_turn_takes_a_part_of_the_content(void **state)
{
    static const char octets[5439];
    struct side *x = *state;
    size_t sent = 0;
    int other[2];

    assert_int_equal(pipe(other), 0);
    event_base_once(x->base, other[0], EV_READ, on_other, x, NULL);
    while (unread(x) < 2 * (int)STREAM_SCRATCH) {
        assert_int_equal(SSL_write(x->peer, octets, sizeof octets), sizeof octets);
        sent += sizeof octets;
        send_said(x);
    }
    assert_int_equal(write(other[1], "x", 1), 1);
    while (x->octets < sent)
        turn(x);
    assert_in_range(x->octets_before, 1, STREAM_SCRATCH + sizeof octets);
    assert_int_equal(x->octets, sent);
    close(other[0]);
    close(other[1]);
}

static void
on_time(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    *(bool *)arg = true;
}

/* A peer that asks for answers and reads none makes nobody busy; once it reads, all goes on. */
static void
who_does_not_read_is_waited_for(void **state)
{
    struct side *x = *state;
    struct timeval soon = {.tv_usec = 1000};
    bool is_over = false;
    int before;

    flood(x, SSL_KEY_UPDATE_REQUESTED);
    do {
        send_said(x);
        before = unread(x);
        turn(x);
    } while (unread(x) != before);
    assert_true(before > 0);
    event_base_once(x->base, -1, EV_TIMEOUT, on_time, &is_over, &soon);
    event_base_loop(x->base, EVLOOP_ONCE);
    assert_true(is_over);
    assert_int_equal(SSL_write(x->peer, "NOOP\r\n", 6), 6);
    while (x->octets == 0) {
        send_said(x);
        hear(x);
        turn(x);
    }
    assert_int_equal(x->octets, 6);
    assert_int_equal(x->ends, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_turn_takes_one_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_turn_takes_a_part_of_the_content, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_does_not_read_is_waited_for, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
