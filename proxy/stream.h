#ifndef PROXY_STREAM_H
#define PROXY_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include <event2/event.h>
#include <openssl/ssl.h>

#include "base/span.h"

/* A connected socket on one loop, in the clear or in TLS: both legs' transport.
 *
 * Why not a bufferevent: an idle one costs more than the session on top of it, every read asks
 * FIONREAD first, and its TLS filter has traps (facts of libevent 2.1).  Here input is read into a
 * buffer that the whole loop shares and handed over as a span; what the owner does not use is kept.
 * Output is gathered and written once at the end of a turn; nothing is held while it is empty.
 *
 * No function calls back before it returns, but for stream_pump, whose purpose it is. */

struct stream;

enum stream_end {
    STREAM_END_EOF,       /* the peer ended its side; in TLS with close_notify */
    STREAM_END_RESET,     /* an error of the socket */
    STREAM_END_TRUNCATED, /* TLS: the socket ended without close_notify */
    STREAM_END_TLS,       /* TLS: the handshake or the record layer failed */
};

/* The callbacks of the owner.  Any of them may call stream_free. */
struct stream_events {
    /* Octets have come.  Returns how many were used; the rest is kept and comes again in front of
     * what follows.  Not called while the stream is paused. */
    size_t (*input)(void *owner, struct span in);
    /* Output that had to wait has been handed to the kernel whole. */
    void (*drained)(void *owner);
    /* The TLS handshake is done. */
    void (*secured)(void *owner);
    /* No more input will come. */
    void (*ended)(void *owner, enum stream_end end);
};

/* What one loop's streams share. */
struct stream_loop {
    struct event_base *base;
    char *scratch; /* STREAM_SCRATCH octets */
};
#define STREAM_SCRATCH 65536u

/* Take over the nonblocking socket FD and read from it. NULL when memory is out (FD stays open). */
struct stream *stream_new(const struct stream_loop *loop, int fd,
                          const struct stream_events *events, void *owner);
/* Closes the socket; what is not yet written is lost.  In TLS a close_notify is tried.  Clears *S;
 * safe inside the stream's own callbacks. */
void stream_free(struct stream **s);

/* Append to the output; it is written by stream_flush, or by itself at the end of an input call.
 * false when memory is out: the stream is of no more use. */
bool stream_write(struct stream *s, const void *p, size_t n);
/* Hand the output to the kernel as far as it takes it; the rest follows by itself, then drained. */
void stream_flush(struct stream *s);
/* Octets of output that the kernel has not taken. */
size_t stream_pending(const struct stream *s);
/* Write these octets after the output, without a copy.  Returns how many were taken, which may be
 * fewer or 0: the caller comes back with the rest, the same octets, on `drained`. */
size_t stream_send(struct stream *s, const struct iovec *iov, int n);

/* Stop and start handing over input. Resuming does not call back: use stream_pump. */
void stream_pause(struct stream *s);
void stream_resume(struct stream *s);
/* Within an input call: what it does not use is offered in the loop's next turn, and nothing is
 * read before, so that others have theirs. */
void stream_yield(struct stream *s);
/* Offer what is kept (and, in TLS, what OpenSSL holds) to the owner now, if not paused. */
void stream_pump(struct stream *s);
/* Is there input in the socket (in TLS: ciphertext at least) that was not handed over yet? */
bool stream_has_input(struct stream *s);

/* Is the peer still there, and has it said nothing that was not handed over? */
bool stream_is_quiet(struct stream *s);
/* Has the peer ended its side (or the connection), though unread input may precede that? */
bool stream_peer_has_ended(const struct stream *s);
/* Has the peer's kernel all that we said? */
bool stream_is_acknowledged(const struct stream *s);

/* Begin TLS: as a server, or as a client (SSL has its host name set).  Takes SSL over.  Output that
 * waits is sent in the clear first.  Then secured or ended. */
void stream_start_tls(struct stream *s, SSL *ssl, bool is_server);
SSL *stream_ssl(const struct stream *s); /* NULL in the clear */
/* End our side after what was written: TLS close_notify, then shutdown(SHUT_WR). */
void stream_shutdown(struct stream *s);
/* Read and drop input from now on (bounded by the owner's timer), so that a last reply is not lost
 * to a reset.  `ended` still comes. */
void stream_discard_input(struct stream *s);

#endif
