#include "ldap/dir_filter.h"

#include <string.h>

#include "ldap/dir_address.h"

static void
add_octets(struct dir_filter *f, const char *p, size_t n)
{
    if (f->is_full || n >= sizeof f->text - f->n) {
        f->is_full = true;
        return;
    }
    memcpy(f->text + f->n, p, n);
    f->n += n;
    f->text[f->n] = '\0';
}

void
dir_filter_add(struct dir_filter *f, const char *text)
{
    add_octets(f, text, strlen(text));
}

void
dir_filter_add_value(struct dir_filter *f, struct span value)
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        const char escaped[3] = {'\\', hex[c >> 4], hex[c & 15]};

        if (c < 0x20 || c >= 0x7f || c == '*' || c == '(' || c == ')' || c == '\\')
            add_octets(f, escaped, sizeof escaped);
        else
            add_octets(f, value.p + i, 1);
    }
}

void
dir_filter_expand(struct dir_filter *f, const char *template, struct span address)
{
    size_t at = dir_address_at(address);

    for (const char *p = template; *p; p++) {
        char next = *p == '%' ? p[1] : '\0';

        p += next == 'u' || next == 'l' || next == 'd' || next == '%' ? 1 : 0;
        if (next == 'u')
            dir_filter_add_value(f, address);
        else if (next == 'l')
            dir_filter_add_value(f, span_of(address.p, at));
        else if (next == 'd')
            dir_filter_add_value(f, at < address.n ? span_of(address.p + at + 1, address.n - at - 1)
                                                   : span_of("", 0));
        else
            add_octets(f, p, 1);
    }
}

static int
hex_digit(char c)
{
    c = ascii_lower(c);
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t
dir_filter_imcea(struct span address, char *out, size_t capacity)
{
    size_t at = dir_address_at(address), n = 0;
    size_t i = span_starts_nocase(address, "imceaex-")     ? 8
               : span_starts_nocase(address, "imceax500-") ? 10
                                                           : 0;

    if (i == 0 || at == address.n || at <= i)
        return 0;
    for (; i < at; i++) {
        char c = address.p[i];

        if (n + 1 >= capacity)
            return 0;
        if (c == '+') {
            int high = i + 2 < at ? hex_digit(address.p[i + 1]) : -1;
            int low = i + 2 < at ? hex_digit(address.p[i + 2]) : -1;

            if (high < 0 || low < 0)
                return 0;
            c = (char)(unsigned char)(high * 16 + low);
            i += 2;
        } else if (c == '_') {
            c = '/';
        }
        out[n++] = c;
    }
    out[n] = '\0';
    return n;
}
