#define _POSIX_C_SOURCE 200809L

#include "policy/event.h"

#include <stdio.h>
#include <time.h>

#include "policy/status_code.h"

static void
log_network(struct log_line *l, const struct network *network)
{
    char text[NETWORK_TEXT];

    network_format(network, text);
    log_str(l, "client", text);
}

static void
log_until(struct log_line *l, int64_t until_s)
{
    char text[32];
    time_t t = (time_t)until_s;
    struct tm tm;

    if (until_s == 0 || gmtime_r(&t, &tm) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        log_str(l, "until", "session");
    else
        log_str(l, "until", text);
}

/* What sets a line apart from the ordinary one. */
static void
log_special(struct log_line *l, bool is_null, bool is_monitor)
{
    if (is_null)
        log_str(l, "from", "<>");
    if (is_monitor)
        log_str(l, "monitor", "yes");
}

void
event_harvest(const struct event_harvest *h)
{
    struct log_line l;

    log_begin(&l, LOG_LEVEL_NOTICE, "harvest");
    log_network(&l, h->network);
    log_int(&l, "count", h->count);
    log_fmt(&l, "ratio", "%.2f", h->ratio);
    log_str(&l, "action", policy_action_text(h->action));
    log_until(&l, h->until_s);
    if (h->limited != NULL)
        log_str(&l, "limited", h->limited);
    log_special(&l, h->is_null, h->is_monitor);
    log_end(&l);
}

void
event_block(bool is_block, const struct network *network, int64_t until_s, const char *by,
            bool is_null, bool is_monitor)
{
    struct log_line l;

    log_begin(&l, LOG_LEVEL_NOTICE, is_block ? "block" : "unblock");
    log_network(&l, network);
    log_until(&l, until_s);
    log_str(&l, "by", by);
    log_special(&l, is_null, is_monitor);
    log_end(&l);
}

void
event_status(struct log_line *l, const char *status, const char *reply)
{
    char text[1024];
    const struct status_code *code = NULL;

    log_str(l, "status", status);
    log_str(l, "reply", reply);
    if (l->level > LOG_LEVEL_NOTICE || !log_wants(l->level))
        return;
    /* The code first: it counts before any other that the reply's text may hold. */
    (void)snprintf(text, sizeof text, "%s %s", status, reply);
    code = status_code_find(span_str(text));
    if (code != NULL)
        log_str(l, "cause", code->cause);
}
