#include "rules.h"

#include <stdlib.h>

#define HOUR_MS    3600000
#define CISCO_MAX  25u
#define CISCO_MAP  65536u /* a power of two, several times the hosts there are */
#define GFI_MAX    2u
#define SOFT_ERROR 10u
#define HARD_ERROR 20u
#define ERROR_MS   1000

/* What has no state for a connection or a message. */

static bool
open_always(void *state, const struct netaddr *client, int64_t now_ms)
{
    (void)state;
    (void)client;
    (void)now_ms;
    return true;
}

static bool
mail_always(void *state, bool is_null)
{
    (void)state;
    (void)is_null;
    return true;
}

static bool
data_always(void *state, const uint32_t *accepted, size_t n)
{
    (void)state;
    (void)accepted;
    (void)n;
    return true;
}

/* Unknown recipients are refused, and that is all. */

static void *
begin_none(const struct rule *rule)
{
    (void)rule;
    return NULL;
}

static enum answer
rcpt_none(void *state, uint32_t who, bool is_known, int64_t *delay_ms)
{
    (void)state;
    (void)who;
    (void)is_known;
    (void)delay_ms;
    return ANSWER_TOLD;
}

const struct rule rule_none = {.name = "no defence",
                               .begin = begin_none,
                               .end = free,
                               .open = open_always,
                               .mail = mail_always,
                               .rcpt = rcpt_none,
                               .data = data_always};

/* GFI MailEssentials: a message with two unknown recipients is refused whole, and the rest of its
 * recipients with it; nothing is remembered. */

static void *
begin_counter(const struct rule *rule)
{
    (void)rule;
    return calloc(1, sizeof(unsigned));
}

static bool
mail_gfi(void *state, bool is_null)
{
    (void)is_null;
    *(unsigned *)state = 0;
    return true;
}

static enum answer
rcpt_gfi(void *state, uint32_t who, bool is_known, int64_t *delay_ms)
{
    unsigned *unknown = state;

    (void)who;
    (void)delay_ms;
    if (*unknown >= GFI_MAX)
        return ANSWER_REFUSED;
    *unknown += !is_known;
    return ANSWER_TOLD;
}

static bool
data_gfi(void *state, const uint32_t *accepted, size_t n)
{
    (void)accepted;
    (void)n;
    return *(unsigned *)state < GFI_MAX;
}

const struct rule rule_gfi = {.name = "GFI (2 a message)",
                              .begin = begin_counter,
                              .end = free,
                              .open = open_always,
                              .mail = mail_gfi,
                              .rcpt = rcpt_gfi,
                              .data = data_gfi};

/* Postfix: from the 10th error of a session on each answer waits a second, after the 20th the
 * session ends. */

static bool
open_postfix(void *state, const struct netaddr *client, int64_t now_ms)
{
    (void)client;
    (void)now_ms;
    *(unsigned *)state = 0;
    return true;
}

static bool
mail_postfix(void *state, bool is_null)
{
    (void)is_null;
    return *(unsigned *)state < HARD_ERROR;
}

static enum answer
rcpt_postfix(void *state, uint32_t who, bool is_known, int64_t *delay_ms)
{
    unsigned *errors = state;

    (void)who;
    if (*errors >= HARD_ERROR)
        return ANSWER_CLOSED;
    *errors += !is_known;
    if (*errors >= SOFT_ERROR)
        *delay_ms += ERROR_MS;
    return ANSWER_TOLD;
}

const struct rule rule_postfix = {.name = "Postfix (10, 20 a session)",
                                  .begin = begin_counter,
                                  .end = free,
                                  .open = open_postfix,
                                  .mail = mail_postfix,
                                  .rcpt = rcpt_postfix,
                                  .data = data_always};

/* Cisco's directory harvest attack prevention: after 25 unknown recipients of a host in an hour its
 * connections are dropped until the hour is over. */

struct cisco_host {
    struct netaddr client;
    int64_t hour;
    unsigned unknown;
};

struct cisco {
    struct cisco_host hosts[CISCO_MAP];
    struct cisco_host *at;
};

static void *
begin_cisco(const struct rule *rule)
{
    (void)rule;
    return calloc(1, sizeof(struct cisco));
}

static bool
open_cisco(void *state, const struct netaddr *client, int64_t now_ms)
{
    struct cisco *c = state;
    uint32_t i = 2166136261u;

    for (int k = 0; k < 4; k++)
        i = (i ^ client->octets[k]) * 16777619u;
    while (c->hosts[i % CISCO_MAP].client.family != 0 &&
           !netaddr_equal(&c->hosts[i % CISCO_MAP].client, client))
        i++;
    c->at = &c->hosts[i % CISCO_MAP];
    c->at->client = *client;
    if (c->at->hour != now_ms / HOUR_MS) {
        c->at->hour = now_ms / HOUR_MS;
        c->at->unknown = 0;
    }
    return c->at->unknown < CISCO_MAX;
}

static bool
mail_cisco(void *state, bool is_null)
{
    const struct cisco *c = state;

    (void)is_null;
    return c->at->unknown < CISCO_MAX;
}

static enum answer
rcpt_cisco(void *state, uint32_t who, bool is_known, int64_t *delay_ms)
{
    struct cisco *c = state;

    (void)who;
    (void)delay_ms;
    if (c->at->unknown >= CISCO_MAX)
        return ANSWER_CLOSED;
    c->at->unknown += !is_known;
    return ANSWER_TOLD;
}

const struct rule rule_cisco = {.name = "Cisco DHAP (25 an hour)",
                                .begin = begin_cisco,
                                .end = free,
                                .open = open_cisco,
                                .mail = mail_cisco,
                                .rcpt = rcpt_cisco,
                                .data = data_always};
