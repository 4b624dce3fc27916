#ifndef PROXY_OPS_HTTP_SERVER_H
#define PROXY_OPS_HTTP_SERVER_H

#include <event2/buffer.h>
#include <event2/event.h>

#include "proxy/ops/http_request.h"

/* The transport of http.h, which knows no page: connections, limits, the frame of a reply (RFC
 * 9112).  One request a connection, its head bounded, the whole within HTTP_DEADLINE_S, at most
 * HTTP_CLIENTS_MAX at once.  (libevent's own server has no limit of connections, and its timeout
 * starts anew with each octet.) */

struct http_server;

#define HTTP_CLIENTS_MAX 64
#define HTTP_DEADLINE_S  15

/* A reply as the page makes it. */
struct http_reply {
    int status;
    const char *type;    /* Content-Type */
    const char *headers; /* more of them, each ended by CRLF; NULL: none */
};

/* Answer R: set REPLY and append the body to BODY (for HEAD too: it is measured and not sent). */
typedef void http_page_fn(void *arg, const struct http_request *r, struct http_reply *reply,
                          struct evbuffer *body);

/* NULL when memory is out. */
struct http_server *http_server_new(struct event_base *base, http_page_fn *page, void *arg);
/* Serve the connection FD: an acceptor_fn, SERVER is a struct http_server. */
void http_server_take(void *server, int fd);
void http_server_free(struct http_server **s); /* NULL is fine */

#endif
