#ifndef PROXY_OPS_CONTROL_SOCKET_H
#define PROXY_OPS_CONTROL_SOCKET_H

#include <pwd.h>

#include <jansson.h>

#include <event2/event.h>

#include "base/err.h"

/* The unix socket on which one JSON object a line goes in each direction:
 * {"command":NAME,"args":[TEXT...]} (args may be missing) and {"ok":true,...} or
 * {"ok":false,"error":TEXT}.  It knows no command.  Lines are bounded, so are clients; a client
 * that is idle for a minute, or takes no octet of its answer for ten seconds, is dropped.  One
 * loop's. */

struct control_socket;
struct control_call; /* a request that has no answer yet */

#define CONTROL_LINE_MAX    8192 /* of a request, its end included */
#define CONTROL_CLIENTS_MAX 32

/* A request has come.  ARGS is an array of strings, valid until the call is answered.  It is
 * answered exactly once, now or later, by control_answer or control_refuse. */
typedef void control_request_fn(void *arg, struct control_call *call, const char *command,
                                const json_t *args);

/* Bind PATH with mode 0600, given to OWNER by root (NULL: it stays the process's).  A socket that
 * nobody listens on any more is replaced.  NULL with E set on failure. */
struct control_socket *control_socket_new(struct event_base *base, const char *path,
                                          const struct passwd *owner, control_request_fn *request,
                                          void *arg, struct err *e);
/* Calls that wait are cancelled; answers not yet taken are tried once more.  Removes PATH if it is
 * still this socket.  Clears *S; NULL is fine. */
void control_socket_free(struct control_socket **s);

/* BODY, an object that is taken over, with "ok": true in front.  NULL: memory is out. */
void control_answer(struct control_call *call, json_t *body);
/* {"ok":false,"error":...} */
void control_refuse(struct control_call *call, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The answer comes later; if the client goes or the socket is freed before, CANCEL(ARG) is called
 * and CALL is gone. */
void control_defer(struct control_call *call, void (*cancel)(void *arg), void *arg);

#endif
