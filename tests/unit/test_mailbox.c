#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mailbox.h"

#define POSTERS 4
#define POSTS   20000

struct letter {
    struct mailbox_item item;
    unsigned from, number;
};

static bool
is_readable(const struct mailbox *m)
{
    struct pollfd p = {.fd = mailbox_fd(m), .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

static void
test_order(void **state)
{
    struct mailbox *m = mailbox_new();
    struct letter letters[3] = {0};
    struct mailbox_item *all;

    (void)state;
    assert_non_null(m);
    assert_false(is_readable(m));
    assert_null(mailbox_take(m));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3; i++) {
            letters[i].item.next = &letters[0].item; /* what was there does not matter */
            mailbox_post(m, &letters[i].item);
            assert_true(is_readable(m));
        }
        all = round == 1 ? mailbox_wait(m) : mailbox_take(m);
        assert_false(is_readable(m));
        for (int i = 0; i < 3; i++, all = all->next)
            assert_ptr_equal(all, &letters[i].item);
        assert_null(all);
        assert_null(mailbox_take(m));
    }
    mailbox_free(&m);
    assert_null(m);
    mailbox_free(&m);
}

struct poster {
    pthread_t thread;
    struct mailbox *box;
    unsigned number;
};

static void *
post_many(void *argument)
{
    struct poster *p = argument;

    for (unsigned i = 0; i < POSTS; i++) {
        struct letter *l = malloc(sizeof *l);

        if (!l)
            abort();
        l->from = p->number;
        l->number = i;
        mailbox_post(p->box, &l->item);
    }
    return NULL;
}

/* Nothing is lost, nothing twice, each poster's in order; the descriptor wakes every time. */
static void
many_posters(bool waits)
{
    struct poster posters[POSTERS];
    unsigned next[POSTERS] = {0}, total = 0;
    struct mailbox *m = mailbox_new();

    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){.box = m, .number = i};
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_many, &posters[i]), 0);
    }
    while (total < POSTERS * POSTS) {
        struct pollfd p = {.fd = mailbox_fd(m), .events = POLLIN};
        struct mailbox_item *all, *following;

        if (!waits)
            assert_int_equal(poll(&p, 1, 60000), 1);
        all = waits ? mailbox_wait(m) : mailbox_take(m);
        assert_true(all != NULL || !waits); /* it may be readable a moment longer than it is full */
        for (; all; all = following) {
            struct letter *l = (struct letter *)all;

            following = all->next;
            assert_int_equal(l->number, next[l->from]++);
            total++;
            free(l);
        }
    }
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_join(posters[i].thread, NULL);
    assert_null(mailbox_take(m));
    assert_false(is_readable(m));
    mailbox_free(&m);
}

static void
test_many_posters(void **state)
{
    (void)state;
    many_posters(false);
    many_posters(true);
}

static void *
post_one(void *argument)
{
    struct poster *p = argument;
    struct letter *l = malloc(sizeof *l);

    if (!l)
        abort();
    mailbox_post(p->box, &l->item);
    return NULL;
}

/* Who has all that was posted may free the box, though the last poster has not returned yet: it
 * must touch neither the box nor a descriptor that may be somebody else's by then. */
static void
test_free_behind_the_last(void **state)
{
    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct poster p = {.box = mailbox_new()};
        struct mailbox *m = p.box;
        struct mailbox_item *item;

        assert_int_equal(pthread_create(&p.thread, NULL, post_one, &p), 0);
        while ((item = mailbox_take(m)) == NULL)
            ;
        mailbox_free(&m);
        pthread_join(p.thread, NULL);
        free(item);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_many_posters),
        cmocka_unit_test(test_free_behind_the_last),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
