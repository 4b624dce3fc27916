#include "proxy/session/recipient.h"

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
