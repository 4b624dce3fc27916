#ifndef POLICY_NAME_LOOKUP_H
#define POLICY_NAME_LOOKUP_H

#include <stddef.h>

#include "base/netaddr.h"

/* The addresses of a name, by the system's own look-up (files, DNS, whatever nsswitch.conf says),
 * which blocks, and so has a thread of its own that outlives whoever no longer waits for it.  (Not
 * libevent's: to free its base after a look-up was cancelled is a use after free, 2.1.12.) */

struct event_base;
struct name_lookup;

#define NAME_LOOKUP_MAX 8u /* more addresses are not told */

/* N addresses; none: ERROR is why, a text that lives on. */
typedef void name_lookup_done_fn(void *arg, const struct netaddr *addresses, size_t n,
                                 const char *error);

/* DONE is called once, from BASE, unless name_lookup_cancel comes first; within it the look-up is
 * still to be cancelled.  NULL when there is no memory or thread. */
struct name_lookup *name_lookup_start(struct event_base *base, const char *host,
                                      name_lookup_done_fn *done, void *arg);
/* Clears *L; NULL is fine. */
void name_lookup_cancel(struct name_lookup **l);

#endif
