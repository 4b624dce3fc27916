#ifndef CONF_INI_READER_H
#define CONF_INI_READER_H

#include <stdbool.h>
#include <stdio.h>

#include "conf/faults.h"

/* Reads an INI file with inih, without its traps: inih 55 cuts a line after 199 octets, a section's
 * name after 49, silently, and takes an indented line for a continuation.  Here a line has up to
 * INI_READER_LINE_MAX octets and comes whole, indentation means nothing, and every line that is
 * neither section, key nor comment is a fault with its number.  Comments are lines that begin with
 * ; or #, and what follows a blank and ; in a line. */

#define INI_READER_LINE_MAX 4096
#define INI_READER_KEY_MAX  63

struct ini_events {
    /* [NAME] stands at LINE; blanks around NAME are cut. */
    void (*section)(void *arg, unsigned line, const char *name);
    /* KEY = VALUE, blanks around both cut. */
    void (*key)(void *arg, unsigned line, const char *key, const char *value);
};

/* False when IN could not be read or memory is out (a fault says so). */
bool ini_reader_run(FILE *in, const struct ini_events *events, void *arg, struct faults *f);

#endif
