#include "proxy/ops/json_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

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
        uint32_t code;
        size_t length = utf8_next(span_of(s.p + i, s.n - i), &code);
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
