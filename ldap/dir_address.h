#ifndef LDAP_DIR_ADDRESS_H
#define LDAP_DIR_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

/* Addresses as a file or a server holds them, made comparable with those that are asked.  Pure. */

#define DIR_ADDRESS_MAX 571 /* octets: Exchange's own limit */

/* TEXT (an address, or "@domain") into OUT, NUL-terminated: in lower case (utf8_lower), a domain
 * beyond ASCII as A-labels (RFC 5890).  Returns the length, or 0 if there is no domain, a blank or
 * control character outside of quotes, a domain that IDNA refuses, or more than DIR_ADDRESS_MAX
 * octets. */
size_t dir_address_canonical(struct span text, char out[DIR_ADDRESS_MAX + 1]);

/* Index of the '@' before the domain; ADDRESS.n if there is none. */
size_t dir_address_at(struct span address);

/* user+tag@domain into OUT as user@domain, NUL-terminated; its length, or 0 if there is no tag to
 * drop. */
size_t dir_address_untagged(struct span address, char out[DIR_ADDRESS_MAX + 1]);

#endif
