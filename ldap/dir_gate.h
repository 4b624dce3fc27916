#ifndef LDAP_DIR_GATE_H
#define LDAP_DIR_GATE_H

#include <lber.h>
#include <stdbool.h>

#include "base/span.h"

/* What a server sends, before libldap sees it.  libldap takes some of it on trust: of a message
 * that lacks what it always has, it ends the whole program by a failed assertion, or reads where
 * nothing is.  So each message is read whole and looked at first, above TLS; one that is not sound
 * ends the connection, which to libldap is as if the server had closed it. */

/* One message of a server's, an entry at most; libldap alone would make room for 4 GiB. */
#define DIR_GATE_MESSAGE_MAX ((ber_len_t)32 << 20)

/* Put a gate before SB's reader.  0, or -1 when memory is out. */
int dir_gate_add(Sockbuf *sb);
/* Behind a bind that put a layer of its own (GSSAPI's) over the gate: above that.  As dir_gate_add.
 */
int dir_gate_raise(Sockbuf *sb);

/* Is MESSAGE, a whole LDAPMessage (RFC 4511 4.1.1), one that libldap can be given?  An extended
 * response has no empty name, an intermediate one a name and a value, a control of RFC 4533 a
 * value. Pure. */
bool dir_gate_is_sound(struct span message);

#endif
