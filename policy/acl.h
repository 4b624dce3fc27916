#ifndef POLICY_ACL_H
#define POLICY_ACL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/netaddr.h"
#include "base/span.h"

struct settings;

/* The lists that an administrator writes.  Pure.  Addresses given here are canonical (lower case,
 * the domain as A-labels); the lists may be in any case. */

/* Is ADDRESS one of the N entries: addresses, or @domains (of which it is an address)? */
bool acl_contains(char *const *entries, size_t n, struct span address);
/* [blocked] */
bool acl_client_blocked(const struct settings *st, const struct netaddr *client);
bool acl_sender_blocked(const struct settings *st,
                        struct span sender); /* the null sender never is */
bool acl_recipient_blocked(const struct settings *st, struct span recipient);
/* harvest.traps */
bool acl_is_trap(const struct settings *st, struct span recipient);
/* postmaster and abuse, of any domain or none: the RFCs (5321 4.5.1, 2142) invite strangers to
 * write there. */
bool acl_is_role(struct span recipient);

#endif
