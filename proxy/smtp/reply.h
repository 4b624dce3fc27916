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

#define SMTP_REPLY_TEXT 512  /* what a value keeps of a reply's text, NUL included */
#define SMTP_REPLY_LINE 1024 /* room for one reply line of ours, CRLF and NUL included */

/* A reply as a value: from the downstream, or ours. */
struct smtp_reply {
    uint16_t code;              /* 200..599; 0: none */
    char enhanced[12];          /* "5.1.1", or empty */
    char text[SMTP_REPLY_TEXT]; /* lines joined by '\n', codes and enhanced codes cut off, cut at
                                   the size between characters; printable ASCII and UTF-8, '?' for
                                   any other octet; NUL-terminated */
};

uint16_t smtp_reply_code(enum smtp_reply_id id);        /* 0 of SMTP_REPLY_NONE */
const char *smtp_reply_enhanced(enum smtp_reply_id id); /* empty if it has none */

/* "550 5.1.1 <a@b>: ...\r\n" into OUT, NUL-terminated.  ARGUMENT replaces %s (NULL: empty); it is
 * cut so that the line fits, what is not printable in it becomes '?'.  Returns the length. */
size_t smtp_reply_format(enum smtp_reply_id id, const char *argument, char out[SMTP_REPLY_LINE]);
/* One of ours as a value. */
struct smtp_reply smtp_reply_make(enum smtp_reply_id id, const char *argument);
/* A reply value as octets for the client: one line for each line of text, with code and enhanced
 * code. Returns the length, no NUL is written; lines that do not fit into CAPACITY are left out,
 * and SMTP_REPLY_LINE always has room for the first. */
size_t smtp_reply_write(const struct smtp_reply *r, char *out, size_t capacity);

/* Reader of the downstream's replies.  Zeroed, it is at the start of a reply. */
#define SMTP_REPLY_READ_LINE_MAX  4096 /* octets with the line's end; a longer line is BAD */
#define SMTP_REPLY_READ_LINES_MAX 128  /* more lines are BAD */
#define SMTP_REPLY_READ_TEXT      4096
struct smtp_reply_reader {
    unsigned lines;          /* of the reply so far; 0: at the start of one */
    size_t n;                /* of text */
    bool is_full;            /* a line did not fit into text */
    struct smtp_reply reply; /* whole when smtp_reply_read says DONE, until it is called again */
    char text[SMTP_REPLY_READ_TEXT]; /* as reply.text, but this much of it, for EHLO; no NUL.  From
                                        the first line on that does not fit, lines are left out
                                        whole: no capability is cut in two */
};
enum smtp_reply_status { SMTP_REPLY_MORE, SMTP_REPLY_DONE, SMTP_REPLY_BAD };

/* Take one reply from the start of IN, line by line: *USED octets are consumed, also with MORE.
 * DONE: reader->reply is whole, and the next call begins the next reply.  BAD: not SMTP (a line
 * that does not begin with three digits from 200 to 599 and a blank, '-' or its end, codes that
 * differ between lines, too long, NUL): the connection is of no more use.  A line may end with CRLF
 * or a bare LF, as nothing of a reply is ever passed on unparsed.  An enhanced code counts where
 * its class is the code's, and the first line that has one gives the reply's. */
enum smtp_reply_status smtp_reply_read(struct smtp_reply_reader *reader, struct span in,
                                       size_t *used);
/* The text of the reply that smtp_reply_read has just called DONE, for smtp_capabilities_parse. */
struct span smtp_reply_reader_text(const struct smtp_reply_reader *reader);

/* Reduce the text of a downstream's reply to what a client may see, in place.  Removed are
 * "[name=...]" parts, URLs, mail addresses, IP addresses, and host names, which are words of two
 * labels or more whose last one begins with a letter.  Exchange's names of causes, such as
 * RESOLVER.ADR.RecipientNotFound, look like host names and stay.  Blanks, brackets and punctuation
 * left alone go too.  Where no word is left, the text says what the code's class means. */
void smtp_reply_clean(struct smtp_reply *r);
/* The downstream's refusal R as the client may hear it: its 421 as 451 (the client's connection
 * goes on), cleaned, with an enhanced code; an answer out of turn, below 400, as 451 4.4.1. */
struct smtp_reply smtp_reply_passed_on(const struct smtp_reply *r);

#endif
