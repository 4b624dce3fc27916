#ifndef PROXY_TLS_H
#define PROXY_TLS_H

#include <stdbool.h>

#include <openssl/ssl.h>

#include "base/err.h"
#include "base/log.h"
#include "conf/settings.h"

/* OpenSSL contexts of both legs, made from the settings.  Contexts are shared by all loops; an SSL
 * belongs to one. */

/* The inbound side: a context for each certificate, chosen by SNI; the first for those without. */
struct tls_contexts;

/* Takes a look at all certificates and keys. *OUT is NULL with 0 returned when the settings offer
 * no STARTTLS. -1 with E set if a file cannot be read or a key does not match. */
int tls_contexts_new(const struct settings *st, struct tls_contexts **out, struct err *e);
struct tls_contexts *tls_contexts_ref(struct tls_contexts *t);
void tls_contexts_unref(struct tls_contexts *t); /* NULL is fine */
/* A server's SSL, to be owned by the caller. NULL when memory is out. */
SSL *tls_accept(struct tls_contexts *t);

/* The outbound side, for one downstream. */
struct tls_client;

/* *OUT is NULL with 0 returned for tls = off. */
int tls_client_new(const struct settings_downstream *ds, struct tls_client **out, struct err *e);
void tls_client_free(struct tls_client **t);
/* A client's SSL for the host as written (or server_name), which verifies as the settings say. */
SSL *tls_connect(const struct tls_client *t, const char *host);
/* After the handshake: is the peer who it must be?  Also holds the fingerprint to it.  A session
 * that was resumed may be resumed again from here on. */
bool tls_peer_accepted(const struct tls_client *t, SSL *ssl);
/* Is the peer authenticated (verify mode)? For the log. */
bool tls_peer_verified(const struct tls_client *t);

/* OpenSSL's callback for a key's passphrase: it is asked of nobody, not of a terminal either.  Sets
 * the bool at WAS_ASKED, which may be NULL. */
int tls_no_password(char *out, int n, int is_writing, void *was_asked);

/* The oldest error of this thread's OpenSSL queue into OUT, and clears the queue. */
void tls_error_text(char *out, size_t n);
/* The same after a failed handshake; what is wrong with the peer's certificate, if that is why. */
void tls_handshake_error(const SSL *ssl, char *out, size_t n);

/* What the `tls` line tells of a handshake. */
struct tls_outcome {
    const char *session, *leg, *peer;
    const SSL *ssl; /* NULL: there is none */
    bool is_verified;
    const char *error; /* NULL: it went well */
};

void tls_log(enum log_level level, const struct tls_outcome *o);

#endif
