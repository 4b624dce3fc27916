#ifndef PROXY_SMTP_REPLY_H
#define PROXY_SMTP_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

/* Replies (RFC 5321 4.2, RFC 2034, RFC 3463): ours by id, the downstream's parsed. Pure. */

enum smtp_reply_id {
    SMTP_REPLY_NONE,
#define SMTP_REPLY(id, code, enhanced, text) SMTP_REPLY_##id,
#include "proxy/smtp/reply.def"
#undef SMTP_REPLY
    SMTP_REPLY_COUNT
};

#define SMTP_REPLY_TEXT 512  /* what is kept of a reply's text */
#define SMTP_REPLY_LINE 1024 /* room for one reply line of ours, CRLF included */

/* A reply as a value: from the downstream, or ours. */
struct smtp_reply {
    uint16_t code;     /* 200..599; 0: none */
    char enhanced[12]; /* "5.1.1", or empty */
    char text[SMTP_REPLY_TEXT]; /* lines joined by '\n', codes cut off, cut at the size; printable ASCII
                                   and UTF-8, other octets replaced by '?'; NUL-terminated */
};

uint16_t smtp_reply_code(enum smtp_reply_id id);
const char *smtp_reply_enhanced(enum smtp_reply_id id);
/* "550 5.1.1 <a@b>: ...\r\n" into OUT; ARGUMENT replaces %s (NULL: empty) and is cut so that the line
 * fits; control characters in it become '?'.  Returns the length. */
size_t smtp_reply_format(enum smtp_reply_id id, const char *argument, char out[SMTP_REPLY_LINE]);
/* One of ours as a value. */
struct smtp_reply smtp_reply_make(enum smtp_reply_id id, const char *argument);
/* A reply value as octets for the client: one line per line of text, each with code and enhanced
 * code.  Returns the length; cut at whole lines when CAPACITY is short. */
size_t smtp_reply_write(const struct smtp_reply *r, char *out, size_t capacity);

/* Reader of the downstream's replies.  Zeroed, it is at the start of a reply. */
#define SMTP_REPLY_READ_LINE_MAX 4096  /* a longer line is BAD */
#define SMTP_REPLY_READ_LINES_MAX 128  /* more lines are BAD */
struct smtp_reply_reader {
    unsigned lines;
    size_t n; /* of text gathered */
    struct smtp_reply reply;
};
enum smtp_reply_status { SMTP_REPLY_MORE, SMTP_REPLY_DONE, SMTP_REPLY_BAD };

/* Take one reply from the start of IN, line by line: *USED octets are consumed, also with MORE.  DONE:
 * reader->reply is whole and the reader is reset for the next.  BAD: not SMTP (codes that differ
 * between lines, no digit, too long, NUL...): the connection is of no more use.  A line may end with
 * CRLF or a bare LF (nothing of a reply is ever passed on unparsed). EHLO replies: raise the text limit by
 * parsing capabilities line by line with smtp_reply_reader's caller, see ehlo.  */
enum smtp_reply_status smtp_reply_read(struct smtp_reply_reader *reader, struct span in, size_t *used);

/* The text that a client may see of a downstream's reply: parts like [name=...] or [Hostname=...],
 * host names (a word with two labels or more that is no part of <address>), IP addresses, and what
 * follows RESOLVER/PRX-style tokens' host parts removed; collapsed blanks; never empty. */
void smtp_reply_clean(struct smtp_reply *r);

#endif
