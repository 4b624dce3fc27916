#include "base/netaddr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static unsigned
bits_of(uint8_t family)
{
    return family == 4 ? 32 : family == 6 ? 128 : 0;
}

static struct netaddr
from_in4(const struct in_addr *in)
{
    struct netaddr a = {.family = 4};

    memcpy(a.octets, in, 4);
    return a;
}

static struct netaddr
from_in6(const struct in6_addr *in)
{
    struct netaddr a = {0};

    if (IN6_IS_ADDR_V4MAPPED(in)) {
        a.family = 4;
        memcpy(a.octets, in->s6_addr + 12, 4);
    } else {
        a.family = 6;
        memcpy(a.octets, in->s6_addr, 16);
    }
    return a;
}

bool
netaddr_parse(struct span text, struct netaddr *a)
{
    char copy[NETADDR_TEXT];
    struct in_addr in4;
    struct in6_addr in6;

    /* inet_pton stops at a NUL. */
    if (text.n == 0 || memchr(text.p, '\0', text.n) || !span_copy(copy, sizeof copy, text))
        return false;
    if (inet_pton(AF_INET, copy, &in4) == 1)
        *a = from_in4(&in4);
    else if (inet_pton(AF_INET6, copy, &in6) == 1)
        *a = from_in6(&in6);
    else
        return false;
    return true;
}

struct netaddr
netaddr_of_sockaddr(const struct sockaddr *sa, uint16_t *port)
{
    struct sockaddr_in sin;
    struct sockaddr_in6 sin6;

    if (sa->sa_family == AF_INET) {
        memcpy(&sin, sa, sizeof sin);
        if (port)
            *port = ntohs(sin.sin_port);
        return from_in4(&sin.sin_addr);
    }
    if (sa->sa_family == AF_INET6) {
        memcpy(&sin6, sa, sizeof sin6);
        if (port)
            *port = ntohs(sin6.sin6_port);
        return from_in6(&sin6.sin6_addr);
    }
    if (port)
        *port = 0;
    return (struct netaddr){0};
}

socklen_t
netaddr_to_sockaddr(const struct netaddr *a, uint16_t port, struct sockaddr_storage *sa)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

    memset(sa, 0, sizeof *sa);
    if (a->family == 4) {
        memcpy(&sin.sin_addr, a->octets, 4);
        memcpy(sa, &sin, sizeof sin);
        return sizeof sin;
    }
    if (a->family == 6) {
        memcpy(&sin6.sin6_addr, a->octets, 16);
        memcpy(sa, &sin6, sizeof sin6);
        return sizeof sin6;
    }
    return 0;
}

/* inet_ntop's goes through printf, and every line of the log has an address. */
static void
format4(const uint8_t octets[4], char *out)
{
    for (unsigned i = 0; i < 4; i++) {
        if (octets[i] >= 100)
            *out++ = (char)('0' + octets[i] / 100);
        if (octets[i] >= 10)
            *out++ = (char)('0' + octets[i] / 10 % 10);
        *out++ = (char)('0' + octets[i] % 10);
        *out++ = i < 3 ? '.' : '\0';
    }
}

void
netaddr_format(const struct netaddr *a, char out[NETADDR_TEXT])
{
    if (a->family == 4)
        format4(a->octets, out);
    else if (a->family == 0 || !inet_ntop(AF_INET6, a->octets, out, NETADDR_TEXT))
        out[0] = '\0';
}

bool
netaddr_equal(const struct netaddr *a, const struct netaddr *b)
{
    return a->family == b->family && memcmp(a->octets, b->octets, sizeof a->octets) == 0;
}

/* Whether the first PREFIX bits of A are OCTETS'. */
static bool
has_prefix(const struct netaddr *a, const uint8_t *octets, unsigned prefix)
{
    unsigned whole = prefix / 8, rest = prefix % 8;

    if (memcmp(a->octets, octets, whole) != 0)
        return false;
    return rest == 0 || (a->octets[whole] ^ octets[whole]) >> (8 - rest) == 0;
}

/* A row of a table of well-known networks. */
struct range {
    uint8_t family, prefix;
    uint8_t octets[16];
};

static bool
in_ranges(const struct netaddr *a, const struct range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a->family == ranges[i].family && has_prefix(a, ranges[i].octets, ranges[i].prefix))
            return true;
    return false;
}

static const struct range loopback[] = {
    {4, 8, {127}},
    {6, 128, {[15] = 1}},
};

bool
netaddr_is_loopback(const struct netaddr *a)
{
    return in_ranges(a, loopback, sizeof loopback / sizeof loopback[0]);
}

bool
netaddr_is_private(const struct netaddr *a)
{
    static const struct range private[] = {
        {4, 8, {10}},        {4, 12, {172, 16}},    {4, 16, {192, 168}}, /* RFC 1918 */
        {4, 10, {100, 64}},                                              /* RFC 6598 */
        {4, 16, {169, 254}}, {6, 10, {0xfe, 0x80}},                      /* link-local */
        {6, 7, {0xfc}},                                                  /* RFC 4193 */
    };

    return netaddr_is_loopback(a) || in_ranges(a, private, sizeof private / sizeof private[0]);
}

struct network
network_of(const struct netaddr *a, uint8_t prefix)
{
    struct network n = {.base = *a, .prefix = prefix};
    unsigned bits = bits_of(a->family);

    if (n.prefix > bits)
        n.prefix = (uint8_t)bits;
    for (unsigned i = 0; i < sizeof n.base.octets; i++) {
        if (i * 8 >= n.prefix)
            n.base.octets[i] = 0;
        else if (n.prefix - i * 8 < 8)
            n.base.octets[i] &= (uint8_t)(0xff << (8 - (n.prefix - i * 8)));
    }
    return n;
}

bool
network_parse(struct span text, struct network *n)
{
    struct span rest = text, host;
    struct netaddr a;
    uint64_t prefix;

    if (!span_next(&rest, '/', &host) || !netaddr_parse(host, &a))
        return false;
    prefix = bits_of(a.family);
    if (rest.p) {
        /* An IPv4-mapped network counts its bits from the start of the IPv6 address. */
        unsigned skipped = a.family == 4 && memchr(host.p, ':', host.n) ? 96 : 0;

        if (!span_u64(rest, skipped + prefix, &prefix) || prefix < skipped)
            return false;
        prefix -= skipped;
    }
    *n = network_of(&a, (uint8_t)prefix);
    return netaddr_equal(&n->base, &a);
}

bool
network_contains(const struct network *n, const struct netaddr *a)
{
    return n->base.family != 0 && a->family == n->base.family &&
           has_prefix(a, n->base.octets, n->prefix);
}

bool
network_equal(const struct network *a, const struct network *b)
{
    return a->prefix == b->prefix && netaddr_equal(&a->base, &b->base);
}

bool
network_list_contains(const struct network_list *l, const struct netaddr *a)
{
    for (size_t i = 0; i < l->n; i++)
        if (network_contains(&l->v[i], a))
            return true;
    return false;
}

void
network_format(const struct network *n, char out[NETWORK_TEXT])
{
    char host[NETADDR_TEXT];

    netaddr_format(&n->base, host);
    if (n->prefix == bits_of(n->base.family))
        snprintf(out, NETWORK_TEXT, "%s", host);
    else
        snprintf(out, NETWORK_TEXT, "%s/%u", host, (unsigned)n->prefix);
}
