#ifndef PROXY_SMTP_DATA_SCAN_H
#define PROXY_SMTP_DATA_SCAN_H

#include "base/span.h"

/* The scanner of DATA (RFC 5321 4.5.2): un-stuffs dots, finds the end, sees bare CR and LF. Pure.
 * Only CRLF.CRLF ends data (the CRLF that ended the DATA command counts as the first).  Any split of
 * the input gives the same content. */

/* Zeroed, it stands at the start of a line, as after 354. */
struct data_scan {
    unsigned char state;
};

enum data_piece_kind {
    DATA_PIECE_MORE, /* IN is used up (n is 0) */
    DATA_PIECE_KEEP, /* n octets are content */
    DATA_PIECE_DROP, /* n octets are framing: a stuffed dot, or octets held back that come as TEXT later */
    DATA_PIECE_TEXT, /* use n octets of IN (may be 0), whose content is TEXT: e.g. a CR held back at the end
                        of the last input, or CRLF in place of a bare CR or LF (then is_bare is true) */
    DATA_PIECE_END   /* n octets are the rest of the end of data; what follows is the next command */
};

struct data_piece {
    enum data_piece_kind kind;
    bool is_bare; /* a CR or LF that was no part of CRLF: normalized here, refused if the settings say so */
    size_t n;
    struct span text; /* of TEXT: static storage */
};

/* The next piece at the start of IN.  The caller drops the n octets and calls again with the rest,
 * until MORE or END.  Long runs of clean lines come as one KEEP. */
struct data_piece data_scan_next(struct data_scan *scan, struct span in);

/* The other way: dot-stuffing for a downstream without CHUNKING.  Whole content in any split. */
struct dot_stuff {
    bool in_line; /* zeroed: at the start of a line */
};
/* How much of IN may be sent as it is; *NEED_DOT says that a '.' must be sent before the rest. */
size_t dot_stuff_next(struct dot_stuff *stuff, struct span in, bool *need_dot);

#endif
