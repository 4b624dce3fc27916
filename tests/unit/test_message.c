#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "proxy/relay/message.h"

/* Two messages with one digest would be taken for one, and the second never delivered: each octet
 * counts, wherever it is kept and however it came. */

#define MEMORY      (256u << 10)
#define TIGHT       (32u << 10) /* a message soon has none of it, nor blocks of full size */
#define HEADER      "Subject: x\r\n\r\n"
#define HEADER_MOST (64u << 10)
#define LARGEST     (900u << 10)

static char dir[] = "/tmp";
static char content[LARGEST];

static void
check(struct spool *spool, struct spool_client *client, struct span whole, size_t piece,
      size_t share)
{
    const struct message_place place = {
        .spool = spool, .client = client, .memory_share = share, .wants_digest = true};
    struct message *m = message_new(&place, NULL, NULL);
    unsigned char expected[EVP_MAX_MD_SIZE];

    assert_non_null(m);
    for (size_t i = 0; i < whole.n; i += piece)
        assert_true(
            message_append(m, span_of(whole.p + i, whole.n - i < piece ? whole.n - i : piece)));
    assert_true(message_finish(m));
    assert_int_equal(EVP_Digest(whole.p, whole.n, expected, NULL, EVP_sha256(), NULL), 1);
    assert_memory_equal(m->sha256, expected, sizeof m->sha256);
    message_free(&m);
}

static void
check_all(size_t memory_total, size_t share, size_t most)
{
    static const size_t sizes[] = {0,      1,      13,     14,     15,          4031,        4032,
                                   4033,   4046,   4047,   16384,  69504,       69517,       69518,
                                   69519,  262143, 262144, 262145, 262144 + 14, 262144 + 15, 278542,
                                   524288, 524302, 524303, 786432, LARGEST};
    static const size_t pieces[] = {997, 16384, LARGEST};
    struct settings st = {
        .spool = {.dir = dir, .memory_total = memory_total, .disk_total = 1 << 30}};
    struct err e;
    struct spool *spool = spool_new(&st, &e);
    struct spool_client *client = spool_client_new(spool);

    assert_non_null(client);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && sizes[i] <= most; i++)
        for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++)
            check(spool, client, span_of(content, sizes[i]), pieces[k], share);
    spool_client_free(&client);
    spool_free(&spool);
}

static void
digest_is_of_each_octet(void **state)
{
    (void)state;
    check_all(64 << 20, MEMORY, LARGEST);
    check_all(64 << 20, 0, LARGEST);
    check_all(64 << 20, LARGEST, LARGEST);
    check_all(TIGHT, MEMORY, LARGEST);
}

/* A header without an end is all there is. */
static void
digest_without_a_body(void **state)
{
    (void)state;
    memset(content, 'x', sizeof(HEADER));
    check_all(64 << 20, MEMORY, HEADER_MOST);
}

/* 256 KiB of header may stand before the empty line, however they come; an octet more may not. */
static void
header_of_the_largest_size(void **state)
{
    static const size_t pieces[] = {1, 997, LARGEST};
    struct settings st = {.spool = {.dir = dir, .memory_total = 64 << 20, .disk_total = 1 << 30}};
    struct err e;
    struct spool *spool = spool_new(&st, &e);
    struct spool_client *client = spool_client_new(spool);
    const struct message_place place = {.spool = spool, .client = client};

    (void)state;
    for (size_t n = MEMORY - 1; n <= MEMORY + 1; n++) {
        memset(content, 'x', n);
        memcpy(content + n - 2, "\r\n\r\nbody", 8);
        for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
            struct message *m = message_new(&place, NULL, NULL);
            for (size_t i = 0; i < n + 6; i += pieces[k])
                assert_true(message_append(
                    m, span_of(content + i, n + 6 - i < pieces[k] ? n + 6 - i : pieces[k])));
            assert_int_equal(m->is_header_too_long, n > MEMORY);
            message_free(&m);
        }
    }
    spool_client_free(&client);
    spool_free(&spool);
}

/* The order of those who are sent to is theirs. */
static void
served_ones_go_behind(void **state)
{
    static const bool is_served[] = {true, false, true, false, false, true};
    struct settings st = {.spool = {.dir = dir, .memory_total = 64 << 20, .disk_total = 1 << 30}};
    struct err e;
    struct spool *spool = spool_new(&st, &e);
    struct spool_client *client = spool_client_new(spool);
    const struct message_place place = {.spool = spool, .client = client};
    struct message *m = message_new(&place, NULL, NULL);
    char names[7] = "";

    (void)state;
    for (size_t i = 0; i < 6; i++) {
        const struct smtp_rcpt rcpt = {.path = {.text = "x@example.test", .n = 14}};
        assert_true(message_add_recipient(m, &rcpt, span_of(&"abcdef"[i], 1), 0, true));
    }
    message_set_served(m, is_served);
    assert_int_equal(m->n_recipients, 3);
    assert_int_equal(m->n_served, 3);
    for (size_t i = 0; i < 6; i++)
        names[i] = m->recipients[i].canonical[0];
    assert_memory_equal(names, "bde", 3);
    for (const char *served = "acf"; *served != '\0'; served++)
        assert_non_null(strchr(names + 3, *served));
    message_free(&m);
    spool_client_free(&client);
    spool_free(&spool);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digest_is_of_each_octet),
        cmocka_unit_test(digest_without_a_body),
        cmocka_unit_test(header_of_the_largest_size),
        cmocka_unit_test(served_ones_go_behind),
    };

    memcpy(content, HEADER, strlen(HEADER));
    for (size_t i = strlen(HEADER); i < sizeof content; i++)
        content[i] = (char)('a' + i % 23);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
