#include "ldap/dir_address.h"

#include <idn2.h>
#include <string.h>

#include "base/utf8.h"

size_t
dir_address_at(struct span address)
{
    for (size_t i = address.n; i > 0; i--)
        if (address.p[i - 1] == '@')
            return i - 1;
    return address.n;
}

static bool
is_plain_local(struct span local)
{
    bool quoted = false;

    for (size_t i = 0; i < local.n; i++) {
        unsigned char c = (unsigned char)local.p[i];

        if (c == '\\' && quoted && i + 1 < local.n)
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (c < 0x20 || c == 0x7f || (c == ' ' && !quoted))
            return false;
    }
    return !quoted;
}

/* The domain with its '@' into OUT; 0 if it is none. */
static size_t
put_domain(struct span domain, char *out, size_t capacity)
{
    bool is_ascii = true;
    size_t n = domain.n;

    if (n < 2 || n >= capacity)
        return 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)domain.p[i];

        if (c <= 0x20 || c == 0x7f)
            return 0;
        is_ascii = is_ascii && c < 0x80;
        out[i] = ascii_lower(domain.p[i]);
    }
    out[n] = '\0';
    if (!is_ascii) {
        char *ascii = NULL;

        if (idn2_lookup_u8((const uint8_t *)out + 1, (uint8_t **)&ascii,
                           IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
            return 0;
        n = 1 + strlen(ascii);
        if (n < capacity)
            memcpy(out + 1, ascii, n);
        else
            n = 0;
        idn2_free(ascii);
    }
    return n;
}

size_t
dir_address_canonical(struct span text, char out[DIR_ADDRESS_MAX + 1])
{
    size_t at = dir_address_at(text);
    size_t n;

    if (at == text.n || at >= DIR_ADDRESS_MAX || !is_plain_local(span_of(text.p, at)))
        return 0;
    if (at > 0)
        memcpy(out, text.p, at);
    utf8_lower(out, at);
    n = put_domain(span_of(text.p + at, text.n - at), out + at, DIR_ADDRESS_MAX + 1 - at);
    return n == 0 ? 0 : at + n;
}

size_t
dir_address_untagged(struct span address, char out[DIR_ADDRESS_MAX + 1])
{
    size_t at = dir_address_at(address);
    const char *plus = at == 0 || address.p[0] == '"' ? NULL : memchr(address.p, '+', at);
    size_t n;

    if (at == address.n || address.n > DIR_ADDRESS_MAX || !plus || plus == address.p)
        return 0;
    n = (size_t)(plus - address.p);
    memcpy(out, address.p, n);
    memcpy(out + n, address.p + at, address.n - at);
    n += address.n - at;
    out[n] = '\0';
    return n;
}
