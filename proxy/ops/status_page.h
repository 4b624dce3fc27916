#ifndef PROXY_OPS_STATUS_PAGE_H
#define PROXY_OPS_STATUS_PAGE_H

#include <event2/buffer.h>

#include "proxy/ops/status.h"

/* The status page: HTML for people, whole in itself: no script, and nothing is fetched. Pure. */

void status_page(const struct status *s, const struct history *h, struct evbuffer *out);
/* The header lines that go with it into OUT: a Content-Security-Policy that allows the page's own
 * style sheet, by its hash, and nothing else. */
#define STATUS_PAGE_HEADERS 512
void status_page_headers(char out[STATUS_PAGE_HEADERS]);

extern const char status_page_style[];

#endif
