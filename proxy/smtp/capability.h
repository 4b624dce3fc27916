#ifndef PROXY_SMTP_CAPABILITY_H
#define PROXY_SMTP_CAPABILITY_H

#include <stdint.h>

#include "base/span.h"

/* The service extensions of an EHLO reply, both ways. Pure. */

enum smtp_cap {
#define SMTP_CAP(id, keyword) SMTP_CAP_##id,
#include "proxy/smtp/capability.def"
#undef SMTP_CAP
    SMTP_CAP_COUNT
};

#define SMTP_CAP_BIT(id) (1u << SMTP_CAP_##id)

struct smtp_capabilities {
    uint32_t bits;       /* SMTP_CAP_BIT(...) */
    uint64_t size;       /* SIZE's argument; 0: none was named */
    uint32_t xclient;    /* SMTP_XCLIENT_BIT of the attributes that XCLIENT names */
    uint32_t recipients; /* LIMITS RCPTMAX; 0: none was named */
};

/* Attributes of XCLIENT. */
enum smtp_xclient { SMTP_XCLIENT_NAME, SMTP_XCLIENT_ADDR, SMTP_XCLIENT_PORT, SMTP_XCLIENT_PROTO,
                    SMTP_XCLIENT_HELO, SMTP_XCLIENT_LOGIN, SMTP_XCLIENT_DESTADDR, SMTP_XCLIENT_DESTPORT,
                    SMTP_XCLIENT_COUNT };
#define SMTP_XCLIENT_BIT(id) (1u << SMTP_XCLIENT_##id)

/* Take the lines of a 250 reply to EHLO (TEXT: lines separated by '\n', the first is the greeting and
 * skipped).  What is unknown is skipped, what is malformed counts as not offered. */
void smtp_capabilities_parse(struct span text, struct smtp_capabilities *caps);

#endif
