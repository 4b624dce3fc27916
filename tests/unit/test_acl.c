#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "conf/settings.h"
#include "policy/acl.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static char address[] = "Spam.Me@Example.COM", domain[] = "@bad.example",
            quoted[] = "\"a@b\"@c.example", empty[] = "", at[] = "@";
static char *entries[] = {address, domain, quoted, empty, at};

static const struct {
    const char *text;
    bool is_listed;
} rows[] = {
    {"spam.me@example.com", true},
    {"SPAM.ME@EXAMPLE.com", true},
    {"spam.me2@example.com", false},
    {"am.me@example.com", false},
    {"spam.me@example.com.", false},
    {"anybody@bad.example", true},
    {"any@body@BAD.example", true},
    {"anybody@sub.bad.example", false},
    {"anybody@notbad.example", false},
    {"bad.example", false},
    {"\"x@bad.example\"@good.example", false},
    {"\"a@b\"@c.example", true},
    {"\"a@b\"@d.example", false},
    {"postmaster", false},
    {"", false},
};

static void
test_entries(void **state)
{
    (void)state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(acl_contains(entries, COUNT(entries), span_str(rows[i].text)),
                         rows[i].is_listed);
        assert_false(acl_contains(entries, 0, span_str(rows[i].text)));
    }
}

/* Each list is asked for its own purpose. */
static void
test_lists(void **state)
{
    static struct settings st;
    struct netaddr a;
    struct network n;
    (void)state;

    assert_false(acl_sender_blocked(&st, span_str("spam.me@example.com")));
    st.blocked.senders = (struct str_list){entries, 1};
    assert_true(acl_sender_blocked(&st, span_str("spam.me@example.com")));
    assert_false(acl_sender_blocked(&st, span_str("")));
    assert_false(acl_recipient_blocked(&st, span_str("spam.me@example.com")));
    assert_false(acl_is_trap(&st, span_str("spam.me@example.com")));
    st.blocked.recipients = (struct str_list){entries + 1, 1};
    assert_true(acl_recipient_blocked(&st, span_str("x@bad.example")));
    assert_false(acl_sender_blocked(&st, span_str("x@bad.example")));
    st.harvest.traps = (struct str_list){entries + 2, 1};
    assert_true(acl_is_trap(&st, span_str("\"a@b\"@c.example")));

    assert_true(netaddr_parse(span_str("192.0.2.9"), &a));
    assert_false(acl_client_blocked(&st, &a));
    assert_true(network_parse(span_str("192.0.2.0/24"), &n));
    st.blocked.clients = (struct network_list){&n, 1};
    assert_true(acl_client_blocked(&st, &a));
}

static void
test_roles(void **state)
{
    static const struct {
        const char *text;
        bool is_role;
    } roles[] = {
        {"postmaster@example.com", true},
        {"PostMaster@example.com", true},
        {"postmaster", true},
        {"abuse@x.example", true},
        {"abuse", true},
        {"abuser@x.example", false},
        {"xabuse@x.example", false},
        {"root@example.com", false},
        {"", false},
        {"@abuse", false},
    };
    (void)state;

    for (size_t i = 0; i < COUNT(roles); i++)
        assert_int_equal(acl_is_role(span_str(roles[i].text)), roles[i].is_role);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_roles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
