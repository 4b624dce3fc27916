#ifndef PROXY_RELAY_CONTENT_H
#define PROXY_RELAY_CONTENT_H

#include "proxy/relay/message.h"
#include "proxy/smtp/data_scan.h"
#include "proxy/stream.h"

/* The content of a held message on its way to the downstream: as one chunk of BDAT (RFC 3030),
 * without a copy, or as DATA with its dots stuffed, then the end of data.  Written as far as
 * the kernel takes it.  Zeroed to begin. */

struct content {
    struct stream *stream;
    struct message *message;
    struct message_reader reader;
    bool is_chunk;
    /* of DATA */
    struct dot_stuff dots;
    char *stuffed; /* as it goes out, from `sent` to `n` */
    size_t sent, n;
    char last[2]; /* octets of it, for the CRLF before the final dot */
    bool has_end; /* it ends with the end of data */
};

enum content_status {
    CONTENT_WRITTEN, /* to its last octet, the end of data included */
    CONTENT_BLOCKED, /* the kernel takes no more: call content_write on the stream's `drained` */
    CONTENT_WAIT,    /* for the spool: call content_write after content_block */
    CONTENT_FAILED   /* it cannot be read back, or memory is out */
};

/* Begin after a 354, or, IS_CHUNK, with the BDAT command itself.  Then call content_write. */
void content_start(struct content *c, struct stream *stream, struct message *m, bool is_chunk);
enum content_status content_write(struct content *c);
/* After the last write, whatever its result. */
void content_end(struct content *c);
/* The spool's answer (message.h). */
void content_block(struct content *c, bool is_ok, const char *data, size_t n);

#endif
