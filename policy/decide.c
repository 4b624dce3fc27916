#include "policy/decide.h"

#include <stddef.h>

static const struct {
    const char *word;
    enum policy_class class;
    bool is_monitored;
} reasons[] = {
#define POLICY_REASON(id, word, class, monitored) {word, POLICY_CLASS_##class, monitored},
#include "policy/reason.def"
#undef POLICY_REASON
};

const char *
policy_reason_text(enum policy_reason reason)
{
    return reasons[reason].word;
}

enum policy_class
policy_reason_class(enum policy_reason reason)
{
    return reasons[reason].class;
}

/* The judges, in the contract's order.  Each answers what it finds, or NONE to pass the question
 * on. */

static enum policy_reason
judge_harvest(const struct decide_input *in)
{
    switch (in->state) {
    case POLICY_ACTION_NONE:
        return POLICY_REASON_NONE;
    case POLICY_ACTION_BLIND:
        return POLICY_REASON_BLIND;
    case POLICY_ACTION_REJECT:
    case POLICY_ACTION_DISCONNECT:
    case POLICY_ACTION_BLOCK:
        return POLICY_REASON_HARVEST;
    }
    return POLICY_REASON_NONE;
}

static enum policy_reason
judge_syntax(const struct decide_input *in)
{
    return in->is_bad_syntax ? POLICY_REASON_SYNTAX : POLICY_REASON_NONE;
}

static enum policy_reason
judge_route(const struct decide_input *in)
{
    if (!in->has_domain)
        return POLICY_REASON_RELAY;
    if (!in->is_route_up)
        return POLICY_REASON_ROUTE;
    /* Before the directory, so that what is over a limit tells nobody who is there. */
    if (in->is_other_route)
        return POLICY_REASON_OTHER_ROUTE;
    if (in->is_full)
        return in->is_halved ? POLICY_REASON_HALVED : POLICY_REASON_LIMIT;
    return POLICY_REASON_NONE;
}

static enum policy_reason
judge_blocked(const struct decide_input *in)
{
    return in->is_blocked ? POLICY_REASON_BLOCKED : POLICY_REASON_NONE;
}

static enum policy_reason
judge_listing(const struct decide_input *in)
{
    return in->listing == DECIDE_LISTING_LISTED ? POLICY_REASON_DNSBL : POLICY_REASON_NONE;
}

static enum policy_reason
judge_recipient(const struct decide_input *in)
{
    if (in->is_trap)
        return POLICY_REASON_UNKNOWN;
    switch (in->recipient) {
    case DECIDE_RECIPIENT_UNASKED:
    case DECIDE_RECIPIENT_FOUND:
        return POLICY_REASON_NONE;
    case DECIDE_RECIPIENT_UNAVAILABLE:
        return in->is_failure_accepted ? POLICY_REASON_NONE : POLICY_REASON_DIRECTORY;
    case DECIDE_RECIPIENT_ABSENT:
        return POLICY_REASON_UNKNOWN;
    }
    return POLICY_REASON_NONE;
}

static enum policy_reason
judge_restrictions(const struct decide_input *in)
{
    if (in->recipient != DECIDE_RECIPIENT_FOUND || in->is_trap)
        return POLICY_REASON_NONE;
    if (in->is_restricted)
        return POLICY_REASON_RESTRICTED;
    if (in->max_size != 0 && in->size > in->max_size)
        return POLICY_REASON_SIZE;
    return POLICY_REASON_NONE;
}

/* With stage = data what the directory knows is told at DATA only. */
static bool
is_told_late(enum policy_reason reason)
{
    return reason == POLICY_REASON_UNKNOWN || reason == POLICY_REASON_RESTRICTED ||
           reason == POLICY_REASON_SIZE;
}

/* Take REASON into D. True if it ends the judgement: not under monitor, where a later reason may be
 * one that is given, nor if it is told late. */
static bool
found(const struct decide_input *in, enum policy_reason reason, struct decision *d)
{
    if (reason == POLICY_REASON_NONE)
        return false;
    if (in->is_monitor && reasons[reason].is_monitored) {
        if (d->reason == POLICY_REASON_NONE) {
            d->reason = reason;
            d->is_would = true;
        }
        return false;
    }
    if (in->is_late && is_told_late(reason)) {
        if (d->reason == POLICY_REASON_NONE) {
            d->reason = reason;
            d->is_late = true;
        }
        return false;
    }
    *d = (struct decision){.verdict = DECIDE_REFUSE, .reason = reason};
    return true;
}

static struct decision
ask(enum decide_verdict question)
{
    return (struct decision){.verdict = question};
}

struct decision
decide(const struct decide_input *in)
{
    static enum policy_reason (*const before_postmaster[])(const struct decide_input *) = {
        judge_harvest, judge_syntax, judge_route};
    struct decision d = {.verdict = DECIDE_ACCEPT};
    bool is_counted;

    for (size_t i = 0; i < sizeof before_postmaster / sizeof before_postmaster[0]; i++)
        if (found(in, before_postmaster[i](in), &d))
            return d;
    if (in->is_postmaster) {
        if (d.reason == POLICY_REASON_NONE)
            d.reason = POLICY_REASON_POSTMASTER;
        return d;
    }
    if (found(in, judge_blocked(in), &d))
        return d;
    if (in->listing == DECIDE_LISTING_UNASKED)
        return ask(DECIDE_ASK_LISTING);
    if (found(in, judge_listing(in), &d))
        return d;
    if (in->recipient == DECIDE_RECIPIENT_UNASKED && !in->is_trap)
        return ask(DECIDE_ASK_DIRECTORY);
    /* Not behind what monitor alone lets pass: nobody would have been asked. */
    is_counted = d.reason == POLICY_REASON_NONE &&
                 (in->is_trap || (in->recipient == DECIDE_RECIPIENT_ABSENT && !in->was_known));
    if (found(in, judge_recipient(in), &d) || found(in, judge_restrictions(in), &d)) {
        d.is_counted = is_counted;
        return d;
    }
    d.is_counted = is_counted;
    if (d.reason == POLICY_REASON_NONE && in->recipient == DECIDE_RECIPIENT_UNAVAILABLE)
        d.reason = POLICY_REASON_FAILURE;
    if (in->is_marked && !d.is_late)
        d.verdict = DECIDE_ASK_DOWNSTREAM;
    return d;
}

struct decision
decide_harvest(const struct decide_input *in, struct decision d, const struct policy_harvest *h)
{
    if (in->is_monitor)
        return d;
    switch (h->action) {
    case POLICY_ACTION_DISCONNECT:
    case POLICY_ACTION_BLOCK:
        return (struct decision){
            .verdict = DECIDE_CLOSE, .reason = POLICY_REASON_HARVEST, .delay_ms = h->delay_ms};
    case POLICY_ACTION_NONE:
    case POLICY_ACTION_REJECT:
    case POLICY_ACTION_BLIND:
        break;
    }
    if (d.verdict == DECIDE_REFUSE || d.is_late)
        d.delay_ms = h->delay_ms;
    return d;
}
