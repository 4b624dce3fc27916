#ifndef LDAP_DIR_TLS_H
#define LDAP_DIR_TLS_H

#include <ldap.h>

#include "base/err.h"
#include "conf/settings.h"

/* TLS of the connections to a directory.  With a certificate of our own they share libldap's
 * context: with GnuTLS each one that is made forgets to free what it read of key and certificate
 * (libldap 2.5, tlsg_ctx_init).  A context is made anew when its files change, and kept until the
 * process ends: libldap has no call to give one up. */

/* LD's options for TLS.  -1 with E set: a file cannot be used. */
int dir_tls_set(LDAP *ld, const struct settings_directory *conf, struct err *e);

#endif
