#define _POSIX_C_SOURCE 200809L /* fmemopen */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/settings.h"
#include "policy/decide.h"
#include "policy/policy.h"
#include "rules.h"

/* Postern's own policy code, mostly under its defaults, asked in a session's order
 * (policy/policy.h). */

#define WALL_S  ((int64_t)1793491200) /* 2026-11-01 */
#define TICK_MS 60000

struct postern {
    struct settings *st;
    struct policy *policy;
    struct policy_session session;
    struct policy_transaction transaction;
    bool is_null;
    int64_t now_ms, ticked_ms;
};

static const char text[] = "[server]\nhostname = mx.example.com\nstate_dir =\n"
                           "[domain example.com]\ndownstream = exchange\nrecipients = any\n"
                           "[downstream exchange]\nhosts = 192.0.2.1\n[harvest]\n";

static void
write_settings(const char *settings, FILE *out)
{
    (void)fputs(text, out);
    for (const char *p = settings; p != NULL && *p != '\0'; p++)
        (void)fputc(*p == ',' ? '\n' : *p, out);
    (void)fputc('\n', out);
    rewind(out);
}

static void *
begin(const struct rule *rule)
{
    struct postern *p = calloc(1, sizeof *p);
    struct faults *f = faults_new();
    FILE *in = tmpfile();
    struct err e = {.kind = ERR_NONE};

    if (p == NULL || f == NULL || in == NULL)
        abort();
    write_settings(rule->settings, in);
    p->st = settings_read(in, "settings", f);
    (void)fclose(in);
    faults_free(&f);
    if (p->st != NULL)
        p->policy = policy_new(p->st, 0, WALL_S, &e);
    if (p->policy == NULL) {
        (void)fprintf(stderr, "these settings are not taken: %s\n", e.text);
        abort();
    }
    return p;
}

static void
end(void *state)
{
    struct postern *p = state;

    policy_free(&p->policy, p->st, p->now_ms, WALL_S + p->now_ms / 1000);
    settings_unref(p->st);
    free(p);
}

static bool
check(struct postern *p)
{
    return policy_session_check(p->policy, p->st, &p->session, p->now_ms) == POLICY_STANDING_OK;
}

static bool
open_session(void *state, const struct netaddr *client, int64_t now_ms)
{
    struct postern *p = state;

    for (; p->ticked_ms + TICK_MS <= now_ms; p->ticked_ms += TICK_MS)
        policy_tick(p->policy, p->st, p->ticked_ms, WALL_S + p->ticked_ms / 1000);
    p->now_ms = now_ms;
    policy_session_begin(&p->session, p->st, client, false);
    return check(p);
}

static bool
mail(void *state, bool is_null)
{
    struct postern *p = state;

    p->is_null = is_null;
    memset(&p->transaction, 0, sizeof p->transaction);
    return check(p);
}

static struct span
name(char out[64], uint32_t who)
{
    (void)snprintf(out, 64, "user%u@example.com", who);
    return span_str(out);
}

static enum answer
rcpt(void *state, uint32_t who, bool is_known, int64_t *delay_ms)
{
    struct postern *p = state;
    struct decide_input in = {.state = policy_session_state(&p->session, p->is_null),
                              .has_domain = true,
                              .is_route_up = true,
                              .listing = DECIDE_LISTING_CLEAR,
                              .recipient =
                                  is_known ? DECIDE_RECIPIENT_FOUND : DECIDE_RECIPIENT_ABSENT};
    struct decision d = decide(&in);
    char address[64];

    if (d.is_counted) {
        struct policy_harvest h = policy_unknown(p->policy, p->st, &p->session, &p->transaction,
                                                 name(address, who), p->is_null, p->now_ms);
        *delay_ms += h.delay_ms;
        d = decide_harvest(&in, d, &h);
    }
    if (d.verdict == DECIDE_CLOSE)
        return ANSWER_CLOSED;
    if (d.verdict == DECIDE_ACCEPT || d.reason == POLICY_REASON_UNKNOWN)
        return ANSWER_TOLD;
    return policy_reason_class(d.reason) == POLICY_CLASS_DEFER ? ANSWER_PUT_OFF : ANSWER_REFUSED;
}

static bool
data(void *state, const uint32_t *accepted, size_t n)
{
    struct postern *p = state;
    char address[64];

    if (p->session.state == POLICY_ACTION_REJECT ||
        policy_transaction_refused(p->st, &p->session, &p->transaction, n))
        return false;
    for (size_t i = 0; i < n; i++) {
        struct span a = name(address, accepted[i]);
        policy_served(p->policy, p->st, &p->session.client, &a, 1, p->now_ms);
    }
    return true;
}

const struct rule rule_postern = {.name = "Postern",
                                  .begin = begin,
                                  .end = end,
                                  .open = open_session,
                                  .mail = mail,
                                  .rcpt = rcpt,
                                  .data = data};
