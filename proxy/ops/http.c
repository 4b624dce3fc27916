#define _GNU_SOURCE

#include "proxy/ops/http.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "proxy/ops/acceptor.h"
#include "proxy/ops/http_server.h"
#include "proxy/ops/metrics_text.h"
#include "proxy/ops/status_json.h"
#include "proxy/ops/status_page.h"
#include "proxy/server.h"

#define SAMPLE_S 10

struct http_socket {
    struct listen_entry at;
    struct acceptor *acceptor;
};

struct http {
    struct server *srv;
    struct event_base *base;
    struct http_server *server;
    struct history *history;
    struct event *sample;
    struct http_socket *sockets, *fresh; /* fresh: of a reload that is not settled yet */
    size_t n_sockets, n_fresh;
    char page_headers[STATUS_PAGE_HEADERS];
};

/* -1 with E and errno set on failure. */
static int
bind_to(const struct listen_entry *at, struct err *e)
{
    char text[NETADDR_TEXT];
    netaddr_format(&at->address, text);
    struct sockaddr_storage sa;
    socklen_t n = netaddr_to_sockaddr(&at->address, at->port, &sa);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return err_errno(e, ERR_SYSTEM, errno, "http: socket");
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (sa.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&sa, n) == -1 || listen(fd, HTTP_CLIENTS_MAX) == -1) {
        int saved = errno;
        err_errno(e, ERR_SYSTEM, saved, "http: listen on %s port %u", text, at->port);
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static struct acceptor *
open_socket(struct http *h, const struct listen_entry *at, struct err *e)
{
    int fd = bind_to(at, e);
    if (fd == -1)
        return NULL;
    struct acceptor *a = acceptor_new(h->base, fd, http_server_take, h->server);
    if (!a) {
        err_set(e, ERR_SYSTEM, "out of memory");
        close(fd);
    }
    return a;
}

static struct http_socket *
find_socket(struct http_socket *sockets, size_t n, const struct listen_entry *at)
{
    for (size_t i = 0; i < n; i++) {
        if (sockets[i].acceptor && sockets[i].at.port == at->port &&
            netaddr_equal(&sockets[i].at.address, &at->address))
            return &sockets[i];
    }
    return NULL;
}

/* Close what we have that is in the way of AT, such as 127.0.0.1 of 0.0.0.0; false: nothing is. */
static bool
make_way(struct http *h, const struct listen_entry *at)
{
    bool was_in_way = false;
    for (size_t i = 0; i < h->n_sockets; i++) {
        if (h->sockets[i].acceptor && settings_listen_clash(&h->sockets[i].at, at)) {
            acceptor_free(&h->sockets[i].acceptor);
            was_in_way = true;
        }
    }
    return was_in_way;
}

/* Open again what was closed to make way for what came to nothing. */
static void
take_back(struct http *h)
{
    for (size_t i = 0; i < h->n_sockets; i++) {
        struct http_socket *s = &h->sockets[i];
        struct err e = {.kind = ERR_NONE};
        if (!s->acceptor && !(s->acceptor = open_socket(h, &s->at, &e)))
            log_event(LOG_LEVEL_WARNING, "warning", "error", e.text, NULL);
    }
}

/* Those of ours that go on: when nothing can fail any more. */
static void
take_over(struct http *h)
{
    for (size_t i = 0; i < h->n_fresh; i++) {
        struct http_socket *old = find_socket(h->sockets, h->n_sockets, &h->fresh[i].at);
        if (old) {
            h->fresh[i].acceptor = old->acceptor;
            old->acceptor = NULL;
        }
    }
}

static void
sockets_free(struct http_socket **sockets, size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        acceptor_free(&(*sockets)[i].acceptor);
    free(*sockets);
    *sockets = NULL;
    *n = 0;
}

int
http_prepare(struct http *h, const struct settings *st, struct err *e)
{
    size_t n = st->http.listen.n;
    h->fresh = calloc(n ? n : 1, sizeof *h->fresh);
    if (!h->fresh)
        return err_set(e, ERR_SYSTEM, "out of memory");
    h->n_fresh = n;
    for (size_t i = 0; i < n; i++) {
        struct http_socket *s = &h->fresh[i];
        s->at = st->http.listen.v[i];
        if (find_socket(h->sockets, h->n_sockets, &s->at))
            continue;
        s->acceptor = open_socket(h, &s->at, e);
        if (!s->acceptor && errno == EADDRINUSE && make_way(h, &s->at))
            s->acceptor = open_socket(h, &s->at, e);
        if (!s->acceptor)
            return -1;
    }
    return 0;
}

void
http_settle(struct http *h, bool is_taken)
{
    if (!is_taken) {
        sockets_free(&h->fresh, &h->n_fresh);
        take_back(h);
        return;
    }
    take_over(h);
    sockets_free(&h->sockets, &h->n_sockets);
    h->sockets = h->fresh;
    h->n_sockets = h->n_fresh;
    h->fresh = NULL;
    h->n_fresh = 0;
}

static void
json_body(struct http_reply *reply, struct evbuffer *body, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    reply->type = "application/json";
    if (text)
        evbuffer_add_printf(body, "%s\n", text);
    else
        reply->status = 503;
    free(text);
    json_decref(json);
}

static void
page_metrics(struct http *h, const struct status *s, struct http_reply *reply,
             struct evbuffer *body)
{
    (void)h;
    reply->type = METRICS_TEXT_TYPE;
    metrics_text(s, body);
}

static void
page_health(struct http *h, const struct status *s, struct http_reply *reply, struct evbuffer *body)
{
    (void)h;
    (void)s;
    (void)reply;
    evbuffer_add_printf(body, "ok\n");
}

static void
page_ready(struct http *h, const struct status *s, struct http_reply *reply, struct evbuffer *body)
{
    (void)h;
    if (!status_is_ready(s))
        reply->status = 503;
    json_body(reply, body, status_json_ready(s));
}

static void
page_api(struct http *h, const struct status *s, struct http_reply *reply, struct evbuffer *body)
{
    json_t *json = status_json(s);
    json_t *history = status_json_history(h->history);
    if (!json || json_object_set_new(json, "history", history) == -1) {
        json_decref(json);
        json = NULL;
    }
    json_body(reply, body, json);
}

static void
page_status(struct http *h, const struct status *s, struct http_reply *reply, struct evbuffer *body)
{
    reply->type = "text/html; charset=utf-8";
    reply->headers = h->page_headers;
    status_page(s, h->history, body);
}

static const struct {
    const char *path;
    void (*page)(struct http *h, const struct status *s, struct http_reply *reply,
                 struct evbuffer *body);
    int (*take)(struct server *srv, struct status *s);
} pages[] = {{"/", page_status, status_take_clients},
             {"/metrics", page_metrics, status_take},
             {"/healthz", page_health, status_take},
             {"/readyz", page_ready, status_take},
             {"/api/status", page_api, status_take_clients}};

static void
sample(struct http *h)
{
    struct metrics_counts c;
    metrics_read(h->srv->metrics, &c);
    history_sample(h->history, &c, clock_ms());
}

static void
on_sample(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    sample(arg);
}

static void
on_request(void *arg, const struct http_request *r, struct http_reply *reply, struct evbuffer *body)
{
    struct http *h = arg;
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        if (!span_is(r->path, pages[i].path))
            continue;
        sample(h);
        struct status s;
        if (pages[i].take(h->srv, &s) == -1) {
            reply->status = 503;
            return;
        }
        pages[i].page(h, &s, reply, body);
        status_clear(&s);
        return;
    }
    reply->status = 404;
    evbuffer_add_printf(body, "There are /, /metrics, /healthz, /readyz and /api/status.\n");
}

struct http *
http_new(struct server *srv, struct event_base *base, struct err *e)
{
    struct http *h = calloc(1, sizeof *h);
    if (h) {
        h->srv = srv;
        h->base = base;
        status_page_headers(h->page_headers);
        h->server = http_server_new(base, on_request, h);
        h->history = history_new(clock_ms());
        h->sample = event_new(base, -1, EV_PERSIST, on_sample, h);
    }
    if (!h || !h->server || !h->history || !h->sample) {
        err_set(e, ERR_SYSTEM, "out of memory");
        http_free(&h);
        return NULL;
    }
    struct settings *st = server_settings(srv);
    int rc = http_prepare(h, st, e);
    settings_unref(st);
    if (rc == -1) {
        http_free(&h);
        return NULL;
    }
    http_settle(h, true);
    event_add(h->sample, &(struct timeval){.tv_sec = SAMPLE_S});
    return h;
}

void
http_free(struct http **ph)
{
    struct http *h = *ph;
    if (!h)
        return;
    *ph = NULL;
    sockets_free(&h->fresh, &h->n_fresh);
    sockets_free(&h->sockets, &h->n_sockets);
    http_server_free(&h->server);
    history_free(&h->history);
    if (h->sample)
        event_free(h->sample);
    free(h);
}
