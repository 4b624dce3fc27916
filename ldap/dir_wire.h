#ifndef LDAP_DIR_WIRE_H
#define LDAP_DIR_WIRE_H

#include <ldap.h>
#include <stdbool.h>

#include "base/err.h"
#include "ldap/dir_link.h"
#include "ldap/dir_plan.h"
#include "ldap/dir_query.h"

/* The searches of a question over a link: sent, and what comes to them taken. */

/* Send Q's next search, and its message's number into *ID.  0: there is none, Q has its answer; 1:
 * it is sent; -1: the link is lost, or libldap takes no such filter. */
int dir_wire_send(LDAP *ld, const struct dir_plan *plan, struct dir_query *q, int *id);

enum dir_wire {
    DIR_WIRE_GOES_ON,
    DIR_WIRE_ENDED, /* the search did: dir_wire_send is due.  With E set it leaves the question open
                     */
    DIR_WIRE_REFUSED, /* the same, since the server does not answer this search at all */
    DIR_WIRE_LOST     /* the link, or its server, is of no use any longer: E says why */
};
/* M is a message to Q's search. */
enum dir_wire dir_wire_take(LDAP *ld, struct dir_query *q, LDAPMessage *m, struct err *e);

/* Does the server answer searches as such?  Asks for an address that nobody has, and waits: the
 * link's guard bounds that to the section's timeout.  -1: it does not, for E, and the link is of no
 * use.  0 with E set: it does, but would leave the question open. */
int dir_wire_probe(struct dir_link *l, const struct dir_plan *plan, struct err *e);
/* dir_link_open, and dir_wire_probe: a server that takes binds and no questions is none. */
enum dir_link_result dir_wire_open(struct dir_link *l, const struct dir_plan *plan, size_t uri,
                                   struct err *e);

#endif
