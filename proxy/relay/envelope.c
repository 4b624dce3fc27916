#include "proxy/relay/envelope.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A line under construction.  What it is made of has bounds that ENVELOPE_LINE leaves room for. */
struct line {
    char *text;
    size_t n;
};

static void
put(struct line *l, const char *s)
{
    size_t n = strlen(s);

    if (l->n + n > ENVELOPE_LINE)
        n = ENVELOPE_LINE - l->n;
    memcpy(l->text + l->n, s, n);
    l->n += n;
}

static void
put_number(struct line *l, const char *before, uint64_t number)
{
    char text[32];

    snprintf(text, sizeof(text), "%" PRIu64, number);
    put(l, before);
    put(l, text);
}

/* RFC 3461 4. */
static void
put_xtext(struct line *l, const char *s)
{
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        char text[4] = {*s, '\0'};
        if (c < '!' || c > '~' || c == '+' || c == '=')
            snprintf(text, sizeof(text), "+%02X", (unsigned)c);
        put(l, text);
    }
}

static bool
offers(const struct smtp_capabilities *caps, uint32_t bit)
{
    return (caps->bits & bit) != 0;
}

size_t
envelope_mail(const struct smtp_capabilities *caps, const struct message *m,
              char out[ENVELOPE_LINE])
{
    struct line l = {.text = out};

    put(&l, "MAIL FROM:<");
    put(&l, m->sender);
    put(&l, ">");
    if (offers(caps, SMTP_CAP_BIT(SIZE)))
        put_number(&l, " SIZE=", message_wire_size(m));
    if (m->body == SMTP_BODY_BINARYMIME && offers(caps, SMTP_CAP_BIT(BINARYMIME)))
        put(&l, " BODY=BINARYMIME");
    else if (m->body != SMTP_BODY_7BIT && offers(caps, SMTP_CAP_BIT(8BITMIME)))
        put(&l, " BODY=8BITMIME");
    if (m->is_smtputf8 && offers(caps, SMTP_CAP_BIT(SMTPUTF8)))
        put(&l, " SMTPUTF8");
    if (offers(caps, SMTP_CAP_BIT(DSN))) {
        if (m->ret != SMTP_RET_NONE)
            put(&l, m->ret == SMTP_RET_FULL ? " RET=FULL" : " RET=HDRS");
        if (m->envid != NULL) {
            put(&l, " ENVID=");
            put(&l, m->envid);
        }
    }
    put(&l, "\r\n");
    return l.n;
}

size_t
envelope_rcpt(const struct smtp_capabilities *caps, const struct message_recipient *r,
              char out[ENVELOPE_LINE])
{
    static const struct {
        unsigned bit;
        const char *text;
    } notify[] = {{SMTP_NOTIFY_NEVER, "NEVER"},
                  {SMTP_NOTIFY_SUCCESS, "SUCCESS"},
                  {SMTP_NOTIFY_FAILURE, "FAILURE"},
                  {SMTP_NOTIFY_DELAY, "DELAY"}};
    struct line l = {.text = out};

    put(&l, "RCPT TO:<");
    put(&l, r->address);
    put(&l, ">");
    if (offers(caps, SMTP_CAP_BIT(DSN))) {
        const char *before = " NOTIFY=";
        for (size_t i = 0; i < sizeof(notify) / sizeof(notify[0]); i++) {
            if ((r->notify & notify[i].bit) != 0) {
                put(&l, before);
                put(&l, notify[i].text);
                before = ",";
            }
        }
        if (r->orcpt != NULL) {
            put(&l, " ORCPT=");
            put(&l, r->orcpt);
        }
    }
    put(&l, "\r\n");
    return l.n;
}

size_t
envelope_ask_mail(const struct smtp_capabilities *caps, const char *sender, bool is_smtputf8,
                  char out[ENVELOPE_LINE])
{
    struct line l = {.text = out};

    put(&l, "MAIL FROM:<");
    put(&l, sender);
    put(&l, is_smtputf8 && offers(caps, SMTP_CAP_BIT(SMTPUTF8)) ? "> SMTPUTF8\r\n" : ">\r\n");
    return l.n;
}

size_t
envelope_ask_rcpt(const char *recipient, char out[ENVELOPE_LINE])
{
    struct line l = {.text = out};

    put(&l, "RCPT TO:<");
    put(&l, recipient);
    put(&l, ">\r\n");
    return l.n;
}

size_t
envelope_xclient(const struct smtp_capabilities *caps, const struct downstream_client *client,
                 char out[ENVELOPE_LINE])
{
    struct line l = {.text = out};
    char address[NETADDR_TEXT];

    netaddr_format(client->address, address);
    put(&l, "XCLIENT");
    if (caps->xclient & SMTP_XCLIENT_BIT(NAME))
        put(&l, " NAME=[UNAVAILABLE]");
    if (caps->xclient & SMTP_XCLIENT_BIT(ADDR)) {
        put(&l, client->address->family == 6 ? " ADDR=IPV6:" : " ADDR=");
        put(&l, address);
    }
    if (caps->xclient & SMTP_XCLIENT_BIT(PORT))
        put_number(&l, " PORT=", client->port);
    if ((caps->xclient & SMTP_XCLIENT_BIT(HELO)) && client->helo != NULL) {
        put(&l, " HELO=");
        put_xtext(&l, client->helo);
    }
    if (caps->xclient & SMTP_XCLIENT_BIT(PROTO))
        put(&l, client->is_esmtp ? " PROTO=ESMTP" : " PROTO=SMTP");
    put(&l, "\r\n");
    return l.n;
}
