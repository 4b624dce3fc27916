#ifndef PROXY_RELAY_ENVELOPE_H
#define PROXY_RELAY_ENVELOPE_H

#include "proxy/relay/downstream.h"
#include "proxy/relay/message.h"
#include "proxy/smtp/capability.h"

/* The commands of a transaction as the downstream hears them: with the parameters that it offers,
 * and no others.  Pure.  Each returns the length of a whole line in OUT, CRLF included. */

/* MAIL and RCPT at their longest: an address, ENVID or ORCPT, and every keyword. */
#define ENVELOPE_LINE 2048

size_t envelope_mail(const struct smtp_capabilities *caps, const struct message *m,
                     char out[ENVELOPE_LINE]);
size_t envelope_rcpt(const struct smtp_capabilities *caps, const struct message_recipient *r,
                     char out[ENVELOPE_LINE]);
/* MAIL and RCPT of a question, without parameters but SMTPUTF8. */
size_t envelope_ask_mail(const struct smtp_capabilities *caps, const char *sender, bool is_smtputf8,
                         char out[ENVELOPE_LINE]);
size_t envelope_ask_rcpt(const char *recipient, char out[ENVELOPE_LINE]);
/* XCLIENT with the attributes that the downstream takes (Postfix XCLIENT_README). */
size_t envelope_xclient(const struct smtp_capabilities *caps,
                        const struct downstream_client *client, char out[ENVELOPE_LINE]);

#endif
