#define _GNU_SOURCE /* POLLRDHUP */
#include "proxy/stream.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event_struct.h>
#include <openssl/err.h>

#include "proxy/tls_output.h"

/* One turn of the loop takes at most this much from one stream, so that a fast peer shares. Content
 * of bare newlines takes a millisecond. */
#define TURN_BUDGET STREAM_SCRATCH
/* A TLS record's payload; output in TLS is cut to this. */
#define TLS_RECORD 16384u

enum tls_state { TLS_NONE, TLS_WAITS_FLUSH, TLS_HANDSHAKE, TLS_OPEN };

struct buffer {
    char *p;
    size_t start, end, capacity;
};

struct stream {
    const struct stream_loop *loop;
    const struct stream_events *events;
    void *owner;
    SSL *ssl;
    struct event *write_event; /* made when first needed */
    struct buffer in, out;
    int fd;
    enum tls_state tls;
    unsigned depth; /* of callbacks we are inside of: freeing is put off */
    bool tls_is_server;
    bool is_paused;
    bool is_discarding;
    bool is_read_armed;
    bool is_write_armed;
    bool wants_shutdown;
    bool send_was_short; /* stream_send owes the owner a `drained` */
    bool has_ended;      /* `ended` was called, or need not be any more */
    bool has_read;       /* within this call of OpenSSL's */
    bool is_yielding;    /* what is kept comes first, in the next turn */
    bool is_dead;
    struct event read_event;
};

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);

static size_t
buffer_length(const struct buffer *b)
{
    return b->end - b->start;
}

static void
buffer_clear(struct buffer *b)
{
    free(b->p);
    memset(b, 0, sizeof(*b));
}

static bool
buffer_append(struct buffer *b, const void *p, size_t n)
{
    if (n == 0)
        return true;
    if (b->p != NULL && b->capacity - b->end < n && b->start > 0) {
        memmove(b->p, b->p + b->start, buffer_length(b));
        b->end -= b->start;
        b->start = 0;
    }
    if (b->capacity - b->end < n) {
        size_t capacity = b->capacity == 0 ? 256 : b->capacity;
        while (capacity - b->end < n)
            capacity *= 2;
        char *grown = realloc(b->p, capacity);
        if (grown == NULL)
            return false;
        b->p = grown;
        b->capacity = capacity;
    }
    assert(b->p != NULL); /* room for N, which is not 0 */
    memcpy(b->p + b->end, p, n);
    b->end += n;
    return true;
}

static void
buffer_drop(struct buffer *b, size_t n)
{
    b->start += n;
    if (b->start == b->end)
        buffer_clear(b);
}

static void
stream_destroy(struct stream *s)
{
    if (s->ssl != NULL) {
        if (s->tls == TLS_OPEN && !s->has_ended)
            (void)SSL_shutdown(s->ssl);
        ERR_clear_error();
        SSL_free(s->ssl);
    }
    event_del(&s->read_event);
    if (s->write_event != NULL)
        event_free(s->write_event);
    close(s->fd);
    buffer_clear(&s->in);
    buffer_clear(&s->out);
    free(s);
}

struct stream *
stream_new(const struct stream_loop *loop, int fd, const struct stream_events *events, void *owner)
{
    struct stream *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->loop = loop;
    s->fd = fd;
    s->events = events;
    s->owner = owner;
    if (event_assign(&s->read_event, loop->base, fd, EV_READ | EV_PERSIST, on_readable, s) != 0 ||
        event_add(&s->read_event, NULL) != 0) {
        free(s);
        return NULL;
    }
    s->is_read_armed = true;
    return s;
}

void
stream_free(struct stream **sp)
{
    struct stream *s = *sp;

    if (s == NULL)
        return;
    *sp = NULL;
    s->is_dead = true;
    if (s->depth == 0)
        stream_destroy(s);
}

/* Callbacks run between enter and leave; leave is false when the owner freed the stream meanwhile.
 */
static void
enter(struct stream *s)
{
    s->depth++;
}

static bool
leave(struct stream *s)
{
    s->depth--;
    if (!s->is_dead)
        return true;
    if (s->depth == 0)
        stream_destroy(s);
    return false;
}

static void
arm_read(struct stream *s, bool on)
{
    if (s->is_read_armed == on)
        return;
    s->is_read_armed = on;
    if (on)
        event_add(&s->read_event, NULL);
    else
        event_del(&s->read_event);
}

static void
arm_write(struct stream *s, bool on)
{
    if (s->is_write_armed == on)
        return;
    if (s->write_event == NULL) {
        s->write_event = event_new(s->loop->base, s->fd, EV_WRITE | EV_PERSIST, on_writable, s);
        if (s->write_event == NULL)
            return; /* memory is out: the owner's timer ends it */
    }
    s->is_write_armed = on;
    if (on)
        event_add(s->write_event, NULL);
    else
        event_del(s->write_event);
}

/* Report the end of input, once; reading stops.  False when the owner freed the stream. */
static bool
tell_end(struct stream *s, enum stream_end end)
{
    arm_read(s, false);
    arm_write(s, false);
    if (s->has_ended)
        return true;
    s->has_ended = true;
    enter(s);
    s->events->ended(s->owner, end);
    return leave(s);
}

/* Write from P: > 0 taken, 0 the kernel takes no more now, -1 the connection is gone. */
static ssize_t
transport_write(struct stream *s, const char *p, size_t n)
{
    if (s->tls != TLS_OPEN) {
        /* What shutdown follows at once goes out with the end, in one packet. */
        ssize_t done = send(s->fd, p, n, MSG_NOSIGNAL | (s->wants_shutdown ? MSG_MORE : 0));
        if (done >= 0)
            return done;
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
    size_t done = 0;
    ERR_clear_error();
    if (SSL_write_ex(s->ssl, p, n < TLS_RECORD ? n : TLS_RECORD, &done) == 1)
        return (ssize_t)done;
    int error = SSL_get_error(s->ssl, 0);
    return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? 0 : -1;
}

static void
finish_shutdown(struct stream *s)
{
    s->wants_shutdown = false;
    if (s->tls == TLS_OPEN) {
        (void)SSL_shutdown(s->ssl);
        ERR_clear_error();
    }
    shutdown(s->fd, SHUT_WR);
}

/* Write the gathered output. True when none is left. */
static bool
flush_output(struct stream *s)
{
    if (s->tls == TLS_OPEN && !tls_output_flush(SSL_get_wbio(s->ssl))) {
        arm_write(s, true);
        return false;
    }
    while (buffer_length(&s->out) > 0) {
        ssize_t n = transport_write(s, s->out.p + s->out.start, buffer_length(&s->out));
        if (n < 0) {
            /* Reading tells the owner in the next turn; what is written now is lost anyway. */
            buffer_clear(&s->out);
            arm_write(s, false);
            return true;
        }
        if (n == 0) {
            arm_write(s, true);
            return false;
        }
        buffer_drop(&s->out, (size_t)n);
    }
    if (s->wants_shutdown)
        finish_shutdown(s);
    if (!s->send_was_short)
        arm_write(s, false);
    return true;
}

bool
stream_write(struct stream *s, const void *p, size_t n)
{
    return buffer_append(&s->out, p, n);
}

void
stream_flush(struct stream *s)
{
    if (s->tls != TLS_HANDSHAKE && !s->is_write_armed)
        flush_output(s);
}

size_t
stream_pending(const struct stream *s)
{
    return buffer_length(&s->out) +
           (s->tls == TLS_OPEN ? tls_output_pending(SSL_get_wbio(s->ssl)) : 0);
}

/* As far as the kernel takes them; in TLS, a record at a time. */
static size_t
send_records(struct stream *s, const struct iovec *iov, int n)
{
    size_t total = 0;

    for (int i = 0; i < n; i++) {
        size_t offset = 0;
        while (offset < iov[i].iov_len) {
            ssize_t done =
                transport_write(s, (const char *)iov[i].iov_base + offset, iov[i].iov_len - offset);
            if (done <= 0)
                return total;
            offset += (size_t)done;
            total += (size_t)done;
        }
    }
    return total;
}

static void
set_cork(const struct stream *s, int on)
{
    setsockopt(s->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

size_t
stream_send(struct stream *s, const struct iovec *iov, int n)
{
    size_t total = 0, wanted = 0;

    for (int i = 0; i < n; i++)
        wanted += iov[i].iov_len;
    if (!s->is_write_armed && s->tls == TLS_NONE && s->out.p == NULL) {
        struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov,
                                 .msg_iovlen = (size_t)n};
        ssize_t done = sendmsg(s->fd, &message, MSG_NOSIGNAL);
        if (done > 0)
            total = (size_t)done;
    } else if (s->tls != TLS_HANDSHAKE && !s->is_write_armed && flush_output(s)) {
        if (s->tls == TLS_OPEN && wanted > TLS_RECORD)
            tls_output_gather(SSL_get_wbio(s->ssl));
        total = send_records(s, iov, n);
        s->send_was_short = !flush_output(s); /* what is kept was taken, but `drained` is owed */
    }
    /* Also when the connection is gone, which reading tells: the rest was not sent, so the end of
     * it must not be waited for. */
    if (total < wanted) {
        s->send_was_short = true;
        arm_write(s, true);
    }
    return total;
}

/* Offer what is kept and FRESH (which is in the loop's scratch) to the owner. False when the
 * stream was freed. */
static bool
offer(struct stream *s, const char *fresh, size_t n)
{
    struct buffer kept;
    struct span in = span_of(fresh, n);

    if (s->is_discarding)
        return true;
    if (buffer_length(&s->in) > 0 && !buffer_append(&s->in, fresh, n))
        return tell_end(s, STREAM_END_RESET);
    /* The owner has it now: it is neither kept still, nor can it be freed under him. */
    kept = s->in;
    memset(&s->in, 0, sizeof(s->in));
    if (kept.p != NULL)
        in = span_of(kept.p + kept.start, buffer_length(&kept));
    if (in.n == 0)
        return true;
    enter(s);
    size_t used = s->events->input(s->owner, in);
    bool is_there = leave(s);
    /* What came in the clear is nothing that a handshake may leave behind. */
    if (!is_there || s->is_discarding || s->tls == TLS_WAITS_FLUSH || s->tls == TLS_HANDSHAKE) {
        buffer_clear(&kept);
        if (!is_there)
            return false;
    } else if (kept.p != NULL) {
        s->in = kept;
        buffer_drop(&s->in, used);
    } else if (used < n && !buffer_append(&s->in, fresh + used, n - used)) {
        return tell_end(s, STREAM_END_RESET);
    }
    stream_flush(s);
    return true;
}

/* OpenSSL reads on until a record has content for us, and a peer may send others for ever:
 * KeyUpdates.  So it gets one read of the socket for each that it was asked for; after that
 * it is told that nothing more is there for now. */
static long
on_tls_socket(BIO *socket, int operation, const char *p, size_t n, int argi, long argl, int result,
              size_t *done)
{
    struct stream *s = (struct stream *)(void *)BIO_get_callback_arg(socket);

    (void)p;
    (void)n;
    (void)argi;
    (void)argl;
    (void)done;
    if (operation != BIO_CB_READ || s->tls != TLS_OPEN)
        return result;
    if (s->has_read) {
        BIO_set_retry_read(socket);
        return -1;
    }
    s->has_read = true;
    return result;
}

static bool
tls_read(struct stream *s, char *p, size_t capacity, size_t *n)
{
    ERR_clear_error();
    s->has_read = false;
    return SSL_read_ex(s->ssl, p, capacity, n) == 1;
}

/* Is there anything to read?  It stays. */
static bool
tls_peek(struct stream *s)
{
    char c;
    size_t n = 0;

    ERR_clear_error();
    s->has_read = false;
    return SSL_peek_ex(s->ssl, &c, 1, &n) == 1;
}

/* Why OpenSSL read nothing: false if there is just nothing now. */
static bool
tls_end(struct stream *s, enum stream_end *end)
{
    int error = SSL_get_error(s->ssl, 0);

    if (error == SSL_ERROR_WANT_WRITE) {
        /* It has something of its own to say, and the peer does not read. */
        arm_read(s, false);
        arm_write(s, true);
        return false;
    }
    if (error == SSL_ERROR_WANT_READ)
        return false;
    *end = STREAM_END_TLS;
    if (error == SSL_ERROR_ZERO_RETURN)
        *end = STREAM_END_EOF;
    else if (error == SSL_ERROR_SYSCALL)
        *end = STREAM_END_RESET;
    else if (ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        *end = STREAM_END_TRUNCATED;
    return true;
}

/* Read once. > 0 octets in scratch, 0 nothing now, -1 the end was reported (S may be gone). */
static ssize_t
transport_read(struct stream *s)
{
    if (s->tls == TLS_NONE || s->tls == TLS_WAITS_FLUSH) {
        ssize_t n = recv(s->fd, s->loop->scratch, STREAM_SCRATCH, 0);
        if (n > 0)
            return n;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        tell_end(s, n == 0 ? STREAM_END_EOF : STREAM_END_RESET);
        return -1;
    }
    size_t n = 0;
    if (tls_read(s, s->loop->scratch, STREAM_SCRATCH, &n))
        return (ssize_t)n;
    enum stream_end end;
    if (!tls_end(s, &end))
        return 0;
    tell_end(s, end);
    return -1;
}

/* Is the end of input all that there is to read? Nothing is consumed. */
static bool
is_gone(struct stream *s, enum stream_end *end)
{
    char c;

    if (s->tls == TLS_OPEN)
        return !tls_peek(s) && tls_end(s, end);
    ssize_t n = recv(s->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return false;
    *end = n == 0 ? STREAM_END_EOF : STREAM_END_RESET;
    return true;
}

static void
shake_hands(struct stream *s)
{
    ERR_clear_error();
    int done = SSL_do_handshake(s->ssl);
    if (done == 1) {
        s->tls = TLS_OPEN;
        SSL_set_default_read_buffer_len(s->ssl, STREAM_SCRATCH);
        arm_write(s, false);
        enter(s);
        s->events->secured(s->owner);
        if (!leave(s))
            return;
        stream_flush(s);
        /* Early application data may already be inside OpenSSL. */
        if (!s->is_paused && SSL_has_pending(s->ssl))
            event_active(&s->read_event, EV_READ, 0);
        return;
    }
    int error = SSL_get_error(s->ssl, done);
    if (error == SSL_ERROR_WANT_READ)
        arm_write(s, false);
    else if (error == SSL_ERROR_WANT_WRITE)
        arm_write(s, true);
    else
        tell_end(s, STREAM_END_TLS);
}

static void
read_turn(struct stream *s)
{
    size_t budget = TURN_BUDGET;

    while (!s->is_paused && s->tls != TLS_HANDSHAKE && s->tls != TLS_WAITS_FLUSH) {
        ssize_t n = transport_read(s);
        if (n <= 0)
            return;
        if (!offer(s, s->loop->scratch, (size_t)n))
            return;
        if (s->has_ended || s->is_yielding)
            return;
        /* A short read emptied the socket: spare the one that would say EAGAIN. */
        if (s->tls == TLS_NONE ? (size_t)n < STREAM_SCRATCH
                               : s->tls == TLS_OPEN && !SSL_has_pending(s->ssl))
            return;
        if (budget <= (size_t)n) {
            if (s->tls == TLS_OPEN && SSL_has_pending(s->ssl))
                event_active(&s->read_event, EV_READ, 0);
            return;
        }
        budget -= (size_t)n;
    }
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;

    (void)fd;
    (void)what;
    if (s->tls == TLS_HANDSHAKE) {
        shake_hands(s);
        return;
    }
    /* Paused: taking the event out only now spares two system calls for every short wait.  That
     * a peer is gone is reported at once, since there is nothing to wait for. */
    if (s->is_paused || s->tls == TLS_WAITS_FLUSH) {
        arm_read(s, false);
        enum stream_end end;
        if (s->is_paused && buffer_length(&s->in) == 0 && is_gone(s, &end))
            tell_end(s, end);
        return;
    }
    if (s->is_yielding) {
        s->is_yielding = false;
        if (!offer(s, NULL, 0) || s->has_ended || s->is_yielding)
            return;
    }
    read_turn(s);
}

static void
begin_handshake(struct stream *s)
{
    s->tls = TLS_HANDSHAKE;
    buffer_clear(&s->in);
    BIO *output = tls_output_new(s->fd);
    if (output == NULL || SSL_set_fd(s->ssl, s->fd) != 1) {
        BIO_free(output);
        tell_end(s, STREAM_END_TLS);
        return;
    }
    SSL_set0_wbio(s->ssl, output);
    BIO_set_callback_ex(SSL_get_rbio(s->ssl), on_tls_socket);
    BIO_set_callback_arg(SSL_get_rbio(s->ssl), (char *)s);
    if (s->tls_is_server)
        SSL_set_accept_state(s->ssl);
    else
        SSL_set_connect_state(s->ssl);
    arm_read(s, true);
    /* From the loop, never from inside the call that asked for it. */
    event_active(&s->read_event, EV_READ, 0);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;

    (void)fd;
    (void)what;
    if (s->tls == TLS_HANDSHAKE) {
        shake_hands(s);
        return;
    }
    s->is_write_armed = true;
    s->send_was_short = false;
    if (!flush_output(s))
        return;
    arm_write(s, false);
    if (s->tls == TLS_WAITS_FLUSH) {
        begin_handshake(s);
        return;
    }
    if (!s->is_paused && !s->has_ended)
        arm_read(s, true);
    enter(s);
    s->events->drained(s->owner);
    if (leave(s))
        stream_pump(s);
}

void
stream_pause(struct stream *s)
{
    s->is_paused = true;
}

void
stream_resume(struct stream *s)
{
    s->is_paused = false;
    if (!s->has_ended)
        arm_read(s, true);
}

void
stream_yield(struct stream *s)
{
    s->is_yielding = true;
    event_active(&s->read_event, EV_READ, 0);
}

void
stream_pump(struct stream *s)
{
    if (s->is_paused || s->depth > 0)
        return;
    if (buffer_length(&s->in) > 0 && !offer(s, NULL, 0))
        return;
    if (s->is_paused || s->has_ended)
        return;
    /* What OpenSSL has decrypted or buffered makes no descriptor readable. */
    if (s->tls == TLS_OPEN && SSL_has_pending(s->ssl))
        event_active(&s->read_event, EV_READ, 0);
}

bool
stream_has_input(struct stream *s)
{
    char c;

    if (s->tls == TLS_OPEN && SSL_has_pending(s->ssl))
        return true;
    return recv(s->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

bool
stream_is_quiet(struct stream *s)
{
    char c;

    if (buffer_length(&s->in) > 0)
        return false;
    if (s->tls == TLS_OPEN)
        return !tls_peek(s) && SSL_get_error(s->ssl, 0) == SSL_ERROR_WANT_READ;
    return recv(s->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

bool
stream_peer_has_ended(const struct stream *s)
{
    struct pollfd p = {.fd = s->fd, .events = POLLRDHUP};

    return poll(&p, 1, 0) > 0;
}

bool
stream_is_acknowledged(const struct stream *s)
{
    int n = 0;

    return stream_pending(s) == 0 && ioctl(s->fd, SIOCOUTQ, &n) == 0 && n == 0;
}

void
stream_start_tls(struct stream *s, SSL *ssl, bool is_server)
{
    s->ssl = ssl;
    s->tls_is_server = is_server;
    s->tls = TLS_WAITS_FLUSH;
    if (!s->is_write_armed && flush_output(s))
        begin_handshake(s);
}

SSL *
stream_ssl(const struct stream *s)
{
    return s->tls == TLS_OPEN ? s->ssl : NULL;
}

void
stream_shutdown(struct stream *s)
{
    /* The last octets, close_notify and the end go out in one packet: shutdown pushes it. */
    if (s->tls == TLS_OPEN)
        set_cork(s, 1);
    s->wants_shutdown = true;
    stream_flush(s);
}

void
stream_discard_input(struct stream *s)
{
    s->is_discarding = true;
    buffer_clear(&s->in);
    stream_resume(s);
}
