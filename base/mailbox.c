#include "base/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct mailbox {
    pthread_mutex_t lock;
    struct mailbox_item *first;
    struct mailbox_item **last; /* where the next item is hung */
    int fd; /* readable exactly while FIRST is set: both change under the lock */
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
    return m;
}

void
mailbox_free(struct mailbox **m)
{
    if (!*m)
        return;
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
    item->next = NULL;
    pthread_mutex_lock(&m->lock);
    if (!m->first) /* an eventfd takes this whenever its count is not at its end */
        (void)eventfd_write(m->fd, 1);
    *m->last = item;
    m->last = &item->next;
    pthread_mutex_unlock(&m->lock);
}

struct mailbox_item *
mailbox_take(struct mailbox *m)
{
    struct mailbox_item *all;
    eventfd_t count;

    pthread_mutex_lock(&m->lock);
    all = m->first;
    if (all)
        (void)eventfd_read(m->fd, &count);
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

    while (!(all = mailbox_take(m)))
        (void)poll(&p, 1, -1);
    return all;
}
