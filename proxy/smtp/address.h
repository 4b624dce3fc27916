#ifndef PROXY_SMTP_ADDRESS_H
#define PROXY_SMTP_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

/* Forward and reverse paths of RFC 5321 4.1.2, with SMTPUTF8 (RFC 6531) and IDNA (RFC 5890). Pure. */

#define SMTP_ADDRESS_MAX 571 /* octets of local part, @ and domain: Exchange's own limit */

/* A parsed path, a value.  A source route was dropped. */
struct smtp_path {
    bool is_null;       /* <> */
    bool is_postmaster; /* <Postmaster>, without a domain: text is "postmaster", at == n */
    bool is_utf8;       /* has octets over 0x7f: only where SMTPUTF8 was asked for */
    uint16_t n;         /* of text */
    uint16_t at;        /* index of the '@' in text */
    char text[SMTP_ADDRESS_MAX + 1]; /* local@domain as the client wrote it, quotes included; NUL-terminated */
};

/* Parse "<...>" at the start of IN: *USED is what it takes, with the brackets.  ALLOW_NULL admits <>,
 * (a reverse path), ALLOW_POSTMASTER <Postmaster> (a forward path).  False for anything that RFC
 * 5321 does not allow: an empty local part, control characters, bad UTF-8, a domain label over 63
 * octets, ... An address literal ([192.0.2.1], [IPv6:...]) is a domain. */
bool smtp_path_parse(struct span in, bool allow_null, bool allow_postmaster, bool utf8,
                     struct smtp_path *path, size_t *used);

/* The form by which addresses are compared and looked up, into OUT: lower case (ASCII and the domain
 * as A-labels; a local part beyond ASCII is case-folded by libidn2's/our means if cheap, else kept),
 * a local part's needless quotes and backslashes removed.  Returns its length; *AT is the index of
 * the '@' (or the length when there is no domain).  A U-label that IDNA refuses: 0. */
size_t smtp_path_canonical(const struct smtp_path *path, char out[SMTP_ADDRESS_MAX + 1], size_t *at);

/* The same for an address from a configuration, a file or a directory ("a@b" or "<a@b>", no path
 * syntax around it).  0 if it is none. */
size_t smtp_address_canonical(struct span address, char out[SMTP_ADDRESS_MAX + 1], size_t *at);

#endif
