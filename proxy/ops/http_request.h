#ifndef PROXY_OPS_HTTP_REQUEST_H
#define PROXY_OPS_HTTP_REQUEST_H

#include <stdbool.h>

#include "base/span.h"

/* The head of an HTTP/1 request (RFC 9112 2 to 5), as far as a server needs it that answers GET and
 * HEAD and closes.  Pure. */

#define HTTP_HEAD_MAX 8192 /* octets, the empty line included */

/* A value; PATH points into the octets that were parsed. */
struct http_request {
    bool is_head;
    struct span path; /* without the query and without a proxy's http://authority */
};

/* 0: the head is not complete yet; 200: R is set; else the status that refuses it: 400, 405, 431,
 * 505.  What follows the head is ignored. */
int http_request_parse(struct span in, struct http_request *r);

#endif
