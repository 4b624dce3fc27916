#include "proxy/ops/json_text.h"

#include <stdlib.h>
#include <string.h>

/* The length of the sequence at P (RFC 3629 4), or 0. */
static size_t
sequence(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80)
        return 1;
    size_t length = p[0] >= 0xf0 && p[0] <= 0xf4   ? 4
                    : p[0] >= 0xe0 && p[0] <= 0xef ? 3
                    : p[0] >= 0xc2 && p[0] <= 0xdf ? 2
                                                   : 0;
    if (!length || length > n)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return length;
}

json_t *
json_text(struct span s)
{
    static const char replacement[3] = {'\xef', '\xbf', '\xbd'};
    if (s.n > SIZE_MAX / sizeof replacement - 1)
        return NULL;
    char *out = malloc(s.n * sizeof replacement + 1);
    if (!out)
        return NULL;
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        size_t length = sequence((const unsigned char *)s.p + i, s.n - i);
        memcpy(out + n, length ? s.p + i : replacement, length ? length : sizeof replacement);
        n += length ? length : sizeof replacement;
        i += length ? length : 1;
    }
    json_t *text = json_stringn_nocheck(out, n);
    free(out);
    return text;
}

json_t *
json_text_str(const char *s)
{
    return json_text(span_str(s));
}
