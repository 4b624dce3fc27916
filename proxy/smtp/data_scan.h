#ifndef PROXY_SMTP_DATA_SCAN_H
#define PROXY_SMTP_DATA_SCAN_H

#include <stdbool.h>

#include "base/span.h"

/* The scanner of DATA (RFC 5321 4.5.2): un-stuffs dots, finds the end, sees bare CR and LF. Pure.
 *
 * Only CRLF begins a line of SMTP (the CRLF that ended the DATA command counts as the first), so
 * only CRLF.CRLF ends data.  A '.' that begins such a line and is not the end was stuffed and is
 * dropped, whatever follows it.  A bare CR or LF becomes CRLF in the content, but begins no line:
 * to the sender's framing the octets behind it are the middle of one, so a '.' there is content and
 * stays, and LF.CRLF ends nothing.  The content so made, in which every CR and LF is part of CRLF,
 * is one message by everybody's reading: sent by BDAT it is counted, sent by DATA each of its lines
 * that begins with '.', also one behind a bare LF, is stuffed anew.  Any split of the input gives
 * the same content. */

/* Zeroed, it stands at the start of a line, as after 354. */
struct data_scan {
    unsigned char state;
};

enum data_piece_kind {
    DATA_PIECE_MORE, /* IN is used up (n is 0) */
    DATA_PIECE_KEEP, /* n octets are content */
    DATA_PIECE_DROP, /* n octets are framing, or a CR held back until what follows is known */
    DATA_PIECE_TEXT, /* use n octets of IN (may be 0), whose content is TEXT: CRLF, in place of a
                        bare CR or LF, or with a CR that was held back */
    DATA_PIECE_END /* n octets are the rest of the end of data; what follows is the next command */
};

struct data_piece {
    enum data_piece_kind kind;
    bool is_bare; /* of TEXT: a CR or LF that was no part of CRLF: normalized here, refused if the
                     settings say so */
    size_t n;
    struct span text; /* of TEXT: static storage */
};

/* The next piece at the start of IN.  The caller drops the n octets and calls again with the rest,
 * until MORE or END; the scan is then at its start again for END.  Runs of clean lines come as one
 * KEEP. */
struct data_piece data_scan_next(struct data_scan *scan, struct span in);

/* The other way: dot-stuffing for a downstream without CHUNKING.  Zeroed, it stands at the start of
 * a line.  Every LF begins a line here: content that came by DATA has none that is bare, and of any
 * other it is the safe reading. */
struct dot_stuff {
    bool in_line; /* at the end of the content: a CRLF must come before the final ".CRLF" */
};

/* How much of IN may be sent as it is, in any split of the content; *NEED_DOT says that a '.' must
 * be sent before the rest (call again with it). */
size_t dot_stuff_next(struct dot_stuff *stuff, struct span in, bool *need_dot);

#endif
