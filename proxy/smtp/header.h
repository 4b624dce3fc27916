#ifndef PROXY_SMTP_HEADER_H
#define PROXY_SMTP_HEADER_H

#include <stdbool.h>

#include "base/span.h"

/* A message's header section (RFC 5322 2.2): where it ends, its fields, folded ones whole. Pure.
 * For reading, counting and removing, a CRLF, a bare LF and a bare CR each end a line. */

#define SMTP_HEADER_MAX (256u * 1024u + 2u) /* Exchange takes no more; with the empty line */

/* Finds the empty line that ends a header section in content of any split.  Zeroed to begin. */
struct header_end {
    unsigned char state;
    bool found;
};
/* Returns how many octets of IN belong to the header section, the empty line included; sets found,
 * and takes nothing more from then on.  A CR at the end of one piece and a LF at the start of the
 * next are one line end, so an empty line that is a piece's last CR is found only with the next
 * piece, which may contribute nothing.  A section that ends with the content has no empty line. */
size_t header_end_scan(struct header_end *end, struct span in);

struct header_field {
    struct span name;  /* without the blanks before the colon; empty: a line that is no field (junk,
                          no  colon, a folded line with nothing before it), to be kept as it is */
    struct span value; /* behind the colon, folding and line end included; empty for junk */
    struct span whole; /* name to the last line end */
};
/* Take the next field from *REST (the section as header_end found it), with the lines folded into
 * it.  False at the empty line or the end.  The name is looked for as the most lenient reader
 * would: a fold before the colon counts as blanks. */
bool header_next(struct span *rest, struct header_field *field);
bool header_name_is(const struct header_field *field, const char *name); /* case does not matter */
bool header_name_starts(const struct header_field *field, const char *prefix);

#endif
