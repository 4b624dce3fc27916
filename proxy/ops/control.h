#ifndef PROXY_OPS_CONTROL_H
#define PROXY_OPS_CONTROL_H

#include <pwd.h>
#include <stddef.h>

#include <event2/event.h>

#include "base/err.h"
#include "base/span.h"

/* The commands of control.def, on the control socket.  The housekeeper's loop. */

struct server;
struct control;

/* Bind control.socket of the settings in force, for OWNER (NULL: who runs).  The server need not
 * have more yet than its settings.  NULL with E set on failure. */
struct control *control_new(struct server *srv, struct event_base *base, const struct passwd *owner,
                            struct err *e);
/* The server is whole: requests may come.  Before the loop runs.  -1 with E set on failure. */
int control_start(struct control *c, struct err *e);
/* Removes the socket.  Clears *C; NULL is fine. */
void control_free(struct control **c);

/* A row of the table, for those that speak to the socket. */
struct control_command {
    const char *name;
    const char *arguments;
    size_t least, most;
    const char *choices;
    const char *help;
};

enum control_id {
#define CONTROL(id, name, arguments, least, most, choices, help) CONTROL_##id,
#include "proxy/ops/control.def"
#undef CONTROL
    CONTROL_COUNT
};

extern const struct control_command control_commands[CONTROL_COUNT];
/* The command of that name; CONTROL_COUNT: there is none. */
enum control_id control_find(struct span name);

#endif
