#ifndef POLICY_REMOTE_DOMAIN_H
#define POLICY_REMOTE_DOMAIN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

struct settings_remote_domain;

/* What a [remote_domain] section makes of a message on the inner leg: reports and automatic answers
 * go to the sender's domain, so the sender's domain decides (settings_remote_domain_for).  Pure. */

/* NOTIFY of RFC 3461 4.1: the same bits as SMTP_NOTIFY_*; 0: not given. */
#define REMOTE_NOTIFY_NEVER   1u
#define REMOTE_NOTIFY_SUCCESS 2u
#define REMOTE_NOTIFY_FAILURE 4u
#define REMOTE_NOTIFY_DELAY   8u

/* The section's rules for one message.  A value. */
struct remote_rules {
    bool no_ndr;
    bool no_delivery_reports;
    bool no_read_receipts;
    bool no_auto_replies;
};

/* Does the section ask whether the sender is who he says (ndr = unproven)?  Then SPF is to be asked
 * before the message is handed over. */
bool remote_domain_wants_proof(const struct settings_remote_domain *section);

/* IS_PROVEN: SPF passed for MAIL FROM, or for HELO under the null sender; anything else, DNS
 * trouble too, is not proven. */
struct remote_rules remote_domain_rules(const struct settings_remote_domain *section,
                                        bool is_proven);

/* The NOTIFY that a recipient gets on the inner leg in place of NOTIFY (as the client gave it).
 * Without reports of any kind it is NEVER, whatever the client asked for: RFC 3461 does not foresee
 * that a relay changes it, the rule does so on purpose. */
unsigned remote_domain_notify(const struct remote_rules *rules, unsigned notify);

/* Do the rules need DSN of the downstream? */
bool remote_domain_needs_dsn(const struct remote_rules *rules);

/* Is the header field NAME taken out? */
bool remote_domain_strips(const struct remote_rules *rules, struct span name);

#define REMOTE_HEADER_TEXT 80
/* The field to be added at the top, CRLF included; an empty text for none.  HAS_DSN: the downstream
 * offers DSN; where it does not, the field asks for what NOTIFY cannot (MS-OXCMAIL:
 * X-Auto-Response-Suppress). Returns the length. */
size_t remote_domain_header(const struct remote_rules *rules, bool has_dsn,
                            char out[REMOTE_HEADER_TEXT]);

#endif
