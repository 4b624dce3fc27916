#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/dns_message.h"

/* A message under construction. */
static uint8_t message[70000];
static size_t size;
static struct dns_answer answer;

static void
put(const void *p, size_t n)
{
    memcpy(message + size, p, n);
    size += n;
}

static void
put16(unsigned value)
{
    uint8_t octets[2] = {(uint8_t)(value >> 8), (uint8_t)value};

    put(octets, 2);
}

static void
put_name(const char *name)
{
    struct span rest = span_str(name), label;

    while (name[0] != '\0' && span_next(&rest, '.', &label)) {
        uint8_t length = (uint8_t)label.n;
        put(&length, 1);
        put(label.p, label.n);
    }
    put("", 1);
}

static void
begin(const char *name, enum dns_type type, unsigned flags)
{
    size = 0;
    put16(7);
    put16(flags);
    put16(1);
    put16(0);
    put16(0);
    put16(0);
    put_name(name);
    put16((unsigned)type);
    put16(1);
}

/* A record whose owner is OWNER, or a pointer if that is NULL. */
static void
add(const char *owner, unsigned pointer, unsigned type, unsigned ttl, const void *data, size_t n)
{
    if (owner != NULL)
        put_name(owner);
    else
        put16(0xc000 | pointer);
    put16(type);
    put16(1);
    put16(0);
    put16(ttl);
    put16((unsigned)n);
    put(data, n);
    message[7]++;
}

static void
add_cname(const char *owner, const char *target)
{
    uint8_t data[256];
    size_t start = size;

    put_name(target);
    size_t n = size - start;
    memcpy(data, message + start, n);
    size = start;
    add(owner, 0, 5, 50, data, n);
}

/* On an exact copy, so that a read behind its end is seen. */
static enum dns_status
read_it(const char *name, enum dns_type type, size_t n)
{
    struct dns_question q = {.type = type};
    uint8_t *copy = malloc(n + 1);

    assert_non_null(copy);
    memcpy(copy + 1, message, n);
    assert_true(span_copy(q.name, sizeof q.name, span_str(name)));
    dns_answer_read(&answer, &q, copy + 1, n);
    free(copy);
    return answer.status;
}

#define OK 0x8180u

static void
test_types(void **state)
{
    static const uint8_t aaaa[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};
    (void)state;

    begin("a.test", DNS_A, OK);
    add(NULL, 12, DNS_A, 90, "\xc0\0\2\1", 4);
    add("A.TEST", 0, DNS_A, 80, "\xc0\0\2\2", 4);
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_OK);
    assert_int_equal(answer.n, 2);
    assert_int_equal(answer.ttl_s, 80);
    assert_int_equal(answer.records[1].address.octets[3], 2);

    begin("a.test", DNS_AAAA, OK);
    add(NULL, 12, DNS_AAAA, 90, aaaa, 16);
    assert_int_equal(read_it("a.test", DNS_AAAA, size), DNS_OK);
    assert_int_equal(answer.records[0].address.family, 6);

    begin("a.test", DNS_TXT, OK);
    add(NULL, 12, DNS_TXT, 90, "\3v=s\0\3pf1", 9);
    add(NULL, 12, DNS_TXT, 90, "", 0);
    assert_int_equal(read_it("a.test", DNS_TXT, size), DNS_OK);
    assert_int_equal(answer.n, 2);
    assert_true(span_is(answer.records[0].text, "v=spf1"));
    assert_int_equal(answer.records[1].text.n, 0);

    begin("a.test", DNS_MX, OK);
    add(NULL, 12, DNS_MX, 90, "\0\12\1m\300\14", 6);
    add(NULL, 12, DNS_MX, 90, "\0\0\0", 3);
    assert_int_equal(read_it("a.test", DNS_MX, size), DNS_OK);
    assert_true(span_is(answer.records[0].text, "m.a.test"));
    assert_true(span_is(answer.records[1].text, ""));

    begin("a.test", DNS_PTR, OK);
    add(NULL, 12, DNS_PTR, 90, "\300\16", 2);
    assert_int_equal(read_it("a.test", DNS_PTR, size), DNS_OK);
    assert_true(span_is(answer.records[0].text, "test"));
}

static void
test_none_and_trouble(void **state)
{
    static const unsigned codes[] = {1, 2, 4, 5, 9};
    (void)state;

    begin("a.test", DNS_A, OK);
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_NONE);
    assert_int_equal(answer.ttl_s, DNS_NEGATIVE_TTL_S);
    begin("a.test", DNS_A, OK | 3);
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_NONE);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        begin("a.test", DNS_A, OK | codes[i]);
        add(NULL, 12, DNS_A, 90, "\xc0\0\2\1", 4);
        assert_int_equal(read_it("a.test", DNS_A, size), DNS_TROUBLE);
        assert_int_equal(answer.n, 0);
    }
    begin("a.test", DNS_A, 0x0180); /* a query */
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_TROUBLE);
    begin("a.test", DNS_A, OK | 0x0200); /* truncated */
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_TROUBLE);
    /* another question */
    begin("b.test", DNS_A, OK);
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_TROUBLE);
    begin("a.test", DNS_MX, OK);
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_TROUBLE);
    /* what was not asked for is no answer */
    begin("a.test", DNS_A, OK);
    add("b.test", 0, DNS_A, 90, "\xc0\0\2\1", 4);
    add("a.test", 0, DNS_TXT, 90, "\1x", 2);
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_NONE);
    /* a label that holds a dot is not two labels */
    begin("a.test", DNS_A, OK);
    put("\6a.test\0", 8);
    add("", 0, DNS_A, 90, "\xc0\0\2\1", 4);
    assert_int_not_equal(read_it("a.test", DNS_A, size), DNS_OK);
}

static void
test_aliases(void **state)
{
    char from[24], to[24];
    (void)state;

    /* in whatever order */
    begin("a.test", DNS_A, OK);
    add("c.test", 0, DNS_A, 90, "\xc0\0\2\1", 4);
    add_cname("b.test", "C.test");
    add_cname("A.test", "b.test");
    add("b.test", 0, DNS_TXT, 90, "\1x", 2);
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_OK);
    assert_int_equal(answer.n, 1);
    assert_int_equal(answer.ttl_s, 50);
    /* to nowhere, and in a circle */
    begin("a.test", DNS_A, OK);
    add_cname("a.test", "b.test");
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_NONE);
    add_cname("b.test", "a.test");
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_TROUBLE);
    for (int links = DNS_CNAMES_MAX; links <= DNS_CNAMES_MAX + 1; links++) {
        begin("0.test", DNS_A, OK);
        for (int i = 0; i < links; i++) {
            snprintf(from, sizeof from, "%d.test", i);
            snprintf(to, sizeof to, "%d.test", i + 1);
            add_cname(from, to);
        }
        add(to, 0, DNS_A, 90, "\xc0\0\2\1", 4);
        assert_int_equal(read_it("0.test", DNS_A, size),
                         links == DNS_CNAMES_MAX ? DNS_OK : DNS_TROUBLE);
    }
}

static void
test_malformed(void **state)
{
    static const struct {
        enum dns_type type;
        const char *data;
        size_t n;
    } cases[] = {
        {DNS_A, "\xc0\0\2", 3},   {DNS_A, "\xc0\0\2\1\0", 5}, {DNS_AAAA, "\xc0\0\2\1", 4},
        {DNS_TXT, "\2x", 2},      {DNS_TXT, "\1x\377", 3},    {DNS_MX, "\0\12", 2},
        {DNS_MX, "\0", 1},        {DNS_MX, "\0\12\1m", 4},    {DNS_MX, "\0\12\1m\0\0", 6},
        {DNS_PTR, "", 0},         {DNS_PTR, "\100x", 2},      {DNS_PTR, "\200x", 2},
        {DNS_PTR, "\1.\0", 3},    {DNS_PTR, "\1\\\0", 3},     {DNS_PTR, "\1\n\0", 3},
        {DNS_PTR, "\300\44", 2}, /* itself */
        {DNS_PTR, "\377\377", 2}, {DNS_PTR, "\300", 1},
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin("a.test", cases[i].type, OK);
        assert_int_equal(size, 24);
        add(NULL, 12, (unsigned)cases[i].type, 90, cases[i].data, cases[i].n);
        if (read_it("a.test", cases[i].type, size) != DNS_TROUBLE)
            fail_msg("case %zu", i);
    }
    /* more records promised than there are */
    begin("a.test", DNS_A, OK);
    add(NULL, 12, DNS_A, 90, "\xc0\0\2\1", 4);
    message[7] = 2;
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_TROUBLE);
}

/* Cut at every octet, a message is trouble; so it is never read past its end. */
static void
test_cut(void **state)
{
    (void)state;

    begin("a.test", DNS_MX, OK);
    add_cname("a.test", "b.test");
    add("b.test", 0, DNS_MX, 90, "\0\12\1m\300\14", 6);
    assert_int_equal(read_it("a.test", DNS_MX, size), DNS_OK);
    for (size_t n = 0; n < size; n++)
        assert_int_equal(read_it("a.test", DNS_MX, n), DNS_TROUBLE);
}

static void
test_many(void **state)
{
    (void)state;

    begin("a.test", DNS_A, OK);
    for (int i = 0; i < 255; i++)
        add(NULL, 12, DNS_A, 90, "\xc0\0\2\1", 4);
    assert_int_equal(read_it("a.test", DNS_A, size), DNS_OK);
    assert_int_equal(answer.n, DNS_RECORDS_MAX);
}

static void
test_names(void **state)
{
    static const char *const good[] = {"a", "a.b", "_x.a-b", "a b.c%d", "127.0.0.1"};
    static const char *const bad[] = {"", ".", "a.", ".a", "a..b", "a\\b", "a\tb", "\xc3\xa4"};
    char name[DNS_NAME_MAX + 2], out[DNS_NAME_TEXT];
    struct netaddr a = {.family = 4, .octets = {192, 0, 2, 1}};
    (void)state;

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(dns_name_valid(span_str(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(dns_name_valid(span_str(bad[i])));
    memset(name, 'a', sizeof name);
    assert_true(dns_name_valid(span_of(name, 63)));
    assert_false(dns_name_valid(span_of(name, 64)));
    for (size_t i = 63; i < sizeof name; i += 64)
        name[i] = '.';
    assert_true(dns_name_valid(span_of(name, DNS_NAME_MAX)));
    assert_false(dns_name_valid(span_of(name, DNS_NAME_MAX + 1)));
    assert_true(dns_reverse_name(out, &a, "in-addr.arpa"));
    assert_string_equal(out, "1.2.0.192.in-addr.arpa");
    name[DNS_NAME_MAX - 10] = '\0';
    assert_true(dns_reverse_name(out, &a, name));
    assert_int_equal(strlen(out), DNS_NAME_MAX);
    name[DNS_NAME_MAX - 10] = 'a';
    name[DNS_NAME_MAX - 9] = '\0';
    assert_false(dns_reverse_name(out, &a, name));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),   cmocka_unit_test(test_none_and_trouble),
        cmocka_unit_test(test_aliases), cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_cut),     cmocka_unit_test(test_many),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
