#ifndef PROXY_SMTP_ADDRESS_H
#define PROXY_SMTP_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

/* Forward and reverse paths (RFC 5321 4.1.2), SMTPUTF8 (RFC 6531) and IDNA (RFC 5890). Pure. */

#define SMTP_ADDRESS_MAX 571 /* octets of local part, @ and domain: Exchange's own limit */

/* A parsed path, a value.  A source route was dropped. */
struct smtp_path {
    bool is_null;       /* <>: text is empty */
    bool is_postmaster; /* <Postmaster>, without a domain: text is "postmaster", at == n */
    bool is_utf8;       /* has octets over 0x7f: only where SMTPUTF8 was asked for */
    uint16_t n;         /* of text */
    uint16_t at;        /* index of the '@' in text */
    char text[SMTP_ADDRESS_MAX + 1]; /* local@domain as the client wrote it, quotes included;
                                        NUL-terminated */
};

/* Parse "<...>" at the start of IN: *USED is what it takes, with the brackets; what follows is the
 * caller's.  ALLOW_NULL admits <> (a reverse path), ALLOW_POSTMASTER <Postmaster> (a forward path),
 * UTF8 characters beyond ASCII.
 *
 * More than RFC 5321 is taken where senders need it and nothing can break out of the brackets: dots
 * anywhere in the local part of a reverse path, local parts over 64 octets (IMCEA), underscores and
 * hyphens anywhere in a label.  Refused is all else: no brackets, an empty local part, blanks,
 * control characters (C1 too) and specials outside quotes, control characters within, bad UTF-8, an
 * empty domain label, one over 63 octets (of ASCII; a U-label's length shows in its canonical
 * form), a domain over 255, a trailing dot, a bad address literal ([192.0.2.1] and [IPv6:...] are
 * domains), over SMTP_ADDRESS_MAX octets. */
bool smtp_path_parse(struct span in, bool allow_null, bool allow_postmaster, bool utf8,
                     struct smtp_path *path, size_t *used);

/* The form by which addresses are compared and looked up, into OUT, NUL-terminated: in lower case,
 * the local part (utf8_lower) without needless quotes and backslashes, the domain as A-labels (IDNA
 * 2008 with the non-transitional mapping of UTS 46).  A local part is not normalised to NFC: RFC
 * 6532 3.1 leaves that to its writer.  Returns the length; *AT is the index of the '@', or the
 * length when there is no domain.  0: the null path, a domain that IDNA refuses, one too long. */
size_t smtp_path_canonical(const struct smtp_path *path, char out[SMTP_ADDRESS_MAX + 1],
                           size_t *at);

/* The same for an address from a configuration, a file or a directory: "a@b" or "<a@b>" and nothing
 * around it, in UTF-8.  0 if it is none. */
size_t smtp_address_canonical(struct span address, char out[SMTP_ADDRESS_MAX + 1], size_t *at);

#endif
