#ifndef PROXY_OPS_METRICS_TEXT_H
#define PROXY_OPS_METRICS_TEXT_H

#include <event2/buffer.h>

#include "proxy/ops/status.h"

/* The Prometheus text format, version 0.0.4, of S, appended to OUT. Pure. */
void metrics_text(const struct status *s, struct evbuffer *out);

#define METRICS_TEXT_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
