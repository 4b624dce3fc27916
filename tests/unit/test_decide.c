#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "policy/decide.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* A recipient against whom nothing speaks. */
static struct decide_input
welcome(void)
{
    return (struct decide_input){.has_domain = true,
                                 .is_route_up = true,
                                 .listing = DECIDE_LISTING_CLEAR,
                                 .recipient = DECIDE_RECIPIENT_FOUND};
}

/* What may speak against one, in the contract's order of judgement. */

static void
make_reject(struct decide_input *in)
{
    in->state = POLICY_ACTION_REJECT;
}

static void
make_block(struct decide_input *in)
{
    in->state = POLICY_ACTION_BLOCK;
}

static void
make_blind(struct decide_input *in)
{
    in->state = POLICY_ACTION_BLIND;
}

static void
make_bad_syntax(struct decide_input *in)
{
    in->is_bad_syntax = true;
}

static void
make_foreign(struct decide_input *in)
{
    in->has_domain = false;
}

static void
make_route_down(struct decide_input *in)
{
    in->is_route_up = false;
}

static void
make_other_route(struct decide_input *in)
{
    in->is_other_route = true;
}

static void
make_full(struct decide_input *in)
{
    in->is_full = true;
}

static void
make_halved(struct decide_input *in)
{
    in->is_full = true;
    in->is_halved = true;
}

static void
make_postmaster(struct decide_input *in)
{
    in->is_postmaster = true;
}

static void
make_blocked(struct decide_input *in)
{
    in->is_blocked = true;
}

static void
make_listed(struct decide_input *in)
{
    in->listing = DECIDE_LISTING_LISTED;
}

static void
make_unavailable(struct decide_input *in)
{
    in->recipient = DECIDE_RECIPIENT_UNAVAILABLE;
}

static void
make_absent(struct decide_input *in)
{
    in->recipient = DECIDE_RECIPIENT_ABSENT;
}

static void
make_restricted(struct decide_input *in)
{
    in->is_restricted = true;
}

static void
make_large(struct decide_input *in)
{
    in->max_size = 1000;
    in->size = 1001;
}

/* Rows of one rank exclude each other; a lower rank is judged first. */
static const struct {
    void (*make)(struct decide_input *in);
    int rank;
    enum policy_reason reason;
    enum policy_class class;
} judgements[] = {
    {make_reject, 1, POLICY_REASON_HARVEST, POLICY_CLASS_REJECT},
    {make_block, 1, POLICY_REASON_HARVEST, POLICY_CLASS_REJECT},
    {make_blind, 1, POLICY_REASON_BLIND, POLICY_CLASS_DEFER},
    {make_bad_syntax, 2, POLICY_REASON_SYNTAX, POLICY_CLASS_REJECT},
    {make_foreign, 3, POLICY_REASON_RELAY, POLICY_CLASS_REJECT},
    {make_route_down, 4, POLICY_REASON_ROUTE, POLICY_CLASS_DEFER},
    {make_other_route, 5, POLICY_REASON_OTHER_ROUTE, POLICY_CLASS_DEFER},
    {make_full, 6, POLICY_REASON_LIMIT, POLICY_CLASS_DEFER},
    {make_halved, 6, POLICY_REASON_HALVED, POLICY_CLASS_DEFER},
    {make_postmaster, 7, POLICY_REASON_POSTMASTER, POLICY_CLASS_ACCEPT},
    {make_blocked, 8, POLICY_REASON_BLOCKED, POLICY_CLASS_REJECT},
    {make_listed, 9, POLICY_REASON_DNSBL, POLICY_CLASS_REJECT},
    {make_unavailable, 10, POLICY_REASON_DIRECTORY, POLICY_CLASS_DEFER},
    {make_absent, 10, POLICY_REASON_UNKNOWN, POLICY_CLASS_REJECT},
    {make_restricted, 11, POLICY_REASON_RESTRICTED, POLICY_CLASS_REJECT},
    {make_large, 12, POLICY_REASON_SIZE, POLICY_CLASS_REJECT},
};

static void
test_welcome(void **state)
{
    struct decide_input in = welcome();
    struct decision d = decide(&in);
    (void)state;

    assert_int_equal(d.verdict, DECIDE_ACCEPT);
    assert_int_equal(d.reason, POLICY_REASON_NONE);
    assert_false(d.is_would || d.is_late || d.is_counted);
    assert_int_equal(d.delay_ms, 0);
}

static void
test_each_judgement_and_its_order(void **state)
{
    (void)state;

    for (size_t i = 0; i < COUNT(judgements); i++) {
        for (size_t k = i; k < COUNT(judgements); k++) {
            struct decide_input in = welcome();
            struct decision d;
            if (k != i && judgements[k].rank == judgements[i].rank)
                continue;
            judgements[k].make(&in);
            judgements[i].make(&in);
            d = decide(&in);
            assert_int_equal(d.reason, judgements[i].reason);
            assert_int_equal(policy_reason_class(d.reason), judgements[i].class);
            assert_int_equal(d.verdict, judgements[i].class == POLICY_CLASS_ACCEPT ? DECIDE_ACCEPT
                                                                                   : DECIDE_REFUSE);
            assert_false(d.is_would || d.is_late);
            assert_int_equal(d.is_counted, d.reason == POLICY_REASON_UNKNOWN);
        }
    }
}

/* Nobody is asked about a recipient that is decided already, and the list is asked before the
 * directory. */
static void
test_questions(void **state)
{
    (void)state;

    for (size_t i = 0; i < COUNT(judgements); i++) {
        struct decide_input in = welcome();
        in.listing = DECIDE_LISTING_UNASKED;
        in.recipient = DECIDE_RECIPIENT_UNASKED;
        assert_int_equal(decide(&in).verdict, DECIDE_ASK_LISTING);
        if (judgements[i].rank <= 8) {
            judgements[i].make(&in);
            assert_int_equal(decide(&in).reason, judgements[i].reason);
        }
    }

    struct decide_input in = welcome();
    in.recipient = DECIDE_RECIPIENT_UNASKED;
    assert_int_equal(decide(&in).verdict, DECIDE_ASK_DIRECTORY);
    in.listing = DECIDE_LISTING_LISTED;
    assert_int_equal(decide(&in).reason, POLICY_REASON_DNSBL);
    in = welcome();
    in.is_marked = true;
    assert_int_equal(decide(&in).verdict, DECIDE_ASK_DOWNSTREAM);
    /* A mark alone refuses nobody, and saves nobody. */
    in.recipient = DECIDE_RECIPIENT_ABSENT;
    assert_int_equal(decide(&in).reason, POLICY_REASON_UNKNOWN);
}

static void
test_on_failure_accept(void **state)
{
    struct decide_input in = welcome();
    struct decision d;
    (void)state;

    in.recipient = DECIDE_RECIPIENT_UNAVAILABLE;
    in.is_failure_accepted = true;
    d = decide(&in);
    assert_int_equal(d.verdict, DECIDE_ACCEPT);
    assert_int_equal(d.reason, POLICY_REASON_FAILURE);
    assert_false(d.is_counted);
}

static void
test_sizes(void **state)
{
    static const struct {
        uint64_t size, max_size;
        enum policy_reason reason;
    } rows[] = {
        {0, 0, POLICY_REASON_NONE},          {0, 1000, POLICY_REASON_NONE},
        {1000, 1000, POLICY_REASON_NONE},    {1001, 1000, POLICY_REASON_SIZE},
        {UINT64_MAX, 0, POLICY_REASON_NONE},
    };
    (void)state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct decide_input in = welcome();
        in.size = rows[i].size;
        in.max_size = rows[i].max_size;
        assert_int_equal(decide(&in).reason, rows[i].reason);
    }
}

static void
test_tombstone_is_refused_but_not_counted(void **state)
{
    struct decide_input in = welcome();
    struct decision d;
    (void)state;

    in.recipient = DECIDE_RECIPIENT_ABSENT;
    in.was_known = true;
    d = decide(&in);
    assert_int_equal(d.verdict, DECIDE_REFUSE);
    assert_int_equal(d.reason, POLICY_REASON_UNKNOWN);
    assert_false(d.is_counted);
}

/* A trap is mostly the address of somebody who left: neither a tombstone nor an entry saves the one
 * who writes to it. */
static void
test_trap(void **state)
{
    static const enum decide_recipient answers[] = {
        DECIDE_RECIPIENT_UNASKED, DECIDE_RECIPIENT_UNAVAILABLE, DECIDE_RECIPIENT_ABSENT,
        DECIDE_RECIPIENT_FOUND};
    (void)state;

    for (size_t i = 0; i < COUNT(answers); i++) {
        struct decide_input in = welcome();
        struct decision d;
        in.is_trap = true;
        in.recipient = answers[i];
        in.was_known = true;
        make_restricted(&in);
        d = decide(&in);
        assert_int_equal(d.verdict, DECIDE_REFUSE);
        assert_int_equal(d.reason, POLICY_REASON_UNKNOWN);
        assert_true(d.is_counted);
        in.is_postmaster = true;
        assert_int_equal(decide(&in).verdict, DECIDE_ACCEPT);
    }
}

/* monitor: the verdicts on recipients are told, all else is given. */
static void
test_monitor(void **state)
{
    (void)state;

    for (size_t i = 0; i < COUNT(judgements); i++) {
        struct decide_input in = welcome();
        struct decision d;
        bool is_given = judgements[i].rank >= 2 && judgements[i].rank <= 7;
        judgements[i].make(&in);
        in.is_monitor = true;
        d = decide(&in);
        if (judgements[i].reason == POLICY_REASON_DIRECTORY)
            is_given = true;
        assert_int_equal(d.reason, judgements[i].reason);
        assert_int_equal(d.is_would, !is_given);
        assert_int_equal(d.verdict, is_given && judgements[i].class != POLICY_CLASS_ACCEPT
                                        ? DECIDE_REFUSE
                                        : DECIDE_ACCEPT);
    }

    /* What is only told does not hide what is given behind it, and the first one is told. */
    struct decide_input in = welcome();
    struct decision d;
    in.is_monitor = true;
    make_blind(&in);
    make_listed(&in);
    d = decide(&in);
    assert_true(d.is_would);
    assert_int_equal(d.reason, POLICY_REASON_BLIND);
    make_unavailable(&in);
    d = decide(&in);
    assert_int_equal(d.verdict, DECIDE_REFUSE);
    assert_int_equal(d.reason, POLICY_REASON_DIRECTORY);
    assert_false(d.is_would);
    in.recipient = DECIDE_RECIPIENT_UNASKED;
    assert_int_equal(decide(&in).verdict, DECIDE_ASK_DIRECTORY);

    /* Nobody is a harvester for what would have been refused before the directory was asked. */
    make_absent(&in);
    assert_false(decide(&in).is_counted);
    in = welcome();
    in.is_monitor = true;
    make_absent(&in);
    assert_true(decide(&in).is_counted);
}

/* stage = data: RCPT says 250 to whom the directory would refuse, and only to them. */
static void
test_late(void **state)
{
    (void)state;

    for (size_t i = 0; i < COUNT(judgements); i++) {
        struct decide_input in = welcome();
        struct decision d;
        bool is_late = judgements[i].reason == POLICY_REASON_UNKNOWN ||
                       judgements[i].reason == POLICY_REASON_RESTRICTED ||
                       judgements[i].reason == POLICY_REASON_SIZE;
        judgements[i].make(&in);
        in.is_late = true;
        d = decide(&in);
        assert_int_equal(d.reason, judgements[i].reason);
        assert_int_equal(d.is_late, is_late);
        assert_int_equal(d.is_counted, d.reason == POLICY_REASON_UNKNOWN);
        if (is_late)
            assert_int_equal(d.verdict, DECIDE_ACCEPT);
    }

    struct decide_input in = welcome();
    in.is_late = true;
    in.is_marked = true;
    make_restricted(&in);
    assert_int_equal(decide(&in).verdict, DECIDE_ACCEPT);
}

static void
test_harvest_added(void **state)
{
    static const struct {
        enum policy_action action;
        bool is_monitor, is_late;
        enum decide_verdict verdict;
        enum policy_reason reason;
        uint32_t delay_ms;
    } rows[] = {
        {POLICY_ACTION_NONE, false, false, DECIDE_REFUSE, POLICY_REASON_UNKNOWN, 5000},
        {POLICY_ACTION_REJECT, false, false, DECIDE_REFUSE, POLICY_REASON_UNKNOWN, 5000},
        {POLICY_ACTION_BLIND, false, false, DECIDE_REFUSE, POLICY_REASON_UNKNOWN, 5000},
        {POLICY_ACTION_DISCONNECT, false, false, DECIDE_CLOSE, POLICY_REASON_HARVEST, 5000},
        {POLICY_ACTION_BLOCK, false, false, DECIDE_CLOSE, POLICY_REASON_HARVEST, 0},
        {POLICY_ACTION_BLOCK, true, false, DECIDE_ACCEPT, POLICY_REASON_UNKNOWN, 0},
        {POLICY_ACTION_NONE, false, true, DECIDE_ACCEPT, POLICY_REASON_UNKNOWN, 5000},
        {POLICY_ACTION_BLOCK, false, true, DECIDE_CLOSE, POLICY_REASON_HARVEST, 0},
    };
    (void)state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct decide_input in = welcome();
        struct policy_harvest h = {.action = rows[i].action,
                                   .delay_ms = rows[i].action == POLICY_ACTION_BLOCK ? 0 : 5000};
        struct decision d;
        make_absent(&in);
        in.is_monitor = rows[i].is_monitor;
        in.is_late = rows[i].is_late;
        d = decide_harvest(&in, decide(&in), &h);
        assert_int_equal(d.verdict, rows[i].verdict);
        assert_int_equal(d.reason, rows[i].reason);
        assert_int_equal(d.delay_ms, rows[i].delay_ms);
    }
}

/* Each reason has its word, no two the same, and a word is a label: lower case and hyphens. */
static void
test_reason_words(void **state)
{
    (void)state;

    for (unsigned i = 0; i < POLICY_REASON_COUNT; i++) {
        const char *word = policy_reason_text((enum policy_reason)i);
        assert_true(*word != '\0');
        assert_int_equal(strspn(word, "abcdefghijklmnopqrstuvwxyz-"), strlen(word));
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(word, policy_reason_text((enum policy_reason)k));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_welcome),
        cmocka_unit_test(test_each_judgement_and_its_order),
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_on_failure_accept),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_tombstone_is_refused_but_not_counted),
        cmocka_unit_test(test_trap),
        cmocka_unit_test(test_monitor),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_harvest_added),
        cmocka_unit_test(test_reason_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
