#ifndef POLICY_STATUS_CODE_H
#define POLICY_STATUS_CODE_H

#include <stddef.h>

#include "base/span.h"

/* What status codes mean (RFC 3463, RFC 5248, and what Exchange gives): their likely cause behind a
 * gateway, and what to do.  Pure; the table is status_code.def. */

struct status_code {
    const char *code;   /* "5.1.1", or a plain "550" */
    const char *marker; /* the row is for replies that hold this text; empty: for any */
    const char *title;
    const char *cause;
    const char *remedy;
};

/* The row for TEXT: a code alone ("5.7.1", "550", "550 5.7.1"), or a whole reply ("451 4.7.0
 * Temporary server error. Please try again later. PRX5").  The enhanced code counts before the
 * plain one.  A code that has no row gets that of the same subject and detail in the other class
 * (4.1.1: 5.1.1), then its subject's general one (5.7.905: 5.7.900; 5.1.99: 5.1.0); NULL if TEXT
 * holds no code or its subject is unknown. */
const struct status_code *status_code_find(struct span text);

/* "success", "temporary: the sender tries again", "permanent: the sender gives up"; by the code's
 * first digit. "" for anything else. */
const char *status_code_class(const char *code);

/* The whole table, for listings and tests. */
size_t status_code_count(void);
const struct status_code *status_code_at(size_t i);

#endif
