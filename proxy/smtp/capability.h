#ifndef PROXY_SMTP_CAPABILITY_H
#define PROXY_SMTP_CAPABILITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

/* The service extensions of an EHLO reply (RFC 5321 4.1.1.1), both ways. Pure. */

enum smtp_cap {
#define SMTP_CAP(id, keyword) SMTP_CAP_##id,
#include "proxy/smtp/capability.def"
#undef SMTP_CAP
    SMTP_CAP_COUNT
};

#define SMTP_CAP_BIT(id) (1u << SMTP_CAP_##id)

/* Attributes of XCLIENT. */
enum smtp_xclient {
#define SMTP_XCLIENT(id) SMTP_XCLIENT_##id,
#include "proxy/smtp/xclient.def"
#undef SMTP_XCLIENT
    SMTP_XCLIENT_COUNT
};

#define SMTP_XCLIENT_BIT(id) (1u << SMTP_XCLIENT_##id)

/* A value.  Zeroed: nothing is offered. */
struct smtp_capabilities {
    uint32_t bits;       /* SMTP_CAP_BIT(...) */
    uint64_t size;       /* SIZE's argument; 0: none was named, or there is no limit (RFC 1870 4) */
    uint32_t xclient;    /* SMTP_XCLIENT_BIT of the attributes that XCLIENT names */
    uint32_t recipients; /* LIMITS RCPTMAX; 0: none was named */
};

const char *smtp_cap_keyword(enum smtp_cap cap);
/* SMTP_CAP_COUNT: none of them.  Case does not matter. */
enum smtp_cap smtp_cap_find(struct span keyword);
const char *smtp_xclient_name(enum smtp_xclient attribute);
/* SMTP_XCLIENT_COUNT: none of them.  Case does not matter. */
enum smtp_xclient smtp_xclient_find(struct span name);

/* Take the lines of a 250 reply to EHLO (TEXT: lines separated by '\n', codes cut off; the first is
 * the greeting and skipped).  What is unknown is skipped, what is malformed counts as not offered,
 * and of a keyword that stands twice the last counts. */
void smtp_capabilities_parse(struct span text, struct smtp_capabilities *caps);

/* Our reply to EHLO: "250-HOSTNAME", then what CAPS offer in the order of capability.def, SIZE with
 * its number, LIMITS with RCPTMAX, XCLIENT with its attributes.  Returns the length; no NUL is
 * written.  HOSTNAME is at most 255 octets; then it always fits. */
#define SMTP_EHLO_MAX 1024
size_t smtp_ehlo_format(char out[SMTP_EHLO_MAX], const char *hostname,
                        const struct smtp_capabilities *caps);

#endif
