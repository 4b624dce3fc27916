#ifndef LDAP_DIR_TIMING_H
#define LDAP_DIR_TIMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* When a connection has been silent for too long.  Pure; times are clock_ms's. */

/* An idle connection is opened anew before Active Directory cuts it, at 15 minutes. */
#define DIR_IDLE_MAX_MS (10 * 60 * 1000)

/* Nothing came since HEARD_MS, and nothing is asked. */
bool dir_timing_is_idle(int64_t heard_ms, int64_t now_ms);

enum dir_patience {
    DIR_PATIENCE_WAIT,
    DIR_PATIENCE_GIVE_UP, /* this search; the server answers others */
    DIR_PATIENCE_LOST     /* nothing at all came since: the server is as good as gone */
};
/* About a search that was sent at SENT_MS, over a connection that last said something at HEARD_MS,
 * to one of N_SERVERS.  With another server to turn to patience is half as long, so that questions
 * can be asked there before their askers give up. */
enum dir_patience dir_timing_patience(int64_t sent_ms, int64_t heard_ms, int64_t now_ms,
                                      int64_t timeout_ms, size_t n_servers);
/* When dir_timing_patience has news of it. */
int64_t dir_timing_end_ms(int64_t sent_ms, int64_t heard_ms, int64_t timeout_ms, size_t n_servers);

#endif
