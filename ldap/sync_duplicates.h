#ifndef LDAP_SYNC_DUPLICATES_H
#define LDAP_SYNC_DUPLICATES_H

#include "ldap/directory.h"
#include "ldap/sync_look.h"

/* Addresses that two objects have, with what only the server knows of them: the snapshot has but
 * hashes and ids. malloc'd; NULL when memory is out. */
struct dir_report *sync_duplicates(struct sync_look *k);

#endif
