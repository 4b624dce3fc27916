#ifndef PROXY_TLS_OUTPUT_H
#define PROXY_TLS_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/bio.h>

/* Where OpenSSL puts its records: into a socket, or, of bulk, several of them at a time, as each
 * write costs more than a copy of what it writes. */

/* Of the nonblocking socket FD, which stays its owner's.  NULL when memory is out. */
BIO *tls_output_new(int fd);
/* From now on records are kept, as many as there is room for, until tls_output_flush. */
void tls_output_gather(BIO *output);
/* Hand what was kept to the kernel.  False while it has not taken all (or the connection is gone,
 * which reading tells); until then nothing more is taken. */
bool tls_output_flush(BIO *output);
/* Octets that are kept. */
size_t tls_output_pending(BIO *output);

#endif
