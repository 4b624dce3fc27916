#include "proxy/session/recipient.h"

#include <string.h>

/* postmaster@ the first accepted domain that is one, not a pattern. */
static void
default_postmaster(const struct settings *st, struct smtp_path *path)
{
    const char *domain = st->server.hostname;

    for (size_t i = 0; i < st->n_domains; i++) {
        if (st->domains[i].name[0] != '*') {
            domain = st->domains[i].name;
            break;
        }
    }
    size_t n = strlen("postmaster@");
    memcpy(path->text, "postmaster@", n);
    if (!span_copy(path->text + n, sizeof(path->text) - n, span_str(domain)))
        return;
    path->at = (uint16_t)(n - 1);
    path->n = (uint16_t)(n + strlen(domain));
    path->is_postmaster = false;
}

static bool
redirect_postmaster(const struct settings *st, struct smtp_path *path,
                    char canonical[SMTP_ADDRESS_MAX + 1], size_t *at)
{
    size_t used;
    char text[SMTP_ADDRESS_MAX + 3];

    if (st->server.postmaster != NULL) {
        size_t n = strlen(st->server.postmaster);
        if (n > SMTP_ADDRESS_MAX)
            return false;
        text[0] = '<';
        memcpy(text + 1, st->server.postmaster, n);
        text[n + 1] = '>';
        if (!smtp_path_parse(span_of(text, n + 2), false, false, true, path, &used))
            return false;
    } else if (path->is_postmaster) {
        default_postmaster(st, path);
    }
    return smtp_path_canonical(path, canonical, at) > 0;
}

static const struct settings_domain *
section_of(const struct settings *st, const char *canonical, size_t at)
{
    return settings_domain_for(st, span_str(canonical[at] == '@' ? canonical + at + 1 : ""));
}

const struct settings_domain *
recipient_domain(const struct settings *st, struct smtp_path *path,
                 char canonical[SMTP_ADDRESS_MAX + 1], size_t *at, struct decide_input *in)
{
    const struct settings_domain *asked = section_of(st, canonical, *at), *found = NULL;

    in->has_domain = asked != NULL || path->is_postmaster;
    in->is_postmaster =
        path->is_postmaster || (asked != NULL && span_is(span_of(canonical, *at), "postmaster"));
    if (!in->is_postmaster)
        return asked;
    if (redirect_postmaster(st, path, canonical, at))
        found = section_of(st, canonical, *at);
    if (found != NULL)
        return found;
    return asked != NULL ? asked : &st->domains[0];
}

void
recipient_take(struct decide_input *in, const struct dir_answer *a)
{
    switch (a->status) {
    case DIR_FOUND:
        in->recipient = DECIDE_RECIPIENT_FOUND;
        break;
    case DIR_ABSENT:
        in->recipient = DECIDE_RECIPIENT_ABSENT;
        break;
    case DIR_UNAVAILABLE:
    case DIR_PENDING:
        in->recipient = DECIDE_RECIPIENT_UNAVAILABLE;
        break;
    }
    in->was_known = a->was_known;
    in->is_restricted = a->is_restricted;
    in->max_size = a->max_size;
    in->is_failure_accepted = false;
    if (a->status == DIR_FOUND && a->source == DIR_SOURCE_NONE) {
        /* Found by nobody: on_failure = accept speaks. */
        in->recipient = DECIDE_RECIPIENT_UNAVAILABLE;
        in->is_failure_accepted = true;
    }
}

enum smtp_reply_id
recipient_reply(enum policy_reason reason)
{
    switch (reason) {
    case POLICY_REASON_NONE:
    case POLICY_REASON_POSTMASTER:
    case POLICY_REASON_FAILURE:
        return SMTP_REPLY_RECIPIENT_OK;
    case POLICY_REASON_SYNTAX:
        return SMTP_REPLY_BAD_RECIPIENT;
    case POLICY_REASON_HARVEST:
        return SMTP_REPLY_HARVEST_REJECT;
    case POLICY_REASON_BLIND:
        return SMTP_REPLY_HARVEST_BLIND;
    case POLICY_REASON_RELAY:
        return SMTP_REPLY_RELAY_DENIED;
    case POLICY_REASON_ROUTE:
        return SMTP_REPLY_NO_ROUTE;
    case POLICY_REASON_OTHER_ROUTE:
        return SMTP_REPLY_OTHER_ROUTE;
    case POLICY_REASON_LIMIT:
    case POLICY_REASON_HALVED:
        return SMTP_REPLY_TOO_MANY_RECIPIENTS;
    case POLICY_REASON_BLOCKED:
    case POLICY_REASON_RESTRICTED:
    case POLICY_REASON_BLOCKED_CLIENT:
    case POLICY_REASON_BLOCKED_SENDER:
        return SMTP_REPLY_ACCESS_DENIED;
    case POLICY_REASON_DNSBL:
        return SMTP_REPLY_CLIENT_LISTED;
    case POLICY_REASON_DIRECTORY:
        return SMTP_REPLY_DIRECTORY_DOWN;
    case POLICY_REASON_UNKNOWN:
        return SMTP_REPLY_USER_UNKNOWN;
    case POLICY_REASON_SIZE:
        return SMTP_REPLY_RECIPIENT_SIZE;
    case POLICY_REASON_DOWNSTREAM:
    case POLICY_REASON_COUNT:
        break;
    }
    return SMTP_REPLY_NO_ANSWER;
}

enum smtp_reply_id
recipient_data_reply(enum policy_reason reason)
{
    return reason == POLICY_REASON_RESTRICTED ? SMTP_REPLY_DATA_RESTRICTED
                                              : SMTP_REPLY_DATA_UNKNOWN;
}
