#ifndef PROXY_SESSION_RECIPIENT_H
#define PROXY_SESSION_RECIPIENT_H

#include "conf/settings.h"
#include "ldap/directory.h"
#include "policy/decide.h"
#include "proxy/smtp/address.h"
#include "proxy/smtp/reply.h"

/* Between the facades and a recipient's judgement: what a session and `posternctl lookup` share, so
 * that the one says what the other does.  Pure. */

/* Where mail for a recipient goes: the section of its domain, NULL if there is none.  PATH and
 * CANONICAL, whose @ is at *AT, become those of where the settings send a postmaster's mail (RFC
 * 5321 4.5.1).  IN is told whether there is a domain, and whether it is a postmaster. */
const struct settings_domain *recipient_domain(const struct settings *st, struct smtp_path *path,
                                               char canonical[SMTP_ADDRESS_MAX + 1], size_t *at,
                                               struct decide_input *in);
/* The directory's answer into IN. */
void recipient_take(struct decide_input *in, const struct dir_answer *a);
/* The reply to RCPT for REASON; its argument is the address.  Of POLICY_REASON_DOWNSTREAM, whose
 * reply is the downstream's, SMTP_REPLY_NO_ANSWER. */
enum smtp_reply_id recipient_reply(enum policy_reason reason);
/* The reply to DATA with stage = data for REASON, UNKNOWN or RESTRICTED. */
enum smtp_reply_id recipient_data_reply(enum policy_reason reason);

#endif
