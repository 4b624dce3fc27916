#ifndef PROXY_TLS_TICKET_H
#define PROXY_TLS_TICKET_H

#include <stdint.h>

#include <openssl/ssl.h>

/* The keys of session tickets (RFC 5077, RFC 8446 4.6.1): one set for the process, so that a ticket
 * of one worker, or of before a reload, is taken by every other.  A key makes tickets for
 * TLS_TICKET_TURN_MS and reads them for as long again; then it is gone, and with it what was said
 * under it. */

#define TLS_TICKET_TURN_MS (INT64_C(6) * 3600 * 1000)
/* A ticket serves for so long. */
#define TLS_TICKET_LIFE_S 7200

/* Let CONTEXT, a server's, make and read its tickets by these keys. */
void tls_ticket_use(SSL_CTX *context);
/* Make new keys if it is time to.  NOW_MS is clock_ms; any thread.  Every ticket does it by itself,
 * so this is for tests. */
void tls_ticket_turn(int64_t now_ms);

#endif
