#ifndef PROXY_OPS_JSON_TEXT_H
#define PROXY_OPS_JSON_TEXT_H

#include <jansson.h>

#include "base/span.h"

/* A JSON string of octets that may be no UTF-8 (a stranger's address, an error's text): each octet
 * that does not belong is shown as U+FFFD, so that a key is never missing for its value's sake.
 * NULL when memory is out. */
json_t *json_text(struct span s);
json_t *json_text_str(const char *s); /* NULL is the empty string */

#endif
