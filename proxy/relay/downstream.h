#ifndef PROXY_RELAY_DOWNSTREAM_H
#define PROXY_RELAY_DOWNSTREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/netaddr.h"
#include "conf/settings.h"
#include "proxy/relay/message.h"
#include "proxy/smtp/capability.h"
#include "proxy/smtp/reply.h"
#include "proxy/stream.h"
#include "proxy/tls.h"

/* One SMTP connection to a downstream host: opened and made ready (EHLO, STARTTLS), then any number
 * of transactions, one after the other.  What the host says, and how it fails, comes as reply
 * values; what it says unasked ends the connection.  Belongs to one loop. */

struct downstream;
struct metrics;

enum downstream_fail {
    DOWNSTREAM_OK,
    DOWNSTREAM_CONNECT, /* no connection, or it greeted with a refusal */
    DOWNSTREAM_TLS,     /* its TLS is not as configured */
    DOWNSTREAM_TIMEOUT, /* no answer in time */
    DOWNSTREAM_LOST,    /* the connection ended */
    DOWNSTREAM_GARBLED, /* it does not speak SMTP, or out of turn */
    DOWNSTREAM_CLOSING, /* it said 421 */
    DOWNSTREAM_LACKS,   /* it does not offer to XCLIENT's client what the transaction needs */
    DOWNSTREAM_CONTENT, /* we could not read the message back from the spool */
};

const char *downstream_fail_text(enum downstream_fail fail);

/* How a transaction or a question ended. */
struct downstream_result {
    enum downstream_fail fail; /* OK: `reply` is the host's word */
    bool is_past_end;        /* the end of data was written before it failed: its fate is unknown */
    bool is_envelope;        /* refused at MAIL or RCPT: nothing of the content was sent */
    struct smtp_reply reply; /* the decisive one: of MAIL, the last refused RCPT, DATA or the end */
    size_t n_refused;        /* recipients refused at RCPT */
    const struct smtp_reply *refused; /* a reply for each recipient; code 0: accepted.  NULL if none
                                   was refused. Valid during the call. */
};

struct downstream_events {
    /* Ready for a transaction, for the first time. */
    void (*opened)(void *owner);
    /* The transaction or question is over.  The connection is kept if downstream_is_usable. */
    void (*finished)(void *owner, const struct downstream_result *result);
    /* The connection failed while opening, or ended while idle.  REPLY may be NULL.  The owner
     * frees it. */
    void (*closed)(void *owner, enum downstream_fail fail, const struct smtp_reply *reply);
    /* Ready again after a transaction (its RSET was answered). */
    void (*idle)(void *owner);
};

struct downstream_target {
    const struct settings_downstream *settings;
    const struct tls_client *tls; /* NULL: never STARTTLS */
    const char *host;             /* name, for TLS and the log */
    const char *label;            /* NAME:PORT, for the log */
    const char *hostname;         /* ours, for EHLO */
    const char *session;          /* whose log line its TLS is; "-": nobody's, for debug; copied */
    struct metrics *metrics;      /* NULL: its TLS is not counted */
    struct netaddr address;
    uint16_t port;
};

/* What XCLIENT tells of the client; strings may be NULL. */
struct downstream_client {
    const struct netaddr *address;
    uint16_t port;
    const char *helo;
    bool is_esmtp;
};

/* Begin to connect.  The target's pointers, but for the session, must outlive the connection.  NULL
 * when a descriptor or memory is out. Events come from the loop, never from inside this call. */
struct downstream *downstream_open(const struct stream_loop *loop,
                                   const struct downstream_target *target,
                                   const struct downstream_events *events, void *owner);
/* Also in the middle of anything, also inside its own events.  Clears *D. */
void downstream_free(struct downstream **d);
/* Say QUIT, if nothing is under way, and free the connection without waiting long. */
void downstream_quit(struct downstream **d);
/* Events go to OWNER from now on. */
void downstream_set_owner(struct downstream *d, const struct downstream_events *events,
                          void *owner);

/* Send M in one burst: MAIL and all RCPT; when all are accepted, the content.  If some recipient is
 * refused nothing is delivered.  NEEDS are SMTP_CAP_BITs, without which it is not sent.  M is read
 * only, and must stay until `finished`. */
void downstream_send(struct downstream *d, struct message *m, uint32_t needs,
                     const struct downstream_client *client);
/* MAIL FROM:<SENDER>, RCPT TO:<RECIPIENT>, RSET: the decisive reply in the result. */
void downstream_ask(struct downstream *d, const char *sender, const char *recipient,
                    bool is_smtputf8, const struct downstream_client *client);
/* The block that the message's reader waited for (message's ready callback goes to the relay). */
void downstream_block(struct downstream *d, bool is_ok, const char *data, size_t n);

/* Was the end of data handed to the kernel? From then on a burst must not be cancelled. */
bool downstream_is_past_end(const struct downstream *d);
/* Idle, and nothing has come that would be taken for the answer to what is sent next. */
bool downstream_is_usable(const struct downstream *d);
/* XCLIENT has told the host of a client, and it takes no other: this is of use for none. */
bool downstream_is_bound(const struct downstream *d);
bool downstream_is_closed(const struct downstream *d); /* of no more use */
/* Why it failed, for an administrator: the system's or OpenSSL's reason, or the host's reply.  Its
 * kind is ERR_NONE while it has not. */
const struct err *downstream_error(const struct downstream *d);
const struct smtp_capabilities *downstream_capabilities(const struct downstream *d);
int64_t downstream_opened_ms(const struct downstream *d);
int downstream_transactions(const struct downstream *d);

#endif
