#ifndef PROXY_RELAY_HOST_MEMORY_H
#define PROXY_RELAY_HOST_MEMORY_H

#include "base/err.h"
#include "proxy/relay/host.h"

/* What each downstream host offered when it was last seen, in a file of state_dir, so that after a
 * restart clients are offered the same before a host has been reached.  A line a host: downstream,
 * NAME:PORT, SIZE's number, the keywords. */

/* Nothing, or a file that makes no sense, is no error: the hosts count as never reached. */
void host_memory_load(struct hosts *h, const char *state_dir);
/* Write the file anew if a host's capabilities changed since it was written.  -1 with E set when
 * the disk refuses; the next call tries again. */
int host_memory_save(struct hosts *h, const char *state_dir, struct err *e);

#endif
