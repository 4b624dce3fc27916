#ifndef PROXY_OPS_CONTROL_DIRECTORY_H
#define PROXY_OPS_CONTROL_DIRECTORY_H

#include "ldap/directory.h"
#include "proxy/ops/control_socket.h"

/* `directory sync [--force]` and `directory duplicates`: what directories that are kept as
 * snapshots are told to do, and what they report. */

/* Tell each of them ORDER; CALL is answered when the last has reported, or refused if there is none
 * or one of them failed. CLIENT outlives the call. */
void control_directory_order(struct directories *d, struct directory_client *client,
                             struct control_call *call, enum dir_order order);

#endif
