#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/tls_output.h"

#define RECORD 16384u
#define OCTETS (1u << 20)

/* A socket whose other end reads when it is told to. */
static int ends[2];
static unsigned char sent[OCTETS], got[OCTETS];
static size_t n_got;
static BIO *output;

static int
set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < OCTETS; i++)
        sent[i] = (unsigned char)(i * 7 + i / 251);
    n_got = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) != 0)
        return -1;
    output = tls_output_new(ends[0]);
    return output == NULL;
}

static int
tear_down(void **state)
{
    (void)state;
    BIO_free(output);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static size_t
receive(size_t most)
{
    ssize_t n = recv(ends[1], got + n_got, most, 0);

    if (n < 0)
        assert_int_equal(errno, EAGAIN);
    else
        n_got += (size_t)n;
    return n_got;
}

static void
a_record_is_written_at_once(void **state)
{
    (void)state;
    assert_int_equal(BIO_write(output, sent, 100), 100);
    assert_int_equal(tls_output_pending(output), 0);
    assert_int_equal(receive(OCTETS), 100);
    assert_true(tls_output_flush(output));
}

static void
gathered_records_are_written_together(void **state)
{
    (void)state;
    tls_output_gather(output);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(BIO_write(output, sent + i * RECORD, RECORD), RECORD);
    assert_int_equal(tls_output_pending(output), 4 * RECORD);
    assert_int_equal(receive(OCTETS), 0);
    assert_true(tls_output_flush(output));
    assert_int_equal(tls_output_pending(output), 0);
    assert_int_equal(receive(OCTETS), 4 * RECORD);
    assert_memory_equal(got, sent, n_got);
}

/* Whatever the kernel takes at a time, all arrives, in order, and what is kept is bounded; a record
 * that is not gathered does not overtake those that are kept. */
static void
a_peer_that_reads_by_bits(void **state)
{
    size_t taken = 0, rounds = 0, refusals = 0;

    (void)state;
    while (taken < OCTETS) {
        if (rounds++ % 3 != 0)
            tls_output_gather(output);
        for (size_t i = 0; i < 9 && taken < OCTETS; i++) {
            size_t n = OCTETS - taken < RECORD ? OCTETS - taken : RECORD;
            int done = BIO_write(output, sent + taken, (int)n);
            if (done < 0) {
                assert_true(BIO_should_retry(output));
                refusals++;
                break;
            }
            taken += (size_t)done;
            assert_in_range(tls_output_pending(output), 0, 5 * RECORD);
        }
        if (!tls_output_flush(output))
            assert_int_not_equal(tls_output_pending(output), 0);
        receive(10007);
    }
    assert_int_not_equal(refusals, 0);
    while (!tls_output_flush(output) || receive(10007) < OCTETS)
        receive(10007);
    assert_int_equal(n_got, OCTETS);
    assert_memory_equal(got, sent, OCTETS);
}

static void
a_peer_that_is_gone(void **state)
{
    (void)state;
    tls_output_gather(output);
    assert_int_equal(BIO_write(output, sent, RECORD), RECORD);
    shutdown(ends[1], SHUT_RDWR);
    assert_false(tls_output_flush(output));
    assert_int_equal(tls_output_pending(output), RECORD);
    assert_int_equal(BIO_write(output, sent, RECORD), -1);
    assert_false(BIO_should_retry(output));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_record_is_written_at_once),
        TEST(gathered_records_are_written_together),
        TEST(a_peer_that_reads_by_bits),
        TEST(a_peer_that_is_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
