#define _POSIX_C_SOURCE 200809L

#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What comes from a library may hold line ends; an error is one line. */
static void
make_one_line(char *text)
{
    size_t n = strlen(text);

    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < ' ')
            text[i] = ' ';
    while (n > 0 && text[n - 1] == ' ')
        text[--n] = '\0';
}

int
err_set(struct err *e, enum err_kind kind, const char *format, ...)
{
    if (e) {
        char text[sizeof e->text]; /* an argument may be e->text itself */
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        make_one_line(text);
        e->kind = kind;
        memcpy(e->text, text, sizeof text);
    }
    return -1;
}

int
err_errno(struct err *e, enum err_kind kind, int errnum, const char *format, ...)
{
    if (e) {
        char context[sizeof e->text], reason[128];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(context, sizeof context, format, arguments);
        va_end(arguments);
        if (strerror_r(errnum, reason, sizeof reason) != 0)
            snprintf(reason, sizeof reason, "error %d", errnum);
        err_set(e, kind, "%s: %s", context, reason);
    }
    return -1;
}

int
err_wrap(struct err *e, const char *format, ...)
{
    if (e) {
        char context[sizeof e->text];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(context, sizeof context, format, arguments);
        va_end(arguments);
        err_set(e, e->kind, "%s: %s", context, e->text);
    }
    return -1;
}
