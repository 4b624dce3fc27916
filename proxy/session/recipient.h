#ifndef PROXY_SESSION_RECIPIENT_H
#define PROXY_SESSION_RECIPIENT_H

#include "ldap/directory.h"
#include "policy/decide.h"
#include "proxy/smtp/reply.h"

/* Between the facades and a recipient's judgement: what a session and `posternctl lookup` share, so
 * that the one says what the other does.  Pure. */

/* The directory's answer into IN. */
void recipient_take(struct decide_input *in, const struct dir_answer *a);
/* The reply to RCPT for REASON; its argument is the address.  Of POLICY_REASON_DOWNSTREAM, whose
 * reply is the downstream's, SMTP_REPLY_NO_ANSWER. */
enum smtp_reply_id recipient_reply(enum policy_reason reason);

#endif
