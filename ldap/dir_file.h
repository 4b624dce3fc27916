#ifndef LDAP_DIR_FILE_H
#define LDAP_DIR_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/span.h"

/* The file directory: one address or @domain a line, # comments.  Immutable once loaded, so any
 * thread may ask; a changed file is loaded anew and swapped. */

struct dir_file;

/* NULL with E set ("PATH:LINE: ..." for the first line that is no address, and how many more). */
struct dir_file *dir_file_load(const char *path, struct err *e);
void dir_file_free(struct dir_file **f); /* clears *F; NULL is fine */
/* ADDRESS (canonical) or its @domain stands in the file. */
bool dir_file_has(const struct dir_file *f, struct span address);
/* Distinct lines. */
size_t dir_file_count(const struct dir_file *f);

#endif
