#include "base/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct mailbox {
    pthread_mutex_t lock;
    struct mailbox_item *first;
    struct mailbox_item **last; /* where the next item is hung */
    _Atomic unsigned waking; /* posters that have hung an item in and still have to write to FD */
    int fd;                  /* readable while FIRST is set, and now and then a moment longer */
};

struct mailbox *
mailbox_new(void)
{
    struct mailbox *m = malloc(sizeof *m);

    if (!m)
        return NULL;
    m->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (m->fd < 0) {
        int saved = errno;

        free(m);
        errno = saved;
        return NULL;
    }
    pthread_mutex_init(&m->lock, NULL);
    m->first = NULL;
    m->last = &m->first;
    atomic_init(&m->waking, 0);
    return m;
}

void
mailbox_free(struct mailbox **m)
{
    if (!*m)
        return;
    while (atomic_load(&(*m)->waking) > 0)
        (void)sched_yield();
    close((*m)->fd);
    pthread_mutex_destroy(&(*m)->lock);
    free(*m);
    *m = NULL;
}

int
mailbox_fd(const struct mailbox *m)
{
    return m->fd;
}

void
mailbox_post(struct mailbox *m, struct mailbox_item *item)
{
    bool was_empty;

    item->next = NULL;
    pthread_mutex_lock(&m->lock);
    was_empty = !m->first;
    *m->last = item;
    m->last = &item->next;
    if (was_empty)
        atomic_fetch_add(&m->waking, 1);
    pthread_mutex_unlock(&m->lock);
    /* After unlocking, or whoever wakes up would have to wait for the lock, and be woken again. */
    if (was_empty) {
        (void)eventfd_write(m->fd, 1); /* taken whenever its count is not at its end */
        atomic_fetch_sub(&m->waking, 1);
    }
}

struct mailbox_item *
mailbox_take(struct mailbox *m)
{
    struct mailbox_item *all;
    eventfd_t count;

    /* First: what is posted from here on makes it readable again. */
    (void)eventfd_read(m->fd, &count);
    pthread_mutex_lock(&m->lock);
    all = m->first;
    m->first = NULL;
    m->last = &m->first;
    pthread_mutex_unlock(&m->lock);
    return all;
}

struct mailbox_item *
mailbox_wait(struct mailbox *m)
{
    struct pollfd p = {.fd = m->fd, .events = POLLIN};
    struct mailbox_item *all;

    do
        (void)poll(&p, 1, -1);
    while (!(all = mailbox_take(m)));
    return all;
}
