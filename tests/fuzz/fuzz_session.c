#define _GNU_SOURCE /* memmem, strcasestr */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/smtp/capability.h"
#include "tests/fuzz/mail_world.h"

/* A whole session between a client that says anything and an honest downstream.  The first octet
 * is the client's address (5: PROXY, 6: XCLIENT), the second what the downstream offers, what the
 * session works under (enum world_kind) and whether the client makes a handshake or goes on in the
 * clear once it is told to, the third how many octets a piece has (0: all at once).
 *
 * Whatever the client says: every reply is one, in one line or several of the same code; the
 * downstream hears nothing but commands of ours and content where content belongs; and a client is
 * told of just as many deliveries as there were. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum hearing { HEARING_COMMANDS, HEARING_DATA, HEARING_CHUNK };

struct hearer {
    enum hearing hearing;
    uint64_t chunk_left;
    size_t recipients;
    bool has_sender;
    char line[8192];
    size_t n;
    char tail[5]; /* of DATA */
};

static uint32_t offered;
static unsigned delivered;

static void
say(struct world_connection *c, const char *text)
{
    world_say(c, (const uint8_t *)text, strlen(text));
}

static void
greet(struct world_connection *c)
{
    say(c, "220 ex1.example.test ESMTP\r\n");
}

static void
say_capabilities(struct world_connection *c)
{
    static const struct {
        uint32_t bit;
        const char *line;
    } lines[] = {{SMTP_CAP_BIT(PIPELINING), "250-PIPELINING\r\n"},
                 {SMTP_CAP_BIT(CHUNKING), "250-CHUNKING\r\n"},
                 {SMTP_CAP_BIT(BINARYMIME), "250-BINARYMIME\r\n"},
                 {SMTP_CAP_BIT(8BITMIME), "250-8BITMIME\r\n"},
                 {SMTP_CAP_BIT(SMTPUTF8), "250-SMTPUTF8\r\n"},
                 {SMTP_CAP_BIT(DSN), "250-DSN\r\n"}};

    say(c, "250-ex1.example.test\r\n");
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if ((offered & lines[i].bit) != 0)
            say(c, lines[i].line);
    say(c, "250 ENHANCEDSTATUSCODES\r\n");
}

static void
end_message(struct world_connection *c, struct hearer *h)
{
    delivered++;
    h->hearing = HEARING_COMMANDS;
    h->recipients = 0;
    h->has_sender = false;
    memset(h->tail, 0, sizeof(h->tail));
    say(c, "250 2.6.0 Queued\r\n");
}

static bool
is_at(const char *line, const char *start)
{
    return strncmp(line, start, strlen(start)) == 0;
}

static bool
has_high_bit(const char *line)
{
    for (; *line != '\0'; line++)
        if ((unsigned char)*line >= 0x80)
            return true;
    return false;
}

/* Only these commands, and only in their place, are ever sent. */
static void
take_command(struct world_connection *c, struct hearer *h, const char *line)
{
    unsigned long long size;
    char last[8];

    for (const char *p = line; *p != '\0'; p++)
        require((unsigned char)*p >= ' ' && *p != '\x7f');
    if (is_at(line, "EHLO mx.example.test")) {
        say_capabilities(c);
    } else if (is_at(line, "MAIL FROM:<")) {
        require(!h->has_sender);
        h->has_sender = true;
        say(c, "250 2.1.0 Sender OK\r\n");
    } else if (is_at(line, "RCPT TO:<")) {
        require(h->has_sender && ++h->recipients <= 5);
        /* As the client wrote it: in any case, and international if it may be. */
        require(strcasestr(line, "example.test>") != NULL || has_high_bit(line));
        say(c, "250 2.1.5 Recipient OK\r\n");
    } else if (strcmp(line, "DATA") == 0) {
        require(h->recipients > 0);
        h->hearing = HEARING_DATA;
        memcpy(h->tail, "\0\0\0\r\n", 5);
        say(c, "354 Go\r\n");
    } else if (sscanf(line, "BDAT %llu %7s", &size, last) == 2) {
        require(h->recipients > 0 && strcmp(last, "LAST") == 0 && size > 0 && size < 400000 &&
                (offered & SMTP_CAP_BIT(CHUNKING)) != 0);
        h->hearing = HEARING_CHUNK;
        h->chunk_left = size;
    } else if (strcmp(line, "RSET") == 0) {
        require(h->has_sender); /* a question is over */
        h->recipients = 0;
        h->has_sender = false;
        say(c, "250 2.0.0 Reset\r\n");
    } else {
        require(strcmp(line, "QUIT") == 0);
        world_hang_up(c);
    }
}

static size_t
take_line(struct world_connection *c, struct hearer *h, const uint8_t *p, size_t n)
{
    size_t i = 0;

    while (i < n) {
        require(h->n < sizeof(h->line) - 1 && p[i] != '\0');
        h->line[h->n++] = (char)p[i++];
        if (h->line[h->n - 1] != '\n')
            continue;
        require(h->n >= 2 && h->line[h->n - 2] == '\r');
        h->line[h->n - 2] = '\0';
        h->n = 0;
        take_command(c, h, h->line);
        break;
    }
    return i;
}

/* What goes over DATA has CRLF alone for line ends. */
static size_t
take_data(struct world_connection *c, struct hearer *h, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        require((p[i] == '\n') == (h->tail[4] == '\r'));
        memmove(h->tail, h->tail + 1, 4);
        h->tail[4] = (char)p[i];
        if (memcmp(h->tail, "\r\n.\r\n", 5) == 0) {
            end_message(c, h);
            return i + 1;
        }
    }
    return n;
}

static void
hear(struct world_connection *c, const uint8_t *p, size_t n)
{
    struct hearer *h = world_state(c, sizeof(*h));

    while (n > 0) {
        size_t used = 0;
        switch (h->hearing) {
        case HEARING_COMMANDS:
            used = take_line(c, h, p, n);
            break;
        case HEARING_DATA:
            used = take_data(c, h, p, n);
            break;
        case HEARING_CHUNK:
            used = n < h->chunk_left ? n : (size_t)h->chunk_left;
            h->chunk_left -= used;
            if (h->chunk_left == 0)
                end_message(c, h);
            break;
        }
        p += used;
        n -= used;
    }
}

/* How many deliveries the client was told of. */
static unsigned
check_replies(const char *p)
{
    unsigned told = 0;
    char code[4] = "";

    while (*p != '\0') {
        const char *end = strstr(p, "\r\n");
        require(end != NULL && end - p >= 4 && end - p <= 1022);
        for (const char *q = p; q < end; q++)
            require((unsigned char)*q >= ' ' && *q != '\x7f');
        require(p[0] >= '2' && p[0] <= '5' && (p[3] == ' ' || p[3] == '-'));
        require(code[0] == '\0' || memcmp(code, p, 3) == 0);
        memcpy(code, p, 3);
        if (p[3] == ' ')
            code[0] = '\0';
        if (is_at(p, "250 2.6.0 Queued as "))
            told++;
        p = end + 2;
    }
    require(code[0] == '\0');
    return told;
}

static bool
is_told_to_shake(void)
{
    static const char ready[] = "220 2.0.0 Ready to start TLS\r\n";
    size_t n = strlen(world_heard());

    return n >= sizeof(ready) - 1 && strcmp(world_heard() + n - (sizeof(ready) - 1), ready) == 0;
}

/* Of the N octets at P, those that are sent at once: a client that means it waits after STARTTLS.
 */
static size_t
first_piece(const uint8_t *p, size_t n, bool is_honest)
{
    static const char command[] = "STARTTLS\r\n";
    const uint8_t *at = is_honest ? memmem(p, n, command, sizeof(command) - 1) : NULL;

    return at != NULL ? (size_t)(at - p) + sizeof(command) - 1 : n;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct world_downstream honest = {.connected = greet, .heard = hear};
    static const uint32_t sets[] = {SMTP_CAP_BIT(PIPELINING) | SMTP_CAP_BIT(CHUNKING) |
                                        SMTP_CAP_BIT(BINARYMIME) | SMTP_CAP_BIT(8BITMIME) |
                                        SMTP_CAP_BIT(SMTPUTF8) | SMTP_CAP_BIT(DSN),
                                    SMTP_CAP_BIT(PIPELINING) | SMTP_CAP_BIT(8BITMIME), 0};

    if (size < 3)
        return 0;
    uint32_t now = sets[data[1] % 3];
    enum world_kind kind = (enum world_kind)(data[1] / 3 % WORLD_KINDS);
    bool shakes = data[1] / 3 / WORLD_KINDS % 2 == 0;
    if (now != offered)
        world_hang_up_all(); /* kept connections know what was offered before */
    offered = now;
    delivered = 0;
    world_open(kind, &honest, offered);
    world_settle();
    world_connect(data[0]);
    world_settle();
    size_t piece = data[2] == 0 ? size : data[2];
    for (size_t i = 3, n; i < size && world_is_open(); i += n) {
        n = first_piece(data + i, size - i < piece ? size - i : piece, shakes && !world_is_tls());
        world_send(data + i, n);
        world_settle();
        if (shakes && !world_is_tls() && is_told_to_shake() && !world_start_tls())
            break;
    }
    require(check_replies(world_heard()) == delivered);
    world_disconnect();
    return 0;
}
