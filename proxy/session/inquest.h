#ifndef PROXY_SESSION_INQUEST_H
#define PROXY_SESSION_INQUEST_H

#include <stdint.h>

#include "conf/settings.h"
#include "proxy/relay/message.h"

/* The downstream refused a message of several recipients behind the data, for the sake of one of
 * them, and does not say which.  Whom a directory knew is looked up live, past cache and snapshot:
 * who is absent now is refused at the sender's retry, since the answer refreshes the cache.  If
 * none is, or a snapshot may bring him back before the retry, the sender may have only half of them
 * at once from now on, until the guilty one stands alone.  Those who have it by an earlier burst
 * are counted with the others. */

struct worker;

/* M is read during the call only. MEMORY_MS: refusal_memory. */
void inquest_start(struct worker *w, struct settings *st, const struct message *m,
                   int64_t memory_ms);

#endif
