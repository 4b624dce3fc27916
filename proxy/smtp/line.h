#ifndef PROXY_SMTP_LINE_H
#define PROXY_SMTP_LINE_H

#include "base/span.h"

/* Framing of command lines (RFC 5321 2.3.8): only CRLF ends a line. Pure. */

#define SMTP_COMMAND_MAX 4096 /* octets with CRLF; RFC 5321 4.5.3.1.4 asks for 512 */

enum smtp_line_status {
    SMTP_LINE_MORE,     /* no end yet; nothing is used */
    SMTP_LINE_OK,       /* *LINE without its CRLF; *USED with it */
    SMTP_LINE_TOO_LONG, /* LIMIT octets and no CRLF among them; *USED is 0: smtp_line_skip goes on
                         */
    SMTP_LINE_BARE      /* a CR or LF that is not part of CRLF, or a NUL; *USED is 0 */
};

/* Look for a line at the start of IN.  What is wrong is told as soon as it is certain, also of a
 * line whose end is not there yet; a CR that is IN's last octet is not.  The first LIMIT octets
 * decide: what stands behind them changes nothing, so any split of the input gives the same answer.
 * *LINE points into IN. */
enum smtp_line_status smtp_line_next(struct span in, size_t limit, struct span *line, size_t *used);

/* Drop an over-long line, from its start: *USED octets may be dropped; true when its CRLF was among
 * them.  Whatever else stands in it is dropped too.  A CR that is IN's last octet is not used until
 * what follows is known. */
bool smtp_line_skip(struct span in, size_t *used);

#endif
