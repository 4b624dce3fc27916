#define _GNU_SOURCE /* getaddrinfo */

#include "policy/name_lookup.h"

#include <netdb.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/span.h"
#include "base/thread.h"

/* The thread's and the asker's; the last one frees it. */
struct question {
    _Atomic unsigned references;
    char *host;
    int fd; /* an eventfd: there is an answer */
    int error;
    struct netaddr addresses[NAME_LOOKUP_MAX];
    size_t n;
};

struct name_lookup {
    struct question *question;
    struct event *event;
    name_lookup_done_fn *done;
    void *arg;
};

static void
question_unref(struct question *q)
{
    if (q == NULL || atomic_fetch_sub(&q->references, 1) != 1)
        return;
    if (q->fd >= 0)
        (void)close(q->fd);
    free(q->host);
    free(q);
}

static void *
look_up(void *arg)
{
    struct question *q = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *found;
    const uint64_t one = 1;

    q->error = getaddrinfo(q->host, NULL, &hints, &found);
    if (q->error == 0) {
        for (const struct addrinfo *a = found; a != NULL && q->n < NAME_LOOKUP_MAX; a = a->ai_next)
            q->addresses[q->n++] = netaddr_of_sockaddr(a->ai_addr, NULL);
        freeaddrinfo(found);
    }
    (void)!write(q->fd, &one, sizeof one);
    question_unref(q);
    return NULL;
}

static void
on_answer(evutil_socket_t fd, short what, void *arg)
{
    struct name_lookup *l = arg;
    const struct question *q = l->question;
    uint64_t count;

    (void)what;
    if (read(fd, &count, sizeof count) != sizeof count)
        return;
    l->done(l->arg, q->addresses, q->n, gai_strerror(q->error));
}

static bool
start_thread(struct question *q)
{
    pthread_t thread;

    atomic_fetch_add(&q->references, 1);
    if (thread_start(&thread, look_up, q) != 0) {
        question_unref(q);
        return false;
    }
    (void)pthread_detach(thread);
    return true;
}

struct name_lookup *
name_lookup_start(struct event_base *base, const char *host, name_lookup_done_fn *done, void *arg)
{
    struct name_lookup *l = calloc(1, sizeof *l);
    struct question *q = calloc(1, sizeof *q);

    if (l == NULL || q == NULL) {
        free(l);
        free(q);
        return NULL;
    }
    *l = (struct name_lookup){.question = q, .done = done, .arg = arg};
    atomic_store(&q->references, 1);
    q->host = span_dup(span_str(host));
    q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->fd >= 0)
        l->event = event_new(base, q->fd, EV_READ, on_answer, l);
    if (q->host == NULL || l->event == NULL || event_add(l->event, NULL) != 0 || !start_thread(q))
        name_lookup_cancel(&l);
    return l;
}

void
name_lookup_cancel(struct name_lookup **l)
{
    if (*l == NULL)
        return;
    if ((*l)->event != NULL)
        event_free((*l)->event);
    question_unref((*l)->question);
    free(*l);
    *l = NULL;
}
