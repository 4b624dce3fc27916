#ifndef LDAP_DIR_WATCHDOG_H
#define LDAP_DIR_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Bounds what libldap does not: a TLS handshake, a bind, a message that stops in its middle.  A
 * thread shuts the socket down under a call that is not back in time, and the call fails. */

struct dir_watchdog;
struct dir_watchdog *dir_watchdog_new(struct err *e);
/* From now on no call that is guarded waits for its server any longer. */
void dir_watchdog_cut(struct dir_watchdog *w);
/* After every guard is closed.  Clears *W; NULL is fine. */
void dir_watchdog_free(struct dir_watchdog **w);

/* One connection's guard; embedded, all members are the watchdog's. */
struct dir_guard {
    struct dir_watchdog *watchdog;
    struct dir_guard *next;
    int fd; /* a duplicate: libldap may close its own at any time */
    int64_t deadline_ms;
    bool has_fired;
};

void dir_guard_init(struct dir_guard *g, struct dir_watchdog *w);
/* From now on calls are to be back at DEADLINE_MS (clock_ms). */
void dir_guard_arm(struct dir_guard *g, int64_t deadline_ms);
void dir_guard_disarm(struct dir_guard *g);
/* The socket to shut down; at once, if the time is over already. */
void dir_guard_watch(struct dir_guard *g, int fd);
/* Forget the socket, and disarm.  True if it had to be shut down. */
bool dir_guard_close(struct dir_guard *g);

#endif
