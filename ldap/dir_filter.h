#ifndef LDAP_DIR_FILTER_H
#define LDAP_DIR_FILTER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

/* Search filters (RFC 4515) from what strangers send.  Pure. */

#define DIR_FILTER_MAX 8192

/* A filter under construction; it begins as all zero. */
struct dir_filter {
    bool is_full; /* something did not fit: not to be used */
    size_t n;
    char text[DIR_FILTER_MAX]; /* NUL-terminated */
};

/* As it stands: for what the program or the administrator wrote. */
void dir_filter_add(struct dir_filter *f, const char *text);
/* Escaped by RFC 4515 3: * ( ) \ NUL, control characters and all beyond ASCII as \xx. */
void dir_filter_add_value(struct dir_filter *f, struct span value);
/* TEMPLATE with %u the address, %l its local part, %d its domain, each escaped, and %% for %. */
void dir_filter_expand(struct dir_filter *f, const char *template, struct span address);

/* The X.500 address that an IMCEAEX (or IMCEAX500) address stands for
 * ("imceaex-_o=a_cn=b+20c@domain":
 * "/o=a/cn=b c") into OUT, NUL-terminated.  Its length; 0 if ADDRESS is no such one. */
size_t dir_filter_imcea(struct span address, char *out, size_t capacity);

#endif
