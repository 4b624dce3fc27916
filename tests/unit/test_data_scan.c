#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/smtp_reference.h"

/* Feed IN in pieces of the lengths that NEXT(ARG) gives; each piece is copied to memory of its own.
 */
static void
scan(struct span in, size_t (*next)(void *arg), void *arg, struct data_result *r)
{
    struct data_scan scan = {0};

    *r = (struct data_result){.content = malloc(2 * in.n + 1)};
    assert_non_null(r->content);
    while (!r->is_ended && r->used < in.n) {
        size_t n = next(arg), i = 0;
        char *copy;

        if (n > in.n - r->used)
            n = in.n - r->used;
        copy = malloc(n > 0 ? n : 1);
        assert_non_null(copy);
        memcpy(copy, in.p + r->used, n);
        for (;;) {
            struct data_piece piece = data_scan_next(&scan, span_of(copy + i, n - i));

            assert_true(piece.n <= n - i);
            assert_true(!piece.is_bare || piece.kind == DATA_PIECE_TEXT);
            if (piece.kind == DATA_PIECE_KEEP)
                data_result_add(r, span_of(copy + i, piece.n));
            if (piece.kind == DATA_PIECE_TEXT)
                data_result_add(r, piece.text);
            r->bare += piece.is_bare;
            i += piece.n;
            r->is_ended = piece.kind == DATA_PIECE_END;
            if (piece.kind == DATA_PIECE_MORE)
                assert_int_equal(i, n);
            if (piece.kind == DATA_PIECE_MORE || r->is_ended)
                break;
            assert_true(piece.n > 0 || piece.kind == DATA_PIECE_TEXT);
        }
        r->used += i;
        free(copy);
    }
}

static size_t
of_length(void *arg)
{
    return *(size_t *)arg;
}

static size_t
of_random_length(void *arg)
{
    (void)arg;
    return (size_t)rand() % 7;
}

/* First SPLIT octets, then all. */
static size_t
split_at(void *arg)
{
    size_t *split = arg, n = *split;

    *split = SIZE_MAX;
    return n;
}

/* All ways agree; *WHOLE is what they agree upon. */
static void
scan_all_ways(struct span in, struct data_result *whole)
{
    struct data_result other;
    size_t n = in.n > 0 ? in.n : 1;

    scan(in, of_length, &n, whole);
    other = (struct data_result){.content = malloc(2 * in.n + 1)};
    assert_non_null(other.content);
    data_reference(in, &other);
    assert_true(data_result_equal(whole, &other));
    free(other.content);
    n = 1;
    scan(in, of_length, &n, &other);
    assert_true(data_result_equal(whole, &other));
    free(other.content);
    for (size_t i = 0; i <= in.n && in.n < 2000; i++) {
        size_t split = i;
        scan(in, split_at, &split, &other);
        assert_true(data_result_equal(whole, &other));
        free(other.content);
    }
    scan(in, of_random_length, NULL, &other);
    assert_true(data_result_equal(whole, &other));
    free(other.content);
}

#define OPEN SIZE_MAX /* no end of data */

static void
test_rows(void **state)
{
    static const struct {
        const char *in, *content;
        size_t end; /* octets left behind the end of data, or OPEN */
        unsigned bare;
    } rows[] = {
        {".\r\n", "", 0, 0},
        {".\r\nQUIT\r\n", "", 6, 0},
        {"a\r\n.\r\n", "a\r\n", 0, 0},
        {"a\r\n.\r\n.\r\n", "a\r\n", 3, 0},
        {"\r\n.\r\n", "\r\n", 0, 0},
        {"a\r\n\r\nb\r\n.\r\n", "a\r\n\r\nb\r\n", 0, 0},
        {"", "", OPEN, 0},
        {"a\r\n.", "a\r\n", OPEN, 0},
        {"a\r\n.\r", "a\r\n", OPEN, 0},
        {"abc", "abc", OPEN, 0},
        /* stuffed dots */
        {"..\r\n.\r\n", ".\r\n", 0, 0},
        {"...\r\n.\r\n", "..\r\n", 0, 0},
        {"..a\r\n.b\r\n.\r\n", ".a\r\nb\r\n", 0, 0},
        {"a.\r\n.\r\n", "a.\r\n", 0, 0},
        {"a..\r\n..\r\n.\r\n", "a..\r\n.\r\n", 0, 0},
        /* bare line ends: CRLF in the content, the start of no line */
        {"a\nb\r\n.\r\n", "a\r\nb\r\n", 0, 1},
        {"a\rb\r\n.\r\n", "a\r\nb\r\n", 0, 1},
        {"a\n\nb\r\n.\r\n", "a\r\n\r\nb\r\n", 0, 2},
        {"a\r\r\n.\r\n", "a\r\n\r\n", 0, 1},
        {"a\n\r\n.\r\n", "a\r\n\r\n", 0, 1},
        {"\n", "\r\n", OPEN, 1},
        {"a\n.b\r\n.\r\n", "a\r\n.b\r\n", 0, 1},
        {"a\n..b\r\n.\r\n", "a\r\n..b\r\n", 0, 1},
        {"a\r.b\r\n.\r\n", "a\r\n.b\r\n", 0, 1},
        /* what ends a message for some servers, and must not here */
        {"a\n.\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", 0, 2},
        {"a\n.\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", 0, 1},
        {"a\r\n.\nb\r\n.\r\n", "a\r\n\r\nb\r\n", 0, 1},
        {"a\r.\rb\r\n.\r\n", "a\r\n.\r\nb\r\n", 0, 2},
        {"a\r.\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", 0, 1},
        {"a\r\n.\rb\r\n.\r\n", "a\r\n\r\nb\r\n", 0, 1},
        {"a\r\n.\r\r\n.\r\n", "a\r\n\r\n\r\n", 0, 1},
        {"a\n\r.\r\n.\r\n", "a\r\n\r\n.\r\n", 0, 2},
        {"a\r\r\n.\r\r\n.\r\n", "a\r\n\r\n\r\n\r\n", 0, 2},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct span in = span_str(rows[i].in);
        struct data_result r;

        scan_all_ways(in, &r);
        if (!span_is(span_of(r.content, r.n), rows[i].content))
            fail_msg("row %zu: wrong content", i);
        assert_int_equal(r.bare, rows[i].bare);
        assert_int_equal(r.is_ended, rows[i].end != OPEN);
        if (r.is_ended)
            assert_int_equal(in.n - r.used, rows[i].end);
        free(r.content);
    }
}

static void
test_nul_is_content(void **state)
{
    static const char in[] = "a\0b\r\n.\0\r\n.\r\n";
    struct data_result r;
    (void)state;

    scan_all_ways(span_of(in, sizeof in - 1), &r);
    assert_true(r.is_ended);
    assert_true(span_equal(span_of(r.content, r.n), span_of("a\0b\r\n\0\r\n", 8)));
    free(r.content);
}

/* Every input of up to seven octets out of those that matter. */
static void
test_every_short_input(void **state)
{
    char in[7];
    (void)state;

    for (size_t n = 0; n <= sizeof in; n++) {
        size_t inputs = (size_t)1 << 2 * n;
        for (size_t i = 0; i < inputs; i++) {
            struct data_result r;

            for (size_t k = 0; k < n; k++)
                in[k] = "\r\n.x"[i >> 2 * k & 3];
            scan_all_ways(span_of(in, n), &r);
            free(r.content);
        }
    }
}

/* Random text with lines around the length of the scanner's window. */
static void
test_long_lines(void **state)
{
    enum { N = 20000 };
    char *in = malloc(N);
    (void)state;

    assert_non_null(in);
    srand(1);
    for (unsigned round = 0; round < 30; round++) {
        struct data_result r;
        size_t n = 0;

        while (n < N) {
            size_t line = 500 + (size_t)rand() % 30;
            for (; line > 0 && n < N; line--)
                in[n++] = 'x';
            for (size_t k = 1 + (size_t)rand() % 4; k > 0 && n < N; k--)
                in[n++] = "\r\n.\r\n"[rand() % 5];
        }
        scan_all_ways(span_of(in, N), &r);
        free(r.content);
    }
    free(in);
}

/* Clean lines come as one piece. */
static void
test_one_piece(void **state)
{
    static const char in[] = "Subject: x\r\n\r\nbody\r\nlonger body\r\n..\r\n";
    struct data_scan scan = {0};
    struct data_piece piece;
    (void)state;

    piece = data_scan_next(&scan, span_of(in, sizeof in - 1));
    assert_int_equal(piece.kind, DATA_PIECE_KEEP);
    assert_int_equal(piece.n, sizeof in - 1 - 4);
}

static void
test_stuff(void **state)
{
    static const char *const rows[][2] = {
        {"", ".\r\n"},
        {"a\r\n", "a\r\n.\r\n"},
        {"a", "a\r\n.\r\n"},
        {".\r\n", "..\r\n.\r\n"},
        {"..\r\n", "...\r\n.\r\n"},
        {"a.\r\n.b\r\n.\r\n", "a.\r\n..b\r\n..\r\n.\r\n"},
        {"\r\n.\r\nQUIT\r\n", "\r\n..\r\nQUIT\r\n.\r\n"},
        {"a\n.\r\n", "a\n..\r\n.\r\n"},
    };
    char out[64];
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t n = 1; n < 20; n++) {
            size_t length = data_stuff(span_str(rows[i][0]), n, out);
            assert_true(span_is(span_of(out, length), rows[i][1]));
        }
}

/* Whatever a client sends: the content, stuffed again, is one message, with the same content. */
static void
test_content_is_one_message(void **state)
{
    char in[14], out[64];
    (void)state;

    srand(2);
    for (unsigned round = 0; round < 100000; round++) {
        size_t n = 1 + (size_t)rand() % (sizeof in - 6), length = sizeof in;
        struct data_result r, again;

        for (size_t k = 0; k < n; k++)
            in[k] = "\r\n.x"[rand() % 4];
        memcpy(in + n, "x\r\n.\r\n", 6);
        scan(span_of(in, n + 6), of_length, &length, &r);
        length = data_stuff(span_of(r.content, r.n), 1 + n % 3, out);
        n = length;
        scan(span_of(out, length), of_length, &n, &again);
        assert_true(again.is_ended);
        assert_int_equal(again.used, length);
        assert_int_equal(again.bare, 0);
        assert_true(r.is_ended);
        assert_true(span_equal(span_of(again.content, again.n), span_of(r.content, r.n)));
        free(r.content);
        free(again.content);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_nul_is_content),
        cmocka_unit_test(test_every_short_input),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_one_piece),
        cmocka_unit_test(test_stuff),
        cmocka_unit_test(test_content_is_one_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
