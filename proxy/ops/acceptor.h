#ifndef PROXY_OPS_ACCEPTOR_H
#define PROXY_OPS_ACCEPTOR_H

#include <event2/event.h>

/* A listening socket of the housekeeper's loop, for few and unimportant connections.  When accept
 * fails for want of descriptors or memory the connection stays in the kernel's queue and would be
 * reported at once again, for ever: then it rests for a second. */

struct acceptor;

/* FD is nonblocking and close-on-exec, and the callee's. */
typedef void acceptor_fn(void *arg, int fd);

/* Takes over FD, which listens and does not block.  NULL when memory is out; FD is then still the
 * caller's. */
struct acceptor *acceptor_new(struct event_base *base, int fd, acceptor_fn *fn, void *arg);
void acceptor_free(struct acceptor **a); /* closes the socket; NULL is fine */

#endif
