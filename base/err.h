#ifndef BASE_ERR_H
#define BASE_ERR_H

/* A failure of the environment (not of the protocol, not a bug): filled where it happens, given
 * context on the way out, logged once by whoever stops it.  A value; it owns nothing. */

enum err_kind { ERR_NONE, ERR_CONFIG, ERR_SYSTEM, ERR_TLS, ERR_LDAP, ERR_STORAGE };

struct err {
    enum err_kind kind;
    char text[256]; /* cut, never overrun; one line, no trailing newline */
};

/* Set E (which may be NULL) to KIND and a text.  Returns -1, so that `return err_set(...)` reads
 * as the failure it is. */
int err_set(struct err *e, enum err_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As err_set, with ": " and the text of ERRNUM appended. */
int err_errno(struct err *e, enum err_kind kind, int errnum, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Put context and ": " before the text that is there.  Returns -1. */
int err_wrap(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
