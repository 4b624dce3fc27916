#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <hiredis/hiredis.h>

#include "policy/policy.h"
#include "policy/redis_row.h"

#define HASH "00112233445566778899aabbccddeeff"

/* An answer of three elements; free it with freeReplyObject. */
static redisReply *
answer(const char *member, size_t n, const char *left, const char *values)
{
    redisReader *reader = redisReaderCreate();
    char text[512];
    void *reply = NULL;
    int length = snprintf(text, sizeof text, "*3\r\n$%zu\r\n", n);

    memcpy(text + length, member, n);
    length += (int)n;
    length += snprintf(text + length, sizeof text - (size_t)length, "\r\n%s\r\n$%zu\r\n%s\r\n",
                       left, strlen(values), values);
    assert_int_equal(redisReaderFeed(reader, text, (size_t)length), REDIS_OK);
    assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
    assert_non_null(reply);
    redisReaderFree(reader);
    return reply;
}

static bool
read_row(const char *member, const char *left, const char *values, struct redis_row *row)
{
    redisReply *reply = answer(member, strlen(member), left, values);
    bool is_read = redis_row_read(reply, 0, row);

    freeReplyObject(reply);
    return is_read;
}

static void
test_good_rows(void **state)
{
    struct redis_row row;
    char member[REDIS_ROW_MEMBER];
    (void)state;

    assert_true(read_row("h192.0.2.0/24", ":3600", "3 2 31", &row));
    assert_int_equal(row.kind, REDIS_ROW_HOLD);
    assert_int_equal(row.network.prefix, 24);
    assert_true(row.left_s == 3600 && row.a == 3 && row.b == 2 && row.c == 31);
    redis_row_network_member(member, row.kind, &row.network);
    assert_string_equal(member, "h192.0.2.0/24");

    assert_true(read_row("z2001:db8::/64", ":-5", "0 0 0", &row));
    assert_int_equal(row.kind, REDIS_ROW_NULL_HOLD);
    assert_int_equal(row.left_s, -5);
    redis_row_network_member(member, row.kind, &row.network);
    assert_string_equal(member, "z2001:db8::/64");

    assert_true(read_row("c192.0.2.1", ":-60", "1 0 0", &row));
    assert_int_equal(row.kind, REDIS_ROW_CLEARED);

    assert_true(read_row("m" HASH, ":60", "1 4294967295 0", &row));
    assert_int_equal(row.b, UINT32_MAX);
    redis_row_hash_member(member, row.kind, row.hash);
    assert_string_equal(member, "m" HASH);

    assert_true(read_row("d" HASH, ":30", "2 0 4000000000", &row));
    assert_int_equal(row.c, 4000000000u);
    /* Nobody blocks for longer than that. */
    assert_true(read_row("h192.0.2.1", ":4294967296", "3 0 0", &row));
    assert_int_equal(row.left_s, REDIS_ROW_SPAN_S);
}

static void
test_bad_rows(void **state)
{
    static const struct {
        const char *member, *left, *values;
    } rows[] = {
        {"", ":1", "3 0 0"},
        {"h", ":1", "3 0 0"},
        {"x192.0.2.1", ":1", "3 0 0"},
        {"h192.0.2.1/24", ":1", "3 0 0"},
        {"h192.0.2.1/33", ":1", "3 0 0"},
        {"h192.0.2.1 ", ":1", "3 0 0"},
        {"h192.0.2.1\n", ":1", "3 0 0"},
        {"hlocalhost", ":1", "3 0 0"},
        {"m", ":1", "1 0 0"},
        {"m0", ":1", "1 0 0"},
        {"m" HASH "0", ":1", "1 0 0"},
        {"m0011223344556677889 aabbccddeeff", ":1", "1 0 0"},
        {"m00112233445566778899AABBCCDDEEFF", ":1", "1 0 0"},
        {"h192.0.2.1", ":4294967297", "3 0 0"},
        {"h192.0.2.1", ":-4294967297", "3 0 0"},
        {"h192.0.2.1", "$1\r\n1", "3 0 0"},
        {"h192.0.2.1", "$-1", "3 0 0"},
        {"h192.0.2.1", ":1", ""},
        {"h192.0.2.1", ":1", "3"},
        {"h192.0.2.1", ":1", "3 0"},
        {"h192.0.2.1", ":1", "3 0 0 0"},
        {"h192.0.2.1", ":1", "3 0 0 "},
        {"h192.0.2.1", ":1", " 3 0 0"},
        {"h192.0.2.1", ":1", "3 0 -1"},
        {"h192.0.2.1", ":1", "3 0 4294967296"},
        {"h192.0.2.1", ":1", "3 0 1.0"},
        {"h192.0.2.1", ":1", "1 0 0"}, /* reject is no block */
        {"h192.0.2.1", ":1", "2 0 0"},
        {"h192.0.2.1", ":1", "5 0 0"},
        {"h192.0.2.1", ":1", "3 3 0"},
        {"h192.0.2.1", ":1", "3 0 32"},
    };
    struct redis_row row;
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (read_row(rows[i].member, rows[i].left, rows[i].values, &row))
            fail_msg("%s %s %s is read", rows[i].member, rows[i].left, rows[i].values);
}

/* Any octet at any place of a member either makes it another good one, or none. */
static void
test_every_octet(void **state)
{
    static const char *const members[] = {"h192.0.2.1", "m" HASH};
    char text[REDIS_ROW_MEMBER], again[REDIS_ROW_MEMBER];
    (void)state;

    for (size_t m = 0; m < 2; m++)
        for (size_t at = 0; at < strlen(members[m]); at++)
            for (int octet = 0; octet < 256; octet++) {
                struct redis_row row;
                redisReply *reply;
                size_t n = strlen(members[m]);
                memcpy(text, members[m], n + 1);
                text[at] = (char)octet;
                reply = answer(text, n, ":1", "3 0 0");
                if (redis_row_read(reply, 0, &row)) {
                    if (row.kind == REDIS_ROW_MARK || row.kind == REDIS_ROW_DELIVERY)
                        redis_row_hash_member(again, row.kind, row.hash);
                    else
                        redis_row_network_member(again, row.kind, &row.network);
                    assert_string_equal(again, text);
                }
                freeReplyObject(reply);
            }
}

static void
test_short_answers(void **state)
{
    redisReply *reply = answer("h192.0.2.1", 10, ":1", "3 0 0");
    struct redis_row row;
    struct span text;
    int64_t value;
    (void)state;

    assert_true(redis_row_read(reply, 0, &row));
    for (size_t i = 1; i < 5; i++)
        assert_false(redis_row_read(reply, i, &row));
    assert_true(redis_row_number(reply, 1, 1, 1, &value));
    assert_false(redis_row_number(reply, 1, 2, 9, &value));
    assert_false(redis_row_number(reply, 1, -9, 0, &value));
    assert_false(redis_row_number(reply, 0, 0, 9, &value));
    assert_false(redis_row_number(reply, 3, 0, 9, &value));
    assert_false(redis_row_text(reply, 1, &text));
    assert_false(redis_row_text(reply, 3, &text));
    freeReplyObject(reply);
}

static void
test_hex(void **state)
{
    uint8_t octets[16], again[16];
    char text[REDIS_ROW_KEY_HEX];
    (void)state;

    for (size_t i = 0; i < 16; i++)
        octets[i] = (uint8_t)(i * 17);
    redis_row_hex(text, octets);
    assert_string_equal(text, HASH);
    assert_true(redis_row_unhex(span_str(text), again));
    assert_memory_equal(octets, again, 16);
    assert_false(redis_row_unhex(span_of(text, 31), again));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_rows),   cmocka_unit_test(test_bad_rows),
        cmocka_unit_test(test_every_octet), cmocka_unit_test(test_short_answers),
        cmocka_unit_test(test_hex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
