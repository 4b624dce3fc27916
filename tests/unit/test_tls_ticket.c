#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "proxy/tls_ticket.h"
#include "tests/unit/tls_server.h"

static SSL_CTX *
server_context(void)
{
    SSL_CTX *context = tls_server_context();

    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    tls_ticket_use(context);
    return context;
}

/* A handshake over memory; returns the session to resume, and whether SESSION was resumed. */
static SSL_SESSION *
shake_hands(SSL_CTX *server, SSL_CTX *client, SSL_SESSION *session, int *was_resumed)
{
    SSL *a = SSL_new(server), *b = SSL_new(client);
    BIO *one, *other;
    char c;

    assert_int_equal(BIO_new_bio_pair(&one, 0, &other, 0), 1);
    SSL_set_bio(a, one, one);
    SSL_set_bio(b, other, other);
    SSL_set_accept_state(a);
    SSL_set_connect_state(b);
    if (session != NULL)
        SSL_set_session(b, session);
    for (int i = 0; i < 20 && (!SSL_is_init_finished(a) || !SSL_is_init_finished(b)); i++) {
        SSL_do_handshake(b);
        SSL_do_handshake(a);
    }
    assert_true(SSL_is_init_finished(a) && SSL_is_init_finished(b));
    SSL_read(b, &c, 1); /* the tickets of TLS 1.3 */
    *was_resumed = SSL_session_reused(a);
    SSL_SESSION *next = SSL_get1_session(b);
    SSL_shutdown(b);
    SSL_shutdown(a);
    SSL_free(a);
    SSL_free(b);
    return next;
}

static void
test_turns(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    static const struct {
        int turns; /* behind the ticket */
        int is_resumed;
    } cases[] = {{0, 1}, {1, 1}, {2, 0}, {3, 0}};

    (void)state;
    int64_t now_ms = clock_ms();
    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            /* Contexts of their own, as before and behind a reload. */
            SSL_CTX *first = server_context(), *second = server_context();
            SSL_CTX *client = SSL_CTX_new(TLS_client_method());
            int was_resumed = 0;
            SSL_CTX_set_max_proto_version(client, versions[v]);
            SSL_SESSION *session = shake_hands(first, client, NULL, &was_resumed);
            assert_false(was_resumed);
            for (int turn = 0; turn < cases[i].turns; turn++)
                tls_ticket_turn(now_ms += TLS_TICKET_TURN_MS);
            SSL_SESSION *next = shake_hands(second, client, session, &was_resumed);
            assert_int_equal(was_resumed, cases[i].is_resumed);
            SSL_SESSION_free(session);
            SSL_SESSION_free(next);
            SSL_CTX_free(first);
            SSL_CTX_free(second);
            SSL_CTX_free(client);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_turns)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
