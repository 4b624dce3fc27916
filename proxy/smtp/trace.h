#ifndef PROXY_SMTP_TRACE_H
#define PROXY_SMTP_TRACE_H

#include <stdbool.h>

#include "base/netaddr.h"

/* The Received field (RFC 5321 4.4, RFC 3848). Pure. */

/* No string is NULL but where it says so. */
struct trace {
    const char *helo; /* as the client gave it; empty: "unknown" */
    const struct netaddr *client;
    const char *hostname;                 /* ours */
    bool is_esmtp, is_tls, is_utf8;       /* SMTP ESMTP ESMTPS UTF8SMTP UTF8SMTPS */
    const char *tls_version, *tls_cipher; /* of is_tls, else not looked at */
    const char *id;                       /* SESSION.N */
    const char *recipient;                /* "for <...>", only of a message with one; else NULL */
    const char *date;                     /* clock_rfc5322 */
};

/* "Received: from HELO ([192.0.2.1]) by HOSTNAME (Postern) with ESMTPS (VERSION CIPHER) id ID
 * for <RECIPIENT>; DATE" into OUT, folded into lines far below 998 octets, CRLF at the end, no NUL.
 * In every part what could end it, open a comment, or hide, becomes '?': all but atext, dot, colon,
 * '@' and brackets; characters beyond ASCII stay where is_utf8 and well-formed.  Parts are cut at
 * the length that SMTP allows them, and a CAPACITY of 2048 is always enough.  Returns the length; 0
 * if it does not fit. */
size_t trace_received(char *out, size_t capacity, const struct trace *t);

#endif
