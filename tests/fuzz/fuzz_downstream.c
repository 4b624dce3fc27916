#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/smtp/capability.h"
#include "tests/fuzz/mail_world.h"

/* An honest client, and a downstream that says anything: the input, cut at octets 0xFF; each time
 * something comes of us, and at the connection, the next part is said.  At the end of the input,
 * and where a part is empty, the downstream hangs up.
 *
 * Whatever it says: the client has one whole reply to each of its commands once nobody is left to
 * speak, and no word of the downstream's makes it to the client as a line of its own. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *script;
static size_t script_n;

static void
say_next(struct world_connection *c)
{
    const uint8_t *end = script_n > 0 ? memchr(script, 0xff, script_n) : NULL;
    size_t n = end != NULL ? (size_t)(end - script) : script_n;

    if (n == 0) {
        script_n -= end != NULL;
        script += end != NULL;
        world_hang_up(c);
        return;
    }
    world_say(c, script, n);
    script += n + (end != NULL);
    script_n -= n + (end != NULL);
}

static void
hear(struct world_connection *c, const uint8_t *p, size_t n)
{
    (void)p;
    (void)n;
    say_next(c);
}

static unsigned
count_replies(const char *p)
{
    unsigned replies = 0;

    while (*p != '\0') {
        const char *end = strstr(p, "\r\n");
        require(end != NULL && end - p >= 4 && end - p <= 1022);
        for (const char *q = p; q < end; q++)
            require((unsigned char)*q >= ' ' && *q != '\x7f');
        require(p[0] >= '2' && p[0] <= '5' && (p[3] == ' ' || p[3] == '-'));
        replies += p[3] == ' ';
        p = end + 2;
    }
    return replies;
}

static unsigned
replies(void)
{
    return count_replies(world_heard());
}

static bool
is_last_reply(const char *start)
{
    const char *p = world_heard(), *end;

    while ((end = strstr(p, "\r\n")) != NULL && end[2] != '\0')
        p = end + 2;
    return strncmp(p, start, strlen(start)) == 0;
}

static void
speak(const char *text)
{
    static const struct world_downstream hostile = {.connected = say_next, .heard = hear};

    world_open(WORLD_PLAIN, &hostile,
               SMTP_CAP_BIT(8BITMIME)); /* the host is up again, whatever it did */
    if (*text == '\0')
        return;
    unsigned before = replies();
    world_send((const uint8_t *)text, strlen(text));
    world_settle();
    /* A downstream that says nothing more would be waited for: it goes. */
    for (unsigned tries = 0; tries < 8 && replies() == before; tries++) {
        script_n = 0;
        world_hang_up_all();
        world_settle();
    }
    require(replies() == before + 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    script = data;
    script_n = size;
    speak("");
    world_connect(1);
    world_settle();
    speak("EHLO client.example.org\r\n");
    for (unsigned i = 0; i < 5; i++) {
        speak("MAIL FROM:<a@example.org>\r\n");
        speak("RCPT TO:<anna@example.test>\r\n");
        speak(i % 2 == 0 ? "RCPT TO:<ben@example.test>\r\n" : "NOOP\r\n");
        if (i >= 3) /* is asked of the downstream itself */
            speak("RCPT TO:<zoe@ask.example.test>\r\n");
        speak("DATA\r\n");
        /* A recipient who was refused before is asked for again, and may be refused at RCPT. */
        if (is_last_reply("354 "))
            speak("Subject: x\r\n\r\n..\r\n.\r\n");
    }
    world_disconnect();
    script_n = 0;
    world_hang_up_all();
    world_settle();
    return 0;
}
