#ifndef PROXY_SMTP_ASCII_H
#define PROXY_SMTP_ASCII_H

#include <stdbool.h>
#include <string.h>

/* Character classes of the grammars, the same in every locale. */

static inline bool
ascii_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline bool
ascii_is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* atext of RFC 5322 3.2.3. */
static inline bool
ascii_is_atext(char c)
{
    static const char others[] = "!#$%&'*+-/=?^_`{|}~";

    return ascii_is_digit(c) || ascii_is_letter(c) || memchr(others, c, sizeof others - 1) != NULL;
}

#endif
