#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mailbox.h"
#include "policy/delivered.h"

#define SECOND ((int64_t)1000)
#define HOUR   (3600 * SECOND)
#define NOW    (1000 * HOUR)
#define WINDOW (4 * HOUR)
#define UNTIL  (UINT32_MAX / 2) /* of policy's seconds: far away */

static const struct siphash_key secret = {{9}};
static struct deliveries *guard;
static uint64_t woken[16];
static size_t n_woken;

static int
set_up(void **state)
{
    (void)state;
    guard = deliveries_new(&secret);
    n_woken = 0;
    return guard == NULL;
}

static int
tear_down(void **state)
{
    (void)state;
    deliveries_free(&guard);
    return guard != NULL;
}

static void
wake(void *arg, uint64_t ticket)
{
    assert_ptr_equal(arg, woken);
    woken[n_woken++] = ticket;
}

static struct delivery_key
key_of(const char *sender, const char *recipient, uint8_t content)
{
    uint8_t digest[32] = {content};

    return deliveries_key(guard, span_str(sender), span_str(recipient), digest);
}

static uint64_t ticket;

static enum delivery_claim
claim(const struct delivery_key *keys, size_t n, bool *served, int64_t now)
{
    return deliveries_claim(guard, keys, n, false, served, now, wake, woken, &ticket);
}

static enum delivery_claim
claim_again(const struct delivery_key *keys, size_t n, bool *served, int64_t now)
{
    return deliveries_claim(guard, keys, n, true, served, now, wake, woken, &ticket);
}

static void
test_keys_differ(void **state)
{
    const struct delivery_key keys[] = {
        key_of("s@x", "a@x", 1), key_of("s@x", "b@x", 1), key_of("t@x", "a@x", 1),
        key_of("s@x", "a@x", 2), key_of("", "a@x", 1),    key_of("a@x", "s@x", 1),
    };
    (void)state;

    for (size_t i = 0; i < 6; i++)
        for (size_t k = 0; k < i; k++)
            assert_true(keys[i].hash.lo != keys[k].hash.lo);
    assert_true(key_of("s@x", "a@x", 1).hash.lo == keys[0].hash.lo);
}

/* The client did not hear: its retry is answered, for a while. */
static void
test_retry_is_served(void **state)
{
    struct delivery_key k = key_of("s@x", "a@x", 1);
    bool served = true;
    (void)state;

    assert_int_equal(claim(&k, 1, &served, NOW), DELIVERY_CLAIMED);
    assert_false(served);
    deliveries_finish(guard, &k, &served, 1, true, WINDOW, NOW);
    assert_int_equal(claim(&k, 1, &served, NOW + WINDOW - SECOND), DELIVERY_CLAIMED);
    assert_true(served);
    /* Answering it changes nothing: the answer may be lost, too. */
    deliveries_finish(guard, &k, &served, 1, false, WINDOW, NOW);
    assert_int_equal(claim(&k, 1, &served, NOW + WINDOW - SECOND), DELIVERY_CLAIMED);
    assert_true(served);
    assert_int_equal(claim(&k, 1, &served, NOW + WINDOW), DELIVERY_CLAIMED);
    assert_false(served);
    assert_int_equal(n_woken, 0);
}

static void
test_confirmed_is_forgotten(void **state)
{
    struct delivery_key k = key_of("s@x", "a@x", 1);
    bool served;
    (void)state;

    assert_int_equal(claim(&k, 1, &served, NOW), DELIVERY_CLAIMED);
    /* What is in flight cannot be confirmed by anybody. */
    deliveries_confirm(guard, &k, 1, NOW);
    assert_int_equal(claim(&k, 1, &served, NOW), DELIVERY_PENDING);
    served = false;
    deliveries_finish(guard, &k, &served, 1, true, WINDOW, NOW);
    deliveries_confirm(guard, &k, 1, NOW);
    assert_int_equal(claim(&k, 1, &served, NOW), DELIVERY_CLAIMED);
    assert_false(served);
}

/* Who waited gets its answer, however quick the client of the burst was to go on; who comes later
 * is not taken for a retry. */
static void
test_confirmed_holds_for_who_waited(void **state)
{
    struct delivery_key k = key_of("s@x", "a@x", 1);
    bool first, second;
    (void)state;

    assert_int_equal(claim(&k, 1, &first, NOW), DELIVERY_CLAIMED);
    assert_int_equal(claim(&k, 1, &second, NOW), DELIVERY_PENDING);
    deliveries_finish(guard, &k, &first, 1, true, WINDOW, NOW);
    assert_int_equal(n_woken, 1);
    deliveries_confirm(guard, &k, 1, NOW);
    assert_int_equal(claim_again(&k, 1, &second, NOW + SECOND), DELIVERY_CLAIMED);
    assert_true(second);
    assert_int_equal(claim(&k, 1, &second, NOW + SECOND), DELIVERY_CLAIMED);
    assert_false(second);
    assert_int_equal(claim_again(&k, 1, &second, NOW + SECOND), DELIVERY_PENDING);
}

static void
test_refused_is_tried_again(void **state)
{
    struct delivery_key k = key_of("s@x", "a@x", 1);
    bool served;
    (void)state;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(claim(&k, 1, &served, NOW), DELIVERY_CLAIMED);
        assert_false(served);
        deliveries_finish(guard, &k, &served, 1, false, WINDOW, NOW);
    }
    /* duplicate_window = 0s */
    assert_int_equal(claim(&k, 1, &served, NOW), DELIVERY_CLAIMED);
    deliveries_finish(guard, &k, &served, 1, true, 0, NOW);
    assert_int_equal(claim(&k, 1, &served, NOW), DELIVERY_CLAIMED);
    assert_false(served);
}

static void
test_pending_is_woken_once(void **state)
{
    struct delivery_key k = key_of("s@x", "a@x", 1), other = key_of("s@x", "a@x", 2);
    bool first, second, third;
    uint64_t tickets[2];
    (void)state;

    assert_int_equal(claim(&k, 1, &first, NOW), DELIVERY_CLAIMED);
    assert_int_equal(claim(&other, 1, &third, NOW), DELIVERY_CLAIMED);
    assert_int_equal(claim(&k, 1, &second, NOW), DELIVERY_PENDING);
    tickets[0] = ticket;
    assert_int_equal(claim(&k, 1, &second, NOW), DELIVERY_PENDING);
    tickets[1] = ticket;
    assert_true(tickets[0] != tickets[1]);
    deliveries_finish(guard, &other, &third, 1, true, WINDOW, NOW);
    assert_int_equal(n_woken, 0);
    deliveries_cancel(guard, tickets[0]);
    deliveries_finish(guard, &k, &first, 1, true, WINDOW, NOW);
    assert_int_equal(n_woken, 1);
    assert_true(woken[0] == tickets[1]);
    deliveries_cancel(guard, tickets[1]);
    deliveries_finish(guard, &k, &first, 1, true, WINDOW, NOW);
    assert_int_equal(n_woken, 1);
    assert_int_equal(claim(&k, 1, &second, NOW), DELIVERY_CLAIMED);
    assert_true(second);
}

/* Of several recipients some have it: only the others are delivered to. All or nothing is claimed.
 */
static void
test_several_recipients(void **state)
{
    struct delivery_key k[3] = {key_of("s@x", "a@x", 1), key_of("s@x", "b@x", 1),
                                key_of("s@x", "c@x", 1)};
    bool served[3], one;
    (void)state;

    assert_int_equal(claim(&k[1], 1, &one, NOW), DELIVERY_CLAIMED);
    assert_int_equal(claim(k, 3, served, NOW), DELIVERY_PENDING);
    /* a@x was not claimed by it. */
    assert_int_equal(claim(&k[0], 1, served, NOW), DELIVERY_CLAIMED);
    deliveries_finish(guard, &k[0], served, 1, false, WINDOW, NOW);
    deliveries_finish(guard, &k[1], &one, 1, true, WINDOW, NOW);
    assert_int_equal(n_woken, 1);
    assert_int_equal(claim(k, 3, served, NOW), DELIVERY_CLAIMED);
    assert_false(served[0]);
    assert_true(served[1]);
    assert_false(served[2]);
    deliveries_finish(guard, k, served, 3, true, WINDOW, NOW + HOUR);
    assert_int_equal(claim(k, 3, served, NOW + HOUR), DELIVERY_CLAIMED);
    assert_true(served[0] && served[1] && served[2]);
    deliveries_confirm(guard, k, 3, NOW + HOUR);
    assert_int_equal(claim(k, 3, served, NOW + HOUR), DELIVERY_CLAIMED);
    assert_false(served[0] || served[1] || served[2]);
}

/* What is in flight outlasts any flood of what is remembered. */
static void
test_flood(void **state)
{
    struct delivery_key k = key_of("s@x", "a@x", 1), last;
    bool served;
    (void)state;

    assert_int_equal(claim(&k, 1, &served, NOW), DELIVERY_CLAIMED);
    for (uint32_t i = 0; i < 400000; i++) {
        uint8_t digest[32] = {0};
        memcpy(digest, &i, sizeof i);
        digest[31] = 1;
        last = deliveries_key(guard, span_str("s@x"), span_str("a@x"), digest);
        assert_int_equal(claim(&last, 1, &served, NOW), DELIVERY_CLAIMED);
        deliveries_finish(guard, &last, &served, 1, true, WINDOW, NOW + i);
    }
    assert_int_equal(claim(&last, 1, &served, NOW), DELIVERY_CLAIMED);
    assert_true(served);
    assert_int_equal(claim(&k, 1, &served, NOW), DELIVERY_PENDING);
}

/* Four threads deliver one message over and over; each waits in its own way.  At any time one of
 * them has it. */
struct racer {
    struct mailbox *box;
    struct mailbox_item item;
    unsigned deliveries;
};

static _Atomic int holders;

static void
wake_racer(void *arg, uint64_t number)
{
    struct racer *r = arg;

    (void)number;
    mailbox_post(r->box, &r->item);
}

static void *
race(void *arg)
{
    struct racer *r = arg;
    struct delivery_key k = key_of("s@x", "a@x", 1);

    while (r->deliveries < 200) {
        bool served;
        uint64_t number;
        if (deliveries_claim(guard, &k, 1, false, &served, NOW, wake_racer, r, &number) ==
            DELIVERY_PENDING) {
            struct pollfd fd = {.fd = mailbox_fd(r->box), .events = POLLIN};
            while (mailbox_take(r->box) == NULL)
                (void)poll(&fd, 1, -1);
            continue;
        }
        if (++holders != 1)
            return NULL;
        r->deliveries++;
        holders--;
        deliveries_finish(guard, &k, &served, 1, false, WINDOW, NOW);
    }
    return r;
}

static void
test_threads(void **state)
{
    struct racer racers[4] = {{0}};
    pthread_t threads[4];
    (void)state;

    for (int i = 0; i < 4; i++) {
        racers[i].box = mailbox_new();
        assert_non_null(racers[i].box);
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_ptr_equal(result, &racers[i]);
        mailbox_free(&racers[i].box);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

static uint64_t
question(struct hash128 *message)
{
    struct mailbox_item *item = mailbox_take(deliveries_questions(guard));
    struct delivery_question *q = (struct delivery_question *)item;
    uint64_t asked;

    assert_non_null(item);
    assert_null(item->next);
    asked = q->ticket;
    *message = q->message;
    free(item);
    return asked;
}

/* In a fleet another may be at it, of which nobody here has heard. */
static void
test_asking(void **state)
{
    struct delivery_key keys[] = {key_of("s@x", "a@x", 1), key_of("s@x", "b@x", 1)};
    struct delivery_key turned[] = {keys[1], keys[0]};
    struct hash128 message, same;
    bool served[2];
    uint64_t asked;
    (void)state;

    assert_false(deliveries_ask(guard, keys, 2, NOW, wake, woken, &ticket));
    assert_null(mailbox_take(deliveries_questions(guard)));
    deliveries_set_asked(guard, true);
    /* Nobody is. */
    assert_true(deliveries_ask(guard, keys, 2, NOW, wake, woken, &ticket));
    asked = question(&message);
    assert_true(asked == ticket);
    deliveries_tick(guard, NOW + 999);
    assert_int_equal(n_woken, 0);
    deliveries_answer(guard, asked, false, NOW + 1);
    assert_int_equal(n_woken, 1);
    deliveries_answer(guard, asked, false, NOW + 1);
    assert_int_equal(n_woken, 1);
    /* Another is: its doings will have been told a second later. */
    assert_true(deliveries_ask(guard, turned, 2, NOW, wake, woken, &ticket));
    asked = question(&same);
    assert_true(same.lo == message.lo && same.hi == message.hi);
    deliveries_answer(guard, asked, true, NOW + 500);
    assert_int_equal(n_woken, 2);
    assert_int_equal(claim(turned, 2, served, NOW + 500), DELIVERY_PENDING);
    deliveries_tick(guard, NOW + 1499);
    assert_int_equal(n_woken, 2);
    deliveries_tick(guard, NOW + 2500);
    assert_int_equal(n_woken, 3);
    /* It is, and says so: until that is over. */
    assert_true(deliveries_ask(guard, keys, 2, NOW, wake, woken, &ticket));
    deliveries_answer(guard, question(&same), true, NOW);
    assert_int_equal(claim(keys, 2, served, NOW), DELIVERY_PENDING);
    deliveries_learn(guard, keys[0].hash, DELIVERY_ELSEWHERE, UNTIL);
    deliveries_tick(guard, NOW + 5000);
    assert_int_equal(n_woken, 4);
    deliveries_learn(guard, keys[0].hash, DELIVERY_DONE, UNTIL);
    assert_int_equal(n_woken, 5);
    /* What is known here is known better. */
    assert_true(deliveries_ask(guard, keys, 1, NOW, wake, woken, &ticket));
    deliveries_answer(guard, question(&same), true, NOW);
    assert_int_equal(n_woken, 6);
    assert_int_equal(claim(keys, 1, served, NOW), DELIVERY_CLAIMED);
    assert_true(served[0]);
    /* But not by who comes after what is over. */
    deliveries_learn(guard, keys[0].hash, DELIVERY_HEARD, UNTIL);
    assert_true(deliveries_ask(guard, keys, 1, NOW, wake, woken, &ticket));
    deliveries_answer(guard, question(&same), true, NOW);
    assert_int_equal(n_woken, 7);
    assert_int_equal(claim(keys, 1, served, NOW), DELIVERY_PENDING);
    deliveries_tick(guard, NOW + 2000);
    assert_int_equal(n_woken, 8);
    n_woken = 0;
    /* No answer comes. */
    assert_true(deliveries_ask(guard, keys, 1, NOW, wake, woken, &ticket));
    (void)question(&same);
    assert_false(same.lo == message.lo);
    deliveries_learn(guard, keys[0].hash, DELIVERY_DONE, 0);
    assert_int_equal(n_woken, 1);
    assert_true(deliveries_ask(guard, keys + 1, 1, NOW, wake, woken, &ticket));
    deliveries_tick(guard, NOW + 2000);
    assert_int_equal(n_woken, 2);
    /* Nobody waits for it any more; and what is left at the end is freed. */
    assert_true(deliveries_ask(guard, keys, 1, NOW, wake, woken, &ticket));
    deliveries_cancel(guard, ticket);
    deliveries_answer(guard, ticket, false, NOW);
    assert_int_equal(n_woken, 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_keys_differ),
        TEST(test_retry_is_served),
        TEST(test_confirmed_is_forgotten),
        TEST(test_confirmed_holds_for_who_waited),
        TEST(test_refused_is_tried_again),
        TEST(test_pending_is_woken_once),
        TEST(test_several_recipients),
        TEST(test_flood),
        TEST(test_threads),
        TEST(test_asking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
