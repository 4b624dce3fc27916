#ifndef POLICY_SPF_MACRO_H
#define POLICY_SPF_MACRO_H

#include <stdbool.h>
#include <stddef.h>

#include "base/netaddr.h"
#include "base/span.h"
#include "policy/dns_message.h"

/* The macros of RFC 7208 section 7.  Pure. */

/* What a text turns out to use; see spf_macro_check. */
#define SPF_MACRO_IS_LAST    1u /* it ends with a macro */
#define SPF_MACRO_VALIDATED  2u /* %{p} */
#define SPF_MACRO_PERSONAL   4u /* %{s}, %{l}, %{h}: more than the client and the domain */
#define SPF_MACRO_EXPLAINING 8u /* %{c}, %{r}, %{t}, which only an explanation may have */

struct spf_macro_values {
    const struct netaddr *client;
    struct span local;         /* of the sender, not empty */
    struct span sender_domain; /* %{o} */
    struct span helo;
    struct span domain;    /* %{d}: whose record it is */
    struct span validated; /* %{p} */
};

/* Is TEXT a macro-string?  *USES becomes the flags above. */
bool spf_macro_check(struct span text, unsigned *uses);
/* Expand TEXT, which spf_macro_check has passed, into a name to ask for: without its last dot, and
 * if it is longer than DNS_NAME_MAX without as many labels on the left as it takes.  False if no
 * name comes of it that could exist. */
bool spf_macro_expand(char out[DNS_NAME_TEXT], struct span text, const struct spf_macro_values *v);

#endif
