#include "proxy/relay/content.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Dots come singly or by the million: what they are put into goes out in pieces of this size. */
#define STUFFED 65536u

void
content_start(struct content *c, struct stream *stream, struct message *m, bool is_chunk)
{
    content_end(c);
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

static void
note_last(struct content *c, struct span added)
{
    if (added.n >= 2) {
        c->last[0] = added.p[added.n - 2];
        c->last[1] = added.p[added.n - 1];
    } else if (added.n == 1) {
        c->last[0] = c->last[1];
        c->last[1] = added.p[0];
    }
}

/* As much of the piece as there is room for, with its dots. Returns how much that is. */
static size_t
stuff(struct content *c, struct span piece)
{
    size_t total = 0, before = c->n;

    while (total < piece.n && c->n + 1 < STUFFED) {
        size_t room = STUFFED - c->n - 1, left = piece.n - total;
        bool need_dot = false;
        size_t n = dot_stuff_next(&c->dots, span_of(piece.p + total, left < room ? left : room),
                                  &need_dot);
        memcpy(c->stuffed + c->n, piece.p + total, n);
        c->n += n;
        total += n;
        if (need_dot)
            c->stuffed[c->n++] = '.';
    }
    note_last(c, span_of(c->stuffed + before, c->n - before));
    return total;
}

static void
stuff_pieces(struct content *c, const struct iovec *iov, int n)
{
    size_t total = 0;

    for (int i = 0; i < n; i++)
        total += stuff(c, span_of(iov[i].iov_base, iov[i].iov_len));
    message_reader_used(&c->reader, total);
}

/* False: there is no room yet. */
static bool
stuff_end(struct content *c)
{
    /* Content by DATA always ends with CRLF (RFC 5321 4.1.1.4); what a client gave us otherwise is
     * completed, since the final dot must stand on a line of its own. */
    bool has_crlf = c->last[0] == '\r' && c->last[1] == '\n';
    struct span end =
        span_str(has_crlf || message_wire_size(c->message) == 0 ? ".\r\n" : "\r\n.\r\n");

    if (STUFFED - c->n < end.n)
        return false;
    memcpy(c->stuffed + c->n, end.p, end.n);
    c->n += end.n;
    return true;
}

/* False when the kernel takes no more now. */
static bool
send_stuffed(struct content *c)
{
    struct iovec iov = {.iov_base = c->stuffed + c->sent, .iov_len = c->n - c->sent};

    if (iov.iov_len > 0)
        c->sent += stream_send(c->stream, &iov, 1);
    if (c->sent < c->n)
        return false;
    c->sent = c->n = 0;
    return true;
}

static enum content_status
write_stuffed(struct content *c)
{
    struct iovec iov[MESSAGE_IOV];
    int n = 0;

    if (c->stuffed == NULL && (c->stuffed = malloc(STUFFED)) == NULL)
        return CONTENT_FAILED;
    for (;;) {
        enum message_read status = message_reader_next(&c->reader, iov, &n);
        if (status == MESSAGE_READ_FAILED)
            return CONTENT_FAILED;
        if (status == MESSAGE_READ_DATA)
            stuff_pieces(c, iov, n);
        else if (status == MESSAGE_READ_END && !c->has_end)
            c->has_end = stuff_end(c);
        if (status == MESSAGE_READ_DATA && c->n + 1 < STUFFED)
            continue;
        if (!send_stuffed(c))
            return CONTENT_BLOCKED;
        if (status == MESSAGE_READ_WAIT)
            return CONTENT_WAIT;
        /* What is in the stream's own buffers is not written yet either. */
        if (c->has_end)
            return stream_pending(c->stream) == 0 ? CONTENT_WRITTEN : CONTENT_BLOCKED;
    }
}

/* False when the kernel takes no more now. */
static bool
send_pieces(struct content *c, const struct iovec *iov, int n)
{
    size_t wanted = 0;

    for (int i = 0; i < n; i++)
        wanted += iov[i].iov_len;
    size_t done = stream_send(c->stream, iov, n);
    message_reader_used(&c->reader, done);
    return done == wanted;
}

static enum content_status
write_chunk(struct content *c)
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
            /* What is in the stream's own buffers is not written yet either. */
            return stream_pending(c->stream) == 0 ? CONTENT_WRITTEN : CONTENT_BLOCKED;
        }
    }
}

enum content_status
content_write(struct content *c)
{
    return c->is_chunk ? write_chunk(c) : write_stuffed(c);
}

void
content_end(struct content *c)
{
    free(c->stuffed);
    memset(c, 0, sizeof(*c));
}

void
content_block(struct content *c, bool is_ok, const char *data, size_t n)
{
    message_reader_block(&c->reader, is_ok, data, n);
}
