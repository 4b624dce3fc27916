#ifndef PROXY_SESSION_SESSION_PRIVATE_H
#define PROXY_SESSION_SESSION_PRIVATE_H

/* What the files of proxy/session/ share. */

#include <event2/event_struct.h>

#include "policy/decide.h"
#include "policy/delivered.h"
#include "policy/mark.h"
#include "policy/policy.h"
#include "proxy/relay/message.h"
#include "proxy/relay/relay.h"
#include "proxy/session/delivery.h"
#include "proxy/session/session.h"
#include "proxy/smtp/command.h"
#include "proxy/smtp/data_scan.h"
#include "proxy/smtp/reply.h"

/* What a session awaits.  While it is not NONE, no octet of the client is consumed. */
enum session_wait {
    SESSION_WAIT_NONE,
    SESSION_WAIT_TLS,       /* the handshake */
    SESSION_WAIT_DNS,       /* SPF, or a block list */
    SESSION_WAIT_DIRECTORY, /* an answer about the recipient */
    SESSION_WAIT_QUESTION,  /* the downstream's answer about the recipient */
    SESSION_WAIT_DELAY,     /* the tarpit */
    SESSION_WAIT_SPOOL,     /* the disk takes what came */
    SESSION_WAIT_RELAY,     /* the downstream's answer to the message */
    SESSION_WAIT_OUTPUT,    /* the client reads what we have said */
    SESSION_WAIT_CLOSE      /* all is said: the client's end, or a short while */
};

/* What the octets of the client are. */
enum session_input {
    SESSION_INPUT_PROXY, /* a PROXY header */
    SESSION_INPUT_COMMAND,
    SESSION_INPUT_SKIP, /* the rest of an over-long line */
    SESSION_INPUT_DATA,
    SESSION_INPUT_BDAT
};

/* A recipient under judgement: lives over the questions about it. */
struct session_candidate {
    int64_t now_ms;         /* when it began, or continued after an answer */
    size_t canonical_n, at; /* the length of `canonical`, and the index of its @ */
    const struct settings_domain *domain;
    struct decide_input input;
    struct decision decision;
    enum dir_source source;
    bool is_downstream_answer; /* `answer` is the reply */
    bool is_refused_syntax;    /* the same, since it is no recipient */
    bool is_verified;          /* the downstream was asked in place of a directory */
    uint32_t share_limit;      /* marks_limit */
    int64_t asked_ns;
    /* From here on not zeroed: each is written before it is read. */
    struct smtp_rcpt rcpt; /* its path is as it is sent on; its orcpt is the next */
    char orcpt[512];
    char canonical[SMTP_ADDRESS_MAX + 1];
    char asked[SMTP_ADDRESS_MAX + 1]; /* as the client wrote it, even if it is a postmaster */
    struct smtp_reply answer;
};

/* From MAIL to the end of the message. */
struct session_transaction {
    struct message *message;
    struct policy_transaction policy;
    const struct settings_domain *domain; /* of the first recipient: the route of all */
    uint64_t declared_size;               /* SIZE= of MAIL */
    bool is_futile; /* DATA found no recipient: the client may name others, or begin anew */
    size_t n_would; /* recipients taken only since monitor = yes */
    struct mark_share share;
    enum decide_listing listing;         /* of the client, asked once */
    struct session_candidate *candidate; /* under judgement; NULL: none */
    char *log_head; /* what all its verdicts' lines begin with; NULL: none yet */
    /* stage = data: why DATA is refused, and for whom */
    enum policy_reason late_reason;
    char *late_address;
    uint32_t late_delay_ms;

    /* content */
    struct data_scan scan;
    uint64_t size_limit;
    bool is_too_large;
    bool is_failed;         /* no room: what comes is thrown away */
    int64_t end_ms, end_ns; /* when its last octet came */
};

struct session {
    TAILQ_ENTRY(session) link;
    struct worker *w;
    struct settings *st; /* a reference; changed at MAIL only */
    struct stream *stream;
    struct event timer;
    int64_t started_ms;
    int64_t deadline_ms; /* of the current wait */
    int64_t timer_ms;    /* when the timer fires; INT64_MAX: not set */
    int64_t quiet_ms;    /* since when we wait for the client */
    enum session_wait wait;
    enum session_input input;
    enum smtp_phase phase;
    bool has_more; /* input follows the current command */
    bool is_esmtp, is_tls, is_counted, is_greeted, is_dead, has_tarpit;
    bool is_told;      /* by PROXY or XCLIENT: the client's address */
    bool is_peer_told; /* by PROXY */
    uint16_t port;
    struct netaddr peer; /* the client before any XCLIENT: who may say that */
    uint32_t offered;    /* SMTP_CAP_BITs of our EHLO reply */
    uint32_t errors, commands, rcpt_ok, rcpt_bad, messages;
    char id[20];
    const char *listener;
    const char *close_reason;
    struct policy_session policy;
    struct network counted; /* the network that is_counted */
    char *helo;
    char *delayed;       /* a reply that the tarpit holds back */
    uint64_t ticket;     /* of the directory */
    uint64_t dns_ticket; /* of the resolver */
    struct relay_question *question;
    struct delivery *delivery;
    struct delivery_heard *heard; /* delivered, and the client may have heard so */
    bool is_ahead;                /* of `heard`: what it sent before that is still being read */
    bool has_quit;
    bool has_ended;  /* its side; it waits for the reply to its message, if for anything */
    bool is_shaking; /* counted among the handshakes */
    struct session_transaction *tx;
    /* the current chunk of BDAT, maybe outside of any transaction */
    uint64_t chunk_left;
    bool is_last_chunk;
    enum smtp_reply_id chunk_refusal; /* its octets are thrown away first */
    char *chunk_address;
    uint32_t chunk_delay_ms;
};

/* --- session.c --- */

/* Say one of our replies; it is written at the end of the turn. */
void session_reply(struct session *s, enum smtp_reply_id id, const char *argument);
void session_reply_value(struct session *s, const struct smtp_reply *reply);
/* Say it, then close: the one exit of a session that is still connected. REASON for the log;
 * static. */
void session_reply_close(struct session *s, enum smtp_reply_id id, const char *argument,
                         const char *reason);
/* Send a reply after DELAY_MS (0: now), and then close if CLOSES.  TEXT is a whole reply. */
void session_reply_later(struct session *s, struct span text, uint32_t delay_ms,
                         const char *closes);
/* A protocol error was answered: too many end the session. */
void session_count_error(struct session *s);
/* The one way out of the connection: everything under way is cancelled, but for a burst past its
 * end of data; input is read away for a short while so that the last reply arrives. */
void session_close(struct session *s, const char *reason);
void session_set_wait(struct session *s, enum session_wait wait, int64_t ms);
void session_set_phase(struct session *s, enum smtp_phase phase);
/* One more handshake under way; false: there are too many. */
bool session_enter_handshake(struct session *s);
/* From a callback outside of input: the wait is over, go on with what the client has sent
 * meanwhile. */
void session_continue(struct session *s);
void session_reset(struct session *s); /* the transaction is over */
/* The client's address is known, or was changed: judge the client and greet it, unless it talked
 * too early. */
void session_greet(struct session *s, bool is_early);
const struct netaddr *session_client(const struct session *s);

/* --- session_command.c --- */
/* The largest message taken now, in octets. */
uint64_t session_size_limit(const struct session *s);
void session_command(struct session *s, struct span line);

/* --- session_rcpt.c --- */
/* A verdict on a recipient, or on the sender if TO is NULL; FROM is a transaction's sender where
 * there is one. */
struct session_verdict {
    struct span from, to;
    const char *verdict, *status, *source;
    enum policy_reason reason;
    uint32_t delay_ms;
};
void session_log_verdict(const struct session *s, const struct session_verdict *v);
void session_rcpt(struct session *s, struct span argument);
void session_candidate_drop(struct session *s); /* cancels its questions */

/* --- session_data.c --- */
void session_data(struct session *s);
void session_bdat(struct session *s, struct span argument);
/* Octets of DATA or of a chunk; returns how many were used. */
size_t session_content(struct session *s, struct span in);
/* Nobody waits for what comes of the message any more; WHY is for the log. */
void session_relay_drop(struct session *s, const char *why);
/* reply_deadline is over: say so, and go on. */
void session_late(struct session *s);
/* The delivery is over: RESULT is valid during the call, what it holds is the session's. */
void session_delivered(struct session *s, const struct delivery_result *result);

#endif
