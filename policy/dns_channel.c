#define _DEFAULT_SOURCE /* fd_set, which <ares.h> takes for granted */

#include "policy/dns_channel.h"

#include <ares.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/time.h>

#include "base/file_version.h"

enum {
    TRIES = 3,
    UDP_PAYLOAD = 1232 /* what passes every path unfragmented */
};

/* A socket of c-ares'. */
struct watch {
    LIST_ENTRY(watch) link;
    ares_socket_t fd;
    struct event *event;
};

struct dns_channel {
    struct event_base *base;
    ares_channel ares;
    const char *resolv_conf;     /* it names the servers; NULL: they are set */
    struct file_version version; /* its, before it was read */
    struct event *timer;
    LIST_HEAD(watches, watch) watches;
    size_t open;              /* questions under way */
    struct dns_answer answer; /* the one being delivered */
};

struct dns_query {
    struct dns_channel *channel;
    struct dns_question question;
    dns_done_fn *done; /* NULL: nobody waits for it any more */
    void *arg;
    bool is_starting; /* within ares_query */
    bool has_failed;  /* there */
};

/* After anything that c-ares did: wake up when it next wants to. */
static void
rearm(struct dns_channel *c)
{
    struct timeval t;

    if (ares_timeout(c->ares, NULL, &t) != NULL)
        evtimer_add(c->timer, &t);
    else
        evtimer_del(c->timer);
}

static void
on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct dns_channel *c = arg;

    ares_process_fd(c->ares, (what & EV_READ) != 0 ? fd : ARES_SOCKET_BAD,
                    (what & EV_WRITE) != 0 ? fd : ARES_SOCKET_BAD);
    rearm(c);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct dns_channel *c = arg;

    (void)fd;
    (void)what;
    ares_process_fd(c->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    rearm(c);
}

static struct watch *
find_watch(struct dns_channel *c, ares_socket_t fd)
{
    struct watch *w;

    LIST_FOREACH(w, &c->watches, link)
        if (w->fd == fd)
            return w;
    return NULL;
}

/* c-ares wants to know of FD, or no longer.  A socket that cannot be watched for want of memory is
 * one that times out. */
static void
on_interest(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct dns_channel *c = arg;
    struct watch *w = find_watch(c, fd);
    short what = (short)(EV_PERSIST | (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));

    if (w != NULL) {
        LIST_REMOVE(w, link);
        event_free(w->event);
        free(w);
    }
    if (!readable && !writable)
        return;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return;
    w->fd = fd;
    w->event = event_new(c->base, fd, what, on_socket, c);
    if (w->event == NULL || event_add(w->event, NULL) != 0) {
        if (w->event != NULL)
            event_free(w->event);
        free(w);
        return;
    }
    LIST_INSERT_HEAD(&c->watches, w, link);
}

static int
start(struct dns_channel *c, const char *nameserver, char *resolv_conf, int64_t timeout_ms,
      struct err *e)
{
    struct ares_options options = {
        .flags = ARES_FLAG_NOALIASES | ARES_FLAG_NOSEARCH | ARES_FLAG_EDNS,
        /* Twice as long each time: 1 + 2 + 4 parts of the whole. */
        .timeout = (int)(timeout_ms / 7) + 1,
        .tries = TRIES,
        .ednspsz = UDP_PAYLOAD,
        .sock_state_cb = on_interest,
        .sock_state_cb_data = c,
        .resolvconf_path = resolv_conf,
    };
    int status =
        ares_init_options(&c->ares, &options,
                          ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
                              ARES_OPT_SOCK_STATE_CB | ARES_OPT_RESOLVCONF);

    if (status != ARES_SUCCESS)
        return err_set(e, ERR_SYSTEM, "c-ares: %s", ares_strerror(status));
    if (nameserver == NULL)
        return 0;
    status = ares_set_servers_ports_csv(c->ares, nameserver);
    if (status != ARES_SUCCESS) {
        ares_destroy(c->ares);
        return err_set(e, ERR_CONFIG, "nameserver \"%s\": %s", nameserver, ares_strerror(status));
    }
    return 0;
}

struct dns_channel *
dns_channel_new(struct event_base *base, const char *nameserver, char *resolv_conf,
                int64_t timeout_ms, struct err *e)
{
    struct dns_channel *c = calloc(1, sizeof *c);

    if (c == NULL || (c->timer = evtimer_new(base, on_timer, c)) == NULL) {
        free(c);
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    c->base = base;
    LIST_INIT(&c->watches);
    c->resolv_conf = nameserver == NULL ? resolv_conf : NULL;
    c->version = file_version_of(c->resolv_conf);
    if (start(c, nameserver, resolv_conf, timeout_ms, e) != 0) {
        event_free(c->timer);
        free(c);
        return NULL;
    }
    return c;
}

void
dns_channel_free(struct dns_channel **c)
{
    struct dns_channel *old = *c;
    struct watch *w;

    if (old == NULL)
        return;
    ares_destroy(old->ares);
    while ((w = LIST_FIRST(&old->watches)) != NULL) {
        LIST_REMOVE(w, link);
        event_free(w->event);
        free(w);
    }
    event_free(old->timer);
    free(old);
    *c = NULL;
}

bool
dns_channel_is_outdated(const struct dns_channel *c)
{
    struct file_version now = file_version_of(c->resolv_conf);

    return now.size > 0 && !file_version_equal(&now, &c->version);
}

bool
dns_channel_is_idle(const struct dns_channel *c)
{
    return c->open == 0;
}

static void
on_answer(void *arg, int status, int timeouts, unsigned char *message, int n)
{
    struct dns_query *q = arg;
    struct dns_channel *c = q->channel;

    (void)status;
    (void)timeouts;
    if (q->is_starting) {
        q->has_failed = true;
        return;
    }
    c->open--;
    if (q->done != NULL) {
        /* The message has the say, not c-ares' reading of it. */
        dns_answer_set(&c->answer, DNS_TROUBLE);
        if (message != NULL && n > 0)
            dns_answer_read(&c->answer, &q->question, message, (size_t)n);
        q->done(q->arg, &c->answer);
    }
    free(q);
}

struct dns_query *
dns_channel_ask(struct dns_channel *c, const struct dns_question *question, dns_done_fn *done,
                void *arg)
{
    enum { CLASS_IN = 1 };
    struct dns_query *q = calloc(1, sizeof *q);

    if (q == NULL)
        return NULL;
    *q = (struct dns_query){.channel = c, .question = *question, .done = done, .arg = arg};
    q->is_starting = true;
    ares_query(c->ares, q->question.name, CLASS_IN, (int)question->type, on_answer, q);
    q->is_starting = false;
    if (q->has_failed) {
        free(q);
        return NULL;
    }
    c->open++;
    rearm(c);
    return q;
}

void
dns_query_cancel(struct dns_query *q)
{
    q->done = NULL;
}
