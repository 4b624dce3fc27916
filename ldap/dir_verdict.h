#ifndef LDAP_DIR_VERDICT_H
#define LDAP_DIR_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "ldap/dir_address.h"
#include "ldap/directory.h"

/* What is known of one key of a directory: what a search found out, the cache keeps and a snapshot
 * stores.  A key is an address, or an address, NUL and a sender ("" for <>): the latter is asked
 * only for an address that has rules about senders, and says whether that one may write to it. */
struct dir_verdict {
    enum dir_status status;
    bool is_restricted; /* nobody, or not the key's sender, may write to it */
    bool has_rules;     /* who may write depends on the sender: ask with it */
    uint64_t max_size;  /* octets; 0: no limit */
};

#define DIR_KEY_MAX (2 * DIR_ADDRESS_MAX + 1)

#endif
