#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ldap/dir_filter.h"
#include "ldap/dir_result.h"

/* Whatever a stranger asks for stays one value in the filter, and reads back as what was asked. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(int is_true)
{
    if (!is_true)
        abort();
}

static unsigned
digit(char c)
{
    static const char hex[] = "0123456789abcdef";
    const char *at = c ? strchr(hex, c) : NULL;

    require(at != NULL);
    return (unsigned)(at - hex);
}

/* The value at P up to END unescaped: exactly VALUE. */
static void
reads_back(const char *p, const char *end, struct span value)
{
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)*p;

        require(p < end && c >= 0x20 && c < 0x7f && !strchr("*()", *p));
        if (*p == '\\') {
            require(end - p >= 3);
            c = (unsigned char)(digit(p[1]) * 16 + digit(p[2]));
            p += 2;
        }
        p++;
        require(c == (unsigned char)value.p[i]);
    }
    require(p == end);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct dir_filter f;
    struct span address = span_of((const char *)data, size);
    char x500[64];
    size_t n;

    f = (struct dir_filter){.n = 0};
    dir_filter_expand(&f, "(mail=%u)", address);
    require(strlen(f.text) == f.n);
    if (!f.is_full)
        reads_back(f.text + 6, f.text + f.n - 1, address);
    n = dir_filter_imcea(address, x500, sizeof x500);
    require(n < sizeof x500);
    (void)dir_result_attribute(address);
    (void)dir_result_is_x500(address, span_of(x500, n));
    if (memchr(address.p ? address.p : "", '@', size) && size < 512)
        require(dir_result_is_address(address, address) || span_starts_nocase(address, "smtp:"));
    return 0;
}
