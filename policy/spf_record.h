#ifndef POLICY_SPF_RECORD_H
#define POLICY_SPF_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/netaddr.h"
#include "base/span.h"

/* The grammar of SPF records (RFC 7208 section 12).  Pure. */

enum spf_kind {
    SPF_KIND_ALL,
    SPF_KIND_INCLUDE,
    SPF_KIND_A,
    SPF_KIND_MX,
    SPF_KIND_PTR,
    SPF_KIND_IP4,
    SPF_KIND_IP6,
    SPF_KIND_EXISTS,
    SPF_KIND_REDIRECT,
    SPF_KIND_EXP,
    SPF_KIND_OTHER_MODIFIER
};

struct spf_term {
    enum spf_kind kind;
    char qualifier;           /* + - ~ ? */
    struct span domain;       /* the domain-spec; empty: the domain itself */
    unsigned uses;            /* the domain-spec's SPF_MACRO_ flags */
    uint8_t prefix4, prefix6; /* of a and mx */
    struct network network;   /* of ip4 and ip6 */
};

/* Is TEXT an SPF record: "v=spf1" in any case, and the end or a space? */
bool spf_record_is(struct span text);
/* The terms of a record: what follows the version. */
struct span spf_record_terms(struct span text);

enum spf_next { SPF_NEXT_TERM, SPF_NEXT_END, SPF_NEXT_ERROR };
/* Take the next term of *REST. */
enum spf_next spf_term_next(struct span *rest, struct spf_term *t);
/* Is every one of TERMS without a fault (4.6)?  HAS_REDIRECT says whether *REDIRECT was filled. */
bool spf_record_check(struct span terms, struct spf_term *redirect, bool *has_redirect);

#endif
