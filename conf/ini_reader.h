#ifndef CONF_INI_READER_H
#define CONF_INI_READER_H

#include <stdio.h>

#include "conf/settings.h"

/* Reads an INI file with inih, without its traps: inih 55 cuts lines at 199 octets and names of
 * sections at 49, silently, and takes an indented line for a continuation.  Here lines have up to
 * INI_READER_LINE_MAX octets and come whole, indentation means nothing, a section's name is
 * whole, and every line that is neither section, key nor comment is a fault with its number.
 * Comments are lines that begin with ; or #, and what follows a blank and ; in a line. */

#define INI_READER_LINE_MAX 4096

struct ini_events {
    /* [NAME] stands at LINE. */
    void (*section)(void *arg, unsigned line, const char *name);
    /* KEY = VALUE, blanks around both cut. */
    void (*key)(void *arg, unsigned line, const char *key, const char *value);
};

/* False when IN could not be read or memory is out (a fault says so). */
bool ini_reader_run(FILE *in, const struct ini_events *events, void *arg, struct faults *f);

#endif
