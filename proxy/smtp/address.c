#include "proxy/smtp/address.h"

#include <idn2.h>
#include <string.h>

#include "base/netaddr.h"
#include "base/utf8.h"
#include "proxy/smtp/ascii.h"

#define LABEL_MAX  63 /* RFC 1035 2.3.4 */
#define DOMAIN_MAX 255

static struct span
span_from(struct span s, size_t i)
{
    return span_of(s.p + i, s.n - i);
}

/* What a local part is made of without quotes: atext and, anywhere, dots. */
static bool
is_atom(char c)
{
    return ascii_is_atext(c) || c == '.';
}

/* A local part without quotes that RFC 5321 4.1.2 allows: no dot at an end, none beside another. */
static bool
is_dot_string(struct span local)
{
    for (size_t i = 0; i < local.n; i++)
        if (local.p[i] == '.' && (i == 0 || i + 1 == local.n || local.p[i + 1] == '.'))
            return false;
    return true;
}

/* The length of a character beyond ASCII at the start of IN, 0 if none is there. */
static size_t
wide_character(struct span in, bool *is_utf8)
{
    size_t n = utf8_printable(in);

    if (n < 2)
        return 0;
    *is_utf8 = true;
    return n;
}

/* These four return the length of what they find at the start of IN, 0 if it is not there. */

static size_t
quoted_local(struct span in, bool *is_utf8)
{
    size_t i = 1, n;

    while (i < in.n && in.p[i] != '"') {
        bool is_pair = in.p[i] == '\\';

        i += is_pair;
        if (i < in.n && in.p[i] >= ' ' && in.p[i] <= '~')
            n = 1;
        else
            n = is_pair ? 0 : wide_character(span_from(in, i), is_utf8);
        if (n == 0)
            return 0;
        i += n;
    }
    return i < in.n && i > 1 ? i + 1 : 0;
}

static size_t
local_part(struct span in, bool *is_utf8)
{
    size_t i = 0, n;

    if (in.n > 0 && in.p[0] == '"')
        return quoted_local(in, is_utf8);
    for (; i < in.n; i += n) {
        n = is_atom(in.p[i]) ? 1 : wide_character(span_from(in, i), is_utf8);
        if (n == 0)
            break;
    }
    return i;
}

static size_t
address_literal(struct span in)
{
    const char *end = memchr(in.p, ']', in.n);
    struct span text;
    struct netaddr address;
    bool is_ipv6;

    if (end == NULL)
        return 0;
    text = span_of(in.p + 1, (size_t)(end - in.p) - 1);
    is_ipv6 = span_starts_nocase(text, "IPv6:");
    if (is_ipv6)
        text = span_from(text, 5);
    if (text.n == 0 || (memchr(text.p, ':', text.n) != NULL) != is_ipv6 ||
        !netaddr_parse(text, &address))
        return 0;
    return (size_t)(end - in.p) + 1;
}

static size_t
domain(struct span in, bool *is_utf8)
{
    size_t i = 0, label = 0, n;
    bool is_wide = false, is_wide_label = false;

    if (in.n > 0 && in.p[0] == '[')
        return address_literal(in);
    for (;; i += n) {
        char c = i < in.n ? in.p[i] : '\0';
        n = ascii_is_letter(c) || ascii_is_digit(c) || c == '-' || c == '_'
                ? 1
                : wide_character(span_from(in, i), &is_wide_label);
        if (n > 0)
            continue;
        if (i == label || (i - label > LABEL_MAX && !is_wide_label))
            return 0;
        is_wide |= is_wide_label;
        is_wide_label = false;
        if (c != '.')
            break;
        n = 1;
        label = i + 1;
    }
    *is_utf8 |= is_wide;
    return i <= DOMAIN_MAX || is_wide ? i : 0;
}

static size_t
mailbox(struct span in, struct smtp_path *path)
{
    size_t at = local_part(in, &path->is_utf8), n;

    if (at == 0 || at >= in.n || in.p[at] != '@')
        return 0;
    n = domain(span_from(in, at + 1), &path->is_utf8);
    if (n == 0 || at + 1 + n > SMTP_ADDRESS_MAX)
        return 0;
    n += at + 1;
    path->n = (uint16_t)n;
    path->at = (uint16_t)at;
    (void)span_copy(path->text, sizeof path->text, span_of(in.p, n));
    return n;
}

/* "@a,@b:" (RFC 5321 4.1.2, A-d-l), which is to be ignored; false if it is malformed. */
static bool
skip_route(struct span *in)
{
    bool is_utf8 = false;

    while (in->n > 0 && in->p[0] == '@') {
        size_t n = domain(span_from(*in, 1), &is_utf8) + 1;
        if (n == 1 || n >= in->n)
            return false;
        if (in->p[n] == ':') {
            *in = span_from(*in, n + 1);
            return true;
        }
        if (in->p[n] != ',' || n + 1 >= in->n || in->p[n + 1] != '@')
            return false;
        *in = span_from(*in, n + 1);
    }
    return true;
}

bool
smtp_path_parse(struct span in, bool allow_null, bool allow_postmaster, bool utf8,
                struct smtp_path *path, size_t *used)
{
    struct span rest;
    size_t n;

    path->is_null = path->is_postmaster = path->is_utf8 = false;
    path->n = path->at = 0;
    path->text[0] = '\0';
    if (in.n < 2 || in.p[0] != '<')
        return false;
    if (in.p[1] == '>') {
        path->is_null = true;
        *used = 2;
        return allow_null;
    }
    rest = span_from(in, 1);
    if (allow_postmaster && span_starts_nocase(rest, "postmaster>")) {
        n = strlen("postmaster");
        path->is_postmaster = true;
        path->n = path->at = (uint16_t)n;
        memcpy(path->text, "postmaster", n + 1);
    } else {
        if (!skip_route(&rest))
            return false;
        n = mailbox(rest, path);
        if (n == 0 || n >= rest.n || rest.p[n] != '>' || (path->is_utf8 && !utf8))
            return false;
        if (!allow_null && path->text[0] != '"' && !is_dot_string(span_of(path->text, path->at)))
            return false;
    }
    *used = (size_t)(rest.p - in.p) + n + 1;
    return true;
}

/* Never longer than QUOTED: quotes stay only where they are needed, a backslash only before a quote
 * or a backslash. */
static size_t
canonical_quoted(struct span quoted, char *out)
{
    struct span inner = span_of(quoted.p + 1, quoted.n - 2);
    bool needs_quotes = false;
    size_t n = 0;

    for (size_t i = 0; i < inner.n; i++) {
        if (inner.p[i] == '\\')
            i++;
        needs_quotes |= (unsigned char)inner.p[i] < 0x80 && !is_atom(inner.p[i]);
    }
    if (needs_quotes)
        out[n++] = '"';
    for (size_t i = 0; i < inner.n; i++) {
        if (inner.p[i] == '\\')
            i++;
        if (inner.p[i] == '"' || inner.p[i] == '\\')
            out[n++] = '\\';
        out[n++] = inner.p[i];
    }
    if (needs_quotes)
        out[n++] = '"';
    return n;
}

static size_t
canonical_local(struct span local, char *out)
{
    size_t n = local.n;

    if (local.p[0] == '"')
        n = canonical_quoted(local, out);
    else
        memcpy(out, local.p, n);
    utf8_lower(out, n);
    return n;
}

/* TEXT is NUL-terminated.  Returns the length, at most CAPACITY, or 0. */
static size_t
canonical_domain(const char *text, char *out, size_t capacity)
{
    uint8_t *ascii = NULL;
    struct span name = span_str(text);
    bool is_utf8 = false;
    size_t n;

    for (size_t i = 0; i < name.n; i++)
        is_utf8 |= (unsigned char)name.p[i] >= 0x80;
    if (is_utf8) {
        if (idn2_lookup_u8((const uint8_t *)text, &ascii, IDN2_NONTRANSITIONAL) != IDN2_OK)
            return 0;
        /* The mapping turns some characters into ASCII ones that no domain may have. */
        name = span_str((const char *)ascii);
        if (domain(name, &is_utf8) != name.n)
            name.n = 0;
    }
    n = name.n <= capacity ? name.n : 0;
    for (size_t i = 0; i < n; i++)
        out[i] = ascii_lower(name.p[i]);
    idn2_free(ascii);
    return n;
}

size_t
smtp_path_canonical(const struct smtp_path *path, char out[SMTP_ADDRESS_MAX + 1], size_t *at)
{
    size_t n = 0;

    *at = 0;
    out[0] = '\0';
    if (path->is_null)
        return 0;
    n = canonical_local(span_of(path->text, path->at), out);
    *at = n;
    if (path->at < path->n) {
        size_t d;

        out[n++] = '@';
        d = canonical_domain(path->text + path->at + 1, out + n, SMTP_ADDRESS_MAX - n);
        if (d == 0) {
            out[0] = '\0';
            return 0;
        }
        n += d;
    }
    out[n] = '\0';
    return n;
}

size_t
smtp_address_canonical(struct span address, char out[SMTP_ADDRESS_MAX + 1], size_t *at)
{
    struct smtp_path path = {0};

    *at = 0;
    out[0] = '\0';
    if (address.n >= 2 && address.p[0] == '<' && address.p[address.n - 1] == '>')
        address = span_of(address.p + 1, address.n - 2);
    if (mailbox(address, &path) != address.n || address.n == 0)
        return 0;
    return smtp_path_canonical(&path, out, at);
}
