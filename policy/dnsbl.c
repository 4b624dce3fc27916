#include "policy/dnsbl.h"

#include <string.h>

enum { NAME_MAX_OCTETS = DNS_NAME_MAX - 64 }; /* room for an IPv6 address in nibbles */

static struct dnsbl_zone *
find_zone(struct dnsbl_zone *zones, size_t n, struct span name)
{
    for (size_t i = 0; i < n; i++)
        if (span_is_nocase(name, zones[i].name))
            return &zones[i];
    return NULL;
}

static int
add_entry(struct dnsbl_zone *zones, size_t *n, size_t capacity, const struct zone_entry *entry,
          unsigned list, struct err *e)
{
    struct span name = span_str(entry->name);
    struct dnsbl_zone *z = find_zone(zones, *n, name);

    if (z == NULL) {
        if (!dns_name_valid(name) || name.n > NAME_MAX_OCTETS)
            return err_set(e, ERR_CONFIG, "\"%s\" is no DNS zone", entry->name);
        if (*n == capacity)
            return err_set(e, ERR_CONFIG, "more than %zu zones", capacity);
        z = &zones[(*n)++];
        memset(z, 0, sizeof *z);
        for (size_t i = 0; i < name.n; i++)
            z->name[i] = ascii_lower(name.p[i]);
    }
    if (z->n_filters == DNSBL_FILTERS_MAX)
        return err_set(e, ERR_CONFIG, "%s is named more than %d times", z->name, DNSBL_FILTERS_MAX);
    struct dnsbl_filter *f = &z->filters[z->n_filters++];
    memcpy(f->taken, entry->taken, sizeof f->taken);
    f->lists = list;
    z->lists |= list;
    return 0;
}

int
dnsbl_zones_of(const struct settings *st, struct dnsbl_zone *zones, size_t capacity, struct err *e)
{
    const struct zone_list *null_sender = &st->dnsbl.null_sender;
    const struct zone_list *any_sender = &st->dnsbl.any_sender;
    size_t n = 0;

    for (size_t i = 0; i < null_sender->n; i++)
        if (add_entry(zones, &n, capacity, &null_sender->v[i], DNSBL_NULL_SENDER, e) != 0)
            return -1;
    for (size_t i = 0; i < any_sender->n; i++)
        if (add_entry(zones, &n, capacity, &any_sender->v[i], DNSBL_ANY_SENDER, e) != 0)
            return -1;
    return (int)n;
}

/* 127.255.255.x is said to resolvers that a list does not serve, and 127.0.0.1 by nobody who means
 * it. */
static bool
is_listing(const struct netaddr *a)
{
    const uint8_t *o = a->octets;

    return a->family == 4 && o[0] == 127 && !(o[1] == 0 && o[2] == 0 && o[3] == 1) &&
           !(o[1] == 255 && o[2] == 255);
}

static bool
is_let_through(const struct dnsbl_filter *f, const struct netaddr *a)
{
    for (size_t i = 0; i < 4; i++)
        if ((f->taken[i][a->octets[i] / 64] >> a->octets[i] % 64 & 1) == 0)
            return false;
    return true;
}

unsigned
dnsbl_zone_lists(const struct dnsbl_zone *z, const struct dns_answer *answer)
{
    unsigned lists = 0;

    for (size_t i = 0; i < answer->n; i++) {
        const struct netaddr *a = &answer->records[i].address;
        for (size_t k = 0; is_listing(a) && k < z->n_filters; k++)
            if (is_let_through(&z->filters[k], a))
                lists |= z->filters[k].lists;
    }
    return lists;
}

struct netaddr
dnsbl_point_address(enum dnsbl_point point)
{
    /* ::ffff:7f00:n stays an IPv6 address here: it is one that is asked for. */
    struct netaddr a = {.family = 6, .octets = {[10] = 0xff, [11] = 0xff, [12] = 127}};
    uint8_t last = point == DNSBL_POINT4_LISTED || point == DNSBL_POINT6_LISTED ? 2 : 1;

    if (point == DNSBL_POINT4_LISTED || point == DNSBL_POINT4_CLEAR)
        return (struct netaddr){.family = 4, .octets = {127, 0, 0, last}};
    a.octets[15] = last;
    return a;
}

enum dnsbl_finding
dnsbl_point_finding(enum dnsbl_point point, const struct dns_answer *answer)
{
    bool is_clear_point = point == DNSBL_POINT4_CLEAR || point == DNSBL_POINT6_CLEAR;

    if (answer->status == DNS_TROUBLE)
        return DNSBL_FINDING_TROUBLE;
    for (size_t i = 0; i < answer->n; i++)
        if (is_clear_point || is_listing(&answer->records[i].address))
            return DNSBL_FINDING_LISTED;
    return DNSBL_FINDING_CLEAR;
}

const char *
dnsbl_points_fault(const enum dnsbl_finding f[DNSBL_POINTS])
{
    if (f[DNSBL_POINT4_CLEAR] == DNSBL_FINDING_LISTED ||
        f[DNSBL_POINT6_CLEAR] == DNSBL_FINDING_LISTED)
        return "lists its test point 127.0.0.1, so everybody";
    if ((f[DNSBL_POINT4_LISTED] == DNSBL_FINDING_LISTED &&
         f[DNSBL_POINT4_CLEAR] == DNSBL_FINDING_CLEAR) ||
        (f[DNSBL_POINT6_LISTED] == DNSBL_FINDING_LISTED &&
         f[DNSBL_POINT6_CLEAR] == DNSBL_FINDING_CLEAR))
        return NULL;
    for (size_t i = 0; i < DNSBL_POINTS; i++)
        if (f[i] == DNSBL_FINDING_TROUBLE)
            return "no answer";
    return "does not list its test point 127.0.0.2";
}
