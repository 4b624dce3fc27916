#define _GNU_SOURCE

#include "proxy/ops/control_socket.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "proxy/ops/acceptor.h"
#include "proxy/ops/json_text.h"

#define IDLE_S  60
#define WRITE_S 10

/* A client and the one request of it that may be under way. */
struct control_call {
    LIST_ENTRY(control_call) link;
    struct control_socket *socket;
    struct bufferevent *bev;
    json_t *request; /* while it has no answer */
    void (*cancel)(void *arg);
    void *cancel_arg;
    bool is_closing; /* as soon as the answer is written */
    bool is_eof;     /* nothing more will come, but what came is answered */
};

struct control_socket {
    struct event_base *base;
    struct acceptor *acceptor;
    struct sockaddr_un address;
    dev_t dev;
    ino_t ino;
    control_request_fn *request;
    void *arg;
    LIST_HEAD(control_calls, control_call) clients;
    unsigned n_clients;
};

static void
client_free(struct control_call *c)
{
    if (c->cancel)
        c->cancel(c->cancel_arg);
    json_decref(c->request);
    LIST_REMOVE(c, link);
    c->socket->n_clients--;
    bufferevent_free(c->bev);
    free(c);
}

static void
write_line(struct control_call *c, json_t *object)
{
    char *line = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    static const char broken[] = "{\"ok\":false,\"error\":\"out of memory\"}";
    struct evbuffer *out = bufferevent_get_output(c->bev);
    evbuffer_add_printf(out, "%s\n", line ? line : broken);
    free(line);
}

static void
listen_on(struct control_call *c)
{
    if (!c->is_eof)
        bufferevent_enable(c->bev, EV_READ);
}

static void
finish(struct control_call *c, json_t *object)
{
    c->cancel = NULL;
    json_decref(c->request);
    c->request = NULL;
    write_line(c, object);
    listen_on(c);
}

void
control_answer(struct control_call *c, json_t *body)
{
    json_t *object = body ? json_pack("{s:b}", "ok", 1) : NULL;
    if (object && json_object_update(object, body)) {
        json_decref(object);
        object = NULL;
    }
    json_decref(body);
    finish(c, object);
}

static json_t *
refusal(const char *text)
{
    return json_pack("{s:b, s:o}", "ok", 0, "error", json_text_str(text));
}

void
control_refuse(struct control_call *c, const char *format, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    finish(c, refusal(text));
}

void
control_defer(struct control_call *c, void (*cancel)(void *arg), void *arg)
{
    assert(c->request && !c->cancel);
    c->cancel = cancel;
    c->cancel_arg = arg;
}

/* The request's command, with its args in *ARGS; NULL with a text in *FAULT. */
static const char *
read_request(json_t *request, const json_t **args, const char **fault)
{
    static const char malformed[] = "a request is {\"command\":NAME,\"args\":[TEXT,...]}";
    *fault = malformed;
    if (!json_object_get(request, "args"))
        json_object_set_new(request, "args", json_array());
    const char *command = json_string_value(json_object_get(request, "command"));
    *args = json_object_get(request, "args");
    if (!command || !json_is_array(*args))
        return NULL;
    for (size_t i = 0; i < json_array_size(*args); i++) {
        if (!json_is_string(json_array_get(*args, i)))
            return NULL;
    }
    return command;
}

static void
take_line(struct control_call *c, const char *line, size_t n)
{
    json_error_t error;
    json_t *request = json_loadb(line, n, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(request)) {
        json_decref(request);
        write_line(c, refusal("not a JSON object"));
        return;
    }
    const json_t *args;
    const char *fault;
    const char *command = read_request(request, &args, &fault);
    if (!command) {
        json_decref(request);
        write_line(c, refusal(fault));
        return;
    }
    c->request = request;
    c->socket->request(c->socket->arg, c, command, args);
}

/* Take the requests that have come, one at a time: the next one only when the answer before it has
 * been written, so a client that does not read holds one answer and no more. */
static void
pump(struct control_call *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    while (!c->request && !c->is_closing && !evbuffer_get_length(bufferevent_get_output(c->bev))) {
        struct evbuffer_ptr end = evbuffer_search(in, "\n", 1, NULL);
        if (end.pos >= CONTROL_LINE_MAX ||
            (end.pos < 0 && evbuffer_get_length(in) >= CONTROL_LINE_MAX)) {
            c->is_closing = true;
            bufferevent_disable(c->bev, EV_READ);
            write_line(c, refusal("request too long"));
            return;
        }
        if (end.pos < 0)
            return;
        char line[CONTROL_LINE_MAX];
        evbuffer_remove(in, line, (size_t)end.pos + 1);
        take_line(c, line, (size_t)end.pos);
    }
}

static void
on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    struct control_call *c = arg;
    if (evbuffer_get_length(bufferevent_get_output(c->bev)) ||
        (c->request && evbuffer_get_length(bufferevent_get_input(c->bev)) >= CONTROL_LINE_MAX))
        bufferevent_disable(c->bev, EV_READ); /* first it reads what it was told, or will be */
    else
        pump(c);
}

static void
on_written(struct bufferevent *bev, void *arg)
{
    struct control_call *c = arg;
    if (!c->request)
        listen_on(c);
    pump(c);
    if (!c->request && !evbuffer_get_length(bufferevent_get_output(bev)) &&
        (c->is_closing || c->is_eof))
        client_free(c);
}

/* Nobody is there any more who could read an answer. */
static bool
is_gone(const struct control_call *c)
{
    struct pollfd fd = {.fd = bufferevent_getfd(c->bev)};
    return poll(&fd, 1, 0) == 1 && fd.revents & POLLHUP;
}

static void
on_end(struct bufferevent *bev, short what, void *arg)
{
    struct control_call *c = arg;
    if (what == (BEV_EVENT_TIMEOUT | BEV_EVENT_READING) && c->request) {
        listen_on(c); /* it waits, and is not idle */
        return;
    }
    c->is_eof = what & BEV_EVENT_EOF;
    /* One that only ended its own side, as `nc -N` does, still gets its answers. */
    if (c->is_eof && !(c->request && is_gone(c))) {
        pump(c);
        if (c->request || evbuffer_get_length(bufferevent_get_output(bev)))
            return;
    }
    client_free(c);
}

/* Who has ended its own side is not heard going away: it keeps no place from others. */
static void
free_gone(struct control_socket *s)
{
    for (struct control_call *c = LIST_FIRST(&s->clients), *next; c; c = next) {
        next = LIST_NEXT(c, link);
        if (c->is_eof && is_gone(c))
            client_free(c);
    }
}

static void
turn_away(int fd)
{
    static const char text[] = "{\"ok\":false,\"error\":\"too many control connections\"}\n";
    (void)!send(fd, text, sizeof text - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
}

static void
on_accept(void *arg, int fd)
{
    struct control_socket *s = arg;
    if (s->n_clients == CONTROL_CLIENTS_MAX)
        free_gone(s);
    if (s->n_clients == CONTROL_CLIENTS_MAX) {
        turn_away(fd);
        return;
    }
    struct control_call *c = calloc(1, sizeof *c);
    if (c)
        c->bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!c || !c->bev) {
        free(c);
        close(fd);
        return;
    }
    c->socket = s;
    LIST_INSERT_HEAD(&s->clients, c, link);
    s->n_clients++;
    bufferevent_setcb(c->bev, on_read, on_written, on_end, c);
    bufferevent_set_timeouts(c->bev, &(struct timeval){.tv_sec = IDLE_S},
                             &(struct timeval){.tv_sec = WRITE_S});
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

/* A socket file that a killed daemon left is taken away; one that is served is not. */
static int
clear_way(const struct sockaddr_un *address, struct err *e)
{
    struct stat st;
    if (lstat(address->sun_path, &st) == -1)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return err_set(e, ERR_SYSTEM, "%s is there and is no socket", address->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1)
        return err_errno(e, ERR_SYSTEM, errno, "socket");
    int rc = connect(fd, (const struct sockaddr *)address, sizeof *address);
    int errnum = errno;
    close(fd);
    if (rc == 0 || errnum != ECONNREFUSED)
        return err_set(e, ERR_SYSTEM, "%s is in use by another process", address->sun_path);
    if (unlink(address->sun_path) == -1 && errno != ENOENT)
        return err_errno(e, ERR_SYSTEM, errno, "remove %s", address->sun_path);
    return 0;
}

/* The bound, listening descriptor, or -1. */
static int
bind_socket(struct control_socket *s, const struct passwd *owner, struct err *e)
{
    const char *path = s->address.sun_path;
    if (clear_way(&s->address, e) == -1)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1)
        return err_errno(e, ERR_SYSTEM, errno, "socket");
    struct stat st;
    /* The mode is set before the name is there, so that it is never open to others; umask is the
     * whole process's and not touched. */
    if (fchmod(fd, 0600) == -1 ||
        bind(fd, (const struct sockaddr *)&s->address, sizeof s->address) == -1) {
        err_errno(e, ERR_SYSTEM, errno, "bind %s", path);
    } else if (owner && geteuid() == 0 && lchown(path, owner->pw_uid, owner->pw_gid) == -1) {
        err_errno(e, ERR_SYSTEM, errno, "give %s to %s", path, owner->pw_name);
    } else if (lstat(path, &st) == -1 || (st.st_mode & 0177) != 0) {
        err_set(e, ERR_SYSTEM, "%s cannot be kept from others", path);
    } else if (listen(fd, CONTROL_CLIENTS_MAX) == -1) {
        err_errno(e, ERR_SYSTEM, errno, "listen on %s", path);
    } else {
        s->dev = st.st_dev;
        s->ino = st.st_ino;
        return fd;
    }
    close(fd);
    return -1;
}

struct control_socket *
control_socket_new(struct event_base *base, const char *path, const struct passwd *owner,
                   control_request_fn *request, void *arg, struct err *e)
{
    struct control_socket *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    LIST_INIT(&s->clients);
    s->base = base;
    s->request = request;
    s->arg = arg;
    s->address.sun_family = AF_UNIX;
    if (!span_copy(s->address.sun_path, sizeof s->address.sun_path, span_str(path))) {
        err_set(e, ERR_CONFIG, "%s is too long for a socket's path", path);
        free(s);
        return NULL;
    }
    int fd = bind_socket(s, owner, e);
    if (fd == -1) {
        free(s);
        return NULL;
    }
    s->acceptor = acceptor_new(base, fd, on_accept, s);
    if (!s->acceptor) {
        err_set(e, ERR_SYSTEM, "out of memory");
        close(fd);
        control_socket_free(&s);
        return NULL;
    }
    return s;
}

/* What the kernel takes at once of an answer: that to `drain` may come as late as this.  A
 * bufferevent does not let its output be written by others, only be looked at. */
static void
send_rest(struct control_call *c)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    size_t n = evbuffer_get_length(out);
    if (n)
        (void)!send(bufferevent_getfd(c->bev), evbuffer_pullup(out, -1), n,
                    MSG_DONTWAIT | MSG_NOSIGNAL);
}

void
control_socket_free(struct control_socket **ps)
{
    struct control_socket *s = *ps;
    if (!s)
        return;
    *ps = NULL;
    for (struct control_call *c = LIST_FIRST(&s->clients), *next; c; c = next) {
        next = LIST_NEXT(c, link);
        send_rest(c);
        client_free(c);
    }
    acceptor_free(&s->acceptor);
    struct stat st;
    if (lstat(s->address.sun_path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
        unlink(s->address.sun_path);
    free(s);
}
