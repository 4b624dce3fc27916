#ifndef PROXY_RELAY_HEALTH_H
#define PROXY_RELAY_HEALTH_H

#include "base/err.h"
#include "conf/settings.h"
#include "proxy/relay/host.h"
#include "proxy/stream.h"

/* Probes of the downstream hosts, every health_interval: look up the name (each by itself, and no
 * longer waited for than connect_timeout), connect, EHLO, STARTTLS as configured, QUIT.  A probe
 * takes a slot like any connection.  Runs on the housekeeper's loop. */

struct health;

struct health *health_new(const struct stream_loop *loop, struct hosts *hosts, struct settings *st,
                          struct err *e);
/* A reload: make ready to probe as the new settings say, whose hosts are known by now.  -1 with E
 * set on failure. */
int health_prepare(struct health *h, struct settings *st, struct err *e);
/* After that, whatever it returned: probe so, at once, or go on as before. */
void health_settle(struct health *h, bool is_taken);
/* Has every host been tried at least once? */
bool health_has_looked(const struct health *h);
/* Does not wait for a name that is being looked up. */
void health_free(struct health **h);

#endif
