#ifndef BASE_NETADDR_H
#define BASE_NETADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/span.h"

/* An IP address as a value.  An IPv4-mapped IPv6 address is the IPv4 address. */
struct netaddr {
    uint8_t family;     /* 4, 6, or 0: none */
    uint8_t octets[16]; /* network order; the rest of an IPv4 address is zero */
};

/* A network: base has the host bits cleared. */
struct network {
    struct netaddr base;
    uint8_t prefix; /* bits: 0..32 or 0..128 */
};

struct network_list {
    struct network *v;
    size_t n;
};

#define NETADDR_TEXT 48 /* room for an address and NUL */
#define NETWORK_TEXT 56

/* An address in the forms of inet_pton; false, and *A as it was, for anything else. */
bool netaddr_parse(struct span text, struct netaddr *a);
/* family 0 for what is neither AF_INET nor AF_INET6 (a unix socket). PORT may be NULL. */
struct netaddr netaddr_of_sockaddr(const struct sockaddr *sa, uint16_t *port);
/* Fill SA; returns its length, 0 for family 0. */
socklen_t netaddr_to_sockaddr(const struct netaddr *a, uint16_t port, struct sockaddr_storage *sa);
/* The empty text for family 0. */
void netaddr_format(const struct netaddr *a, char out[NETADDR_TEXT]);
bool netaddr_equal(const struct netaddr *a, const struct netaddr *b);
bool netaddr_is_loopback(const struct netaddr *a);
/* Loopback, link-local, RFC 1918, RFC 6598, RFC 4193. */
bool netaddr_is_private(const struct netaddr *a);

/* "192.0.2.0/24", "2001:db8::/32", or an address alone; set host bits are a fault (false). */
bool network_parse(struct span text, struct network *n);
/* The network of A with PREFIX bits, or all of A's if that is more. */
struct network network_of(const struct netaddr *a, uint8_t prefix);
bool network_contains(const struct network *n, const struct netaddr *a);
bool network_equal(const struct network *a, const struct network *b);
bool network_list_contains(const struct network_list *l, const struct netaddr *a);
/* A single address is written without its prefix. */
void network_format(const struct network *n, char out[NETWORK_TEXT]);

#endif
