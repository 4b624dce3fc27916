#include "proxy/ops/control_lookup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "policy/acl.h"
#include "policy/decide.h"
#include "policy/mark.h"
#include "proxy/ops/choice_words.h"
#include "proxy/ops/json_text.h"
#include "proxy/ops/metrics.h"
#include "proxy/relay/host.h"
#include "proxy/server.h"
#include "proxy/session/recipient.h"
#include "proxy/smtp/address.h"
#include "proxy/smtp/reply.h"

struct lookups {
    struct server *srv;
    struct directory_client *client;
    struct event *readable, *deadline;
};

struct lookup {
    struct lookups *all;
    struct control_call *call;
    struct settings *settings;
    const struct settings_domain *domain;
    struct smtp_path path, sender_path;
    char address[SMTP_ADDRESS_MAX + 1]; /* canonical */
    char sender[SMTP_ADDRESS_MAX + 1];
    char asked[SMTP_ADDRESS_MAX + 1]; /* as it was written */
    struct decide_input in;
    json_t *answer;
    uint64_t ticket;
};

static void
set_deadline(struct lookups *l)
{
    int64_t next_ms = directory_client_next_ms(l->client);
    if (next_ms == INT64_MAX) {
        event_del(l->deadline);
        return;
    }
    int64_t left_ms = next_ms - clock_ms();
    if (left_ms < 0)
        left_ms = 0;
    struct timeval tv = {.tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000};
    evtimer_add(l->deadline, &tv);
}

static void
on_directory(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct lookups *l = arg;
    directory_client_dispatch(l->client, clock_ms());
    set_deadline(l);
}

struct lookups *
lookups_new(struct server *srv, struct event_base *base)
{
    struct lookups *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->srv = srv;
    l->client = directory_client_new(srv->directories);
    if (l->client) {
        l->readable =
            event_new(base, directory_client_fd(l->client), EV_READ | EV_PERSIST, on_directory, l);
        l->deadline = evtimer_new(base, on_directory, l);
    }
    if (!l->readable || !l->deadline || event_add(l->readable, NULL) == -1)
        lookups_free(&l);
    return l;
}

void
lookups_free(struct lookups **pl)
{
    struct lookups *l = *pl;
    if (!l)
        return;
    *pl = NULL;
    if (l->readable)
        event_free(l->readable);
    if (l->deadline)
        event_free(l->deadline);
    directory_client_free(&l->client);
    free(l);
}

struct directory_client *
lookups_client(struct lookups *l)
{
    return l->client;
}

static void
lookup_free(struct lookup *k)
{
    settings_unref(k->settings);
    json_decref(k->answer);
    free(k);
}

static void
on_cancel(void *arg)
{
    struct lookup *k = arg;
    directory_cancel(k->all->client, k->ticket);
    lookup_free(k);
}

static void
finish(struct lookup *k)
{
    control_answer(k->call, k->answer);
    k->answer = NULL;
    lookup_free(k);
}

static void
put(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

static json_t *
reply_line(enum smtp_reply_id id, const char *argument)
{
    char line[SMTP_REPLY_LINE];
    size_t n = smtp_reply_format(id, argument, line);
    return json_text(span_of(line, n - strlen("\r\n")));
}

/* The verdict, its reason, and the replies. */
static void
put_decision(struct lookup *k, const struct decision *d, const char *argument)
{
    enum metrics_verdict verdict = METRICS_VERDICT_ACCEPT;
    if (d->is_would)
        verdict = METRICS_VERDICT_WOULD_REJECT;
    else if (d->verdict != DECIDE_ACCEPT || d->is_late)
        verdict = policy_reason_class(d->reason) == POLICY_CLASS_DEFER ? METRICS_VERDICT_DEFER
                                                                       : METRICS_VERDICT_REJECT;
    enum smtp_reply_id refusal = d->reason == POLICY_REASON_BLOCKED_SENDER
                                     ? SMTP_REPLY_SENDER_BLOCKED
                                     : recipient_reply(d->reason);
    bool is_passed = d->verdict == DECIDE_ACCEPT;
    put(k->answer, "verdict", json_string(metrics_verdict_text(verdict)));
    put(k->answer, "reason", json_string(policy_reason_text(d->reason)));
    put(k->answer, "reply", reply_line(is_passed ? SMTP_REPLY_RECIPIENT_OK : refusal, argument));
    if (d->is_late)
        put(k->answer, "reply_at_data", reply_line(recipient_data_reply(d->reason), argument));
}

/* "attribute: value" a line, as a list. */
static json_t *
attributes(const char *text)
{
    json_t *list = json_array();
    struct span rest = span_str(text), line;
    while (span_next(&rest, '\n', &line)) {
        if (line.n)
            json_array_append_new(list, json_text(line));
    }
    return list;
}

static const char *
status_text(enum dir_status status)
{
    switch (status) {
    case DIR_ABSENT:
        return metrics_result_text(METRICS_RESULT_ABSENT);
    case DIR_FOUND:
        return metrics_result_text(METRICS_RESULT_FOUND);
    case DIR_UNAVAILABLE:
    case DIR_PENDING:
        break;
    }
    return metrics_result_text(METRICS_RESULT_UNAVAILABLE);
}

/* What the server itself says now: to be seen beside what was judged by. */
static void
on_live(void *arg, const struct dir_answer *a)
{
    struct lookup *k = arg;
    json_t *live = json_object();
    put(live, "result", json_string(status_text(a->status)));
    if (a->detail) {
        put(live, "directory", json_text_str(a->detail->directory));
        put(live, "server", json_text_str(a->detail->server));
        put(live, "dn", json_text_str(a->detail->dn));
        put(live, "attributes", attributes(a->detail->text));
        put(live, "error", json_text_str(a->detail->error));
    }
    put(k->answer, "live", live);
    finish(k);
}

static void
ask_live(struct lookup *k)
{
    struct dir_answer answer;
    enum dir_status status =
        directory_ask(k->all->client, k->domain, span_str(k->address), span_str(k->sender),
                      DIR_ASK_LIVE | DIR_ASK_DETAIL, clock_ms(), &answer, on_live, k, &k->ticket);
    if (status != DIR_PENDING)
        on_live(k, &answer);
}

/* A session would ask the downstream, and its answer would be the reply. */
static void
put_question(struct lookup *k)
{
    put(k->answer, "verdict", json_string("ask-downstream"));
    put(k->answer, "reply", json_string("what the downstream says to RCPT"));
}

static bool judge(struct lookup *k);

/* The directory's answer: take it down and judge by it. */
static void
on_answer(void *arg, const struct dir_answer *a)
{
    struct lookup *k = arg;
    recipient_take(&k->in, a);
    put(k->answer, "directory", json_string(status_text(a->status)));
    put(k->answer, "source", json_string(dir_source_text(a->source)));
    put(k->answer, "age_s", json_integer(a->age_ms / 1000));
    put(k->answer, "restricted", json_boolean(a->is_restricted));
    put(k->answer, "was_known", json_boolean(a->was_known));
    put(k->answer, "max_size", a->max_size ? json_integer((json_int_t)a->max_size) : json_null());
    judge(k);
    if (a->source == DIR_SOURCE_FILE)
        finish(k);
    else
        ask_live(k);
}

/* recipients = downstream: what it said is remembered; it is not asked for a look-up's sake. */
static void
recall(struct lookup *k)
{
    enum dir_status status = directories_recall(
        k->all->srv->directories, &k->settings->downstreams[k->domain->downstream_index],
        span_str(k->address), false, clock_ms());
    if (status == DIR_UNAVAILABLE) {
        put_question(k);
    } else {
        k->in.recipient = status == DIR_FOUND ? DECIDE_RECIPIENT_FOUND : DECIDE_RECIPIENT_ABSENT;
        put(k->answer, "directory", json_string(status_text(status)));
        put(k->answer, "source", json_string(metrics_source_text(METRICS_SOURCE_DOWNSTREAM)));
        judge(k);
    }
    finish(k);
}

static void
ask(struct lookup *k)
{
    if (k->domain->recipients == SETTINGS_RECIPIENTS_DOWNSTREAM) {
        recall(k);
        return;
    }
    struct dir_answer answer;
    enum dir_status status =
        directory_ask(k->all->client, k->domain, span_str(k->address), span_str(k->sender), 0,
                      clock_ms(), &answer, on_answer, k, &k->ticket);
    if (status != DIR_PENDING)
        on_answer(k, &answer);
}

/* Decide by what is known; false: the directory is to be asked first. */
static bool
judge(struct lookup *k)
{
    struct decision d = decide(&k->in);
    switch (d.verdict) {
    case DECIDE_ASK_DIRECTORY:
        return false;
    case DECIDE_ASK_DOWNSTREAM:
        put_question(k);
        return true;
    case DECIDE_ASK_LISTING: /* it is set */
    case DECIDE_ACCEPT:
    case DECIDE_REFUSE:
    case DECIDE_CLOSE:
        break;
    }
    put_decision(k, &d, k->asked);
    return true;
}

/* TEXT, with or without its brackets, as a path and in its canonical form, as in MAIL and RCPT. */
static bool
parse(const char *text, bool is_sender, struct smtp_path *path, char out[SMTP_ADDRESS_MAX + 1],
      size_t *at)
{
    char bracketed[SMTP_ADDRESS_MAX + 3];
    size_t used;
    int n = snprintf(bracketed, sizeof bracketed, *text == '<' ? "%s" : "<%s>", text);
    if (n < 0 || (size_t)n >= sizeof bracketed ||
        !smtp_path_parse(span_of(bracketed, (size_t)n), is_sender, !is_sender, true, path, &used) ||
        used != (size_t)n)
        return false;
    return smtp_path_canonical(path, out, at) > 0 || path->is_null;
}

/* What is known without asking anybody: the domain's rule, the route, the lists, the marks. */
static void
look_around(struct lookup *k)
{
    const struct settings *st = k->settings;
    k->in.listing = DECIDE_LISTING_CLEAR;
    k->in.is_monitor = st->server.monitor;
    k->in.is_late = st->harvest.stage == SETTINGS_STAGE_DATA;
    if (!k->domain)
        return;
    const struct route *route = hosts_route(k->all->srv->hosts, k->domain->downstream);
    k->in.is_route_up = route && route_is_up(route);
    k->in.is_blocked = acl_recipient_blocked(st, span_str(k->address));
    k->in.is_trap = acl_is_trap(st, span_str(k->address));
    k->in.is_marked =
        marks_has(policy_marks(k->all->srv->policy), span_str(k->address), clock_ms());
    if (k->domain->recipients == SETTINGS_RECIPIENTS_ANY)
        k->in.recipient = DECIDE_RECIPIENT_FOUND;
    put(k->answer, "domain", json_text_str(k->domain->name));
    put(k->answer, "recipients", json_string(choice_words_RECIPIENTS[k->domain->recipients]));
    put(k->answer, "downstream", json_text_str(k->domain->downstream));
    put(k->answer, "downstream_up", json_boolean(k->in.is_route_up));
    put(k->answer, "blocked", json_boolean(k->in.is_blocked));
    if (k->in.is_trap)
        put(k->answer, "trap", json_true());
    put(k->answer, "marked", json_boolean(k->in.is_marked));
}

/* Does MAIL FROM end it?  Then the recipient is not judged at all. */
static bool
is_sender_refused(struct lookup *k)
{
    if (!acl_sender_blocked(k->settings, span_str(k->sender)))
        return false;
    struct decision d = {.verdict = DECIDE_REFUSE, .reason = POLICY_REASON_BLOCKED_SENDER};
    put_decision(k, &d, k->sender_path.text);
    return true;
}

/* The route's being down says nothing of the recipient, of whom somebody wants to know all the
 * same. */
static bool
has_only_no_route(const struct lookup *k)
{
    return k->domain && !k->in.is_route_up &&
           k->domain->recipients == SETTINGS_RECIPIENTS_DIRECTORY;
}

static struct lookup *
lookup_new(struct lookups *l, struct control_call *call)
{
    struct lookup *k = calloc(1, sizeof *k);
    if (k)
        k->answer = json_object();
    if (!k || !k->answer) {
        free(k);
        return NULL;
    }
    k->all = l;
    k->call = call;
    k->settings = server_settings(l->srv);
    return k;
}

void
lookups_start(struct lookups *l, struct control_call *call, const char *address, const char *sender)
{
    size_t at;
    struct lookup *k = lookup_new(l, call);
    if (!k) {
        control_refuse(call, "out of memory");
        return;
    }
    if (!parse(sender, true, &k->sender_path, k->sender, &at)) {
        control_refuse(call, "SENDER is not an address: %s", sender);
        lookup_free(k);
        return;
    }
    control_defer(call, on_cancel, k);
    put(k->answer, "address", json_text_str(address));
    k->in.is_bad_syntax = !parse(address, false, &k->path, k->address, &at);
    if (!k->in.is_bad_syntax) {
        memcpy(k->asked, k->path.text, k->path.n + 1u);
        k->domain = recipient_domain(k->settings, &k->path, k->address, &at, &k->in);
    }
    put(k->answer, "canonical", json_text_str(k->address));
    put(k->answer, "sender", json_text_str(k->sender));
    if (!k->in.is_bad_syntax)
        look_around(k);
    if (is_sender_refused(k))
        finish(k);
    else if (!judge(k))
        ask(k);
    else if (has_only_no_route(k))
        ask_live(k);
    else
        finish(k);
    set_deadline(l);
}
