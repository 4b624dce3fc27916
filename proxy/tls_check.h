#ifndef PROXY_TLS_CHECK_H
#define PROXY_TLS_CHECK_H

#include "conf/faults.h"
#include "conf/settings.h"

/* What the settings name and only OpenSSL can judge: certificates, keys, authorities, ciphers. Each
 * fault is reported, with the file; what has expired, or will within two weeks, as a warning.  ST
 * may have faults; files that cannot be read were reported by settings_examine. */
void tls_check(const struct settings *st, struct faults *f);

#endif
