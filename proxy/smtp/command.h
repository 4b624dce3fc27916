#ifndef PROXY_SMTP_COMMAND_H
#define PROXY_SMTP_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "proxy/smtp/address.h"
#include "proxy/smtp/capability.h"

/* Commands of RFC 5321 4.1 and of the extensions offered: verbs, arguments, parameters. Pure. */

/* What a session has seen, and so which commands are legal. */
enum smtp_phase {
    SMTP_PHASE_GREETED, /* no HELO or EHLO yet (also after STARTTLS) */
    SMTP_PHASE_READY,   /* HELO or EHLO seen, no transaction */
    SMTP_PHASE_MAIL,    /* MAIL accepted, no RCPT answered yet */
    SMTP_PHASE_RCPT,    /* RCPT was answered, with whatever reply */
    SMTP_PHASE_BDAT     /* a chunk was accepted, the last one is to come */
};

enum smtp_verb {
    SMTP_VERB_UNKNOWN,
#define SMTP_VERB(id, text, phases, flags) SMTP_VERB_##id,
#include "proxy/smtp/command.def"
#undef SMTP_VERB
    SMTP_VERB_COUNT
};

struct smtp_command {
    enum smtp_verb verb;
    struct span text;     /* the verb as it was written; empty if the line begins with a blank */
    struct span argument; /* what is behind it, without the blanks around; empty if there is none */
};

/* Split LINE, without its CRLF; the spans point into it.  Never fails: what is no verb of ours, in
 * any case, is SMTP_VERB_UNKNOWN. */
struct smtp_command smtp_command_parse(struct span line);
const char *smtp_verb_text(enum smtp_verb verb); /* "unknown" of SMTP_VERB_UNKNOWN */
/* Never for SMTP_VERB_UNKNOWN.  The octets of a BDAT come whether it is legal or not. */
bool smtp_verb_legal(enum smtp_verb verb, enum smtp_phase phase);
bool smtp_verb_before_tls(enum smtp_verb verb); /* legal where TLS is required and not yet there */
bool smtp_verb_needs_argument(enum smtp_verb verb);    /* none given: 501 5.5.4 */
bool smtp_verb_takes_no_argument(enum smtp_verb verb); /* one given: 501 5.5.4 */

/* What is wrong with an argument; the session chooses the reply. */
enum smtp_syntax {
    SMTP_SYNTAX_OK,
    SMTP_SYNTAX_ARGUMENT,  /* not of the command's form: 501 5.5.4 */
    SMTP_SYNTAX_ADDRESS,   /* the path is no path: 501 5.1.7 / 5.1.3 */
    SMTP_SYNTAX_PARAMETER, /* a parameter's value is bad, or it stands twice: 501 5.5.4 */
    SMTP_SYNTAX_UNKNOWN,   /* a parameter we do not offer: 555 5.5.4 (RFC 5321 4.1.1.11) */
    SMTP_SYNTAX_UTF8       /* an address beyond ASCII without SMTPUTF8: 553 5.6.7 (RFC 6531 3.5) */
};

enum smtp_body { SMTP_BODY_7BIT, SMTP_BODY_8BITMIME, SMTP_BODY_BINARYMIME };
enum smtp_ret { SMTP_RET_NONE, SMTP_RET_FULL, SMTP_RET_HDRS };

#define SMTP_NOTIFY_NEVER   1u
#define SMTP_NOTIFY_SUCCESS 2u
#define SMTP_NOTIFY_FAILURE 4u
#define SMTP_NOTIFY_DELAY   8u

/* Values; their spans point into the line. */
struct smtp_mail {
    struct smtp_path path;
    bool has_body, has_size, is_smtputf8;
    enum smtp_body body; /* 7BIT if not given */
    uint64_t size;       /* octets; 0 if not given */
    enum smtp_ret ret;
    struct span
        envid; /* as written, in xtext of at most 100 octets (RFC 3461 4.4); empty if none */
};

struct smtp_rcpt {
    struct smtp_path path;
    unsigned notify; /* SMTP_NOTIFY_*; 0: not given */
    struct span
        orcpt; /* as written ("rfc822;..."), at most 500 octets (RFC 3461 4.2); empty if none */
};

struct smtp_bdat {
    uint64_t size;
    bool is_last;
};

/* The argument of MAIL ("FROM:<...> ...") and of RCPT ("TO:<...> ...").  OFFERED are the
 * SMTP_CAP_BITs of our EHLO reply to this client (0 after HELO): a parameter of an extension that
 * is not among them is SMTP_SYNTAX_UNKNOWN, and so is AUTH=, as AUTH is never offered. IS_SMTPUTF8:
 * this transaction's MAIL said SMTPUTF8.  Blanks after the colon are tolerated, as they are
 * everywhere; a path without <> is not. With any result but SMTP_SYNTAX_OK *MAIL or *RCPT is
 * incomplete; its path is whole with all but SMTP_SYNTAX_ARGUMENT and SMTP_SYNTAX_ADDRESS. */
enum smtp_syntax smtp_mail_parse(struct span argument, uint32_t offered, struct smtp_mail *mail);
enum smtp_syntax smtp_rcpt_parse(struct span argument, uint32_t offered, bool is_smtputf8,
                                 struct smtp_rcpt *rcpt);
/* "N" or "N LAST"; sizes over 2^63-1, signs, hex, junk: SMTP_SYNTAX_ARGUMENT. */
enum smtp_syntax smtp_bdat_parse(struct span argument, struct smtp_bdat *bdat);

/* The argument of HELO or EHLO, leniently: 1 to 255 octets of printable ASCII, no blank. */
bool smtp_helo_valid(struct span argument);

/* The attributes of an XCLIENT command, xtext decoded. */
#define SMTP_XCLIENT_VALUE 256
struct smtp_xclient_args {
    uint32_t given; /* SMTP_XCLIENT_BIT of those that were named */
    /* NUL-terminated, without control characters; empty for [UNAVAILABLE] and [TEMPUNAVAIL] */
    char value[SMTP_XCLIENT_COUNT][SMTP_XCLIENT_VALUE];
};
/* SMTP_SYNTAX_ARGUMENT: there is none.  SMTP_SYNTAX_UNKNOWN: an attribute we do not know.
 * SMTP_SYNTAX_PARAMETER: one without a value, with a bad one, or twice. */
enum smtp_syntax smtp_xclient_parse(struct span argument, struct smtp_xclient_args *args);

#endif
