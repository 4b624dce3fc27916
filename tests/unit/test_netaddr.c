#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

#include "base/netaddr.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static struct netaddr
address(const char *text)
{
    struct netaddr a;

    if (!netaddr_parse(span_str(text), &a))
        fail_msg("%s", text);
    return a;
}

static struct network
net(const char *text)
{
    struct network n;

    if (!network_parse(span_str(text), &n))
        fail_msg("%s", text);
    return n;
}

static void
test_parse_and_format(void **state)
{
    static const struct {
        const char *text, *out; /* no OUT: not an address */
        uint8_t family;
    } cases[] = {
        {"192.0.2.1", "192.0.2.1", 4},
        {"0.0.0.0", "0.0.0.0", 4},
        {"255.255.255.255", "255.255.255.255", 4},
        {"::", "::", 6},
        {"::1", "::1", 6},
        {"2001:DB8:0:0:0:0:0:1", "2001:db8::1", 6},
        {"fe80::1:2", "fe80::1:2", 6},
        {"::ffff:192.0.2.1", "192.0.2.1", 4},
        {"0:0:0:0:0:ffff:c000:0201", "192.0.2.1", 4},
        {"::192.0.2.1", "::192.0.2.1", 6},
        {"1111:2222:3333:4444:5555:6666:255.255.255.255", "1111:2222:3333:4444:5555:6666:ffff:ffff",
         6},
        {"", NULL, 0},
        {"1", NULL, 0},
        {"192.0.2", NULL, 0},
        {"192.0.2.256", NULL, 0},
        {"192.0.2.1.", NULL, 0},
        {"192.0.2.01", NULL, 0},
        {"0x7f.0.0.1", NULL, 0},
        {" 192.0.2.1", NULL, 0},
        {"192.0.2.1 ", NULL, 0},
        {"192.0.2.1:25", NULL, 0},
        {"[::1]", NULL, 0},
        {"IPv6:::1", NULL, 0},
        {"fe80::1%eth0", NULL, 0},
        {":::", NULL, 0},
        {"1:2:3:4:5:6:7:8:9", NULL, 0},
        {"example.com", NULL, 0},
        {"00000000000000000000000000000000000000000000000000000000000000001", NULL, 0},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct netaddr a;
        char out[NETADDR_TEXT];

        assert_int_equal(netaddr_parse(span_str(cases[i].text), &a), cases[i].out != NULL);
        if (!cases[i].out)
            continue;
        assert_int_equal(a.family, cases[i].family);
        netaddr_format(&a, out);
        assert_string_equal(out, cases[i].out);
    }
    /* What stands behind a NUL is part of the text. */
    assert_false(netaddr_parse(span_of("192.0.2.1\0x", 11), &(struct netaddr){0}));
    assert_false(netaddr_parse(span_of(NULL, 0), &(struct netaddr){0}));
}

static void
test_none(void **state)
{
    struct netaddr none = {0}, zero = address("0.0.0.0");
    struct network n = network_of(&none, 24), any = net("0.0.0.0/0");
    char out[NETWORK_TEXT];

    (void)state;
    netaddr_format(&none, out);
    assert_string_equal(out, "");
    assert_false(netaddr_equal(&none, &zero));
    assert_false(netaddr_is_loopback(&none));
    assert_false(netaddr_is_private(&none));
    assert_false(network_contains(&n, &none));
    assert_false(network_contains(&any, &none));
    network_format(&n, out);
    assert_string_equal(out, "");
}

static void
test_sockaddr(void **state)
{
    static const char *const texts[] = {"192.0.2.1", "127.0.0.1", "2001:db8::1", "::1"};
    struct sockaddr_storage sa;
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = htons(26)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct netaddr a, b;
    uint16_t port = 9;

    (void)state;
    for (size_t i = 0; i < LENGTH(texts); i++) {
        a = address(texts[i]);
        assert_int_equal(netaddr_to_sockaddr(&a, 4711, &sa),
                         a.family == 4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        b = netaddr_of_sockaddr((struct sockaddr *)&sa, &port);
        assert_true(netaddr_equal(&a, &b));
        assert_int_equal(port, 4711);
        b = netaddr_of_sockaddr((struct sockaddr *)&sa, NULL);
        assert_true(netaddr_equal(&a, &b));
    }
    /* An IPv4 client of an IPv6 listener. */
    inet_pton(AF_INET6, "::ffff:192.0.2.1", &mapped.sin6_addr);
    a = netaddr_of_sockaddr((struct sockaddr *)&mapped, &port);
    b = address("192.0.2.1");
    assert_true(netaddr_equal(&a, &b));
    assert_int_equal(port, 26);

    a = netaddr_of_sockaddr((struct sockaddr *)&un, &port);
    assert_int_equal(a.family, 0);
    assert_int_equal(port, 0);
    assert_int_equal(netaddr_to_sockaddr(&a, 25, &sa), 0);
}

static void
test_kinds(void **state)
{
    static const struct {
        const char *text;
        bool loopback, private;
    } cases[] = {
        {"126.255.255.255", false, false},
        {"127.0.0.0", true, true},
        {"127.255.255.255", true, true},
        {"128.0.0.0", false, false},
        {"::1", true, true},
        {"::", false, false},
        {"::2", false, false},
        {"::ffff:127.0.0.1", true, true},
        {"9.255.255.255", false, false},
        {"10.0.0.0", false, true},
        {"10.255.255.255", false, true},
        {"11.0.0.0", false, false},
        {"172.15.255.255", false, false},
        {"172.16.0.0", false, true},
        {"172.31.255.255", false, true},
        {"172.32.0.0", false, false},
        {"192.167.255.255", false, false},
        {"192.168.0.0", false, true},
        {"192.168.255.255", false, true},
        {"192.169.0.0", false, false},
        {"100.63.255.255", false, false},
        {"100.64.0.0", false, true},
        {"100.127.255.255", false, true},
        {"100.128.0.0", false, false},
        {"169.253.255.255", false, false},
        {"169.254.0.0", false, true},
        {"169.254.255.255", false, true},
        {"169.255.0.0", false, false},
        {"fe7f:ffff::", false, false},
        {"fe80::1", false, true},
        {"febf:ffff::", false, true},
        {"fec0::", false, false},
        {"fbff:ffff::", false, false},
        {"fc00::", false, true},
        {"fdff:ffff::", false, true},
        {"fe00::", false, false},
        {"192.0.2.1", false, false},
        {"2001:db8::1", false, false},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct netaddr a = address(cases[i].text);

        assert_int_equal(netaddr_is_loopback(&a), cases[i].loopback);
        assert_int_equal(netaddr_is_private(&a), cases[i].private);
    }
}

static void
test_network_parse(void **state)
{
    static const struct {
        const char *text, *out; /* no OUT: a fault */
    } cases[] = {
        {"192.0.2.0/24", "192.0.2.0/24"},
        {"192.0.2.1", "192.0.2.1"},
        {"192.0.2.1/32", "192.0.2.1"},
        {"0.0.0.0/0", "0.0.0.0/0"},
        {"192.0.2.128/25", "192.0.2.128/25"},
        {"2001:db8::/32", "2001:db8::/32"},
        {"::/0", "::/0"},
        {"2001:db8::1", "2001:db8::1"},
        {"2001:db8::1/128", "2001:db8::1"},
        {"2001:db8:8000::/33", "2001:db8:8000::/33"},
        {"::ffff:192.0.2.0/120", "192.0.2.0/24"},
        {"::ffff:192.0.2.1", "192.0.2.1"},
        {"::ffff:0.0.0.0/96", "0.0.0.0/0"},
        {"192.0.2.1/24", NULL},
        {"192.0.2.128/24", NULL},
        {"2001:db8::1/64", NULL},
        {"2001:db8:8000::/32", NULL},
        {"192.0.2.0/33", NULL},
        {"::/129", NULL},
        {"::ffff:192.0.2.0/24", NULL},
        {"::ffff:192.0.2.0/129", NULL},
        {"192.0.2.0/", NULL},
        {"192.0.2.0/-1", NULL},
        {"192.0.2.0/24/24", NULL},
        {"192.0.2.0/255.255.255.0", NULL},
        {"192.0.2.0 /24", NULL},
        {"192.0.2/24", NULL},
        {"/24", NULL},
        {"", NULL},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct network n;
        char out[NETWORK_TEXT];

        if (network_parse(span_str(cases[i].text), &n) != (cases[i].out != NULL))
            fail_msg("%s", cases[i].text);
        if (!cases[i].out)
            continue;
        network_format(&n, out);
        assert_string_equal(out, cases[i].out);
    }
}

/* Every prefix of both families, against the bits one by one. */
static void
test_every_prefix(void **state)
{
    static const char *const texts[] = {"203.117.171.219",
                                        "a5c3:5a3c:f00f:9669:1e2d:8778:4bb4:d22d"};

    (void)state;
    for (size_t t = 0; t < LENGTH(texts); t++) {
        struct netaddr a = address(texts[t]);
        unsigned bits = a.family == 4 ? 32 : 128;

        for (unsigned prefix = 0; prefix <= bits; prefix++) {
            struct network n = network_of(&a, (uint8_t)prefix);

            assert_true(network_contains(&n, &a));
            for (unsigned bit = 0; bit < bits; bit++) {
                struct netaddr b = a;
                struct network of_b;
                uint8_t mask = (uint8_t)(0x80 >> bit % 8);

                b.octets[bit / 8] ^= mask;
                of_b = network_of(&b, (uint8_t)prefix);
                assert_int_equal(network_contains(&n, &b), bit >= prefix);
                assert_int_equal(network_equal(&n, &of_b), bit >= prefix);
                assert_int_equal((n.base.octets[bit / 8] & mask) != 0,
                                 bit < prefix && (a.octets[bit / 8] & mask) != 0);
            }
        }
    }
}

static void
test_prefix_too_long(void **state)
{
    struct netaddr a = address("192.0.2.1");
    struct network n = network_of(&a, 64), host = net("192.0.2.1");

    (void)state;
    assert_true(network_equal(&n, &host));
}

static void
test_families_apart(void **state)
{
    struct netaddr four = address("0.0.0.0"), six = address("::");
    struct network all4 = net("0.0.0.0/0"), all6 = net("::/0");

    (void)state;
    assert_true(network_contains(&all4, &four));
    assert_true(network_contains(&all6, &six));
    assert_false(network_contains(&all4, &six));
    assert_false(network_contains(&all6, &four));
    assert_false(network_equal(&all4, &all6));
    assert_false(netaddr_equal(&four, &six));
}

static void
test_list(void **state)
{
    struct network v[] = {net("192.0.2.0/24"), net("2001:db8::/32"), net("198.51.100.7")};
    struct network_list list = {v, LENGTH(v)}, none = {NULL, 0};
    static const struct {
        const char *text;
        bool inside;
    } cases[] = {
        {"192.0.2.200", true},   {"2001:db8:ffff::1", true}, {"198.51.100.7", true},
        {"198.51.100.8", false}, {"2001:db9::", false},      {"192.0.3.0", false},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct netaddr a = address(cases[i].text);

        assert_int_equal(network_list_contains(&list, &a), cases[i].inside);
        assert_false(network_list_contains(&none, &a));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_and_format),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_sockaddr),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_network_parse),
        cmocka_unit_test(test_every_prefix),
        cmocka_unit_test(test_prefix_too_long),
        cmocka_unit_test(test_families_apart),
        cmocka_unit_test(test_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
