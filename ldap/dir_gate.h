#ifndef LDAP_DIR_GATE_H
#define LDAP_DIR_GATE_H

#include <lber.h>
#include <stdbool.h>

#include "base/span.h"

/* A check of what a server sends, before libldap parses it.  libldap trusts parts of it: a message
 * without an element that is always present aborts the program by a failed assertion, or makes it
 * read out of bounds.  So each message is first read whole and checked, above TLS.  An unsound one
 * ends the connection; to libldap it looks as if the server had closed it. */

/* The limit of one message, which holds an entry at most; libldap's own limit is 4 GiB. */
#define DIR_GATE_MESSAGE_MAX ((ber_len_t)32 << 20)

/* Install the check on SB.  0, or -1 when memory is out. */
int dir_gate_add(Sockbuf *sb);
/* After a bind that added a layer (GSSAPI's) above the check: move the check above that layer.
 * Returns as dir_gate_add. */
int dir_gate_raise(Sockbuf *sb);

/* May libldap be given MESSAGE, a whole LDAPMessage (RFC 4511 4.1.1)?  An extended response must
 * not have an empty name, an intermediate response must have a name and a value, a control of RFC
 * 4533 or RFC 2696 a value.  Pure. */
bool dir_gate_is_sound(struct span message);

#endif
