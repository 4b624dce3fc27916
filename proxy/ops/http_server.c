#include "proxy/ops/http_server.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/bufferevent.h>

struct http_client {
    LIST_ENTRY(http_client) link;
    struct http_server *server;
    struct bufferevent *bev;
    struct event *deadline;
    bool is_answered;
    bool is_eof;
};

struct http_server {
    struct event_base *base;
    http_page_fn *page;
    void *arg;
    LIST_HEAD(http_clients, http_client) clients;
    unsigned n_clients;
};

static void
client_free(struct http_client *c)
{
    LIST_REMOVE(c, link);
    c->server->n_clients--;
    event_free(c->deadline);
    bufferevent_free(c->bev);
    free(c);
}

static const char *
reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {{200, "OK"},
                   {400, "Bad Request"},
                   {404, "Not Found"},
                   {405, "Method Not Allowed"},
                   {431, "Request Header Fields Too Large"},
                   {503, "Service Unavailable"},
                   {505, "HTTP Version Not Supported"}};
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].status == status)
            return reasons[i].text;
    }
    return "";
}

static void
write_reply(struct http_client *c, const struct http_request *r, const struct http_reply *reply,
            struct evbuffer *body)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    evbuffer_add_printf(out,
                        "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                        "Connection: close\r\n%s\r\n",
                        reply->status, reason(reply->status), reply->type,
                        evbuffer_get_length(body), reply->headers ? reply->headers : "");
    if (!r->is_head)
        evbuffer_add_buffer(out, body);
}

static void
answer(struct http_client *c, const struct http_request *r, int status)
{
    struct evbuffer *body = evbuffer_new();
    if (!body) {
        client_free(c);
        return;
    }
    c->is_answered = true;
    struct http_reply reply = {.status = status, .type = "text/plain; charset=utf-8"};
    if (status == 200) {
        c->server->page(c->server->arg, r, &reply, body);
    } else {
        evbuffer_add_printf(body, "%s\n", reason(status));
        if (status == 405)
            reply.headers = "Allow: GET, HEAD\r\n";
    }
    write_reply(c, r, &reply, body);
    evbuffer_free(body);
}

static void
on_read(struct bufferevent *bev, void *arg)
{
    struct http_client *c = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    if (c->is_answered) {
        evbuffer_drain(in, evbuffer_get_length(in));
        return;
    }
    size_t n = evbuffer_get_length(in);
    if (n > HTTP_HEAD_MAX)
        n = HTTP_HEAD_MAX;
    struct http_request r = {0};
    int status = http_request_parse(span_of((char *)evbuffer_pullup(in, (ev_ssize_t)n), n), &r);
    if (status)
        answer(c, &r, status);
}

/* All is written: end our side, and read away what still comes, or closing would reset the
 * connection and take the reply with it. */
static void
on_written(struct bufferevent *bev, void *arg)
{
    struct http_client *c = arg;
    if (!c->is_answered) /* libevent also says so when writing is enabled */
        return;
    if (c->is_eof)
        client_free(c);
    else
        shutdown(bufferevent_getfd(bev), SHUT_WR);
}

static void
on_end(struct bufferevent *bev, short what, void *arg)
{
    struct http_client *c = arg;
    c->is_eof = what & BEV_EVENT_EOF;
    /* A client that has ended its side may still be reading. */
    if (!c->is_eof || !evbuffer_get_length(bufferevent_get_output(bev)))
        client_free(c);
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    client_free(arg);
}

static struct http_client *
client_new(struct http_server *s, int fd)
{
    struct http_client *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->server = s;
    c->deadline = evtimer_new(s->base, on_deadline, c);
    if (c->deadline)
        c->bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!c->bev) {
        if (c->deadline)
            event_free(c->deadline);
        free(c);
        return NULL;
    }
    return c;
}

void
http_server_take(void *server, int fd)
{
    struct http_server *s = server;
    struct http_client *c = s->n_clients < HTTP_CLIENTS_MAX ? client_new(s, fd) : NULL;
    if (!c) {
        static const char busy[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                                   "Connection: close\r\n\r\n";
        (void)!send(fd, busy, sizeof busy - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        close(fd);
        return;
    }
    LIST_INSERT_HEAD(&s->clients, c, link);
    s->n_clients++;
    bufferevent_setcb(c->bev, on_read, on_written, on_end, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    evtimer_add(c->deadline, &(struct timeval){.tv_sec = HTTP_DEADLINE_S});
}

struct http_server *
http_server_new(struct event_base *base, http_page_fn *page, void *arg)
{
    struct http_server *s = calloc(1, sizeof *s);
    if (s) {
        s->base = base;
        s->page = page;
        s->arg = arg;
        LIST_INIT(&s->clients);
    }
    return s;
}

void
http_server_free(struct http_server **ps)
{
    struct http_server *s = *ps;
    if (!s)
        return;
    *ps = NULL;
    for (struct http_client *c = LIST_FIRST(&s->clients), *next; c; c = next) {
        next = LIST_NEXT(c, link);
        client_free(c);
    }
    free(s);
}
