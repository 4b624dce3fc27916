#include "policy/acl.h"

#include "conf/settings.h"

/* Where the domain begins, with its @; the end if there is none.  A quoted local part may hold an
 * @. */
static size_t
at_of(struct span address)
{
    size_t i = address.n;

    while (i > 0 && address.p[i - 1] != '@')
        i--;
    return i > 0 ? i - 1 : address.n;
}

bool
acl_contains(char *const *entries, size_t n, struct span address)
{
    size_t at;
    struct span domain;

    if (n == 0)
        return false;
    at = at_of(address);
    domain = span_of(address.p + at, address.n - at);
    for (size_t i = 0; i < n; i++) {
        struct span entry = span_str(entries[i]);
        if (entry.n > 0 && span_equal_nocase(entry, entry.p[0] == '@' ? domain : address))
            return true;
    }
    return false;
}

bool
acl_client_blocked(const struct settings *st, const struct netaddr *client)
{
    return network_list_contains(&st->blocked.clients, client);
}

bool
acl_sender_blocked(const struct settings *st, struct span sender)
{
    return sender.n > 0 && acl_contains(st->blocked.senders.v, st->blocked.senders.n, sender);
}

bool
acl_recipient_blocked(const struct settings *st, struct span recipient)
{
    return acl_contains(st->blocked.recipients.v, st->blocked.recipients.n, recipient);
}

bool
acl_is_trap(const struct settings *st, struct span recipient)
{
    return acl_contains(st->harvest.traps.v, st->harvest.traps.n, recipient);
}

bool
acl_is_role(struct span recipient)
{
    struct span local = span_of(recipient.p, at_of(recipient));

    return span_is_nocase(local, "postmaster") || span_is_nocase(local, "abuse");
}
