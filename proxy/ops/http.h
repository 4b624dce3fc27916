#ifndef PROXY_OPS_HTTP_H
#define PROXY_OPS_HTTP_H

#include <event2/event.h>

#include "base/err.h"
#include "conf/settings.h"

/* HTTP for monitoring and for people: /metrics, /healthz, /readyz, /api/status and the status page.
 * Nothing can be changed by it.  The housekeeper's loop. */

struct http;
struct server;

/* Listen as the settings in force say, perhaps nowhere. NULL with E set on failure. */
struct http *http_new(struct server *srv, struct event_base *base, struct err *e);
/* Listen as the new settings ST say.  -1 with E set, and all stays, if that cannot be. */
int http_reload(struct http *h, const struct settings *st, struct err *e);
void http_free(struct http **h); /* NULL is fine */

#endif
