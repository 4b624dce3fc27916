#include <string.h>

#include "conf/settings.h"
#include "policy/acl.h"
#include "policy/policy_private.h"

/* Whom a session belongs to, and what is in force for it. */

#define WIDE4 24u
#define WIDE6 48u

static struct network
wide_of(const struct network *network, const struct netaddr *address)
{
    uint8_t prefix = address->family == 6 ? WIDE6 : WIDE4;

    return network->prefix > prefix ? network_of(address, prefix) : (struct network){0};
}

void
policy_session_begin(struct policy_session *s, const struct settings *st,
                     const struct netaddr *address, bool is_told)
{
    struct policy_client *c = &s->client;

    memset(s, 0, sizeof *s);
    c->address = *address;
    c->network = network_of(
        address, (uint8_t)(address->family == 6 ? st->harvest.prefix6 : st->harvest.prefix4));
    c->wide = wide_of(&c->network, address);
    c->is_allowed = network_list_contains(&st->harvest.allow, address) &&
                    !(is_told && netaddr_is_loopback(address));
    c->is_private = netaddr_is_private(address);
}

bool
policy_is_counted(const struct settings *st, const struct policy_client *c)
{
    return st->harvest.enabled && !c->is_allowed && c->address.family != 0;
}

bool
policy_is_in_force(const struct ledger_hold *h, uint32_t now_s)
{
    return h->is_on && h->until_s > now_s;
}

bool
policy_is_trusted(const struct settings *st, const struct ledger_entry *e, struct ledger_now now)
{
    uint32_t wanted = (uint32_t)st->harvest.trusted_recipients;

    if (wanted == 0)
        return false;
    /* More than this is not counted over 7 days. */
    if (wanted > WINDOW_EXACT)
        wanted = WINDOW_EXACT;
    return ledger_served_week(e, now) >= wanted;
}

static bool
is_trusted_client(struct policy *p, const struct settings *st, const struct policy_client *c,
                  struct ledger_now now)
{
    struct ledger_entry *e = ledger_open(p->ledger, &c->network, false, now);
    bool trusted;

    if (e == NULL)
        return false;
    trusted = policy_is_trusted(st, e, now);
    ledger_close(p->ledger, e);
    return trusted;
}

/* Bring S up to date with the holds on NETWORK; true if an operator blocked it. */
static bool
apply_holds(struct policy *p, const struct settings *st, struct policy_session *s,
            const struct network *network, struct ledger_now now)
{
    struct ledger_entry *e = ledger_open(p->ledger, network, false, now);
    struct ledger_hold hold[2];

    if (e == NULL)
        return false;
    memcpy(hold, e->hold, sizeof hold);
    ledger_close(p->ledger, e);
    for (int is_null = 0; is_null < 2; is_null++) {
        if (!policy_is_in_force(&hold[is_null], now.s) ||
            (hold[is_null].is_monitor && !st->server.monitor))
            continue;
        if (hold[is_null].by == POLICY_BY_CONTROL)
            return true;
        if (!policy_is_counted(st, &s->client) ||
            (s->client.is_private && !st->harvest.block_private))
            continue;
        /* A trusted client does not answer for its neighbours, nor for a block that began before
         * what made it trusted was delivered. */
        if (is_trusted_client(p, st, &s->client, now))
            continue;
        if (is_null == 1)
            s->null_state = POLICY_ACTION_BLIND;
        else
            s->state = (enum policy_action)hold[0].action;
    }
    return false;
}

/* All holds that S's address lies in. */
static bool
apply_all_holds(struct policy *p, const struct settings *st, struct policy_session *s,
                int64_t now_ms)
{
    struct ledger_now now = policy_moment(st, now_ms);
    uint8_t prefixes[129];
    size_t n = ledger_held_prefixes(p->ledger, s->client.address.family, prefixes);

    for (size_t i = 0; i < n; i++) {
        struct network network = network_of(&s->client.address, prefixes[i]);
        if (apply_holds(p, st, s, &network, now))
            return true;
    }
    return false;
}

enum policy_standing
policy_session_check(struct policy *p, const struct settings *st, struct policy_session *s,
                     int64_t now_ms)
{
    if (acl_client_blocked(st, &s->client.address))
        return POLICY_STANDING_LISTED;
    /* Look up again what lasts as long as the block; keep what lasts as long as the session.
     */
    if (s->state == POLICY_ACTION_BLOCK || s->state == POLICY_ACTION_BLIND)
        s->state = POLICY_ACTION_NONE;
    if (s->null_state == POLICY_ACTION_BLIND)
        s->null_state = POLICY_ACTION_NONE;
    if (apply_all_holds(p, st, s, now_ms))
        return POLICY_STANDING_BLOCKED;
    return s->state == POLICY_ACTION_BLOCK && !st->server.monitor ? POLICY_STANDING_BLOCKED
                                                                  : POLICY_STANDING_OK;
}

void
policy_session_blind(struct policy *p, const struct settings *st, struct policy_session *s,
                     int64_t now_ms)
{
    struct policy_session seen = *s;

    (void)apply_all_holds(p, st, &seen, now_ms);
    if (s->state == POLICY_ACTION_NONE && seen.state == POLICY_ACTION_BLIND)
        s->state = seen.state;
    if (s->null_state == POLICY_ACTION_NONE)
        s->null_state = seen.null_state;
}

enum policy_action
policy_session_state(const struct policy_session *s, bool is_null_sender)
{
    if (s->state == POLICY_ACTION_NONE && is_null_sender && s->null_state != POLICY_ACTION_NONE)
        return POLICY_ACTION_BLIND;
    return s->state;
}

static uint32_t
tarpit_ms(const struct settings *st, const struct policy_session *s, uint32_t times)
{
    int64_t delay = st->harvest.tarpit * times, longest = st->harvest.tarpit_max;

    if (!policy_is_counted(st, &s->client))
        return 0;
    return (uint32_t)(delay < longest ? delay : longest);
}

uint32_t
policy_tarpit_ms(const struct settings *st, const struct policy_session *s)
{
    return tarpit_ms(st, s, s->unknown);
}

uint32_t
policy_blind_ms(const struct settings *st, const struct policy_session *s)
{
    return tarpit_ms(st, s, 1);
}
