#ifndef PROXY_RELAY_RELAY_H
#define PROXY_RELAY_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/relay/message.h"
#include "proxy/relay/pool.h"
#include "proxy/smtp/reply.h"

/* The handing over of one message, over all attempts: a connection, the burst, another host if the
 * first vanished before the end of data was written, and one outcome, whatever happened.  Owns the
 * message.  A burst past its end of data is never cancelled: it runs on without the client. */

struct relay;

enum relay_status { RELAY_DELIVERED, RELAY_REFUSED, RELAY_DEFERRED };

/* What the client is to hear, and what is to be noted.  A value, but for what it points to. */
struct relay_outcome {
    enum relay_status status;
    struct smtp_reply
        reply; /* for the client, cleaned; of DELIVERED: the downstream's own, for the log */
    struct smtp_reply original; /* as the downstream said it; code 0: it said nothing that counts */
    const char *host;           /* NAME:PORT of the last host tried; "" for none */
    const struct smtp_reply *refused; /* as downstream_result's */
    bool is_envelope;                 /* refused at MAIL or RCPT */
    bool is_mail; /* refused at MAIL, or by the content: the sender's or the message's fault, not a
                     recipient's */
    bool is_unknown_fate; /* the end of data was written and the answer never came */
};

struct relay_client {
    struct netaddr address;
    uint16_t port;
    struct network network;
    const char *helo; /* copied */
    bool is_esmtp;
    const char *session; /* id, for the log; copied */
};

/* OUTCOME and M are valid during the call; the relay is freed after it. */
typedef void relay_done_fn(void *arg, const struct relay_outcome *outcome, struct message *m);

/* Begin.  M is taken over, and freed after DONE, which is called exactly once from the loop, unless
 * relay_end is first.  NULL when memory is out: M stays the caller's. */
struct relay *relay_start(struct pool *p, struct message *m, const struct relay_client *client,
                          relay_done_fn *done, void *arg);
/* Is the burst past its end of data? */
bool relay_is_past_end(const struct relay *r);
/* What it hands over; the relay's. */
const struct message *relay_message(const struct relay *r);
/* Cancel it: DONE is not called, and the message is freed.  Past the end of data only when the
 * process ends.  Clears *R; NULL is fine. */
void relay_end(struct relay **r);

/* Does the reply to a whole message speak of one of its recipients, not of the message? (Exchange's
 * late verdicts: 5.1.x but the sender's, 5.2.x, 5.4.1, 5.7.12x, 5.7.13x, RESOLVER.) */
bool relay_is_recipients_fault(const struct smtp_reply *reply);

/* --- asking --- */

struct relay_question;
enum relay_answer {
    RELAY_ANSWER_NONE,     /* nobody answered in time: the reply is 451 4.4.1 */
    RELAY_ANSWER_SENDER,   /* MAIL was refused: the recipient was not judged */
    RELAY_ANSWER_RECIPIENT /* the reply to RCPT */
};
typedef void relay_answer_fn(void *arg, const struct smtp_reply *reply, enum relay_answer about);

/* Would the downstream take a message from SENDER to RECIPIENT, now?  MAIL, RCPT, RSET.  The answer
 * comes from the loop, exactly once, unless it is cancelled.  NULL when memory is out. */
struct relay_question *relay_ask(struct pool *p, const char *sender, const char *recipient,
                                 bool is_smtputf8, const struct relay_client *client,
                                 relay_answer_fn *answer, void *arg);
void relay_question_cancel(struct relay_question **q);

#endif
