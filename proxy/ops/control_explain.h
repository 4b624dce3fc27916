#ifndef PROXY_OPS_CONTROL_EXPLAIN_H
#define PROXY_OPS_CONTROL_EXPLAIN_H

#include <jansson.h>

/* The whole answer to `explain TEXT`, "ok" and all: the meaning of a status code or reply.  Pure,
 * so posternctl answers it by itself.  A new object; NULL when memory is out. */
json_t *control_explain(const char *text);

#endif
