#ifndef CONF_REFERENCE_H
#define CONF_REFERENCE_H

#include <stdio.h>

/* settings.def for people.  conf/postern.ini and the list of keys in docs/postern.ini.5 are kept as
 * written here: tests/unit/test_reference.c compares them, and `test_reference update` writes them
 * anew. */

/* The whole of postern.ini: every key with its default, but for a domain, hosts and servers to
 * start from. */
void reference_write_ini(FILE *out);
/* Every section and key, in mdoc(7), to stand in a manual page. */
void reference_write_manual(FILE *out);

#endif
