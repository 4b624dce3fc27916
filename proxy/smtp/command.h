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
    SMTP_PHASE_MAIL,    /* MAIL accepted, no RCPT accepted yet */
    SMTP_PHASE_RCPT,    /* at least one RCPT was answered in this transaction */
    SMTP_PHASE_BDAT     /* a BDAT without LAST was accepted: only BDAT, RSET, NOOP, QUIT... */
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
    struct span text;     /* the verb as it was written */
    struct span argument; /* behind the verb and one or more spaces; trailing blanks cut */
};

/* Split a line. Never fails: an unknown verb is SMTP_VERB_UNKNOWN. */
struct smtp_command smtp_command_parse(struct span line);
const char *smtp_verb_text(enum smtp_verb verb);
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

/* ENVID is at most 100 octets of xtext (RFC 3461 4.4), ORCPT 500 (4.2). Spans point into the line.
 */
struct smtp_mail {
    struct smtp_path path;
    bool has_body, has_size, is_smtputf8;
    enum smtp_body body;
    uint64_t size;
    enum smtp_ret ret;
    struct span envid; /* as written, empty if none */
};

struct smtp_rcpt {
    struct smtp_path path;
    unsigned notify;   /* SMTP_NOTIFY_*; 0: not given */
    struct span orcpt; /* as written ("rfc822;..."), empty if none */
};

struct smtp_bdat {
    uint64_t size;
    bool is_last;
};

/* ARGUMENT of MAIL ("FROM:<...> ...") and RCPT ("TO:<...> ...").  OFFERED are the SMTP_CAP_BITs of
 * our EHLO reply to this client (0 after HELO): a parameter of an extension that was not offered is
 * SMTP_SYNTAX_UNKNOWN.  Blanks after the colon are tolerated (as Postfix and Exchange do); a
 * missing
 * <> is not.  MAIL's AUTH= parameter is SMTP_SYNTAX_UNKNOWN (AUTH is never offered). */
enum smtp_syntax smtp_mail_parse(struct span argument, uint32_t offered, struct smtp_mail *mail);
enum smtp_syntax smtp_rcpt_parse(struct span argument, uint32_t offered, bool is_smtputf8,
                                 struct smtp_rcpt *rcpt);
/* "N" or "N LAST"; sizes over 2^63-1, signs, hex, junk: SMTP_SYNTAX_ARGUMENT. */
enum smtp_syntax smtp_bdat_parse(struct span argument, struct smtp_bdat *bdat);

/* The argument of HELO/EHLO: a domain or an address literal, leniently: printable, no control
 * character, no space, at most 255 octets. */
bool smtp_helo_valid(struct span argument);

/* Attributes of an XCLIENT command: xtext decoded, values unavailable or tempunavail are
 * "not given". */
struct smtp_xclient_args {
    uint32_t given; /* SMTP_XCLIENT_BIT of those that were given (also as [UNAVAILABLE]) */
    char value[SMTP_XCLIENT_COUNT]
              [256]; /* decoded, NUL-terminated; empty for [UNAVAILABLE]/[TEMPUNAVAIL] */
};
enum smtp_syntax smtp_xclient_parse(struct span argument, struct smtp_xclient_args *args);

#endif
