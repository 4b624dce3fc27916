#ifndef POLICY_DNS_MESSAGE_H
#define POLICY_DNS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/netaddr.h"
#include "base/span.h"

/* What is asked of the DNS and what it says, as values, and the reader of its messages.  Pure.
 * Names are written without the last dot, at most DNS_NAME_MAX octets. */

#define DNS_NAME_MAX       253
#define DNS_NAME_TEXT      (DNS_NAME_MAX + 1)
#define DNS_RECORDS_MAX    128  /* of one answer; what is beyond is left out */
#define DNS_CNAMES_MAX     8    /* links of a chain */
#define DNS_NEGATIVE_TTL_S 300u /* of "there is none" */

enum dns_type { DNS_A = 1, DNS_PTR = 12, DNS_MX = 15, DNS_TXT = 16, DNS_AAAA = 28 };

struct dns_question {
    enum dns_type type;
    char name[DNS_NAME_TEXT];
};

enum dns_status {
    DNS_OK,     /* at least one record */
    DNS_NONE,   /* no such name, or none of this type */
    DNS_TROUBLE /* no answer, a failure, or nonsense: never "none" */
};

struct dns_record {
    struct netaddr address; /* A, AAAA */
    struct span text;       /* MX, PTR: the name; TXT: the strings joined.  Within the answer */
};

/* Its texts lie in it: it may not be copied. */
struct dns_answer {
    enum dns_status status;
    uint32_t ttl_s; /* the smallest of the records used */
    size_t n;
    struct dns_record records[DNS_RECORDS_MAX];
    size_t text_n;
    char text[65536];
};

/* Can NAME be asked for: labels of 1 to 63 octets, all printable ASCII without the backslash (which
 * resolvers read as an escape)?  Policies do name hosts with odd characters (RFC 7208 7.3). */
bool dns_name_valid(struct span name);
/* "4.3.2.1" or nibbles: A turned round, a dot, and SUFFIX behind (RFC 5782 2.1, 2.4; RFC 1035 3.5).
 * False if it is longer than a name may be. */
bool dns_reverse_name(char out[DNS_NAME_TEXT], const struct netaddr *a, const char *suffix);

/* Read the N octets of a response to Q into A.  The question is compared; a chain of CNAMEs is
 * followed whatever the order of its links; records of other names are no answer.  A message that
 * ends early, points in circles, was truncated or says anything but success or NXDOMAIN is
 * DNS_TROUBLE. */
void dns_answer_read(struct dns_answer *a, const struct dns_question *q, const uint8_t *message,
                     size_t n);
/* A without records. */
void dns_answer_set(struct dns_answer *a, enum dns_status status);

#endif
