#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/smtp/address.h"

enum { ASCII = 0, UTF8 = 1, NULL_OK = 2, POSTMASTER_OK = 4 };

static bool
parse(struct span in, unsigned flags, struct smtp_path *path, size_t *used)
{
    return smtp_path_parse(in, (flags & NULL_OK) != 0, (flags & POSTMASTER_OK) != 0,
                           (flags & UTF8) != 0, path, used);
}

static void
test_good_paths(void **state)
{
    static const struct {
        const char *in;
        unsigned flags;
        const char *text, *canonical;
    } rows[] = {
        {"<a@b>", ASCII, "a@b", "a@b"},
        {"<John.Doe@Example.COM>", ASCII, "John.Doe@Example.COM", "john.doe@example.com"},
        {"<!#$%&'*+-/=?^_`{|}~@example.com>", ASCII, "!#$%&'*+-/=?^_`{|}~@example.com",
         "!#$%&'*+-/=?^_`{|}~@example.com"},
        {"<IMCEAEX-_O=ORG_OU=FIRST_CN=RECIPIENTS_CN=Jo+20Do@x.example>", ASCII,
         "IMCEAEX-_O=ORG_OU=FIRST_CN=RECIPIENTS_CN=Jo+20Do@x.example",
         "imceaex-_o=org_ou=first_cn=recipients_cn=jo+20do@x.example"},
        /* dots anywhere: real senders use them */
        {"<a.@b>", NULL_OK, "a.@b", "a.@b"},
        {"<.a@b>", NULL_OK, ".a@b", ".a@b"},
        {"<a..b@b>", NULL_OK, "a..b@b", "a..b@b"},
        {"<\".a..\"@b>", ASCII, "\".a..\"@b", ".a..@b"},
        /* quotes */
        {"<\"a b\"@c>", ASCII, "\"a b\"@c", "\"a b\"@c"},
        {"<\"A.b\"@c>", ASCII, "\"A.b\"@c", "a.b@c"},
        {"<\"A\\b\"@c>", ASCII, "\"A\\b\"@c", "ab@c"},
        {"<\"a\\ b\"@c>", ASCII, "\"a\\ b\"@c", "\"a b\"@c"},
        {"<\"a\\\"b\"@c>", ASCII, "\"a\\\"b\"@c", "\"a\\\"b\"@c"},
        {"<\"a\\\\\"@c>", ASCII, "\"a\\\\\"@c", "\"a\\\\\"@c"},
        {"<\"a@b\"@c>", ASCII, "\"a@b\"@c", "\"a@b\"@c"},
        {"<\"><\"@c>", ASCII, "\"><\"@c", "\"><\"@c"},
        /* domains */
        {"<a@a-b.c_d.-e.1>", ASCII, "a@a-b.c_d.-e.1", "a@a-b.c_d.-e.1"},
        {"<a@XN--BCHER-KVA.example>", ASCII, "a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example"},
        {"<a@[192.0.2.1]>", ASCII, "a@[192.0.2.1]", "a@[192.0.2.1]"},
        {"<a@[IPv6:2001:DB8::1]>", ASCII, "a@[IPv6:2001:DB8::1]", "a@[ipv6:2001:db8::1]"},
        {"<a@[ipv6:::ffff:192.0.2.1]>", ASCII, "a@[ipv6:::ffff:192.0.2.1]",
         "a@[ipv6:::ffff:192.0.2.1]"},
        /* source routes are dropped */
        {"<@x:a@b>", ASCII, "a@b", "a@b"},
        {"<@x.example,@[192.0.2.1],@y:a@b>", ASCII, "a@b", "a@b"},
        /* beyond ASCII */
        {"<j\xc3\xb6rg@b>", UTF8, "j\xc3\xb6rg@b", "j\xc3\xb6rg@b"},
        {"<\xc3\x96ZG\xc3\x9cR@b>", UTF8, "\xc3\x96ZG\xc3\x9cR@b", "\xc3\xb6zg\xc3\xbcr@b"},
        {"<a@B\xc3\x9c"
         "cher.Example>",
         UTF8,
         "a@B\xc3\x9c"
         "cher.Example",
         "a@xn--bcher-kva.example"},
        {"<a@fa\xc3\x9f.example>", UTF8, "a@fa\xc3\x9f.example", "a@xn--fa-hia.example"},
        {"<a@bu\xcc\x88"
         "cher.example>",
         UTF8,
         "a@bu\xcc\x88"
         "cher.example",
         "a@xn--bcher-kva.example"},
        {"<\"\xc3\xb6 \\\\\xc3\x96\"@b>", UTF8, "\"\xc3\xb6 \\\\\xc3\x96\"@b",
         "\"\xc3\xb6 \\\\\xc3\xb6\"@b"},
        {"<\xf0\x9f\x93\xa7@b>", UTF8, "\xf0\x9f\x93\xa7@b", "\xf0\x9f\x93\xa7@b"},
        /* what only some paths may be */
        {"<>", NULL_OK, "", ""},
        {"<Postmaster>", POSTMASTER_OK, "postmaster", "postmaster"},
        {"<POSTMASTER@b>", POSTMASTER_OK, "POSTMASTER@b", "postmaster@b"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct span in = span_str(rows[i].in);
        struct smtp_path path;
        char canonical[SMTP_ADDRESS_MAX + 1], line[200];
        size_t used = 0, at, n;

        if (!parse(in, rows[i].flags, &path, &used))
            fail_msg("%s is refused", rows[i].in);
        assert_int_equal(used, in.n);
        assert_string_equal(path.text, rows[i].text);
        assert_int_equal(path.n, strlen(rows[i].text));
        assert_int_equal(path.is_null, path.n == 0);
        assert_int_equal(path.is_postmaster, rows[i].flags == POSTMASTER_OK && path.at == path.n);
        assert_int_equal(path.is_utf8, rows[i].flags == UTF8);
        assert_true(path.at == path.n || path.text[path.at] == '@');
        assert_true(path.at < path.n || path.is_null || path.is_postmaster);

        n = smtp_path_canonical(&path, canonical, &at);
        assert_string_equal(canonical, rows[i].canonical);
        assert_int_equal(n, strlen(canonical));
        assert_true(at == n || canonical[at] == '@');

        /* what follows is not looked at */
        assert_true(span_copy(line, sizeof line, in));
        memcpy(line + in.n, "> SIZE=1", 9);
        assert_true(parse(span_str(line), rows[i].flags, &path, &used));
        assert_int_equal(used, in.n);

        /* no part of it is a path */
        for (size_t k = 0; k < in.n; k++)
            assert_false(parse(span_of(rows[i].in, k), rows[i].flags, &path, &used));
        /* without the leave it is none */
        if (rows[i].flags != ASCII && path.at == path.n)
            assert_false(parse(in, ASCII, &path, &used));
        if (rows[i].flags == UTF8)
            assert_false(parse(in, ASCII, &path, &used));

        /* the canonical form is its own */
        if (path.at < path.n) {
            char again[SMTP_ADDRESS_MAX + 1];
            size_t again_at;

            assert_int_equal(smtp_address_canonical(span_of(canonical, n), again, &again_at), n);
            assert_string_equal(again, canonical);
            assert_int_equal(again_at, at);
            assert_int_equal(smtp_address_canonical(span_str(path.text), again, &again_at), n);
            assert_string_equal(again, canonical);
        }
    }
}

static void
test_bad_paths(void **state)
{
    static const char *const rows[] = {
        "",
        "<",
        ">",
        "a@b",
        "a@b>",
        "<a@b",
        "< a@b>",
        "<a@b >",
        "<a @b>",
        "<a@ b>",
        "<<a@b>>",
        "<a<@b>",
        "<a>@b>",
        "<a>",
        "<@b>",
        "<a@>",
        "<@>",
        "<a@b@c>",
        "<\"\"@b>",
        "<\"@b>",
        "<\"a@b>",
        "<\"a\\\"@b>",
        "<\"a\"b@c>",
        "<a\"b\"@c>",
        "<\"a\".b@c>",
        "<a\\b@c>",
        "<a(b)@c>",
        "<a,b@c>",
        "<a;b@c>",
        "<a:b@c>",
        "<a[b]@c>",
        "<a\tb@c>",
        "<a\rb@c>",
        "<a\nb@c>",
        "<a\x01@c>",
        "<a\x7f@c>",
        "<\"a\tb\"@c>",
        "<\"a\rb\"@c>",
        "<\"a\nb\"@c>",
        "<\"a\\\nb\"@c>",
        "<\"a\\\xc3\xb6\"@c>",
        "<a@b..c>",
        "<a@.b>",
        "<a@b.>",
        "<a@.>",
        "<a@b c>",
        "<a@b\r\n>",
        "<a@b(c)>",
        "<a@b/c>",
        "<a@b:25>",
        "<a@b%c>",
        "<a@[>",
        "<a@[]>",
        "<a@[192.0.2.256]>",
        "<a@[192.0.2]>",
        "<a@[192.0.2.1>",
        "<a@[192.0.2.1]x>",
        "<a@[2001:db8::1]>",
        "<a@[IPv6:]>",
        "<a@[IPv6:192.0.2.1]>",
        "<a@[IPv6:2001:db8:::1]>",
        "<a@[IPv6:fe80::1%eth0]>",
        "<a@[x400:a]>",
        "<a@[192.0.2.1 ]>",
        "<a@x[192.0.2.1]>",
        "<@x>",
        "<@x:>",
        "<@x,a@b>",
        "<@x,:a@b>",
        "<@x@y:a@b>",
        "<@:a@b>",
        "<@x:@y:a@b>",
        "<@x,,@y:a@b>",
        "<@x:postmaster>",
        "<postmaster@>",
        "<postmasters>",
        "<\"postmaster\">",
        /* bad UTF-8: a lone octet, overlong, surrogate, too large, cut off; C1 controls, a line
         * separator, a direction override */
        "<a\x80@b>",
        "<a\xff@b>",
        "<a\xc0\x80@b>",
        "<a\xc1\xbf@b>",
        "<a\xe0\x80\x80@b>",
        "<a\xed\xa0\x80@b>",
        "<a\xf4\x90\x80\x80@b>",
        "<a\xf5\x80\x80\x80@b>",
        "<a\xc3@b>",
        "<a\xe2\x82@b>",
        "<a@b\x80>",
        "<a\xc2\x85@b>",
        "<a@\xc2\x80>",
        "<\"a\xe2\x80\xa8\"@b>",
        "<\xe2\x80\xae@b>",
        "<a@\xe2\x80\xae.example>",
        "<\"\xc3\"@b>",
    };
    struct smtp_path path;
    size_t used;
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (parse(span_str(rows[i]), UTF8 | NULL_OK | POSTMASTER_OK, &path, &used))
            fail_msg("%s is taken", rows[i]);
    /* no recipient has these */
    static const char *const dots[] = {"<.a@b>", "<a.@b>", "<a..b@b>", "<.@b>", "<..@b>"};
    for (size_t i = 0; i < sizeof dots / sizeof dots[0]; i++) {
        assert_false(parse(span_str(dots[i]), UTF8 | POSTMASTER_OK, &path, &used));
        assert_true(parse(span_str(dots[i]), NULL_OK, &path, &used));
    }
    assert_false(parse(span_str("<>"), POSTMASTER_OK, &path, &used));
    assert_false(parse(span_str("<postmaster>"), NULL_OK, &path, &used));
    assert_false(parse(span_of("<a\0@b>", 6), UTF8, &path, &used));
    assert_false(parse(span_of("<a@b\0>", 6), UTF8, &path, &used));
    assert_false(parse(span_of("<\"a\0\"@b>", 8), UTF8, &path, &used));
    assert_false(parse(span_of(NULL, 0), UTF8, &path, &used));
}

/* "<" LOCAL times 'a', "@", a domain of LABELS labels of LABEL octets, ">". */
static struct span
path_of(char *out, size_t local, size_t labels, size_t label)
{
    size_t n = 0;

    out[n++] = '<';
    memset(out + n, 'a', local);
    n += local;
    out[n++] = '@';
    for (size_t i = 0; i < labels; i++) {
        memset(out + n, 'b', label);
        n += label;
        out[n++] = i + 1 < labels ? '.' : '>';
    }
    return span_of(out, n);
}

static void
test_lengths(void **state)
{
    char text[2000], canonical[SMTP_ADDRESS_MAX + 1];
    struct smtp_path path;
    size_t used, at;
    (void)state;

    assert_true(parse(path_of(text, 65, 1, 63), ASCII, &path, &used));
    assert_false(parse(path_of(text, 65, 1, 64), ASCII, &path, &used));
    assert_true(parse(path_of(text, 1, 4, 63), ASCII, &path, &used));  /* 255 */
    assert_false(parse(path_of(text, 1, 5, 51), ASCII, &path, &used)); /* 259 */
    assert_true(parse(path_of(text, SMTP_ADDRESS_MAX - 2, 1, 1), ASCII, &path, &used));
    assert_int_equal(path.n, SMTP_ADDRESS_MAX);
    assert_int_equal(smtp_path_canonical(&path, canonical, &at), SMTP_ADDRESS_MAX);
    assert_int_equal(at, SMTP_ADDRESS_MAX - 2);
    assert_false(parse(path_of(text, SMTP_ADDRESS_MAX - 1, 1, 1), ASCII, &path, &used));
}

/* A domain may be longer in UTF-8 than its A-labels are. */
static void
test_long_u_labels(void **state)
{
    char text[2 + 5 * 61 + 2] = "<a", canonical[SMTP_ADDRESS_MAX + 1];
    struct smtp_path path;
    size_t n = 2, used, at;
    (void)state;

    for (unsigned label = 0; label < 5; label++) {
        text[n++] = label == 0 ? '@' : '.';
        for (unsigned i = 0; i < 20; i++, n += 3)
            memcpy(text + n, "\xe0\xb8\x81", 3);
    }
    text[n++] = '>';
    assert_true(parse(span_of(text, n), UTF8, &path, &used));
    n = smtp_path_canonical(&path, canonical, &at);
    assert_in_range(n, 20, 200);
    assert_true(span_starts_nocase(span_str(canonical), "a@xn--"));
}

/* Paths that have no canonical form. */
static void
test_refused_by_idna(void **state)
{
    static const char *const rows[] = {
        "<a@-\xc3\xbc.example>",            /* a U-label with a leading hyphen */
        "<a@\xef\xbc\xa0.example>",         /* U+FF20 maps to '@' */
        "<a@\xef\xbc\x9e\xc3\xbc.example>", /* U+FF1E maps to '>' */
        "<a@\xcc\x88.example>",             /* a combining mark alone */
        "<a@\xe2\x80\x8d.example>",         /* a joiner alone */
        "<a@\xe3\x80\x82>",                 /* U+3002 maps to '.' */
    };
    char canonical[SMTP_ADDRESS_MAX + 1], text[SMTP_ADDRESS_MAX + 2];
    size_t used, at, n;
    struct smtp_path path;
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_true(parse(span_str(rows[i]), UTF8, &path, &used));
        if (smtp_path_canonical(&path, canonical, &at) != 0)
            fail_msg("%s becomes %s", rows[i], canonical);
        assert_string_equal(canonical, "");
    }
    /* It fits as it is written, but not with A-labels. */
    n = SMTP_ADDRESS_MAX - strlen("@\xc3\xbc.example");
    text[0] = '<';
    memset(text + 1, 'a', n);
    memcpy(text + 1 + n, "@\xc3\xbc.example>", 12);
    assert_true(parse(span_of(text, n + 13), UTF8, &path, &used));
    assert_int_equal(path.n, SMTP_ADDRESS_MAX);
    assert_int_equal(smtp_path_canonical(&path, canonical, &at), 0);
}

static void
test_address(void **state)
{
    static const char *const rows[][2] = {
        {"A@B", "a@b"},
        {"<A@B>", "a@b"},
        {"\"a b\"@c", "\"a b\"@c"},
        {"\xc3\x96@b", "\xc3\xb6@b"},
        {"", ""},
        {"<>", ""},
        {"a", ""},
        {"@b", ""},
        {" a@b", ""},
        {"a@b ", ""},
        {"<a@b", ""},
        {"a@b>", ""},
        {"a@b,c@d", ""},
        {"<@x:a@b>", ""},
        {"smtp:a@b", ""},
        {"postmaster", ""},
        {"<postmaster>", ""},
        {"a@b\n", ""},
    };
    char out[SMTP_ADDRESS_MAX + 1];
    size_t at;
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = smtp_address_canonical(span_str(rows[i][0]), out, &at);
        assert_string_equal(out, rows[i][1]);
        assert_int_equal(n, strlen(out));
    }
    assert_int_equal(smtp_address_canonical(span_of(NULL, 0), out, &at), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_paths),      cmocka_unit_test(test_bad_paths),
        cmocka_unit_test(test_lengths),         cmocka_unit_test(test_long_u_labels),
        cmocka_unit_test(test_refused_by_idna), cmocka_unit_test(test_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
