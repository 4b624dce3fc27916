#ifndef PROXY_SMTP_TRACE_H
#define PROXY_SMTP_TRACE_H

#include "base/netaddr.h"

/* The Received field (RFC 5321 4.4, RFC 3848). Pure. */

struct trace {
    const char *helo; /* as the client gave it; what is not fit for a header is replaced */
    const struct netaddr *client;
    const char *hostname; /* ours */
    bool is_esmtp, is_tls, is_utf8; /* SMTP ESMTP ESMTPS UTF8SMTP UTF8SMTPS */
    const char *tls_version, *tls_cipher; /* of is_tls */
    const char *id;                 /* SESSION.N */
    const char *recipient;          /* "for <...>", only of a message with one; else NULL */
    const char *date;               /* clock_rfc5322 */
};

/* Into OUT, folded, CRLF at the end.  Returns the length; CAPACITY of 2048 is always enough. */
size_t trace_received(char *out, size_t capacity, const struct trace *t);

#endif
