#ifndef POLICY_RESOLVER_H
#define POLICY_RESOLVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/netaddr.h"
#include "base/span.h"
#include "conf/settings.h"
#include "policy/dns_message.h"
#include "policy/dnsbl.h"
#include "policy/spf.h"

/* What the DNS is asked about a client: SPF, and the block lists of [dnsbl].  `struct resolver`
 * lives on one loop and does the asking; each loop that has questions holds a `resolver_client`.
 * Identical questions share one look-up, results are remembered for as long as the DNS allows
 * (within a minute and an hour), and a whole look-up ends after dns.timeout.
 *
 * A block list that fails RFC 5782's test points is not used, and tried again each minute; one that
 * passes, every ten minutes.  dnsbl.self is looked up in the zones of null_sender every hour. Both
 * are said in the log (event=dnsbl).
 *
 * Without dns.nameserver the system's servers are asked; when /etc/resolv.conf changes, the new
 * ones within a minute. */

struct event_base;
struct resolver;

/* For BASE's thread, as all of these.  NULL with E set if the settings name no usable server or
 * zone, or memory is out. */
struct resolver *resolver_new(struct event_base *base, const struct settings *st, struct err *e);
/* Take a new configuration: the server is chosen and the zones are tested anew.  -1 with E set, and
 * all stays as it was, as above. */
int resolver_reload(struct resolver *r, const struct settings *st, struct err *e);
/* After every client is gone.  Clears *R; NULL is fine. */
void resolver_free(struct resolver **r);
/* The I-th zone of [dnsbl] and why it is not asked (FAULT: NULL if it is, or was not tested so
 * far); NULL behind the last.  On the thread of the resolver's loop; the name is good until a
 * reload. */
const char *resolver_zone(const struct resolver *r, size_t i, const char **fault);

/* A value. */
struct resolver_answer {
    enum spf_result spf;      /* of an SPF question; SPF_TEMPERROR if nobody knows */
    bool is_listed;           /* of a DNSBL question; false if nobody knows */
    char zone[DNS_NAME_TEXT]; /* listed by this one */
};

/* One loop's end.  Used by one thread only. */
struct resolver_client;
typedef void resolver_done_fn(void *arg, const struct resolver_answer *answer);

/* From any thread.  NULL if memory is out. */
struct resolver_client *resolver_client_new(struct resolver *r);
/* Pending questions are forgotten.  Clears *C; NULL is fine. */
void resolver_client_free(struct resolver_client **c);
/* Readable when resolver_client_dispatch has work. */
int resolver_client_fd(const struct resolver_client *c);
/* Deliver what has arrived, and "nobody knows" to questions past their deadline.  Call when the
 * descriptor is readable and at the latest at resolver_client_next_ms. */
void resolver_client_dispatch(struct resolver_client *c, int64_t now_ms);
/* The next deadline on clock_ms's scale; INT64_MAX: none. */
int64_t resolver_client_next_ms(const struct resolver_client *c);

/* May CLIENT send for SENDER (an address; empty for <>: then it is HELO that is checked)?  Returns
 * a ticket; DONE(ARG, answer) is called exactly once from resolver_client_dispatch, at the latest
 * ST's dns.timeout from now, unless resolver_cancel comes first.  DONE may ask anew.  HELO and
 * SENDER are copied. 0 if memory is out: nobody knows, and DONE is not called. */
uint64_t resolver_ask_spf(struct resolver_client *c, const struct settings *st,
                          const struct netaddr *client, struct span helo, struct span sender,
                          int64_t now_ms, resolver_done_fn *done, void *arg);
/* Is CLIENT on one of LISTS (DNSBL_NULL_SENDER | DNSBL_ANY_SENDER)?  As above. */
uint64_t resolver_ask_dnsbl(struct resolver_client *c, const struct settings *st,
                            const struct netaddr *client, unsigned lists, int64_t now_ms,
                            resolver_done_fn *done, void *arg);
/* A ticket that was answered is fine. */
void resolver_cancel(struct resolver_client *c, uint64_t ticket);

#endif
