#ifndef PROXY_SESSION_PROXY_HEADER_H
#define PROXY_SESSION_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/netaddr.h"
#include "base/span.h"

/* The PROXY protocol, versions 1 and 2 (HAProxy's specification of 2020). Pure. */

#define PROXY_HEADER_MAX (16u + 65535u)

struct proxy_header {
    bool is_told; /* false: UNKNOWN or LOCAL, the socket's address stands */
    struct netaddr client;
    uint16_t port;
};

enum proxy_header_status { PROXY_HEADER_MORE, PROXY_HEADER_OK, PROXY_HEADER_BAD };

/* Parse the header at the start of IN: OK sets *USED.  BAD as soon as it cannot become one. */
enum proxy_header_status proxy_header_parse(struct span in, struct proxy_header *header,
                                            size_t *used);

#endif
