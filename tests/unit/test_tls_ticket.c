#define _GNU_SOURCE /* memmem */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "proxy/tls.h"
#include "proxy/tls_ticket.h"
#include "tests/unit/tls_server.h"

/* Time passes as the tests say, in place of base/clock.c. */
static int64_t now_ms;

int64_t
clock_ms(void)
{
    return now_ms;
}

int64_t
clock_ns(void)
{
    return now_ms * 1000000;
}

int64_t
clock_wall_us(void)
{
    return now_ms * 1000;
}

int64_t
clock_wall_s(void)
{
    return now_ms / 1000;
}

void
clock_rfc3339(char out[CLOCK_TEXT], int64_t wall_us)
{
    (void)wall_us;
    out[0] = '\0';
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

static char certificate[] = "/tmp/postern-test-XXXXXX", key[] = "/tmp/postern-test-XXXXXX";

static int
make_files(void **state)
{
    SSL_CTX *context = tls_server_context();
    FILE *one = fdopen(mkstemp(certificate), "w"), *other = fdopen(mkstemp(key), "w");

    (void)state;
    assert_int_equal(PEM_write_X509(one, SSL_CTX_get0_certificate(context)), 1);
    assert_int_equal(
        PEM_write_PrivateKey(other, SSL_CTX_get0_privatekey(context), NULL, NULL, 0, NULL, NULL),
        1);
    fclose(one);
    fclose(other);
    SSL_CTX_free(context);
    return 0;
}

static int
remove_files(void **state)
{
    (void)state;
    unlink(certificate);
    unlink(key);
    return 0;
}

/* The inbound side, as a start or a reload makes it. */
static struct tls_contexts *
contexts(void)
{
    char *certificates[] = {certificate}, *keys[] = {key};
    struct settings st = {.tls = {.mode = SETTINGS_TLS_MODE_OPPORTUNISTIC,
                                  .certificate = {.v = certificates, .n = 1},
                                  .key = {.v = keys, .n = 1}}};
    struct tls_contexts *t = NULL;
    struct err e = {0};

    assert_int_equal(tls_contexts_new(&st, &t, &e), 0);
    return t;
}

static SSL_CTX *
client_context(int version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    return context;
}

/* Both ends of a connection over memory. */
struct pair {
    SSL *server, *client;
};

static struct pair
connect_to(struct tls_contexts *server, SSL *client)
{
    struct pair p = {tls_accept(server), client};
    BIO *one, *other;

    assert_int_equal(BIO_new_bio_pair(&one, 0, &other, 0), 1);
    SSL_set_bio(p.server, one, one);
    SSL_set_bio(p.client, other, other);
    SSL_set_accept_state(p.server);
    SSL_set_connect_state(p.client);
    return p;
}

static struct pair
pair_of(struct tls_contexts *server, SSL_CTX *client, SSL_SESSION *session)
{
    struct pair p = connect_to(server, SSL_new(client));

    if (session != NULL)
        assert_int_equal(SSL_set_session(p.client, session), 1);
    return p;
}

/* Handshake, and a command of the client's; returns the session to resume. */
static SSL_SESSION *
shake_hands(struct pair p, int *was_resumed)
{
    char c[8];

    for (int i = 0; i < 20 && (!SSL_is_init_finished(p.server) || !SSL_is_init_finished(p.client));
         i++) {
        SSL_do_handshake(p.client);
        SSL_do_handshake(p.server);
    }
    assert_true(SSL_is_init_finished(p.server) && SSL_is_init_finished(p.client));
    SSL_read(p.client, c, 1); /* the tickets of TLS 1.3 */
    assert_int_equal(SSL_write(p.client, "EHLO\r\n", 6), 6);
    assert_int_equal(SSL_read(p.server, c, sizeof(c)), 6);
    assert_memory_equal(c, "EHLO\r\n", 6);
    *was_resumed = SSL_session_reused(p.server);
    SSL_SESSION *next = SSL_get1_session(p.client);
    SSL_shutdown(p.client);
    SSL_shutdown(p.server);
    SSL_free(p.server);
    SSL_free(p.client);
    return next;
}

static int
is_resumed(struct pair p)
{
    int was_resumed = 0;

    SSL_SESSION_free(shake_hands(p, &was_resumed));
    return was_resumed;
}

static void
test_turns(void **state)
{
    static const struct {
        int turns; /* after the ticket */
        int is_resumed;
    } cases[] = {{0, 1}, {1, 1}, {2, 0}, {3, 0}};

    (void)state;
    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            /* Contexts of their own, as before and after a reload. */
            struct tls_contexts *first = contexts(), *second = contexts();
            SSL_CTX *client = client_context(versions[v]);
            int was_resumed = 0;
            SSL_SESSION *session = shake_hands(pair_of(first, client, NULL), &was_resumed);
            assert_false(was_resumed);
            for (int turn = 0; turn < cases[i].turns; turn++)
                tls_ticket_turn(now_ms += TLS_TICKET_TURN_MS);
            assert_int_equal(is_resumed(pair_of(second, client, session)), cases[i].is_resumed);
            SSL_SESSION_free(session);
            tls_contexts_unref(first);
            tls_contexts_unref(second);
            SSL_CTX_free(client);
        }
    }
}

/* The length of what follows the tag at HEADER, of one or two octets behind the first, is BY less.
 */
static unsigned char *
shorten(unsigned char *header, size_t by)
{
    bool is_short = header[1] == 0x81;
    size_t n = (is_short ? header[2] : (size_t)(header[2] << 8 | header[3])) - by;

    if (!is_short)
        header[2] = (unsigned char)(n >> 8);
    header[is_short ? 2 : 3] = (unsigned char)n;
    return header + (is_short ? 3 : 4);
}

/* SESSION, of whose ticket the first KEPT octets are left, and of these a bit of the one AT is
 * turned.  NULL: OpenSSL does not read it. */
static SSL_SESSION *
spoil(const SSL_SESSION *session, size_t kept, size_t at)
{
    unsigned char der[4096], *end = der;
    const unsigned char *ticket, *p = der;
    size_t n;

    assert_true(i2d_SSL_SESSION(session, NULL) < (int)sizeof(der));
    i2d_SSL_SESSION(session, &end);
    SSL_SESSION_get0_ticket(session, &ticket, &n);
    unsigned char *found = memmem(der, (size_t)(end - der), ticket, n);
    assert_non_null(found);
    if (at < kept)
        found[at] ^= 0x40;
    /* SEQUENCE { ... [10] { OCTET STRING } ... } */
    unsigned char *octets = found - (n < 256 ? 3 : 4);
    unsigned char *field = octets - (n + (size_t)(found - octets) < 256 ? 3 : 4);
    assert_true(*field == 0xaa && *octets == 0x04);
    shorten(der, n - kept);
    assert_ptr_equal(shorten(field, n - kept), octets);
    assert_ptr_equal(shorten(octets, n - kept), found);
    memmove(found + kept, found + n, (size_t)(end - (found + n)));
    return d2i_SSL_SESSION(NULL, &p, end - der - (long)(n - kept));
}

/* A ticket of which any octet is another one, or the end is missing, is no ticket, and no fault
 * either: the handshake is a whole one. */
static void
test_spoilt(void **state)
{
    (void)state;
    for (size_t v = 0; v < 2; v++) {
        struct tls_contexts *server = contexts();
        SSL_CTX *client = client_context(versions[v]);
        int was_resumed = 0;
        SSL_SESSION *session = shake_hands(pair_of(server, client, NULL), &was_resumed);
        const unsigned char *ticket;
        size_t n;
        SSL_SESSION_get0_ticket(session, &ticket, &n);
        assert_true(n > 16 + 16 + 32); /* the key's name, the start vector, the HMAC */
        for (size_t i = 0; i < 2 * n; i++) {
            SSL_SESSION *spoilt = i < n ? spoil(session, n, i) : spoil(session, i - n, n);
            if (spoilt == NULL && i == n)
                continue; /* a client with this OpenSSL (3.0.19) cannot have one of no octets */
            assert_non_null(spoilt);
            assert_false(is_resumed(pair_of(server, client, spoilt)));
            SSL_SESSION_free(spoilt);
        }
        assert_true(is_resumed(pair_of(server, client, session)));
        SSL_SESSION_free(session);
        tls_contexts_unref(server);
        SSL_CTX_free(client);
    }
}

/* However often a session with a downstream host was made from the one before: an hour after the
 * host last showed its certificate it is asked for that again. */
static void
test_an_end_of_resuming(void **state)
{
    static const struct {
        int minutes; /* since the handshake before */
        int is_resumed;
    } cases[] = {{0, 0}, {30, 1}, {29, 1}, {1, 0}, {59, 1}, {0, 1}, {2, 0}, {61, 0}, {1, 1}};

    (void)state;
    for (size_t v = 0; v < 2; v++) {
        struct settings_downstream ds = {.tls = SETTINGS_TLS_REQUIRED};
        struct tls_contexts *server = contexts();
        struct tls_client *client = NULL;
        struct err e = {0};
        assert_int_equal(tls_client_new(&ds, &client, &e), 0);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            now_ms += INT64_C(60000) * cases[i].minutes;
            SSL *ssl = tls_connect(client, "ex1.example.test");
            assert_int_equal(SSL_set_max_proto_version(ssl, versions[v]), 1);
            struct pair p = connect_to(server, ssl);
            int was_resumed = 0;
            SSL_up_ref(ssl);
            SSL_SESSION_free(shake_hands(p, &was_resumed));
            assert_true(tls_peer_accepted(client, ssl));
            SSL_free(ssl);
            assert_int_equal(was_resumed, cases[i].is_resumed);
        }
        tls_client_free(&client);
        tls_contexts_unref(server);
    }
}

/* Early data could be said again by whoever has heard it (RFC 8446 8): it is never read. */
static void
test_early_data(void **state)
{
    struct tls_contexts *server = contexts();
    SSL_CTX *client = client_context(TLS1_3_VERSION);
    int was_resumed = 0;
    size_t n = 0;

    (void)state;
    SSL_SESSION *session = shake_hands(pair_of(server, client, NULL), &was_resumed);
    assert_int_equal(SSL_SESSION_get_max_early_data(session), 0);
    SSL_SESSION_set_max_early_data(session, 16384);
    struct pair p = pair_of(server, client, session);
    assert_int_equal(SSL_write_early_data(p.client, "MAIL FROM:<>\r\n", 14, &n), 1);
    SSL *one = p.client;
    SSL_up_ref(one);
    SSL_SESSION_free(shake_hands(p, &was_resumed));
    assert_true(was_resumed);
    assert_int_equal(SSL_get_early_data_status(one), SSL_EARLY_DATA_REJECTED);
    SSL_free(one);
    SSL_SESSION_free(session);
    tls_contexts_unref(server);
    SSL_CTX_free(client);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_turns), cmocka_unit_test(test_spoilt),
                                       cmocka_unit_test(test_an_end_of_resuming),
                                       cmocka_unit_test(test_early_data)};

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
