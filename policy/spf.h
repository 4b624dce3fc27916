#ifndef POLICY_SPF_H
#define POLICY_SPF_H

#include <stdbool.h>

#include "base/netaddr.h"
#include "base/span.h"
#include "policy/dns_message.h"

/* check_host of RFC 7208: may this client send for that domain?  Pure: it says what it would ask of
 * the DNS, is told the answer, and goes on, one question at a time.  No explanation is fetched.
 *
 *     while ((q = spf_question(s)) != NULL)
 *         spf_answer(s, answer to q);
 *
 * The limits of section 4.6.4 bound it: ten terms that ask (so includes are no deeper), two of
 * them with void look-ups, ten names of a mx or ptr; and SPF_RECORD_MAX.  In all at most 132
 * questions. */

#define SPF_RECORD_MAX 4096 /* octets; a longer record is a permerror */

enum spf_result {
    SPF_NONE,
    SPF_NEUTRAL,
    SPF_PASS,
    SPF_FAIL,
    SPF_SOFTFAIL,
    SPF_TEMPERROR,
    SPF_PERMERROR
};

struct spf;

/* Check CLIENT for the domain of SENDER, an address; the empty one (the null sender) is
 * postmaster@HELO (2.4).  Everything is copied.  NULL if memory is out. */
struct spf *spf_new(const struct netaddr *client, struct span helo, struct span sender);
void spf_free(struct spf **s);
/* What it wants to know now; NULL: it has its result. */
const struct dns_question *spf_question(const struct spf *s);
/* The answer to that question. */
void spf_answer(struct spf *s, const struct dns_answer *a);
/* Once there is no question. */
enum spf_result spf_result(const struct spf *s);
/* True if the result holds for every sender of the domain, whatever HELO says: no record used
 * %{s}, %{l} or %{h}. */
bool spf_is_general(const struct spf *s);

#endif
