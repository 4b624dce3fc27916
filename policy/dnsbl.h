#ifndef POLICY_DNSBL_H
#define POLICY_DNSBL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/netaddr.h"
#include "conf/settings.h"
#include "policy/dns_message.h"

/* Lists of addresses that are asked by DNS (RFC 5782).  Pure; policy/resolver asks. */

enum dnsbl_lists { DNSBL_NULL_SENDER = 1, DNSBL_ANY_SENDER = 2 };

/* Which answers of a zone are taken, and for what. */
struct dnsbl_filter {
    uint64_t taken[4][4]; /* zone_entry's */
    unsigned lists;
};

#define DNSBL_FILTERS_MAX 32

/* A zone, once, however often the settings name it. */
struct dnsbl_zone {
    char name[DNS_NAME_TEXT]; /* lower case */
    unsigned lists;           /* of all its filters */
    size_t n_filters;
    struct dnsbl_filter filters[DNSBL_FILTERS_MAX];
};

/* Take the zones of [dnsbl] into ZONES of CAPACITY; returns how many there are.  -1 with E set if
 * one is no name to ask for, or they do not fit. */
int dnsbl_zones_of(const struct settings *st, struct dnsbl_zone *zones, size_t capacity,
                   struct err *e);
/* In which lists does ANSWER (for A records) put the address?  Only what is in 127.0.0.0/8 counts,
 * not 127.0.0.1 nor 127.255.255.0/24 (by which zones refuse service), and only what the zone's
 * filters let through. */
unsigned dnsbl_zone_lists(const struct dnsbl_zone *z, const struct dns_answer *answer);

/* The test points of RFC 5782 section 5: each family has an address that is on every list and one
 * that is on none. */
enum dnsbl_point {
    DNSBL_POINT4_LISTED,
    DNSBL_POINT4_CLEAR,
    DNSBL_POINT6_LISTED,
    DNSBL_POINT6_CLEAR,
    DNSBL_POINTS
};
enum dnsbl_finding { DNSBL_FINDING_TROUBLE, DNSBL_FINDING_CLEAR, DNSBL_FINDING_LISTED };

struct netaddr dnsbl_point_address(enum dnsbl_point point);
/* What ANSWER says about a test point; the filter is not applied. */
enum dnsbl_finding dnsbl_point_finding(enum dnsbl_point point, const struct dns_answer *answer);
/* NULL if a zone with these findings works, else why not.  A zone may be of one family only. */
const char *dnsbl_points_fault(const enum dnsbl_finding findings[DNSBL_POINTS]);

#endif
