#ifndef PROXY_OPS_STATUS_JSON_H
#define PROXY_OPS_STATUS_JSON_H

#include <jansson.h>

#include "proxy/ops/status.h"

/* The JSON of S, as posternctl(8) describes it: for the control socket and for HTTP.  Pure; each
 * returns a new object or array, NULL when memory is out. */

json_t *status_json(const struct status *s);
json_t *status_json_ready(const struct status *s);
json_t *status_json_directories(const struct status *s);
json_t *status_json_downstreams(const struct status *s);
/* At most MAX of them. */
json_t *status_json_blocks(const struct status *s, size_t max);
/* The last hour by minutes and the last day by quarters of an hour. */
json_t *status_json_history(const struct history *h);

#define STATUS_JSON_BLOCKS 100 /* so many are in status_json; `blocks` has them all */

#endif
