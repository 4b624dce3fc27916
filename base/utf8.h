#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

/* UTF-8 (RFC 3629), as far as addresses, replies and header fields need it. Pure. */

/* The octets of the character at the start of IN, whose code goes to *CODE; 0 if there is none, or
 * none that is well-formed: overlong, a surrogate, over U+10FFFF, cut off. */
size_t utf8_next(struct span in, uint32_t *code);

/* As utf8_next, for text that is shown: 0 also for the control characters of ASCII and C1, and for
 * those of Unicode that break lines or turn their direction. */
size_t utf8_printable(struct span in);

/* How much of S fits into MAX octets without a character cut in two. */
size_t utf8_fit(struct span s, size_t max);

/* Lower case in place, length kept: ASCII, Latin, Greek, Cyrillic and Armenian, which are the
 * scripts with two cases that people's names are written in.  The few letters whose lower case has
 * another length (U+0130, U+1E9E) stay, as does what is no UTF-8.  No locale is asked: two machines
 * must agree on what address this is. */
void utf8_lower(char *p, size_t n);

#endif
