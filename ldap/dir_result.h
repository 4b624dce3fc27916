#ifndef LDAP_DIR_RESULT_H
#define LDAP_DIR_RESULT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

/* What a server's answers mean.  Pure.  Strict: only a search that ended well and named nobody says
 * "no". */

/* How a search ended. */
enum dir_outcome {
    DIR_OUTCOME_LOST,    /* the connection is of no use any longer, or the server is not */
    DIR_OUTCOME_FAILED,  /* the server will not answer this one: a wrong base, a referral, no
                            rights; or no other either, which the next will show */
    DIR_OUTCOME_PARTIAL, /* what came is true, and not all */
    DIR_OUTCOME_COMPLETE
};

/* CODE is an LDAP result code (RFC 4511 4.1.9), or one of libldap's own, which are negative. */
enum dir_outcome dir_result_outcome(int code);

/* VALUE of an address attribute is ADDRESS: itself or with "smtp:" before it, in any case. */
bool dir_result_is_address(struct span value, struct span address);
/* VALUE is X500 or "x500:" and X500. */
bool dir_result_is_x500(struct span value, struct span x500);

/* An attribute description as a server sends it. */
struct dir_attribute {
    struct span name; /* without options */
    bool is_ranged;   /* Active Directory's `;range=LOW-HIGH`: HIGH is * in the last part */
    bool is_last;
    unsigned next; /* LOW of the next part */
};
struct dir_attribute dir_result_attribute(struct span description);

#endif
