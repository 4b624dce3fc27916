#ifndef PROXY_SESSION_CLIENTS_H
#define PROXY_SESSION_CLIENTS_H

#include <stdbool.h>

#include "base/netaddr.h"

/* How many sessions each client network has open, over all loops: max_connections_per_client. */

struct clients;

struct clients *clients_new(void); /* NULL when memory is out */
void clients_free(struct clients **c);
/* One more of NETWORK; false, and nothing counted, if it has MAX already or memory is out. */
bool clients_enter(struct clients *c, const struct network *network, unsigned max);
void clients_leave(struct clients *c, const struct network *network);

#endif
