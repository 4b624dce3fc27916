#include "proxy/relay/content.h"

#include <stdio.h>
#include <string.h>

void
content_start(struct content *c, struct stream *stream, struct message *m, bool is_chunk)
{
    memset(c, 0, sizeof(*c));
    c->stream = stream;
    c->message = m;
    c->is_chunk = is_chunk;
    message_reader_start(&c->reader, m);
    if (!is_chunk)
        return;
    char line[64];
    struct iovec iov[MESSAGE_IOV + 1];
    int n = 0;
    size_t length = (size_t)snprintf(line, sizeof(line), "BDAT %llu LAST\r\n",
                                     (unsigned long long)message_wire_size(m));
    iov[0].iov_base = line;
    iov[0].iov_len = length;
    /* The command and a small message in one write. */
    size_t sent = 0;
    if (stream_pending(stream) == 0 &&
        message_reader_next(&c->reader, iov + 1, &n) == MESSAGE_READ_DATA) {
        sent = stream_send(stream, iov, n + 1);
        if (sent >= length) {
            message_reader_used(&c->reader, sent - length);
            return;
        }
    }
    /* When memory is out the octets are missing, and the reply never comes: the timer ends it. */
    (void)stream_write(stream, line + sent, length - sent);
    stream_flush(stream);
}

/* A piece with its dots stuffed; *USED of it went out.  False when the kernel takes no more. */
static bool
send_dotted(struct content *c, struct span piece, size_t *used)
{
    bool need_dot = false;

    *used = 0;
    while (piece.n > 0) {
        if (c->dot_pending) {
            struct iovec dot = {.iov_base = (char[]){'.'}, .iov_len = 1};
            if (stream_send(c->stream, &dot, 1) == 0)
                return false;
            c->dot_pending = false;
        }
        struct dot_stuff before = c->dots;
        size_t n = dot_stuff_next(&c->dots, piece, &need_dot);
        if (n > 0) {
            struct iovec run = {.iov_base = (char *)(uintptr_t)piece.p, .iov_len = n};
            size_t done = stream_send(c->stream, &run, 1);
            *used += done;
            if (done < n) {
                /* Scan the octets that went again, so that the state fits what is on the wire. */
                bool ignored;
                size_t scanned = 0;
                c->dots = before;
                while (scanned < done)
                    scanned += dot_stuff_next(&c->dots, span_of(piece.p + scanned, done - scanned),
                                              &ignored);
                return false;
            }
            piece.p += n;
            piece.n -= n;
        }
        c->dot_pending = need_dot;
    }
    return true;
}

static void
note_last(struct content *c, struct span sent)
{
    if (sent.n >= 2) {
        c->last[0] = sent.p[sent.n - 2];
        c->last[1] = sent.p[sent.n - 1];
    } else if (sent.n == 1) {
        c->last[0] = c->last[1];
        c->last[1] = sent.p[0];
    }
}

/* False when the kernel takes no more now. */
static bool
send_pieces(struct content *c, const struct iovec *iov, int n)
{
    if (c->is_chunk) {
        size_t wanted = 0;
        for (int i = 0; i < n; i++)
            wanted += iov[i].iov_len;
        size_t done = stream_send(c->stream, iov, n);
        message_reader_used(&c->reader, done);
        return done == wanted;
    }
    for (int i = 0; i < n; i++) {
        struct span piece = span_of(iov[i].iov_base, iov[i].iov_len);
        size_t used = 0;
        bool is_done = send_dotted(c, piece, &used);
        note_last(c, span_of(piece.p, used));
        message_reader_used(&c->reader, used);
        if (!is_done)
            return false;
    }
    return true;
}

static bool
send_tail(struct content *c)
{
    if (c->tail == NULL) {
        /* Content by DATA always ends with CRLF (RFC 5321 4.1.1.4); what a client gave us otherwise
         * is completed, since the final dot must stand on a line of its own. */
        bool has_crlf = c->last[0] == '\r' && c->last[1] == '\n';
        c->tail = has_crlf || message_wire_size(c->message) == 0 ? ".\r\n" : "\r\n.\r\n";
    }
    struct iovec iov = {.iov_base = (char *)(uintptr_t)c->tail, .iov_len = strlen(c->tail)};
    c->tail += stream_send(c->stream, &iov, 1);
    return *c->tail == '\0';
}

enum content_status
content_write(struct content *c)
{
    struct iovec iov[MESSAGE_IOV];
    int n = 0;

    for (;;) {
        switch (message_reader_next(&c->reader, iov, &n)) {
        case MESSAGE_READ_DATA:
            if (!send_pieces(c, iov, n))
                return CONTENT_BLOCKED;
            break;
        case MESSAGE_READ_WAIT:
            return CONTENT_WAIT;
        case MESSAGE_READ_FAILED:
            return CONTENT_FAILED;
        case MESSAGE_READ_END:
            /* What stands before it in the stream's own buffer is not out yet either. */
            if (c->is_chunk)
                return stream_pending(c->stream) == 0 ? CONTENT_WRITTEN : CONTENT_BLOCKED;
            return send_tail(c) ? CONTENT_WRITTEN : CONTENT_BLOCKED;
        }
    }
}

void
content_block(struct content *c, bool is_ok, const char *data, size_t n)
{
    message_reader_block(&c->reader, is_ok, data, n);
}
