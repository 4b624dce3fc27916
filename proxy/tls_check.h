#ifndef PROXY_TLS_CHECK_H
#define PROXY_TLS_CHECK_H

#include "conf/faults.h"
#include "conf/settings.h"

/* What the settings name and only OpenSSL can judge: certificates, keys, authorities, ciphers. Each
 * of them is told, with the file; what has expired, or will within two weeks, as a warning.  ST may
 * have faults; files that cannot be read were told by settings_examine. */
void tls_check(const struct settings *st, struct faults *f);

#endif
