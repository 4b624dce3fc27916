#include "proxy/ops/acceptor.h"

#include <stdlib.h>

#include <event2/listener.h>

struct acceptor {
    struct evconnlistener *listener;
    struct event *retry;
    acceptor_fn *fn;
    void *arg;
};

static void
on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int n, void *arg)
{
    (void)l;
    (void)sa;
    (void)n;
    struct acceptor *a = arg;
    a->fn(a->arg, fd);
}

static void
on_error(struct evconnlistener *l, void *arg)
{
    struct acceptor *a = arg;
    evconnlistener_disable(l);
    evtimer_add(a->retry, &(struct timeval){.tv_sec = 1});
}

static void
on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct acceptor *a = arg;
    evconnlistener_enable(a->listener);
}

struct acceptor *
acceptor_new(struct event_base *base, int fd, acceptor_fn *fn, void *arg)
{
    struct acceptor *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->fn = fn;
    a->arg = arg;
    a->retry = evtimer_new(base, on_retry, a);
    if (a->retry)
        a->listener = evconnlistener_new(base, on_accept, a,
                                         LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (!a->listener) {
        acceptor_free(&a);
        return NULL;
    }
    evconnlistener_set_error_cb(a->listener, on_error);
    return a;
}

void
acceptor_free(struct acceptor **pa)
{
    struct acceptor *a = *pa;
    if (!a)
        return;
    *pa = NULL;
    if (a->listener)
        evconnlistener_free(a->listener);
    if (a->retry)
        event_free(a->retry);
    free(a);
}
