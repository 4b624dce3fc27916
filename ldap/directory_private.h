#ifndef LDAP_DIRECTORY_PRIVATE_H
#define LDAP_DIRECTORY_PRIVATE_H

#include "ldap/dir_section.h"
#include "ldap/directory.h"

/* What directory_client.c needs of directory.c. */

/* Changes whenever directories_current does. */
unsigned directories_generation(struct directories *d);
/* What sections are kept in; NULL: none is. It outlives the clients. */
struct snapshot *directories_snapshot(struct directories *d);
/* The caller owns the reference. */
struct dir_set *directories_current(struct directories *d);
/* From now on BOX gets a reply without an id whenever directories_current changes.  False: memory
 * is out. */
bool directories_join(struct directories *d, struct dir_inbox *box);
void directories_leave(struct directories *d, const struct dir_inbox *box);

#endif
