#include "policy/remote_domain.h"

#include <stdio.h>
#include <string.h>

#include "conf/settings.h"

bool
remote_domain_wants_proof(const struct settings_remote_domain *section)
{
    return section->ndr == SETTINGS_NDR_UNPROVEN;
}

struct remote_rules
remote_domain_rules(const struct settings_remote_domain *section, bool is_proven)
{
    return (struct remote_rules){
        .no_ndr = section->ndr == SETTINGS_NDR_NO ||
                  (section->ndr == SETTINGS_NDR_UNPROVEN && !is_proven),
        .no_delivery_reports = !section->delivery_reports,
        .no_read_receipts = !section->read_receipts,
        .no_auto_replies = !section->auto_replies,
    };
}

unsigned
remote_domain_notify(const struct remote_rules *rules, unsigned notify)
{
    if (rules->no_ndr)
        return REMOTE_NOTIFY_NEVER;
    if (!rules->no_delivery_reports || (notify & REMOTE_NOTIFY_SUCCESS) == 0)
        return notify;
    notify &= ~REMOTE_NOTIFY_SUCCESS;
    return notify == 0 ? REMOTE_NOTIFY_NEVER : notify;
}

bool
remote_domain_needs_dsn(const struct remote_rules *rules)
{
    return rules->no_ndr || rules->no_delivery_reports;
}

bool
remote_domain_strips(const struct remote_rules *rules, struct span name)
{
    return rules->no_read_receipts && (span_is_nocase(name, "Disposition-Notification-To") ||
                                       span_is_nocase(name, "Return-Receipt-To"));
}

size_t
remote_domain_header(const struct remote_rules *rules, bool has_dsn, char out[REMOTE_HEADER_TEXT])
{
    const char *values[2] = {NULL, NULL};
    size_t n = 0;
    int length;

    if (rules->no_auto_replies)
        values[n++] = "OOF, AutoReply";
    if (rules->no_ndr && (rules->no_auto_replies || !has_dsn))
        values[n++] = "DR, NDR";
    else if (rules->no_delivery_reports && !has_dsn)
        values[n++] = "DR";
    out[0] = '\0';
    if (n == 0)
        return 0;
    length = snprintf(out, REMOTE_HEADER_TEXT, "X-Auto-Response-Suppress: %s%s%s\r\n", values[0],
                      n == 2 ? ", " : "", n == 2 ? values[1] : "");
    return (size_t)length;
}
