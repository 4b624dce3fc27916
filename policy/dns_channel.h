#ifndef POLICY_DNS_CHANNEL_H
#define POLICY_DNS_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "policy/dns_message.h"

struct event_base;

/* c-ares on a libevent loop: one question, one answer.  Used by the loop's thread only. */

struct dns_channel;
struct dns_query;
typedef void dns_done_fn(void *arg, const struct dns_answer *answer);

/* NAMESERVER: "ADDRESS", "ADDRESS:PORT" or several of them with commas; NULL: those that the file
 * RESOLV_CONF names, whose path is not copied.  Every question is answered within about TIMEOUT_MS,
 * be it by DNS_TROUBLE.  NULL with E set if the servers make no sense, or memory is out. */
struct dns_channel *dns_channel_new(struct event_base *base, const char *nameserver,
                                    char *resolv_conf, int64_t timeout_ms, struct err *e);
/* Answers what is open by DNS_TROUBLE first.  Not from within a callback.  Clears *C; NULL is fine.
 */
void dns_channel_free(struct dns_channel **c);
/* Has the file that names C's servers changed since?  Not while it is gone or empty, as it may be
 * when it is written anew. */
bool dns_channel_is_outdated(const struct dns_channel *c);
/* Is no question open? */
bool dns_channel_is_idle(const struct dns_channel *c);
/* Calls DONE(ARG, answer) once, never before it returns; DONE may ask anew.  NULL if it cannot be
 * asked, which is DNS_TROUBLE; else a handle that is good until DONE is called. */
struct dns_query *dns_channel_ask(struct dns_channel *c, const struct dns_question *question,
                                  dns_done_fn *done, void *arg);
/* DONE is not called. */
void dns_query_cancel(struct dns_query *q);

#endif
