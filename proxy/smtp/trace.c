#include "proxy/smtp/trace.h"

#include <string.h>

#include "base/utf8.h"
#include "proxy/smtp/address.h"
#include "proxy/smtp/ascii.h"

#define NAME_MAX_OCTETS 255
#define WORD_MAX_OCTETS 64

struct output {
    char *p;
    size_t n, capacity;
    bool is_full;
};

static void
put(struct output *out, const char *p, size_t n)
{
    out->is_full |= n > out->capacity - out->n;
    if (out->is_full)
        return;
    memcpy(out->p + out->n, p, n);
    out->n += n;
}

static void
put_text(struct output *out, const char *text)
{
    put(out, text, strlen(text));
}

/* What may stand in a Received field outside comments and quoted strings. */
static bool
is_safe(char c)
{
    return ascii_is_atext(c) || memchr(".:@[]", c, 5) != NULL;
}

/* At most MAX octets of TEXT, with '?' for what is not safe. */
static void
put_safe(struct output *out, const char *text, size_t max, bool is_utf8)
{
    struct span rest = span_str(text);
    size_t n;

    rest.n = utf8_fit(rest, max);
    for (; rest.n > 0; rest = span_of(rest.p + n, rest.n - n)) {
        n = utf8_printable(rest);
        if ((n == 1 && is_safe(rest.p[0])) || (n > 1 && is_utf8)) {
            put(out, rest.p, n);
        } else {
            put(out, "?", 1);
            n = 1;
        }
    }
}

/* RFC 3848, RFC 6531 3.7.3.  TLS without ESMTP has no name: the comment behind tells it. */
static const char *
protocol(const struct trace *t)
{
    if (!t->is_esmtp)
        return "SMTP";
    if (t->is_utf8)
        return t->is_tls ? "UTF8SMTPS" : "UTF8SMTP";
    return t->is_tls ? "ESMTPS" : "ESMTP";
}

size_t
trace_received(char *out, size_t capacity, const struct trace *t)
{
    struct output o = {.capacity = capacity};
    char address[NETADDR_TEXT];

    o.p = out;
    netaddr_format(t->client, address);
    put_text(&o, "Received: from ");
    put_safe(&o, t->helo[0] != '\0' ? t->helo : "unknown", NAME_MAX_OCTETS, t->is_utf8);
    put_text(&o, t->client->family == 6 ? " ([IPv6:" : " ([");
    put_text(&o, address);
    put_text(&o, "])\r\n\tby ");
    put_safe(&o, t->hostname, NAME_MAX_OCTETS, t->is_utf8);
    put_text(&o, " (Postern) with ");
    put_text(&o, protocol(t));
    if (t->is_tls) {
        put_text(&o, "\r\n\t(");
        put_safe(&o, t->tls_version, WORD_MAX_OCTETS, false);
        put_text(&o, " ");
        put_safe(&o, t->tls_cipher, WORD_MAX_OCTETS, false);
        put_text(&o, ")");
    }
    put_text(&o, "\r\n\tid ");
    put_safe(&o, t->id, WORD_MAX_OCTETS, false);
    if (t->recipient != NULL) {
        put_text(&o, "\r\n\tfor <");
        put_safe(&o, t->recipient, SMTP_ADDRESS_MAX, t->is_utf8);
        put_text(&o, ">");
    }
    put_text(&o, ";\r\n\t");
    put_text(&o, t->date);
    put_text(&o, "\r\n");
    return o.is_full ? 0 : o.n;
}
