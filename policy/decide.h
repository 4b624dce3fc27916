#ifndef POLICY_DECIDE_H
#define POLICY_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/policy.h"

/* The verdict on one recipient: the order of judgement, in one pure function.  What is learnt late
 * (a DNS block list, the directory, the downstream) is asked for only when everything before it has
 * passed: decide then answers with the question, the caller fills in the answer and decides again.
 */

enum policy_reason {
#define POLICY_REASON(id, word, class, monitored) POLICY_REASON_##id,
#include "policy/reason.def"
#undef POLICY_REASON
    POLICY_REASON_COUNT
};

enum policy_class { POLICY_CLASS_ACCEPT, POLICY_CLASS_REJECT, POLICY_CLASS_DEFER };

/* "unknown", ...: the log's and the metrics' word. */
const char *policy_reason_text(enum policy_reason reason);
enum policy_class policy_reason_class(enum policy_reason reason);

/* Of a DNS block list. */
enum decide_listing {
    DECIDE_LISTING_UNASKED, /* also while nobody answered: then say CLEAR once the time is over */
    DECIDE_LISTING_CLEAR,
    DECIDE_LISTING_LISTED
};

/* Of the directory. */
enum decide_recipient {
    DECIDE_RECIPIENT_UNASKED,
    DECIDE_RECIPIENT_UNAVAILABLE,
    DECIDE_RECIPIENT_ABSENT,
    DECIDE_RECIPIENT_FOUND
};

/* A value; zeroed, nothing is known. */
struct decide_input {
    enum policy_action state; /* policy_session_state */
    bool is_bad_syntax;       /* the caller knows which reply */
    bool has_domain;          /* an accepted domain, or the bare <Postmaster> */
    bool is_route_up;
    bool is_other_route; /* not the downstream of this transaction's first recipient */
    bool is_full;        /* max_recipients are accepted, or fewer after halving (is_halved) */
    bool is_halved;
    bool is_postmaster; /* postmaster@ an accepted domain, or <Postmaster> */
    bool is_blocked;    /* acl_recipient_blocked */
    bool is_trap; /* acl_is_trap: unknown and counted, whatever the directory knows or once knew */
    enum decide_listing listing;
    enum decide_recipient recipient; /* of a domain with recipients = any: FOUND */
    bool was_known;                  /* absent, but a tombstone is there */
    bool is_restricted;
    uint64_t max_size;        /* octets this recipient takes; 0: any */
    uint64_t size;            /* SIZE= of MAIL; 0: none */
    bool is_failure_accepted; /* directory on_failure = accept */
    bool is_marked;           /* the downstream refused it lately, so it is asked live */
    bool is_monitor;          /* server.monitor */
    bool is_late;             /* harvest.stage = data */
};

enum decide_verdict {
    DECIDE_ACCEPT,
    DECIDE_REFUSE, /* by its reason; policy_reason_class tells 4xx from 5xx */
    DECIDE_CLOSE,  /* 421 4.7.0 and the end of the session: the harvester's disconnect and block */
    DECIDE_ASK_LISTING,   /* fill in listing and decide again */
    DECIDE_ASK_DIRECTORY, /* fill in recipient and decide again */
    DECIDE_ASK_DOWNSTREAM /* its answer is the reply: no need to decide again */
};

/* A value. */
struct decision {
    enum decide_verdict verdict;
    enum policy_reason reason;
    bool is_would;     /* accepted, and REASON is why it would not have been without monitor */
    bool is_late;      /* accepted for now, and REASON is why DATA will be refused (stage = data) */
    bool is_counted;   /* an unknown recipient: call policy_unknown, then decide_harvest */
    uint32_t delay_ms; /* set by decide_harvest; decide leaves it 0 */
};

struct decision decide(const struct decide_input *in);

/* What policy_unknown answered, added to D: the delay, and whether the session ends here.  Under
 * monitor there is none.  A late refusal's is for DATA. */
struct decision decide_harvest(const struct decide_input *in, struct decision d,
                               const struct policy_harvest *h);

#endif
