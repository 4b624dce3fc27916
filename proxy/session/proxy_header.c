#include "proxy/session/proxy_header.h"

#include <string.h>

#define V1_MAX   107u /* the longest line of version 1, CRLF included */
#define V2_FIXED 16u

static const char v1_start[] = "PROXY ";
static const unsigned char v2_start[12] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                           '\n', 'Q',  'U',  'I',  'T', '\n'};

/* "TCP4 SOURCE DESTINATION SPORT DPORT" or "UNKNOWN ..." */
static bool
parse_v1(struct span line, struct proxy_header *header)
{
    struct span word[5];
    struct span rest = line;
    struct netaddr destination;
    uint64_t port, destination_port;
    size_t n = 0;

    if (!span_next(&rest, ' ', &word[0]))
        return false;
    if (span_is(word[0], "UNKNOWN"))
        return true;
    for (n = 1; n < 5; n++)
        if (!span_next(&rest, ' ', &word[n]))
            return false;
    unsigned family = span_is(word[0], "TCP4") ? 4 : span_is(word[0], "TCP6") ? 6 : 0;
    /* An IPv4-mapped address of TCP6 is the IPv4 address. */
    if (family == 0 || rest.p != NULL || !netaddr_parse(word[1], &header->client) ||
        !netaddr_parse(word[2], &destination) || (family == 4 && header->client.family != 4) ||
        !span_u64(word[3], 65535, &port) || !span_u64(word[4], 65535, &destination_port))
        return false;
    header->port = (uint16_t)port;
    header->is_told = true;
    return true;
}

static enum proxy_header_status
take_v1(struct span in, struct proxy_header *header, size_t *used)
{
    const char *end = memchr(in.p, '\n', in.n < V1_MAX ? in.n : V1_MAX);

    if (end == NULL)
        return in.n >= V1_MAX ? PROXY_HEADER_BAD : PROXY_HEADER_MORE;
    size_t n = (size_t)(end - in.p);
    size_t start = sizeof(v1_start) - 1;
    if (n < start + 1 || in.p[n - 1] != '\r' ||
        !parse_v1(span_of(in.p + start, n - 1 - start), header))
        return PROXY_HEADER_BAD;
    *used = n + 1;
    return PROXY_HEADER_OK;
}

static uint16_t
load16(const unsigned char *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static struct netaddr
address_of(unsigned char family, const unsigned char *octets)
{
    struct netaddr a = {.family = 4};
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

    if (family == 1) {
        memcpy(a.octets, octets, 4);
    } else if (memcmp(octets, mapped, sizeof(mapped)) == 0) {
        memcpy(a.octets, octets + 12, 4);
    } else {
        a.family = 6;
        memcpy(a.octets, octets, 16);
    }
    return a;
}

static enum proxy_header_status
take_v2(struct span in, struct proxy_header *header, size_t *used)
{
    const unsigned char *p = (const unsigned char *)in.p;

    if (in.n < V2_FIXED)
        return PROXY_HEADER_MORE;
    unsigned command = p[12] & 0x0f, family = p[13] >> 4, transport = p[13] & 0x0f;
    size_t n = load16(p + 14);
    if (p[12] >> 4 != 2 || command > 1)
        return PROXY_HEADER_BAD;
    if (in.n < V2_FIXED + n)
        return PROXY_HEADER_MORE;
    *used = V2_FIXED + n;
    /* LOCAL, and families that are no address to us (AF_UNSPEC, AF_UNIX), keep the socket's. */
    if (command == 0 || family == 0 || family == 3)
        return PROXY_HEADER_OK;
    size_t wanted = family == 1 ? 12 : 36;
    if (family > 2 || transport != 1 || n < wanted)
        return PROXY_HEADER_BAD;
    header->client = address_of((unsigned char)family, p + V2_FIXED);
    header->port = load16(p + V2_FIXED + (family == 1 ? 8 : 32));
    header->is_told = true;
    return PROXY_HEADER_OK;
}

enum proxy_header_status
proxy_header_parse(struct span in, struct proxy_header *header, size_t *used)
{
    size_t n1 = in.n < sizeof(v1_start) - 1 ? in.n : sizeof(v1_start) - 1;
    size_t n2 = in.n < sizeof(v2_start) ? in.n : sizeof(v2_start);

    memset(header, 0, sizeof(*header));
    *used = 0;
    if (in.n == 0)
        return PROXY_HEADER_MORE;
    if (memcmp(in.p, v1_start, n1) == 0)
        return n1 < sizeof(v1_start) - 1 ? PROXY_HEADER_MORE : take_v1(in, header, used);
    if (memcmp(in.p, v2_start, n2) == 0)
        return n2 < sizeof(v2_start) ? PROXY_HEADER_MORE : take_v2(in, header, used);
    return PROXY_HEADER_BAD;
}
