#ifndef LDAP_DIR_QUERY_H
#define LDAP_DIR_QUERY_H

#include <ldap.h>
#include <stdbool.h>

#include "base/span.h"
#include "ldap/dir_plan.h"
#include "ldap/dir_verdict.h"

/* One question's way through one or more searches: the address; if it has rules about senders and
 * the key names one, the sender's own entry, and whether that stands in the lists or is a member of
 * the groups. It says what to search and takes what comes; the connection sends and receives. */

struct dir_query;

/* NULL when memory is out.  PLAN outlives it, KEY is copied. */
struct dir_query *dir_query_new(const struct dir_plan *plan, struct span key, bool with_detail);
void dir_query_free(struct dir_query **q);

/* The next search; what it points to is Q's until the next call. */
struct dir_search {
    const char *base;
    int scope;
    const char *filter;
    char **attributes; /* NULL at the end */
};
/* False: there is none, and dir_query_verdict has the answer. */
bool dir_query_search(struct dir_query *q, struct dir_search *s);
/* Each entry of the search, and each continuation reference. */
void dir_query_entry(struct dir_query *q, LDAP *ld, LDAPMessage *entry);
void dir_query_reference(struct dir_query *q);
/* The search ended with CODE, which dir_result_outcome does not call LOST.  True if it was the last
 * one. */
bool dir_query_end(struct dir_query *q, int code);

/* Why the question stays open, for its detail. */
void dir_query_explain(struct dir_query *q, const char *error);
const struct dir_verdict *dir_query_verdict(const struct dir_query *q);
/* malloc'd, the caller's from then on; NULL without with_detail. */
struct dir_detail *dir_query_take_detail(struct dir_query *q);

#endif
